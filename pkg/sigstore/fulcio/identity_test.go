package fulcio_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore/fulcio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var message = []byte("what is signed")

func TestSign(t *testing.T) {
	for _, embedded := range []bool{false, true} {
		s := newServer(t)
		s.embedded = embedded
		i := newIdentity(t, s.config())
		if got := i.NotAfter(); !got.IsZero() {
			t.Errorf("before the first certificate NotAfter() = %s, want none", got)
		}
		signed, err := i.Sign(t.Context(), message)
		if err != nil {
			t.Fatalf("Sign: %v", err)
		}
		if signed.KeyID != artifact.IdentityID(issuer, subject) || i.KeyID() != signed.KeyID {
			t.Errorf("the key ids are %s and %s, want that of the identity", signed.KeyID, i.KeyID())
		}
		if len(signed.Certificates) != 3 || !slices.EqualFunc(signed.Certificates[1:], ders(s.middle, s.root), slices.Equal) {
			t.Fatalf("there are %d certificates, want the leaf, the intermediate and the root", len(signed.Certificates))
		}
		leaf, err := x509.ParseCertificate(signed.Certificates[0])
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(message)
		public, ok := leaf.PublicKey.(*ecdsa.PublicKey)
		if !ok || !ecdsa.VerifyASN1(public, sum[:], signed.Bytes) {
			t.Error("the signature does not verify with its certificate")
		}
		if !slices.Equal(signed.PublicKey, leaf.RawSubjectPublicKeyInfo) {
			t.Error("PublicKey is not that of the certificate")
		}
		if got, err := i.Verify(signed.Certificates, time.Now()); err != nil || !slices.Equal(got, signed.PublicKey) {
			t.Errorf("Verify = %x, %v; want the public key", got, err)
		}
		if !i.NotAfter().Equal(leaf.NotAfter) {
			t.Errorf("NotAfter() = %s, want %s", i.NotAfter(), leaf.NotAfter)
		}
		token := s.tokens[0]
		if want := strings.TrimSpace(readFile(t, s.tokenFile)); token != want {
			t.Error("the token that was sent is not the one in the file")
		}
	}
}

// One certificate serves all, those that come together at the beginning too.
func TestOneCertificateForAll(t *testing.T) {
	s := newServer(t)
	cfg := s.config()
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	i := newIdentity(t, cfg)
	other := s.config()
	other.Registerer, other.Name = reg, "second"
	newIdentity(t, other) // beside another on the same registry
	var wg sync.WaitGroup
	var mu sync.Mutex
	leaves := make(map[string]bool)
	for range 64 {
		wg.Go(func() {
			signed, err := i.Sign(t.Context(), message)
			if err != nil {
				t.Errorf("Sign: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			leaves[string(signed.Certificates[0])] = true
		})
	}
	wg.Wait()
	if len(leaves) != 1 || s.requests() != 1 {
		t.Errorf("64 signatures took %d certificates by %d requests, want 1", len(leaves), s.requests())
	}
	if got, err := testutil.GatherAndCount(reg, "harborseal_certificate_request_seconds"); err != nil || got != 1 {
		t.Errorf("there are %d series (%v), want 1", got, err)
	}
}

func TestNewSaysAllAtOnce(t *testing.T) {
	const secret = "hunter2"
	_, err := fulcio.New(fulcio.Config{URL: "ftp://user:" + secret + "@fulcio", Timeout: -1, UserAgent: "a\nb"})
	if err == nil {
		t.Fatal("New takes it")
	}
	for _, want := range []string{"name", "url", "roots", "issuer", "subject", "token file", "transport", "timeout", "user agent"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want %q in it", err, want)
		}
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("New repeats a password: %v", err)
	}
}

func TestRoots(t *testing.T) {
	s := newServer(t)
	other := newAuthority(t, "other", nil)
	leaf := issue(t, &s.middle, nil, newKey(t).Public(), identity(time.Now()))
	for _, tt := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"empty", nil, "no certificate"},
		{"an intermediate alone", s.middle.pem(), "self-signed"},
		{"a leaf", slices.Concat(leaf.pem(), s.root.pem()), "no authority"},
		{"a key", []byte("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"), "certificates only"},
		{"text behind", append(s.root.pem(), "hello"...), "follows the last"},
		{"two roots and an intermediate", slices.Concat(other.pem(), s.middle.pem(), s.root.pem()), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := s.config()
			cfg.Roots = tt.content
			_, err := fulcio.New(cfg)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("New: %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestProbe(t *testing.T) {
	s := newServer(t)
	i := newIdentity(t, s.config())
	for range 3 {
		if err := i.Probe(t.Context()); err != nil {
			t.Fatalf("Probe: %v", err)
		}
	}
	if s.requests() != 1 || s.probes != 2 {
		t.Errorf("3 probes made %d and %d requests, want 1 for the certificate that was due and 2 for the authorities", s.requests(), s.probes)
	}
	if got := s.headers.Get("Authorization"); got != "" {
		t.Error("the token was sent where nobody needs it")
	}
	stranger := newAuthority(t, "stranger", nil)
	for _, tt := range []struct {
		name   string
		bundle []string
		want   fault.Reason
	}{
		{"stranger", []string{string(stranger.pem())}, fault.ProofInvalid},
		{"not PEM", []string{"hello"}, fault.BadAnswer},
	} {
		s.set(func() { s.bundle = tt.bundle })
		if err := i.Probe(t.Context()); err == nil || fault.Of(err).Reason != tt.want {
			t.Errorf("%s: Probe: %v, want %s", tt.name, err, tt.want)
		}
	}
	s.set(func() { s.bundle = nil })
	s.writeToken(tokenUntil(time.Now().Add(-time.Minute)))
	if err := i.Probe(t.Context()); err == nil || fault.Of(err).Reason != fault.IdentityMissing {
		t.Errorf("with an expired token Probe: %v, want %s", err, fault.IdentityMissing)
	}
}

// What Fulcio refuses is told apart by who has to mend it, and nothing of the token is repeated.
func TestFaults(t *testing.T) {
	status := func(code int, header, body string) func(http.ResponseWriter) bool {
		return func(w http.ResponseWriter) bool {
			name, value, _ := strings.Cut(header, ": ")
			w.Header().Set(name, value)
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	const (
		js   = "Content-Type: application/json"
		said = `{"code":3,"message":"There was an error processing\nthe identity token TOKEN"}`
		page = "<html>a proxy</html>"
	)
	for _, tt := range []struct {
		name  string
		reply func(http.ResponseWriter) bool
		want  fault.Reason
		after time.Duration
	}{
		{"400", status(400, js, said), fault.Unauthorized, 0},
		{"401", status(401, js, said), fault.Unauthorized, 0},
		{"403", status(403, js, said), fault.Unauthorized, 0},
		{"404", status(404, js, `{"message":"Not Found"}`), fault.BadAnswer, 0},
		{"409", status(409, js, said), fault.Rejected, 0},
		{"400 of a proxy", status(400, js, page), fault.BadAnswer, 0},
		{"407", status(407, js, ""), fault.Unreachable, 0},
		{"408", status(408, js, ""), fault.Timeout, 0},
		{"429", status(429, "Retry-After: 17", ""), fault.RateLimited, 17 * time.Second},
		{"500", status(500, js, said), fault.Unavailable, 0},
		{"503", status(503, "Retry-After: 9", page), fault.Unavailable, 9 * time.Second},
		{"302", status(302, "Location: https://elsewhere.example.com/", ""), fault.ForeignOrigin, 0},
		{"200 and a page", status(200, "Content-Type: text/html", page), fault.BadAnswer, 0},
		{"200 and nothing", status(200, js, ""), fault.BadAnswer, 0},
		{"200 and no chain", status(200, js, "{}"), fault.BadAnswer, 0},
		{"200 and no certificate", status(200, js, `{"signedCertificateDetachedSct":{"chain":{"certificates":["hello"]}}}`), fault.BadAnswer, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			token := readFile(t, s.tokenFile)
			s.reply = func(w http.ResponseWriter) bool { return tt.reply(echoing{w, token}) }
			_, err := newIdentity(t, s.config()).Sign(t.Context(), message)
			if err == nil {
				t.Fatal("Sign takes it")
			}
			got := fault.Of(err)
			if got.Kind != fault.Transient || got.Reason != tt.want || got.RetryAfter != tt.after {
				t.Errorf("Sign: %v (%s, %s, %s), want a transient %s after %s", err, got.Kind, got.Reason, got.RetryAfter, tt.want, tt.after)
			}
			if text := err.Error(); strings.Contains(text, token) || strings.Contains(text, "html") || strings.Contains(text, "\n") {
				t.Errorf("it says %q, want neither the token nor a page", text)
			}
			if s.requests() != 1 {
				t.Errorf("%d requests were made, want 1", s.requests())
			}
		})
	}
}

// An answer is not read to its end if it has none.
func TestTooMuch(t *testing.T) {
	s := newServer(t)
	s.reply = func(w http.ResponseWriter) bool {
		_, _ = w.Write([]byte(strings.Repeat(" ", 257<<10)))
		return false
	}
	if _, err := newIdentity(t, s.config()).Sign(t.Context(), message); err == nil || !strings.Contains(err.Error(), "more than 262144 bytes") {
		t.Errorf("Sign: %v, want the limit in it", err)
	}
}

// echoing repeats a secret where a body has a place for it.
type echoing struct {
	http.ResponseWriter
	token string
}

// Write implements http.ResponseWriter.
func (e echoing) Write(b []byte) (int, error) {
	_, err := e.ResponseWriter.Write([]byte(strings.ReplaceAll(string(b), "TOKEN", e.token)))
	return len(b), err
}

func TestConnectionFaults(t *testing.T) {
	open := fault.After(9*time.Second, fault.DependencyDown, errors.New("not asked"))
	for _, tt := range []struct {
		name  string
		err   error
		want  fault.Reason
		after time.Duration
	}{
		{"refused", errors.New("connection refused"), fault.Unreachable, 0},
		{"a breaker's own fault", open, fault.DependencyDown, 9 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			cfg := s.config()
			cfg.Transport = failing{tt.err}
			_, err := newIdentity(t, cfg).Sign(t.Context(), message)
			if got := fault.Of(err); got.Kind != fault.Transient || got.Reason != tt.want || got.RetryAfter != tt.after {
				t.Errorf("Sign: %v (%s, %s, %s), want a transient %s after %s", err, got.Kind, got.Reason, got.RetryAfter, tt.want, tt.after)
			}
			if !errors.Is(err, tt.err) {
				t.Errorf("Sign: %v, which has lost %v", err, tt.err)
			}
		})
	}
}

type failing struct{ err error }

// RoundTrip implements http.RoundTripper.
func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }
