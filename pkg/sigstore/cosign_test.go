package sigstore_test

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci"
	"github.com/sigstore/cosign/v2/pkg/oci/empty"
	"github.com/sigstore/cosign/v2/pkg/oci/mutate"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// sha256Verifier is how `cosign verify --key` checks: with SHA-256, whatever the curve.
func sha256Verifier(tb testing.TB, key crypto.PublicKey) signature.Verifier {
	tb.Helper()
	verifier, err := signature.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		tb.Fatal(err)
	}
	return verifier
}

// cosignVerifies is `cosign verify --key` by cosign's library, without a transparency log.
func cosignVerifies(tb testing.TB, image string, key crypto.PublicKey) error {
	tb.Helper()
	ref, err := name.NewDigest(image, name.Insecure)
	if err != nil {
		tb.Fatal(err)
	}
	_, _, err = cosign.VerifyImageSignatures(tb.Context(), ref, &cosign.CheckOpts{
		SigVerifier: sha256Verifier(tb, key), IgnoreTlog: true, Offline: true, ClaimVerifier: cosign.SimpleClaimVerifier,
	})
	return err
}

// sigstoreGoVerifies checks a bundle with sigstore-go, with a key and neither log nor timestamp. The error is that of
// reading or of verifying.
func sigstoreGoVerifies(tb testing.TB, raw []byte, verifier signature.Verifier, digest string) error {
	tb.Helper()
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		return err
	}
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return root.NewExpiringKey(verifier, time.Time{}, time.Time{}), nil
	})
	v, err := verify.NewVerifier(material, verify.WithNoObserverTimestamps())
	if err != nil {
		tb.Fatal(err)
	}
	sum, err := hex.DecodeString(strings.TrimPrefix(digest, "sha256:"))
	if err != nil {
		tb.Fatal(err)
	}
	_, err = v.Verify(&b, verify.NewPolicy(verify.WithArtifactDigest("sha256", sum), verify.WithKey()))
	return err
}

func TestCosignsLibraryAcceptsOurLegacy(t *testing.T) {
	t.Parallel()
	for name := range loadedKeys() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			subject := r.putImage("v1", name)
			image := r.host + "/demo/app@" + subject.Digest
			if cosignVerifies(t, image, rawKeys()[name].Public()) == nil {
				t.Fatal("cosign accepts an image without signatures")
			}
			c := artifact.Claim{Identity: r.host + "/demo/app", Digest: subject.Digest, Annotations: map[string]string{"team": "<a>"}}
			m, pieces := attach(t, name, nil, c)
			// A second signature by somebody else must disturb neither.
			m, more := attach(t, "second", &m, c)
			r.putAll(newLegacy(t, active(name)).Tag(subject.Digest), m, append(pieces, more...))
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

func TestSigstoreGoAcceptsOurBundles(t *testing.T) {
	t.Parallel()
	for name := range loadedKeys() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := artifact.Claim{Digest: digest, Annotations: map[string]string{"team": "<a>"}}
			_, blobs := compose(t, sign(t, name, artifact.Bundle, c))
			public := rawKeys()[name].Public()
			if err := sigstoreGoVerifies(t, blobs[0].Raw, sha256Verifier(t, public), digest); err != nil {
				t.Errorf("sigstore-go refuses our bundle: %v\n%s", err, blobs[0].Raw)
			}
			if sigstoreGoVerifies(t, blobs[0].Raw, sha256Verifier(t, public), other) == nil {
				t.Error("sigstore-go accepts our bundle for another digest")
			}
			if sigstoreGoVerifies(t, blobs[0].Raw, sha256Verifier(t, rawKeys()["p521"].Public()), digest) == nil {
				t.Error("sigstore-go accepts our bundle by another key")
			}
			// The default of sigstore's libraries hashes with SHA-384 for P-384. docs/verify.md tells what to do then.
			standard, err := signature.LoadDefaultVerifier(public)
			if err != nil {
				t.Fatal(err)
			}
			err = sigstoreGoVerifies(t, blobs[0].Raw, standard, digest)
			if refused := err != nil; refused != (name == "p384") {
				t.Errorf("sigstore-go with sigstore's default verifier: %v, want that it refuses P-384 alone", err)
			}
		})
	}
}

func TestWeAcceptCosignsLibrary(t *testing.T) {
	t.Parallel()
	key, err := cosign.LoadPrivateKey(cosignKeys()["p256"], []byte(password), nil)
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
	annotated := cosignPayload(t, identity, digest, map[string]string{"by": "cosign"})
	signatures, err := mutate.AppendSignatures(empty.Signatures(), false, sign(annotated), sign(cosignPayload(t, identity, digest, nil)))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signatures.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	m := artifact.Manifest{MediaType: manifestType, Digest: artifact.DigestOf(raw), Raw: raw}
	m, _ = attach(t, "second", &m, claim())
	got, err := newLegacy(t, active("second"), verifyOnly("p256")).Verify(t.Context(), m, claim(), anyKey, blobs(annotated))
	if err != nil || len(got) != 3 {
		t.Errorf("Verify() = %d signatures, %v, want cosign's two and our own", len(got), err)
	}
}
