package signing_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// testIdentity signs with a key and a certificate of its own each time. The certificates live for ten minutes.
type testIdentity struct {
	w      *world
	issued *[][]byte
}

func (i testIdentity) KeyID() string {
	return artifact.IdentityID("https://issuer.example.com", "signer")
}

func (i testIdentity) Sign(_ context.Context, message []byte) (artifact.Signature, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return artifact.Signature{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: i.w.clock, NotAfter: i.w.clock.Add(10 * time.Minute)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return artifact.Signature{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return artifact.Signature{}, err
	}
	*i.issued = append(*i.issued, certificate)
	sum := sha256.Sum256(message)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	return artifact.Signature{Bytes: signature, Certificates: [][]byte{certificate}, PublicKey: public, KeyID: i.KeyID()}, err
}

func (i testIdentity) Verify(certificates [][]byte, at time.Time) ([]byte, error) {
	if !slices.ContainsFunc(*i.issued, func(c []byte) bool { return bytes.Equal(c, certificates[0]) }) {
		return nil, errors.New("not issued here")
	}
	certificate, err := x509.ParseCertificate(certificates[0])
	if err != nil {
		return nil, err
	}
	if at.Before(certificate.NotBefore) || at.After(certificate.NotAfter) {
		return nil, errors.New("the certificate was not valid then")
	}
	return x509.MarshalPKIXPublicKey(certificate.PublicKey)
}

// keylessParts gives the parts of a signer without a key, whose clock is the world's.
func keylessParts(t *testing.T, w *world, identity testIdentity) parts {
	t.Helper()
	ring := newTrustedRing(t, w.trust(), sigstore.NamedKey{Name: "k", State: sigstore.Active, Identity: identity})
	p := partsOf(t, w, w, ring, ring)
	p.now = func() time.Time { return w.clock }
	return p
}

// keylessCases are all that a policy may ask for where an identity signs.
func keylessCases() []crashCase {
	var all []crashCase
	for _, c := range crashCases() {
		stamped := c.timestamp == policy.TimestampRequired
		logged := c.kind == policy.RekorV1 && c.transparency == policy.TransparencyRequired
		if c.random = false; stamped || logged {
			all = append(all, c)
		}
	}
	return all
}

// TestEveryStepMayFailWithoutAKey is the crash table for signatures that nobody can make twice: in each format one is attached,
// with its entry; the log may have entries of some that nobody has.
func TestEveryStepMayFailWithoutAKey(t *testing.T) {
	for _, c := range keylessCases() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			for _, how := range []mode{fails, failsButPersists, persistsLate} {
				for step := 1; ; step++ {
					w, ref := c.world(t)
					identity := testIdentity{w, new([][]byte)}
					reached := false
					w.fail = func(n int, _ string) mode {
						switch {
						case n < step:
							return works
						case n == step:
							reached = true
							return how
						default:
							return fails
						}
					}
					s, _ := keylessParts(t, w, identity).service(t, w)
					w.once(t, s, ref, 1)
					if w.fail = nil; !reached {
						if step < 9 {
							t.Errorf("only %d operations were seen", step-1)
						}
						break
					}
					v := w.rest(t, keylessParts(t, w, identity), ref)
					verdict := w.verify(t, v, ref)
					wanted := formatsOf(c.format, c.transparency, c.kind)
					if !verdict.Signed() || len(verdict.Owed) > 0 || len(verdict.Signatures) != len(wanted) {
						t.Errorf("%+v, want signed and nothing owed", verdict)
					}
					for format, all := range w.bytes() {
						if len(all) != 1 {
							t.Errorf("%s: the signatures %v, want one", format, all)
						}
					}
					for _, e := range verdict.Signatures {
						if (e.Log != "") != wanted[e.Format] {
							t.Errorf("%+v, want an entry: %t", e, wanted[e.Format])
						}
					}
					for name, kept := range w.kept {
						if kept.Entry == nil && kept.Timestamp == nil {
							t.Errorf("%s is kept without what proves its time", name)
						}
					}
					for _, violation := range w.violations {
						t.Error(violation)
					}
					wantState(t, w, ref, ledger.Signed)
					wantPaid(t, w, ref)
					if t.Failed() {
						t.Fatalf("failed at step %d, mode %d: %v", step, how, w.operations)
					}
				}
			}
		})
	}
}

// TestADebtBehindACertificate: an entry that names a time counts only within the certificate's life. Behind it the signature is
// made anew; one of Rekor v2 names none, and completes what is there.
func TestADebtBehindACertificate(t *testing.T) {
	for _, tt := range []struct {
		kind   policy.LogType
		format policy.Format
		later  time.Duration
		want   int // signatures in the format
	}{
		{policy.RekorV1, policy.FormatLegacy, time.Minute, 1},
		{policy.RekorV1, policy.FormatLegacy, time.Hour, 2},
		{policy.RekorV1, policy.FormatBundle, time.Minute, 1},
		{policy.RekorV1, policy.FormatBundle, time.Hour, 2},
		{policy.RekorV2, policy.FormatBundle, time.Hour, 1},
	} {
		t.Run(fmt.Sprintf("%s, %s, %s later", tt.kind, tt.format, tt.later), func(t *testing.T) {
			w, ref := crashCase{tt.kind, tt.format, policy.TransparencyDeferred, policy.TimestampRequired, false}.world(t)
			identity := testIdentity{w, new([][]byte)}
			s, v := keylessParts(t, w, identity).service(t, w)
			if d := w.attempt(t, s, ref, 1); d.ended != "done" || len(w.debts) != 1 {
				t.Fatalf("the delivery ended %q with %d debts, want done with one", d.ended, len(w.debts))
			}
			w.clock = w.clock.Add(tt.later)
			clear(w.kept)
			if d := w.pay(t, s, ref, 1); d.ended != "done" || len(w.debts) > 0 {
				t.Fatalf("the debt ended %q, want done", d.ended)
			}
			verdict := w.verify(t, v, ref)
			if !verdict.Signed() || len(verdict.Owed) > 0 || verdict.Signatures[0].Log == "" {
				t.Errorf("%+v, want signed and nothing owed", verdict)
			}
			for format, all := range w.bytes() {
				if len(all) != tt.want {
					t.Errorf("%s: %d signatures, want %d", format, len(all), tt.want)
				}
			}
			wantPaid(t, w, ref)
		})
	}
}
