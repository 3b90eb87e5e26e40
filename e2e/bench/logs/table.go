package logs

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/target"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Result is all that was measured. What was not is nil.
type Result struct {
	// Checkpoint is how often Rekor v2 publishes one.
	Checkpoint time.Duration `json:"checkpoint_ns"`
	Rates      []*Rate       `json:"rates,omitempty"`
	Stamps     *Stamps       `json:"timestamps,omitempty"`
	Recovery   *Recovery     `json:"recovery,omitempty"`
	Names      *Names        `json:"names,omitempty"`
	Checks     target.Checks `json:"checks"`
}

const (
	// seenWithin is what the service promises.
	seenWithin = 30 * time.Second
	// leastRatio is how much of a log's rate the service keeps up with, unless the processors are full: then it is what the log
	// loses to the programs beside it, and says nothing of how those wait.
	leastRatio = 0.7
	fullFrom   = 0.9
)

// Missed says whether a target was missed.
func (r *Result) Missed() bool { return r.Checks.Missed() }

// Judge compares with the targets.
func (r *Result) Judge() {
	for _, one := range r.Rates {
		by := one.label() + ": "
		r.Checks.Add(by+"entries for signatures", "one each", one.Entries == one.Signatures, "%d for %d", one.Entries, one.Signatures)
		r.keepsUp(by, one.Ratio(), one.Busy)
	}
	if s := r.Stamps; s != nil {
		r.Checks.Add("timestamps required: made", "one each", s.Required.Made == s.Required.Signatures, "%d for %d", s.Required.Made, s.Required.Signatures)
	}
	if c := r.Recovery; c != nil {
		r.Checks.Add(c.label()+", recovery: entries for debts", "one each", c.Entries == c.Debts, "%d for %d", c.Entries, c.Debts)
		r.keepsUp(c.label()+", recovery: ", c.Ratio(), c.Busy)
	}
	if n := r.Names; n != nil {
		r.Checks.Add("from the end of a name to the metric", "within "+seenWithin.String(), n.slowest() <= seenWithin, "%s s", seconds(n.slowest()))
	}
}

// keepsUp holds a rate against that of the log.
func (r *Result) keepsUp(by string, ratio, busy float64) {
	r.Checks.Add(by+"rate, to the log's own", fmt.Sprintf("at least %.2f, or processors %s busy", leastRatio, percent(fullFrom)),
		ratio >= leastRatio || busy >= fullFrom, "%.2f, %s", ratio, percent(busy))
}

// Print writes the tables for people.
func (r *Result) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")+"\t") } // Flush tells
	cost := []string{"CPU ms: signer", "receiver", "emulator", "log", "the log itself", "busy", "failed attempts"}
	costs := func(c Cost, own string, failed map[string]int) []string {
		return []string{
			milliseconds(c.Signer), milliseconds(c.Receiver), milliseconds(c.Emulator), milliseconds(c.Log), own, percent(c.Busy), fmt.Sprint(total(failed)),
		}
	}
	if len(r.Rates) > 0 {
		line(append([]string{"an entry required", "signatures", "a second", "the log itself", "ratio", "most waiting"}, cost...)...)
		for _, one := range r.Rates {
			line(append([]string{
				one.label(), fmt.Sprint(one.Signatures), fmt.Sprintf("%.1f", one.Rate()), one.Own.String(), fmt.Sprintf("%.2f", one.Ratio()),
				fmt.Sprint(one.Catch.Waiting),
			}, costs(one.Cost, milliseconds(one.Own.each()), one.Failures)...)...)
		}
		line()
	}
	if c := r.Recovery; c != nil {
		line(append([]string{"recovery", "debts", "a second", "the log itself", "ratio", "first after s"}, cost...)...)
		line(append([]string{
			c.label(), fmt.Sprint(c.Debts), fmt.Sprintf("%.1f", c.Rate()), c.Own.String(), fmt.Sprintf("%.2f", c.Ratio()), seconds(c.First),
		}, costs(c.Cost, milliseconds(c.Own.each()), c.Failures)...)...)
		line()
	}
	if s := r.Stamps; s != nil {
		cost[3], cost[4] = "authority", ""
		line(append([]string{"timestamps", "signatures", "a second", "", "to off", "timestamps"}, cost...)...)
		for _, one := range []struct {
			name string
			of   *Stamped
		}{{"off", &s.Off}, {"optional", &s.Optional}, {"required", &s.Required}} {
			line(append([]string{
				one.name, fmt.Sprint(one.of.Signatures), fmt.Sprintf("%.1f", one.of.Rate()), "", fmt.Sprintf("%.2f", ratio(one.of.Rate(), s.Off.Rate())),
				fmt.Sprint(one.of.Made),
			}, costs(one.of.Cost, "", one.of.Failures)...)...)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	r.remark(out)
	return r.Checks.Print(out)
}

// remark says what the numbers are of.
func (r *Result) remark(out io.Writer) {
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) } // the checks' write tells
	for _, one := range r.Rates {
		if one.Log == policy.RekorV1 {
			line("%s: CPU times alone would make it %s of the log's rate.", one.label(), byCPU(one.Cost, one.Own))
		}
		if len(one.Failures) > 0 {
			line("%s: attempts that failed: %s.", one.label(), reasons(one.Failures))
		}
	}
	if s := r.Stamps; s != nil {
		line("The authority itself: %s timestamps a second, %d at once.", s.Own, askers)
	}
	if c := r.Recovery; c != nil {
		if c.Log == policy.RekorV1 {
			line("Recovery: CPU times alone would make it %s of the log's rate.", byCPU(c.Cost, c.Own))
		}
		line("Recovery: all were pushed and signed in %s s while nobody answered for the log; 99 of 100 were paid %s s after it was back, all after %s s.",
			seconds(c.Signing), seconds(c.Most), seconds(c.Took))
	}
	if c := r.Recovery; c != nil && len(c.Failures) > 0 {
		line("Recovery: attempts that failed, while the log was away too: %s.", reasons(c.Failures))
	}
	if n := r.Names; n != nil {
		var seen []string
		for _, d := range n.Seen {
			seen = append(seen, seconds(d))
		}
		line("From the end of a name to harborseal_dependency_up = 0: %s s.", strings.Join(seen, ", "))
	}
	line("One signer, one bundle for each image; Rekor v2 with a checkpoint every %s. \"The log itself\" is a bare loop of as many callers with the\n"+
		"same client, half before and half after. Logs, database, Harbor emulator, signer, receiver and this program share %d processors;\n"+
		"CPU is for one signature, debt or entry; \"busy\" is how much of the processors was used, by whomever.", r.Checkpoint, runtime.NumCPU())
}

// byCPU is the ratio that is left where the processors are full, as the log alone and its callers fill them: what an entry takes
// in the bare loop, of what a signature with an entry takes. Callers of Rekor v2 wait for a checkpoint instead: it is no bound there.
func byCPU(c Cost, o Own) string {
	all := c.Signer + c.Receiver + c.Emulator + c.Log
	return fmt.Sprintf("%.2f", ratio(float64((o.CPU+o.Client)/time.Duration(max(1, o.Entries))), float64(all)))
}

func (r *Rate) label() string { return fmt.Sprintf("%s, %d waiting", r.Log, r.Waiting) }

func (r *Recovery) label() string { return fmt.Sprintf("%s, %d waiting", r.Log, r.Waiting) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()) }

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }

func percent(f float64) string { return fmt.Sprintf("%.0f%%", 100*f) }

func total(by map[string]int) (sum int) {
	for _, n := range by {
		sum += n
	}
	return sum
}

func reasons(by map[string]int) string {
	var all []string
	for _, reason := range slices.Sorted(maps.Keys(by)) {
		all = append(all, fmt.Sprintf("%d %s", by[reason], reason))
	}
	return strings.Join(all, ", ")
}
