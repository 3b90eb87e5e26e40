package sigstore_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// TestKeyless: a certificate of minutes counts for what is proven to be from these minutes, and for nothing else.
func TestKeyless(t *testing.T) {
	t.Parallel()
	d, stranger := newDeployment(t), newDeployment(t)
	stranger.identity.name = oidcSubject + "2"
	late := d.identity.begins.Add(10*time.Minute + time.Second)
	for name, tt := range map[string]struct {
		log     string
		stamped bool
		change  func(t *testing.T, s *artifact.Signature)
		want    bool
	}{
		"an entry":               {"one", false, nil, true},
		"a timestamp":            {"", true, nil, true},
		"both":                   {"one", true, nil, true},
		"nothing":                {"", false, nil, false},
		"entry of the last time": {"", false, d.logged(d.identity.begins.Add(10 * time.Minute)), true},
		"entry too late":         {"", false, d.logged(late), false},
		"entry too early":        {"", false, d.logged(d.identity.begins.Add(-time.Second)), false},
		"timestamp too late":     {"", false, d.stamped(late), false},
		"timestamp too early":    {"", false, d.stamped(d.identity.begins.Add(-time.Second)), false},
		"entry too late, timestamp within": {
			"", true, d.logged(late), false,
		},
		"timestamp too late, entry within": {"one", false, d.stamped(late), false},
		"entry of another log":             {"", false, stranger.logged(d.within()), false},
		"entry of another log, timestamp":  {"", true, stranger.logged(d.within()), true},
		"timestamp of another authority":   {"", false, stranger.stamped(d.within()), false},
		"another subject": {"one", false, func(t *testing.T, s *artifact.Signature) {
			t.Helper()
			other := *d.identity
			other.name = oidcSubject + "2"
			*s = d.certify(t, &other, *s)
		}, false},
		"another root": {"one", false, func(t *testing.T, s *artifact.Signature) {
			t.Helper()
			other := *stranger.identity
			other.name = oidcSubject
			*s = d.certify(t, &other, *s)
		}, false},
		"another certificate of the identity": {"", true, func(t *testing.T, s *artifact.Signature) {
			t.Helper()
			other := d.sign(t, "keyless", s.Format, "", false)
			s.Certificates, s.PublicKey = other.Certificates, other.PublicKey
		}, false},
		"certificate that is none": {"one", false, func(_ *testing.T, s *artifact.Signature) { s.Certificates = [][]byte{[]byte("hello")} }, false},
	} {
		for _, format := range []artifact.Format{artifact.Legacy, artifact.Bundle} {
			t.Run(fmt.Sprintf("%s, %s", name, format), func(t *testing.T) {
				t.Parallel()
				s := d.sign(t, "keyless", format, tt.log, tt.stamped)
				if tt.change != nil {
					tt.change(t, &s)
				}
				got := d.verify(t, d.attach(t, s))
				if (len(got) == 1) != tt.want || len(got) > 1 {
					t.Fatalf("Verify() gives %d signatures, want one: %v", len(got), tt.want)
				}
				if valid := d.ring.Valid(s, claim()); valid != tt.want {
					t.Errorf("Valid() = %v, want %v", valid, tt.want)
				}
				if tt.want && (got[0].KeyID != artifact.IdentityID(oidcIssuer, oidcSubject) || !bytes.Equal(got[0].PublicKey, s.PublicKey) ||
					!bytes.Equal(got[0].Certificates[0], s.Certificates[0])) {
					t.Errorf("Verify() = %+v, want the identity's signature with its certificate", got[0])
				}
			})
		}
	}
}

// logged gives a signature an entry of that time, and stamped a timestamp.
func (d *deployment) logged(at time.Time) func(*testing.T, *artifact.Signature) {
	return func(t *testing.T, s *artifact.Signature) {
		t.Helper()
		s.Entry = d.one.entry(t, *s, at)
	}
}

func (d *deployment) stamped(at time.Time) func(*testing.T, *artifact.Signature) {
	return func(t *testing.T, s *artifact.Signature) {
		t.Helper()
		s.Timestamp = d.authority.stamp(t, s.Bytes, at)
	}
}

// certify signs a payload again as somebody else, and logs it.
func (d *deployment) certify(tb testing.TB, as *virtualIdentity, s artifact.Signature) artifact.Signature {
	tb.Helper()
	ring, err := sigstore.NewKeyring([]sigstore.NamedKey{{Name: "x", State: sigstore.Active, Identity: as}}, sigstore.Trust{})
	if err != nil {
		tb.Fatal(err)
	}
	made, err := ring.Sign(tb.Context(), "x", s.Format, claim())
	if err != nil {
		tb.Fatal(err)
	}
	made.Entry = d.one.entry(tb, made, d.within())
	return made
}

// An entry of Rekor v2 has no time.
func TestKeylessNeedsATime(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	if got := d.verify(t, d.attach(t, d.sign(t, "keyless", artifact.Bundle, "two", false))); len(got) != 0 {
		t.Errorf("Verify() with an entry of Rekor v2 alone = %+v, want none", got)
	}
	got := d.verify(t, d.attach(t, d.sign(t, "keyless", artifact.Bundle, "two", true)))
	if len(got) != 1 || got[0].Entry == nil || got[0].Entry.Log != "two" {
		t.Errorf("Verify() with a timestamp too = %+v, want the logged signature", got)
	}
}

func TestKeylessStates(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	for state, want := range map[sigstore.KeyState]int{sigstore.Active: 1, sigstore.VerifyOnly: 1, sigstore.Revoked: 0} {
		ring, err := sigstore.NewKeyring([]sigstore.NamedKey{active("second"), {Name: "keyless", State: state, Identity: d.identity}}, d.trust)
		if err != nil {
			t.Fatal(err)
		}
		for _, format := range []artifact.Format{artifact.Legacy, artifact.Bundle} {
			s := d.sign(t, "keyless", format, "one", false)
			there := *d
			there.legacy, there.bundles = sigstore.NewLegacy(ring), sigstore.NewBundles(ring)
			if got := there.verify(t, d.attach(t, s)); len(got) != want || ring.Valid(s, claim()) != (want == 1) {
				t.Errorf("%s, %s: Verify() gives %d signatures, and Valid() %v, want %d", state, format, len(got), ring.Valid(s, claim()), want)
			}
		}
		_, err = ring.Sign(t.Context(), "keyless", artifact.Legacy, claim())
		if signs := err == nil; signs != (state == sigstore.Active) || !signs && fault.Of(err).Reason != fault.KeyUnavailable {
			t.Errorf("%s: Sign() = %v, want that only an active identity signs", state, err)
		}
		if !ring.Keyless("keyless") || ring.Keyless("second") || ring.Keyless("nobody") {
			t.Errorf("%s: Keyless() does not tell the identity from the key", state)
		}
		if id, known := ring.KeyID("keyless"); !known || id != d.identity.KeyID() {
			t.Errorf("%s: KeyID() = %q, %v, want the identity's", state, id, known)
		}
		if ring.Deterministic("keyless") == (state == sigstore.Active) || !ring.Deterministic("second") {
			t.Errorf("%s: Deterministic() is wrong: an identity has a new key each time", state)
		}
		if got := ring.Accepts("keyless", d.identity.KeyID()); got != (state != sigstore.Revoked) {
			t.Errorf("%s: Accepts() = %v", state, got)
		}
	}
}

// A payload is fetched for a certificate of the identity, and for no other.
func TestKeylessGarbageCostsNoFetch(t *testing.T) {
	t.Parallel()
	d, stranger := newDeployment(t), newDeployment(t)
	annotated := claim()
	annotated.Annotations = map[string]string{"team": "a"}
	s := d.signClaim(t, "keyless", artifact.Legacy, "one", false, annotated)
	m, pieces, err := d.legacy.Append(nil, s)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.legacy.Verify(t.Context(), m, claim(), anyKey, fetchPieces(pieces)); err != nil || len(got) != 1 {
		t.Errorf("Verify() = %d signatures, %v, want the one whose payload is fetched", len(got), err)
	}
	none := func(string) bool { return false }
	if got, err := d.legacy.Verify(t.Context(), m, claim(), none, noFetch(t)); err != nil || len(got) != 0 {
		t.Errorf("Verify() where nothing is accepted = %d signatures, %v, want none", len(got), err)
	}
	strange, _, err := stranger.legacy.Append(nil, stranger.signClaim(t, "keyless", artifact.Legacy, "one", false, annotated))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.legacy.Verify(t.Context(), strange, claim(), anyKey, noFetch(t)); err != nil || len(got) != 0 {
		t.Errorf("Verify() of somebody else's = %d signatures, %v, want none", len(got), err)
	}
}

func TestNewKeyringRefusesIdentities(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	for name, tt := range map[string]struct {
		keys []sigstore.NamedKey
		want string
	}{
		"a key too":         {[]sigstore.NamedKey{{Name: "a", State: sigstore.Active, Identity: d.identity, Signer: loadedKeys()["p256"]}}, "give one of them"},
		"a public key too":  {[]sigstore.NamedKey{{Name: "a", State: sigstore.VerifyOnly, Identity: d.identity, Public: loadedKeys()["p256"].Public()}}, "give one of them"},
		"twice":             {[]sigstore.NamedKey{{Name: "a", State: sigstore.Active, Identity: d.identity}, {Name: "b", State: sigstore.Revoked, Identity: d.identity}}, "the same key"},
		"no name":           {[]sigstore.NamedKey{{State: sigstore.Active, Identity: d.identity}}, "no name"},
		"only a revoked id": {[]sigstore.NamedKey{{Name: "a", State: sigstore.Revoked, Identity: d.identity}}, "nothing could ever count"},
	} {
		if _, err := sigstore.NewKeyring(tt.keys, d.trust); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: NewKeyring() = %v, want an error with %q", name, err, tt.want)
		}
	}
	if _, err := sigstore.NewKeyring([]sigstore.NamedKey{{Name: "a", State: sigstore.VerifyOnly, Identity: d.identity}}, d.trust); err != nil {
		t.Errorf("NewKeyring() of an identity alone = %v", err)
	}
}

// What counts as signed depends on what is trusted: what was remembered of a review must not outlive a change.
func TestKeySetHasTheTrust(t *testing.T) {
	t.Parallel()
	d, stranger := newDeployment(t), newDeployment(t)
	named := []sigstore.NamedKey{active("p256")}
	set := func(named []sigstore.NamedKey, trust sigstore.Trust) string {
		t.Helper()
		ring, err := sigstore.NewKeyring(named, trust)
		if err != nil {
			t.Fatal(err)
		}
		return ring.KeySet()
	}
	logs, stamps := d.trust.Logs, d.trust.Timestamps
	seen := make(map[string]string)
	for name, trust := range map[string]sigstore.Trust{
		"none": {}, "both": d.trust, "one log": {Logs: logs[:1]}, "logs": {Logs: logs}, "authority": {Timestamps: stamps},
		"log with another key": {Logs: []sigstore.EntryVerifier{stranger.one.verifier(t)}},
	} {
		got := set(named, trust)
		if before, twice := seen[got]; twice {
			t.Errorf("KeySet() is %s for %q and %q, want others", got, name, before)
		}
		seen[got] = name
	}
	if a, b := set(named, sigstore.Trust{Logs: logs}), set(named, sigstore.Trust{Logs: []sigstore.EntryVerifier{logs[1], logs[0]}}); a != b {
		t.Errorf("KeySet() = %s and %s in another order, want the same", a, b)
	}
	if got := (sigstore.Trust{}).Set(); got != "" {
		t.Errorf("Set() of no trust = %q, want none", got)
	}
	keyless := []sigstore.NamedKey{active("p256"), {Name: "keyless", State: sigstore.VerifyOnly, Identity: d.identity}}
	if a, b := set(named, d.trust), set(keyless, d.trust); a == b {
		t.Errorf("KeySet() = %s with and without an identity", a)
	}
}

// Valid asks for the public key, because entries are about it.
func TestValidAsksForThePublicKey(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	for _, key := range []string{"p256", "keyless"} {
		for _, public := range [][]byte{nil, spki(t, rawKeys()["second"].Public())} {
			s := d.sign(t, key, artifact.Bundle, "one", true)
			s.PublicKey = public
			if d.ring.Valid(s, claim()) {
				t.Errorf("%s: Valid() with a public key of %d bytes = true, want false", key, len(public))
			}
		}
		s := d.sign(t, key, artifact.Bundle, "one", true)
		s.KeyID = loadedKeys()["second"].ID()
		if d.ring.Valid(s, claim()) {
			t.Errorf("%s: Valid() with another key's id = true, want false", key)
		}
	}
}
