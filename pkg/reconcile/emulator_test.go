package reconcile_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

// spy is the real queue, whose requests are noted and whose events come into the ledger at once.
type spy struct {
	*queue.Client
	ledger ledgertest.Memory
	mu     sync.Mutex
	asked  map[artifact.Ref]artifact.Request // guarded by mu
	sweeps []artifact.Sweep                  // guarded by mu
}

func (s *spy) Enqueue(ctx context.Context, r artifact.Request) (bool, error) {
	duplicate, err := s.Client.Enqueue(ctx, r)
	if err == nil && !duplicate {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked[r.Ref] = r
	}
	return duplicate, err
}

func (s *spy) Record(ctx context.Context, e artifact.Event) (uint64, error) {
	seq, err := s.Client.Record(ctx, e)
	if err != nil {
		return 0, err
	}
	if e.Sweep != nil {
		s.mu.Lock()
		s.sweeps = append(s.sweeps, *e.Sweep)
		s.mu.Unlock()
	}
	return seq, s.ledger.Apply(ctx, ledger.Basis{}, []artifact.Entry{{Seq: seq, Event: e}})
}

// believer takes every listed signature for one of the active key: the emulator's cannot be read.
type believer struct{ *world }

func (b believer) Verify(_ context.Context, _ policy.Policy, l artifact.Listed) ([]artifact.Evidence, string, bool, error) {
	if len(l.Signatures) == 0 {
		return nil, "", false, nil
	}
	return []artifact.Evidence{{Format: artifact.Legacy, KeyID: activeKey, Digest: l.Signatures[0]}}, "", true, nil
}

// TestWithTheRealParts sweeps an emulated Harbor through the real client, with the real queue, book and questions over NATS.
func TestWithTheRealParts(t *testing.T) {
	const digests = 3000
	emulator := harbortest.New(t, harbortest.Config{DeliveryDelayScale: 0.001, Seed: 1})
	content, err := emulator.Synthesize(harbortest.SyntheticConfig{
		Prefix: "team", Projects: 2, Repositories: 40, Digests: digests, Indexes: 0.05, Children: 4, Unsigned: 0.01, Seed: 3,
		Until: time.Now().Add(-2 * time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	budget, err := reconcile.NewBudget(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &spy{Client: queuetest.NewClient(t, queuetest.NewServer(t)), asked: map[artifact.Ref]artifact.Request{}}
	var answering sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); answering.Wait() })
	for topic, fn := range map[string]func(context.Context, []byte) ([]byte, error){
		reconcile.TopicKnown: reconcile.AnswerKnown(&s.ledger), reconcile.TopicUnits: reconcile.AnswerUnits(&s.ledger),
	} {
		answering.Go(func() {
			if err := s.Answer(ctx, topic, 2, fn); err != nil {
				t.Errorf("Answer: %v", err)
			}
		})
	}
	memory, err := reconcile.NewRemoteMemory(s)
	if err != nil {
		t.Fatal(err)
	}
	r, err := reconcile.New(reconcile.Config{
		Harbor: emulated(t, emulator, budget), Queue: s, Policies: declared(t), Memory: memory, Verifier: believer{newWorld()}, State: s,
		Budget: budget, Logger: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	first := s.both(t, r)
	s.want(t, "the first sweep", content.Unsigned)
	if first.Population != digests || first.HarborCount != digests || first.Signed+first.Requested != digests || first.Verified != first.Signed {
		t.Errorf("first sweep %+v, want all %d, signed or asked for", first, digests)
	}
	second := s.both(t, r)
	// 30 pages, and for each project a last one that may be less than full.
	if least := digests / 100; second.Verified != 0 || second.Pending != len(content.Unsigned) || second.Requests < least || second.Requests > least*11/10+2 {
		t.Errorf("second sweep %+v, want nothing read, %d waiting, about %d requests", second, len(content.Unsigned), least)
	}
	touched, err := emulator.Touch(harbortest.TouchConfig{Pushes: 150, Pulls: 0.5, Over: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	before := budget.Requests()
	if err := r.Tick(t.Context(), reconcile.Recent, "", time.Now().UnixNano()/int64(time.Minute)); err != nil {
		t.Fatalf("Tick: %v", err)
	}
	s.want(t, "an incremental minute", append(slices.Clone(content.Unsigned), touched.Pushed...))
	if n := budget.Requests() - before; n > 8 {
		t.Errorf("an incremental minute with 150 pushes took %d requests, want those of the feed's pages", n)
	}
}

func (s *spy) both(t *testing.T, r *reconcile.Reconciler) artifact.Sweep {
	t.Helper()
	before := len(s.sweeps)
	for _, project := range []string{"team-0001", "team-0002"} {
		if err := r.Tick(t.Context(), reconcile.Full, project, reconcile.AdHoc(time.Now())); err != nil {
			t.Fatalf("Tick: %v", err)
		}
	}
	var sum artifact.Sweep
	for _, one := range s.sweeps[before:] {
		sum.Population += one.Population
		sum.HarborCount += one.HarborCount
		sum.Signed += one.Signed
		sum.Requested += one.Requested
		sum.Pending += one.Pending
		sum.Verified += one.Verified
		sum.Requests += one.Requests
		if one.Digest == "" {
			t.Errorf("%+v has no digest", one)
		}
	}
	return sum
}

func (s *spy) want(t *testing.T, what string, unsigned []harbortest.SyntheticRef) {
	t.Helper()
	if len(s.asked) != len(unsigned) {
		t.Errorf("%s: %d are asked for, want %d", what, len(s.asked), len(unsigned))
	}
	for _, u := range unsigned {
		ref, err := artifact.NewRef(u.Repository, u.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if _, asked := s.asked[ref]; !asked {
			t.Errorf("%s: %s is not asked for", what, ref)
		}
	}
}

func emulated(t *testing.T, h *harbortest.Harbor, budget *reconcile.Budget) *harbor.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(harbortest.DefaultAdminPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := harbor.New(harbor.Config{URL: h.URL(), Username: "admin", SecretFile: path, Transport: transport, Limiter: budget})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// declared is a book in which the configuration file signs all projects.
func declared(t *testing.T) live {
	t.Helper()
	rules, err := policy.NewDeclared([]policy.Rule{{
		Projects: []string{"team-*"}, Spec: policy.Spec{Mode: policy.ModeSign}, Backfill: policy.Backfill{Choice: "all"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	value, err := rules.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b := book.New(policy.Terms{})
	b.Apply(book.Entry{Kind: book.Declared, Value: value, Revision: 1})
	b.Loaded()
	return live{b, noBucket{}}
}

// noBucket holds nothing beside what the book knows.
type noBucket struct{}

func (noBucket) GetPolicy(context.Context, book.Kind, string) (book.Entry, error) {
	return book.Entry{}, nil
}
