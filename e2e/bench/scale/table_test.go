package scale_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/scale"
)

// good meets every target, and just so.
func good() *scale.Result {
	found := scale.Found{Want: 11, Found: 11}
	sweep := func(signers, requests int) *scale.Sweep {
		return &scale.Sweep{
			Signers: signers, Projects: 500, Took: time.Minute, Requests: map[string]int{"GET api": requests}, Population: 10_001, Unsigned: 11, Found: found,
			PeakRSS: 512<<20 - 1,
		}
	}
	minute := func(source string, pushes, requests int) *scale.Minute {
		return &scale.Minute{
			Source: source, Pushes: pushes, Projects: 500, Took: time.Second, Requests: map[string]int{"GET api": requests}, Found: found,
			PeakRSS: 512<<20 - 1,
		}
	}
	return &scale.Result{
		Content: scale.Content{Projects: 500, Repositories: 20_000, Digests: 10_000, Indexes: 2000, Unsigned: 10, Fewest: 100},
		Sweeps:  []*scale.Sweep{sweep(1, 110), sweep(2, 110)},
		Slow:    []*scale.Sweep{{Signers: 1, Projects: 50, Latency: time.Millisecond, Took: 2}, {Signers: 2, Projects: 50, Latency: time.Millisecond, Took: 1}},
		Minutes: []*scale.Minute{
			minute(scale.Feed, 100, 3+18+12), minute(scale.Feed, 1000, 30+18+12), minute(scale.Listing, 1000, 500+30+12),
		},
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(*scale.Result)
		want  string // the check that is missed; empty for none
	}{
		"all met":                      {func(*scale.Result) {}, ""},
		"one not found":                {func(r *scale.Result) { r.Sweeps[0].Found.Found-- }, "500 projects, 1 signer: unsigned"},
		"one not found by the second":  {func(r *scale.Result) { r.Sweeps[1].Unsigned-- }, "500 projects, 2 signers: unsigned"},
		"one asked for that is signed": {func(r *scale.Result) { r.Sweeps[1].Found.Others++ }, "500 projects, 2 signers: unsigned"},
		"a push not found":             {func(r *scale.Result) { r.Minutes[1].Found.Found-- }, "feed, 1000 pushes: unsigned"},
		"one not looked at":            {func(r *scale.Result) { r.Sweeps[0].Population-- }, "manifests looked at"},
		"a request more":               {func(r *scale.Result) { r.Sweeps[1].Requests["GET api"]++ }, "2 signers: requests"},
		"a request of another kind":    {func(r *scale.Result) { r.Sweeps[0].Requests["HEAD manifest"] = 1 }, "1 signer: requests"},
		"the feed costs more":          {func(r *scale.Result) { r.Minutes[0].Requests["GET api"]++ }, "feed, 100 pushes: requests"},
		"a request for each pull":      {func(r *scale.Result) { r.Minutes[2].Requests["GET api"] += 10_000 }, "listing, 1000 pushes: requests"},
		"a signer is too large":        {func(r *scale.Result) { r.Sweeps[0].PeakRSS++ }, "RSS"},
		"a signer grows by a minute":   {func(r *scale.Result) { r.Minutes[0].PeakRSS++ }, "RSS"},
		"a slow harbor is no target":   {func(r *scale.Result) { r.Slow[1].Took = time.Hour }, ""},
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
			if want := 2*3 + 3*2 + 1; len(r.Checks) != want {
				t.Errorf("%d checks, want %d", len(r.Checks), want)
			}
		})
	}
}

func TestJudgeWithoutMemory(t *testing.T) {
	t.Parallel()
	r := good()
	for _, s := range r.Sweeps {
		s.PeakRSS = 0
	}
	for _, m := range r.Minutes {
		m.PeakRSS = 0
	}
	if r.Judge(); !r.Missed() {
		t.Error("no memory was measured, and no target is missed")
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	r := good()
	r.Sweeps[0].Found.Found--
	r.Judge()
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"10000 digests (2000 indexes, 10 unsigned) in 500 projects", "full, 500 projects, 1 signer", "1.100",
		"full, 50 projects, 2 signers, 1ms a request", "Two signers take 1.00 of the time", "Two signers take 0.50 of the time",
		"incremental, listing, 1000 pushes: 542 GET api", "10 of 11, 0 others", "MISSED",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
	}
	if lines := slices.Collect(strings.Lines(out.String())); strings.Count(out.String(), "MISSED") != 1 {
		t.Errorf("got %q, want one MISSED", lines)
	}
}
