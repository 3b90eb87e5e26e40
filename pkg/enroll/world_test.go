package enroll_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/artifact/artifacttest"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/preflight"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	origin     = "https://seal.example.com"
	masterText = "0123456789abcdef0123456789abcdef-master"
	digestA    = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
)

var errBroken = errors.New("the line is cut")

// breakage breaks the nth changing step that is taken: before it has an effect, or after.
type breakage struct {
	at        int
	persisted bool
}

// world is the bucket, the ledger, the ticks, the signers and Harbor in memory, and a clock.
type world struct {
	mu      sync.Mutex
	now     time.Time
	entries map[string][]book.Entry // by kind and project, with history
	last    uint64
	books   []*book.Book
	events  []artifact.Event
	ticks   map[string]int // how often each was proposed
	signer  func(preflight.Request) ([]preflight.Check, error)

	projects  map[string]artifact.Project
	webhooks  map[string][]artifact.Webhook
	nextID    int64
	system    artifact.SystemInfo
	away      error // what Harbor answers instead
	missing   []string
	delivered artifact.Deliveries
	quota     artifact.Quota
	stuck     bool // webhooks cannot be deleted, as while a delivery is under way
	roles     map[string]artifact.Role
	admins    []string

	steps  []string // the changing steps that were taken
	broken *breakage
	// before is called, without the lock, before each changing step.
	before func(step string)
}

func newWorld() *world {
	return &world{
		now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), entries: map[string][]book.Entry{}, ticks: map[string]int{},
		projects: map[string]artifact.Project{"demo": {ID: 7, Name: "demo"}}, webhooks: map[string][]artifact.Webhook{}, nextID: 100,
		system: artifact.SystemInfo{Version: "v2.15.2", Notifications: true}, quota: artifact.Quota{Hard: -1},
		roles: map[string]artifact.Role{"Basic alice": artifact.RoleProjectAdmin, "Basic bob": artifact.RoleProjectAdmin},
		signer: func(preflight.Request) ([]preflight.Check, error) {
			return []preflight.Check{
				{Name: preflight.Key, Status: preflight.OK},
				{Name: preflight.Right("repository:push"), Subject: "demo", Status: preflight.OK},
				{Name: preflight.Format, Status: preflight.OK},
				{Name: preflight.Transparency, Subject: "demo", Status: preflight.OK},
				{Name: preflight.Timestamp, Subject: "demo", Status: preflight.OK},
				{Name: preflight.PullPolicy, Subject: "demo", Status: preflight.Skipped},
			}, nil
		},
	}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// step takes a changing step: do is called unless the step breaks before it.
func (w *world) step(name string, do func() error) error {
	if w.before != nil {
		w.before(name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, name)
	broken := w.broken != nil && w.broken.at == len(w.steps)-1
	if broken && !w.broken.persisted {
		return errBroken
	}
	err := do()
	if broken {
		return errBroken
	}
	return err
}

func (w *world) GetPolicy(_ context.Context, kind book.Kind, project string) (book.Entry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	history := w.entries[string(kind)+"/"+project]
	if len(history) == 0 {
		return book.Entry{Kind: kind, Project: project}, nil
	}
	return history[len(history)-1], nil
}

func (w *world) PutPolicy(_ context.Context, kind book.Kind, project string, value []byte, expect uint64) (uint64, error) {
	var revision uint64
	err := w.step("put "+string(kind), func() error {
		key := string(kind) + "/" + project
		history := w.entries[key]
		var is uint64
		if len(history) > 0 {
			is = history[len(history)-1].Revision
		}
		if is != expect {
			return fmt.Errorf("revision is %d, not %d: %w", is, expect, policy.ErrConflict)
		}
		w.last++
		revision = w.last
		e := book.Entry{Kind: kind, Project: project, Value: slices.Clone(value), Revision: revision, At: w.now}
		w.entries[key] = append(history, e)
		for _, b := range w.books {
			b.Apply(e)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return revision, nil
}

func (w *world) PolicyHistory(_ context.Context, project string) ([]book.Entry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.entries["policy/"+project]), nil
}

func (w *world) Record(_ context.Context, e artifact.Event) (uint64, error) {
	if err := artifacttest.CheckEvent(e); err != nil {
		return 0, err
	}
	return 1, w.step("record "+string(e.Kind), func() error {
		if !slices.ContainsFunc(w.events, func(known artifact.Event) bool { return known.ID == e.ID }) {
			w.events = append(w.events, e)
		}
		return nil
	})
}

func (w *world) Propose(_ context.Context, kind, key string, slot int64) (bool, error) {
	accepted := false
	err := w.step("propose", func() error {
		name := fmt.Sprintf("%s %s %d", kind, key, slot)
		accepted = w.ticks[name] == 0
		w.ticks[name]++
		return nil
	})
	return accepted, err
}

func (w *world) Ask(ctx context.Context, topic string, request []byte) ([]byte, error) {
	if topic != preflight.Topic {
		return nil, fmt.Errorf("nobody answers %q", topic)
	}
	var failure error
	raw, err := preflight.Handler(func(_ context.Context, r preflight.Request) []preflight.Check {
		w.mu.Lock()
		defer w.mu.Unlock()
		var checks []preflight.Check
		checks, failure = w.signer(r)
		return checks
	})(ctx, request)
	if failure != nil {
		return nil, failure
	}
	return raw, err
}

func masterFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "master")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// receiver makes a service on the world, with a book of its own.
func (w *world) receiver(t *testing.T, change ...func(*enroll.Config)) (*enroll.Service, *book.Book) {
	t.Helper()
	b := book.New(policy.Terms{})
	w.mu.Lock()
	for _, history := range w.entries {
		for _, e := range history {
			b.Apply(e)
		}
	}
	w.books = append(w.books, b)
	w.mu.Unlock()
	b.Loaded()
	cfg := enroll.Config{
		HarborName: "main", Harbor: harborOf{w}, Account: "robot$receiver", Queue: w, Book: b, WebhookURL: origin,
		As:          func(authorization string) enroll.Caller { return callerOf{harborOf{w}, authorization} },
		MasterFiles: []string{masterFile(t, masterText)}, Now: w.clock, Registerer: prometheus.NewRegistry(),
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := enroll.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return s, b
}

var alice = enroll.Actor{Name: "alice", From: "192.0.2.1", Authorization: "Basic alice"}

func all() enroll.PutRequest {
	return enroll.PutRequest{Spec: policy.Spec{Mode: policy.ModeSign}, Backfill: "all"}
}

func mustPut(t *testing.T, s *enroll.Service, req enroll.PutRequest, ifMatch string) enroll.View {
	t.Helper()
	v, err := s.Put(t.Context(), alice, "demo", req, ifMatch)
	if err != nil {
		t.Fatalf("Put: %v", err)
	}
	return v
}

func mustCheck(t *testing.T, s *enroll.Service) {
	t.Helper()
	if err := s.Check(t.Context(), "demo"); err != nil {
		t.Fatalf("Check: %v", err)
	}
}

// eventsOf lists the events by kind and reason.
func (w *world) kinds() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var kinds []string
	for _, e := range w.events {
		kinds = append(kinds, strings.TrimSpace(string(e.Kind)+" "+e.Reason))
	}
	return kinds
}

func (w *world) wantEvents(t *testing.T, when string, want ...string) {
	t.Helper()
	if got := w.kinds(); !slices.Equal(got, want) {
		t.Errorf("%s: events = %q, want %q", when, got, want)
	}
}

func (w *world) stateOf(t *testing.T) policy.State {
	t.Helper()
	e, err := w.GetPolicy(t.Context(), book.State, "demo")
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Value) == 0 {
		return policy.State{}
	}
	state, err := policy.DecodeState(e.Value)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func (w *world) reasons(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, p := range w.stateOf(t).Problems {
		found = append(found, p.Reason)
	}
	return found
}

func (w *world) hooks() []artifact.Webhook {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.webhooks["demo"])
}

// end describes everything that must be the same however often a call was cut short: without ids and revisions, which grow
// with each attempt.
func (w *world) end(t *testing.T) string {
	t.Helper()
	type hook struct {
		Name, Address, Auth string
		Enabled             bool
		Events              []string
	}
	var hooks []hook
	for _, h := range w.hooks() {
		hooks = append(hooks, hook{h.Name, h.Address, h.AuthHeader, h.Enabled, h.Events})
	}
	state := w.stateOf(t)
	known := state.WebhookID != 0 && len(w.hooks()) > 0 && w.hooks()[0].ID == state.WebhookID
	state.WebhookID, state.CheckedAt = 0, time.Time{}
	w.mu.Lock()
	defer w.mu.Unlock()
	var events []string
	for _, e := range w.events {
		change := ""
		if e.Change != nil {
			change = fmt.Sprintf("%s -> %s from %s", e.Change.Before, e.Change.After, e.Change.From)
		}
		events = append(events, fmt.Sprintf("%s %s %s by %s %s", e.Kind, e.Project, e.Reason, e.Actor, change))
	}
	document := ""
	if history := w.entries["policy/demo"]; len(history) > 0 {
		document = string(history[len(history)-1].Value)
	}
	var ticks []string
	for tick := range w.ticks {
		ticks = append(ticks, tick)
	}
	slices.Sort(ticks)
	raw, err := json.MarshalIndent(map[string]any{
		"webhooks": hooks, "webhook_known": known, "state": state, "events": events, "document": document, "ticks": ticks,
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
