package sigstore_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci"
	"github.com/sigstore/cosign/v2/pkg/oci/empty"
	"github.com/sigstore/cosign/v2/pkg/oci/mutate"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// cosignVerifies is `cosign verify --key` by cosign's library, without a transparency log.
func cosignVerifies(tb testing.TB, image string, key crypto.PublicKey) error {
	tb.Helper()
	verifier, err := signature.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		tb.Fatal(err)
	}
	ref, err := name.NewDigest(image, name.Insecure)
	if err != nil {
		tb.Fatal(err)
	}
	_, _, err = cosign.VerifyImageSignatures(tb.Context(), ref, &cosign.CheckOpts{
		SigVerifier: verifier, IgnoreTlog: true, Offline: true, ClaimVerifier: cosign.SimpleClaimVerifier,
	})
	return err
}

func TestCosignsLibraryAcceptsOurs(t *testing.T) {
	t.Parallel()
	for name, key := range loadedKeys() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			subject := r.putImage("demo/app", "v1", name)
			image := r.host + "/demo/app@" + subject
			if cosignVerifies(t, image, rawKeys()[name].Public()) == nil {
				t.Fatal("cosign accepts an image without signatures")
			}
			l := newLegacy(t, key)
			m, pieces := attach(t, l, nil, r.host+"/demo/app", subject)
			// A second signature by somebody else must disturb neither.
			m, more := attach(t, newLegacy(t, loadedKeys()["second"]), &m, r.host+"/demo/app", subject)
			for _, piece := range append(pieces, more...) {
				r.putBlob("demo/app", piece)
			}
			r.putManifest("demo/app", l.Reference(subject), m)
			for _, signer := range []string{name, "second"} {
				if err := cosignVerifies(t, image, rawKeys()[signer].Public()); err != nil {
					t.Errorf("cosign refuses the signature by %s: %v", signer, err)
				}
			}
			unused := "p384"
			if name == unused {
				unused = "p256"
			}
			if cosignVerifies(t, image, rawKeys()[unused].Public()) == nil {
				t.Errorf("cosign accepts a signature by a key that signed nothing")
			}
		})
	}
}

func TestWeAcceptCosignsLibrary(t *testing.T) {
	t.Parallel()
	key, err := cosign.LoadPrivateKey(encryptKey(rawKeys()["p256"]), []byte(password), nil)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(body []byte) oci.Signature {
		raw, err := key.SignMessage(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		s, err := static.NewSignature(body, base64.StdEncoding.EncodeToString(raw))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	annotated := cosignPayload(t, identity, digest, map[string]any{"by": "cosign"})
	signatures, err := mutate.AppendSignatures(empty.Signatures(), false, sign(annotated), sign(cosignPayload(t, identity, digest, nil)))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signatures.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	m := artifact.Manifest{MediaType: manifestType, Digest: artifact.DigestOf(raw), Raw: raw}
	l := newLegacy(t, loadedKeys()["second"], sigstore.TrustedKey{Key: loadedKeys()["p256"].Public(), State: sigstore.VerifyOnly})
	m, _ = attach(t, l, &m, identity, digest)
	got, err := l.Verify(t.Context(), m, identity, digest, blobs(annotated))
	if err != nil || len(got) != 3 {
		t.Errorf("Verify() = %d signatures, %v, want cosign's two and our own", len(got), err)
	}
}

// TestCosignPrograms runs the real programs, where `make tools` has put them; the e2e fails without them.
func TestCosignPrograms(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v2.6.5", "v3.1.3"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			program, err := filepath.Abs("../../.tools/bin/cosign-" + version)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(program); err != nil {
				t.Skip("cosign " + version + " is not installed: run make tools")
			}
			testProgram(t, program, version)
		})
	}
}

func testProgram(t *testing.T, program, version string) {
	t.Helper()
	r := newRegistry(t)
	dir := t.TempDir()
	passwordFile := filepath.Join(dir, "password")
	write(t, passwordFile, []byte(password), 0o600)
	run := func(args ...string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // the program under test
		cmd.Env = append(os.Environ(), "COSIGN_PASSWORD="+password, "HOME="+dir, "DOCKER_CONFIG="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("cosign %v: %w\n%s", args, err, out)
		}
		return nil
	}
	sign := []string{"sign", "--yes", "--tlog-upload=false", "--key"}
	if version[:2] == "v3" {
		sign = []string{"sign", "--yes", "--use-signing-config=false", "--new-bundle-format=false", "--tlog-upload=false", "--key"}
	}
	for _, name := range []string{"p256", "p384", "ed25519", "rsa"} {
		repository := "demo/" + name
		subject := r.putImage(repository, "v1", name)
		image := r.host + "/" + repository + "@" + subject
		keyFile, publicFile := filepath.Join(dir, name+".key"), filepath.Join(dir, name+".pub")
		write(t, keyFile, encryptKey(rawKeys()[name]), 0o600)
		write(t, publicFile, loadedKeys()[name].PublicPEM(), 0o600)
		l := newLegacy(t, loadedKeys()[name])

		m, pieces := attach(t, l, nil, r.host+"/"+repository, subject)
		for _, piece := range pieces {
			r.putBlob(repository, piece)
		}
		r.putManifest(repository, l.Reference(subject), m)
		if err := run("verify", "--key", publicFile, "--insecure-ignore-tlog", "--allow-http-registry", image); err != nil {
			t.Errorf("%s: cosign refuses our signature: %v", name, err)
		}

		// The program signs beside us with the same key. It hashes with SHA-384 for P-384 and signs with Ed25519ph, which its
		// own verification does not take: what it refuses does not count here either.
		if err := run(append(sign, keyFile, "-a", "by=program", image)...); err != nil {
			t.Fatalf("%s: cosign cannot sign: %v", name, err)
		}
		want := 2
		if run("verify", "--key", publicFile, "--insecure-ignore-tlog", "--allow-http-registry", "-a", "by=program", image) != nil {
			want = 1
		}
		if (name == "p256" || name == "rsa") && want == 1 {
			t.Errorf("%s: cosign refuses its own signature", name)
		}
		raw := r.get(t.Context(), "/v2/"+repository+"/manifests/"+l.Reference(subject))
		got, err := l.Verify(t.Context(), artifact.Manifest{Raw: raw}, r.host+"/"+repository, subject, func(ctx context.Context, digest string) ([]byte, error) {
			return r.get(ctx, "/v2/"+repository+"/blobs/"+digest), nil
		})
		if err != nil || len(got) != want {
			t.Errorf("%s: Verify() = %d signatures, %v, want %d as cosign says, in\n%s", name, len(got), err, want, raw)
		}
	}
}
