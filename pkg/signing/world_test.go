package signing_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

const (
	host     = "harbor.example.com"
	ociImage = "application/vnd.oci.image.manifest.v1+json"
	ociIndex = "application/vnd.oci.image.index.v1+json"
)

var errInjected = errors.New("injected")

// world is everything outside the signer: registry, queue and policies, in memory, with the guarantees that their
// interfaces state. It can fail any operation, before or after it took effect.
type world struct {
	mu        sync.Mutex
	manifests map[string]artifact.Manifest // repository + "@" or ":" + reference
	blobs     map[string][]byte
	ledger    []artifact.Event // without repeated ids
	waiting   map[artifact.Ref]artifact.Request
	dead      map[artifact.Ref]artifact.Event
	policies  *policy.Set
	policyErr error

	operations []string                      // names, in order
	fail       func(n int, name string) mode // asked for each operation, counted from 1
	before     func(name string)             // called unlocked before an operation
}

type mode int

const (
	works mode = iota
	fails
	failsButPersists
)

func newWorld(t *testing.T, projects ...string) *world {
	t.Helper()
	set, err := policy.NewSet(projects)
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		manifests: map[string]artifact.Manifest{}, blobs: map[string][]byte{},
		waiting: map[artifact.Ref]artifact.Request{}, dead: map[artifact.Ref]artifact.Event{}, policies: set,
	}
}

// do runs one operation under the lock.
func (w *world) do(ctx context.Context, name string, effect func() error) error {
	if w.before != nil {
		w.before(name)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.operations = append(w.operations, name)
	m := works
	if w.fail != nil {
		m = w.fail(len(w.operations), name)
	}
	if m == fails {
		return fault.New(fault.Transient, fault.Unavailable, errInjected)
	}
	err := effect()
	if m == failsButPersists && err == nil {
		return fault.New(fault.Transient, fault.Timeout, errInjected)
	}
	return err
}

func notFound(what string) error {
	return fault.Newf(fault.Gone, fault.NotFound, "%s is unknown", what)
}

func (w *world) Manifest(ctx context.Context, repository, reference string) (m artifact.Manifest, err error) {
	err = w.do(ctx, "get manifest", func() error {
		var found bool
		if m, found = w.manifests[repository+" "+reference]; !found {
			return notFound("manifest")
		}
		return nil
	})
	return m, err
}

func (w *world) Blob(ctx context.Context, repository, digest string, _ int64) (raw []byte, err error) {
	err = w.do(ctx, "get blob", func() error {
		var found bool
		if raw, found = w.blobs[repository+" "+digest]; !found {
			return notFound("blob")
		}
		return nil
	})
	return raw, err
}

func (w *world) PushBlob(ctx context.Context, repository string, b artifact.Blob) error {
	return w.do(ctx, "push blob", func() error {
		w.blobs[repository+" "+b.Digest] = b.Raw
		return nil
	})
}

func (w *world) PutManifest(ctx context.Context, repository, reference string, m artifact.Manifest) error {
	return w.do(ctx, "put manifest", func() error {
		var named struct {
			Config struct{ Digest string }
			Layers []struct{ Digest string }
		}
		if err := json.Unmarshal(m.Raw, &named); err != nil {
			return err
		}
		for _, blob := range append(named.Layers, named.Config) {
			if _, found := w.blobs[repository+" "+blob.Digest]; !found {
				return fault.Newf(fault.Transient, fault.BlobUnknown, "blob %s is unknown", blob.Digest)
			}
		}
		w.manifests[repository+" "+reference] = m
		w.manifests[repository+" "+m.Digest] = m
		return nil
	})
}

func (w *world) Record(ctx context.Context, e artifact.Event) (seq uint64, err error) {
	err = w.do(ctx, "record "+string(e.Kind), func() error {
		if _, err := artifact.EncodeEvent(e); err != nil {
			return err
		}
		if i := slices.IndexFunc(w.ledger, func(other artifact.Event) bool { return other.ID == e.ID }); i >= 0 {
			seq = uint64(i) + 1
			return nil
		}
		w.ledger = append(w.ledger, e)
		seq = uint64(len(w.ledger))
		return nil
	})
	return seq, err
}

func (w *world) Enqueue(ctx context.Context, r artifact.Request) (duplicate bool, err error) {
	err = w.do(ctx, "enqueue", func() error {
		if _, err := artifact.EncodeRequest(r); err != nil {
			return err
		}
		if _, duplicate = w.waiting[r.Ref]; !duplicate {
			w.waiting[r.Ref] = r
		}
		return nil
	})
	return duplicate, err
}

func (w *world) LastReceived(ctx context.Context, ref artifact.Ref) (seq uint64, e artifact.Event, err error) {
	err = w.do(ctx, "last received", func() error {
		for i, event := range w.ledger {
			if event.Kind == artifact.Received && event.Ref == ref {
				seq, e = uint64(i)+1, event
			}
		}
		return nil
	})
	return seq, e, err
}

func (w *world) ClearDead(ctx context.Context, ref artifact.Ref) error {
	return w.do(ctx, "clear dead", func() error { delete(w.dead, ref); return nil })
}

func (w *world) Policy(ctx context.Context, project string) (policy.Policy, error) {
	if w.policyErr != nil {
		return policy.Policy{}, w.policyErr
	}
	return w.policies.Policy(ctx, project)
}

// delivery is one attempt; the request stays in the world until it is ended.
type delivery struct {
	w         *world
	request   artifact.Request
	attempts  uint64
	firstSeen time.Time
	ended     string // how
	delay     time.Duration
}

func (d *delivery) Request() artifact.Request { return d.request }
func (d *delivery) Attempts() uint64          { return d.attempts }
func (d *delivery) FirstSeen() time.Time      { return d.firstSeen }

func (d *delivery) Done(ctx context.Context) error {
	return d.w.do(ctx, "ack", func() error {
		d.ended = "done"
		delete(d.w.waiting, d.request.Ref)
		return nil
	})
}

func (d *delivery) Retry(ctx context.Context, delay time.Duration) error {
	return d.w.do(ctx, "nak", func() error { d.ended, d.delay = "retry", delay; return nil })
}

func (d *delivery) Bury(ctx context.Context, e artifact.Event) error {
	return d.w.do(ctx, "bury", func() error {
		d.ended = "buried"
		d.w.dead[d.request.Ref] = e
		delete(d.w.waiting, d.request.Ref)
		return nil
	})
}

// push puts a manifest into the registry and, as the receiver does, the event and the request into the queue.
func (w *world) push(t *testing.T, repository, mediaType, raw string) artifact.Ref {
	t.Helper()
	m := artifact.Manifest{MediaType: mediaType, Digest: artifact.DigestOf([]byte(raw)), Raw: []byte(raw)}
	w.manifests[repository+" "+m.Digest] = m
	ref, err := artifact.NewRef(repository, m.Digest)
	if err != nil {
		t.Fatal(err)
	}
	w.receive(t, ref, "push-1")
	return ref
}

func (w *world) receive(t *testing.T, ref artifact.Ref, id string) {
	t.Helper()
	seq, err := w.Record(t.Context(), artifact.Event{
		ID: id + ref.Digest(), Kind: artifact.Received, Ref: ref, Time: time.Now(), Origin: artifact.OriginWebhook, CorrelationID: id,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Enqueue(t.Context(), artifact.Request{
		Ref: ref, Lane: artifact.Live, Origin: artifact.OriginWebhook, CorrelationID: id, RequestedAt: time.Now(), ReceivedSeq: seq,
	}); err != nil {
		t.Fatal(err)
	}
	w.operations = nil
}

// attempt delivers the request for ref once more.
func (w *world) attempt(t *testing.T, s *signing.Service, ref artifact.Ref, attempts uint64) *delivery {
	t.Helper()
	request, found := w.waiting[ref]
	if !found {
		t.Fatalf("no request for %s waits", ref)
	}
	d := &delivery{w: w, request: request, attempts: attempts, firstSeen: time.Now()}
	s.Handle(t.Context(), d)
	return d
}

func (w *world) events(kind artifact.Kind, ref artifact.Ref) []artifact.Event {
	var found []artifact.Event
	for _, e := range w.ledger {
		if e.Kind == kind && e.Ref == ref {
			found = append(found, e)
		}
	}
	return found
}

// testKeys makes a key once for all tests: decrypting one is slow by design.
var testKeys = sync.OnceValues(func() (*keys.Key, error) {
	dir, err := os.MkdirTemp("", "signing")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("correct horse"), 0o600); err != nil {
		return nil, err
	}
	prefix := filepath.Join(dir, "k")
	if _, err := keys.Generate(prefix, password); err != nil {
		return nil, err
	}
	return keys.LoadFile(prefix+".key", password)
})

func newLegacy(t *testing.T) *sigstore.Legacy {
	t.Helper()
	key, err := testKeys()
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := sigstore.NewLegacy(sigstore.LegacyConfig{
		Signer: key, Trusted: []sigstore.TrustedKey{{Key: key.Public(), State: sigstore.Active}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return legacy
}

// newService is a signer that has just been started.
func newService(t *testing.T, w *world, change ...func(*signing.Config)) (*signing.Service, *signing.Verifier) {
	t.Helper()
	legacy := newLegacy(t)
	verifier, err := signing.NewVerifier(w, legacy, host)
	if err != nil {
		t.Fatal(err)
	}
	cfg := signing.Config{Registry: w, Format: legacy, Verifier: verifier, Queue: w, Policies: w, Logger: zerolog.Nop()}
	for _, c := range change {
		c(&cfg)
	}
	s, err := signing.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, verifier
}
