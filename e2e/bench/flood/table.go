package flood

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/stage"
)

const (
	// leastSamples is how many pushes of the others each p99 rests on.
	leastSamples = 2000
	// mostRatio is how much of the calm p99 the others may notice.
	mostRatio = 2
)

// Judge holds it against the targets; without times where they say nothing.
func (r *Result) Judge(quick bool) {
	r.Checks = nil
	f := r.Flood
	r.Checks.Add("flood: under way until the end", fmt.Sprintf("more than %d pushed, fewer than %d signed", begun-1, f.Pushes),
		f.PushedBefore >= begun && f.SignedAfter < f.Pushes, "%d pushed before, %d signed after", f.PushedBefore, f.SignedAfter)
	if quick {
		return
	}
	samples := min(r.Calm.FromPush.Count, r.Flooded.FromPush.Count)
	r.Checks.Add("others: pushes in each phase", fmt.Sprintf("at least %d", leastSamples), samples >= leastSamples, "%d", samples)
	r.Checks.Add("others: p99 from push to signature, flooded to calm", fmt.Sprintf("at most %d", mostRatio),
		r.Ratio() > 0 && r.Ratio() <= mostRatio, "%.2f", r.Ratio())
}

// Missed says whether a target was missed.
func (r *Result) Missed() bool { return r.Checks.Missed() }

// Print writes the table.
func (r *Result) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(w, "flood: %d other projects\tpushes\tpush to signature, p50 / p99 / max\twebhook to signature, p50 / p99 / max\t\n", teams)
	for _, row := range []struct {
		name  string
		times stage.Times
	}{{"alone", r.Calm}, {"while one project floods", r.Flooded}} {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%s\t\n", row.name, row.times.FromPush.Count, row.times.FromPush, row.times.FromWebhook)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	_, err := fmt.Fprintf(out, "A manifest PUT takes %s, one at a time for each project. All %d pushes of the flood are sent at once. While the others were\n"+
		"measured, %d to %d of them were pushed, and %d to %d signed: signatures wait behind pushes. The rest was given up then, and of %d\n"+
		"that Harbor has, %d were signed after %s of quick PUTs.\n", putTakes, r.Flood.Pushes, r.Flood.PushedBefore, r.Flood.PushedAfter,
		r.Flood.SignedBefore, r.Flood.SignedAfter, r.Stored, r.Signed, r.Wait.Round(time.Second/10))
	if err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	return r.Checks.Print(out)
}
