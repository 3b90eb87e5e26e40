package tlog_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore/tlog"
)

func TestSubmit(t *testing.T) {
	for _, tt := range []struct {
		kind    policy.LogType
		format  artifact.Format
		key     string
		keyless bool
	}{
		{policy.RekorV1, artifact.Legacy, "P-256", false},
		{policy.RekorV1, artifact.Legacy, "P-256", true},
		{policy.RekorV1, artifact.Legacy, "RSA", false},
		{policy.RekorV1, artifact.Bundle, "P-256", false},
		{policy.RekorV1, artifact.Bundle, "P-256", true},
		{policy.RekorV1, artifact.Bundle, "P-384", false},
		{policy.RekorV1, artifact.Bundle, "RSA", false},
		{policy.RekorV1, artifact.Bundle, "Ed25519", false},
		{policy.RekorV2, artifact.Bundle, "P-256", false},
		{policy.RekorV2, artifact.Bundle, "P-256", true},
		{policy.RekorV2, artifact.Bundle, "RSA", false},
	} {
		t.Run(fmt.Sprintf("%s/%s/%s/keyless=%t", tt.kind, tt.format, tt.key, tt.keyless), func(t *testing.T) {
			v := newVirtualLog(t, tt.kind, 300)
			l := client(t, v)
			key := newSigner(t, tt.key)
			s := sign(t, key, tt.format, "a payload")
			if tt.keyless {
				s = withCertificate(t, key, s)
			}
			e, err := l.Submit(t.Context(), s)
			if err != nil {
				t.Fatalf("Submit: %v", err)
			}
			if err := l.Verify(e, s); err != nil {
				t.Errorf("Verify: %v", err)
			}
			if e.Log != "company" || e.Proof == nil || e.Proof.Index != 300 {
				t.Errorf("got the entry %+v, want the one at 300 of company", e)
			}
			// Whoever lost the answer asks again.
			again, err := l.Submit(t.Context(), s)
			if err != nil {
				t.Fatalf("Submit again: %v", err)
			}
			sameEntry(t, again, e)
			if got := v.postCount(); got != 2 {
				t.Errorf("got %d POSTs by two calls, want 2", got)
			}
			if err := l.Accepts(tt.format, s.PublicKey); err != nil {
				t.Errorf("Accepts: %v", err)
			}
		})
	}
}

// What nobody could verify is not sent.
func TestSubmitUnverifiable(t *testing.T) {
	for _, tt := range []struct {
		kind   policy.LogType
		format artifact.Format
		key    string
	}{
		{policy.RekorV1, artifact.Legacy, "Ed25519"},
		{policy.RekorV1, artifact.Legacy, "P-384"},
		{policy.RekorV2, artifact.Legacy, "P-256"},
		{policy.RekorV2, artifact.Bundle, "P-384"},
		{policy.RekorV2, artifact.Bundle, "Ed25519"},
	} {
		t.Run(fmt.Sprintf("%s/%s/%s", tt.kind, tt.format, tt.key), func(t *testing.T) {
			v := newVirtualLog(t, tt.kind, 0)
			l := client(t, v)
			s := sign(t, newSigner(t, tt.key), tt.format, "a payload")
			_, err := l.Submit(t.Context(), s)
			wantFault(t, err, fault.Transient, fault.Unverifiable)
			wantFault(t, l.Accepts(tt.format, s.PublicKey), fault.Transient, fault.Unverifiable)
			wantFault(t, l.Verify(artifact.LogEntry{}, s), fault.Transient, fault.Unverifiable)
			if got := v.postCount(); got != 0 {
				t.Errorf("got %d POSTs, want none", got)
			}
		})
	}
}

func TestSubmitMalformed(t *testing.T) {
	good := sign(t, newSigner(t, "P-256"), artifact.Bundle, "a payload")
	for name, edit := range map[string]func(*artifact.Signature){
		"no signature":   func(s *artifact.Signature) { s.Bytes = nil },
		"no key":         func(s *artifact.Signature) { s.PublicKey = nil },
		"a broken key":   func(s *artifact.Signature) { s.PublicKey = []byte("key") },
		"no certificate": func(s *artifact.Signature) { s.Certificates = [][]byte{[]byte("certificate")} },
		"another format": func(s *artifact.Signature) { s.Format = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			v := newVirtualLog(t, policy.RekorV2, 0)
			s := good
			edit(&s)
			_, err := client(t, v).Submit(t.Context(), s)
			wantFault(t, err, fault.Permanent, fault.Malformed)
			if got := v.postCount(); got != 0 {
				t.Errorf("got %d POSTs, want none", got)
			}
		})
	}
}

// A signature that does not verify is the log's to refuse.
func TestSubmitRefused(t *testing.T) {
	for _, kind := range []policy.LogType{policy.RekorV1, policy.RekorV2} {
		t.Run(string(kind), func(t *testing.T) {
			v := newVirtualLog(t, kind, 0)
			s := sign(t, newSigner(t, "P-256"), artifact.Bundle, "a payload")
			s.Payload = []byte("another payload")
			_, err := client(t, v).Submit(t.Context(), s)
			wantFault(t, err, fault.Transient, fault.Rejected)
		})
	}
}

// An entry is rebuilt from trees of every shape: one tile, a full one, one just begun, and levels above.
func TestRebuild(t *testing.T) {
	for _, others := range []int{0, 1, 2, 254, 255, 256, 257, 511, 512, 1000, 65535, 65536, 66000} {
		t.Run(fmt.Sprint(others), func(t *testing.T) {
			v := newVirtualLog(t, policy.RekorV2, others)
			l := client(t, v)
			s := sign(t, newSigner(t, "P-256"), artifact.Bundle, "a payload")
			e, err := l.Submit(t.Context(), s)
			if err != nil {
				t.Fatalf("Submit: %v", err)
			}
			for more := range 3 {
				again, err := l.Submit(t.Context(), s)
				if err != nil {
					t.Fatalf("Submit again, after %d more: %v", more, err)
				}
				sameEntry(t, again, e)
				if got, want := again.Proof.TreeSize, int64(others+more+1); got != want {
					t.Errorf("got a proof for a tree of %d, want %d", got, want)
				}
				v.add(fmt.Appendf(nil, "later %d", more))
			}
		})
	}
}

// Many submit through one client at once, the same and different signatures.
func TestSubmitConcurrently(t *testing.T) {
	for _, kind := range []policy.LogType{policy.RekorV1, policy.RekorV2} {
		t.Run(string(kind), func(t *testing.T) {
			v := newVirtualLog(t, kind, 100)
			l := client(t, v)
			key := newSigner(t, "P-256")
			signatures := make([]artifact.Signature, 8)
			for i := range signatures {
				signatures[i] = sign(t, key, artifact.Bundle, fmt.Sprintf("payload %d", i))
			}
			var wg sync.WaitGroup
			for i := range 64 {
				wg.Go(func() {
					s := signatures[i%len(signatures)]
					e, err := l.Submit(t.Context(), s)
					if err != nil {
						t.Errorf("Submit: %v", err)
						return
					}
					if err := l.Verify(e, s); err != nil {
						t.Errorf("Verify: %v", err)
					}
					if err := l.Probe(t.Context()); err != nil {
						t.Errorf("Probe: %v", err)
					}
				})
			}
			wg.Wait()
			v.mu.Lock()
			defer v.mu.Unlock()
			if got, want := len(v.leaves), 100+len(signatures); got != want {
				t.Errorf("got %d entries, want %d", got, want)
			}
		})
	}
}

// The tiles of a log may be served by another server than the one that takes entries.
func TestProbeOfTheWritingSide(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"not serving": func(w http.ResponseWriter) { writeJSON(w, http.StatusOK, map[string]any{"status": "NOT_SERVING"}) },
		"a page":      func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) },
		"a status":    func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
	} {
		t.Run(name, func(t *testing.T) {
			v := newVirtualLog(t, policy.RekorV2, 1)
			v.instead = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/healthz" {
					return false
				}
				answer(w)
				return true
			}
			if err := client(t, v).Probe(t.Context()); !fault.Is(err, fault.Transient) {
				t.Errorf("Probe = %v, want a transient fault", err)
			}
		})
	}
}

func TestProbe(t *testing.T) {
	for _, kind := range []policy.LogType{policy.RekorV1, policy.RekorV2} {
		for _, size := range []int{0, 1, 300} {
			t.Run(fmt.Sprintf("%s/%d", kind, size), func(t *testing.T) {
				v := newVirtualLog(t, kind, size)
				if err := client(t, v).Probe(t.Context()); err != nil {
					t.Errorf("Probe: %v", err)
				}
				other := newSigner(t, "P-256")
				wrong := client(t, v, func(c *tlog.Config) { c.PublicKey = inPEM(t, other.Public()) })
				wantFault(t, wrong.Probe(t.Context()), fault.Transient, fault.ProofInvalid)
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				wantFault(t, client(t, v).Probe(ctx), fault.Transient, fault.Canceled)
			})
		}
	}
}
