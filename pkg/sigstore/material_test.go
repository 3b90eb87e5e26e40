package sigstore_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// deployment has one of each: logs of both kinds, an authority, a key and an identity.
type deployment struct {
	one, two  virtualLog
	authority virtualAuthority
	identity  *virtualIdentity
	trust     sigstore.Trust
	ring      *sigstore.Keyring
	legacy    *sigstore.Legacy
	bundles   *sigstore.Bundles
}

func newDeployment(tb testing.TB, more ...sigstore.NamedKey) *deployment {
	tb.Helper()
	d := &deployment{
		one: newVirtualLog(tb, "one", policy.RekorV1), two: newVirtualLog(tb, "two", policy.RekorV2),
		authority: newVirtualAuthority(tb, "authority"), identity: newVirtualIdentity(tb),
	}
	d.trust = sigstore.Trust{
		Logs:       []sigstore.EntryVerifier{d.one.verifier(tb), d.two.verifier(tb)},
		Timestamps: []sigstore.TimestampVerifier{d.authority.verifier(tb)},
	}
	named := append([]sigstore.NamedKey{active("p256"), {Name: "keyless", State: sigstore.Active, Identity: d.identity}}, more...)
	var err error
	if d.ring, err = sigstore.NewKeyring(named, d.trust); err != nil {
		tb.Fatal(err)
	}
	d.legacy, d.bundles = sigstore.NewLegacy(d.ring), sigstore.NewBundles(d.ring)
	return d
}

// within is a time within the life of the certificates, in whole seconds.
func (d *deployment) within() time.Time { return d.identity.begins.Add(time.Minute) }

// sign signs, with an entry and a timestamp if they are asked for.
func (d *deployment) sign(tb testing.TB, key string, format artifact.Format, log string, stamped bool) artifact.Signature {
	tb.Helper()
	return d.signClaim(tb, key, format, log, stamped, claim())
}

func (d *deployment) signClaim(tb testing.TB, key string, format artifact.Format, log string, stamped bool, c artifact.Claim) artifact.Signature {
	tb.Helper()
	s, err := d.ring.Sign(tb.Context(), key, format, c)
	if err != nil {
		tb.Fatal(err)
	}
	switch log {
	case "one":
		s.Entry = d.one.entry(tb, s, d.within())
	case "two":
		s.Entry = d.two.entry(tb, s, d.within())
	}
	if stamped {
		s.Timestamp = d.authority.stamp(tb, s.Bytes, d.within())
	}
	return s
}

// attached is a manifest with its blobs.
type attached struct {
	format artifact.Format
	m      artifact.Manifest
	pieces []artifact.Blob
}

// attach writes a signature in its format.
func (d *deployment) attach(tb testing.TB, s artifact.Signature) attached {
	tb.Helper()
	a := attached{format: s.Format}
	var err error
	if s.Format == artifact.Legacy {
		a.m, a.pieces, err = d.legacy.Append(nil, s)
	} else {
		a.m, a.pieces, err = d.bundles.Compose(s, artifact.Descriptor{MediaType: manifestType, Digest: digest, Size: 418})
	}
	if err != nil {
		tb.Fatalf("writing the signature: %v", err)
	}
	return a
}

func (d *deployment) verify(tb testing.TB, a attached) []artifact.Signature {
	tb.Helper()
	var got []artifact.Signature
	var err error
	if a.format == artifact.Legacy {
		got, err = d.legacy.Verify(tb.Context(), a.m, claim(), anyKey, fetchPieces(a.pieces))
	} else {
		got, err = d.bundles.Verify(tb.Context(), a.m, claim(), fetchPieces(a.pieces))
	}
	if err != nil {
		tb.Fatalf("Verify() = %v", err)
	}
	return got
}

// kinds are the combinations of format and log that there can be.
func kinds() []struct {
	format artifact.Format
	log    string
} {
	return []struct {
		format artifact.Format
		log    string
	}{{artifact.Legacy, "one"}, {artifact.Bundle, "one"}, {artifact.Bundle, "two"}}
}

// TestMaterial: what is beside a key's signature comes along where it is proven, is as if it were not there where it is not,
// and never decides whether the signature counts.
func TestMaterial(t *testing.T) {
	t.Parallel()
	d, foreign := newDeployment(t, verifyOnly("second")), newDeployment(t)
	other := claim()
	other.Annotations = map[string]string{"another": "payload"}
	for name, tt := range map[string]struct {
		change         func(t *testing.T, s *artifact.Signature, log string)
		entry, stamped bool
	}{
		"both":         {func(*testing.T, *artifact.Signature, string) {}, true, true},
		"no entry":     {func(_ *testing.T, s *artifact.Signature, _ string) { s.Entry = nil }, false, true},
		"no timestamp": {func(_ *testing.T, s *artifact.Signature, _ string) { s.Timestamp = nil }, true, false},
		"log with another key": {func(t *testing.T, s *artifact.Signature, log string) {
			t.Helper()
			s.Entry = foreign.signLike(t, *s, log).Entry
		}, false, true},
		"entry about another signature": {func(t *testing.T, s *artifact.Signature, log string) {
			t.Helper()
			s.Entry = d.signClaim(t, "p256", s.Format, log, false, other).Entry
		}, false, true},
		"entry about another key's signature": {func(t *testing.T, s *artifact.Signature, log string) {
			t.Helper()
			by := sign(t, "second", s.Format, claim())
			s.Entry = d.signLike(t, by, log).Entry
		}, false, true},
		"body changed": {func(_ *testing.T, s *artifact.Signature, _ string) {
			s.Entry.Body = bytes.Replace(s.Entry.Body, []byte(`"spec"`), []byte(` "spec"`), 1)
		}, false, true},
		"timestamp over something else": {func(t *testing.T, s *artifact.Signature, _ string) {
			t.Helper()
			s.Timestamp = d.authority.stamp(t, s.Payload, d.within())
		}, true, false},
		"timestamp by another authority": {func(t *testing.T, s *artifact.Signature, _ string) {
			t.Helper()
			s.Timestamp = foreign.authority.stamp(t, s.Bytes, d.within())
		}, true, false},
		"timestamp that is none": {func(_ *testing.T, s *artifact.Signature, _ string) { s.Timestamp = []byte("hello") }, true, false},
	} {
		for _, kind := range kinds() {
			t.Run(fmt.Sprintf("%s, %s, %s", name, kind.format, kind.log), func(t *testing.T) {
				t.Parallel()
				s := d.sign(t, "p256", kind.format, kind.log, true)
				tt.change(t, &s, kind.log)
				for from, got := range map[string][]artifact.Signature{"Verify()": d.verify(t, d.attach(t, s)), "Proven()": {d.ring.Proven(s)}} {
					if len(got) != 1 {
						t.Fatalf("%s gives %d signatures, want 1", from, len(got))
					}
					checkMaterial(t, from, got[0], s, kind.log, tt.entry, tt.stamped, d.within())
				}
				if !d.ring.Valid(s, claim()) {
					t.Error("Valid() = false: what is beside a key's signature does not matter")
				}
			})
		}
	}
}

// signLike gives a signature the entry of a log of this deployment.
func (d *deployment) signLike(tb testing.TB, s artifact.Signature, log string) artifact.Signature {
	tb.Helper()
	l := d.one
	if log == "two" {
		l = d.two
	}
	s.Entry = l.entry(tb, s, d.within())
	return s
}

func checkMaterial(t *testing.T, from string, got, s artifact.Signature, log string, entry, stamped bool, at time.Time) {
	t.Helper()
	if got.KeyID != s.KeyID || !bytes.Equal(got.PublicKey, s.PublicKey) || !bytes.Equal(got.Bytes, s.Bytes) || len(got.PublicKey) == 0 {
		t.Errorf("%s gives %+v, want the signature %+v", from, got, s)
	}
	if (got.Entry != nil) != entry || got.Logged() != entry {
		t.Fatalf("%s gives the entry %+v, want one: %v", from, got.Entry, entry)
	}
	if entry && (got.Entry.Log != log || got.Entry.Index != s.Entry.Index || !bytes.Equal(got.Entry.Body, s.Entry.Body) || got.Entry.Kind != s.Entry.Kind) {
		t.Errorf("%s gives the entry %+v, want %+v", from, got.Entry, s.Entry)
	}
	if (got.Timestamp != nil) != stamped || got.TimestampedAt.IsZero() == stamped || stamped && !got.TimestampedAt.Equal(at) {
		t.Errorf("%s gives a timestamp of %d bytes at %s, want one at %s: %v", from, len(got.Timestamp), got.TimestampedAt, at, stamped)
	}
}

// TestMaterialOfRekorV1 has what only such a log gives.
func TestMaterialOfRekorV1(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	for name, change := range map[string]func(*artifact.LogEntry){
		"no SET":               func(e *artifact.LogEntry) { e.SET = nil },
		"SET of another entry": func(e *artifact.LogEntry) { e.SET = d.one.promise(t, artifact.LogEntry{LogID: e.LogID}) },
		"another time":         func(e *artifact.LogEntry) { e.IntegratedAt++ },
		"another index":        func(e *artifact.LogEntry) { e.Index++ },
		"another log's id":     func(e *artifact.LogEntry) { e.LogID = bytes.Repeat([]byte{1}, 32) },
		"no id":                func(e *artifact.LogEntry) { e.LogID = nil },
		"no body":              func(e *artifact.LogEntry) { e.Body = []byte("{}") },
	} {
		for _, format := range []artifact.Format{artifact.Legacy, artifact.Bundle} {
			s := d.sign(t, "p256", format, "one", false)
			change(s.Entry)
			// What verifiers cannot read is no signature at all in a bundle.
			for _, got := range d.verify(t, d.attach(t, s)) {
				if got.Entry != nil {
					t.Errorf("%s, %s: Verify() gives the entry %+v, want none", name, format, got.Entry)
				}
			}
		}
	}
	s := d.sign(t, "p256", artifact.Bundle, "one", false)
	s.Entry.Proof.RootHash = bytes.Repeat([]byte{1}, 32)
	if got := d.verify(t, d.attach(t, s)); len(got) != 1 || got[0].Entry != nil {
		t.Errorf("Verify() of a bundle with a wrong proof = %+v, want the signature alone", got)
	}
}

// Without a place for it, an entry of Rekor v2 is left out; a bundle must not be written without a proof.
func TestMaterialWithoutAPlace(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	plain := d.sign(t, "p256", artifact.Legacy, "", false)
	logged := plain
	logged.Entry = d.sign(t, "p256", artifact.Bundle, "two", false).Entry
	if got, want := d.attach(t, logged), d.attach(t, plain); !bytes.Equal(got.m.Raw, want.m.Raw) {
		t.Errorf("Append() with an entry of Rekor v2 gives\n%s, want\n%s", got.m.Raw, want.m.Raw)
	}
	s := d.sign(t, "p256", artifact.Bundle, "one", false)
	s.Entry.Proof = nil
	if _, _, err := d.bundles.Compose(s, artifact.Descriptor{MediaType: manifestType, Digest: digest, Size: 418}); !fault.Is(err, fault.Permanent) {
		t.Errorf("Compose() without a proof = %v, want a permanent fault", err)
	}
}

// A bundle may have several entries and timestamps, by whoever wrote it. Verifiers refuse it for one entry that is wrong.
func TestMaterialTwice(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	s := d.sign(t, "p256", artifact.Bundle, "one", true)
	a := d.attach(t, s)
	for name, tt := range map[string]struct {
		old, new       string
		entry, stamped bool
	}{
		"two entries":                {`"tlogEntries":[`, `"tlogEntries":[` + second(t, d), false, true},
		"two timestamps, bad first":  {`"rfc3161Timestamps":[`, `"rfc3161Timestamps":[{"signedTimestamp":"aGVsbG8="},`, true, true},
		"two timestamps, none first": {`"rfc3161Timestamps":[`, `"rfc3161Timestamps":[{},`, true, true},
	} {
		raw := bytes.Replace(a.pieces[0].Raw, []byte(tt.old), []byte(tt.new), 1)
		if bytes.Equal(raw, a.pieces[0].Raw) {
			t.Fatalf("%s: nothing was changed", name)
		}
		got, err := d.bundles.Verify(t.Context(), manifestFrom(carrier(raw)), claim(), blobs(raw))
		if err != nil || len(got) != 1 || got[0].Logged() != tt.entry || (got[0].Timestamp != nil) != tt.stamped {
			t.Errorf("%s: Verify() = %+v, %v, want an entry: %v, a timestamp: %v", name, got, err, tt.entry, tt.stamped)
		}
	}
}

// second is another entry, as it stands before the first one in a bundle.
func second(tb testing.TB, d *deployment) string {
	tb.Helper()
	raw := string(d.attach(tb, d.sign(tb, "p256", artifact.Bundle, "two", false)).pieces[0].Raw)
	const start = `"tlogEntries":[`
	from := bytes.Index([]byte(raw), []byte(start)) + len(start)
	to := bytes.Index([]byte(raw), []byte(`]},"dsseEnvelope"`))
	return raw[from:to] + ","
}

// The same signature with the same material is the same manifest.
func TestMaterialIsDeterministic(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	for _, key := range []string{"p256", "keyless"} {
		for _, kind := range kinds() {
			s := d.sign(t, key, kind.format, kind.log, true)
			first, again := d.attach(t, s), d.attach(t, s)
			if !bytes.Equal(first.m.Raw, again.m.Raw) || !bytes.Equal(first.pieces[0].Raw, again.pieces[0].Raw) {
				t.Errorf("%s, %s, %s: written twice, it is\n%s, then\n%s", key, kind.format, kind.log, first.m.Raw, again.m.Raw)
			}
			// What was read back is written in the same way.
			got := d.verify(t, first)
			if len(got) != 1 {
				t.Fatalf("%s, %s, %s: Verify() gives %d signatures, want 1", key, kind.format, kind.log, len(got))
			}
			if back := d.attach(t, got[0]); !bytes.Equal(back.m.Raw, first.m.Raw) {
				t.Errorf("%s, %s, %s: read and written again, it is\n%s, want\n%s", key, kind.format, kind.log, back.m.Raw, first.m.Raw)
			}
		}
	}
}
