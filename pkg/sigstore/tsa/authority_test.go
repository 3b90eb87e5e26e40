package tsa_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore/tsa"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var message = []byte("the raw bytes of a signature")

func TestStamp(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server func(*server)
		chain  func(chain) []byte
	}{
		{"the whole chain is known", nil, chain.pem},
		{"the root alone is known", nil, func(c chain) []byte { return c.root.pem() }},
		{"all but the leaf is known", nil, func(c chain) []byte { return slices.Concat(c.middle.pem(), c.root.pem()) }},
		{"an intermediate is what is trusted", nil, func(c chain) []byte { return slices.Concat(c.leaf.pem(), c.middle.pem()) }},
		{"the answer has only the leaf", func(s *server) { s.stamp = func(ts *timestamp.Timestamp) { ts.Certificates = nil } }, chain.pem},
		{"the answer has no certificate", func(s *server) { s.stamp = func(ts *timestamp.Timestamp) { ts.AddTSACertificate = false } }, chain.pem},
		{"status 201", func(s *server) { s.status = http.StatusCreated }, chain.pem},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &server{chain: newChain(t)}
			if tt.server != nil {
				tt.server(s)
			}
			cfg := configOf(s)
			cfg.Chain = tt.chain(s.chain)
			a := newAuthority(t, cfg)
			if other := configOf(&server{chain: newChain(t)}); slices.Equal(a.ID(), newAuthority(t, other).ID()) {
				t.Error("two chains have the same id")
			}
			response, at, err := a.Stamp(t.Context(), message)
			if err != nil {
				t.Fatalf("Stamp: %v", err)
			}
			if !at.Equal(start) || at.Location() != time.UTC {
				t.Errorf("it is stamped at %s, want %s", at, start)
			}
			if s.requests != 1 {
				t.Errorf("%d requests were made, want 1", s.requests)
			}
			// The same bytes prove the same afterwards, and to whoever else trusts the authority.
			if got, err := newAuthority(t, cfg).Verify(response, message); err != nil || !got.Equal(start) {
				t.Errorf("Verify = %s, %v; want %s", got, err, start)
			}
			if _, err := a.Verify(response, []byte("other bytes")); err == nil {
				t.Error("Verify takes the timestamp for other bytes")
			}
		})
	}
}

func TestRequest(t *testing.T) {
	s := &server{chain: newChain(t)}
	cfg := configOf(s)
	cfg.UserAgent = "somebody (cosign-compatible)"
	a := newAuthority(t, cfg)
	seen := make(map[string]bool)
	for range 10 {
		if _, _, err := a.Stamp(t.Context(), message); err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(message); !bytes.Equal(s.last.HashedMessage, sum[:]) || s.last.HashAlgorithm != crypto.SHA256 {
			t.Errorf("what is stamped is %x (%s), want the SHA-256 of the message", s.last.HashedMessage, s.last.HashAlgorithm)
		}
		if !s.last.Certificates {
			t.Error("the certificate was not asked for")
		}
		seen[s.last.Nonce.String()] = true
	}
	if len(seen) != 10 {
		t.Errorf("10 requests had %d nonces, want 10", len(seen))
	}
	if got := s.header.Get("User-Agent"); got != cfg.UserAgent {
		t.Errorf("the User-Agent is %q, want %q", got, cfg.UserAgent)
	}
	if a.Name() != "main" {
		t.Errorf("Name() = %q, want main", a.Name())
	}
}

// A lie is found, whatever it is.
func TestLies(t *testing.T) {
	honest := newChain(t)
	stranger := newChain(t)
	shifted := func(d time.Duration) func(*timestamp.Timestamp) {
		return func(ts *timestamp.Timestamp) { ts.Time = start.Add(d) }
	}
	leaf := func(change func(*x509.Certificate)) func(*server) {
		return func(s *server) { s.leaf = issue(t, "stamp", &s.middle, change) }
	}
	sum384 := sha512.Sum384(message)
	for _, tt := range []struct {
		name string
		lie  func(*server)
		// leafless leaves the leaf out of the configuration, so that it is the answer's that is judged.
		leafless bool
		want     fault.Reason
	}{
		{"another nonce", func(s *server) { s.stamp = func(ts *timestamp.Timestamp) { ts.Nonce = big.NewInt(7) } }, false, fault.ProofInvalid},
		{"no nonce", func(s *server) { s.stamp = func(ts *timestamp.Timestamp) { ts.Nonce = nil } }, false, fault.ProofInvalid},
		{"another message", func(s *server) {
			s.stamp = func(ts *timestamp.Timestamp) { ts.HashedMessage = make([]byte, sha256.Size) }
		}, false, fault.ProofInvalid},
		{"the right hash under another algorithm's name", func(s *server) {
			s.stamp = func(ts *timestamp.Timestamp) { ts.HashAlgorithm, ts.HashedMessage = crypto.SHA512, sum384[:] }
		}, false, fault.ProofInvalid},
		{"much later", func(s *server) { s.stamp = shifted(6 * time.Minute) }, false, fault.ProofInvalid},
		{"much earlier", func(s *server) { s.stamp = shifted(-6 * time.Minute) }, false, fault.ProofInvalid},
		{"a stranger's chain", func(s *server) { s.chain = stranger }, true, fault.ProofInvalid},
		{"another leaf of the same authority", leaf(stamping(true, usageStamping)), false, fault.ProofInvalid},
		{"the leaf's name with another key", func(s *server) { s.leaf.key = stranger.leaf.key }, true, fault.ProofInvalid},
		{"a usage that is not critical", leaf(stamping(false, usageStamping)), true, fault.ProofInvalid},
		{"a usage too many", leaf(stamping(true, usageStamping, usageCode)), true, fault.ProofInvalid},
		{"an unknown usage too many", leaf(stamping(true, usageStamping, usageUnknown)), true, fault.ProofInvalid},
		{"another usage", leaf(stamping(true, usageCode)), true, fault.ProofInvalid},
		{"no usage", leaf(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), true, fault.ProofInvalid},
		{"an authority that stamps itself", leaf(func(c *x509.Certificate) { stamping(true, usageStamping)(c); c.IsCA = true }), true, fault.ProofInvalid},
		{"a certificate that had expired", leaf(func(c *x509.Certificate) {
			stamping(true, usageStamping)(c)
			c.NotAfter = start.Add(-time.Hour)
		}), true, fault.ProofInvalid},
		{"an intermediate that had expired", func(s *server) {
			s.middle = issue(t, "middle", &s.root, func(c *x509.Certificate) { authority(c); c.NotAfter = start.Add(-time.Hour) })
			s.leaf = issue(t, "stamp", &s.middle, stamping(true, usageStamping))
		}, true, fault.ProofInvalid},
		{"an intermediate for other things", func(s *server) {
			s.middle = issue(t, "middle", &s.root, func(c *x509.Certificate) {
				authority(c)
				c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
			})
			s.leaf = issue(t, "stamp", &s.middle, stamping(true, usageStamping))
		}, true, fault.ProofInvalid},
		{"no certificate at all", func(s *server) { s.stamp = func(ts *timestamp.Timestamp) { ts.AddTSACertificate = false } }, true, fault.ProofInvalid},
		{"one bit of the signature", func(s *server) {
			s.answer = func(raw []byte) []byte { raw[len(raw)-3] ^= 1; return raw }
		}, false, fault.ProofInvalid},
		{"another time, signature kept", func(s *server) {
			s.answer = func(raw []byte) []byte {
				return replaced(t, raw, generalized(start), generalized(start.Add(time.Second)))
			}
		}, false, fault.ProofInvalid},
		{"granted with modifications", func(s *server) {
			s.answer = func(raw []byte) []byte { return replaced(t, raw, []byte{0x30, 3, 2, 1, 0}, []byte{0x30, 3, 2, 1, 1}) }
		}, false, fault.ProofInvalid},
		{"granted without a token", func(s *server) { s.answer = func([]byte) []byte { return []byte{0x30, 5, 0x30, 3, 2, 1, 0} } }, false, fault.ProofInvalid},
		{"something behind it", func(s *server) { s.answer = func(raw []byte) []byte { return append(raw, 0) } }, false, fault.BadAnswer},
		{"the beginning of it", func(s *server) { s.answer = func(raw []byte) []byte { return raw[:len(raw)-1] } }, false, fault.BadAnswer},
		{"nothing", func(s *server) { s.answer = func([]byte) []byte { return nil } }, false, fault.BadAnswer},
		{"a page", func(s *server) { s.answer = func([]byte) []byte { return []byte("<html>Welcome</html>") } }, false, fault.BadAnswer},
		{"too much", func(s *server) { s.answer = func([]byte) []byte { return make([]byte, 17<<10) } }, false, fault.BadAnswer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &server{chain: honest}
			cfg := configOf(s)
			if tt.leafless {
				cfg.Chain = honest.root.pem()
			}
			tt.lie(s)
			a := newAuthority(t, cfg)
			response, at, err := a.Stamp(t.Context(), message)
			if err == nil {
				t.Fatalf("Stamp takes it, at %s", at)
			}
			if response != nil || !at.IsZero() {
				t.Errorf("beside the error there are %d bytes and %s", len(response), at)
			}
			if got := fault.Of(err); got.Kind != fault.Transient || got.Reason != tt.want {
				t.Errorf("Stamp: %v (%s, %s), want a transient %s", err, got.Kind, got.Reason, tt.want)
			}
			if s.requests != 1 {
				t.Errorf("%d requests were made, want 1", s.requests)
			}
		})
	}
}

// An answer is not read to its end if it has none.
func TestTooMuch(t *testing.T) {
	s := &server{chain: newChain(t), answer: func([]byte) []byte { return make([]byte, 17<<10) }}
	a := newAuthority(t, configOf(s))
	if _, _, err := a.Stamp(t.Context(), message); err == nil || !strings.Contains(err.Error(), "more than 16384 bytes") {
		t.Errorf("Stamp: %v, want its length in it", err)
	}
	if _, err := a.Verify(make([]byte, 17<<10), message); err == nil || !strings.Contains(err.Error(), "17408 bytes") {
		t.Errorf("Verify: %v, want its length in it", err)
	}
}

func TestProbeSeesAClock(t *testing.T) {
	for _, tt := range []struct {
		off          time.Duration
		probe, stamp bool
	}{
		{0, true, true},
		{-time.Second, true, true}, // the fraction of a second is left out
		{30 * time.Second, true, true},
		{40 * time.Second, false, true},
		{-40 * time.Second, false, true},
		{10 * time.Minute, false, false},
	} {
		s := &server{chain: newChain(t), stamp: func(ts *timestamp.Timestamp) { ts.Time = start.Add(tt.off) }}
		a := newAuthority(t, configOf(s))
		err := a.Probe(t.Context())
		if (err == nil) != tt.probe {
			t.Errorf("%s away: Probe: %v, want success: %t", tt.off, err, tt.probe)
		}
		if skew, ok := errors.AsType[*tsa.SkewError](err); ok == tt.probe || ok && (skew.Skew()-tt.off).Abs() > time.Second {
			t.Errorf("%s away: Probe: %v, want a skew of that much", tt.off, err)
		}
		if _, _, err := a.Stamp(t.Context(), message); (err == nil) != tt.stamp {
			t.Errorf("%s away: Stamp: %v, want success: %t", tt.off, err, tt.stamp)
		}
	}
}

// A timestamp outlives the certificate that it was made with.
func TestVerifyKnowsNoClock(t *testing.T) {
	s := &server{chain: newChain(t)}
	cfg := configOf(s)
	response, _, err := newAuthority(t, cfg).Stamp(t.Context(), message)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Now = func() time.Time { return start.AddDate(30, 0, 0) }
	if at, err := newAuthority(t, cfg).Verify(response, message); err != nil || !at.Equal(start) {
		t.Errorf("after 30 years Verify = %s, %v; want %s", at, err, start)
	}
}

func TestConcurrentStamps(t *testing.T) {
	c := newChain(t)
	reg := prometheus.NewRegistry()
	var mu sync.Mutex
	s := &server{chain: c}
	cfg := configOf(s)
	cfg.Registerer = reg
	cfg.Transport = roundTripper{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		s.ServeHTTP(w, r)
	})}
	a := newAuthority(t, cfg)
	other := cfg
	other.Name = "second"
	newAuthority(t, other) // beside another on the same registry
	var wg sync.WaitGroup
	for n := range 32 {
		wg.Go(func() {
			text := fmt.Appendf(nil, "signature %d", n)
			response, _, err := a.Stamp(t.Context(), text)
			if err != nil {
				t.Errorf("Stamp: %v", err)
				return
			}
			if _, err := a.Verify(response, text); err != nil {
				t.Errorf("Verify: %v", err)
			}
			_ = a.NotAfter()
		})
	}
	wg.Wait()
	if got, err := testutil.GatherAndCount(reg, "harborseal_timestamp_request_seconds"); err != nil || got != 1 {
		t.Errorf("there are %d series (%v), want 1", got, err)
	}
}
