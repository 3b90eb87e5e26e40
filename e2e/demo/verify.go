package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// line is one digest in the result.
type line struct {
	Image      string `json:"image"`
	Repository string `json:"repository"`
	Digest     string `json:"digest"`
	Parent     string `json:"parent,omitempty"`
	State      string `json:"state"`
	Wanted     string `json:"wanted"`
	// Formats are those in which the checker found our signature.
	Formats []checker.Format `json:"formats"`
	// Seconds is the time from the receipt of the webhook to the verified signature; nil where there was no webhook, or
	// where the signature was Early: there before its webhook.
	Seconds *float64 `json:"seconds_to_signed"`
	Early   bool     `json:"before_webhook"`
	// Attempts is how often the request was delivered.
	Attempts int `json:"attempts"`
	// Checker and Cosign say whether each found exactly what is wanted, in each format.
	Checker bool `json:"checker"`
	Cosign  bool `json:"cosign"`
	// Restored says that the signature was removed and made again.
	Restored bool `json:"restored"`
	held     bool
}

// result is the outcome of the demonstration.
type result struct {
	Lines      []line   `json:"images"`
	Violations []string `json:"violations"`
	// P50 and P99 are over the pushes that no killed signer held, in seconds.
	P50 float64 `json:"p50_seconds"`
	P99 float64 `json:"p99_seconds"`
	// HeldWorst is the longest time of those that the killed signer may have held.
	HeldWorst float64 `json:"held_worst_seconds"`
	// Coverage is what the API says of the project.
	Coverage coverage `json:"coverage"`
	rows     []checker.Row
}

// verify looks at everything from the outside.
func (d *demo) verify(ctx context.Context) (*result, error) {
	d.printer.step("verifying every digest, with the checker and with cosign")
	judge, err := d.system.Checker(ctx)
	if err != nil {
		return nil, err
	}
	r := &result{Violations: []string{}}
	if r.rows, err = d.system.Report().Rows(ctx, nil); err != nil {
		return nil, err
	}
	var facts []checker.Fact
	for _, one := range d.images {
		for i, p := range one.pushed.All() {
			fact, err := d.verifyOne(ctx, judge, r, one, p, i)
			if err != nil {
				return nil, err
			}
			if one.signed {
				facts = append(facts, fact)
			}
		}
	}
	if err := d.verifyRest(ctx, judge, r, facts); err != nil {
		return nil, err
	}
	r.summarize()
	return r, nil
}

func (d *demo) verifyOne(ctx context.Context, judge *checker.Checker, r *result, one *image, p harness.Pushed, at int) (checker.Fact, error) {
	row := rowOf(r.rows, p)
	l := line{
		Image: one.label, Repository: p.Repository, Digest: p.Digest, Parent: p.Parent, State: row.State, Wanted: "signed",
		Formats: []checker.Format{}, Attempts: row.Attempts, Restored: one.restored, held: one.held,
	}
	if at > 0 {
		l.Image = fmt.Sprintf("  child %d", at)
	}
	if !one.signed {
		return checker.Fact{}, d.verifyUnsigned(ctx, judge, r, l)
	}
	evidence, violations, err := judge.Signed(ctx, p.Repository, p.Digest)
	if err != nil {
		return checker.Fact{}, err
	}
	r.add(violations)
	l.Checker, l.Formats = len(violations) == 0, evidence.Formats()
	l.Cosign = true
	for _, format := range checker.Formats() {
		if err := d.cosignVerifies(ctx, p.Repository, p.Digest, format); err != nil {
			r.Violations = append(r.Violations, fmt.Sprintf("format %s: %v", format, err))
			l.Cosign = false
		}
	}
	switch {
	case row.SignedAt == nil || row.ReceivedAt == nil:
	case row.SignedAt.Before(*row.ReceivedAt):
		// The children of an index are signed with it, which can be before their own webhooks come.
		l.Early = true
	default:
		seconds := row.SignedAt.Sub(*row.ReceivedAt).Seconds()
		l.Seconds = &seconds
	}
	r.Lines = append(r.Lines, l)
	return checker.Fact{Repository: p.Repository, Digest: p.Digest, Evidence: evidence, Parent: p.Parent}, nil
}

// verifyUnsigned looks at what should not be signed. Cosign must refuse it: that it finds something to accept in the others
// is worth little if it accepts anything.
func (d *demo) verifyUnsigned(ctx context.Context, judge *checker.Checker, r *result, l line) error {
	violations, err := judge.NotSigned(ctx, l.Repository, l.Digest)
	if err != nil {
		return err
	}
	r.add(violations)
	l.State, l.Wanted = "signed", "not signed"
	if l.Checker = len(violations) == 0; l.Checker {
		l.State = l.Wanted
	}
	l.Cosign = true
	for _, format := range checker.Formats() {
		if d.cosignVerifies(ctx, l.Repository, l.Digest, format) == nil {
			r.Violations = append(r.Violations, fmt.Sprintf("cosign verifies what should not be signed, in the format %s: %s@%s", format, l.Repository, l.Digest))
			l.Cosign = false
		}
	}
	r.Lines = append(r.Lines, l)
	return nil
}

// cosignVerifies runs cosign v3, which looks at one format alone: bundles, or legacy signatures if it is told so.
func (d *demo) cosignVerifies(ctx context.Context, repository, digest string, format checker.Format) error {
	args := d.cosign.VerifyArgs(d.system.Keys.Public, d.harbor.Host+"/"+repository+"@"+digest)
	if format == checker.Legacy {
		args = append(args, harness.LegacyOnly)
	}
	_, err := d.cosign.Run(ctx, args...)
	return err
}

// verifyRest looks for what nobody expects: digests that Harbor has and nobody pushed, signatures on other things, rows
// that the registry does not bear out, and lost webhooks that came after all.
func (d *demo) verifyRest(ctx context.Context, judge *checker.Checker, r *result, facts []checker.Fact) error {
	var wanted, repositories []string
	for _, f := range facts {
		wanted = append(wanted, f.Digest)
		if !slices.Contains(repositories, f.Repository) {
			repositories = append(repositories, f.Repository)
		}
	}
	for _, repository := range append(repositories, "scratch/app") {
		violations, err := judge.Repository(ctx, repository, wanted)
		if err != nil {
			return err
		}
		r.add(violations)
	}
	population, err := d.harbor.Population(ctx, enabledProject)
	if err != nil {
		return err
	}
	for _, artifact := range population {
		if !slices.Contains(wanted, artifact.Digest) {
			r.Violations = append(r.Violations, "nobody looked at "+artifact.Repository+"@"+artifact.Digest)
		}
	}
	if len(population) != len(wanted) {
		r.Violations = append(r.Violations, fmt.Sprintf("Harbor lists %d digests, pushed were %d", len(population), len(wanted)))
	}
	violations, err := judge.Compare(facts, r.rows)
	if err != nil {
		return err
	}
	r.add(violations)
	for _, one := range d.images {
		if row := rowOf(r.rows, one.pushed); one.silent && row.ReceivedAt != nil {
			r.Violations = append(r.Violations, "a webhook came where none was to come: "+one.pushed.Digest)
		}
	}
	return d.verifyCoverage(ctx, r, len(wanted))
}

func (r *result) add(violations []checker.Violation) {
	for _, v := range violations {
		r.Violations = append(r.Violations, v.String())
	}
}

func (r *result) summarize() {
	var calm []float64
	for _, l := range r.Lines {
		switch {
		case l.Seconds == nil:
		case l.held:
			r.HeldWorst = max(r.HeldWorst, *l.Seconds)
		default:
			calm = append(calm, *l.Seconds)
		}
	}
	r.P50, r.P99 = percentile(calm, 50), percentile(calm, 99)
}

// percentile is the smallest value that at least so many percent do not exceed.
func percentile(values []float64, percent int) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)*percent+99)/100-1]
}

func rowOf(rows []checker.Row, p harness.Pushed) checker.Row {
	at := slices.IndexFunc(rows, func(r checker.Row) bool { return r.Repository == p.Repository && r.Digest == p.Digest })
	if at < 0 {
		return checker.Row{State: "not in the report"}
	}
	return rows[at]
}

func seconds(f float64) string {
	return time.Duration(f * float64(time.Second)).Round(time.Millisecond).String()
}
