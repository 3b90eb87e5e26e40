package preflight_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// wire is a queue whose other side is a function.
type wire struct {
	topic  string
	answer func(ctx context.Context, request []byte) ([]byte, error)
}

// Ask implements preflight.Asker.
func (w *wire) Ask(ctx context.Context, topic string, request []byte) ([]byte, error) {
	w.topic = topic
	return w.answer(ctx, request)
}

func TestAskReceiver(t *testing.T) {
	for _, project := range []string{"", "demo"} {
		var asked *string
		want := []preflight.Check{{Name: preflight.Webhook, Subject: "demo", Status: preflight.Failed, Detail: "gone", Fix: "nothing"}}
		w := &wire{answer: preflight.ReceiverHandler(func(_ context.Context, project string) []preflight.Check {
			asked = &project
			return want
		})}
		got, err := preflight.AskReceiver(t.Context(), w, project)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %+v and %v, want %+v", got, err, want)
		}
		if w.topic != preflight.ReceiverTopic || asked == nil || *asked != project {
			t.Errorf("asked on %q for %v, want %q for %q", w.topic, asked, preflight.ReceiverTopic, project)
		}
	}
}

func TestAskReceiverFails(t *testing.T) {
	many, err := json.Marshal(map[string]any{"checks": make([]preflight.Check, 201)})
	if err != nil {
		t.Fatal(err)
	}
	reply := func(raw string) func(context.Context, []byte) ([]byte, error) {
		return func(context.Context, []byte) ([]byte, error) { return []byte(raw), nil }
	}
	for _, c := range []struct {
		name   string
		answer func(context.Context, []byte) ([]byte, error)
		reason fault.Reason
	}{
		{"nobody answers", func(context.Context, []byte) ([]byte, error) {
			return nil, fault.Newf(fault.Transient, fault.QueueUnavailable, "no responders")
		}, fault.QueueUnavailable},
		{"no JSON", reply("garbage"), fault.BadAnswer},
		{"no checks", reply("{}"), fault.BadAnswer},
		{"too many", reply(string(many)), fault.BadAnswer},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := preflight.AskReceiver(t.Context(), &wire{answer: c.answer}, "demo")
			if err == nil || fault.Of(err).Reason != c.reason || got != nil {
				t.Errorf("got %v and %v, want the reason %s", got, err, c.reason)
			}
		})
	}
}

func TestReceiverHandlerRefuses(t *testing.T) {
	for _, request := range []string{"", "garbage", `{"project":"../admin"}`, `{"project":"UPPER"}`} {
		called := false
		handle := preflight.ReceiverHandler(func(context.Context, string) []preflight.Check {
			called = true
			return nil
		})
		if _, err := handle(t.Context(), []byte(request)); err == nil || fault.Of(err).Reason != fault.Malformed || called {
			t.Errorf("%q: got %v, called %v, want the reason %s", request, err, called, fault.Malformed)
		}
	}
}

func FuzzReceiverHandler(f *testing.F) {
	f.Add([]byte(`{"project":"demo"}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, request []byte) {
		handle := preflight.ReceiverHandler(func(_ context.Context, project string) []preflight.Check {
			if strings.ContainsAny(project, "/ \n") {
				t.Errorf("%q went through", project)
			}
			return []preflight.Check{{Name: preflight.Webhook, Subject: project}}
		})
		raw, err := handle(t.Context(), request)
		if err == nil && !json.Valid(raw) {
			t.Errorf("got %q, want JSON", raw)
		}
	})
}
