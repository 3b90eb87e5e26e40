package sigstore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// program is one of the real cosign programs, with files of its own.
type program struct {
	path string
	dir  string
	// signLegacy and signBundle sign without a transparency log.
	signLegacy, signBundle []string
}

// programs are those that `make tools` has built; the e2e fails without them.
func programs(t *testing.T) map[string]program {
	t.Helper()
	found := make(map[string]program)
	for version, p := range map[string]program{
		"v2.6.5": {
			path:       os.Getenv("HARBORSEAL_TEST_COSIGN_V2"),
			signLegacy: []string{"sign", "--yes", "--tlog-upload=false"},
			signBundle: []string{"sign", "--yes", "--tlog-upload=false", "--new-bundle-format"},
		},
		"v3.1.3": {
			path:       os.Getenv("HARBORSEAL_TEST_COSIGN_V3"),
			signLegacy: []string{"sign", "--yes", "--use-signing-config=false", "--tlog-upload=false", "--new-bundle-format=false"},
			signBundle: []string{"sign", "--yes", "--use-signing-config=false", "--tlog-upload=false"},
		},
	} {
		if p.path == "" {
			p.path = "../../.tools/bin/cosign-" + version
		}
		path, err := filepath.Abs(p.path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Skip("cosign " + version + " is not installed: run make tools")
		}
		p.path, p.dir = path, t.TempDir()
		write(t, p.file("empty-root.json"), []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`))
		for name, key := range loadedKeys() {
			write(t, p.file(name+".key"), cosignKeys()[name])
			write(t, p.file(name+".pub"), key.PublicPEM())
		}
		found[version] = p
	}
	return found
}

func (p program) file(name string) string { return filepath.Join(p.dir, name) }

func (p program) run(t *testing.T, args ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path, args...) //nolint:gosec // the program under test
	// Loopback is never proxied: the registry is reached, and nothing else is.
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD="+password, "HOME="+p.dir, "DOCKER_CONFIG="+p.dir, "HTTPS_PROXY=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("cosign %v: %w\n%s", args, err, out)
	}
	return nil
}

// verify is the command line of docs/verify.md, which is the same for both formats and both versions.
func (p program) verify(t *testing.T, key, image string, more ...string) error {
	t.Helper()
	args := append([]string{"verify", "--key", p.file(key + ".pub"), "--trusted-root", p.file("empty-root.json"), "--insecure-ignore-tlog", "--allow-http-registry"}, more...)
	return p.run(t, append(args, image)...)
}

// What each side signs, the other one accepts, or both refuse it.
func TestCosignPrograms(t *testing.T) {
	t.Parallel()
	for version, p := range programs(t) {
		for _, name := range []string{"p256", "p384", "ed25519", "rsa"} {
			t.Run(version+" legacy "+name, func(t *testing.T) {
				t.Parallel()
				testProgramLegacy(t, p, name)
			})
			t.Run(version+" bundle "+name, func(t *testing.T) {
				t.Parallel()
				testProgramBundle(t, p, version, name)
			})
		}
	}
}

func testProgramLegacy(t *testing.T, p program, name string) {
	t.Helper()
	r := newRegistry(t)
	subject := r.putImage("v1", name)
	image := r.host + "/demo/app@" + subject.Digest
	c := artifact.Claim{Identity: r.host + "/demo/app", Digest: subject.Digest, Annotations: map[string]string{"by": "us"}}
	l := newLegacy(t, active(name))
	m, pieces := attach(t, name, nil, c)
	r.putAll(l.Tag(subject.Digest), m, pieces)
	if err := p.verify(t, name, image, "-a", "by=us"); err != nil {
		t.Errorf("cosign refuses our signature: %v", err)
	}
	if p.verify(t, name, image, "-a", "by=others") == nil {
		t.Error("cosign finds an annotation that we did not sign")
	}
	// The program signs beside us with the same key. It hashes with SHA-384 for P-384 and signs with Ed25519ph, which its own
	// verification does not take: what it refuses does not count here either.
	if err := p.run(t, append(p.signLegacy, "--key", p.file(name+".key"), "-a", "by=program", image)...); err != nil {
		t.Fatalf("cosign cannot sign: %v", err)
	}
	want := 2
	if p.verify(t, name, image, "-a", "by=program") != nil {
		want = 1
	}
	if (name == "p256" || name == "rsa") && want == 1 {
		t.Error("cosign refuses its own signature")
	}
	raw := r.get(t.Context(), "/v2/demo/app/manifests/"+l.Tag(subject.Digest))
	got, err := l.Verify(t.Context(), artifact.Manifest{Raw: raw}, c, anyKey, r.fetch())
	if err != nil || len(got) != want {
		t.Errorf("Verify() = %d signatures, %v, want %d as cosign says, in\n%s", len(got), err, want, raw)
	}
}

func testProgramBundle(t *testing.T, p program, version, name string) {
	t.Helper()
	r := newRegistry(t)
	ours, theirs := r.putImage("ours", "ours"), r.putImage("theirs", "theirs")
	b := newBundles(t, active(name))
	c := artifact.Claim{Digest: ours.Digest, Annotations: map[string]string{"by": "us"}}
	m, pieces, err := b.Compose(sign(t, name, artifact.Bundle, c), ours)
	if err != nil {
		t.Fatal(err)
	}
	r.putAll(m.Digest, m, pieces)
	image := r.host + "/demo/app@" + ours.Digest
	if err := p.verify(t, name, image, "-a", "by=us"); err != nil {
		t.Errorf("cosign refuses our signature: %v", err)
	}
	// v2 does not look at the annotations of a bundle. docs/verify.md warns of it.
	if found := p.verify(t, name, image, "-a", "by=others") == nil; found != (version == "v2.6.5") {
		t.Errorf("cosign finds an annotation that we did not sign: %v, want it of v2 alone", found)
	}
	if p.verify(t, "second", image) == nil {
		t.Error("cosign accepts our bundle by another key")
	}

	image = r.host + "/demo/app@" + theirs.Digest
	if err := p.run(t, append(p.signBundle, "--key", p.file(name+".key"), "-a", "by=program", image)...); err != nil {
		t.Fatalf("cosign cannot sign: %v", err)
	}
	want := 1
	if p.verify(t, name, image) != nil {
		want = 0
	}
	if (name == "p256" || name == "rsa") && want == 0 {
		t.Error("cosign refuses its own signature")
	}
	var got []artifact.Signature
	for _, d := range r.referrers(theirs.Digest) {
		if !b.Candidate(d) {
			t.Errorf("Candidate(%+v) = false, want true", d)
		}
		raw := r.get(t.Context(), "/v2/demo/app/manifests/"+d.Digest)
		found, err := b.Verify(t.Context(), artifact.Manifest{Raw: raw}, artifact.Claim{Digest: theirs.Digest}, r.fetch())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, found...)
		if version == "v3.1.3" {
			checkSameForm(t, r, b, name, theirs, raw)
		}
	}
	if len(got) != want {
		t.Errorf("Verify() = %d signatures, want %d as cosign says", len(got), want)
	}
}

// checkSameForm checks that cosign's bundle and ours differ in the signature and the time of creation alone.
func checkSameForm(t *testing.T, r memoryRegistry, b *sigstore.Bundles, name string, subject artifact.Descriptor, theirs []byte) {
	t.Helper()
	c := artifact.Claim{Digest: subject.Digest, Annotations: map[string]string{"by": "program"}}
	m, pieces, err := b.Compose(sign(t, name, artifact.Bundle, c), subject)
	if err != nil {
		t.Fatal(err)
	}
	layer := parseLayer(t, parse(t, theirs).Layers[0])
	compareJSON(t, "bundle", pieces[0].Raw, r.get(t.Context(), "/v2/demo/app/blobs/"+layer.Digest), func(o object) {
		in(o, "dsseEnvelope", "signatures", 0)["sig"] = ""
	})
	compareJSON(t, "manifest", m.Raw, theirs, func(o object) {
		delete(in(o, "annotations"), "org.opencontainers.image.created")
		delete(in(o, "layers", 0), "digest")
		delete(in(o, "layers", 0), "size")
	})
}

func compareJSON(t *testing.T, what string, got, want []byte, blank func(object)) {
	t.Helper()
	var texts [2]string
	for i, raw := range [][]byte{got, want} {
		var o object
		if err := json.Unmarshal(raw, &o); err != nil {
			t.Fatal(err)
		}
		blank(o)
		texts[i] = string(mustJSON(t, o))
	}
	if texts[0] != texts[1] {
		t.Errorf("our %s is\n%s\ncosign's\n%s", what, texts[0], texts[1])
	}
}
