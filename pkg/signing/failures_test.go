package signing_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/signing"
)

func TestFaultsBecomeActions(t *testing.T) {
	transient := func(reason fault.Reason) error { return fault.New(fault.Transient, reason, errInjected) }
	tests := []struct {
		name     string
		err      error
		attempts uint64
		age      time.Duration
		want     string
		reason   fault.Reason
		least    time.Duration
		most     time.Duration
	}{
		{"first", transient(fault.Unavailable), 1, 0, "retry", "", 500 * time.Millisecond, time.Second},
		{"fourth", transient(fault.Unavailable), 4, 0, "retry", "", 4 * time.Second, 8 * time.Second},
		{"hundredth", transient(fault.Unavailable), 100, 0, "retry", "", 150 * time.Second, 5 * time.Minute},
		{"retry after", fault.After(42*time.Second, fault.RateLimited, errInjected), 1, 0, "retry", "", 42 * time.Second, 42 * time.Second},
		{"retry after a year", fault.After(8760*time.Hour, fault.RateLimited, errInjected), 1, 0, "retry", "", time.Hour, time.Hour},
		{"retry after less than the delay", fault.After(time.Second, fault.RateLimited, errInjected), 100, 0, "retry", "", 150 * time.Second, 5 * time.Minute},
		{"permanent", fault.New(fault.Permanent, fault.Rejected, errInjected), 1, 0, "buried", fault.Rejected, 0, 0},
		{"refused account", fault.New(fault.Permanent, fault.Unauthorized, errInjected), 1, 0, "retry", "", 500 * time.Millisecond, time.Second},
		{"refused account for a day", fault.New(fault.Permanent, fault.Denied, errInjected), 300, 25 * time.Hour, "buried", fault.TooOld, 0, 0},
		{"backlog of a day", transient(fault.Unavailable), 1, 25 * time.Hour, "retry", "", 500 * time.Millisecond, time.Second},
		{"too old", transient(fault.Unavailable), 50, 25 * time.Hour, "buried", fault.TooOld, 0, 0},
		{"gone while writing", notFound("repository"), 1, 0, "retry", "", 500 * time.Millisecond, time.Second},
		{"no fault at all", errInjected, 1, 0, "retry", "", 500 * time.Millisecond, time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "demo")
			s, _ := newService(t, w, func(c *signing.Config) { c.Registry = brokenPut{w, tt.err} })
			ref := w.push(t, "demo/app", ociImage, image)
			d := &delivery{w: w, request: w.waiting[ref], attempts: tt.attempts, firstSeen: time.Now().Add(-tt.age)}
			s.Handle(t.Context(), d)
			if d.ended != tt.want || d.delay < tt.least || d.delay > tt.most {
				t.Errorf("the delivery ended %q with delay %s, want %q with %s to %s", d.ended, d.delay, tt.want, tt.least, tt.most)
			}
			if tt.want != "buried" {
				return
			}
			dead := w.events(artifact.Dead, ref)
			if len(dead) != 1 || dead[0].Reason != string(tt.reason) || !strings.Contains(dead[0].Detail, "injected") {
				t.Errorf("dead events: %+v, want one with reason %s and the error", dead, tt.reason)
			}
			if w.dead[ref].ID != dead[0].ID {
				t.Errorf("dead letter %+v, want the event of the ledger", w.dead[ref])
			}
			// A replay after the cause is mended removes the dead letter.
			s, _ = newService(t, w)
			w.receive(t, ref, "replay")
			w.attempt(t, s, ref, 1)
			wantSigned(t, w, ref, artifact.Made)
			if _, still := w.dead[ref]; still {
				t.Error("the dead letter is still there after signing")
			}
		})
	}
}

type brokenPut struct {
	*world
	err error
}

func (b brokenPut) PutManifest(context.Context, string, string, artifact.Manifest) error {
	return b.err
}

func TestFailuresLeaveAShortTrace(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w, func(c *signing.Config) { c.Registry = brokenPut{w, errInjected} })
	ref := w.push(t, "demo/app", ociImage, image)
	for n := uint64(1); n <= 100; n++ {
		w.attempt(t, s, ref, n)
	}
	if got := len(w.events(artifact.Failed, ref)); got != 7 { // 1, 2, 4, 8, 16, 32, 64
		t.Errorf("100 failed attempts leave %d events, want 7", got)
	}
}

// TestOverwrittenBehindThePut: somebody else's manifest replaces ours between the put and the read-back.
func TestOverwrittenBehindThePut(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	tag := "demo/app " + sigTag(ref.Digest())
	reads := 0
	w.before = func(name string) {
		if name == "get manifest" {
			if reads++; reads == 3 {
				w.manifests[tag] = w.foreign("demo/app", "abc")
			}
		}
	}
	if d := w.attempt(t, s, ref, 1); d.ended != "retry" {
		t.Fatalf("the delivery ended %q, want retry", d.ended)
	}
	if e := w.events(artifact.Failed, ref); len(e) != 1 || e[0].Reason != string(fault.ConcurrentWriter) || !e[0].Unsigned {
		t.Errorf("failed events: %+v, want one with reason %s that says unsigned", e, fault.ConcurrentWriter)
	}
	if len(w.events(artifact.Signed, ref)) != 0 {
		t.Error("the ledger says signed, the registry does not")
	}
	w.attempt(t, s, ref, 2)
	wantSigned(t, w, ref, artifact.Made)
	if !strings.Contains(string(w.manifests[tag].Raw), artifact.DigestOf([]byte("abc"))) {
		t.Error("the other writer's signature is gone")
	}
}

func TestAPanicIsAFailure(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.before = func(name string) {
		if name == "put manifest" {
			panic("boom")
		}
	}
	if d := w.attempt(t, s, ref, 1); d.ended != "retry" {
		t.Fatalf("the delivery ended %q, want retry", d.ended)
	}
	if e := w.events(artifact.Failed, ref); len(e) != 1 || !strings.Contains(e[0].Detail, "boom") {
		t.Errorf("failed events: %+v, want one that names the panic", e)
	}
	w.before = nil
	w.attempt(t, s, ref, 2)
	wantSigned(t, w, ref, artifact.Made)
}

func TestADeletedProjectIsGone(t *testing.T) {
	denied := fault.New(fault.Permanent, fault.Denied, errInjected)
	for _, tt := range []struct {
		name   string
		exists bool
		err    error
		want   string
	}{{"deleted", false, nil, "done"}, {"right missing", true, nil, "retry"}, {"cannot tell", false, errInjected, "retry"}} {
		w := newWorld(t, "demo")
		s, _ := newService(t, w, func(c *signing.Config) {
			c.Registry = brokenPut{w, denied}
		})
		w.exists, w.existsErr = tt.exists, tt.err
		ref := w.push(t, "demo/app", ociImage, image)
		if d := w.attempt(t, s, ref, 1); d.ended != tt.want {
			t.Errorf("%s: the delivery ended %q, want %q", tt.name, d.ended, tt.want)
		}
		if gone := len(w.events(artifact.Vanished, ref)) == 1; gone != (tt.want == "done") {
			t.Errorf("%s: recorded as gone: %t", tt.name, gone)
		}
	}
}

// TestALostConfirmation: the queue removed the request, and the signer did not learn of it. The push that came in during
// the work is looked for all the same.
func TestALostConfirmation(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	m := w.manifests["demo/app "+ref.Digest()]
	delete(w.manifests, "demo/app "+ref.Digest())
	w.before = func(name string) {
		if name == "ack" {
			w.before = nil
			w.manifests["demo/app "+ref.Digest()] = m
			w.ledger = append(w.ledger, artifact.Event{ID: "again", Kind: artifact.Received, Ref: ref, CorrelationID: "push-2"})
		}
	}
	w.fail = func(_ int, name string) mode {
		if name == "ack" {
			return failsButPersists
		}
		return works
	}
	w.attempt(t, s, ref, 1)
	w.fail = nil
	if r, waits := w.waiting[ref]; !waits || r.Origin != artifact.OriginRequeue {
		t.Fatalf("the request %+v waits (%t), want one for the second push", r, waits)
	}
	w.attempt(t, s, ref, 1)
	wantSigned(t, w, ref, artifact.Made)
}
