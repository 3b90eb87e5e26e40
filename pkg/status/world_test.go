package status_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	host       = "harbor.example.com"
	repository = "demo/team/app"
	revision   = "api-3"
)

// clock is a clock that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// rows are a view in memory that counts how often it is read.
type rows struct {
	ledgertest.Memory
	basis ledger.Basis

	mu    sync.Mutex
	seq   uint64 // guarded by mu, as is all below
	reads []int  // how many rows each reading asked for
	err   error
}

func (r *rows) Known(ctx context.Context, refs []artifact.Ref) ([]artifact.Known, error) {
	known, err := r.Memory.Known(ctx, refs)
	r.mu.Lock()
	defer r.mu.Unlock()
	// Counted once it is read: a test that waits for it makes news from then on.
	r.reads = append(r.reads, len(refs))
	if r.err != nil {
		return nil, r.err
	}
	return known, err
}

func (r *rows) One(ctx context.Context, ref artifact.Ref) (ledger.Row, bool, error) {
	page, err := r.Signatures(ctx, ledger.Query{Repository: ref.Repository(), Digest: ref.Digest()})
	if err != nil || len(page.Items) == 0 {
		return ledger.Row{}, false, err
	}
	return page.Items[0], true, nil
}

func (r *rows) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// asking is a door that keeps who came.
type asking struct {
	mu     sync.Mutex
	asked  []string // guarded by mu, as is all below
	reason policy.Reason
	err    error
}

func (a *asking) Ask(_ context.Context, ref artifact.Ref, tag, actor string) (string, policy.Reason, string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, ref.String()+" "+tag+" "+actor)
	if a.reason != "" {
		return "ignored", a.reason, "", a.err
	}
	return "queued", "", "1", a.err
}

func (a *asking) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

// book has one policy for all projects.
type book struct {
	mu  sync.Mutex
	p   policy.Policy // guarded by mu
	err error
}

func (b *book) Policy(_ context.Context, project string) (policy.Policy, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.p
	p.Project = project
	return p, b.err
}

func (b *book) set(f func(p *policy.Policy)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.p)
}

// world is a service with a Harbor, a ledger and a queue that is only looked at.
type world struct {
	*status.Service
	harbor *harbortest.Harbor
	view   *rows
	door   *asking
	book   *book
	clock  *clock
}

func newWorld(tb testing.TB, change ...func(*status.Config)) *world {
	tb.Helper()
	w := &world{view: &rows{}, door: &asking{}, book: &book{p: policy.Policy{Mode: policy.ModeSign, Revision: revision}}, clock: &clock{now: ledgertest.Epoch()}}
	w.view.basis = ledgertest.Begin(tb, &w.view.Memory)
	cfg := status.Config{View: w.view, Policies: w.book, Door: w.door, Host: host, Now: w.clock.Now}
	for _, f := range change {
		f(&cfg)
	}
	if cfg.Registry == nil {
		h, err := harbortest.Start(harbortest.Config{})
		if err != nil {
			tb.Fatal(err)
		}
		w.harbor = h
		transport := &http.Transport{}
		tb.Cleanup(func() {
			transport.CloseIdleConnections()
			_ = h.Close()
		})
		secret := filepath.Join(tb.TempDir(), "secret")
		if err := os.WriteFile(secret, []byte(harbortest.DefaultAdminPassword), 0o600); err != nil {
			tb.Fatal(err)
		}
		cfg.Registry, err = harbor.New(harbor.Config{URL: h.URL(), Username: "admin", SecretFile: secret, Transport: transport})
		if err != nil {
			tb.Fatal(err)
		}
		w.create(tb)
	}
	var err error
	if w.Service, err = status.New(cfg); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("Run: %v", err)
		}
	})
	return w
}

func (w *world) create(tb testing.TB) {
	tb.Helper()
	body, err := json.Marshal(map[string]any{"project_name": "demo"})
	if err != nil {
		tb.Fatal(err)
	}
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, w.harbor.URL()+"/api/v2.0/projects", bytes.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	req.SetBasicAuth("admin", harbortest.DefaultAdminPassword)
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusCreated {
		tb.Fatalf("creating the project: %s, %v", resp.Status, err)
	}
}

// push pushes an image, or an index, under a tag, and gives its reference.
func (w *world) push(tb testing.TB, tag string, subject remote.Taggable) artifact.Ref {
	tb.Helper()
	at, err := name.NewTag(w.harbor.Host()+"/"+repository+":"+tag, name.Insecure)
	if err != nil {
		tb.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	options := []remote.Option{
		remote.WithTransport(transport), remote.WithContext(tb.Context()),
		remote.WithAuth(&authn.Basic{Username: "admin", Password: harbortest.DefaultAdminPassword}),
	}
	var digest v1.Hash
	switch s := subject.(type) {
	case v1.ImageIndex:
		err = remote.WriteIndex(at, s, options...)
		digest, _ = s.Digest()
	case v1.Image:
		err = remote.Write(at, s, options...)
		digest, _ = s.Digest()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return ref(tb, digest.String())
}

func ref(tb testing.TB, digest string) artifact.Ref {
	tb.Helper()
	r, err := artifact.NewRef(repository, digest)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func image(tb testing.TB) v1.Image {
	tb.Helper()
	i, err := random.Image(64, 1)
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

// sign attaches what Harbor takes for a signature, and gives its evidence.
func (w *world) sign(tb testing.TB, of artifact.Ref) artifact.Evidence {
	tb.Helper()
	layer := static.NewLayer([]byte(`{"of":"`+of.Digest()+`"}`), "application/vnd.dev.cosign.simplesigning.v1+json")
	signature, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		tb.Fatal(err)
	}
	at := w.push(tb, "sha256-"+strings.TrimPrefix(of.Digest(), "sha256:")+".sig", signature)
	return artifact.Evidence{Format: artifact.Legacy, KeyID: "key", Digest: at.Digest()}
}

// remove deletes a manifest in Harbor.
func (w *world) remove(tb testing.TB, of artifact.Ref) {
	tb.Helper()
	url := w.harbor.URL() + "/api/v2.0/projects/demo/repositories/team%252Fapp/artifacts/" + of.Digest()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodDelete, url, http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	req.SetBasicAuth("admin", harbortest.DefaultAdminPassword)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		tb.Fatalf("deleting: %s, %v", resp.Status, err)
	}
}

// happens puts events into the ledger's view and tells the service.
func (w *world) happens(tb testing.TB, events ...artifact.Event) {
	tb.Helper()
	w.view.mu.Lock()
	var entries []artifact.Entry
	for _, e := range events {
		w.view.seq++
		entries = append(entries, artifact.Entry{Seq: w.view.seq, Event: e})
	}
	ledgertest.Apply(tb, &w.view.Memory, w.view.basis, entries...)
	w.view.mu.Unlock()
	w.Observe(entries)
}

// event is one of a kind, now.
func (w *world) event(kind artifact.Kind, of artifact.Ref, change ...func(*artifact.Event)) artifact.Event {
	e := ledgertest.Event(kind, of)
	e.Time, e.PolicyRevision = w.clock.Now(), revision
	e.Reason, e.Detail = "", ""
	for _, f := range change {
		f(&e)
	}
	return e
}

const (
	imageType = "application/vnd.oci.image.manifest.v1+json"
	indexType = "application/vnd.oci.image.index.v1+json"
)

func (w *world) signed(of artifact.Ref, mediaType string, evidence ...artifact.Evidence) artifact.Event {
	return w.event(artifact.Signed, of, func(e *artifact.Event) { e.Signatures, e.MediaType = evidence, mediaType })
}

// ask asks without waiting.
func (w *world) ask(tb testing.TB, reference string) status.Answer {
	tb.Helper()
	answer, err := w.Ask(tb.Context(), w.question(tb, reference, 0))
	if err != nil {
		tb.Fatalf("asking about %s: %v", reference, err)
	}
	return answer
}

func (w *world) question(tb testing.TB, reference string, wait time.Duration) status.Question {
	tb.Helper()
	i, err := w.Parse(host + "/" + reference)
	if err != nil {
		tb.Fatal(err)
	}
	return status.Question{Image: i, Wait: wait, Caller: "ci"}
}

// counted is a registry that counts and can be away.
type counted struct {
	mu       sync.Mutex
	children map[string][]string // guarded by mu, as is all below
	absent   map[string]bool
	calls    int
	err      error
}

func (c *counted) Resolve(_ context.Context, repository, reference string) (artifact.Listed, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	if c.err != nil {
		return artifact.Listed{}, c.err
	}
	r, err := artifact.NewRef(repository, reference)
	if err != nil || c.absent[reference] {
		return artifact.Listed{}, fault.Newf(fault.Gone, fault.NotFound, "not there")
	}
	return artifact.Listed{Ref: r, Children: c.children[reference]}, nil
}

func (c *counted) Answers(_ context.Context, r artifact.Ref) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	return !c.absent[r.Digest()], c.err
}

func (c *counted) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}
