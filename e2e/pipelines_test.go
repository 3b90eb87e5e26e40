//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/harborseal/harborseal/e2e/harness"
)

// pipelineLimit is met only when something hangs.
const pipelineLimit = time.Minute

// awayFor is how long nobody listens: longer than the answer to who waited says to stay away.
const awayFor = 3 * time.Second

// pipelines gives what the systems of docs/pipelines.md run in a shell, from their own snippets.
func pipelines(t *testing.T) map[string]string {
	t.Helper()
	page := textOf(t, "../docs/pipelines.md")
	snippet := func(title string) string {
		t.Helper()
		found := regexp.MustCompile("(?s)\n## " + title + "\n+```[a-z]+\n(.*?)```").FindStringSubmatch(page)
		if found == nil {
			t.Fatalf("docs/pipelines.md has no snippet for %s", title)
		}
		return found[1]
	}
	read := func(title string, into any) {
		t.Helper()
		if err := yaml.Unmarshal([]byte(snippet(title)), into); err != nil {
			t.Fatalf("%s: %v", title, err)
		}
	}
	var gitlab struct {
		Signed struct{ Script []string }
	}
	var github []struct{ Run string }
	var tekton struct {
		Spec struct {
			Steps []struct{ Script string }
		}
	}
	read("GitLab CI", &gitlab)
	read("GitHub Actions", &github)
	read("Tekton", &tekton)
	if len(github) != 1 || len(tekton.Spec.Steps) != 1 {
		t.Fatalf("%d steps for GitHub and %d for Tekton, want one each", len(github), len(tekton.Spec.Steps))
	}
	jenkins := regexp.MustCompile(`(?m)^ *sh '([^']+)'$`).FindStringSubmatch(snippet("Jenkins"))
	if jenkins == nil {
		t.Fatal("Jenkins: there is no step sh '…'")
	}
	line := regexp.MustCompile(`(?m)^    (curl .*/api/v1/status")$`).FindStringSubmatch(page)
	if line == nil {
		t.Fatal("docs/pipelines.md has no line of curl")
	}
	return map[string]string{
		"the line": line[1], "GitLab CI": strings.Join(gitlab.Signed.Script, "\n"), "GitHub Actions": github[0].Run, "Jenkins": jenkins[1],
		"Tekton": tekton.Spec.Steps[0].Script,
	}
}

// The lines of docs/pipelines.md wait for a signature with the account that has pushed, and fail where there will be none.
func TestPipelines(t *testing.T) {
	t.Parallel()
	names := someProjects(2)
	m := newManaged(t, env.harbor, names)
	signed, never := names[0], names[1]
	m.enable(t, signed, settings{"backfill": "none"})
	image := func(repository string) string {
		t.Helper()
		return env.harbor.Host + "/" + repository + "@" + m.pushInto(t, repository, "v1").Digest
	}
	run := func(t *testing.T, script, image string, wants bool, says string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), pipelineLimit)
		defer cancel()
		cmd := exec.CommandContext(ctx, "sh", "-ec", script) //nolint:gosec // the documentation's own commands
		robot := m.site.Developer
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HARBOR_USER=" + robot.Name, "HARBOR_PASSWORD=" + robot.Secret, "IMAGE=" + image, "HARBORSEAL=" + m.URL}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		if (err == nil) != wants || !strings.Contains(out.String(), says) {
			t.Errorf("%s: %v, %s; want success: %t, with %q", image, err, out.Bytes(), wants, says)
		}
	}
	scripts := pipelines(t)
	line := scripts["the line"]
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			if got := strings.TrimPrefix(strings.TrimSpace(script), "#!/bin/sh\n"); name != "the line" && got != strings.Replace(line, "-fsS", "-sS --fail-with-body", 1) {
				t.Errorf("it runs %s, want the line, with the answer shown", got)
			}
			run(t, script, image(signed+"/"+harness.Random("app-")), true, `"state":"signed"`)
			run(t, script, "other.example.com/demo/app:v1", false, "400")
			if name != "the line" { // which shows no answer
				run(t, script, image(never+"/app"), false, "project_not_enabled")
			}
		})
	}

	t.Run("through a restart", func(t *testing.T) {
		// The receiver ends under the question, and nobody listens for a while.
		signer := m.Signers[0]
		if err := signer.Process.Stop(); err != nil {
			t.Fatal(err)
		}
		what, ended := image(signed+"/restart"), make(chan struct{})
		go func() {
			defer close(ended)
			run(t, line, what, true, `"state":"signed"`)
		}()
		m.awaitWaiter(t)
		if err := m.Receiver.Process.Stop(); err != nil {
			t.Error(err)
		}
		select {
		case <-ended: // it has given up, and says so
		case <-time.After(awayFor):
		}
		for _, program := range []*harness.Program{m.Receiver, signer} {
			if err := m.StartProgram(t.Context(), program); err != nil {
				t.Error(err)
			}
		}
		<-ended
	})

	// By a tag too; by hand, for whoever may push; and live.
	pushed := m.pushInto(t, signed+"/hand", "v1")
	tagged := env.harbor.Host + "/" + pushed.Repository + ":v1"
	for _, tt := range []struct {
		method, path string
		body         any
		code         int
		says         string
	}{
		{http.MethodPost, "sign", map[string]string{"image": tagged}, http.StatusAccepted, pushed.Digest},
		{http.MethodGet, "status?wait=60s&image=" + tagged, nil, http.StatusOK, `"state":"signed"`},
		{http.MethodPost, "verify", map[string]string{"image": tagged}, http.StatusOK, `"verified":true`},
	} {
		answer := m.call(t, m.site.Developer.Credentials(), tt.method, tt.path, tt.body, nil)
		if answer.Status != tt.code || !strings.Contains(string(answer.Body), tt.says) {
			t.Errorf("%s %s = %d %s, want %d with %s", tt.method, tt.path, answer.Status, answer.Body, tt.code, tt.says)
		}
	}
}
