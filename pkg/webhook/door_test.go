package webhook_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/webhook"
)

func wanted(t *testing.T, repository string) artifact.Ref {
	t.Helper()
	ref, err := artifact.NewRef(repository, digestA)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// TestAsking asks by the API: what follows is what follows from a push, with who asked and no pusher.
func TestAsking(t *testing.T) {
	at := now
	d := newDoor(t, func(c *webhook.Config) { c.Now = func() time.Time { return at } })
	ref := wanted(t, "demo/app")
	outcome, reason, id, err := d.handler.Door().Ask(t.Context(), ref, "v1", "token:ci")
	if err != nil || outcome != "queued" || reason != "" || id == "" {
		t.Fatalf("Ask = %q, %q, %q, %v; want queued", outcome, reason, id, err)
	}
	e, r := d.queue.events[0], d.queue.requests[0]
	if e.Kind != artifact.Received || e.Origin != artifact.OriginAPI || e.Actor != "token:ci" || e.Pusher != "" || e.PushedAt != nil || e.Tag != "v1" || e.ID != id {
		t.Errorf("event %+v, want a received one of the API, by who asked, without a pusher", e)
	}
	if r.Ref != ref || r.Lane != artifact.Live || r.Origin != artifact.OriginAPI || r.Actor != "token:ci" || r.ReceivedSeq != 1 || r.CorrelationID != id {
		t.Errorf("request %+v, want one of the API in the live lane, behind the event", r)
	}

	// The same account within 10 seconds is one event; another account, or later, is another.
	for _, tt := range []struct {
		after  time.Duration
		actor  string
		events int
	}{{0, "token:ci", 1}, {0, "ann", 2}, {10 * time.Second, "token:ci", 3}} {
		at = at.Add(tt.after)
		if outcome, _, _, err := d.handler.Door().Ask(t.Context(), ref, "", tt.actor); err != nil || outcome != "duplicate" {
			t.Errorf("Ask again = %q, %v; want duplicate", outcome, err)
		}
		if len(d.queue.events) != tt.events {
			t.Errorf("%d events after %s asked %s later, want %d", len(d.queue.events), tt.actor, tt.after, tt.events)
		}
	}
}

func TestAskingIsByThePolicy(t *testing.T) {
	for _, tt := range []struct {
		name, repository, tag string
		policies              policies
		reason                policy.Reason
	}{
		{"not enabled", "other/app", "v1", policies{}, policy.NotEnabled},
		{"suspended", "demo/app", "v1", policies{enabled: []string{"demo"}, suspendedFor: 7}, policy.Suspended},
		{"out of scope", "demo/other", "v1", policies{enabled: []string{"demo"}, repositories: policy.Globs{Include: []string{"app"}}}, policy.OutOfScope},
		{"a signature", "demo/app", "sha256-" + digestA[7:] + ".sig", policies{enabled: []string{"demo"}}, policy.IsAccessory},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDoor(t, func(c *webhook.Config) { c.Policies = tt.policies })
			outcome, reason, id, err := d.handler.Door().Ask(t.Context(), wanted(t, tt.repository), tt.tag, "ann")
			if err != nil || outcome != "ignored" || reason != tt.reason || id != "" || len(d.queue.calls) != 0 {
				t.Errorf("Ask = %q, %q, %q, %v after %v; want ignored for %q, and nothing published", outcome, reason, id, err, d.queue.calls, tt.reason)
			}
		})
	}
	// Who asks may have the name of the signer's robot: that makes no signature of what it asks for.
	d := newDoor(t, nil)
	if outcome, _, _, err := d.handler.Door().Ask(t.Context(), wanted(t, "demo/app"), "", ownRobot); err != nil || outcome != "queued" {
		t.Errorf("Ask by the signer's robot = %q, %v; want queued", outcome, err)
	}
}

// TestAskingAndPushingShare the budget of the project, and what is known of a queue that fails.
func TestAskingAndPushingShare(t *testing.T) {
	d := newDoor(t, func(c *webhook.Config) {
		c.Policies = policies{enabled: []string{"demo"}, rate: policy.Rate{PerSecond: 1, Burst: 1}}
	})
	if _, _, _, err := d.handler.Door().Ask(t.Context(), wanted(t, "demo/first"), "", "ann"); err != nil {
		t.Fatal(err)
	}
	if rec := d.do(post(t, "demo", payload{}.withDefaults().encode(t, webhook.Default))); rec.Code != http.StatusAccepted {
		t.Fatalf("a push = %d %s", rec.Code, rec.Body)
	}
	if lane := d.queue.requests[1].Lane; lane != artifact.Bulk {
		t.Errorf("the push after the asking is in the lane %q, want bulk: the budget is one", lane)
	}

	d.queue.record = func(context.Context, artifact.Event) error {
		return fault.New(fault.Transient, fault.QueueUnavailable, errors.New("away"))
	}
	_, _, _, err := d.handler.Door().Ask(t.Context(), wanted(t, "demo/second"), "", "ann")
	if !fault.Is(err, fault.Transient) || !webhook.QueueShut(d.handler) {
		t.Errorf("Ask with the queue away: %v, shut %t; want a transient fault, and that the gate is shut for pushes too", err, webhook.QueueShut(d.handler))
	}
}

func TestAskingWithoutPolicies(t *testing.T) {
	d := newDoor(t, func(c *webhook.Config) { c.Policies = policies{err: policy.ErrNotLoaded} })
	_, _, _, err := d.handler.Door().Ask(t.Context(), wanted(t, "demo/app"), "", "ann")
	if f := fault.Of(err); f.Kind != fault.Transient || f.Reason != fault.PolicyUnreadable || len(d.queue.calls) != 0 {
		t.Errorf("Ask without policies: %v after %v; want a transient fault, and nothing published", err, d.queue.calls)
	}
}
