package reconcile_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/artifact/artifacttest"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/reconcile"
	"github.com/harborseal/harborseal/pkg/signing"
)

// live is a book with its bucket.
type live struct {
	*book.Book
	bucket book.Bucket
}

func (l live) Fresh(ctx context.Context, project string) (policy.Policy, error) {
	return l.Refresh(ctx, l.bucket, project)
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The adapters fit the ports.
var (
	_ reconcile.Harbor   = (*harbor.Client)(nil)
	_ reconcile.Queue    = (*queue.Client)(nil)
	_ reconcile.State    = (*queue.Client)(nil)
	_ reconcile.Asker    = (*queue.Client)(nil)
	_ reconcile.Policies = live{}
	_ reconcile.Verifier = (*signing.Review)(nil)
	_ reconcile.Memory   = (*reconcile.RemoteMemory)(nil)
)

// The keys of the world: signatures of the others count for nothing.
const (
	activeKey  = "active"
	retiredKey = "retired"
)

// world is Harbor, its registry, the queue, the state and the ledger in memory. A second reconciler sees the same world.
type world struct {
	mu         sync.Mutex
	projects   map[string]int64 // by name; the id
	population []artifact.Listed
	keys       map[string]string       // who made the signature manifest of a digest
	logged     map[string]string       // the log that has an entry of it
	stamped    time.Time               // of all signatures
	tags       map[artifact.Ref]string // where the signatures' tag is; the first listed one if it is missing here
	feed       []artifact.Pushed
	noFeed     bool
	pageSize   int

	ledger  ledgertest.Memory
	seq     uint64
	events  []artifact.Event
	waiting map[artifact.Ref]artifact.Request
	debts   map[artifact.Ref]artifact.Request
	dead    map[artifact.Ref]time.Time
	ticks   map[string][]int64 // accepted proposals, by kind and key
	saved   map[string]saved

	policies map[string]policy.Policy

	keySet                                               string
	requests                                             map[string]int // to Harbor, by what
	verified                                             int
	harborErr, memoryErr, queueErr, feedErr, artifactErr error
	owesErr                                              func() error
	debtErr                                              error
	recordErr                                            error
	recordTakes                                          time.Duration
	forgetsIDs                                           bool // the ledger stores what it was told before
	policyErr                                            map[string]error
	listErr                                              map[string]error
	verifyErr                                            func(artifact.Ref) error
	onPage                                               func(number int) error
	onKnown                                              func()
	onArtifact                                           func() // called after an answer
}

type saved struct {
	value    []byte
	revision uint64
}

func newWorld() *world {
	return &world{
		projects: map[string]int64{"demo": 7}, keys: map[string]string{}, logged: map[string]string{}, tags: map[artifact.Ref]string{}, pageSize: 2,
		waiting: map[artifact.Ref]artifact.Request{}, debts: map[artifact.Ref]artifact.Request{}, dead: map[artifact.Ref]time.Time{}, ticks: map[string][]int64{}, saved: map[string]saved{},
		policies: map[string]policy.Policy{"demo": {Project: "demo", Mode: policy.ModeSign, Manager: policy.ByAPI, Revision: "1"}},
		keySet:   "keys-1", requests: map[string]int{}, policyErr: map[string]error{}, listErr: map[string]error{},
	}
}

func (w *world) count(what string) error {
	w.requests[what]++
	return w.harborErr
}

func (w *world) AllProjects(context.Context) ([]artifact.Project, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.count("projects"); err != nil {
		return nil, err
	}
	var all []artifact.Project
	for _, name := range slices.Sorted(maps.Keys(w.projects)) {
		all = append(all, artifact.Project{ID: w.projects[name], Name: name})
	}
	return all, nil
}

func (w *world) Project(_ context.Context, name string) (artifact.Project, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.count("project"); err != nil {
		return artifact.Project{}, err
	}
	id, found := w.projects[name]
	if !found {
		return artifact.Project{}, fault.New(fault.Gone, fault.NotFound, errors.New("no such project"))
	}
	return artifact.Project{ID: id, Name: name}, nil
}

// rows gives what a project holds, oldest first.
func (w *world) rows(project string) []artifact.Listed {
	w.mu.Lock()
	defer w.mu.Unlock()
	var rows []artifact.Listed
	for _, l := range w.population {
		if l.Ref.Project() == project {
			rows = append(rows, l)
		}
	}
	slices.SortStableFunc(rows, func(a, b artifact.Listed) int { return a.PushedAt.Compare(b.PushedAt) })
	return rows
}

func (w *world) Population(ctx context.Context, project string, from artifact.Cursor, each func(context.Context, artifact.Page) error) error {
	rows := w.rows(project)
	total := len(rows)
	if len(from.Edge) > 0 {
		total = 0
		at := slices.IndexFunc(rows, func(l artifact.Listed) bool { return l.Ref == from.Edge[0] })
		rows = rows[at+1:]
	}
	for page := range slices.Chunk(rows, w.pageSize) {
		w.mu.Lock()
		err := cmp.Or(w.count("page"), w.listErr[project])
		number := w.requests["page"]
		w.mu.Unlock()
		if err == nil && w.onPage != nil {
			err = w.onPage(number)
		}
		if err != nil {
			return err
		}
		last := page[len(page)-1]
		next := artifact.Cursor{PushedAt: last.PushedAt, Edge: []artifact.Ref{last.Ref}}
		if err := each(ctx, artifact.Page{Manifests: page, Next: next, Total: total}); err != nil {
			return err
		}
		total = 0
	}
	return nil
}

func (w *world) PushedSince(ctx context.Context, project string, since time.Time, each func(context.Context, []artifact.Listed) error) error {
	w.mu.Lock()
	err := cmp.Or(w.count("since"), w.listErr[project])
	w.mu.Unlock()
	if err != nil {
		return err
	}
	rows := slices.DeleteFunc(w.rows(project), func(l artifact.Listed) bool { return l.PushedAt.Before(since) })
	if len(rows) == 0 {
		return nil
	}
	return each(ctx, rows)
}

func (w *world) Feed(ctx context.Context, since, until time.Time, each func(context.Context, []artifact.Pushed) error) (bool, error) {
	w.mu.Lock()
	err := cmp.Or(w.count("feed"), w.feedErr)
	available := !w.noFeed
	var page []artifact.Pushed
	for _, p := range w.feed {
		if available && !p.At.Before(since) && !p.At.After(until) {
			page = append(page, p)
		}
	}
	w.mu.Unlock()
	if err != nil || len(page) == 0 {
		return available, err
	}
	return available, each(ctx, page)
}

func (w *world) Artifact(_ context.Context, ref artifact.Ref) (artifact.Listed, error) {
	if w.onArtifact != nil {
		defer w.onArtifact()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := cmp.Or(w.count("artifact"), w.artifactErr); err != nil {
		return artifact.Listed{}, err
	}
	for _, l := range w.population {
		if l.Ref == ref {
			return l, nil
		}
	}
	return artifact.Listed{}, fault.New(fault.Gone, fault.NotFound, errors.New("no such artifact"))
}

func (w *world) System(context.Context) (artifact.SystemInfo, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return artifact.SystemInfo{Now: time.Now()}, w.count("system")
}

func (w *world) Enqueue(_ context.Context, r artifact.Request) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queueErr != nil {
		return false, w.queueErr
	}
	if _, err := artifact.EncodeRequest(r); err != nil {
		return false, err
	}
	if _, found := w.waiting[r.Ref]; found {
		return true, nil
	}
	w.waiting[r.Ref] = r
	return false, nil
}

func (w *world) EnqueueDebt(_ context.Context, r artifact.Request) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := cmp.Or(w.queueErr, w.debtErr); err != nil {
		return false, err
	}
	if _, err := artifact.EncodeRequest(r); err != nil {
		return false, err
	}
	if _, found := w.debts[r.Ref]; found {
		return true, nil
	}
	w.debts[r.Ref] = r
	return false, nil
}

func (w *world) Record(ctx context.Context, e artifact.Event) (uint64, error) {
	if w.recordTakes > 0 {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(w.recordTakes):
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := cmp.Or(w.queueErr, w.recordErr); err != nil {
		return 0, err
	}
	data, err := artifact.EncodeEvent(e)
	if err != nil {
		return 0, err
	}
	if err := artifacttest.CheckEvent(e); err != nil && e.ID != toldID(w.seq) {
		return 0, err
	}
	if e, err = artifact.DecodeEvent(data); err != nil {
		return 0, err
	}
	if !w.forgetsIDs && slices.ContainsFunc(w.events, func(other artifact.Event) bool { return other.ID == e.ID }) {
		return w.seq, nil
	}
	w.seq++
	w.events = append(w.events, e)
	return w.seq, w.ledger.Apply(ctx, ledger.Basis{}, []artifact.Entry{{Seq: w.seq, Event: e}})
}

func (w *world) DeadSince(_ context.Context, ref artifact.Ref) (time.Time, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	since, found := w.dead[ref]
	return since, found, w.queueErr
}

func (w *world) LedgerSeq(context.Context) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seq, w.queueErr
}

func (w *world) ClearDead(_ context.Context, ref artifact.Ref) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.dead, ref)
	return w.queueErr
}

func (w *world) Propose(_ context.Context, kind, key string, slot int64) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queueErr != nil {
		return false, w.queueErr
	}
	name := kind + " " + key
	if slices.Contains(w.ticks[name], slot) {
		return false, nil
	}
	w.ticks[name] = append(w.ticks[name], slot)
	return true, nil
}

// proposed gives the slots of a project's full sweeps that were accepted.
func (w *world) proposed(project string) []int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ticks["full "+project])
}

func (w *world) LoadState(_ context.Context, kind, key string) ([]byte, uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.saved[kind+" "+key]
	return s.value, s.revision, w.queueErr
}

func (w *world) SaveState(_ context.Context, kind, key string, value []byte, expect uint64) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := kind + " " + key
	if w.queueErr != nil {
		return 0, w.queueErr
	}
	if w.saved[name].revision != expect {
		return 0, fmt.Errorf("saving: %w", policy.ErrConflict)
	}
	w.saved[name] = saved{slices.Clone(value), expect + 1}
	return expect + 1, nil
}

func (w *world) Known(ctx context.Context, refs []artifact.Ref) ([]artifact.Known, error) {
	if w.onKnown != nil {
		w.onKnown()
	}
	if len(refs) > reconcile.MaxBatch {
		return nil, fmt.Errorf("%d references in one question", len(refs))
	}
	if w.memoryErr != nil {
		return nil, w.memoryErr
	}
	return w.ledger.Known(ctx, refs)
}

func (w *world) Units(ctx context.Context, project, after string, limit int) ([]artifact.Ref, string, error) {
	if w.memoryErr != nil {
		return nil, "", w.memoryErr
	}
	return w.ledger.Units(ctx, project, after, limit)
}

func (w *world) Policy(_ context.Context, project string) (policy.Policy, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.policies[project], w.policyErr[project]
}

func (w *world) Fresh(ctx context.Context, project string) (policy.Policy, error) {
	return w.Policy(ctx, project)
}

func (w *world) Projects() ([]string, bool, error) { return nil, true, w.policyErr[""] }

func (w *world) Enabled(listed []string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name, p := range w.policies {
		if p.Enabled() && (slices.Contains(listed, name) || p.Manager == policy.ByAPI) && w.policyErr[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}
