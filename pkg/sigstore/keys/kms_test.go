//go:build !no_hashivault || !no_awskms

package keys_test

import (
	"context"
	"crypto"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// kmsFault is a misbehaviour, what the error of Sign says of it, and the reason of Open's.
type kmsFault struct {
	fault  func(http.ResponseWriter)
	want   string
	reason fault.Reason
}

// The reasons of Open's errors: nobody can serve now, the credentials are refused, or another configuration is needed.
const (
	isAway    = fault.KeyUnavailable
	isRefused = fault.Unauthorized
	isWrong   = fault.Unknown
)

// wantOpenError checks what Open tells of a fault.
func wantOpenError(t *testing.T, name string, err error, want fault.Reason, secrets []string) {
	t.Helper()
	if err == nil || fault.Of(err).Reason != want {
		t.Errorf("%s: Open() = %v with the reason %s, want %s", name, err, fault.Of(err).Reason, want)
		return
	}
	if hinted := strings.Contains(err.Error(), "set public_key_file to start without it"); hinted != (want == isAway) {
		t.Errorf("%s: Open() = %v; it advises to set public_key_file: %t, want %t", name, err, hinted, want == isAway)
	}
	if !strings.HasPrefix(err.Error(), `key "prod": `) {
		t.Errorf("%s: Open() = %v, want it to begin with the key", name, err)
	}
	wantNoSecret(t, err, secrets...)
}

// kmsCase is one kind of KMS for testKMS.
type kmsCase struct {
	start   func(*testing.T, crypto.Signer) (*standIn, keys.Source)
	keys    []string // those of rawKeys that it can sign with
	secrets []string
	faults  map[string]kmsFault
}

// testKMS is what every KMS has to pass.
func testKMS(t *testing.T, c kmsCase) {
	t.Helper()
	t.Run("keys", func(t *testing.T) {
		t.Parallel()
		for _, name := range c.keys {
			raw := rawKeys()[name]
			_, s := c.start(t, raw)
			key, err := keys.Open(t.Context(), s)
			if err != nil {
				t.Errorf("%s: Open: %v", name, err)
				continue
			}
			if got, want := key.ID(), loadedKeys()[name].ID(); got != want {
				t.Errorf("%s: ID() = %s, want %s", name, got, want)
			}
			if got, want := key.Deterministic(), name == "rsa" || name == "ed25519"; got != want {
				t.Errorf("%s: Deterministic() = %t, want %t", name, got, want)
			}
			wantSigns(t, key, raw.Public())
			closeKey(t, key)
		}
	})
	t.Run("faults", func(t *testing.T) { t.Parallel(); testKMSFaults(t, c) })
	t.Run("hangs", func(t *testing.T) { t.Parallel(); testKMSHangs(t, c) })
	t.Run("gone", func(t *testing.T) { t.Parallel(); testKMSGone(t, c) })
	t.Run("swapped", func(t *testing.T) {
		t.Parallel()
		there, s := c.start(t, rawKeys()["p256"])
		key, err := keys.Open(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		defer closeKey(t, key)
		there.use(rawKeys()["second"])
		_, err = key.Sign(t.Context(), []byte("payload"))
		wantUnavailable(t, err, "rotated or replaced")
		there.use(rawKeys()["p256"])
		wantSigns(t, key, rawKeys()["p256"].Public())
	})
	t.Run("pinned", func(t *testing.T) {
		t.Parallel()
		_, s := c.start(t, rawKeys()["p256"])
		s.PublicKeyFile = file(t, string(loadedKeys()["second"].PublicPEM()))
		_, err := keys.Open(t.Context(), s)
		if err == nil || fault.Of(err).Reason == fault.KeyUnavailable {
			t.Errorf("Open() with another public key = %v, want it refused for good", err)
		}
	})
	t.Run("away at the start", func(t *testing.T) { t.Parallel(); testKMSAway(t, c) })
	t.Run("transport", func(t *testing.T) {
		t.Parallel()
		there, s := c.start(t, rawKeys()["p256"])
		through := &counted{RoundTripper: s.Transport}
		s.Transport = through
		key, err := keys.Open(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		defer closeKey(t, key)
		wantSigns(t, key, rawKeys()["p256"].Public())
		there.mu.Lock()
		defer there.mu.Unlock()
		if got, want := int(through.requests.Load()), len(there.headers); got != want || want == 0 {
			t.Errorf("%d requests went through the transport, and %d arrived, want all", got, want)
		}
	})
	t.Run("at a time", func(t *testing.T) { t.Parallel(); testKMSMaxCalls(t, c) })
}

// testKMSAway opens a pinned key at each fault, and mends it where it may open; then one that turns out to be another.
func testKMSAway(t *testing.T, c kmsCase) {
	t.Helper()
	there, s := c.start(t, rawKeys()["p256"])
	s.PublicKeyFile = file(t, string(loadedKeys()["p256"].PublicPEM()))
	for name, f := range c.faults {
		there.breakWith(f.fault)
		key, err := keys.Open(t.Context(), s)
		if f.reason == isWrong {
			wantOpenError(t, name, err, isWrong, c.secrets)
			continue
		}
		if err != nil {
			t.Errorf("%s: Open: %v", name, err)
			continue
		}
		if err := key.Unproven(); err == nil || fault.Of(err).Reason != f.reason {
			t.Errorf("%s: Unproven() = %v, want a fault with the reason %s", name, err, f.reason)
		} else {
			wantNoSecret(t, err, c.secrets...)
		}
		_, err = key.Sign(t.Context(), []byte("payload"))
		wantUnavailable(t, err, "unproven since the start: ")
		wantNoSecret(t, err, c.secrets...)
		there.breakWith(nil)
		wantSigns(t, key, rawKeys()["p256"].Public())
		if err := key.Unproven(); err != nil {
			t.Errorf("%s: Unproven() = %v after it was mended", name, err)
		}
		closeKey(t, key)
	}

	there.breakWith(answerWith(http.StatusServiceUnavailable, ""))
	s.PublicKeyFile = file(t, string(loadedKeys()["second"].PublicPEM()))
	key, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, key)
	there.breakWith(nil)
	_, err = key.Sign(t.Context(), []byte("payload"))
	wantUnavailable(t, err, "is not the one in "+s.PublicKeyFile)
	if err := key.Unproven(); err == nil || !strings.Contains(err.Error(), "then restart") {
		t.Errorf("Unproven() = %v, want what to do", err)
	}
}

// counted counts the requests that a transport carries.
type counted struct {
	http.RoundTripper
	requests atomic.Int64
}

func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	return c.RoundTripper.RoundTrip(r)
}

// testKMSFaults lets each fault meet Open and Sign, and mends it.
func testKMSFaults(t *testing.T, c kmsCase) {
	t.Helper()
	there, s := c.start(t, rawKeys()["p256"])
	key, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, key)
	for name, f := range c.faults {
		there.breakWith(f.fault)
		_, err := key.Sign(t.Context(), []byte("payload"))
		wantUnavailable(t, err, f.want)
		wantNoSecret(t, err, c.secrets...)
		_, err = keys.Open(t.Context(), s)
		wantOpenError(t, name, err, f.reason, c.secrets)
		there.breakWith(nil)
		if _, err := key.Sign(t.Context(), []byte("payload")); err != nil {
			t.Errorf("%s: after it was mended: %v", name, err)
		}
	}
}

func testKMSHangs(t *testing.T, c kmsCase) {
	t.Helper()
	there, s := c.start(t, rawKeys()["p256"])
	s.Timeout, s.MaxCalls = time.Second, 2
	key, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, key)
	there.breakWith(there.hang)
	for range s.MaxCalls + 1 { // one more than there are slots: these come back
		_, err = key.Sign(t.Context(), []byte("payload"))
		wantUnavailable(t, err, "")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := key.Sign(ctx, []byte("payload")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Sign() with a short deadline = %v, want its error", err)
	}
	there.breakWith(nil)
	for attempt := range 5 { // a busy machine may need more than the timeout
		if _, err = key.Sign(t.Context(), []byte("payload")); err == nil {
			return
		}
		t.Logf("attempt %d: %v", attempt, err)
	}
	t.Errorf("after it answers again: %v", err)
}

// testKMSGone takes the server away, and brings it back at the same address.
func testKMSGone(t *testing.T, c kmsCase) {
	t.Helper()
	there, s := c.start(t, rawKeys()["p256"])
	key, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, key)
	address := there.server.Listener.Addr().String()
	_ = there.server.Listener.Close()
	there.server.CloseClientConnections()
	_, err = key.Sign(t.Context(), []byte("payload"))
	wantUnavailable(t, err, "")
	wantNoSecret(t, err, c.secrets...)
	_, err = keys.Open(t.Context(), s)
	wantUnavailable(t, err, "refused")

	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Skipf("somebody else took the port meanwhile: %v", err)
	}
	again := &http.Server{Handler: there.server.Config.Handler, ReadHeaderTimeout: time.Minute, TLSConfig: there.server.TLS}
	done := make(chan error, 1)
	go func() {
		if there.server.TLS != nil {
			done <- again.ServeTLS(listener, "", "")
			return
		}
		done <- again.Serve(listener)
	}()
	defer func() {
		_ = again.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving again: %v", err)
		}
	}()
	if _, err := key.Sign(t.Context(), []byte("payload")); err != nil {
		t.Errorf("after it came back: %v", err)
	}
}

// testKMSMaxCalls holds all signatures at a gate until as many as may have come, and gives more the time to come.
func testKMSMaxCalls(t *testing.T, c kmsCase) {
	t.Helper()
	const limit, wanted = 3, 12
	there, s := c.start(t, rawKeys()["p256"])
	s.MaxCalls = limit
	key, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, key)
	gate := make(chan struct{})
	there.mu.Lock()
	there.gate, there.most = gate, 0
	there.mu.Unlock()
	var all sync.WaitGroup
	for range wanted {
		all.Go(func() {
			if _, err := key.Sign(t.Context(), []byte("payload")); err != nil {
				t.Errorf("Sign: %v", err)
			}
		})
	}
	for range limit {
		<-there.arrived
	}
	select {
	case <-there.arrived:
		t.Errorf("more than %d signatures run at a time", limit)
	case <-time.After(100 * time.Millisecond):
	}
	close(gate)
	all.Wait()
	there.mu.Lock()
	defer there.mu.Unlock()
	if there.most != limit {
		t.Errorf("at most %d signatures ran at a time, want %d", there.most, limit)
	}
}
