//go:build e2e

package e2e_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// Every command of the runbooks that asks a program works as it stands there, once the names are filled in; and the doctor, which they
// all begin with, finds what runs here in order: it asks whom a running signer asks.
func TestRunbookCommands(t *testing.T) {
	t.Parallel()
	p := newProofs(t, "rekor-v1")
	w := newWorld(t, p.asked("deferred", "optional"))
	w.awaitLogged(t, w.pushImage(t, "app", "v1"))
	shell := []string{
		"PATH=" + os.Getenv("PATH"), "SIGNER=http://" + w.Signers[0].Ops, "RECEIVER=http://" + w.Receiver.Ops, "API=" + w.URL,
		"TOKEN=" + w.changer(t),
	}
	commands := make(map[string]bool)
	for _, page := range runbookPages(t) {
		for _, span := range regexp.MustCompile("`([^`]*curl -sS [^`]*)`").FindAllStringSubmatch(textOf(t, page), -1) {
			commands[strings.ReplaceAll(span[1], "<project>", w.project)] = true
		}
	}
	if len(commands) < 10 {
		t.Fatalf("the runbooks have the commands %v: are they written in another way now?", commands)
	}
	for command := range commands {
		t.Run(command, func(t *testing.T) {
			// --fail makes an answer such as 403 an error. No line that a search finds is one, too.
			failing := strings.ReplaceAll(command, "curl -sS", "curl -sS --fail-with-body")
			cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", failing) //nolint:gosec // a command of our documentation
			cmd.Env = shell
			out, err := cmd.CombinedOutput()
			nothing := strings.HasSuffix(command, "grep -v ' 0$'") || strings.HasSuffix(command, "_failures_total")
			if exit := (*exec.ExitError)(nil); nothing && len(out) == 0 && errors.As(err, &exit) && exit.ExitCode() == 1 {
				return // nothing has failed
			}
			if err != nil || len(out) == 0 {
				t.Errorf("%v, with %q, want an answer", err, out)
			}
		})
	}
	w.doctorAgrees(t)
}

// changer writes a token with the scope change beside the one that opens the report, and waits until it counts.
func (w *world) changer(t *testing.T) string {
	t.Helper()
	token, path := rand.Text(), filepath.Join(w.dir, "api.tokens")
	text := textOf(t, path) + fmt.Sprintf("operator:%x:change\n", sha256.Sum256([]byte(token)))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.until(t, func(ctx context.Context) error {
		answer, err := w.Call(ctx, harness.Credentials{Token: token}, "GET", "/api/v1/projects", nil, nil)
		if err == nil && answer.Status != 200 {
			err = fmt.Errorf("a new token gets %d", answer.Status)
		}
		return err
	})
	return token
}

// doctorAgrees compares what the doctor says of dependencies with what the running signer says.
func (w *world) doctorAgrees(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, env.programs.Signer, "doctor", "--config", filepath.Join(w.dir, w.Signers[0].Name+".yaml"), "-o", "json") //nolint:gosec // the program under test
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir}
	out, _ := cmd.Output() // Its status says what the report does.
	var report struct {
		Checks []struct{ Name, Subject, Status, Detail string } `json:"checks"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("signer doctor: %v\n%s", err, out)
	}
	var found []string
	for _, check := range report.Checks {
		if check.Name == "dependency" {
			found = append(found, check.Subject)
			if check.Status != "ok" {
				t.Errorf("signer doctor says of %s: %s, %s; the signer uses it", check.Subject, check.Status, check.Detail)
			}
		}
	}
	if want := []string{onLog, onStamps}; !slices.Equal(found, want) {
		t.Errorf("signer doctor has asked %q, want %q", found, want)
	}
}
