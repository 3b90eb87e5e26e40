package main_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	main "github.com/harborseal/harborseal/cmd/signer"
	app "github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/preflight"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path) //nolint:gosec // a file of this test
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant, as in %s,\n%s", got, path, want)
	}
}

func report() app.Report {
	return app.Report{
		Checks: []preflight.Check{
			{Name: preflight.DNS, Subject: "harbor.example.com", Status: preflight.OK, Detail: "192.0.2.7"},
			{Name: preflight.TLS, Subject: "harbor.example.com", Status: preflight.Warning, Detail: "the certificate is valid for 9 more days", Fix: "renew it"},
			{Name: preflight.Login, Subject: "robot$größe", Status: preflight.Failed, Detail: "Harbor does not accept it\n\x1b[31mred\x1b[0m", Fix: "check\nit"},
			{Name: preflight.Right("repository:push"), Subject: "demo", Status: preflight.Failed, Detail: "could not be told", Fix: "ask again", Unknown: true},
			{Name: preflight.PullPolicy, Subject: "demo", Status: preflight.Skipped},
		},
		Summary: app.Summary{OK: 1, Warnings: 1, Failed: 2, Skipped: 1},
	}
}

func TestReportAsTable(t *testing.T) {
	for name, colours := range map[string]bool{"doctor.txt": false, "doctor_colours.txt": true} {
		var b bytes.Buffer
		if err := main.PrintReport(&b, report(), colours); err != nil {
			t.Fatal(err)
		}
		if !colours && strings.Contains(b.String(), "\x1b") {
			t.Errorf("%s: got %q, want no commands to a terminal", name, b.String())
		}
		golden(t, name, b.String())
	}
}

func TestReportWithoutFixes(t *testing.T) {
	var b bytes.Buffer
	if err := main.PrintReport(&b, app.Report{Checks: report().Checks[:1], Summary: app.Summary{OK: 1}}, false); err != nil {
		t.Fatal(err)
	}
	const want = "CHECK  SUBJECT             STATUS  DETAIL\ndns    harbor.example.com  ✓ ok    192.0.2.7\n\nok 1, warnings 0, failed 0, skipped 0\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestReportAsJSON(t *testing.T) {
	raw, err := json.MarshalIndent(report(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "doctor.json", string(raw)+"\n")
}

// newInstallation fills the working folder with a configuration whose Harbor and queue are there, and gives both, and the
// robot account's secret.
func newInstallation(t *testing.T) (*harbortest.Harbor, *queue.Client, string) {
	t.Helper()
	newFolder(t)
	newPlainKey(t)
	harbor := harbortest.New(t, harbortest.Config{})
	write(t, "queue.pw", "queue password\n")
	server := queuetest.StartServer(t, queue.ServerConfig{
		StoreDir: t.TempDir(), Listen: "127.0.0.1:0", Users: []queue.User{{Name: "signer", PasswordFile: "queue.pw"}},
	})
	client := queuetest.NewClient(t, server)
	var robot struct{ Name, Secret string }
	post(t, harbor, "/projects", map[string]any{"project_name": "demo"}, nil)
	access := []any{}
	for _, right := range []string{"repository:pull", "repository:push", "repository:list", "artifact:list"} {
		resource, action, _ := strings.Cut(right, ":")
		access = append(access, map[string]string{"resource": resource, "action": action})
	}
	post(t, harbor, "/robots", map[string]any{
		"name": "signer", "level": "system", "duration": -1,
		"permissions": []any{map[string]any{"kind": "project", "namespace": "*", "access": access}},
	}, &robot)
	write(t, "robot", robot.Secret)
	write(t, "signer.yaml", fmt.Sprintf(`
harbor: {url: %q, username: %q, secret_file: robot}
keys: [{name: plain, file: plain.pem}]
queue: {urls: ["nats://%s"], username: signer, password_file: queue.pw}
`, harbor.URL(), robot.Name, server.Addr()))
	return harbor, client, robot.Secret
}

func post(t *testing.T, harbor *harbortest.Harbor, path string, body, answer any) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, harbor.URL()+"/api/v2.0"+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", harbortest.DefaultAdminPassword)
	req.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("POST %s: got %d, want %d", path, resp.StatusCode, http.StatusCreated)
	}
	if answer == nil {
		return
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		t.Fatal(err)
	}
}

// TestDoctor runs the command as a user does. No receiver answers, which is a failure.
func TestDoctor(t *testing.T) {
	_, _, secret := newInstallation(t)
	out, err := run(t, "doctor", "--config", "signer.yaml", "--project", "demo")
	if err == nil || !strings.Contains(err.Error(), "1 check has failed") {
		t.Errorf("got error %v, want that a check has failed", err)
	}
	for _, want := range []string{
		"CHECK", "robot$signer", "✓ ok", "✗ failed", "What to do:", "see that a receiver runs",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("got\n%s\nwant %q in it", out, want)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("got %q, want no commands to a terminal: there is none", out)
	}
	asJSON, err := run(t, "doctor", "--config", "signer.yaml", "--project", "demo", "-o", "json")
	if err == nil {
		t.Error("got no error with JSON, want one")
	}
	var got app.Report
	if err := json.Unmarshal([]byte(asJSON), &got); err != nil {
		t.Fatalf("got %q, want JSON: %v", asJSON, err)
	}
	if got.Summary.Failed == 0 || got.Summary.OK == 0 || len(got.Checks) < 20 {
		t.Errorf("got %+v, want checks of both kinds", got)
	}
	for _, printed := range []string{out, asJSON} {
		for _, s := range []string{"queue password", secret} {
			if strings.Contains(printed, s) {
				t.Errorf("the secret %q was printed", s)
			}
		}
	}
}

func TestDoctorUsage(t *testing.T) {
	newInstallation(t)
	for _, c := range []struct{ name, args, err string }{
		{"no configuration", "", "--config is required"},
		{"configuration that is not there", "--config none.yaml", "none.yaml"},
		{"unknown output", "--config signer.yaml -o yaml", "want table or json"},
		{"push without a project", "--config signer.yaml --push-test", "--push-test needs --project"},
		{"no project's name", "--config signer.yaml --project UP/per", "--project"},
		{"left over", "--config signer.yaml demo", "unexpected argument"},
	} {
		if out, err := run(t, append([]string{"doctor"}, strings.Fields(c.args)...)...); err == nil || !strings.Contains(err.Error(), c.err) || out != "" {
			t.Errorf("%s: got %q and error %v, want one with %q", c.name, out, err, c.err)
		}
	}
}
