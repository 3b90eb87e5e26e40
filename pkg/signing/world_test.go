package signing_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
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
	policies  map[string]policy.Policy // by project
	policyErr error
	tagged    map[string][]artifact.Manifest // repository + " " + tag: all that ever stood under it, in order
	kept      map[string]artifact.Signature
	debts     map[artifact.Ref]artifact.Request
	logs      *testLogs      // nil if there are none
	stamps    *testAuthority // nil if there is none
	bundles   bool           // whether Harbor takes bundles
	locked    []string       // immutability rules; if there are any, no tag can be moved
	rulesErr  error          // if they may not be listed
	exists    bool           // whether Harbor says that the project exists
	existsErr error
	projectID int64 // Harbor's id of every project
	// madeAnew is the project's id by now, which ProjectID does not know yet; 0 for the same.
	madeAnew int64
	// unseen is a change of the policy that Policy does not show yet; nil if there is none.
	unseen func(*policy.Policy)
	tags   map[artifact.Ref][]string

	operations []string                      // names, in order
	fail       func(n int, name string) mode // asked for each operation, counted from 1
	before     func(name string)             // called unlocked before an operation
	failWith   error                         // what a failing operation gives; nil for a transient fault
	late       []func() error                // effects that are still on their way
	violations []string                      // what must not be at any moment, and was
	clock      time.Time                     // that of logs, authorities and certificates
}

type mode int

const (
	works mode = iota
	fails
	failsButPersists
	persistsLate // fails, and takes effect when the world settles
)

func newWorld(t *testing.T, projects ...string) *world {
	t.Helper()
	w := &world{
		manifests: map[string]artifact.Manifest{}, blobs: map[string][]byte{}, tagged: map[string][]artifact.Manifest{},
		waiting: map[artifact.Ref]artifact.Request{}, dead: map[artifact.Ref]artifact.Event{}, kept: map[string]artifact.Signature{},
		debts: map[artifact.Ref]artifact.Request{}, clock: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), exists: true, tags: map[artifact.Ref][]string{},
	}
	w.enable(t, policy.FormatAuto, projects...)
	return w
}

// enable sets the policy: these projects, signed in this format with the key "k".
func (w *world) enable(t *testing.T, format policy.Format, projects ...string) {
	t.Helper()
	w.policies = map[string]policy.Policy{}
	for _, project := range projects {
		w.policies[project] = policy.Policy{
			Project: project, Mode: policy.ModeSign, Manager: policy.ByAPI, Revision: "api-1", Terms: policy.Terms{Format: format, Key: "k"},
		}
	}
}

// change changes the policy of the project "demo".
func (w *world) change(change func(p *policy.Policy)) {
	p := w.policies["demo"]
	change(&p)
	w.policies["demo"] = p
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
	if m == persistsLate {
		w.late = append(w.late, effect)
	}
	if m == fails || m == persistsLate {
		if w.failWith != nil {
			return w.failWith
		}
		return fault.New(fault.Transient, fault.Unavailable, errInjected)
	}
	err := effect()
	if m == failsButPersists && err == nil {
		return fault.New(fault.Transient, fault.Timeout, errInjected)
	}
	return err
}

// settle lets what was on its way take effect. What it meets may refuse it.
func (w *world) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, effect := range w.late {
		_ = effect()
	}
	w.late = nil
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
		if _, found := w.manifests[repository+" "+reference]; found && reference != m.Digest && len(w.locked) > 0 {
			return fault.Newf(fault.Permanent, fault.Immutable, "%s is locked", reference)
		}
		w.manifests[repository+" "+reference] = m
		w.manifests[repository+" "+m.Digest] = m
		if reference != m.Digest {
			w.tagged[repository+" "+reference] = append(w.tagged[repository+" "+reference], m)
		}
		w.checkHiding(repository)
		return nil
	})
}

// Referrers lists, as Harbor does, what names the digest as its subject and what ever stood under its signature tag.
func (w *world) Referrers(ctx context.Context, repository, digest string) (found []artifact.Descriptor, err error) {
	err = w.do(ctx, "list referrers", func() error {
		seen := map[string]bool{}
		add := func(m artifact.Manifest) {
			var named struct {
				ArtifactType string
				Config       struct{ MediaType string }
				Subject      struct{ Digest string }
				Annotations  map[string]string
			}
			if json.Unmarshal(m.Raw, &named) == nil && !seen[m.Digest] {
				seen[m.Digest] = true
				found = append(found, artifact.Descriptor{
					MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Raw)), ArtifactType: cmp.Or(named.ArtifactType, named.Config.MediaType), Annotations: named.Annotations,
				})
			}
		}
		for _, m := range w.tagged[repository+" "+sigTag(digest)] {
			add(m)
		}
		for name, m := range w.manifests {
			if strings.HasPrefix(name, repository+" sha256:") && bytes.Contains(m.Raw, []byte(`"subject"`)) && bytes.Contains(m.Raw, []byte(digest)) {
				add(m)
			}
		}
		return nil
	})
	return found, err
}

// foreign makes a signature manifest of somebody else's, whose payload is in the registry already.
func (w *world) foreign(repository, payload string) artifact.Manifest {
	digest := artifact.DigestOf([]byte(payload))
	w.blobs[repository+" "+digest] = []byte(payload)
	w.blobs[repository+" "+artifact.DigestOf([]byte("{}"))] = []byte("{}")
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":%q},`+
		`"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","size":%d,"digest":%q,"annotations":{"dev.cosignproject.cosign/signature":"Zm9v"}}]}`,
		ociImage, artifact.DigestOf([]byte("{}")), len(payload), digest)
	return artifact.Manifest{MediaType: ociImage, Digest: artifact.DigestOf(raw), Raw: raw}
}

func sigTag(digest string) string { return strings.Replace(digest, ":", "-", 1) + ".sig" }

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

// verify gives what a verifier that knows nothing sees, as the policy of the project asks.
func (w *world) verify(t *testing.T, v *signing.Verifier, ref artifact.Ref) signing.Verdict {
	t.Helper()
	need, err := v.Require(t.Context(), w.policies[ref.Project()])
	if err != nil {
		t.Fatal(err)
	}
	verdict, err := v.Verify(t.Context(), ref, need)
	if err != nil {
		t.Fatalf("verifying %s: %v", ref, err)
	}
	return verdict
}
