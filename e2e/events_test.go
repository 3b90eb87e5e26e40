//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// conform looks at all events that a test has left, as long as the queue still answers: each is as docs/events.schema.json says.
// Some tests run older programs, whose events lack what came later.
func (w *world) conform(t *testing.T) {
	t.Helper()
	// The test's own context has ended by now.
	ctx := context.WithoutCancel(t.Context())
	ledger, err := w.OpenLedger()
	if err != nil {
		return // the test has ended the queue, or never started it
	}
	defer ledger.Close()
	var exported bytes.Buffer
	if err := ledger.Export(ctx, &exported); err != nil {
		return
	}
	schema, err := harness.OpenEventSchema(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := schema.Check(&exported, false); err != nil {
		t.Errorf("events that are not as the schema says: %v", err)
	}
}

// TestEventsAreAsDocumented: what the programs write is what the schema says, with all that an audit asks of every event.
func TestEventsAreAsDocumented(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pushImage(t, "app", "v1")
	index, err := harness.NewIndex("linux/amd64")
	w.push(t, "team/app", "v1", index, err)
	w.awaitAll(t)
	w.idle(t)
	ledger, err := w.OpenLedger()
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	var exported bytes.Buffer
	if err := ledger.Export(t.Context(), &exported); err != nil {
		t.Fatal(err)
	}
	schema, err := harness.OpenEventSchema(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := exported.String()
	for _, kind := range []string{"received", "queued", "signed", "swept", "policy_changed", "key_added"} {
		if !strings.Contains(text, `"kind":"`+kind+`"`) {
			t.Errorf("there is no %s event", kind)
		}
	}
	if n, err := schema.Check(strings.NewReader(text), true); err != nil || n < 10 {
		t.Errorf("%d events, and: %v; want 10 at least, all as the schema says", n, err)
	}
	if _, err := schema.Check(strings.NewReader(strings.Replace(text, `"result":"success"`, `"result":"perhaps"`, 1)), true); err == nil {
		t.Error("an event with a result that is none is taken")
	}
}
