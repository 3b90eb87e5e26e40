package checker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
)

// webhook is one about a push at 100 that was answered with success at 104.
func webhook(r *run) *checker.Step {
	s := push(100, r.digest)
	s.Kind, s.Ended = checker.StepWebhook, at(104)
	r.Journal = append(r.Journal, s)
	return &r.Journal[len(r.Journal)-1]
}

// heardOf makes the run one whose only event is made by a full sweep that began at a time and took a second, after a webhook.
func heardOf(r *run, swept int) {
	const correlation = "sweep-demo-1"
	r.Ledger[0].Origin, r.Ledger[0].Correlation, r.Ledger[0].Stored = "sweep", correlation, at(swept+1)
	r.Ledger = append(r.Ledger, checker.LedgerEvent{
		Seq: 9, Stored: at(swept + 1), Kind: "swept", Correlation: correlation, Sweep: &checker.Sweep{Took: time.Second},
	})
}

// received is the event of the webhook.
func received(r *run, stored int) {
	r.event(r.digest, "received", "", stored)
}

func TestChaosUnheard(t *testing.T) {
	t.Parallel()
	unheard := []checker.Rule{checker.Unheard}
	try(t, []planted{
		{"heard", func(_ *testing.T, r *run) { webhook(r); received(r, 103) }, nil},
		{"no event of the push", func(_ *testing.T, r *run) { webhook(r) }, unheard},
		{"the event came long after the answer", func(_ *testing.T, r *run) { webhook(r); received(r, 107) }, unheard},
		{"only swept, later", func(_ *testing.T, r *run) { webhook(r); received(r, 103); heardOf(r, 130) }, unheard},
		{"only swept, later, and the policy was confirmed since", func(_ *testing.T, r *run) {
			webhook(r)
			received(r, 103)
			heardOf(r, 130)
			r.Journal = append(r.Journal, policy(300, checker.Formats()...))
		}, unheard},
		{"swept, and tried before", func(_ *testing.T, r *run) {
			webhook(r)
			received(r, 103)
			heardOf(r, 130)
			r.event(r.digest, "failed", "unavailable", 105)
			r.Ledger[len(r.Ledger)-1].Origin = "webhook"
		}, nil},
		{"asked for by a sweep that had begun", func(_ *testing.T, r *run) { webhook(r); received(r, 103); heardOf(r, 105) }, nil},
		{"swept by one that never ended", func(_ *testing.T, r *run) {
			webhook(r)
			received(r, 103)
			heardOf(r, 130)
			r.Ledger[1].Seq, r.Ledger = 2, r.Ledger[:2]
		}, nil},
		{"swept as a new push", func(_ *testing.T, r *run) {
			webhook(r)
			received(r, 103)
			heardOf(r, 130)
			r.Ledger[0].Correlation = "push-1"
		}, nil},
		{"the webhook was given up", func(_ *testing.T, r *run) { webhook(r).Accepted = false }, nil},
		{"the webhook is of an older push", func(_ *testing.T, r *run) {
			webhook(r)
			r.Journal = append(r.Journal, push(120, r.digest))
		}, nil},
		{"nothing was wanted then", func(_ *testing.T, r *run) {
			webhook(r)
			later := policy(110, checker.Formats()...)
			later.Backfill = true
			r.Journal = append(r.Journal, policy(50), later)
		}, nil},
	})
}

// What led to the first signature is counted, and what only the last sweeps found on its own.
func TestChaosCountsWhatLedToSignatures(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		plant func(r *run)
		want  checker.Found
	}{
		{"a webhook", func(*run) {}, checker.Found{Webhook: 1}},
		{"a sweep", func(r *run) { heardOf(r, 130) }, checker.Found{Sweep: 1}},
		{"a sweep before the last ones", func(r *run) {
			heardOf(r, 130)
			r.Journal = append(r.Journal, checker.Step{Kind: checker.StepSweep, Began: at(200)})
		}, checker.Found{Sweep: 1}},
		{"one of the last sweeps", func(r *run) {
			heardOf(r, 130)
			r.Journal = append(r.Journal, checker.Step{Kind: checker.StepSweep, Began: at(120)})
		}, checker.Found{Final: 1}},
		{"nothing that anybody knows", func(r *run) { r.Ledger = nil }, checker.Found{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRun(t)
			r.Ledger[0].Origin = "webhook"
			tt.plant(r)
			found, err := r.Check(t.Context())
			if err != nil {
				t.Fatalf("checking: %v", err)
			}
			if found.By != tt.want {
				t.Errorf("found: got %+v, want %+v", found.By, tt.want)
			}
		})
	}
}

func TestReadLedgerReadsCausesAndSweeps(t *testing.T) {
	t.Parallel()
	all, err := checker.ReadLedger(strings.NewReader(`{"seq":1,"stored":"2026-11-22T19:00:09Z","event":{"kind":"swept","origin":"sweep",` +
		`"correlation_id":"sweep-demo-1","time":"2026-11-22T18:00:05Z","sweep":{"started_at":"2026-11-22T18:00:02Z"}}}`))
	if err != nil || len(all) != 1 {
		t.Fatalf("got %v, %v, want one event", all, err)
	}
	e := all[0]
	if e.Origin != "sweep" || e.Correlation != "sweep-demo-1" || e.Sweep == nil || e.Sweep.Took != 3*time.Second {
		t.Errorf("got %+v with %+v, want the sweep sweep-demo-1 that took 3s", e, e.Sweep)
	}
}
