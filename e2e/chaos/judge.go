package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/harborseal/harborseal/e2e/chaos/plan"
	"github.com/harborseal/harborseal/e2e/checker"
)

// judge reads everything that the system says and lets the checker compare it with the registry and with what was done.
func (w *world) judge(ctx context.Context, p *plan.Plan, stdout io.Writer) error {
	c := checker.Chaos{Parallel: 4, Progress: func(done, total int) {
		if done%200 == 0 || done == total {
			w.say("judged %d of %d", done, total)
		}
	}}
	var err error
	if c.Checkers, err = w.checkers(); err != nil {
		return err
	}
	if err = w.notices(ctx); err != nil {
		return err
	}
	if c.Journal, err = w.journal.steps(); err != nil {
		return err
	}
	if c.Ledger, err = w.events(ctx); err != nil {
		return err
	}
	if c.Letters, err = w.letters(ctx); err != nil {
		return err
	}
	if c.Rows, err = w.rows(ctx); err != nil {
		return err
	}
	found, err := c.Check(ctx)
	if err != nil {
		return err
	}
	for _, v := range found.Violations {
		w.say("VIOLATION %s", v)
	}
	missing := w.missing(ctx, &found)
	_, err = fmt.Fprintf(stdout, "chaos seed=%d duration=%s %s refused_when_full=%d\n", p.Seed, time.Duration(p.Duration), found, w.refused.Load())
	if len(found.Violations) > 0 {
		err = errors.Join(err, fmt.Errorf("%d violations, the first one: %s", len(found.Violations), found.Violations[0]))
	}
	if len(missing) > 0 {
		err = errors.Join(err, fmt.Errorf("these never happened: %s", strings.Join(missing, ", ")))
	}
	return err
}

// notices writes into the journal what Harbor says of its webhooks about what was pushed.
func (w *world) notices(ctx context.Context) error {
	steps, err := w.journal.steps()
	if err != nil {
		return err
	}
	pushed := make(map[string]bool)
	for _, s := range steps {
		if s.Kind == checker.StepPush {
			pushed[s.Repository+"@"+s.Digest] = true
		}
	}
	for _, p := range plan.Projects() {
		told, err := w.harbor.Notices(ctx, p.Name)
		if err != nil {
			return err
		}
		for _, d := range told {
			if pushed[d.Repository+"@"+d.Digest] {
				w.journal.write(checker.Step{
					Kind: checker.StepWebhook, Began: d.Began, Ended: d.Ended, Accepted: d.Delivered, Repository: d.Repository, Digest: d.Digest,
				})
			}
		}
	}
	return nil
}

// missing gives which kinds of trouble have never happened, or met nobody. Trouble that is no fault of a machine is
// counted with the faults.
func (w *world) missing(ctx context.Context, found *checker.Findings) []string {
	var missing []string
	want := func(kind string, n int) {
		if n == 0 {
			missing = append(missing, kind)
		}
	}
	for kind, step := range map[string]checker.StepKind{
		"policy_changed": checker.StepPolicy, "deleted": checker.StepDelete, "foreign_signature": checker.StepForeign,
	} {
		found.Faults[kind] = w.journal.count(step)
		want(kind, found.Faults[kind])
	}
	for _, kind := range plan.Kinds() {
		if kind == plan.DiskFull && len(w.nats.Volumes()) == 0 {
			continue
		}
		want(string(kind), found.Faults[string(kind)])
	}
	want("a webhook that was refused because the store was full", int(w.refused.Load()))
	stats, err := w.harbor.Stats(ctx)
	if err != nil {
		return append(missing, err.Error())
	}
	want("a webhook that was lost", stats.Webhooks.Lost)
	want("a webhook that was doubled", stats.Webhooks.Doubled)
	want("an answer of a broken registry", stats.FaultAnswers)
	want("half an answer", stats.CutAnswers)
	return missing
}

// events exports the ledger into the folder, and reads it.
func (w *world) events(ctx context.Context) ([]checker.LedgerEvent, error) {
	ledger, err := w.system.OpenLedger()
	if err != nil {
		return nil, err
	}
	defer ledger.Close()
	var all bytes.Buffer
	if err := ledger.Export(ctx, &all); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(w.dir, ledgerFile), all.Bytes(), 0o600); err != nil {
		return nil, fmt.Errorf("keeping the ledger: %w", err)
	}
	return checker.ReadLedger(&all)
}

// rows gives the report, which all receivers have to give alike.
func (w *world) rows(ctx context.Context) ([]checker.Row, error) {
	var first map[string]checker.Row
	var all []checker.Row
	for _, receiver := range w.system.Receivers {
		report := checker.Report{URL: "http://" + receiver.Listen, Token: w.system.Token}
		rows, err := report.Rows(ctx, url.Values{"limit": {"500"}})
		if err != nil {
			return nil, err
		}
		byName := make(map[string]checker.Row, len(rows))
		for _, r := range rows {
			byName[r.Repository+"@"+r.Digest] = r
		}
		if first == nil {
			first, all = byName, rows
		} else if !reflect.DeepEqual(first, byName) {
			return nil, fmt.Errorf("%s and %s give different reports", w.system.Receivers[0].Name, receiver.Name)
		}
	}
	return all, nil
}

// letters gives all dead letters.
func (w *world) letters(ctx context.Context) ([]checker.Letter, error) {
	var all []checker.Letter
	for after := ""; ; {
		answer, err := w.system.Call(ctx, w.harbor.Admin(), http.MethodGet, "/api/v1/dead-letters?limit=100"+after, nil, nil)
		if err != nil {
			return nil, err
		}
		if answer.Status != http.StatusOK {
			return nil, fmt.Errorf("asking for the dead letters: the answer is %d: %.300s", answer.Status, answer.Body)
		}
		var page struct {
			Items []struct {
				Repository string `json:"repository"`
				Digest     string `json:"digest"`
				Reason     string `json:"reason"`
			} `json:"items"`
			NextCursor string `json:"next_cursor"`
		}
		if err := json.Unmarshal(answer.Body, &page); err != nil {
			return nil, fmt.Errorf("reading the dead letters: %w", err)
		}
		for _, l := range page.Items {
			all = append(all, checker.Letter{Repository: l.Repository, Digest: l.Digest, Reason: l.Reason})
		}
		if page.NextCursor == "" {
			return all, nil
		}
		after = "&cursor=" + url.QueryEscape(page.NextCursor)
	}
}
