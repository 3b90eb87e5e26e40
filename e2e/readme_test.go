//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	ociname "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/harborseal/harborseal/e2e/harness"
)

// readmeLimit is how long all commands of the documentation may take together. It is met only when something hangs.
const readmeLimit = 2 * time.Minute

// TestReadme runs the commands of the README's section "Your own Harbor", in their order and from the file itself, then
// those of docs/report.md, against an emulator of its own. What cannot be as it stands there (hosts, ports, a certificate, a
// password that is typed) is replaced, and each replacement must find something to replace.
func TestReadme(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"bash", "curl", "jq", "openssl", "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("the README's commands need %s: %v", tool, err)
		}
	}
	r := newReader(t)
	section := readSection(t, "../README.md", "## Your own Harbor")
	var script strings.Builder
	script.WriteString(readmePrologue)
	r.add(t, &script, "README.md", indented(section, 7), r.readmeReplacements(t, section))
	// What was there before is signed by the sweep that enabling asks for.
	for _, cosign := range []string{r.cosign, tool(t, harness.EnvCosignV3)} {
		fmt.Fprintf(&script, "eventually %q verify --key images-2026.pub --trusted-root no-logs.json --insecure-ignore-tlog %s/demo/before:v1\n",
			cosign, r.harbor.Host)
	}
	r.add(t, &script, "docs/report.md", indented(readSection(t, "../docs/report.md", "# The signed-digest report"), 4), r.reportReplacements())

	out := r.run(t, script.String())
	r.judge(t, out)
}

// readmePrologue makes the script end at the first command that fails, and end both programs with it. "eventually" gives
// a busy machine more time than the README's one second.
const readmePrologue = `set -euo pipefail
finish() {
  [ "$status" = 0 ] || echo "FAILED: $failed"
  for pid in $(jobs -p | tac); do
    kill -TERM "$pid" || true
    wait "$pid" || { echo "FAILED: a program ended with status $?"; status=1; }
  done
  exit "$status"
}
trap 'status=$? failed=$BASH_COMMAND; finish' EXIT
eventually() {
  for _ in $(seq 100); do
    if "$@" > "$HOME/last.out" 2>&1; then cat "$HOME/last.out"; return 0; fi
    sleep 0.2
  done
  cat "$HOME/last.out"
  echo "FAILED for 20 s: $*"
  return 1
}
settled() {
  "$@" > "$HOME/report.out" && cat "$HOME/report.out" && grep -q '"state":"signed"' "$HOME/report.out" && ! grep -q '"state":"pending"' "$HOME/report.out" &&
    grep -q '"tags":\["v1"\]' "$HOME/report.out" # the webhook has come; a sweep may have been quicker
}
covered() {
  "$@" > "$HOME/coverage.out" && cat "$HOME/coverage.out" &&
    jq -e '.coverage | .population == 2 and .signed == 2 and .last_sweep != null' "$HOME/coverage.out" > "$HOME/covered.out"
}
`

// reader is somebody who follows the documentation.
type reader struct {
	home, root    string
	harbor        *harness.Harbor
	cosign, crane string
	// The receiver's public and ops listeners and its queue, the signer's ops listener.
	public, ops, queue, signerOps string
}

func newReader(t *testing.T) *reader {
	t.Helper()
	ctx := t.Context()
	r := &reader{home: filepath.Join(env.dir, t.Name()+harness.Random("-")), cosign: tool(t, harness.EnvCosignV2), crane: tool(t, harness.EnvCrane)}
	var err error
	if r.root, err = filepath.Abs(".."); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"bin", "checkout/bin"} {
		if err := os.MkdirAll(filepath.Join(r.home, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, program := range []string{env.programs.Receiver, env.programs.Signer} {
		if err := os.Symlink(program, filepath.Join(r.home, "checkout/bin", filepath.Base(program))); err != nil {
			t.Fatal(err)
		}
	}
	var emulator *harness.Process
	speed := harness.EmulatorOptions{RetryScale: 0.02, DeliveryDelayScale: 1}
	if r.harbor, emulator, err = harness.StartEmulator(ctx, env.programs, r.home, speed); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := emulator.Stop(); err != nil {
			t.Error(err)
		}
	})
	free, err := harness.FreePorts(ctx, 4)
	if err != nil {
		t.Fatal(err)
	}
	r.public, r.ops, r.queue, r.signerOps = free[0], free[1], free[2], free[3]
	r.prepareImages(t)
	return r
}

// tool is the path of a program that make tools builds.
func tool(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if _, err := os.Stat(path); path == "" || err != nil { //nolint:gosec // the variable is there to name any program
		t.Fatalf("%s names no program (%q): run make tools, and call this by make", variable, path)
	}
	return path
}

// prepareImages makes the project with an image that nobody told of, and a file with the image that will be pushed.
func (r *reader) prepareImages(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	if err := r.harbor.CreateProject(ctx, "demo"); err != nil {
		t.Fatal(err)
	}
	before, err := harness.NewImage(false)
	if err != nil {
		t.Fatal(err)
	}
	admin := harness.Robot{Name: r.harbor.Username, Secret: r.harbor.Password}
	if _, err := r.harbor.NewDeveloper(admin).Push(ctx, "demo/before", "v1", before); err != nil {
		t.Fatal(err)
	}
	image, err := harness.NewImage(true)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := ociname.NewTag(r.harbor.Host + "/demo/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(filepath.Join(r.home, "app.tar"), tag, image); err != nil {
		t.Fatal(err)
	}
}

// replacement is a part of a command that cannot be as it stands in the documentation.
type replacement struct{ old, with string }

// readmeReplacements are those of the README, in their order.
func (r *reader) readmeReplacements(t *testing.T, section string) []replacement {
	t.Helper()
	// The README itself says what to write without a certificate.
	plain := regexp.MustCompile("write `(http: [^`]+)` instead").FindStringSubmatch(section)
	if plain == nil {
		t.Fatal("the README no longer says what to write without a certificate")
	}
	return []replacement{
		// The programs are built already, and nobody is root here.
		{"make build\n", fmt.Sprintf("make -n -C %q build\n", r.root)},
		{"sudo install", "install"},
		{"/usr/local/bin/", `"$HOME/bin/"`},
		// The password that curl asks for, and the lines that a person copies from the output.
		{"-u admin ", fmt.Sprintf("-u admin:%s ", r.harbor.Password)},
		{"receiver new-token --name me", "receiver new-token --name me | tee token.out"},
		{"echo 'me:…'", "sed -n 's/^line for api.tokens_file *//p' token.out"},
		{"receiver ledger new-key --out ledger.pem --config receiver.yaml", "receiver ledger new-key --out ledger.pem --config receiver.yaml | tee ledger.out"},
		// Neither Harbor nor the receiver has a certificate.
		{`http: {listen: "0.0.0.0:8443", tls: {cert_file: tls.crt, key_file: tls.key}}`, plain[1]},
		{"https://harbor.example.com", r.harbor.URL},
		{"harbor.example.com", r.harbor.Host},
		{"https://seal.example.com:8443", "http://" + r.public},
		// Free ports on the loopback interface.
		{"0.0.0.0:8443", r.public},
		{"> receiver.yaml <<'EOF'\n", fmt.Sprintf("> receiver.yaml <<'EOF'\nops: {listen: %q}\n", r.ops)},
		{"queue: {embedded: {", fmt.Sprintf("queue: {embedded: {listen: %q, ", r.queue)},
		{"127.0.0.1:9090", r.ops},
		{"127.0.0.1:9091", r.signerOps},
		{"127.0.0.1:4222", r.queue},
		// docker needs a daemon. What is waited for is asked for until it is there.
		{"docker login " + r.harbor.Host, fmt.Sprintf("%q auth login %s -u admin -p %s", r.crane, r.harbor.Host, r.harbor.Password)},
		{"docker push", fmt.Sprintf("%q push --insecure \"$HOME/app.tar\"", r.crane)},
		{"cosign trusted-root", fmt.Sprintf("%q trusted-root", r.cosign)},
		{"cosign verify", fmt.Sprintf("eventually %q verify", r.cosign)},
		{
			fmt.Sprintf("curl -sS -u admin:%s http://%s/api/v1/projects/demo |", r.harbor.Password, r.public),
			fmt.Sprintf("eventually covered curl -sS -u admin:%s http://%s/api/v1/projects/demo |", r.harbor.Password, r.public),
		},
		{
			fmt.Sprintf("curl -sS -u admin:%s 'http://%s/api/v1/signatures", r.harbor.Password, r.public),
			fmt.Sprintf("eventually settled curl -sS -u admin:%s 'http://%s/api/v1/signatures", r.harbor.Password, r.public),
		},
	}
}

// bearerOf is the header with the token that the receiver made.
const bearerOf = `"Authorization: Bearer $(sed -n 's/^token *//p' token.out)"`

func (r *reader) reportReplacements() []replacement {
	return []replacement{
		// A token that the README had made does as well as an account of Harbor.
		{"-u ann ", "-H " + bearerOf + " "},
		{"https://seal.example.com:8443", "http://" + r.public},
		{"project=shop", "project=demo"},
		// What the operator gave the auditor.
		{"receiver report verify", "sed -n 's/^verifier key, for auditors *//p' ledger.out > ledger-keys.txt\nreceiver report verify"},
	}
}

// add appends the commands of one page.
func (r *reader) add(t *testing.T, script *strings.Builder, page string, commands []string, replacements []replacement) {
	t.Helper()
	if len(commands) == 0 {
		t.Fatalf("%s has no commands: are they still indented?", page)
	}
	text := strings.Join(commands, "\necho\n")
	for _, one := range replacements {
		if !strings.Contains(text, one.old) {
			t.Fatalf("%s no longer has %q: change the list of replacements", page, one.old)
		}
		text = strings.ReplaceAll(text, one.old, one.with)
	}
	if left := regexp.MustCompile(`[a-z.]*example\.com|THE-[A-Z]+|…`).FindString(text); left != "" {
		t.Fatalf("%s: nothing replaces %q in\n%s", page, left, text)
	}
	fmt.Fprintf(script, "\n: %s\n%s\necho\n", page, text)
}

// egress is the record of what both programs dialled.
func (r *reader) egress() string { return filepath.Join(r.home, "egress") }

// run gives what the script writes.
func (r *reader) run(t *testing.T, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readmeLimit)
	defer cancel()
	path := filepath.Join(r.home, "commands.sh")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "bash", path) //nolint:gosec // the documentation's own commands
	cmd.Dir = filepath.Join(r.home, "checkout")
	cmd.Env = []string{
		"HOME=" + r.home, "PATH=" + filepath.Join(r.home, "bin") + ":" + os.Getenv("PATH"), "TMPDIR=" + os.Getenv("TMPDIR"),
		"DOCKER_CONFIG=" + filepath.Join(r.home, "docker"), "TUF_ROOT=" + filepath.Join(r.home, "tuf"), "LC_ALL=C.UTF-8",
		// Nothing leaves this machine: nobody listens there.
		"HTTPS_PROXY=http://127.0.0.1:9", "NO_PROXY=127.0.0.1",
		"HARBORSEAL_EGRESS_RECORD_FILE=" + r.egress(),
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// The programs share the shell's process group, so that a script that hangs takes them along.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		t.Fatalf("running the documentation's commands: %v\n%s\n%s", err, out.Bytes(), r.logs())
	}
	return out.String()
}

// logs are the ends of what the programs wrote, as far as they came.
func (r *reader) logs() string {
	var all strings.Builder
	for _, file := range []string{"receiver.log", "signer.log"} {
		content, err := os.ReadFile(filepath.Join(r.home, "seal", file)) //nolint:gosec // a folder of the test
		if err != nil {
			continue
		}
		fmt.Fprintf(&all, "--- %s ---\n%s", file, content[max(0, len(content)-4000):])
	}
	return all.String()
}

// judge looks for what a reader was promised.
func (r *reader) judge(t *testing.T, out string) {
	t.Helper()
	if _, err := os.Stat(r.egress()); err != nil {
		t.Errorf("the programs kept no record of their destinations: %v", err)
	}
	// For the doctor the receiver tries its own address, by which Harbor is to reach it.
	foreign, err := harness.Foreign(r.egress(), []string{r.harbor.Host, r.queue, r.public})
	if err != nil || len(foreign) > 0 {
		t.Errorf("the README's programs dialled %q, which nobody configured (%v)", foreign, err)
	}
	if got := strings.Count(out, "the configuration is good"); got != 2 {
		t.Errorf("configurations that were found good: got %d, want 2\n%s", got, out)
	}
	if got := strings.Count(out, `{"ready":true`); got != 2 {
		t.Errorf("programs that said that they are ready: got %d, want 2\n%s", got, out)
	}
	if !strings.Contains(out, "\n\"signed\"\n") {
		t.Errorf("nobody was told that the image is signed\n%s", out)
	}
	judgeEnabling(t, out)
	type row struct {
		Repository, State, How, Format string
		Tags                           []string
		ReceivedAt                     *time.Time `json:"received_at"`
	}
	var reports [][]row
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, `{"registry":`) {
			continue
		}
		var answer struct{ Items []row }
		if err := json.Unmarshal([]byte(line), &answer); err != nil {
			t.Fatalf("reading the report: %v\n%s", err, line)
		}
		reports = append(reports, answer.Items)
	}
	if len(reports) != 2 {
		t.Fatalf("reports: got %d, want one of the README and one of docs/report.md\n%s", len(reports), out)
	}
	for i, rows := range reports {
		at := slices.IndexFunc(rows, func(r row) bool { return r.Repository == "demo/app" })
		if at < 0 {
			t.Fatalf("report %d does not have the image that was pushed: %+v", i, rows)
		}
		app := rows[at]
		if app.State != "signed" || app.How != "made" || app.Format != "both" || !slices.Contains(app.Tags, "v1") {
			t.Errorf("report %d: got %+v, want the tag v1, signed, made, in both formats", i, app)
		}
		if app.ReceivedAt == nil {
			t.Errorf("report %d: no webhook told of the image that was pushed", i)
		}
	}
}

// judgeEnabling looks at what the doctor said before, and at the answer to the one call that enables the project.
func judgeEnabling(t *testing.T, out string) {
	t.Helper()
	// Its exit status says that nothing has failed; this right is the receiver's to look at.
	if !regexp.MustCompile(`(?m)^right:notification-policy:update +demo +✓ ok`).MatchString(out) {
		t.Errorf("the doctor has not seen that the receiver's robot account may see to webhooks\n%s", out)
	}
	const begin = "{\n  \"project\": \"demo\""
	at := strings.Index(out, begin)
	if at < 0 {
		t.Fatalf("the answer to enabling the project is not in\n%s", out)
	}
	var state struct {
		Enabled   bool
		ChangedBy string `json:"changed_by"`
		Webhook   struct{ OK bool }
		Backfill  struct{ Choice string }
	}
	if err := json.NewDecoder(strings.NewReader(out[at:])).Decode(&state); err != nil {
		t.Fatalf("reading the answer to enabling the project: %v\n%s", err, out)
	}
	if !state.Enabled || !state.Webhook.OK || state.ChangedBy != "admin" || state.Backfill.Choice != "all" {
		t.Errorf("the answer to enabling the project is %+v, want it enabled by admin for all images, with a webhook", state)
	}
}

// readSection gives the text below a heading, up to the next one of the same level.
func readSection(t *testing.T, path, heading string) string {
	t.Helper()
	content, err := os.ReadFile(path) //nolint:gosec // a page of the documentation
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut("\n"+string(content), "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s has no heading %q", path, heading)
	}
	level, _, _ := strings.Cut(heading, " ")
	text, _, _ = strings.Cut(text, "\n"+level+" ")
	return text
}

// indented gives the blocks of lines that are indented by that many spaces or more, without those.
func indented(text string, spaces int) []string {
	var blocks []string
	var block strings.Builder
	for line := range strings.Lines(text + "\n\n") {
		if rest, ok := strings.CutPrefix(line, strings.Repeat(" ", spaces)); ok {
			block.WriteString(rest)
			continue
		}
		if block.Len() > 0 {
			blocks = append(blocks, block.String())
			block.Reset()
		}
	}
	return blocks
}
