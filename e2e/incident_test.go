//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

const (
	// onLog and onStamps are how the metrics call the log and the authority.
	onLog    = "log/rekor"
	onStamps = "timestamp_authority/tsa"
	// tolerable is by how much an image may be signed later while a log is away that its project can wait for.
	tolerable = time.Second
)

// long says whether the tests run in their long forms.
func long() bool { return os.Getenv("HARBORSEAL_E2E_FULL") != "" }

// The incident, played again: the name of the private log stops resolving while images are pushed. Projects that can wait for
// their entries notice nothing, and those that cannot, wait. The outage is seen, recorded, and what it left behind is made up
// for without a hand.
func TestIncident(t *testing.T) {
	for _, logType := range []string{"rekor-v1", "rekor-v2"} {
		t.Run(logType, func(t *testing.T) {
			if logType == "rekor-v2" {
				full(t)
			}
			testIncident(t, logType)
		})
	}
}

func testIncident(t *testing.T, logType string) {
	t.Helper()
	interval, quiet, away, pace := 5*time.Second, 4*time.Second, 14*time.Second, 400*time.Millisecond
	if long() {
		// As it is by default, and 30 s are what is promised.
		interval, quiet, away = 15*time.Second, 20*time.Second, 60*time.Second
	}
	m := newMixed(t, logType, 2, probing(interval))
	m.awaitUp(t, onLog)

	before := m.push(t, "before", quiet, pace)
	m.settle(t, before)
	m.judgeMixed(t, before)

	load := m.load(t, "during", pace)
	m.lull(t, time.Second)
	gone := time.Now()
	m.vanish(t)
	seen := m.awaitDown(t, onLog, "dns", gone, interval)
	t.Logf("the name's end was seen after %s", seen.Round(10*time.Millisecond))
	m.awaitDebtGrows(t)
	m.lull(t, time.Until(gone.Add(away)))
	during := load.end()
	late := slices.DeleteFunc(slices.Clone(during), func(p timed) bool { return p.begun.Before(gone) })
	if len(late) < 3*len(m.projects) {
		t.Fatalf("%d images were pushed after the name had gone, want more", len(late))
	}
	m.awaitAway(t, during, late)
	m.noSlower(t, before, during, tolerable, m.deferred, m.off)

	back := time.Now()
	m.proofs.dns.Set(logName, netip.MustParseAddr("127.0.0.1"))
	m.settle(t, during)
	t.Logf("all was made up for %s after the name was back", time.Since(back).Round(10*time.Millisecond))
	m.judgeMixed(t, append(before, during...))
	m.verify(t, late)
	m.awaitOutage(t, onLog, "dns", gone, back, interval)
	m.noneDead(t)
}

// verify runs both cosign programs with what the signer tells verifiers to trust: without an entry, none would be content.
func (m *mixed) verify(t *testing.T, pushed []timed) {
	t.Helper()
	dir := filepath.Join(m.dir, "trust")
	if _, err := m.signerSays(t, "trust-root", "--output-dir", dir); err != nil {
		t.Fatal(err)
	}
	args := []string{"verify", "--key", filepath.Join(dir, "image.pub"), "--trusted-root", filepath.Join(dir, "trusted_root.json")}
	for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
		cosign := m.client(t, variable)
		logged := slices.Clone(args)
		for _, p := range of(pushed, m.deferred, m.required) {
			logged = append(logged, m.image(p.Pushed))
		}
		if _, err := cosign.Run(t.Context(), logged...); err != nil {
			t.Error(err)
		}
		// One that has no entry shows that they look for it.
		if out, err := cosign.Run(t.Context(), append(slices.Clone(args), m.image(of(pushed, m.off)[0].Pushed))...); err == nil {
			t.Errorf("%s is content with an image that was never logged:\n%s", variable, out)
		}
	}
}

// awaitUp waits until a probe has found that a dependency answers.
func (w *world) awaitUp(t *testing.T, dependency string) {
	t.Helper()
	w.awaitCount(t, 1, "harborseal_dependency_up", `dependency="`+dependency+`"`)
}

// awaitDown waits until the metrics of the signer say that a dependency is away, and why, and gives how long that took: a probe
// may have begun just before, and may take all the time that it has.
func (w *world) awaitDown(t *testing.T, dependency, cause string, since time.Time, interval time.Duration) time.Duration {
	t.Helper()
	const probe, scrape = 10 * time.Second, 5 * time.Second
	label := `dependency="` + dependency + `"`
	err := harness.Until(t.Context(), time.Until(since.Add(interval+probe+scrape)), func(ctx context.Context) error {
		metrics, err := w.Metrics(ctx, w.Signers[0])
		if err != nil {
			return err
		}
		up := metrics.Sum("harborseal_dependency_up", label)
		failures := metrics.Sum("harborseal_dependency_failures_total", label, `cause="`+cause+`"`)
		if up != 0 || failures < 1 {
			return fmt.Errorf("the metrics say %v for %s up, and %v failures by %s", up, dependency, failures, cause)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, w.failuresOf(t, dependency), w.Tails())
	}
	return time.Since(since)
}

// failuresOf tells what was counted against a dependency.
func (w *world) failuresOf(t *testing.T, dependency string) string {
	t.Helper()
	metrics, err := w.Metrics(t.Context(), w.Signers[0])
	if err != nil {
		return err.Error()
	}
	var all strings.Builder
	for sample, value := range metrics {
		if strings.HasPrefix(sample, "harborseal_dependency_failures_total") && strings.Contains(sample, dependency) && value > 0 {
			fmt.Fprintln(&all, sample, value)
		}
	}
	return all.String()
}

// awaitDebtGrows waits until the debt shows everywhere, and grows.
func (m *mixed) awaitDebtGrows(t *testing.T) {
	t.Helper()
	first := 0
	owed := func(ctx context.Context, least int) error {
		rows, err := m.Report().Rows(ctx, url.Values{"limit": {"500"}, "log_owed": {"true"}})
		if err == nil && len(rows) < least {
			err = fmt.Errorf("the report has %d rows that owe an entry, want %d", len(rows), least)
		}
		first = max(first, len(rows))
		return err
	}
	m.until(t, func(ctx context.Context) error { return owed(ctx, 1) })
	more := first + 2
	m.until(t, func(ctx context.Context) error { return owed(ctx, more) })
	m.until(t, func(ctx context.Context) error {
		metrics, err := m.anywhere(ctx)
		if err != nil {
			return err
		}
		for _, kind := range []string{"harborseal_log_debt", "harborseal_report_log_debt"} {
			debt, oldest := metrics.Sum(kind), metrics.Sum(kind+"_oldest_timestamp_seconds")
			if debt < 1 || oldest == 0 || oldest > float64(time.Now().Unix()+1) {
				return fmt.Errorf("%s tells of %v debts, the oldest at %v", kind, debt, oldest)
			}
		}
		return nil
	})
	var listed struct {
		Items []debtor `json:"items"`
	}
	m.answered(t.Context(), t, "/api/v1/projects", &listed)
	for _, project := range m.projects {
		at := slices.IndexFunc(listed.Items, func(d debtor) bool { return d.Project == project })
		if at < 0 {
			t.Errorf("%s is not in the list of projects", project)
			continue
		}
		c, owes := listed.Items[at].Coverage, slices.Contains(m.deferred, project)
		if (c.LogDebt > 0) != owes || (c.OldestLogDebtAt != nil) != owes {
			t.Errorf("the coverage of %s is %+v, want a debt: %v", project, c, owes)
		}
	}
}

// debtor is a project in the list, as far as it is about its debt.
type debtor struct {
	Project  string `json:"project"`
	Coverage struct {
		LogDebt         int        `json:"log_debt"`
		OldestLogDebtAt *time.Time `json:"oldest_log_debt_at"`
	} `json:"coverage"`
}

// anywhere gives the highest value that any program has for each sample, as alerts look at them.
func (w *world) anywhere(ctx context.Context) (harness.Metrics, error) {
	all := make(harness.Metrics)
	for _, p := range append([]*harness.Program{w.Receiver}, w.Signers...) {
		metrics, err := w.Metrics(ctx, p)
		if err != nil {
			return nil, err
		}
		for sample, value := range metrics {
			if known, found := all[sample]; !found || value > known {
				all[sample] = value
			}
		}
	}
	return all, nil
}

// answered asks the receiver's API with the token that opens the report.
func (w *world) answered(ctx context.Context, t *testing.T, path string, into any) {
	t.Helper()
	answer, err := w.Call(ctx, harness.Credentials{Token: w.Token}, http.MethodGet, path, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != http.StatusOK {
		t.Fatalf("%s: the answer is %d %.300s, want 200", path, answer.Status, answer.Body)
	}
	if err := answer.Decode(into); err != nil {
		t.Fatal(err)
	}
}

// outage is a row of what the programs could not reach.
type outage struct {
	Dependency string     `json:"dependency"`
	Program    string     `json:"program"`
	StartedAt  time.Time  `json:"started_at"`
	DetectedAt time.Time  `json:"detected_at"`
	EndedAt    *time.Time `json:"ended_at"`
	Cause      string     `json:"cause"`
	Detail     string     `json:"detail"`
	Waiting    uint64     `json:"waiting"`
	Deferred   uint64     `json:"deferred"`
}

// awaitOutage waits until the record of the one outage of a dependency has its end, and judges it.
func (m *mixed) awaitOutage(t *testing.T, dependency, cause string, gone, back time.Time, interval time.Duration) {
	t.Helper()
	var got outage
	// Two answers in a row end it.
	if err := harness.Until(t.Context(), 3*interval+env.patience, func(ctx context.Context) error {
		var page struct {
			Items []outage `json:"items"`
		}
		m.answered(ctx, t, "/api/v1/outages?dependency="+url.QueryEscape(dependency), &page)
		if len(page.Items) != 1 || page.Items[0].EndedAt == nil {
			return fmt.Errorf("the outages are %+v, want one that has ended", page.Items)
		}
		got = page.Items[0]
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	// What answered last may have done so one interval before; times in the ledger are of microseconds.
	const grain = 10 * time.Millisecond
	switch {
	case got.Dependency != dependency || got.Program != "signer" || got.Cause != cause || got.Detail == "":
		t.Errorf("the outage is %+v, want one of %s, seen by the signer, with the cause %s and a detail", got, dependency, cause)
	case got.StartedAt.After(gone.Add(time.Second)) || got.StartedAt.Before(gone.Add(-interval-10*time.Second)):
		t.Errorf("the outage began at %s, want the last answer before %s", got.StartedAt, gone)
	case got.DetectedAt.Before(gone.Add(-grain)) || got.DetectedAt.After(gone.Add(30*time.Second)):
		t.Errorf("the outage was detected at %s, want it within 30 s of %s", got.DetectedAt, gone)
	case got.EndedAt.Before(back.Add(-grain)) || got.EndedAt.After(time.Now()):
		t.Errorf("the outage ended at %s, want a time after %s", got.EndedAt, back)
	}
	if dependency == onLog && got.Deferred == 0 || got.Waiting == 0 {
		t.Errorf("the outage has %d entries that were deferred and %d images that waited, want some of both", got.Deferred, got.Waiting)
	}
}
