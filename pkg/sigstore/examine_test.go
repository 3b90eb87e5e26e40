package sigstore_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// examine reads the one signature of a manifest.
func examine(t *testing.T, ring *sigstore.Keyring, a attached, c artifact.Claim) sigstore.Reading {
	t.Helper()
	if a.format == artifact.Legacy {
		all, more, err := sigstore.NewLegacy(ring).Examine(t.Context(), a.m, c, 10, fetchPieces(a.pieces))
		if err != nil || more || len(all) != 1 {
			t.Fatalf("Examine = %d, %t, %v; want one signature", len(all), more, err)
		}
		return all[0]
	}
	r, ok, err := sigstore.NewBundles(ring).Examine(t.Context(), a.m, c, fetchPieces(a.pieces))
	if err != nil || !ok {
		t.Fatalf("Examine = %t, %v; want a signature", ok, err)
	}
	return r
}

// counts says whether Verify counts the same signature.
func counts(t *testing.T, ring *sigstore.Keyring, a attached, c artifact.Claim) bool {
	t.Helper()
	var got []artifact.Signature
	var err error
	if a.format == artifact.Legacy {
		got, err = sigstore.NewLegacy(ring).Verify(t.Context(), a.m, c, anyKey, fetchPieces(a.pieces))
	} else {
		got, err = sigstore.NewBundles(ring).Verify(t.Context(), a.m, c, fetchPieces(a.pieces))
	}
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	return len(got) > 0
}

// written is a signature by the key p256 in its manifest.
func written(t *testing.T, format artifact.Format, c artifact.Claim) attached {
	t.Helper()
	s := sign(t, "p256", format, c)
	a := attached{format: format}
	if format == artifact.Legacy {
		var err error
		if a.m, a.pieces, err = newLegacy(t, active("p256")).Append(nil, s); err != nil {
			t.Fatal(err)
		}
		return a
	}
	a.m, a.pieces = compose(t, s)
	return a
}

func TestExamine(t *testing.T) {
	elsewhere := claim()
	elsewhere.Identity = host + "/demo/elsewhere"
	noted := claim()
	noted.Annotations = map[string]string{"environment": "production"}
	tests := []struct {
		name    string
		claim   artifact.Claim // what is signed
		ring    []sigstore.NamedKey
		formats []artifact.Format
		why     string
		key     string // name and state
	}{
		{"by the active key", noted, []sigstore.NamedKey{active("p256"), verifyOnly("second")}, nil, "", "p256 active"},
		{"by a retired key", claim(), []sigstore.NamedKey{verifyOnly("p256"), active("second")}, nil, "", "p256 verify-only"},
		{"by a revoked key", claim(), []sigstore.NamedKey{revoked("p256"), active("second")}, nil, sigstore.KeyRevoked, "p256 revoked"},
		{"by somebody else", claim(), []sigstore.NamedKey{active("second")}, nil, sigstore.NotVerified, " "},
		{
			"of another repository", elsewhere,
			[]sigstore.NamedKey{active("p256")},
			[]artifact.Format{artifact.Legacy},
			sigstore.OtherRepository,
			"p256 active",
		},
	}
	for _, tt := range tests {
		if tt.formats == nil {
			tt.formats = []artifact.Format{artifact.Legacy, artifact.Bundle}
		}
		for _, format := range tt.formats {
			t.Run(tt.name+", "+string(format), func(t *testing.T) {
				ring, a := newRing(t, tt.ring...), written(t, format, tt.claim)
				r := examine(t, ring, a, claim())
				if got := r.KeyName + " " + r.KeyState; r.Why != tt.why || got != tt.key {
					t.Errorf("why %q by %q, want %q by %q", r.Why, got, tt.why, tt.key)
				}
				if r.Claim.Digest != digest || fmt.Sprint(r.Claim.Annotations) != fmt.Sprint(tt.claim.Annotations) {
					t.Errorf("it says %+v, want %+v", r.Claim, tt.claim)
				}
				if format == artifact.Legacy && r.Claim.Identity != tt.claim.Identity {
					t.Errorf("it is about %q, want %q", r.Claim.Identity, tt.claim.Identity)
				}
				if got := counts(t, ring, a, claim()); got != (r.Why == "") {
					t.Errorf("Verify counts it: %t, and it does not count because of %q", got, r.Why)
				}
			})
		}
	}
}

// What was changed after it was signed.
func TestExamineWhatWasChanged(t *testing.T) {
	ring := newRing(t, active("p256"))
	t.Run("the payload of a legacy signature", func(t *testing.T) {
		a := written(t, artifact.Legacy, claim())
		changed := artifact.Claim{Identity: identity, Digest: other}
		b := written(t, artifact.Legacy, changed)
		// The signature over one payload beside another one.
		one, two := noteOf(t, a), noteOf(t, b)
		a.m.Raw = []byte(strings.Replace(string(a.m.Raw), one, two, 1))
		r := examine(t, ring, a, claim())
		if r.Why != sigstore.NotVerified || counts(t, ring, a, claim()) {
			t.Errorf("why = %q, want %q", r.Why, sigstore.NotVerified)
		}
	})
	for _, format := range []artifact.Format{artifact.Legacy, artifact.Bundle} {
		t.Run("the blob is gone, "+string(format), func(t *testing.T) {
			a := written(t, format, claim())
			a.pieces = nil
			if format == artifact.Legacy { // the payload of this very claim needs none
				c := claim()
				c.Annotations = map[string]string{"x": "y"}
				a = written(t, format, c)
				a.pieces = nil
			}
			r := examineWith(t, ring, a, func(context.Context, string) ([]byte, error) {
				return nil, fault.Newf(fault.Gone, fault.NotFound, "no such blob")
			})
			if r.Why != sigstore.PayloadMissing {
				t.Errorf("why = %q, want %q", r.Why, sigstore.PayloadMissing)
			}
		})
	}
	t.Run("a signature of another image under this one's tag", func(t *testing.T) {
		a := written(t, artifact.Legacy, artifact.Claim{Identity: identity, Digest: other})
		if r := examine(t, ring, a, claim()); r.Why != sigstore.OtherDigest || r.Claim.Digest != other || r.KeyName != "p256" {
			t.Errorf("why = %q by %q about %s, want %q", r.Why, r.KeyName, r.Claim.Digest, sigstore.OtherDigest)
		}
	})
	t.Run("a fetch that fails says nothing", func(t *testing.T) {
		a := written(t, artifact.Bundle, claim())
		_, _, err := sigstore.NewBundles(ring).Examine(t.Context(), a.m, claim(), func(context.Context, string) ([]byte, error) {
			return nil, errors.New("the registry is away")
		})
		if err == nil {
			t.Error("no error")
		}
	})
}

func examineWith(t *testing.T, ring *sigstore.Keyring, a attached, fetch sigstore.Fetch) sigstore.Reading {
	t.Helper()
	if a.format == artifact.Bundle {
		r, ok, err := sigstore.NewBundles(ring).Examine(t.Context(), a.m, claim(), fetch)
		if err != nil || !ok {
			t.Fatalf("Examine = %t, %v", ok, err)
		}
		return r
	}
	all, _, err := sigstore.NewLegacy(ring).Examine(t.Context(), a.m, claim(), 10, fetch)
	if err != nil || len(all) != 1 {
		t.Fatalf("Examine = %d, %v", len(all), err)
	}
	return all[0]
}

// noteOf is the first signature of a legacy manifest, as it is written.
func noteOf(t *testing.T, a attached) string {
	t.Helper()
	_, rest, found := strings.Cut(string(a.m.Raw), `"dev.cosignproject.cosign/signature":"`)
	note, _, ended := strings.Cut(rest, `"`)
	if !found || !ended {
		t.Fatalf("no signature in %s", a.m.Raw)
	}
	return note
}

// With everything that can stand behind a signature, and without the trust that proves it.
func TestExamineMaterial(t *testing.T) {
	d := newDeployment(t)
	untrusting := newRing(t, active("p256"))
	for _, kind := range kinds() {
		if kind.log == "" {
			continue
		}
		t.Run(string(kind.format)+" "+kind.log, func(t *testing.T) {
			a := d.attach(t, d.sign(t, "p256", kind.format, kind.log, true))
			r := examine(t, d.ring, a, claim())
			if r.Why != "" || r.Proven.Entry == nil || r.Proven.Timestamp == nil || r.Authority == "" || r.Read.Entry == nil {
				t.Errorf("why %q, entry %v, authority %q; want all of it proven", r.Why, r.Proven.Entry != nil, r.Authority)
			}
			r = examine(t, untrusting, a, claim())
			if r.Why != "" || r.Proven.Entry != nil || r.Proven.Timestamp != nil || r.Authority != "" || r.Read.Entry == nil || r.Read.Timestamp == nil {
				t.Errorf("without trust: why %q, entry proven %t; want it read and unproven", r.Why, r.Proven.Entry != nil)
			}
		})
	}
}

func TestExamineOnlySoMany(t *testing.T) {
	first, _ := attach(t, "p256", nil, claim())
	all, pieces := attach(t, "second", &first, claim())
	legacy := newLegacy(t, active("p256"))
	got, more, err := legacy.Examine(t.Context(), all, claim(), 1, fetchPieces(pieces))
	if len(got) != 1 || !more || err != nil {
		t.Errorf("Examine = %d, %t, %v; want one of several", len(got), more, err)
	}
	if got, more, err = legacy.Examine(t.Context(), artifact.Manifest{Raw: []byte("{")}, claim(), 1, noFetch(t)); len(got) != 0 || more || err != nil {
		t.Errorf("Examine of garbage = %d, %t, %v; want nothing", len(got), more, err)
	}
}

func TestNamed(t *testing.T) {
	ring := newRing(t, active("p256"), revoked("second"))
	id, _ := ring.KeyID("second")
	for given, want := range map[string]string{"p256": "p256", id: "second", "nobody": "", "": ""} {
		if got, ok := ring.Named(given); got != want || ok != (want != "") {
			t.Errorf("Named(%q) = %q, %t; want %q", given, got, ok, want)
		}
	}
}

// An identity instead of a key, known, unknown and revoked.
func TestExamineKeyless(t *testing.T) {
	d := newDeployment(t)
	gone, err := sigstore.NewKeyring([]sigstore.NamedKey{active("p256"), {Name: "keyless", State: sigstore.Revoked, Identity: d.identity}}, d.trust)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := sigstore.NewKeyring([]sigstore.NamedKey{active("p256")}, d.trust)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []artifact.Format{artifact.Legacy, artifact.Bundle} {
		a := d.attach(t, d.sign(t, "keyless", format, "one", true))
		for _, tt := range []struct {
			name string
			ring *sigstore.Keyring
			why  string
			key  string
		}{
			{"known", d.ring, "", "keyless active"},
			{"revoked", gone, sigstore.KeyRevoked, "keyless revoked"},
			{"unknown", stranger, sigstore.CertificateNotAccepted, " "},
			{"known, and no time is proven", newKeylessRing(t, d), sigstore.CertificateNotAccepted, " "},
		} {
			r := examine(t, tt.ring, a, claim())
			if got := r.KeyName + " " + r.KeyState; r.Why != tt.why || got != tt.key || counts(t, tt.ring, a, claim()) != (r.Why == "") {
				t.Errorf("%s, %s: why %q by %q, want %q by %q", format, tt.name, r.Why, got, tt.why, tt.key)
			}
		}
	}
}

// newKeylessRing knows the identity, and no log and no authority.
func newKeylessRing(t *testing.T, d *deployment) *sigstore.Keyring {
	t.Helper()
	r, err := sigstore.NewKeyring([]sigstore.NamedKey{{Name: "keyless", State: sigstore.Active, Identity: d.identity}}, sigstore.Trust{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestExamineAChangedBundle(t *testing.T) {
	s := sign(t, "p256", artifact.Bundle, claim())
	s.Bytes = append([]byte{}, s.Bytes...)
	s.Bytes[len(s.Bytes)-1] ^= 1
	a := attached{format: artifact.Bundle}
	a.m, a.pieces = compose(t, s)
	ring := newRing(t, active("p256"))
	if r := examine(t, ring, a, claim()); r.Why != sigstore.NotVerified || r.KeyID != "" || len(r.Document) == 0 || counts(t, ring, a, claim()) {
		t.Errorf("why = %q by %q with %d bytes, want %q", r.Why, r.KeyID, len(r.Document), sigstore.NotVerified)
	}
}

// An attestation stands in a bundle of the same form, and is no signature, not even one that does not count.
func TestExamineAnAttestation(t *testing.T) {
	a := written(t, artifact.Bundle, claim())
	var bundle map[string]any
	if err := json.Unmarshal(a.pieces[0].Raw, &bundle); err != nil {
		t.Fatal(err)
	}
	envelope, _ := bundle["dsseEnvelope"].(map[string]any)
	payload, _ := envelope["payload"].(string)
	statement, err := base64.StdEncoding.DecodeString(payload)
	if err != nil {
		t.Fatal(err)
	}
	attestation := strings.Replace(string(statement), "https://sigstore.dev/cosign/sign/v1", "https://slsa.dev/provenance/v1", 1)
	envelope["payload"] = base64.StdEncoding.EncodeToString([]byte(attestation))
	raw, err := json.Marshal(bundle)
	if err != nil {
		t.Fatal(err)
	}
	manifest := strings.Replace(string(a.m.Raw), a.pieces[0].Digest, artifact.DigestOf(raw), 1)
	manifest = strings.Replace(manifest, fmt.Sprintf(`"size":%d,"digest":"%s"`, len(a.pieces[0].Raw), artifact.DigestOf(raw)), fmt.Sprintf(`"size":%d,"digest":"%s"`, len(raw), artifact.DigestOf(raw)), 1)
	ring := newRing(t, active("p256"))
	fetched := false
	r, ok, err := sigstore.NewBundles(ring).Examine(t.Context(), artifact.Manifest{Raw: []byte(manifest)}, claim(), func(context.Context, string) ([]byte, error) {
		fetched = true
		return raw, nil
	})
	if ok || err != nil || !fetched {
		t.Errorf("Examine = %q, %t, %v, fetched %t; want nothing once it was read", r.Why, ok, err, fetched)
	}
}

// What is in a manifest or a bundle is somebody else's: nothing of it may break the reader, or count where Verify does not.
func FuzzExamine(f *testing.F) {
	ring := newRing(f, active("p256"), revoked("second"))
	legacy, _ := attach(f, "p256", nil, claim())
	f.Add(legacy.Raw, []byte(`{"critical":{"identity":{"docker-reference":"x"},"image":{"docker-manifest-digest":"y"},"type":"z"},"optional":{"a":1}}`))
	bundle, pieces := compose(f, sign(f, "p256", artifact.Bundle, claim()))
	f.Add(bundle.Raw, pieces[0].Raw)
	f.Fuzz(func(t *testing.T, manifest, blob []byte) {
		m := artifact.Manifest{MediaType: manifestType, Digest: artifact.DigestOf(manifest), Raw: manifest}
		fetch := func(context.Context, string) ([]byte, error) { return blob, nil }
		all, _, err := sigstore.NewLegacy(ring).Examine(t.Context(), m, claim(), 5, fetch)
		counting := 0
		for _, r := range all {
			if r.Why == "" {
				counting++
			}
		}
		verified, verifyErr := sigstore.NewLegacy(ring).Verify(t.Context(), m, claim(), anyKey, fetch)
		if err != nil || verifyErr != nil || len(all) < 5 && counting > len(verified) {
			t.Errorf("Examine counts %d, Verify %d; %v, %v", counting, len(verified), err, verifyErr)
		}
		r, ok, err := sigstore.NewBundles(ring).Examine(t.Context(), m, claim(), fetch)
		verified, verifyErr = sigstore.NewBundles(ring).Verify(t.Context(), m, claim(), fetch)
		if err != nil || verifyErr != nil || (ok && r.Why == "") != (len(verified) > 0) {
			t.Errorf("Examine of a bundle = %t because of %q, Verify %d; %v, %v", ok, r.Why, len(verified), err, verifyErr)
		}
	})
}
