//go:build !no_hashivault || !no_awskms

package keys_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/harborseal/harborseal/pkg/egress"
)

// standIn is what the stand-ins of all KMS share: a key, faults on demand, and a count of the requests that run. Each of them
// answers as the documentation of the real one says; none was compared with the real one.
type standIn struct {
	server *httptest.Server

	mu      sync.Mutex
	key     crypto.Signer             // guarded by mu: the newest version
	older   []crypto.Signer           // guarded by mu
	fault   func(http.ResponseWriter) // guarded by mu; nil to work
	gate    chan struct{}             // guarded by mu; nil, or what every signature waits for
	running int                       // guarded by mu: signatures
	most    int                       // guarded by mu
	asked   map[string]int            // guarded by mu: requests by what they ask
	headers []http.Header             // guarded by mu: those of all requests
	arrived chan struct{}             // gets one element for each signature that waits at the gate
	gone    chan struct{}             // closed when the test ends: who hangs, ends
}

func newStandIn(t *testing.T, key crypto.Signer) *standIn {
	t.Helper()
	s := &standIn{key: key, asked: make(map[string]int), arrived: make(chan struct{}, 1000), gone: make(chan struct{})}
	return s
}

// serve starts the server; it ends with the test.
func (s *standIn) serve(t *testing.T, handler http.Handler, secure bool) {
	t.Helper()
	s.server = httptest.NewUnstartedServer(handler)
	if secure {
		s.server.EnableHTTP2 = true
		s.server.StartTLS()
	} else {
		s.server.Start()
	}
	t.Cleanup(func() {
		close(s.gone)
		s.server.CloseClientConnections()
		s.server.Close()
	})
}

// enter counts a request, and says whether it is to be answered as usual.
func (s *standIn) enter(w http.ResponseWriter, r *http.Request, what string) bool {
	s.mu.Lock()
	s.asked[what]++
	s.headers = append(s.headers, r.Header.Clone())
	fault := s.fault
	s.mu.Unlock()
	if fault != nil {
		fault(w)
		return false
	}
	return true
}

// breakWith makes every request meet a fault; nil mends that.
func (s *standIn) breakWith(fault func(http.ResponseWriter)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

func (s *standIn) use(key crypto.Signer, older ...crypto.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key, s.older = key, older
}

func (s *standIn) versions() []crypto.Signer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(slices.Clone(s.older), s.key)
}

func (s *standIn) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[what]
}

// sign counts the signatures that run, and waits at the gate.
func (s *standIn) sign(key crypto.Signer, digest []byte, hash crypto.Hash) ([]byte, error) {
	s.mu.Lock()
	s.running++
	s.most = max(s.most, s.running)
	gate := s.gate
	s.mu.Unlock()
	defer func() { s.mu.Lock(); s.running--; s.mu.Unlock() }()
	if gate != nil {
		s.arrived <- struct{}{}
		select {
		case <-gate:
		case <-s.gone:
		}
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		return ecdsa.SignASN1(rand.Reader, key, digest)
	case *rsa.PrivateKey:
		return rsa.SignPKCS1v15(rand.Reader, key, hash, digest)
	default:
		return key.Sign(rand.Reader, digest, crypto.Hash(0))
	}
}

// transport is the project's own.
func transport(t *testing.T, caFile string) *http.Transport {
	t.Helper()
	tr, err := egress.NewTransport(new(egress.Dialer), caFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// body reads what was sent.
func body(r *http.Request) []byte {
	content, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return nil
	}
	return bytes.TrimSpace(content)
}

func isEd25519(key crypto.Signer) bool {
	_, ok := key.(ed25519.PrivateKey)
	return ok
}

// answerWith is a fault that answers.
func answerWith(status int, text string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// hang is a fault that never answers.
func (s *standIn) hang(http.ResponseWriter) { <-s.gone }

// cut is a fault that closes the connection in the middle.
func cut(w http.ResponseWriter) {
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, `{"data`)
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}
