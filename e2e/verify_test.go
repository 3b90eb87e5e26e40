//go:build e2e

package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// verifying is somebody who verifies with docs/verify.md in hand: it runs the page's commands, in folders of its own.
type verifying struct {
	*stage
	blocks map[string]string // by "heading" and number, as "## cosign 1"
	home   string
	mu     sync.Mutex
	used   map[string]bool // guarded by mu
}

// pageCommands gives the indented blocks of a page, by the heading above and their number below it.
func pageCommands(t *testing.T, path string) map[string]string {
	t.Helper()
	content, err := os.ReadFile(path) //nolint:gosec // a page of the documentation
	if err != nil {
		t.Fatal(err)
	}
	blocks := make(map[string]string)
	for _, section := range regexp.MustCompile(`(?m)^#`).Split(string(content), -1)[1:] {
		heading, text, _ := strings.Cut("#"+section, "\n")
		for i, block := range indented(text, 4) {
			blocks[fmt.Sprintf("%s %d", heading, i+1)] = block
		}
	}
	return blocks
}

// attempt is one verification of the tag v1 of a repository.
type attempt struct {
	repository string
	// key is the file that stands in for images.pub; empty where none is needed.
	key string
	// cosign is the variable that names the program.
	cosign string
	blocks []string
	// more are replacements that come before the usual ones.
	more []replacement
	// dir is where the commands run; empty for a folder of their own.
	dir string
}

// run runs blocks of the page.
func (v *verifying) run(t *testing.T, a attempt) (string, error) {
	t.Helper()
	dir := cmp.Or(a.dir, t.TempDir())
	script := v.script(t, a)
	for name, from := range map[string]string{
		"images.pub": a.key, "empty.json": filepath.Join(v.home, "empty.json"), "reader-secret": filepath.Join(v.home, "reader-secret"),
	} {
		if content, err := os.ReadFile(from); err == nil { //nolint:gosec // a file of the test
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil { //nolint:gosec // a folder of the test
				t.Fatal(err)
			}
		}
	}
	link := filepath.Join(dir, "cosign")
	if err := errors.Join(os.RemoveAll(link), os.Symlink(os.Getenv(a.cosign), link)); err != nil {
		t.Fatal(err)
	}
	return v.bash(t.Context(), dir, script)
}

// script puts blocks of the page together, with what cannot be as it stands there replaced.
func (v *verifying) script(t *testing.T, a attempt) string {
	t.Helper()
	h := v.site.Harbor
	script := "set -euo pipefail\n"
	for _, name := range a.blocks {
		block, found := v.blocks[name]
		if !found {
			t.Fatalf("docs/verify.md has no commands %q", name)
		}
		v.mu.Lock()
		v.used[name] = true
		v.mu.Unlock()
		script += block
	}
	program, err := buildSigstoreGo()
	if err != nil {
		t.Fatal(err)
	}
	project, _, _ := strings.Cut(a.repository, "/")
	reader := v.site.Developer.Name
	for _, r := range append(slices.Clone(a.more), []replacement{
		{"https://seal.example.com:8443", v.URL},
		{"https://harbor.example.com", h.URL},
		{"harbor.example.com", h.Host},
		{"shop/app", a.repository},
		{"projects/shop", "projects/" + project},
		{"robot$reader", reader},
		{`robot\$reader`, strings.ReplaceAll(reader, "$", `\$`)},
		{"-u admin ", fmt.Sprintf("-u %q:%q ", h.Username, h.Password)},
		{"go run ./e2e/sigstorego", program},
		{"docker pull", fmt.Sprintf("%q manifest", os.Getenv(harness.EnvCrane))},
	}...) {
		script = strings.ReplaceAll(script, r.old, r.with)
	}
	if left := regexp.MustCompile(`[a-z.]*example\.com(/|:|$| )|shop|…`).FindString(script); left != "" {
		t.Fatalf("nothing replaces %q in\n%s", left, script)
	}
	return script
}

func (v *verifying) bash(ctx context.Context, dir, script string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script) //nolint:gosec // the documentation's own commands
	cmd.Dir = dir
	cmd.Env = append(v.offline(),
		"PATH="+dir+":"+os.Getenv("PATH"), "HOME="+v.home, "DOCKER_CONFIG="+v.home, "TUF_ROOT="+filepath.Join(dir, "tuf"), "LC_ALL=C.UTF-8")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w\n%s\n%s", err, script, out.Bytes())
	}
	return out.String(), nil
}

// prepare follows the page's section "Once".
func (v *verifying) prepare(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(v.home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.home, "reader-secret"), []byte(v.site.Developer.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, cosign := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
		for _, file := range []string{"empty.json", "config.json"} {
			if err := os.RemoveAll(filepath.Join(v.home, file)); err != nil {
				t.Fatal(err)
			}
		}
		once := attempt{cosign: cosign, dir: v.home, blocks: []string{"## Once 1", "## Once 2"}}
		if out, err := v.run(t, once); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	got, err := os.ReadFile(filepath.Join(v.home, "images.pub"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(v.Keys.Public)
	if err != nil || !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(want)) {
		t.Fatalf("the receiver gives the key %s, %v, want %s", got, err, want)
	}
}

// TestVerifyDocs runs every command of docs/verify.md, in each format, on images that are signed and on others that are not
// as they should be. What cannot be as it stands there (hosts, names, a password that is typed) is replaced.
func TestVerifyDocs(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"bash", "curl", "jq", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("the commands of docs/verify.md need %s: %v", tool, err)
		}
	}
	s := newStage(t, env.harbor, 3, func(projects []string) option {
		return func(o *harness.Options) {
			inEachFormat(projects)(o)
			for _, policy := range o.Policies {
				delete(policy, "annotations")
			}
		}
	})
	v := &verifying{stage: s, blocks: pageCommands(t, "../docs/verify.md"), home: filepath.Join(s.dir, "reader"), used: make(map[string]bool)}
	signed, bad := v.pushAll(t)
	v.prepare(t)
	ours, other := filepath.Join(v.home, "images.pub"), otherKeys(t).Public
	v2, v3 := []string{harness.EnvCosignV2}, []string{harness.EnvCosignV3}
	each := append(slices.Clone(v2), v3...)
	wrongValue := []replacement{{"environment=production", "environment=test"}}

	t.Run("programs", func(t *testing.T) {
		for _, tt := range []struct {
			name     string
			cosign   []string
			blocks   []string
			more     []replacement
			accepted []string // the formats
		}{
			{"cosign", each, []string{"## cosign 1"}, nil, formats()},
			{"cosign -a", each, []string{"## cosign 2"}, nil, formats()},
			// "Annotations of a bundle, with v2.6.5".
			{"cosign v2 -a, wrong", v2, []string{"## cosign 2"}, wrongValue, []string{"bundle", "both"}},
			{"cosign v3 -a, wrong", v3, []string{"## cosign 2"}, wrongValue, nil},
			{"cosign v2 overlooks the flag", v2, []string{"### Bundles of others 1"}, nil, formats()},
			{"cosign v3, .sig tag alone", v3, []string{"### Bundles of others 1"}, nil, []string{"legacy", "both"}},
			{"sigstore-go", v3, []string{"## sigstore-go 1"}, nil, []string{"bundle", "both"}},
			{"sigstore-go, .sig tag", v3, []string{"## sigstore-go 2"}, nil, []string{"legacy", "both"}},
			{"openssl, .sig tag", v3, []string{"## curl, jq and openssl 1", "### A legacy signature 1"}, nil, []string{"legacy", "both"}},
			{"openssl, bundle", v3, []string{"## curl, jq and openssl 1", "### A bundle 1"}, nil, []string{"bundle", "both"}},
		} {
			for _, cosign := range tt.cosign {
				t.Run(tt.name+" "+cosign, func(t *testing.T) {
					t.Parallel()
					for format, repository := range signed {
						want := slices.Contains(tt.accepted, format)
						a := attempt{repository: repository, key: ours, cosign: cosign, blocks: tt.blocks, more: tt.more}
						if out, err := v.run(t, a); (err == nil) != want {
							t.Errorf("format %s: %v, want success: %v\n%s", format, err, want, out)
						}
						a.key = other
						if out, err := v.run(t, a); err == nil {
							t.Errorf("format %s verifies with a key that signed nothing:\n%s", format, out)
						}
					}
					for name, repository := range bad {
						a := attempt{repository: repository, key: ours, cosign: cosign, blocks: tt.blocks, more: tt.more}
						if out, err := v.run(t, a); err == nil {
							t.Errorf("what is %s verifies:\n%s", name, out)
						}
					}
				})
			}
		}
	})
	t.Run("openssl finds a copied signature", func(t *testing.T) { v.testCopied(t, ours) })
	t.Run("pull policy", func(t *testing.T) { v.testPullPolicy(t, signed) })
	if unused := slices.DeleteFunc(slices.Sorted(maps.Keys(v.blocks)), func(name string) bool { return v.used[name] }); len(unused) > 0 && !t.Failed() {
		t.Errorf("docs/verify.md has commands that no test runs: %q", unused)
	}
}

// pushAll gives the repositories of images that are signed, by format, and of others that are not, by what is wrong.
func (v *verifying) pushAll(t *testing.T) (signed, bad map[string]string) {
	t.Helper()
	signed, bad = make(map[string]string), make(map[string]string)
	var good harness.Pushed
	for i, format := range formats() {
		img, err := harness.NewImage(false)
		p := v.pushTo(t, v.projects[i]+"/app", "v1", img, err)
		v.awaitSigned(t, p)
		signed[format], good = p.Repository, p // the last one is signed in both formats
	}
	for _, name := range []string{"unsigned", "changed-legacy", "changed-bundle", "taken-legacy", "taken-bundle"} {
		img, err := harness.NewImage(false)
		p := v.pushTo(t, v.other+"/"+name, "v1", img, err)
		bad[name] = p.Repository
		what, kind, _ := strings.Cut(name, "-")
		if kind != "" {
			v.forge(t, good, p, kind, what == "changed")
		}
	}
	return signed, bad
}

// forge attaches to an image the genuine signature of another one: as it is, or changed so that it names the image.
func (v *verifying) forge(t *testing.T, good, p harness.Pushed, kind string, change bool) {
	t.Helper()
	if kind == "legacy" {
		layers, err := v.legacyLayers(t.Context(), t, good)
		if err != nil {
			t.Fatal(err)
		}
		payload := v.blob(t, good.Repository, layers[0].Digest)
		if change {
			payload = replaceOnce(t, payload, good.Digest, p.Digest)
		}
		m := manifestOf(describeBlob(simpleSigning, payload, layers[0].Annotations))
		v.put(t, p.Repository, checker.SignatureTag(p.Digest), m, payload, emptyConfig())
		return
	}
	bundle := v.genuineBundle(t, good)
	if change {
		bundle = changeStatement(t, bundle, good, p)
	}
	v.attach(t, p, bundle)
}

func replaceOnce(t *testing.T, content []byte, old, with string) []byte {
	t.Helper()
	if !bytes.Contains(content, []byte(old)) {
		t.Fatalf("%s does not have %q", content, old)
	}
	return bytes.Replace(content, []byte(old), []byte(with), 1)
}

// testCopied copies an image with its signature: cosign accepts that, and openssl's last line does not.
func (v *verifying) testCopied(t *testing.T, key string) {
	t.Helper()
	from, to := v.site.Harbor.Host+"/"+v.projects[0]+"/app:", v.site.Harbor.Host+"/"+v.other+"/copied:"
	crane := v.client(t, harness.EnvCrane)
	digest, err := crane.Run(t.Context(), "digest", from+"v1")
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"v1", checker.SignatureTag(strings.TrimSpace(digest))} {
		if _, err := crane.Run(t.Context(), "copy", from+tag, to+tag); err != nil {
			t.Fatal(err)
		}
	}
	a := attempt{repository: v.other + "/copied", key: key, blocks: []string{"## cosign 1"}}
	for _, cosign := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
		a.cosign = cosign
		if out, err := v.run(t, a); err != nil {
			t.Errorf("docs/verify.md says that cosign accepts a copied signature: %v\n%s", err, out)
		}
	}
	a.blocks = []string{"## curl, jq and openssl 1", "### A legacy signature 1"}
	out, err := v.run(t, a)
	if err == nil || !strings.Contains(out, "Verified OK") {
		t.Errorf("a copied signature: %v, want that openssl accepts it and the repository's name is wrong\n%s", err, out)
	}
}

// testPullPolicy switches the policy on: what is signed in whatever format can be pulled, and nothing else.
func (v *verifying) testPullPolicy(t *testing.T, signed map[string]string) {
	t.Helper()
	a := attempt{cosign: harness.EnvCosignV3, blocks: []string{"## Harbor's own pull policy 1"}}
	for format, repository := range signed {
		project, _, _ := strings.Cut(repository, "/")
		var plain harness.Pushed
		v.silently(t, func() {
			img, err := harness.NewImage(false)
			plain = v.pushTo(t, project+"/plain", "v1", img, err)
		})
		if err := v.developer.Pull(t.Context(), plain); err != nil {
			t.Errorf("format %s: before the policy, what is not signed can be pulled: %v", format, err)
		}
		a.repository = repository
		if out, err := v.run(t, a); err != nil {
			t.Errorf("format %s: what is signed cannot be pulled: %v\n%s", format, err, out)
		}
		a.repository = plain.Repository
		if out, err := v.run(t, a); err == nil || !strings.Contains(out, "PROJECTPOLICYVIOLATION") {
			t.Errorf("format %s: pulling what is not signed: %v, want that the policy refuses\n%s", format, err, out)
		}
	}
}

// changeStatement makes a bundle speak of another image, under the signature that it has.
func changeStatement(t *testing.T, bundle []byte, from, to harness.Pushed) []byte {
	t.Helper()
	var whole map[string]any
	if err := json.Unmarshal(bundle, &whole); err != nil {
		t.Fatal(err)
	}
	envelope, ok := whole["dsseEnvelope"].(map[string]any)
	if !ok {
		t.Fatalf("the bundle has no envelope: %s", bundle)
	}
	statement, err := base64.StdEncoding.DecodeString(fmt.Sprint(envelope["payload"]))
	if err != nil {
		t.Fatal(err)
	}
	hex := func(p harness.Pushed) string { return strings.TrimPrefix(p.Digest, "sha256:") }
	envelope["payload"] = base64.StdEncoding.EncodeToString(replaceOnce(t, statement, hex(from), hex(to)))
	changed, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}
