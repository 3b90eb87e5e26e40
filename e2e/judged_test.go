//go:build e2e

package e2e_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// The rules of a run in which things are broken find nothing where nothing was broken: they read what the programs really
// write. With a journal that tells less than was done, they do.
func TestRulesOfACalmRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	began := time.Now()
	w.pushImage(t, "app", "v1")
	index, err := harness.NewIndex("linux/amd64")
	w.push(t, "team/app", "v1", index, err)
	w.awaitAll(t)
	w.idle(t)

	ledger, err := w.OpenLedger()
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	var exported bytes.Buffer
	if err := ledger.Export(ctx, &exported); err != nil {
		t.Fatal(err)
	}
	events, err := checker.ReadLedger(&exported)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := w.Report().Rows(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	formats := checker.Formats()
	if bundles, err := env.harbor.Bundles(ctx); err != nil || !bundles {
		formats = formats[:1]
	}
	journal := []checker.Step{{
		Kind: checker.StepPolicy, Began: began.Add(-time.Minute), Ended: began.Add(-time.Minute), Accepted: true,
		Project: w.project, Enabled: true, Formats: formats,
	}}
	for _, p := range w.pushed {
		journal = append(journal, checker.Step{
			Kind: checker.StepPush, Began: began, Ended: time.Now(), Accepted: true,
			Repository: p.Repository, Digest: p.Digest, Tag: p.Tag, Parent: p.Parent,
		})
	}
	run := checker.Chaos{
		Checkers: map[string]*checker.Checker{"image": w.checker}, Journal: journal, Ledger: events, Rows: rows,
	}
	found, err := run.Check(ctx)
	if err != nil {
		t.Fatal(err)
	}
	complain(t, found.Violations)
	if found.Pushes != len(w.pushed) || found.Signed != len(w.pushed) {
		t.Errorf("findings are %s, want %d pushes, all signed", found, len(w.pushed))
	}
	run.Journal = journal[:len(journal)-1]
	if found, err = run.Check(ctx); err != nil || found.Count(checker.Extra) == 0 {
		t.Errorf("without the last push, findings are %s, %v, want one signed though nobody pushed it", found, err)
	}
	run.Journal, run.Ledger = journal, slices.DeleteFunc(events, func(e checker.LedgerEvent) bool { return e.Kind == "signed" })
	if found, err = run.Check(ctx); err != nil || found.Count(checker.Mismatched) == 0 {
		t.Errorf("without signed events, findings are %s, %v, want mismatches", found, err)
	}
}
