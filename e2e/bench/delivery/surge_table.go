package delivery

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	// leastOfPublishes is what has to be accepted of the synced publish rate while webhooks come without bound.
	leastOfPublishes = 0.8
	// mostOfReceiver and mostOfSigner bound the resident memory, in bytes.
	mostOfReceiver = 384 << 20
	mostOfSigner   = 512 << 20
)

// Judge holds it against the targets; without times where they say nothing.
func (r *SurgeResult) Judge(quick bool) {
	r.Checks = nil
	for _, run := range []*SurgeRun{r.Bounded, r.Unbounded} {
		for _, s := range run.Surges {
			r.judge(run, s, quick)
		}
		name := run.name() + ": "
		want := 0
		for _, s := range run.Surges {
			want += s.Webhooks
		}
		r.Checks.Add(name+"signed in the end", fmt.Sprintf("all %d, none dead", want), run.Digests == want && run.Unsigned == 0 && run.Dead == 0,
			"%d of %d, %d dead", run.Digests-run.Unsigned, run.Digests, run.Dead)
		r.Checks.Add(name+"peak RSS of the receiver", fmt.Sprintf("less than %d MiB", mostOfReceiver>>20),
			run.PeakReceiver > 0 && run.PeakReceiver < mostOfReceiver, "%.0f MiB", mebibytes(run.PeakReceiver))
		r.Checks.Add(name+"peak RSS of the signer", fmt.Sprintf("less than %d MiB", mostOfSigner>>20),
			run.PeakSigner > 0 && run.PeakSigner < mostOfSigner, "%.0f MiB", mebibytes(run.PeakSigner))
	}
}

// judge holds one surge against the targets.
func (r *SurgeResult) judge(run *SurgeRun, s SurgeSizes, quick bool) {
	name := fmt.Sprintf("%s, %d webhooks: ", run.name(), s.Webhooks)
	first := s.Tries[0]
	if run.Apart {
		r.Checks.Add(name+"answers that cannot be tried again", "none", s.others() == 0, "%d", s.others())
	} else {
		r.Checks.Add(name+"accepted at once", fmt.Sprintf("all %d", s.Webhooks), first.Accepted == s.Webhooks, "%d", first.Accepted)
	}
	if quick {
		return
	}
	r.Checks.Add(name+"slowest answer", "at most "+harborWaits.String(), s.slowest() <= harborWaits, "%s", s.slowest().Round(time.Millisecond))
	if of := ratio(first.Rate(), r.Loop.Rate()); run.Apart {
		r.Checks.Add(name+"accepted a second, to the synced publishes", fmt.Sprintf("at least %.1f", leastOfPublishes), of >= leastOfPublishes, "%.2f", of)
	}
}

func (r *SurgeRun) name() string {
	if r.Apart {
		return "unbounded"
	}
	return fmt.Sprintf("%d connections", r.AtOnce)
}

// Missed says whether a target was missed.
func (r *SurgeResult) Missed() bool { return r.Checks.Missed() }

// Print writes the table.
func (r *SurgeResult) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "surge\twebhooks\ttry\tsent\taccepted\t503 and Retry-After\tother answers\taccepted/s\tp50 / p99 / max\tof accepted\t")
	for _, run := range []*SurgeRun{r.Bounded, r.Unbounded} {
		for _, s := range run.Surges {
			for i, try := range s.Tries {
				_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%.0f\t%s\t%s\t\n", run.name(), s.Webhooks, i+1, try.Sent, try.Accepted, try.Retryable,
					try.Others(), try.Rate(), try.All, try.Acceptance)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	_, _ = fmt.Fprintln(out) // the next write tells
	_, _ = fmt.Fprintln(w, "surge\tleft to the sweep\tdigests\tunsigned\tdead\tall signed after\tsigned/s\tpeak RSS of receiver, MiB\tof signer, MiB\t")
	for _, run := range []*SurgeRun{r.Bounded, r.Unbounded} {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%.0f\t%.0f\t%.0f\t\n", run.name(), run.Left, run.Digests, run.Unsigned, run.Dead,
			run.Signing.Round(time.Second/10), float64(run.Digests)/max(run.Signing.Seconds(), 1e-9), mebibytes(run.PeakReceiver), mebibytes(run.PeakSigner))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	if _, err := fmt.Fprintf(out, "The bare loop publishes for %.0f webhooks a second, %d at once: two synced publishes each. Without bound, at most %d connections\n"+
		"are open at once. What is refused is sent again after %s, three times in all. The signer starts when all was sent.\n%s",
		r.Loop.Rate(), publishedAtOnce, unboundedAtOnce, triesApart, r.broken()); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	return r.Checks.Print(out)
}

// broken names the answers that were neither 202 nor a refusal.
func (r *SurgeResult) broken() string {
	sum := map[string]int{}
	for _, run := range []*SurgeRun{r.Bounded, r.Unbounded} {
		for _, s := range run.Surges {
			for _, try := range s.Tries {
				for what, n := range try.Broken {
					sum[what] += n
				}
			}
		}
	}
	if len(sum) == 0 {
		return ""
	}
	named := make([]string, 0, len(sum))
	for _, what := range slices.Sorted(maps.Keys(sum)) {
		named = append(named, fmt.Sprintf("%s %d", what, sum[what]))
	}
	return "Other answers: " + strings.Join(named, ", ") + ".\n"
}
