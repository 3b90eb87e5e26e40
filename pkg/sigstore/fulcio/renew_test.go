package fulcio_test

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore/fulcio"
)

func sign(t *testing.T, i *fulcio.Identity) artifact.Signature {
	t.Helper()
	signed, err := i.Sign(t.Context(), message)
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	return signed
}

// at lets time pass and all that is under way end.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func sameCertificate(a, b artifact.Signature) bool {
	return slices.Equal(a.Certificates[0], b.Certificates[0])
}

// A certificate is replaced after half its life, once, and nobody waits for it, not even while Fulcio hangs.
func TestRenewalStallsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		i := newIdentity(t, s.config())
		first := sign(t, i)
		after(life/2 - time.Second)
		if again := sign(t, i); !sameCertificate(first, again) || s.requests() != 1 {
			t.Errorf("before half its life there are %d requests, want the first certificate still", s.requests())
		}
		after(time.Second)
		release := make(chan struct{})
		s.set(func() { s.reply = func(http.ResponseWriter) bool { <-release; return false } })
		before := time.Now()
		for range 10 {
			if signed := sign(t, i); !sameCertificate(first, signed) {
				t.Error("another certificate is used before it is there")
			}
		}
		synctest.Wait()
		if waited := time.Since(before); waited != 0 || s.requests() != 2 {
			t.Errorf("signing took %s and %d requests, want no time and one request more", waited, s.requests())
		}
		close(release)
		synctest.Wait()
		second := sign(t, i)
		if sameCertificate(first, second) || s.requests() != 2 {
			t.Errorf("after the renewal and %d requests the old certificate is used", s.requests())
		}
		if slices.Equal(first.PublicKey, second.PublicKey) {
			t.Error("the new certificate is for the old key")
		}
	})
}

// While Fulcio is down, the old certificate serves until a tenth of its life is left; it is asked now and then, and answers
// again are noticed.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		i := newIdentity(t, s.config())
		first := sign(t, i)
		s.set(func() { s.reply = down(http.StatusInternalServerError, "") })
		after(life / 2)
		for range 60 { // a minute
			if !sameCertificate(first, sign(t, i)) {
				t.Fatal("another certificate is used")
			}
			after(time.Second)
		}
		if got := s.requests() - 1; got != 12 {
			t.Errorf("in a minute Fulcio was asked %d times, want every 5 s", got)
		}
		after(3*time.Minute - time.Second)
		if !sameCertificate(first, sign(t, i)) {
			t.Error("another certificate is used")
		}
		after(time.Second)
		if _, err := i.Sign(t.Context(), message); err == nil || fault.Of(err).Reason != fault.Unavailable {
			t.Errorf("with a tenth of its life left Sign: %v, want %s", err, fault.Unavailable)
		}
		s.set(func() { s.reply = nil })
		if sameCertificate(first, sign(t, i)) {
			t.Error("when Fulcio answers again, the old certificate is used")
		}
	})
}

// A delay that Fulcio asks for binds all, those that wait too.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		i := newIdentity(t, s.config())
		s.set(func() { s.reply = down(http.StatusTooManyRequests, "60") })
		for n := range 3 {
			_, err := i.Sign(t.Context(), message)
			want := time.Minute - time.Duration(n)*10*time.Second
			if got := fault.Of(err); err == nil || got.Reason != fault.RateLimited || got.RetryAfter != want {
				t.Errorf("Sign: %v (%s, %s), want %s after %s", err, got.Reason, got.RetryAfter, fault.RateLimited, want)
			}
			after(10 * time.Second)
		}
		if s.requests() != 1 {
			t.Errorf("within the delay %d requests were made, want 1", s.requests())
		}
		s.set(func() { s.reply = nil })
		after(30 * time.Second)
		sign(t, i)
	})
}

func down(status int, retryAfter string) func(http.ResponseWriter) bool {
	return func(w http.ResponseWriter) bool {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(status)
		return true
	}
}

// A caller who gives up takes nobody else's certificate away, and one that waits too long gets a timeout.
func TestCallersThatGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		release := make(chan struct{})
		s.reply = func(http.ResponseWriter) bool { <-release; return false }
		i := newIdentity(t, s.config())
		gone, leave := context.WithCancel(t.Context())
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		results := make([]chan error, 3)
		for n, ctx := range []context.Context{gone, short, t.Context()} {
			results[n] = make(chan error, 1)
			go func() {
				_, err := i.Sign(ctx, message)
				results[n] <- err
			}()
			synctest.Wait() // The one that starts the request is the one that leaves.
		}
		leave()
		if err := <-results[0]; err == nil || fault.Of(err).Reason != fault.Canceled {
			t.Errorf("the one that left: Sign: %v, want canceled", err)
		}
		if err := <-results[1]; err == nil || fault.Of(err).Reason != fault.Timeout {
			t.Errorf("the one in a hurry: Sign: %v, want a timeout", err)
		}
		close(release)
		if err := <-results[2]; err != nil || s.requests() != 1 {
			t.Errorf("the one that waited: Sign: %v after %d requests, want success after 1", err, s.requests())
		}
	})
}

func TestHangingFulcio(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		release := make(chan struct{})
		defer close(release)
		s.reply = func(http.ResponseWriter) bool { <-release; return true }
		i := newIdentity(t, s.config())
		before := time.Now()
		_, err := i.Sign(t.Context(), message)
		if took := time.Since(before); err == nil || fault.Of(err).Reason != fault.Timeout || took != 10*time.Second {
			t.Errorf("after %s Sign: %v, want a timeout after 10s", took, err)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		release := make(chan struct{})
		defer close(release)
		i := newIdentity(t, s.config())
		sign(t, i)
		after(life / 2)
		s.set(func() { s.reply = func(http.ResponseWriter) bool { <-release; return true } })
		sign(t, i)
		synctest.Wait()
		before := time.Now()
		i.Close()
		if took := time.Since(before); took != 0 {
			t.Errorf("Close took %s, want it to end the renewal", took)
		}
		after(life)
		if _, err := i.Sign(t.Context(), message); err == nil || fault.Of(err).Reason != fault.Canceled || s.requests() != 2 {
			t.Errorf("after Close and %d requests Sign: %v, want canceled after 2", s.requests(), err)
		}
	})
}

// A probe keeps the certificate fresh where nothing is signed.
func TestProbeRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		i := newIdentity(t, s.config())
		for range 4 * 60 {
			if err := i.Probe(t.Context()); err != nil {
				t.Fatalf("Probe: %v", err)
			}
			after(15 * time.Second)
		}
		if got := s.requests(); got != 12 {
			t.Errorf("in an hour %d certificates were asked for, want 12", got)
		}
		s.set(func() { s.reply = down(http.StatusServiceUnavailable, "") })
		after(life)
		if err := i.Probe(t.Context()); err == nil || fault.Of(err).Reason != fault.Unavailable {
			t.Errorf("without Fulcio Probe: %v, want %s", err, fault.Unavailable)
		}
	})
}

// Clocks that differ a little are no reason to stand still.
func TestSkew(t *testing.T) {
	for _, tt := range []struct {
		ahead time.Duration
		want  bool
	}{{50 * time.Second, true}, {2 * time.Minute, false}, {-2 * time.Minute, true}, {-life + time.Minute, false}, {-life, false}, {-2 * life, false}} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t)
			cfg := s.config()
			cfg.Now = func() time.Time { return time.Now().Add(-tt.ahead) }
			_, err := newIdentity(t, cfg).Sign(t.Context(), message)
			if (err == nil) != tt.want || err != nil && fault.Of(err).Reason != fault.ProofInvalid {
				t.Errorf("with Fulcio's clock %s ahead Sign: %v, want success: %t", tt.ahead, err, tt.want)
			}
		})
	}
}
