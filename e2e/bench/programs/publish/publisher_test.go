package main

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// The messages are those that signers and ledgers of the service read, and each webhook has its own subjects.
func TestWebhooksAreTheService(t *testing.T) {
	t.Parallel()
	subjects := map[string]bool{}
	for i := range 100 {
		w, err := newWebhook(i)
		if err != nil {
			t.Fatal(err)
		}
		event, err := artifact.DecodeEvent(w.event.Data)
		if err != nil {
			t.Fatalf("the event of webhook %d: %v", i, err)
		}
		request, err := artifact.DecodeRequest(w.request.Data)
		if err != nil {
			t.Fatalf("the request of webhook %d: %v", i, err)
		}
		if event.Ref != request.Ref || event.Kind != artifact.Received || w.event.Header.Get(nats.MsgIdHdr) != event.ID {
			t.Errorf("webhook %d: event %+v and request %+v, want one push", i, event, request)
		}
		subjects[w.event.Subject], subjects[w.request.Subject] = true, true
	}
	if len(subjects) != 200 {
		t.Errorf("%d subjects, want 200", len(subjects))
	}
}

// A loop publishes everything, each message once.
func TestLoop(t *testing.T) {
	t.Parallel()
	p, err := newPublisher(t.Context(), options{store: t.TempDir(), webhooks: 50})
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	r, err := p.loop(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	if r.Webhooks != 50 || r.InFlight != 7 || r.Latency.Count != 50 || r.Rate() <= 0 {
		t.Errorf("got %+v, want 50 webhooks, 7 at once", r)
	}
	for _, name := range []string{"LEDGER", "SIGN"} {
		stream, err := p.js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if got := stream.CachedInfo().State.Msgs; got != 50 {
			t.Errorf("stream %s has %d messages, want 50", name, got)
		}
	}
}
