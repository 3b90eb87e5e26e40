package book_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// bucket gives entries with rising revisions.
type bucket struct {
	t        *testing.T
	book     *book.Book
	revision uint64
}

func newBucket(t *testing.T) *bucket {
	t.Helper()
	return &bucket{t: t, book: book.New(policy.Terms{Key: "images"})}
}

type encoder interface{ Encode() ([]byte, error) }

func (b *bucket) put(kind book.Kind, project string, value encoder) {
	b.t.Helper()
	data, err := value.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	b.raw(kind, project, data)
}

func (b *bucket) raw(kind book.Kind, project string, data []byte) {
	b.revision++
	b.book.Apply(book.Entry{Kind: kind, Project: project, Value: data, Revision: b.revision})
}

func (b *bucket) policy(project string) policy.Policy {
	b.t.Helper()
	p, err := b.book.Policy(b.t.Context(), project)
	if err != nil {
		b.t.Fatalf("policy of %s: %v", project, err)
	}
	return p
}

func document(project string, mode policy.Mode) policy.Document {
	return policy.Document{Project: project, ProjectID: 7, Spec: policy.Spec{Mode: mode}, Backfill: policy.Backfill{Choice: "all"}}
}

func declared(t *testing.T, mode policy.Mode, projects ...string) *policy.Declared {
	t.Helper()
	d, err := policy.NewDeclared([]policy.Rule{{Projects: projects, Spec: policy.Spec{Mode: mode}, Backfill: policy.Backfill{Choice: "all"}}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestNothingIsAnsweredBeforeAllWasRead(t *testing.T) {
	b := newBucket(t)
	b.put(book.Policy, "demo", document("demo", policy.ModeSign))
	if _, err := b.book.Policy(t.Context(), "demo"); !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("policy: got %v, want ErrNotLoaded", err)
	}
	if _, _, err := b.book.Projects(); !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("projects: got %v, want ErrNotLoaded", err)
	}
	if _, err := b.book.Enabled([]string{"demo"}); !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("enabled: got %v, want ErrNotLoaded", err)
	}
	b.book.Loaded()
	if p := b.policy("demo"); !p.Enabled() || p.Revision != "api-1" {
		t.Errorf("got %+v", p)
	}
	if p := b.policy("other"); p.Enabled() || p.Manager != "" {
		t.Errorf("a project that nobody enabled: got %+v", p)
	}
}

func TestTheFileComesFirst(t *testing.T) {
	b := newBucket(t)
	b.put(book.Policy, "demo", document("demo", policy.ModeSign))
	b.put(book.Policy, "own", document("own", policy.ModeSign))
	b.put(book.Declared, "", declared(t, policy.ModeObserve, "de*"))
	b.book.Loaded()
	if p := b.policy("demo"); p.Manager != policy.ByConfig || p.Mode != policy.ModeObserve || p.ProjectID != 0 {
		t.Errorf("a project that the file names: got %+v", p)
	}
	if p := b.policy("own"); p.Manager != policy.ByAPI {
		t.Errorf("another one: got %+v", p)
	}
	b.raw(book.Declared, "", nil)
	if p := b.policy("demo"); p.Manager != policy.ByAPI {
		t.Errorf("when the file names it no more: got %+v", p)
	}
}

// A block is a veto: it counts wherever it stands.
func TestBlocksOfBoth(t *testing.T) {
	b := newBucket(t)
	own := document("demo", policy.ModeSign)
	own.Blocks = []policy.Block{{Digest: "sha256:a", Reason: "r", By: "jane"}}
	b.put(book.Policy, "demo", own)
	blocked := policy.Block{Digest: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", Reason: "r"}
	d, err := policy.NewDeclared([]policy.Rule{{
		Projects: []string{"*"}, Spec: policy.Spec{Mode: policy.ModeSign}, Backfill: policy.Backfill{Choice: "all"}, Blocks: []policy.Block{blocked},
	}})
	if err != nil {
		t.Fatal(err)
	}
	b.put(book.Declared, "", d)
	b.book.Loaded()
	if got := b.policy("demo").Blocks; len(got) != 2 || got[0].Digest != blocked.Digest || got[1].By != "jane" {
		t.Errorf("got %+v, want that of the file and that of the API", got)
	}
	b.raw(book.Policy, "demo", []byte(`{"v":2}`))
	if _, err := b.book.Policy(t.Context(), "demo"); err == nil {
		t.Error("a document that cannot be read may block something: got no error")
	}
}

func TestTermsOfTheSignerAreForWhatIsLeftOpen(t *testing.T) {
	b := newBucket(t)
	own := document("own", policy.ModeSign)
	own.Key, own.Format = "payments", policy.FormatLegacy
	b.put(book.Policy, "own", own)
	b.put(book.Policy, "demo", document("demo", policy.ModeSign))
	b.book.Loaded()
	if terms := b.policy("own").Terms; terms.Key != "payments" || terms.Format != policy.FormatLegacy {
		t.Errorf("got %+v", terms)
	}
	if terms := b.policy("demo").Terms; terms.Key != "images" || terms.Format != policy.FormatAuto {
		t.Errorf("got %+v", terms)
	}
}

func TestRevisions(t *testing.T) {
	b := newBucket(t)
	b.book.Loaded()
	data, err := document("demo", policy.ModeSign).Encode()
	if err != nil {
		t.Fatal(err)
	}
	b.book.Apply(book.Entry{Kind: book.Policy, Project: "demo", Value: data, Revision: 5})
	b.book.Apply(book.Entry{Kind: book.Policy, Project: "demo", Revision: 6})
	b.book.Apply(book.Entry{Kind: book.Policy, Project: "demo", Value: data, Revision: 5})
	if p := b.policy("demo"); p.Enabled() {
		t.Errorf("deleted, then the older value again: got %+v", p)
	}
}

func TestWhatCannotBeRead(t *testing.T) {
	b := newBucket(t)
	b.put(book.Policy, "demo", document("demo", policy.ModeSign))
	b.raw(book.Policy, "newer", []byte(`{"v":2}`))
	b.raw("tomorrow", "demo", []byte("?"))
	b.book.Loaded()
	if _, err := b.book.Policy(t.Context(), "newer"); !errors.Is(err, artifact.ErrNewerVersion) {
		t.Errorf("got %v, want ErrNewerVersion", err)
	}
	if p := b.policy("demo"); !p.Enabled() {
		t.Errorf("the others: got %+v", p)
	}
	enabled, err := b.book.Enabled(nil)
	if !slices.Equal(enabled, []string{"demo"}) || !errors.Is(err, artifact.ErrNewerVersion) {
		t.Errorf("got %v and %v, want what can be read, and the error", enabled, err)
	}
	b.raw(book.Pause, "demo", []byte(`{"v":2}`))
	if _, err := b.book.Policy(t.Context(), "demo"); err == nil {
		t.Error("a pause that cannot be read may say that nothing is to be signed: got no error")
	}
	b.raw(book.Declared, "", []byte(`{"v":2}`))
	if _, err := b.book.Policy(t.Context(), "other"); err == nil || !strings.Contains(err.Error(), "declared") {
		t.Errorf("a file that cannot be read may speak of every project: got %v", err)
	}
}

func TestPauses(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for name, projects := range map[string][]string{"one": {"demo"}, "all": {""}, "both": {"", "demo"}} {
		t.Run(name, func(t *testing.T) {
			b := newBucket(t)
			b.put(book.Policy, "demo", document("demo", policy.ModeSign))
			b.book.Loaded()
			for _, project := range projects {
				b.put(book.Pause, project, policy.Pause{Paused: true, By: "jane", At: at})
				if p := b.policy("demo"); p.Pause == nil || p.Pause.By != "jane" || !p.Enabled() {
					t.Fatalf("paused: got %+v", p)
				}
			}
			for i, project := range projects {
				if b.policy("demo").Pause == nil {
					t.Fatal("resumed while another pause holds")
				}
				b.put(book.Pause, project, policy.Pause{By: "joe", At: at.Add(time.Duration(i+1) * time.Minute)})
			}
			if p := b.policy("demo"); p.Pause != nil || !p.ResumedAt.Equal(at.Add(time.Duration(len(projects))*time.Minute)) {
				t.Errorf("resumed: got %+v", p)
			}
		})
	}
}

func TestSuspended(t *testing.T) {
	b := newBucket(t)
	b.put(book.Policy, "demo", document("demo", policy.ModeSign))
	b.put(book.State, "demo", policy.State{Project: "demo", ProjectID: 7, SuspendedFor: 8})
	b.book.Loaded()
	if p := b.policy("demo"); p.SuspendedFor != 8 {
		t.Errorf("got %+v", p)
	}
	if s, revision, err := b.book.State("demo"); err != nil || revision != 2 || s.ProjectID != 7 {
		t.Errorf("state: got %+v, %d, %v", s, revision, err)
	}
	b.put(book.Declared, "", declared(t, policy.ModeSign, "demo"))
	if p := b.policy("demo"); p.SuspendedFor != 0 {
		t.Errorf("a policy that goes by the name is not suspended: got %+v", p)
	}
}

type entries map[string]book.Entry

func (e entries) GetPolicy(_ context.Context, kind book.Kind, project string) (book.Entry, error) {
	if e == nil {
		return book.Entry{}, errors.New("no answer")
	}
	return e[string(kind)+" "+project], nil
}

// What the bucket holds by now counts, whatever the watch has brought.
func TestRefresh(t *testing.T) {
	b := newBucket(t)
	b.put(book.Policy, "demo", document("demo", policy.ModeOff))
	b.book.Loaded()
	data, err := document("demo", policy.ModeSign).Encode()
	if err != nil {
		t.Fatal(err)
	}
	pause, err := policy.Pause{Paused: true}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	bucket := entries{
		"policy demo": {Kind: book.Policy, Project: "demo", Value: data, Revision: 5},
		"pause ":      {Kind: book.Pause, Value: pause, Revision: 6},
	}
	p, err := b.book.Refresh(t.Context(), bucket, "demo")
	if err != nil || p.Revision != "api-5" || p.Pause == nil {
		t.Errorf("got %+v, %v, want what the bucket holds", p, err)
	}
	if p := b.policy("demo"); p.Revision != "api-5" {
		t.Errorf("from then on: got %+v", p)
	}
	if _, err := b.book.Refresh(t.Context(), entries(nil), "demo"); err == nil {
		t.Error("no answer of the bucket: got no error")
	}
}

func TestLost(t *testing.T) {
	b := newBucket(t)
	b.put(book.Policy, "demo", document("demo", policy.ModeSign))
	b.book.Loaded()
	b.book.Lost()
	if _, err := b.book.Policy(t.Context(), "demo"); !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("while changes may be missed: got %v, want ErrNotLoaded", err)
	}
	b.book.Loaded()
	if p := b.policy("demo"); !p.Enabled() {
		t.Errorf("read again: got %+v", p)
	}
}

func TestProjects(t *testing.T) {
	b := newBucket(t)
	b.put(book.Policy, "own", document("own", policy.ModeSign))
	b.put(book.Policy, "off", document("off", policy.ModeOff))
	b.put(book.Policy, "gone", document("gone", policy.ModeSign))
	b.raw(book.Policy, "gone", nil)
	b.put(book.Declared, "", declared(t, policy.ModeSign, "named", "team-*"))
	b.book.Loaded()
	names, globs, err := b.book.Projects()
	if fmt.Sprint(names) != "[named off own]" || !globs || err != nil {
		t.Errorf("got %v, %t, %v", names, globs, err)
	}
	enabled, err := b.book.Enabled([]string{"team-1", "other", "own"})
	if fmt.Sprint(enabled) != "[named own team-1]" || err != nil {
		t.Errorf("enabled: got %v, %v", enabled, err)
	}
}

func TestCanaries(t *testing.T) {
	b := newBucket(t)
	if _, err := b.book.Canaries(); !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("before all was read: %v, want %v", err, policy.ErrNotLoaded)
	}
	for project, spec := range map[string]policy.Spec{
		"canary":   {Mode: policy.ModeSign, Canary: true},
		"observed": {Mode: policy.ModeObserve, Canary: true},
		"ordinary": {Mode: policy.ModeSign},
	} {
		d := document(project, spec.Mode)
		d.Canary = spec.Canary
		b.put(book.Policy, project, d)
	}
	b.book.Loaded()
	got, err := b.book.Canaries()
	if err != nil || !slices.Equal(got, []string{"canary"}) {
		t.Errorf("Canaries = %q, %v; want [canary]", got, err)
	}
}
