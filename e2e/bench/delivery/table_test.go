package delivery_test

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/delivery"
	"github.com/harborseal/harborseal/e2e/bench/delivery/yardstick"
	"github.com/harborseal/harborseal/e2e/bench/hooks"
	"github.com/harborseal/harborseal/e2e/bench/quantile"
	"github.com/harborseal/harborseal/e2e/bench/target"
)

// sent are answers of which all are accepted, so many a second, the slowest just as fast as it has to be.
func sent(webhooks, rate int) hooks.Answers {
	spread := quantile.Spread{Count: webhooks, P50: time.Millisecond, P99: time.Second, Max: 3 * time.Second}
	return hooks.Answers{
		Sent: webhooks, Accepted: webhooks, Took: time.Duration(webhooks) * time.Second / time.Duration(rate), All: spread, Acceptance: spread,
		Broken: map[string]int{},
	}
}

func loop(rate int) yardstick.Loop {
	return yardstick.Loop{Webhooks: 1000, InFlight: 64, Took: 1000 * time.Second / time.Duration(rate)}
}

// judged is what all results have in common.
type judged interface {
	Judge(quick bool)
	Missed() bool
	Print(out io.Writer) error
}

// missed gives the names of the targets that are missed.
func missed(checks target.Checks) []string {
	var names []string
	for _, c := range checks {
		if !c.OK {
			names = append(names, c.Name)
		}
	}
	return names
}

// judge holds what is missed against what has to be: the only one that contains a text, or none.
func judge(t *testing.T, r judged, checks func() target.Checks, quick bool, want string) {
	t.Helper()
	r.Judge(quick)
	got := missed(checks())
	switch {
	case r.Missed() != (len(got) > 0):
		t.Errorf("missed is %t with %q", r.Missed(), got)
	case want == "" && len(got) > 0, want != "" && (len(got) != 1 || !strings.Contains(got[0], want)):
		t.Errorf("missed: %q, want the one with %q", got, want)
	}
}

// print wants texts in the table.
func wantPrinted(t *testing.T, r judged, want ...string) {
	t.Helper()
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, text := range want {
		if !strings.Contains(out.String(), text) {
			t.Errorf("the table has no %q:\n%s", text, out.String())
		}
	}
}

func receiver() *delivery.ReceiverResult {
	return &delivery.ReceiverResult{Rows: []*delivery.ReceiverRow{{
		Connections: 10, Receiver: sent(6000, 2000), Loop: loop(3333), Server: sent(6000, 2500), CPU: 3 * time.Second,
	}}}
}

func TestJudgeReceiver(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(*delivery.ReceiverRow)
		quick bool
		want  string
	}{
		"all met":               {func(*delivery.ReceiverRow) {}, false, ""},
		"one not accepted":      {func(r *delivery.ReceiverRow) { r.Receiver.Accepted-- }, true, "accepted"},
		"nothing sent":          {func(r *delivery.ReceiverRow) { r.Receiver = hooks.Answers{} }, true, "accepted"},
		"too slow":              {func(r *delivery.ReceiverRow) { r.Receiver.All.Max++ }, false, "slowest"},
		"the loop is faster":    {func(r *delivery.ReceiverRow) { r.Loop = loop(3400) }, false, "bare loop"},
		"the server is faster":  {func(r *delivery.ReceiverRow) { r.Server = sent(6000, 2600) }, false, "bare server"},
		"no loop":               {func(r *delivery.ReceiverRow) { r.Loop = yardstick.Loop{} }, false, "bare loop"},
		"times say nothing yet": {func(r *delivery.ReceiverRow) { r.Receiver.All.Max, r.Loop = time.Hour, loop(90_000) }, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := receiver()
			tt.spoil(r.Rows[0])
			judge(t, r, func() target.Checks { return r.Checks }, tt.quick, tt.want)
		})
	}
	wantPrinted(t, receiver(), "10", "2000", "1ms / 1s / 3s", "3333", "0.60", "2500", "0.80", "0.50")
}

// surge meets every target, and just so.
func surge() *delivery.SurgeResult {
	const small, large = 600, 60_000
	refused := sent(large, 2401)
	refused.Sent, refused.Retryable = 2*large, large
	return &delivery.SurgeResult{
		Loop: loop(3000),
		Bounded: &delivery.SurgeRun{
			AtOnce: 10, Digests: small + large, PeakReceiver: 384<<20 - 1, PeakSigner: 512<<20 - 1, Signing: time.Minute,
			Surges: []delivery.SurgeSizes{{Webhooks: small, Tries: []hooks.Answers{sent(small, 100)}}, {Webhooks: large, Tries: []hooks.Answers{sent(large, 100)}}},
		},
		Unbounded: &delivery.SurgeRun{
			AtOnce: 2000, Apart: true, Digests: small + large, PeakReceiver: 384<<20 - 1, PeakSigner: 512<<20 - 1, Left: 7,
			Surges: []delivery.SurgeSizes{{Webhooks: small, Tries: []hooks.Answers{sent(small, 2401)}}, {Webhooks: large, Tries: []hooks.Answers{refused, sent(1, 1)}}},
		},
	}
}

func TestJudgeSurge(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(*delivery.SurgeResult)
		quick bool
		want  string
	}{
		"all met":                       {func(*delivery.SurgeResult) {}, false, ""},
		"one of ten connections":        {func(r *delivery.SurgeResult) { r.Bounded.Surges[0].Tries[0].Accepted-- }, true, "10 connections, 600 webhooks: accepted"},
		"too few accepted":              {func(r *delivery.SurgeResult) { r.Unbounded.Surges[1].Tries[0].Took += time.Second }, false, "60000 webhooks: accepted a second"},
		"too few of the small one":      {func(r *delivery.SurgeResult) { r.Unbounded.Surges[0].Tries[0].Took *= 2 }, false, "600 webhooks: accepted a second"},
		"an answer that says nothing":   {func(r *delivery.SurgeResult) { r.Unbounded.Surges[1].Tries[1].Broken["status 500"] = 1 }, true, "cannot be tried again"},
		"the second try is slow":        {func(r *delivery.SurgeResult) { r.Unbounded.Surges[1].Tries[1].All.Max++ }, false, "slowest"},
		"one not signed":                {func(r *delivery.SurgeResult) { r.Bounded.Unsigned = 1 }, true, "10 connections: signed"},
		"one dead":                      {func(r *delivery.SurgeResult) { r.Unbounded.Dead = 1 }, true, "unbounded: signed"},
		"one is missing":                {func(r *delivery.SurgeResult) { r.Unbounded.Digests-- }, true, "unbounded: signed"},
		"the receiver is too large":     {func(r *delivery.SurgeResult) { r.Unbounded.PeakReceiver++ }, true, "RSS of the receiver"},
		"the receiver was not measured": {func(r *delivery.SurgeResult) { r.Bounded.PeakReceiver = 0 }, true, "RSS of the receiver"},
		"the signer is too large":       {func(r *delivery.SurgeResult) { r.Bounded.PeakSigner++ }, true, "RSS of the signer"},
		"times say nothing yet":         {func(r *delivery.SurgeResult) { r.Loop = loop(90_000) }, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := surge()
			tt.spoil(r)
			judge(t, r, func() target.Checks { return r.Checks }, tt.quick, tt.want)
		})
	}
	r := surge()
	r.Unbounded.Surges[1].Tries[1].Broken["no answer"] = 3
	wantPrinted(t, r, "unbounded", "60000", "120000", "2401", "Other answers: no answer 3.", "384", "512", "3000 webhooks a second")
}

func TestJudgeRecovery(t *testing.T) {
	t.Parallel()
	good := func() *delivery.RecoveryResult {
		return &delivery.RecoveryResult{
			Waiting: 10_000, Took: 20 * time.Second, Queued: sent(10_000, 1000), Meanwhile: quantile.Spread{Count: 80, P50: 1, P99: time.Second, Max: time.Minute},
		}
	}
	for name, tt := range map[string]struct {
		spoil func(*delivery.RecoveryResult)
		want  string
	}{
		"all met":        {func(*delivery.RecoveryResult) {}, ""},
		"one not signed": {func(r *delivery.RecoveryResult) { r.Unsigned = 1 }, "signed"},
		"a slow push":    {func(r *delivery.RecoveryResult) { r.Meanwhile.P99++ }, "push meanwhile"},
		"no push":        {func(r *delivery.RecoveryResult) { r.Meanwhile = quantile.Spread{} }, "push meanwhile"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := good()
			tt.spoil(r)
			judge(t, r, func() target.Checks { return r.Checks }, false, tt.want)
		})
	}
	wantPrinted(t, good(), "10000", "1000", "20s", "500", "(80 pushes")
}

func TestJudgeQueue(t *testing.T) {
	t.Parallel()
	r := &delivery.QueueResult{
		Requests: 1000, Service: delivery.QueueCost{Requests: 1000, Took: 2 * time.Second, CPU: 100 * time.Millisecond, ServerCPU: 300 * time.Millisecond},
		Bare: delivery.QueueCost{Requests: 1000, Took: time.Second},
	}
	checks := func() target.Checks { return r.Checks }
	judge(t, r, checks, false, "")
	wantPrinted(t, r, "the service's client", "500", "2.000", "0.100", "0.300")
	r.Service.Took++
	judge(t, r, checks, false, "bare consumer")
	judge(t, r, checks, true, "")
}

func TestInvented(t *testing.T) {
	t.Parallel()
	var all []string
	for i := range 100 {
		all = append(all, delivery.Invented("a", i).Digest, delivery.Invented("b", i).Digest)
	}
	slices.Sort(all)
	if got := len(slices.Compact(all)); got != 200 {
		t.Errorf("%d digests are different ones, want 200", got)
	}
}
