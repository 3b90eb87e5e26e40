package keys_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

const timeout = 5 * time.Second

// far is a KMS whose library ignores its context.
type far struct {
	keys.FakeRemote
	key *ecdsa.PrivateKey

	mu    sync.Mutex
	sign  func() ([]byte, error) // guarded by mu; nil to sign
	calls int                    // guarded by mu: those that run
	peak  int                    // guarded by mu
}

func newFar(t *testing.T) *far {
	t.Helper()
	key, ok := rawKeys()["p256"].(*ecdsa.PrivateKey)
	if !ok {
		t.Fatal("the key is not ECDSA")
	}
	f := &far{key: key}
	f.Public = func(context.Context) (crypto.PublicKey, error) { return key.Public(), nil }
	f.Sign = func(_ context.Context, payload []byte) ([]byte, error) {
		f.mu.Lock()
		f.calls++
		f.peak = max(f.peak, f.calls)
		sign := f.sign
		f.mu.Unlock()
		defer func() { f.mu.Lock(); f.calls--; f.mu.Unlock() }()
		if sign != nil {
			return sign()
		}
		sum := sha256.Sum256(payload)
		return ecdsa.SignASN1(rand.Reader, key, sum[:])
	}
	return f
}

func (f *far) answer(sign func() ([]byte, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sign = sign
}

func (f *far) running() (now, most int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls, f.peak
}

func openFar(t *testing.T, f *far, maxCalls int) *keys.Key {
	t.Helper()
	key, err := keys.OpenFake(t.Context(), keys.Source{Name: "far", MaxCalls: maxCalls, Timeout: timeout}, &f.FakeRemote)
	if err != nil {
		t.Fatalf("OpenFake: %v", err)
	}
	return key
}

// wantUnavailable checks the one kind of fault that Sign has.
func wantUnavailable(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want one with %q", text)
	}
	if got := fault.Of(err); got.Kind != fault.Transient || got.Reason != fault.KeyUnavailable {
		t.Errorf("%v is %s, %s; want transient, key_unavailable", err, got.Kind, got.Reason)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("got the error %q, want one with %q", err, text)
	}
}

func TestHangingCallsKeepTheirSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t)
		key := openFar(t, f, 2)
		back := make(chan struct{})
		f.answer(func() ([]byte, error) { <-back; return nil, errors.New("too late") })

		begin := time.Now()
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				_, err := key.Sign(t.Context(), []byte("payload"))
				wantUnavailable(t, err, timeout.String())
			})
		}
		all.Wait()
		if took := time.Since(begin); took != timeout {
			t.Errorf("six signatures were waited for during %s, want %s", took, timeout)
		}
		if now, most := f.running(); now != 2 || most != 2 {
			t.Errorf("%d calls run and at most %d ran, want the 2 that hang", now, most)
		}
		_, err := key.Sign(t.Context(), []byte("payload"))
		wantUnavailable(t, err, "none of the 2 calls")

		f.answer(nil)
		close(back)
		synctest.Wait()
		if _, err := key.Sign(t.Context(), []byte("payload")); err != nil {
			t.Errorf("after the calls came back: %v", err)
		}
	})
}

func TestCancelledWhileWaitingForASlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t)
		key := openFar(t, f, 1)
		back := make(chan struct{})
		f.answer(func() ([]byte, error) { <-back; return nil, errors.New("too late") })

		first, cancelFirst := context.WithCancel(t.Context())
		second, cancelSecond := context.WithCancel(t.Context())
		begin := time.Now()
		var all sync.WaitGroup
		for _, ctx := range []context.Context{first, second} {
			all.Go(func() {
				_, err := key.Sign(ctx, []byte("payload"))
				if got := fault.Of(err); got.Reason != fault.Canceled {
					t.Errorf("Sign() = %v with the reason %s, want canceled", err, got.Reason)
				}
			})
			synctest.Wait()
		}
		cancelSecond()
		synctest.Wait()
		cancelFirst()
		all.Wait()
		if took := time.Since(begin); took != 0 {
			t.Errorf("the cancelled calls returned after %s, want at once", took)
		}
		close(back)
	})
}

func TestSwappedKeyIsRefused(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	key := openFar(t, f, 1)
	second := loadedKeys()["second"] // loading takes longer than a call may on a busy machine
	f.answer(func() ([]byte, error) { return second.Sign(context.Background(), []byte("payload")) })
	signature, err := key.Sign(t.Context(), []byte("payload"))
	wantUnavailable(t, err, "rotated or replaced")
	if signature != nil {
		t.Errorf("a signature that does not verify was returned: %x", signature)
	}
}

func TestPanickingProvider(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	key := openFar(t, f, 1)
	f.answer(func() ([]byte, error) { panic("hvs.secret") })
	_, err := key.Sign(t.Context(), []byte("payload"))
	wantUnavailable(t, err, "panicked with string")
	if strings.Contains(err.Error(), "hvs.secret") {
		t.Errorf("the error shows what was thrown: %v", err)
	}
	f.answer(nil)
	if _, err := key.Sign(t.Context(), []byte("payload")); err != nil {
		t.Errorf("after the panic: %v", err)
	}
}

func TestPayloadIsTheCallersAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t)
		key := openFar(t, f, 1)
		seen, back := make(chan []byte, 1), make(chan struct{})
		f.Sign = func(_ context.Context, payload []byte) ([]byte, error) {
			<-back
			seen <- payload
			return nil, errors.New("too late")
		}
		payload := []byte("payload")
		_, err := key.Sign(t.Context(), payload)
		wantUnavailable(t, err, "no answer")
		clear(payload) // the race detector watches
		close(back)
		if got := string(<-seen); got != "payload" {
			t.Errorf("the call that was given up reads %q, want its own payload", got)
		}
	})
}

func TestCloseWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t)
		key := openFar(t, f, 2)
		f.answer(func() ([]byte, error) { <-time.After(timeout / 2); return nil, errors.New("too late") })
		ctx, cancel := context.WithCancel(t.Context())
		cancelled := make(chan error, 1)
		go func() { _, err := key.Sign(ctx, []byte("payload")); cancelled <- err }()
		synctest.Wait()
		cancel()
		if err := <-cancelled; !errors.Is(err, context.Canceled) {
			t.Errorf("Sign() = %v, want %v", err, context.Canceled)
		}
		begin := time.Now()
		if err := errors.Join(key.Close(), key.Close()); err != nil {
			t.Errorf("Close() = %v", err)
		}
		if took := time.Since(begin); took != timeout/2 {
			t.Errorf("Close() took %s, want %s", took, timeout/2)
		}
		if f.Closed != 1 {
			t.Errorf("the far side was closed %d times, want once", f.Closed)
		}
		_, err := key.Sign(t.Context(), []byte("payload"))
		wantUnavailable(t, err, "closed")
	})
}

func TestCloseGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t)
		key := openFar(t, f, 2)
		back := make(chan struct{})
		f.answer(func() ([]byte, error) { <-back; return nil, errors.New("too late") })
		_, err := key.Sign(t.Context(), []byte("payload"))
		wantUnavailable(t, err, "no answer")
		if err := key.Close(); err == nil || !strings.Contains(err.Error(), "1 calls still hang") {
			t.Errorf("Close() = %v, want that one call hangs", err)
		}
		if f.Closed != 1 {
			t.Errorf("the far side was closed %d times, want once", f.Closed)
		}
		close(back)
	})
}

func TestOpenRefusesAKeyThatDoesNotFit(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	second := loadedKeys()["second"] // as above
	f.answer(func() ([]byte, error) { return second.Sign(context.Background(), []byte("another")) })
	_, err := keys.OpenFake(t.Context(), keys.Source{MaxCalls: 1, Timeout: timeout}, &f.FakeRemote)
	if err == nil || fault.Of(err).Reason == fault.KeyUnavailable || !strings.Contains(err.Error(), "does not verify") {
		t.Errorf("OpenFake() = %v, want an error that waiting does not mend", err)
	}
	f.Public = func(context.Context) (crypto.PublicKey, error) { return rawKeys()["p521"].Public(), nil }
	_, err = keys.OpenFake(t.Context(), keys.Source{MaxCalls: 1, Timeout: timeout}, &f.FakeRemote)
	if err == nil || !strings.Contains(err.Error(), "P-256 or P-384") {
		t.Errorf("OpenFake() = %v, want P-521 refused", err)
	}
}
