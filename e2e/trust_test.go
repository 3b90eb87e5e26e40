//go:build e2e

package e2e_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// trustDocument is what verifiers are given, as far as they need it.
type trustDocument struct {
	TrustedRoot json.RawMessage `json:"trusted_root"`
	Keys        []struct {
		Name      string `json:"name"`
		PublicKey string `json:"public_key"`
		File      string `json:"file"`
	} `json:"keys"`
	Commands []struct {
		Title     string   `json:"title"`
		Key       string   `json:"key"`
		Format    string   `json:"format"`
		Log       string   `json:"log"`
		Authority string   `json:"authority"`
		Programs  []string `json:"programs"`
		Line      string   `json:"line"`
	} `json:"commands"`
}

// signerSays runs a command of the signer beside those that run, and gives what it says, without its log.
func (w *world) signerSays(t *testing.T, command string, args ...string) (string, error) {
	t.Helper()
	args = append([]string{command, "--config", filepath.Join(w.dir, w.Signers[0].Name+".yaml")}, args...)
	cmd := exec.CommandContext(t.Context(), env.programs.Signer, args...) //nolint:gosec // the program under test
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("signer %q: %w\n%s", args, err, errs.Bytes())
	}
	return out.String(), nil
}

// verifiers are people who have what `signer trust-root` wrote, and nothing else, but for their credentials.
type verifiers struct {
	*world
	dir      string
	document trustDocument
	// programs are folders with a cosign, by version.
	programs map[string]string
}

// newVerifiers gives somebody what the signer writes for verifiers.
func (w *world) newVerifiers(t *testing.T) *verifiers {
	t.Helper()
	v := &verifiers{world: w, dir: filepath.Join(w.dir, "trust"), programs: make(map[string]string)}
	printed, err := w.signerSays(t, "trust-root", "--output-dir", v.dir)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := w.signerSays(t, "trust-root", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(raw), &v.document)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range v.document.Commands {
		if !strings.Contains(printed, "\n  "+c.Line+"\n") {
			t.Errorf("signer trust-root does not print %q:\n%s", c.Line, printed)
		}
	}
	if len(v.document.Commands) == 0 || len(v.document.TrustedRoot) == 0 {
		t.Fatalf("signer trust-root has no commands or no trusted root: %s", raw)
	}
	for version, variable := range map[string]string{"v2.6.5": harness.EnvCosignV2, "v3.1.3": harness.EnvCosignV3} {
		folder := filepath.Join(w.dir, "cosign-"+version)
		if err := errors.Join(os.MkdirAll(folder, 0o700), os.Symlink(os.Getenv(variable), filepath.Join(folder, "cosign"))); err != nil {
			t.Fatal(err)
		}
		v.programs[version] = folder
	}
	return v
}

func (v *verifiers) file(name string) string { return filepath.Join(v.dir, name) }

// run runs a line of the document as it stands there, but for the image's name.
func (v *verifiers) run(t *testing.T, version, line string, p harness.Pushed) (string, error) {
	t.Helper()
	host := v.site.Harbor.Host
	const image = "/PROJECT/REPOSITORY:TAG"
	if !strings.HasSuffix(line, " "+host+image) {
		t.Fatalf("the line %q does not end with %s%s", line, host, image)
	}
	home := t.TempDir()
	if _, err := harness.NewTool(harness.EnvCrane, home, v.site.Harbor, v.site.Developer, nil); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.TrimSuffix(line, host+image)+v.image(p)) //nolint:gosec // the signer's own line
	cmd.Dir = v.dir
	cmd.Env = append(v.offline(), "PATH="+v.programs[version]+":"+os.Getenv("PATH"), "HOME="+home, "DOCKER_CONFIG="+home, "TUF_ROOT="+filepath.Join(home, "tuf"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// sigstoreGo runs the verifier on sigstore-go.
func (v *verifiers) sigstoreGo(t *testing.T, args ...string) error {
	t.Helper()
	path, err := buildSigstoreGo()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	if _, err := harness.NewTool(harness.EnvCrane, home, v.site.Harbor, v.site.Developer, nil); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...) //nolint:gosec // a program of the tests
	cmd.Env = append(v.offline(), "PATH="+os.Getenv("PATH"), "HOME="+home, "DOCKER_CONFIG="+home)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running sigstorego: %w\n%s", err, out)
	}
	return nil
}

// withOtherLogs gives somebody who trusts logs of the same names and ids, with other keys.
func (v *verifiers) withOtherLogs(t *testing.T) *verifiers {
	t.Helper()
	other := *v
	other.dir = filepath.Join(v.world.dir, harness.Random("other-trust-"))
	if err := os.CopyFS(other.dir, os.DirFS(v.dir)); err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := json.Unmarshal(v.document.TrustedRoot, &root); err != nil {
		t.Fatal(err)
	}
	logs, _ := root["tlogs"].([]any)
	for _, one := range logs {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		log, _ := one.(map[string]any)
		public, _ := log["publicKey"].(map[string]any)
		if public == nil {
			t.Fatalf("the trusted root has a log without a key: %v", one)
		}
		public["rawBytes"] = der
	}
	raw, err := json.Marshal(root)
	if err == nil {
		err = os.WriteFile(other.file("trusted_root.json"), raw, 0o600)
	}
	if err != nil || len(logs) == 0 {
		t.Fatalf("writing another trusted root for %d logs: %v", len(logs), err)
	}
	return &other
}

// TestTrustDocument compares what the command writes with what the receiver answers to everybody who can log in; without a
// signer, the receiver knows nothing.
func TestTrustDocument(t *testing.T) {
	t.Parallel()
	p := newProofs(t, "rekor-v1", "rekor-v2")
	m := newManaged(t, env.harbor, someProjects(1), p.asked("off", "off"))
	v := m.newVerifiers(t)
	compact := func(raw []byte) string {
		var buffer bytes.Buffer
		if err := json.Compact(&buffer, raw); err != nil {
			t.Fatalf("%v in %.300s", err, raw)
		}
		return buffer.String()
	}
	developer := harness.Credentials{Name: m.site.Developer.Name, Secret: m.site.Developer.Secret}
	written, err := m.signerSays(t, "trust-root", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	for name, who := range map[string]harness.Credentials{"an admin": m.admin, "an auditor": {Token: m.Token}, "a developer": developer} {
		answer := m.call(t, who, http.MethodGet, "trust", nil, nil)
		if want(t, name, answer, http.StatusOK); compact(answer.Body) != compact([]byte(written)) {
			t.Errorf("%s gets\n%s, want what signer trust-root writes\n%s", name, answer.Body, written)
		}
	}
	want(t, "a stranger", m.call(t, harness.Credentials{}, http.MethodGet, "trust", nil, nil), http.StatusUnauthorized)

	// The files are those that the lines name, and nothing in them is secret.
	root, err := os.ReadFile(v.file("trusted_root.json"))
	if err != nil || compact(root) != compact(v.document.TrustedRoot) {
		t.Errorf("trusted_root.json is %s, %v, want what stands in the document", root, err)
	}
	public, err := m.signerSays(t, "public-key", "--name", "image")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, e := range entries {
		files = append(files, e.Name())
	}
	if want := []string{"image.pub", "trusted_root.json"}; !slices.Equal(files, want) {
		t.Errorf("signer trust-root writes the files %q, want %q", files, want)
	}
	if got := contentOf(t, v.file("image.pub")); strings.TrimSpace(string(got)) != strings.TrimSpace(public) {
		t.Errorf("image.pub is %s, want what signer public-key prints: %s", got, public)
	}
	if strings.Contains(written, "PRIVATE") || strings.Contains(written, "secret") {
		t.Errorf("the document seems to hold a secret: %s", written)
	}

	if err := m.Signers[0].Process.Stop(); err != nil {
		t.Fatal(err)
	}
	m.untilTrue(t, func() error {
		if answer := m.call(t, m.admin, http.MethodGet, "trust", nil, nil); answer.Status != http.StatusServiceUnavailable {
			return fmt.Errorf("without a signer, the answer is %d %.300s, want 503", answer.Status, answer.Body)
		}
		return nil
	})
}
