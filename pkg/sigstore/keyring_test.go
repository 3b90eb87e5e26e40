package sigstore_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

func TestNewKeyringRefuses(t *testing.T) {
	t.Parallel()
	changed := func(k sigstore.NamedKey, change func(*sigstore.NamedKey)) sigstore.NamedKey {
		change(&k)
		return k
	}
	good := active("p256")
	for name, tt := range map[string]struct {
		keys []sigstore.NamedKey
		want string
	}{
		"no key":                    {nil, "nothing could ever count"},
		"only a revoked key":        {[]sigstore.NamedKey{revoked("p256")}, "nothing could ever count"},
		"no name":                   {[]sigstore.NamedKey{changed(good, func(k *sigstore.NamedKey) { k.Name = "" })}, "keys[0]"},
		"unknown state":             {[]sigstore.NamedKey{good, changed(verifyOnly("second"), func(k *sigstore.NamedKey) { k.State = "good" })}, "keys[1]"},
		"no state":                  {[]sigstore.NamedKey{changed(good, func(k *sigstore.NamedKey) { k.State = "" })}, "keys[0]"},
		"active without private":    {[]sigstore.NamedKey{changed(verifyOnly("second"), func(k *sigstore.NamedKey) { k.State = sigstore.Active })}, "private key"},
		"verify-only with private":  {[]sigstore.NamedKey{changed(good, func(k *sigstore.NamedKey) { k.State = sigstore.VerifyOnly })}, "signs nothing"},
		"revoked with private":      {[]sigstore.NamedKey{good, changed(active("second"), func(k *sigstore.NamedKey) { k.State = sigstore.Revoked })}, "signs nothing"},
		"no public key":             {[]sigstore.NamedKey{good, {Name: "x", State: sigstore.VerifyOnly}}, "there is no key"},
		"two keys in one":           {[]sigstore.NamedKey{changed(good, func(k *sigstore.NamedKey) { k.Public = loadedKeys()["second"].Public() })}, "not that of the public key"},
		"one name twice":            {[]sigstore.NamedKey{good, changed(active("second"), func(k *sigstore.NamedKey) { k.Name = "p256" })}, "the name is taken"},
		"one key under two names":   {[]sigstore.NamedKey{good, changed(good, func(k *sigstore.NamedKey) { k.Name = "x" })}, "the same key as \"p256\""},
		"one key in two states":     {[]sigstore.NamedKey{good, changed(revoked("p256"), func(k *sigstore.NamedKey) { k.Name = "x" })}, "the same key as \"p256\""},
		"verify-only, then revoked": {[]sigstore.NamedKey{verifyOnly("p256"), changed(revoked("p256"), func(k *sigstore.NamedKey) { k.Name = "x" })}, "the same key as \"p256\""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if r, err := sigstore.NewKeyring(tt.keys, sigstore.Trust{}); err == nil || r != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("NewKeyring() = %v, %v, want an error with %q", r, err, tt.want)
			}
		})
	}
	_, err := sigstore.NewKeyring([]sigstore.NamedKey{{Name: "a"}, {Name: "b", State: sigstore.Active}, active("p256"), active("p256")}, sigstore.Trust{})
	for _, want := range []string{"keys[0]", "keys[1]", "keys[3]"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewKeyring() = %v, want all problems, %s among them", err, want)
		}
	}
}

func TestKeyringSign(t *testing.T) {
	t.Parallel()
	r := newRing(t, active("p256"), active("second"), active("ed25519"), verifyOnly("p384"), revoked("rsa"))
	for _, format := range []artifact.Format{artifact.Legacy, artifact.Bundle} {
		for _, name := range []string{"p256", "second", "ed25519"} {
			s, err := r.Sign(t.Context(), name, format, claim())
			if err != nil || s.KeyID != loadedKeys()[name].ID() || s.Format != format || !r.Valid(s, claim()) {
				t.Errorf("Sign(%s, %s) = %+v, %v, want a valid signature", name, format, s, err)
			}
			again, err := r.Sign(t.Context(), name, format, claim())
			if err != nil || !bytes.Equal(again.Bytes, s.Bytes) || !bytes.Equal(again.Payload, s.Payload) {
				t.Errorf("Sign(%s, %s) twice gives %x and %x, %v, want the same", name, format, s.Bytes, again.Bytes, err)
			}
		}
	}
	for _, name := range []string{"", "nobody", "p384", "rsa"} {
		_, err := r.Sign(t.Context(), name, artifact.Legacy, claim())
		if f := fault.Of(orNone(err)); f.Kind != fault.Transient || f.Reason != fault.KeyUnavailable {
			t.Errorf("Sign(%q) = %v, want a transient fault, key_unavailable", name, err)
		}
		if text := orNone(err).Error(); !strings.Contains(text, "[ed25519, p256, second]") {
			t.Errorf("Sign(%q) says %q, want the names that there are", name, text)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Sign(ctx, "p256", artifact.Legacy, claim()); !errors.Is(err, context.Canceled) {
		t.Errorf("Sign() with an ended context = %v, want that", err)
	}
}

func orNone(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}

func TestKeyringSignRefusesClaims(t *testing.T) {
	t.Parallel()
	r := newRing(t, active("p256"))
	for name, tt := range map[string]struct {
		format artifact.Format
		claim  artifact.Claim
		kind   fault.Kind
		reason fault.Reason
	}{
		"short digest":      {artifact.Legacy, artifact.Claim{Identity: identity, Digest: "sha256:1"}, fault.Permanent, fault.Malformed},
		"no digest":         {artifact.Legacy, artifact.Claim{Identity: identity}, fault.Permanent, fault.Malformed},
		"a tag":             {artifact.Bundle, artifact.Claim{Identity: identity, Digest: "latest"}, fault.Permanent, fault.Malformed},
		"no identity":       {artifact.Legacy, artifact.Claim{Digest: digest}, fault.Permanent, fault.Malformed},
		"no host":           {artifact.Legacy, artifact.Claim{Identity: "/demo/app", Digest: digest}, fault.Permanent, fault.Malformed},
		"no repository":     {artifact.Legacy, artifact.Claim{Identity: host, Digest: digest}, fault.Permanent, fault.Malformed},
		"no format":         {"", claim(), fault.Permanent, fault.Malformed},
		"unknown format":    {"oci11", claim(), fault.Permanent, fault.Malformed},
		"large annotations": {artifact.Legacy, artifact.Claim{Identity: identity, Digest: digest, Annotations: map[string]string{"a": strings.Repeat("x", 64<<10)}}, fault.Transient, fault.TooLarge},
		"large, bundle":     {artifact.Bundle, artifact.Claim{Digest: digest, Annotations: map[string]string{"a": strings.Repeat("x", 64<<10)}}, fault.Transient, fault.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := r.Sign(t.Context(), "p256", tt.format, tt.claim)
			if err == nil {
				t.Fatal("Sign() succeeded")
			}
			if f := fault.Of(err); f.Kind != tt.kind || f.Reason != tt.reason {
				t.Errorf("Sign() = %s %s (%v), want %s %s", f.Kind, f.Reason, err, tt.kind, tt.reason)
			}
		})
	}
	// What is signed can be read back, up to the limit, in both formats.
	c := claim()
	c.Annotations = map[string]string{"a": strings.Repeat("x", 65000)}
	m, _ := attach(t, "p256", nil, c)
	if got, err := newLegacy(t, active("p256")).Verify(t.Context(), m, c, anyKey, noFetch(t)); err != nil || len(got) != 1 {
		t.Errorf("Verify() of a large payload = %d signatures, %v, want 1", len(got), err)
	}
	m, pieces := compose(t, sign(t, "p256", artifact.Bundle, c))
	if got, err := newBundles(t, active("p256")).Verify(t.Context(), m, c, fetchPieces(pieces)); err != nil || len(got) != 1 {
		t.Errorf("Verify() of a large bundle = %d signatures, %v, want 1", len(got), err)
	}
}

func TestKeyringValid(t *testing.T) {
	t.Parallel()
	r := newRing(t, active("p256"), verifyOnly("p384"), verifyOnly("ed25519"), verifyOnly("rsa"), revoked("second"))
	for _, format := range []artifact.Format{artifact.Legacy, artifact.Bundle} {
		for _, name := range []string{"p256", "p384", "ed25519", "rsa"} {
			if s := sign(t, name, format, claim()); !r.Valid(s, claim()) {
				t.Errorf("Valid() of a %s signature by %s = false, want true", format, name)
			}
		}
		annotated := claim()
		annotated.Annotations = map[string]string{"team": "a"}
		if s := sign(t, "p256", format, annotated); !r.Valid(s, claim()) {
			t.Errorf("Valid() of an annotated %s signature = false: annotations do not matter", format)
		}
		good := sign(t, "p256", format, claim())
		for name, change := range map[string]func(*artifact.Signature, *artifact.Claim){
			"another digest":   func(_ *artifact.Signature, c *artifact.Claim) { c.Digest = other },
			"no digest":        func(_ *artifact.Signature, c *artifact.Claim) { c.Digest = "" },
			"another key's id": func(s *artifact.Signature, _ *artifact.Claim) { s.KeyID = loadedKeys()["p384"].ID() },
			"no key id":        func(s *artifact.Signature, _ *artifact.Claim) { s.KeyID = "" },
			"other payload":    func(s *artifact.Signature, _ *artifact.Claim) { s.Payload = append(bytes.Clone(s.Payload), ' ') },
			"no payload":       func(s *artifact.Signature, _ *artifact.Claim) { s.Payload = nil },
			"other bytes":      func(s *artifact.Signature, _ *artifact.Claim) { s.Bytes = sign(t, "p384", format, claim()).Bytes },
			"no bytes":         func(s *artifact.Signature, _ *artifact.Claim) { s.Bytes = nil },
			"no format":        func(s *artifact.Signature, _ *artifact.Claim) { s.Format = "" },
			"the other format": func(s *artifact.Signature, _ *artifact.Claim) { s.Format = otherFormat(format) },
			"the other's signature": func(s *artifact.Signature, _ *artifact.Claim) {
				s.Bytes = sign(t, "p256", otherFormat(format), claim()).Bytes
			},
			"a revoked key": func(s *artifact.Signature, _ *artifact.Claim) { *s = sign(t, "second", format, claim()) },
		} {
			s, c := good, claim()
			change(&s, &c)
			if r.Valid(s, c) {
				t.Errorf("%s, %s: Valid() = true, want false", format, name)
			}
		}
	}
	moved := claim()
	moved.Identity = host + "/demo/copy"
	if r.Valid(sign(t, "p256", artifact.Legacy, claim()), moved) {
		t.Error("Valid() of a legacy signature for another repository = true, want false")
	}
	if !r.Valid(sign(t, "p256", artifact.Bundle, claim()), moved) {
		t.Error("Valid() of a bundle = false: it has no place for a repository")
	}
}

func otherFormat(f artifact.Format) artifact.Format {
	if f == artifact.Legacy {
		return artifact.Bundle
	}
	return artifact.Legacy
}

func TestKeyringAccepts(t *testing.T) {
	t.Parallel()
	r := newRing(t, active("p256"), active("second"), verifyOnly("p384"), revoked("rsa"))
	id := func(name string) string { return loadedKeys()[name].ID() }
	for _, tt := range []struct {
		name, key string
		want      bool
	}{
		{"p256", "p256", true},
		{"p256", "second", false},
		{"second", "p256", false},
		{"p256", "p384", true},
		{"p384", "p384", true},
		{"p256", "rsa", false},
		{"rsa", "rsa", false},
		{"rsa", "p384", true},
		{"p256", "ed25519", false},
		{"nobody", "p256", false},
		{"nobody", "p384", true},
	} {
		if got := r.Accepts(tt.name, id(tt.key)); got != tt.want {
			t.Errorf("Accepts(%s, id of %s) = %v, want %v", tt.name, tt.key, got, tt.want)
		}
	}
	if r.Accepts("p256", "") || r.Accepts("", "") {
		t.Error("Accepts() of no id = true, want false")
	}
	for _, name := range []string{"p256", "p384", "rsa"} {
		if got, known := r.KeyID(name); !known || got != id(name) {
			t.Errorf("KeyID(%s) = %q, %v, want %q", name, got, known, id(name))
		}
	}
	if got, known := r.KeyID("nobody"); known || got != "" {
		t.Errorf("KeyID(nobody) = %q, %v, want none", got, known)
	}
}

// TestKeySet: it changes with what may count, and with nothing else.
func TestKeySet(t *testing.T) {
	t.Parallel()
	base := newRing(t, active("p256"), verifyOnly("p384"), revoked("rsa")).KeySet()
	if len(base) != 16 || strings.Trim(base, "0123456789abcdef") != "" {
		t.Errorf("KeySet() = %q, want 16 hexadecimal digits", base)
	}
	for name, tt := range map[string]struct {
		ring *sigstore.Keyring
		same bool
	}{
		"another order":           {newRing(t, revoked("rsa"), verifyOnly("p384"), active("p256")), true},
		"no revoked key":          {newRing(t, active("p256"), verifyOnly("p384")), true},
		"another one signs":       {newRing(t, active("p384"), verifyOnly("p256")), true},
		"one more":                {newRing(t, active("p256"), verifyOnly("p384"), verifyOnly("rsa")), false},
		"one fewer":               {newRing(t, active("p256")), false},
		"one that is now revoked": {newRing(t, active("p256"), revoked("p384")), false},
		"another key":             {newRing(t, active("p256"), verifyOnly("second")), false},
	} {
		if got := tt.ring.KeySet(); (got == base) != tt.same {
			t.Errorf("%s: KeySet() = %q, and %q before; the same: want %t", name, got, base, tt.same)
		}
	}
}
