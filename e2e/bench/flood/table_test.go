package flood_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/flood"
	"github.com/harborseal/harborseal/e2e/bench/quantile"
	"github.com/harborseal/harborseal/e2e/bench/stage"
)

// good meets every target, and just so.
func good() *flood.Result {
	spread := func(p99 time.Duration) stage.Times {
		s := quantile.Spread{Count: 2000, P50: time.Millisecond, P99: p99, Max: time.Second}
		return stage.Times{FromPush: s, FromWebhook: s}
	}
	return &flood.Result{
		Calm: spread(100 * time.Millisecond), Flooded: spread(200 * time.Millisecond), Stored: 1201, Signed: 1201, Wait: time.Minute,
		Flood: flood.Flood{Pushes: 5000, PushedBefore: 20, PushedAfter: 1200, SignedBefore: 0, SignedAfter: 4999},
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(*flood.Result)
		quick bool
		want  string // the check that is missed; empty for none
	}{
		"all met":                    {func(*flood.Result) {}, false, ""},
		"the flood has not begun":    {func(r *flood.Result) { r.Flood.PushedBefore-- }, false, "flood"},
		"the flood was over":         {func(r *flood.Result) { r.Flood.SignedAfter++ }, true, "flood"},
		"too few samples":            {func(r *flood.Result) { r.Flooded.FromPush.Count-- }, false, "pushes in each phase"},
		"too few samples to compare": {func(r *flood.Result) { r.Calm.FromPush.Count-- }, false, "pushes in each phase"},
		"the others notice it":       {func(r *flood.Result) { r.Flooded.FromPush.P99++ }, false, "p99"},
		"nothing to compare with":    {func(r *flood.Result) { r.Calm.FromPush.P99 = 0 }, false, "p99"},
		"times say nothing yet":      {func(r *flood.Result) { r.Flooded.FromPush = quantile.Spread{Count: 9, P99: time.Hour} }, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := good()
			tt.spoil(r)
			r.Judge(tt.quick)
			var missed []string
			for _, c := range r.Checks {
				if !c.OK {
					missed = append(missed, c.Name)
				}
			}
			switch {
			case r.Missed() != (tt.want != ""):
				t.Errorf("missed: %q, want %q", missed, tt.want)
			case tt.want != "" && (len(missed) != 1 || !strings.Contains(missed[0], tt.want)):
				t.Errorf("missed: %q, want the one with %q", missed, tt.want)
			}
		})
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	r := good()
	r.Flooded.FromPush.P99 *= 2
	r.Judge(false)
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"9 other projects", "alone", "1ms / 100ms / 1s", "1ms / 400ms / 1s", "All 5000 pushes", "20 to 1200", "0 to 4999", "of 1201", "1m0s", "4.00", "MISSED",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
	}
}
