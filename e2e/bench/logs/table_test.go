package logs_test

import (
	"bytes"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/logs"
	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/policy"
)

// good meets every target, and just so.
func good() *logs.Result {
	cost := logs.Cost{Signer: 3 * time.Millisecond, Receiver: time.Millisecond, Emulator: 2 * time.Millisecond, Log: 9 * time.Millisecond, Busy: 0.9}
	catch := func(rate int) logs.Catch {
		return logs.Catch{Signatures: 10 * rate, Took: 10 * time.Second, Cost: cost, Waiting: 60}
	}
	rate := func(kind policy.LogType, waiting, each, own int) *logs.Rate {
		return &logs.Rate{
			Log: kind, Waiting: waiting, Own: logs.Own{Entries: 10 * own, Took: 10 * time.Second, CPU: time.Duration(own) * 80 * time.Millisecond, Client: time.Duration(own) * 10 * time.Millisecond}, Catch: catch(each), Entries: 10 * each,
		}
	}
	return &logs.Result{
		Checkpoint: 2 * time.Second,
		Rates:      []*logs.Rate{rate(policy.RekorV1, 64, 30, 100), rate(policy.RekorV2, 64, 14, 20)},
		Stamps: &logs.Stamps{
			Off: logs.Stamped{Catch: catch(200)}, Optional: logs.Stamped{Catch: catch(180), Made: 1700, Missed: 100},
			Required: logs.Stamped{Catch: catch(150), Made: 1500}, Own: logs.Own{Entries: 1000, Took: time.Second},
		},
		Recovery: &logs.Recovery{
			Log: policy.RekorV1, Waiting: 256, Debts: 1000, Entries: 1000, First: 2 * time.Second, Took: 25 * time.Second,
			Own: logs.Own{Entries: 1000, Took: 10 * time.Second}, Failures: map[string]int{"dependency_down": 5, "unreachable": 3},
			Cost: logs.Cost{Busy: 0.9},
		},
		Names: &logs.Names{Seen: []time.Duration{4 * time.Second, 30 * time.Second}},
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(*logs.Result)
		want  string // the check that is missed; empty for none
	}{
		"all met":                        {func(*logs.Result) {}, ""},
		"a signature without an entry":   {func(r *logs.Result) { r.Rates[0].Entries-- }, "rekor-v1, 64 waiting: entries"},
		"two entries for a signature":    {func(r *logs.Result) { r.Rates[1].Entries++ }, "rekor-v2, 64 waiting: entries"},
		"slow beside idle processors":    {func(r *logs.Result) { r.Rates[0].Busy = 0.89 }, "rekor-v1, 64 waiting: rate"},
		"fast beside idle processors":    {func(r *logs.Result) { r.Rates[1].Busy = 0.1 }, ""},
		"slow recovery, idle processors": {func(r *logs.Result) { r.Recovery.Busy = 0.5 }, "recovery: rate"},
		"a timestamp is missing":         {func(r *logs.Result) { r.Stamps.Required.Made-- }, "timestamps required"},
		"an optional one may be missing": {func(r *logs.Result) { r.Stamps.Optional.Made = 0 }, ""},
		"a debt is not paid":             {func(r *logs.Result) { r.Recovery.Entries-- }, "entries for debts"},
		"a name is missed late":          {func(r *logs.Result) { r.Names.Seen[0] = 30*time.Second + 1 }, "the end of a name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := good()
			tt.spoil(r)
			r.Judge()
			var missed []string
			for _, c := range r.Checks {
				if !c.OK {
					missed = append(missed, c.Name)
				}
			}
			switch {
			case r.Missed() != (tt.want != ""):
				t.Errorf("missed: %v, want %q", missed, tt.want)
			case tt.want != "" && (len(missed) != 1 || !strings.Contains(missed[0], tt.want)):
				t.Errorf("missed: %q, want the one with %q", missed, tt.want)
			}
			if want := 2*2 + 1 + 2 + 1; len(r.Checks) != want {
				t.Errorf("%d checks, want %d", len(r.Checks), want)
			}
		})
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	r := good()
	r.Names.Seen[1]++
	r.Judge()
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	var table []string
	for line := range strings.Lines(out.String()) {
		table = append(table, strings.Join(strings.Fields(line), " "))
	}
	text := strings.Join(table, "\n")
	for _, want := range []string{
		"rekor-v1, 64 waiting 300 30.0 100.0 0.30 60 3.00 1.00 2.00 9.00 8.00 90% 0",
		"rekor-v2, 64 waiting 140 14.0 20.0 0.70 60 3.00 1.00 2.00 9.00 8.00 90% 0",
		"off 2000 200.0 1.00 0 3.00 1.00 2.00 9.00 90% 0", "optional 1800 180.0 0.90 1700 3.00 1.00 2.00 9.00 90% 0",
		"required 1500 150.0 0.75 1500 3.00 1.00 2.00 9.00 90% 0", "rekor-v1, 256 waiting 1000 40.0 100.0 0.40 2.0 0.00 0.00 0.00 0.00 0.00 90% 8", "5 dependency_down, 3 unreachable", "4.0, 30.0 s", "a checkpoint every 2s",
		"rekor-v1, 64 waiting: CPU times alone would make it 0.60 of the log's rate.",
		"MISSED",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table has no %q:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "MISSED"); n != 1 {
		t.Errorf("%d times MISSED, want 1", n)
	}
}

func TestPrintOfNothing(t *testing.T) {
	t.Parallel()
	var r logs.Result
	r.Judge()
	var out bytes.Buffer
	if err := r.Print(&out); err != nil || r.Missed() {
		t.Errorf("got %v, missed %t; want that nothing was to be met", err, r.Missed())
	}
}

func TestOwn(t *testing.T) {
	t.Parallel()
	var o logs.Own
	if o.Rate() != 0 {
		t.Errorf("nothing was measured, and the rate is %g", o.Rate())
	}
	o.Add(logs.Own{Entries: 100, Took: time.Second, CPU: time.Second, Client: time.Second})
	o.Add(logs.Own{Entries: 80, Took: 3 * time.Second, CPU: 2 * time.Second})
	if want := (logs.Own{Entries: 180, Took: 4 * time.Second, CPU: 3 * time.Second, Client: time.Second}); o != want || o.Rate() != 45 {
		t.Errorf("got %+v, %g a second; want %+v, 45", o, o.Rate(), want)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	got := logs.Failures(harness.Metrics{
		`harborseal_signing_failures_total{kind="transient",outcome="failed",reason="timeout"}`:  3,
		`harborseal_signing_failures_total{kind="permanent",outcome="dead",reason="timeout"}`:    1,
		`harborseal_signing_failures_total{kind="transient",outcome="failed",reason="rejected"}`: 2,
		`harborseal_signing_failures_total{kind="transient",outcome="failed",reason="paused"}`:   0,
		`harborseal_signing_outcomes_total{how="made",outcome="signed",reason=""}`:               9,
	})
	if want := map[string]int{"timeout": 4, "rejected": 2}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
