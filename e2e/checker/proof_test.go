package checker_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"maps"
	"math/big"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/harborseal/harborseal/e2e/checker"
)

func TestProofs(t *testing.T) {
	t.Parallel()
	legacy, bundles, both := []checker.Format{checker.Legacy}, []checker.Format{checker.Bundle}, checker.Formats()
	log, all := checker.Asked{Log: true}, checker.Asked{Log: true, Timestamp: true}
	sign := func(plans ...plan) func(t *testing.T, w *witness, digest string) {
		return func(t *testing.T, w *witness, digest string) {
			t.Helper()
			var layers []mutate.Addendum
			for _, p := range plans {
				layers = append(layers, w.planted(t, digest, p))
			}
			w.sign(t, digest, layers...)
		}
	}
	tests := map[string]struct {
		formats []checker.Format
		asked   checker.Asked
		plant   func(t *testing.T, w *witness, digest string)
		want    []checker.Rule
	}{
		"nothing is asked for, and nothing there": {legacy, checker.Asked{}, sign(plan{unlogged: true}), nil},
		"nothing is asked for, and all is there":  {legacy, checker.Asked{}, sign(plan{stamped: true}), nil},
		"logged":                                  {legacy, log, sign(plan{}), nil},
		"logged and stamped":                      {legacy, all, sign(plan{stamped: true}), nil},
		"not logged":                              {legacy, log, sign(plan{unlogged: true}), []checker.Rule{checker.NotLogged}},
		"not stamped":                             {legacy, all, sign(plan{}), []checker.Rule{checker.NotStamped}},
		"stamped by another":                      {legacy, all, sign(plan{stamped: true, clock: newClock(t)}), []checker.Rule{checker.BadProof, checker.NotStamped}},
		"entry of another log":                    {legacy, log, sign(plan{log: newForest(t)}), []checker.Rule{checker.BadProof, checker.NotLogged}},
		"entry of another signature":              {legacy, log, sign(plan{other: true}), []checker.Rule{checker.BadProof, checker.NotLogged}},
		"timestamp of another signature": {
			legacy,
			checker.Asked{Timestamp: true},
			sign(plan{other: true, unlogged: true, stamped: true}),
			[]checker.Rule{checker.BadProof, checker.NotStamped},
		},
		"entry that was changed": {legacy, log, sign(plan{changed: func(body []byte) []byte {
			return append(body[:len(body)-1], ' ', '}')
		}}), []checker.Rule{checker.BadProof, checker.NotLogged}},
		"entry about another payload": {legacy, log, sign(plan{logged: replacing(`"value":"[0-9a-f]*"`, `"value":"00"`)}), []checker.Rule{checker.BadProof, checker.NotLogged}},
		"entry of another kind":       {legacy, log, sign(plan{logged: replacing(`hashedrekord`, `rekord`)}), []checker.Rule{checker.BadProof, checker.NotLogged}},
		"entry by another key": {
			legacy, log, sign(plan{logged: replacing(`"publicKey":{"content":"[^"]*"`, `"publicKey":{"content":"`+base64.StdEncoding.EncodeToString(publicPEM(t, newKey(t)))+`"`)}),
			[]checker.Rule{checker.BadProof, checker.NotLogged},
		},
		"entry that is no JSON": {legacy, log, sign(plan{logged: replacing(`^\{`, `[`)}), []checker.Rule{checker.BadProof, checker.NotLogged}},
		"entry without a proof": {bundles, log, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			w.bundle(t, digest, statement{beside: func(t *testing.T, payload, signed []byte) proofs {
				t.Helper()
				p := w.logged(w.log, false, 1)(t, payload, signed)
				delete(p.entries[0], "inclusionProof")
				return p
			}})
		}, []checker.Rule{checker.BadProof, checker.NotLogged}},
		"the timestamp is not beside the entry": {bundles, all, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			w.bundle(t, digest, statement{beside: w.logged(w.log, true)})
			w.bundle(t, digest, statement{beside: w.logged(w.log, false, 1)})
		}, []checker.Rule{checker.NotStamped}},
		"two entries of one signature": {legacy, log, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			w.refer(t, digest, w.planted(t, digest, plan{index: 1}))
			w.sign(t, digest, w.planted(t, digest, plan{index: 2}))
		}, []checker.Rule{checker.LoggedTwice}},
		"the entry came later": {legacy, log, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			w.refer(t, digest, w.planted(t, digest, plan{unlogged: true}))
			w.sign(t, digest, w.planted(t, digest, plan{}))
		}, nil},
		"the tag has lost its entry": {legacy, log, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			w.refer(t, digest, w.planted(t, digest, plan{}))
			w.sign(t, digest, w.planted(t, digest, plan{unlogged: true}))
		}, []checker.Rule{checker.NotLogged}},
		"logged bundle": {bundles, all, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			w.bundle(t, digest, statement{beside: w.logged(w.log, true, 1)})
		}, nil},
		"unlogged bundle": {bundles, log, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			w.bundle(t, digest, statement{beside: w.logged(w.log, true)})
		}, []checker.Rule{checker.NotLogged}},
		"bundle without a timestamp": {bundles, all, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			w.bundle(t, digest, statement{beside: w.logged(w.log, false, 1)})
		}, []checker.Rule{checker.NotStamped}},
		"bundle of another log": {bundles, log, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			w.bundle(t, digest, statement{beside: w.logged(newForest(t), false, 1)})
		}, []checker.Rule{checker.BadProof, checker.NotLogged}},
		"bundle with the entry of another signature": {bundles, log, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			w.bundle(t, digest, statement{beside: func(t *testing.T, payload, _ []byte) proofs {
				t.Helper()
				return w.logged(w.log, false, 1)(t, payload, signature(t, rand.Reader, w.key, payload))
			}})
		}, []checker.Rule{checker.BadProof, checker.NotLogged}},
		"bundle with two entries": {bundles, log, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			w.bundle(t, digest, statement{beside: w.logged(w.log, false, 1, 2)})
		}, []checker.Rule{checker.LoggedTwice}},
		"the bundle's entry came later": {bundles, log, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			w.bundle(t, digest, statement{})
			w.bundle(t, digest, statement{beside: w.logged(w.log, false, 1)})
		}, nil},
		"two logged bundles of one signature": {bundles, log, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			w.bundle(t, digest, statement{})
			w.bundle(t, digest, statement{beside: w.logged(w.log, false, 1)})
			w.bundle(t, digest, statement{beside: w.logged(w.log, false, 2)})
		}, []checker.Rule{checker.LoggedTwice, checker.SignedTwice}},
		"both are logged": {both, log, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			sign(plan{})(t, w, digest)
			w.bundle(t, digest, statement{beside: w.logged(w.log, false, 1)})
		}, nil},
		"unlogged bundle beside a logged legacy signature": {both, checker.Asked{}, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			sign(plan{})(t, w, digest)
			w.bundle(t, digest, statement{})
		}, []checker.Rule{checker.UnloggedBeside}},
		"unlogged bundle beside its logged one": {both, log, func(t *testing.T, w *witness, digest string) {
			t.Helper()
			sign(plan{})(t, w, digest)
			w.bundle(t, digest, statement{})
			w.bundle(t, digest, statement{beside: w.logged(w.log, false, 1)})
		}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWitness(t)
			digest := w.image(t)
			tt.plant(t, w, digest)
			_, violations, err := w.judge(t, tt.asked, tt.formats...).Signed(t.Context(), repository, digest)
			if err != nil {
				t.Fatalf("checking: %v", err)
			}
			if got := rules(violations); !slices.Equal(got, tt.want) {
				t.Errorf("broken rules are %q, want %q: %v", got, tt.want, violations)
			}
		})
	}
}

// A checker that trusts nobody complains of every proof, and one of keys only does not take Rekor v2 for a log of promises.
func TestProofsThatNobodyTrusts(t *testing.T) {
	t.Parallel()
	w := newWitness(t)
	digest := w.image(t)
	w.sign(t, digest, w.planted(t, digest, plan{stamped: true}))
	_, violations, err := w.checker.Signed(t.Context(), repository, digest)
	if got := rules(violations); err != nil || !slices.Equal(got, []checker.Rule{checker.BadProof}) {
		t.Errorf("broken rules are %q, %v, want %q", got, err, checker.BadProof)
	}
	trust := w.trust(t)
	trust.Logs[0].Origin = origin
	unlogged := w.image(t)
	w.sign(t, unlogged, w.planted(t, unlogged, plan{unlogged: true}))
	c, err := w.checker.Trusting(trust, checker.Asked{Log: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, violations, err := c.Signed(t.Context(), repository, unlogged); err != nil || len(violations) > 0 {
		t.Errorf("with Rekor v2: %v, %v, want that a legacy signature has no place for an entry", violations, err)
	}
	for name, trust := range map[string]checker.Trust{
		"a log without a key":         {Logs: []checker.Log{{Name: "rekor"}}},
		"an authority without a root": {Authorities: [][]byte{w.clock.chain()[:100]}},
	} {
		if _, err := w.checker.Trusting(trust, checker.Asked{}); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
}

// newIssuer makes a certificate of an identity, valid between these times.
func newIssuer(t *testing.T, subject, issuer string, from, until time.Time) *mint {
	t.Helper()
	u, err := url.Parse(subject)
	if err != nil {
		t.Fatal(err)
	}
	value, err := asn1.MarshalWithParams(issuer, "utf8")
	if err != nil {
		t.Fatal(err)
	}
	return newMint(t, &x509.Certificate{
		SerialNumber: big.NewInt(4), NotBefore: from, NotAfter: until, URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: value}},
	})
}

func TestKeyless(t *testing.T) {
	t.Parallel()
	const subject, issuer = "https://kubernetes.io/signer", "https://issuer.example.com"
	now := time.Now()
	begin, end := now.Add(-time.Minute), now.Add(time.Minute)
	for name, tt := range map[string]struct {
		subject, issuer string
		from, until     time.Time
		foreign         bool // the certificate leads to another root
		unstamped       bool
		want            []checker.Rule
	}{
		"the identity":      {subject, issuer, begin, end, false, false, nil},
		"another subject":   {subject + "2", issuer, begin, end, false, false, []checker.Rule{checker.Unsigned}},
		"another issuer":    {subject, issuer + "2", begin, end, false, false, []checker.Rule{checker.Unsigned}},
		"another root":      {subject, issuer, begin, end, true, false, []checker.Rule{checker.BadSignature, checker.Unsigned}},
		"over before":       {subject, issuer, begin, begin.Add(time.Second), false, false, []checker.Rule{checker.BadSignature, checker.Unsigned}},
		"no time is proven": {subject, issuer, begin, end, false, true, []checker.Rule{checker.BadSignature, checker.Unsigned}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWitness(t)
			digest := w.image(t)
			by := newIssuer(t, tt.subject, tt.issuer, tt.from, tt.until)
			roots := by.chain()
			if tt.foreign {
				roots = newIssuer(t, tt.subject, tt.issuer, tt.from, tt.until).chain()
			}
			w.bundle(t, digest, statement{key: by.key, beside: func(t *testing.T, _, signed []byte) proofs {
				t.Helper()
				p := proofs{certificate: by.leaf.Raw}
				if !tt.unstamped {
					p.stamps = [][]byte{w.clock.stamp(t, signed, now)}
				}
				return p
			}})
			c, err := w.judge(t, checker.Asked{}, checker.Bundle).By(checker.Identity{Issuer: issuer, Subject: subject, Roots: roots})
			if err != nil {
				t.Fatal(err)
			}
			_, violations, err := c.Signed(t.Context(), repository, digest)
			if got := rules(violations); err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("broken rules are %q, want %q: %v, %v", got, tt.want, violations, err)
			}
		})
	}
}

// The report says which entry and which timestamp a signature has.
func TestCompareProofs(t *testing.T) {
	t.Parallel()
	w := newWitness(t)
	digest := w.image(t)
	w.sign(t, digest, w.planted(t, digest, plan{stamped: true, index: 7}))
	judge := w.judge(t, checker.Asked{Log: true, Timestamp: true}, checker.Legacy)
	evidence, violations, err := judge.Signed(t.Context(), repository, digest)
	if err != nil || len(violations) > 0 {
		t.Fatalf("checking: %v, %v", violations, err)
	}
	id, err := checker.KeyID(&w.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	good := checker.RowSignature{
		Format: checker.Legacy, KeyID: id, Digest: evidence.Tagged, Log: "rekor", LogIndex: 7, TimestampedAt: evidence.Signatures[0].Stamped[0],
	}
	rows := map[string]func(r *checker.Row, s *checker.RowSignature){
		"":                  func(*checker.Row, *checker.RowSignature) {},
		"another log":       func(_ *checker.Row, s *checker.RowSignature) { s.Log = "other" },
		"no log":            func(r *checker.Row, s *checker.RowSignature) { r.LogState, s.Log, s.LogIndex = "", "", 0 },
		"another index":     func(_ *checker.Row, s *checker.RowSignature) { s.LogIndex++ },
		"another time":      func(_ *checker.Row, s *checker.RowSignature) { s.TimestampedAt = now.Add(time.Hour) },
		"no time":           func(_ *checker.Row, s *checker.RowSignature) { s.TimestampedAt = time.Time{} },
		"no state":          func(r *checker.Row, _ *checker.RowSignature) { r.LogState = "" },
		"owed at the time":  func(r *checker.Row, _ *checker.RowSignature) { r.LogState, r.LogOwedSince = "owed", &now },
		"owed since a time": func(r *checker.Row, _ *checker.RowSignature) { r.LogOwedSince = &now },
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		s := good
		row := checker.Row{
			Repository: repository, Digest: digest, State: "signed", KeyID: id, SignedAt: &now, MediaType: evidence.MediaType,
			SignatureDigest: evidence.Tagged, Format: "legacy", LogState: "logged",
		}
		rows[name](&row, &s)
		row.Signatures = []checker.RowSignature{s}
		violations, err := judge.Compare([]checker.Fact{{Repository: repository, Digest: digest, Evidence: evidence}}, []checker.Row{row})
		if err != nil || (len(violations) > 0) != (name != "") {
			t.Errorf("%q: %v, %v, want violations: %v", name, violations, err, name != "")
		}
	}
}
