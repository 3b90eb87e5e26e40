//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// mixed is a stage whose projects ask for different things of one log.
type mixed struct {
	*stage
	proofs *proofs
	// deferred can wait for entries, required cannot, and off want none.
	deferred, required, off []string
}

// timed is an image, and when its push began.
type timed struct {
	harness.Pushed
	begun time.Time
}

// newMixed starts a system with so many projects that defer their entries, as many that require them, and one without.
func newMixed(t *testing.T, logType string, each int, options ...option) *mixed {
	t.Helper()
	m := &mixed{proofs: newProofs(t, logType)}
	m.stage = newStage(t, ownHarbor(t), 2*each+1, func(projects []string) option {
		m.deferred, m.required, m.off = projects[:each], projects[each:2*each], projects[2*each:]
		return func(o *harness.Options) {
			m.proofs.asked("off", "optional")(o)
			for transparency, some := range map[string][]string{"deferred": m.deferred, "required": m.required, "off": m.off} {
				o.Policies = append(o.Policies, harness.Config{"projects": some, "backfill": "all", "transparency": transparency, "log": "rekor"})
			}
			for _, change := range options {
				change(o)
			}
		}
	})
	return m
}

// probing lets the signers probe what they depend on at an interval.
func probing(interval time.Duration) option {
	return func(o *harness.Options) {
		edit(o, func(c harness.Config) { harness.Set(c, interval.String(), "probe", "interval") })
	}
}

// load is what pushes while something else happens.
type load struct {
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	pushed []timed // guarded by mu
}

// load pushes into all projects at the same time, one image after the other in each, until it is ended.
func (m *mixed) load(t *testing.T, repository string, pace time.Duration) *load {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &load{stop: stop}
	t.Cleanup(func() { l.end() })
	for _, project := range m.projects {
		l.running.Go(func() {
			ticker := time.NewTicker(pace)
			defer ticker.Stop()
			for n := 0; ctx.Err() == nil; n++ {
				begun := time.Now()
				p, err := m.pushOne(context.WithoutCancel(ctx), project+"/"+repository, fmt.Sprintf("n%d", n))
				if err != nil {
					t.Errorf("pushing under load: %v", err)
					return
				}
				l.mu.Lock()
				l.pushed = append(l.pushed, timed{p, begun})
				l.mu.Unlock()
				select {
				case <-ctx.Done():
				case <-ticker.C:
				}
			}
		})
	}
	return l
}

// end ends it, and gives what was pushed.
func (l *load) end() []timed {
	l.stop()
	l.running.Wait()
	return l.pushed
}

func (m *mixed) pushOne(ctx context.Context, repository, tag string) (harness.Pushed, error) {
	img, err := harness.NewImage(false)
	if err != nil {
		return harness.Pushed{}, err
	}
	return m.developer.Push(ctx, repository, tag, img)
}

// push is load for some time.
func (m *mixed) push(t *testing.T, repository string, during, pace time.Duration) []timed {
	t.Helper()
	l := m.load(t, repository, pace)
	m.lull(t, during)
	return l.end()
}

// lull lets time pass, because something is to last.
func (w *world) lull(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	case <-time.After(d):
	}
}

// vanish lets the log's name resolve no more, also for those who are connected.
func (m *mixed) vanish(t *testing.T) {
	t.Helper()
	m.proofs.dns.Remove(logName)
	m.trouble(t, harness.Trouble{})
}

// trouble causes trouble wherever the log is asked; the zero value ends it. Connections that are open break.
func (m *mixed) trouble(t *testing.T, trouble harness.Trouble) {
	t.Helper()
	for _, front := range []*harness.Front{m.proofs.log, m.proofs.tiles} {
		if front == nil {
			continue
		}
		if err := front.Cause(t.Context(), trouble); err != nil {
			t.Fatal(err)
		}
	}
}

// of keeps what was pushed into some projects.
func of(pushed []timed, projects ...[]string) []timed {
	return slices.DeleteFunc(slices.Clone(pushed), func(p timed) bool {
		project, _, _ := strings.Cut(p.Repository, "/")
		return !slices.ContainsFunc(projects, func(some []string) bool { return slices.Contains(some, project) })
	})
}

// rows gives the report's rows of what was pushed; an error if one is missing.
func (m *mixed) rows(ctx context.Context, pushed []timed) ([]checker.Row, error) {
	all, err := m.Report().Rows(ctx, url.Values{"limit": {"500"}})
	if err != nil {
		return nil, err
	}
	byName := make(map[string]checker.Row, len(all))
	for _, row := range all {
		byName[row.Repository+"@"+row.Digest] = row
	}
	rows := make([]checker.Row, 0, len(pushed))
	for _, p := range pushed {
		row, found := byName[p.Repository+"@"+p.Digest]
		if !found {
			return nil, fmt.Errorf("%s@%s is not in the report", p.Repository, p.Digest)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// awaitRows waits until all rows of what was pushed are as wanted.
func (m *mixed) awaitRows(t *testing.T, pushed []timed, wanted func(checker.Row) bool) []checker.Row {
	t.Helper()
	var rows []checker.Row
	m.until(t, func(ctx context.Context) error {
		var err error
		if rows, err = m.rows(ctx, pushed); err != nil {
			return err
		}
		missing, last := 0, checker.Row{}
		for _, row := range rows {
			if !wanted(row) {
				missing++
				last = row
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d rows are not as they should be, such as %+v", missing, len(rows), last)
		}
		return nil
	})
	return rows
}

// settle waits until everything is signed, and nothing is owed.
func (m *mixed) settle(t *testing.T, pushed []timed) {
	t.Helper()
	m.awaitRows(t, of(pushed, m.deferred, m.required), func(r checker.Row) bool { return r.State == "signed" && r.LogState == "logged" })
	m.awaitRows(t, of(pushed, m.off), func(r checker.Row) bool { return r.State == "signed" && r.LogState == "" })
	m.settled(t)
}

// awaitAway waits, while the log is away, until all is signed that can be, and judges the rest: what was pushed late.
func (m *mixed) awaitAway(t *testing.T, during, late []timed) {
	t.Helper()
	m.awaitRows(t, of(during, m.deferred, m.off), func(r checker.Row) bool { return r.State == "signed" })
	m.awaitRows(t, of(late, m.deferred), func(r checker.Row) bool {
		return r.LogState == "owed" && len(r.LogOwed) > 0 && r.LogOwedSince != nil
	})
	// All of them were reported before they are judged.
	for _, row := range m.awaitRows(t, of(late, m.required), func(r checker.Row) bool { return r.ReceivedAt != nil }) {
		if row.State == "signed" || row.State == "dead" || row.SignedAt != nil {
			t.Errorf("%s@%s is %s while the log is away, want it to wait", row.Repository, row.Digest, row.State)
		}
	}
	m.unsigned(t, of(late, m.required))
	m.unloggedLegacy(t, of(late, m.deferred))
}

// unsigned judges from the outside that nothing stands beside images.
func (m *mixed) unsigned(t *testing.T, pushed []timed) {
	t.Helper()
	for _, p := range pushed {
		found, err := m.checker.Look(t.Context(), p.Repository, p.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if found.Tagged != "" || len(found.Signatures) > 0 || len(found.Accessories) > 0 {
			t.Errorf("%s@%s has a signature, want none without an entry: %+v", p.Repository, p.Digest, found)
		}
	}
}

// unloggedLegacy judges from the outside that images have their legacy signature and no bundle, which would stand unlogged.
func (m *mixed) unloggedLegacy(t *testing.T, pushed []timed) {
	t.Helper()
	legacy, err := m.CheckerOf(m.Keys.Public, checker.Legacy)
	if err == nil {
		legacy, err = legacy.Trusting(m.proofs.trust(t), checker.Asked{})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pushed {
		found, violations, err := legacy.Signed(t.Context(), p.Repository, p.Digest)
		if err != nil {
			t.Fatal(err)
		}
		complain(t, violations)
		if len(found.Accessories) != 1 {
			t.Errorf("%s@%s has the accessories %v, want its legacy signature alone", p.Repository, p.Digest, found.Accessories)
		}
	}
}

// slowest gives for each project how long the slowest of its images took, from the webhook to the signature.
func (m *mixed) slowest(t *testing.T, pushed []timed) map[string]time.Duration {
	t.Helper()
	rows, err := m.rows(t.Context(), pushed)
	if err != nil {
		t.Fatal(err)
	}
	slowest := make(map[string]time.Duration)
	for _, row := range rows {
		if row.ReceivedAt == nil || row.SignedAt == nil {
			t.Fatalf("%s@%s was received at %v and signed at %v, want both", row.Repository, row.Digest, row.ReceivedAt, row.SignedAt)
		}
		slowest[row.Project] = max(slowest[row.Project], row.SignedAt.Sub(*row.ReceivedAt))
	}
	return slowest
}

// noSlower compares how long images took whose projects need not wait for what is away.
func (m *mixed) noSlower(t *testing.T, before, during []timed, by time.Duration, projects ...[]string) {
	t.Helper()
	was, is := m.slowest(t, of(before, projects...)), m.slowest(t, of(during, projects...))
	for _, project := range slices.Concat(projects...) {
		t.Logf("the slowest image of %s took %s before and %s during the outage", project, was[project], is[project])
		if was[project] == 0 || is[project] == 0 {
			t.Errorf("of %s there is nothing to compare", project)
		}
		if is[project] > was[project]+by {
			t.Errorf("the slowest image of %s took %s, and %s before: want at most %s more", project, is[project], was[project], by)
		}
	}
}

// judgeMixed judges everything from the outside: signed once, with entries that count where they were asked for, each its own.
func (m *mixed) judgeMixed(t *testing.T, pushed []timed) {
	t.Helper()
	ctx := t.Context()
	logged, plain := m.trusting(t, true), m.trusting(t, false)
	var facts []checker.Fact
	for _, p := range pushed {
		judge := plain
		if len(of([]timed{p}, m.off)) == 0 {
			judge = logged
		}
		evidence, violations, err := judge.Signed(ctx, p.Repository, p.Digest)
		if err != nil {
			t.Fatal(err)
		}
		complain(t, violations)
		facts = append(facts, checker.Fact{Repository: p.Repository, Digest: p.Digest, Evidence: evidence})
	}
	rows, err := m.rows(ctx, pushed)
	if err != nil {
		t.Fatal(err)
	}
	violations, err := plain.Compare(facts, rows)
	if err != nil {
		t.Fatal(err)
	}
	complain(t, violations)
	entries := make(map[string]string)
	for _, row := range rows {
		for _, s := range row.Signatures {
			if s.Log == "" {
				continue
			}
			entry := fmt.Sprint(s.Log, " ", s.LogIndex)
			if other, taken := entries[entry]; taken {
				t.Errorf("%s and %s have the same entry %s", s.Digest, other, entry)
			}
			entries[entry] = s.Digest
		}
	}
}

// trusting gives a checker that believes the log, and asks for its entries or not.
func (m *mixed) trusting(t *testing.T, asked bool) *checker.Checker {
	t.Helper()
	c, err := m.checker.Trusting(m.proofs.trust(t), checker.Asked{Log: asked})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// noneDead judges that nothing was given up.
func (w *world) noneDead(t *testing.T) {
	t.Helper()
	ledger, err := w.OpenLedger()
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	dead, err := ledger.Events(t.Context(), "dead")
	if err == nil && len(dead) > 0 {
		err = errors.New("requests were given up")
	}
	if err != nil {
		t.Errorf("%v: %+v", err, dead)
	}
	metrics, err := w.anywhere(t.Context())
	if n, measured := metrics["harborseal_dead_letters"]; err != nil || n != 0 || !measured {
		t.Errorf("the metrics tell of %v dead letters (measured: %v, %v), want none", n, measured, err)
	}
}
