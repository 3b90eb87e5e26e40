package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// project is what the API tells a compliance admin of a project.
type project struct {
	Enabled bool `json:"enabled"`
	Webhook struct {
		OK bool `json:"ok"`
	} `json:"webhook"`
	Problems []struct {
		Reason string `json:"reason"`
	} `json:"problems"`
	Coverage coverage `json:"coverage"`
}

// coverage is how far a project is signed, in digests.
type coverage struct {
	Population       int        `json:"population"`
	Signed           int        `json:"signed"`
	Pending          int        `json:"pending"`
	Failed           int        `json:"failed"`
	Excluded         int        `json:"excluded"`
	Blocked          int        `json:"blocked"`
	Unsigned         int        `json:"unsigned"`
	OldestUnsignedAt *time.Time `json:"oldest_unsigned_at"`
	LastSweep        *struct {
		FinishedAt  time.Time `json:"finished_at"`
		Population  int       `json:"population"`
		HarborCount int       `json:"harbor_count"`
		Signed      int       `json:"signed"`
		Requested   int       `json:"requested"`
		Removed     int       `json:"removed"`
		Requests    int       `json:"requests"`
	} `json:"last_sweep"`
}

// call asks the receiver's API as Harbor's admin, and wants one of two statuses.
func (d *demo) call(ctx context.Context, method, path string, body any, statuses [2]int) (harness.Answer, error) {
	answer, err := d.system.Call(ctx, d.harbor.Admin(), method, "/api/v1/projects/"+path, body, nil)
	if err == nil && answer.Status != statuses[0] && answer.Status != statuses[1] {
		err = fmt.Errorf("%s %s: the answer is %d, want %d: %.1000s", method, path, answer.Status, statuses[0], answer.Body)
	}
	return answer, err
}

// enable pushes an image, and enables its project with the one call that it takes: the image of before is signed, too.
func (d *demo) enable(ctx context.Context) error {
	d.printer.step("enabling the project, with one call by Harbor's admin")
	before, err := harness.NewImage(false)
	one, err := d.push(ctx, "image of before", "demo/before", "v1", before, err)
	if err != nil {
		return err
	}
	one.silent = true
	d.printer.item(`PUT /api/v1/projects/%s {"mode": "sign", "backfill": "all"}`, enabledProject)
	policy := map[string]string{"mode": "sign", "backfill": "all"}
	answer, err := d.call(ctx, http.MethodPut, enabledProject, policy, [2]int{http.StatusCreated, http.StatusOK})
	if err != nil {
		return err
	}
	var state project
	if err := answer.Decode(&state); err != nil {
		return err
	}
	if !state.Enabled || !state.Webhook.OK {
		return fmt.Errorf("the project is not enabled, or has no webhook: %s", answer.Body)
	}
	d.printer.item("Harbor has its webhook; what was there is signed by a sweep")
	return d.awaitSigned(ctx)
}

// coverage asks for how far the project is signed.
func (d *demo) coverage(ctx context.Context) (project, error) {
	answer, err := d.call(ctx, http.MethodGet, enabledProject, nil, [2]int{http.StatusOK})
	var state project
	if err == nil {
		err = answer.Decode(&state)
	}
	return state, err
}

// sweep asks for a full sweep of the project, and waits for its end.
func (d *demo) sweep(ctx context.Context) error {
	before, err := d.coverage(ctx)
	if err != nil {
		return err
	}
	if before.Coverage.LastSweep == nil {
		return errors.New("the project was never swept")
	}
	if _, err := d.call(ctx, http.MethodPost, enabledProject+"/sweep", nil, [2]int{http.StatusAccepted}); err != nil {
		return err
	}
	return harness.Until(ctx, waitLimit, func(ctx context.Context) error {
		now, err := d.coverage(ctx)
		if err == nil && !now.Coverage.LastSweep.FinishedAt.After(before.Coverage.LastSweep.FinishedAt) {
			err = errors.New("the sweep has not ended")
		}
		return err
	})
}

// removeSignature deletes the signatures of an image in Harbor. A full sweep sees that they are gone, and they are made again.
func (d *demo) removeSignature(ctx context.Context) error {
	d.printer.step("removing a signature by hand; the full sweep, asked for here and else once a day, restores it")
	victim := d.images[0]
	rows, err := d.system.Report().Rows(ctx, nil)
	if err != nil {
		return err
	}
	row := rowOf(rows, victim.pushed)
	if len(row.Signatures) == 0 {
		return errors.New("the report names no signature that could be removed")
	}
	for _, s := range row.Signatures {
		d.printer.item("delete the %s signature of the %s", s.Format, victim.label)
		if err := d.harbor.DeleteArtifact(ctx, victim.pushed.Repository, s.Digest); err != nil {
			return err
		}
	}
	judge, err := d.system.Checker(ctx)
	if err != nil {
		return err
	}
	violations, err := judge.NotSigned(ctx, victim.pushed.Repository, victim.pushed.Digest)
	if err == nil && len(violations) > 0 {
		err = fmt.Errorf("the signature is still there: %s", violations[0])
	}
	if err != nil {
		return err
	}
	victim.restored = true
	if err := d.sweep(ctx); err != nil {
		return err
	}
	now, err := d.coverage(ctx)
	if err == nil && now.Coverage.LastSweep.Removed != len(row.Signatures) {
		err = fmt.Errorf("the sweep found that %d signatures were removed, want %d", now.Coverage.LastSweep.Removed, len(row.Signatures))
	}
	if err != nil {
		return err
	}
	return harness.Until(ctx, waitLimit, func(ctx context.Context) error {
		_, violations, err := judge.Signed(ctx, victim.pushed.Repository, victim.pushed.Digest)
		if err == nil && len(violations) > 0 {
			err = fmt.Errorf("the signature is not restored: %s", violations[0])
		}
		return err
	})
}

// verifyCoverage holds what the compliance admin sees against what was pushed.
func (d *demo) verifyCoverage(ctx context.Context, r *result, pushed int) error {
	seen, err := d.coverage(ctx)
	if err != nil {
		return err
	}
	r.Coverage = seen.Coverage
	c := seen.Coverage
	if c.Population != pushed || c.Signed != pushed || c.Pending+c.Failed+c.Excluded+c.Blocked+c.Unsigned != 0 || c.OldestUnsignedAt != nil {
		r.Violations = append(r.Violations, fmt.Sprintf("the coverage is %+v, want all %d digests signed", c, pushed))
	}
	if s := c.LastSweep; s == nil || s.Population != pushed || s.HarborCount != pushed || s.Signed != pushed {
		r.Violations = append(r.Violations, fmt.Sprintf("the last sweep found %+v, want all %d digests signed, and as many in Harbor", s, pushed))
	}
	if !seen.Enabled || !seen.Webhook.OK || len(seen.Problems) > 0 {
		r.Violations = append(r.Violations, fmt.Sprintf("the project is not well: %+v", seen))
	}
	return nil
}
