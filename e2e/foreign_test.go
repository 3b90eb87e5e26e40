//go:build e2e

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/harborseal/harborseal/e2e/harness"
)

// attest attaches an attestation to an image, as a pipeline does, in a bundle. Its predicate is empty, as a signature's is.
func (w *world) attest(t *testing.T, variable string, keys harness.Keys, p harness.Pushed) {
	t.Helper()
	predicate := filepath.Join(t.TempDir(), "predicate.json")
	if err := os.WriteFile(predicate, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"attest", "--yes", "--key", keys.Private, "--predicate", predicate, "--type", "https://example.com/pipeline/v1", "--tlog-upload=false"}
	if variable == harness.EnvCosignV2 {
		args = append(args, "--new-bundle-format")
	} else {
		args = append(args, "--use-signing-config=false")
	}
	before := len(w.referrers(t, p))
	if err := withKey(t, w.client(t, variable), keys, append(args, w.image(p))...); err != nil {
		t.Fatal(err)
	}
	after := w.referrers(t, p)
	if len(after) != before+1 || !hasAttestation(after) {
		t.Fatalf("%s attached no attestation in a bundle: %+v", variable, after)
	}
}

func hasAttestation(referrers []v1.Descriptor) bool {
	for _, d := range referrers {
		if d.ArtifactType == bundleType && d.Annotations[predicateNote] != signPredicate {
			return true
		}
	}
	return false
}

// An attestation in a bundle, by whomever, hides signatures of the legacy format from the cosign programs. A signature in
// a bundle stands beside it.
func TestAttestationOfOthers(t *testing.T) {
	t.Parallel()
	for _, attestor := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
		t.Run(attestor, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, env.harbor, 3, inEachFormat)
			keys := otherKeys(t)
			for i, format := range formats() {
				img, err := harness.NewImage(false)
				p := s.pushTo(t, s.projects[i]+"/app", "v1", img, err)
				s.awaitSigned(t, p)
				s.attest(t, attestor, keys, p)
				// docs/verify.md: "Bundles of others".
				for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
					cosign := s.client(t, variable)
					err := cosign.Verify(t.Context(), s.Keys.Public, s.image(p))
					if want := format != "legacy"; (err == nil) != want {
						t.Errorf("format %s: %s says %v, want success: %v", format, variable, err, want)
					}
					_, err = cosign.Run(t.Context(), append(cosign.VerifyArgs(s.Keys.Public, s.image(p)), harness.LegacyOnly)...)
					want := carries(format, "legacy")
					if variable == harness.EnvCosignV2 {
						want = carries(format, "bundle") // it does as if the flag were not there
					}
					if (err == nil) != want {
						t.Errorf("format %s: %s for the .sig tag alone says %v, want success: %v", format, variable, err, want)
					}
				}
				if err := s.withSigstoreGo(t, s.Keys.Public, "legacy", s.image(p)); (err == nil) != carries(format, "legacy") {
					t.Errorf("format %s: sigstore-go for the .sig tag: %v", format, err)
				}
			}
		})
	}
}

// An attestation by the very key of the service verifies with the cosign programs as if it were a signature. The service
// does not believe it, nor any other bundle that is no signature, and signs.
func TestBundlesThatAreNoSignatures(t *testing.T) {
	t.Parallel()
	s := newStage(t, env.harbor, 3, inEachFormat)
	project := s.projects[1] // of the format bundle
	images := make(map[string]harness.Pushed)
	s.silently(t, func() {
		for _, name := range []string{"attested", "relabelled", "garbage", "signed-elsewhere"} {
			img, err := harness.NewImage(false)
			images[name] = s.pushTo(t, project+"/"+name, "v1", img, err)
		}
		s.attest(t, harness.EnvCosignV3, s.Keys, images["attested"])
		for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
			if err := s.client(t, variable).Verify(t.Context(), s.Keys.Public, s.image(images["attested"])); err != nil {
				t.Errorf("docs/verify.md says that %s takes an attestation for a signature: %v", variable, err)
			}
		}
		// The same attestation, in a manifest that says of it that it is a signature.
		s.attest(t, harness.EnvCosignV3, s.Keys, images["relabelled"])
		attestation := s.bundle(t, images["relabelled"], func(d v1.Descriptor) bool { return d.Annotations[predicateNote] != signPredicate })
		s.attach(t, images["relabelled"], attestation)
		for _, content := range []string{"garbage", "{}", `{"mediaType":"` + bundleType + `","dsseEnvelope":{"payload":"e30=","signatures":[{"sig":"AA=="}]}}`} {
			s.attach(t, images["garbage"], []byte(content))
		}
	})
	// A bundle of ours that says something of another image: the real one of the first, put beside the last.
	s.tell(t, images["garbage"])
	s.awaitSigned(t, images["garbage"])
	s.silently(t, func() {
		s.attach(t, images["signed-elsewhere"], s.genuineBundle(t, images["garbage"]))
	})
	for name, p := range images {
		if name != "garbage" {
			s.tell(t, p)
		}
		s.awaitSigned(t, p)
		if row := s.audit(t.Context(), t, p); row.How != "made" {
			t.Errorf("%s: the report says that the signature was %q, want made", name, row.How)
		}
		for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
			if err := s.client(t, variable).Verify(t.Context(), s.Keys.Public, s.image(p)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := s.withSigstoreGo(t, s.Keys.Public, "bundle", s.image(p)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// attach puts a bundle beside an image, whatever is in it, and says of it that it is a signature.
func (w *world) attach(t *testing.T, p harness.Pushed, bundle []byte) {
	t.Helper()
	m, err := bundleOf(p, bundle)
	if err != nil {
		t.Fatal(err)
	}
	w.put(t, p.Repository, "", m, bundle, emptyConfig())
}

// genuineBundle is the bundle by which an image is signed.
func (w *world) genuineBundle(t *testing.T, p harness.Pushed) []byte {
	t.Helper()
	return w.bundle(t, p, func(d v1.Descriptor) bool { return d.Annotations[predicateNote] == signPredicate })
}

// bundle is the content of the first bundle of an image that is wanted, and has an envelope with a key.
func (w *world) bundle(t *testing.T, p harness.Pushed, wanted func(v1.Descriptor) bool) []byte {
	t.Helper()
	for _, d := range w.referrers(t, p) {
		if d.ArtifactType != bundleType || !wanted(d) {
			continue
		}
		layers := w.layers(t, p.Repository, d.Digest.String())
		if raw := w.blob(t, p.Repository, layers[0].Digest); strings.Contains(string(raw), "publicKey") {
			return raw
		}
	}
	t.Fatalf("%s has no such bundle", p.Digest)
	return nil
}

// A signature of a developer's own, under the .sig tag, is kept in every format; a bundle of ours hides it from cosign.
func TestSignatureOfADeveloper(t *testing.T) {
	t.Parallel()
	s := newStage(t, env.harbor, 3, inEachFormat)
	keys := otherKeys(t)
	for i, format := range formats() {
		img, err := harness.NewImage(false)
		p := s.pushTo(t, s.projects[i]+"/app", "v1", img, err)
		s.awaitSigned(t, p)
		sign := []string{"sign", "--yes", "--key", keys.Private, "--tlog-upload=false", s.image(p)}
		if err := withKey(t, s.client(t, harness.EnvCosignV2), keys, sign...); err != nil {
			t.Fatal(err)
		}
		// docs/verify.md: "Signatures of your own".
		for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
			cosign := s.client(t, variable)
			err := cosign.Verify(t.Context(), keys.Public, s.image(p))
			if want := format == "legacy"; (err == nil) != want {
				t.Errorf("format %s: %s with the developer's key says %v, want success: %v", format, variable, err, want)
			}
			if err := cosign.Verify(t.Context(), s.Keys.Public, s.image(p)); err != nil {
				t.Errorf("format %s: %s with our key: %v", format, variable, err)
			}
		}
		v3 := s.client(t, harness.EnvCosignV3)
		if _, err := v3.Run(t.Context(), append(v3.VerifyArgs(keys.Public, s.image(p)), harness.LegacyOnly)...); err != nil {
			t.Errorf("format %s: the developer's signature is gone: %v", format, err)
		}
	}
}
