package keys_test

import (
	"context"
	"crypto"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// away is a far whose public key is asked for: it counts that, and answers as the test says.
type away struct {
	*far
	mu    sync.Mutex
	reply func() error // guarded by mu; nil to answer
	asked int          // guarded by mu
}

func (a *away) set(reply func() error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reply = reply
}

func (a *away) wantAsked(t *testing.T, want int) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked != want {
		t.Errorf("the public key was asked for %d times, want %d", a.asked, want)
	}
}

// errAway is that of a far side whom nobody reaches.
func errAway() error {
	return fault.New(fault.Transient, fault.KeyUnavailable, errors.New("connection refused"))
}

// openAway opens a pinned key while its far side does not answer.
func openAway(t *testing.T, maxCalls int) (*away, *keys.Key) {
	t.Helper()
	a := &away{far: newFar(t), reply: errAway}
	answer := a.Public
	a.Public = func(ctx context.Context) (crypto.PublicKey, error) {
		a.mu.Lock()
		a.asked++
		reply := a.reply
		a.mu.Unlock()
		if reply != nil {
			if err := reply(); err != nil {
				return nil, err
			}
		}
		return answer(ctx)
	}
	s := keys.Source{Name: "far", MaxCalls: maxCalls, Timeout: timeout, PublicKeyFile: file(t, string(loadedKeys()["p256"].PublicPEM()))}
	key, err := keys.OpenFake(t.Context(), s, &a.FakeRemote)
	if err != nil {
		t.Fatalf("OpenFake: %v", err)
	}
	if err := key.Unproven(); err == nil || !strings.Contains(err.Error(), `key "far": fake: asking for the public key: connection refused`) {
		t.Fatalf("Unproven() = %v, want why nobody answered", err)
	}
	a.wantAsked(t, 1)
	return a, key
}

// signAll signs several times at once, and returns the errors when all have returned.
func signAll(ctx context.Context, key *keys.Key, n int) []error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { _, errs[i] = key.Sign(ctx, []byte("payload")) })
	}
	all.Wait()
	return errs
}

func TestProofOfOneServesAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, key := openAway(t, 4)
		a.set(func() error { <-time.After(timeout / 2); return errAway() })
		for _, err := range signAll(t.Context(), key, 6) {
			wantUnavailable(t, err, `signing with key "far": fake: unproven since the start: asking for the public key: connection refused`)
		}
		a.wantAsked(t, 2)
		if _, most := a.running(); most != 0 {
			t.Errorf("%d signatures were asked for without a proof, want none", most)
		}

		a.set(func() error { <-time.After(timeout / 2); return nil })
		if err := errors.Join(signAll(t.Context(), key, 6)...); err != nil {
			t.Errorf("after it came back: %v", err)
		}
		a.wantAsked(t, 3)
		if err := key.Unproven(); err != nil {
			t.Errorf("Unproven() = %v after a signature", err)
		}

		a.answer(func() ([]byte, error) { return nil, errAway() })
		_, err := key.Sign(t.Context(), []byte("payload"))
		wantUnavailable(t, err, "fake: connection refused")
		if err := key.Unproven(); err != nil {
			t.Errorf("Unproven() = %v after a later fault, want it proven for good", err)
		}
		closeKey(t, key)
	})
}

// TestProofThatHangs bounds the wait of all, and lets no more calls hang than may run.
func TestProofThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, key := openAway(t, 2)
		back := make(chan struct{})
		a.set(func() error { <-back; return nil })
		for i, want := range []string{"no answer within 5s", "no answer within 5s", "none of the 2 calls"} {
			begin := time.Now()
			for _, err := range signAll(t.Context(), key, 3) {
				wantUnavailable(t, err, "") // one tries; for the others, it and their own time end together
			}
			if took := time.Since(begin); took != timeout {
				t.Errorf("try %d: waited for %s, want %s", i, took, timeout)
			}
			if err := key.Unproven(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("try %d: Unproven() = %v, want %q", i, err, want)
			}
		}
		a.wantAsked(t, 3)
		close(back)
		synctest.Wait()
		if _, err := key.Sign(t.Context(), []byte("payload")); err != nil {
			t.Errorf("after it came back: %v", err)
		}
		closeKey(t, key)
	})
}

// TestProofWaitEnds lets the trial signature take longer than the others wait.
func TestProofWaitEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, key := openAway(t, 2)
		a.set(func() error { <-time.After(timeout - 1); return nil })
		a.answer(func() ([]byte, error) { <-time.After(timeout - 1); return nil, errAway() })
		first := make(chan error, 1)
		go func() { _, err := key.Sign(t.Context(), []byte("payload")); first <- err }()
		synctest.Wait()
		begin := time.Now()
		_, err := key.Sign(t.Context(), []byte("payload"))
		wantUnavailable(t, err, "another signature is still trying to reach it; before, it was: asking for the public key: connection refused")
		if took := time.Since(begin); took != timeout {
			t.Errorf("waited for %s, want %s", took, timeout)
		}
		wantUnavailable(t, <-first, "trial signature: connection refused")
		closeKey(t, key)
	})
}

// TestProofGivenUp cancels whoever tries: that says nothing about the key, and whoever waits tries anew.
func TestProofGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, key := openAway(t, 2)
		back := make(chan struct{})
		a.set(func() error { <-back; return errors.New("too late") })
		results := make([]chan error, 3)
		cancels := make([]context.CancelFunc, len(results))
		for i := range results {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			results[i], cancels[i] = make(chan error, 1), cancel
			go func() { _, err := key.Sign(ctx, []byte("payload")); results[i] <- err }()
			synctest.Wait()
		}
		begin := time.Now()
		a.set(nil)
		for _, i := range []int{1, 0} { // one that waits, then the one that tries
			cancels[i]()
			if got := fault.Of(<-results[i]); got.Reason != fault.Canceled {
				t.Errorf("Sign() = %v with the reason %s, want canceled", got.Err, got.Reason)
			}
		}
		if err := <-results[2]; err != nil {
			t.Errorf("Sign() of the one that is left = %v", err)
		}
		if took := time.Since(begin); took != 0 || key.Unproven() != nil {
			t.Errorf("it took %s and Unproven() = %v, want all at once", took, key.Unproven())
		}
		close(back)
		closeKey(t, key)
	})
}

func TestCloseWithoutAProof(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, key := openAway(t, 2)
		a.set(func() error { <-time.After(timeout / 2); return nil })
		results := make([]chan error, 2)
		for i := range results {
			results[i] = make(chan error, 1)
			go func() { _, err := key.Sign(t.Context(), []byte("payload")); results[i] <- err }()
			synctest.Wait()
		}
		begin := time.Now()
		closed := make(chan error, 1)
		go func() { closed <- errors.Join(key.Close(), key.Close()) }()
		synctest.Wait()
		if len(results[1]) != 1 {
			t.Error("whoever waits for the one that tries goes on waiting, want the end at once")
		}
		if err := <-closed; err != nil {
			t.Errorf("Close() = %v", err)
		}
		if took := time.Since(begin); took != timeout/2 || a.Closed != 1 {
			t.Errorf("Close() took %s and closed the far side %d times, want %s and once", took, a.Closed, timeout/2)
		}
		for _, result := range results {
			wantUnavailable(t, <-result, "the key is closed")
		}
		if _, most := a.running(); most != 0 {
			t.Errorf("%d signatures were asked for, want none", most)
		}
		_, err := key.Sign(t.Context(), []byte("payload"))
		wantUnavailable(t, err, "the key is closed")
	})
}

func TestProofByAnotherKey(t *testing.T) {
	t.Parallel()
	second := loadedKeys()["second"] // loading takes long
	a, key := openAway(t, 1)
	answer := a.Public
	a.Public = func(context.Context) (crypto.PublicKey, error) { return rawKeys()["second"].Public(), nil }
	_, err := key.Sign(t.Context(), []byte("payload"))
	wantUnavailable(t, err, "its public key "+second.ID()+" is not the one in ")
	if err := key.Unproven(); err == nil || !strings.Contains(err.Error(), "replace that file if the key was changed on purpose; then restart") {
		t.Errorf("Unproven() = %v, want what to do", err)
	}

	a.Public = answer
	a.set(nil)
	a.answer(func() ([]byte, error) { return second.Sign(context.Background(), []byte("another")) })
	_, err = key.Sign(t.Context(), []byte("payload"))
	wantUnavailable(t, err, "unproven since the start: trial signature: the signature does not verify")

	a.answer(nil)
	wantSigns(t, key, rawKeys()["p256"].Public())
	closeKey(t, key)
}

// TestPinnedKeyIsRefusedAtOnce is what a pinned key does not change.
func TestPinnedKeyIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	pinned := file(t, string(loadedKeys()["p256"].PublicPEM()))
	second := loadedKeys()["second"]
	for name, tt := range map[string]struct {
		change func(*far, context.CancelFunc)
		want   string
	}{
		"another key": {func(f *far, _ context.CancelFunc) {
			f.Public = func(context.Context) (crypto.PublicKey, error) { return rawKeys()["second"].Public(), nil }
		}, "is not the one in"},
		"another key signs": {func(f *far, _ context.CancelFunc) {
			f.answer(func() ([]byte, error) { return second.Sign(context.Background(), []byte("another")) })
		}, "rotated or replaced"},
		"an unknown kind": {func(f *far, _ context.CancelFunc) {
			f.Public = func(context.Context) (crypto.PublicKey, error) { return rawKeys()["p521"].Public(), nil }
		}, "P-256 or P-384"},
		"something unknown to it": {func(f *far, _ context.CancelFunc) {
			f.Public = func(context.Context) (crypto.PublicKey, error) { return nil, errors.New("no such key") }
		}, "no such key"},
		"a provider that panics": {func(f *far, _ context.CancelFunc) {
			f.Public = func(context.Context) (crypto.PublicKey, error) { panic("defect") }
		}, "panicked"},
		"the end of the program": {func(f *far, cancel context.CancelFunc) {
			f.Public = func(context.Context) (crypto.PublicKey, error) { cancel(); return nil, errAway() }
		}, ""},
	} {
		f := newFar(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		tt.change(f, cancel)
		_, err := keys.OpenFake(ctx, keys.Source{MaxCalls: 1, Timeout: timeout, PublicKeyFile: pinned}, &f.FakeRemote)
		if err == nil || fault.Of(err).Reason == fault.KeyUnavailable || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: OpenFake() = %v, want an error with %q that waiting does not mend", name, err, tt.want)
		}
	}
}
