package signing_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

const image = `{"schemaVersion":2,"mediaType":"` + ociImage + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[]}`

// wantSigned checks that ref carries exactly one signature by the key, that it verifies, and that the ledger says so
// once.
func wantSigned(t *testing.T, w *world, ref artifact.Ref, how artifact.How) {
	t.Helper()
	wantSignedBy(t, w, newParts(t, w).verifier, ref, how)
}

func wantSignedBy(t *testing.T, w *world, v *signing.Verifier, ref artifact.Ref, how artifact.How) {
	t.Helper()
	w.fail, w.before = nil, nil
	verdict := w.verify(t, v, ref)
	if !verdict.Signed() {
		t.Fatalf("%s is not signed: %+v", ref, verdict)
	}
	events := w.events(artifact.Signed, ref)
	if len(events) != 1 {
		t.Fatalf("the ledger has %d signed events for %s, want 1", len(events), ref)
	}
	e := events[0]
	if how != "" && e.How != how {
		t.Errorf("how = %q, want %q", e.How, how)
	}
	if !slices.Equal(e.Signatures, verdict.Signatures) || e.PolicyRevision == "" {
		t.Errorf("the event says %+v, the registry %+v", e.Signatures, verdict.Signatures)
	}
	if first := e.Signatures[0]; e.Format != first.Format || e.KeyID != first.KeyID || e.SignatureDigest != first.Digest {
		t.Errorf("event %+v does not repeat its first signature %+v", e, first)
	}
}

func TestSignsOnce(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	if d := w.attempt(t, s, ref, 1); d.ended != "done" {
		t.Fatalf("the delivery ended %q, want done", d.ended)
	}
	got := strings.Join(w.operations, ", ")
	const want = "get manifest, get manifest, keep, push blob, push blob, put manifest, get manifest, record signed, clear dead, ack"
	if got != want {
		t.Errorf("operations:\n got %s\nwant %s", got, want)
	}
	wantSigned(t, w, ref, artifact.Made)

	// A second push of the same digest finds the signature.
	w.receive(t, ref, "push-2")
	if d := w.attempt(t, s, ref, 1); d.ended != "done" {
		t.Fatalf("the second delivery ended %q, want done", d.ended)
	}
	for _, op := range w.operations {
		if op == "put manifest" || op == "push blob" {
			t.Errorf("the second push causes %q", op)
		}
	}
	if events := w.events(artifact.Signed, ref); len(events) != 2 || events[1].How != artifact.Found {
		t.Errorf("signed events after the second push: %+v, want a second one that says found", events)
	}
}

// TestRequestsOfASignature counts: seven operations the first time in a repository, one push less from then on, and
// the guess that saves it is mended when the registry has lost the configuration.
func TestRequestsOfASignature(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	sign := func(n int, want string) {
		t.Helper()
		ref := w.push(t, "demo/app", ociImage, fmt.Sprintf(`{"schemaVersion":2,"n":%d}`, n))
		w.attempt(t, s, ref, 1)
		var requests []string
		for _, op := range w.operations {
			if strings.HasSuffix(op, "manifest") || strings.HasSuffix(op, "blob") {
				requests = append(requests, op)
			}
		}
		if got := strings.Join(requests, ", "); got != want {
			t.Errorf("signature %d:\n got %s\nwant %s", n, got, want)
		}
		wantSigned(t, w, ref, artifact.Made)
	}
	sign(1, "get manifest, get manifest, push blob, push blob, put manifest, get manifest")
	sign(2, "get manifest, get manifest, push blob, put manifest, get manifest")
	clear(w.blobs) // garbage collection
	sign(3, "get manifest, get manifest, push blob, put manifest, push blob, push blob, put manifest, get manifest")
}

// wantState projects the events as the report does.
func wantState(t *testing.T, w *world, ref artifact.Ref, want ledger.State) {
	t.Helper()
	r := ledger.Record{Ref: ref}
	for i, e := range w.ledger {
		if e.Ref == ref {
			r.Apply(artifact.Entry{Seq: uint64(i) + 1, Event: e})
		}
	}
	if got := r.State(); got != want {
		t.Errorf("the report says %s, want %s, from %+v", got, want, w.ledger)
	}
}

// TestAFailureBehindTheSignatureLeavesItSigned fails one step alone: the signer lives, records the failure and tries again.
func TestAFailureBehindTheSignatureLeavesItSigned(t *testing.T) {
	for _, at := range []string{"record signed", "clear dead", "ack"} {
		for _, how := range []mode{fails, failsButPersists} {
			w := newWorld(t, "demo")
			s, _ := newService(t, w)
			ref := w.push(t, "demo/app", ociImage, image)
			failed := false
			w.fail = func(_ int, name string) mode {
				if name == at && !failed {
					failed = true
					return how
				}
				return works
			}
			w.attempt(t, s, ref, 1)
			if _, waits := w.waiting[ref]; waits {
				w.attempt(t, s, ref, 2)
			}
			t.Run(fmt.Sprintf("%s, persisted: %t", at, how == failsButPersists), func(t *testing.T) {
				wantSigned(t, w, ref, "")
				wantState(t, w, ref, ledger.Signed)
				for _, e := range w.events(artifact.Failed, ref) {
					if e.Unsigned || e.AsOf != 0 {
						t.Errorf("the event %+v says unsigned", e)
					}
				}
			})
		}
	}
}

// TestTwins: one digest is in work twice, and the other attempt signs between our lookup and our put.
func TestTwins(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	twin, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.meanwhile(t, "push blob", twin, ref)
	if d := w.attempt(t, s, ref, 1); d.ended != "done" {
		t.Fatalf("the delivery ended %q, want done", d.ended)
	}
	wantSigned(t, w, ref, artifact.Made)
	wantState(t, w, ref, ledger.Signed)
}

// TestGivenUpBeforeItBegan: a request that is buried while no policy can be read is not taken for one that a newer push
// followed.
func TestGivenUpBeforeItBegan(t *testing.T) {
	for _, seq := range []uint64{0, 1} {
		w := newWorld(t, "demo")
		w.policyErr = errors.New("bucket is away")
		s, _ := newService(t, w)
		ref := w.push(t, "demo/app", ociImage, image)
		r := w.waiting[ref]
		r.ReceivedSeq = seq
		d := &delivery{w: w, request: r, attempts: 50, firstSeen: time.Now().Add(-25 * time.Hour)}
		s.Handle(t.Context(), d)
		if d.ended != "buried" {
			t.Fatalf("the delivery ended %q, want buried", d.ended)
		}
		if again, waits := w.waiting[ref]; waits {
			t.Errorf("received sequence %d: %+v was enqueued without a newer push", seq, again)
		}
	}
}

func TestIndexAsksForItsChildrenFirst(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	children := []string{artifact.DigestOf([]byte("a")), artifact.DigestOf([]byte("b"))}
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"digest":%q},{"digest":%q,"platform":{"os":"unknown","architecture":"unknown"}}]}`, ociIndex, children[0], children[1])
	ref := w.push(t, "demo/app", ociIndex, raw)
	w.attempt(t, s, ref, 1)
	wantSigned(t, w, ref, artifact.Made)
	for _, digest := range children {
		child, err := ref.Sibling(digest)
		if err != nil {
			t.Fatal(err)
		}
		r, waits := w.waiting[child]
		if !waits || r.Parent != ref.Digest() || r.Depth != 1 || r.Origin != artifact.OriginIndex {
			t.Errorf("the request for the child %s is %+v (waits: %t), want one that names the index", digest, r, waits)
		}
		if events := w.events(artifact.Queued, child); len(events) != 1 || events[0].Parent != ref.Digest() {
			t.Errorf("queued events of the child: %+v, want one that names the index", events)
		}
	}
	got := strings.Join(w.operations[:6], ", ")
	if want := "get manifest, record queued, enqueue, record queued, enqueue, get manifest"; got != want {
		t.Errorf("operations:\n got %s …\nwant %s …: the children come before the index is signed", got, want)
	}
}

func TestLimitsOfIndexes(t *testing.T) {
	index := func(n int) string {
		var entries []string
		for i := range n {
			entries = append(entries, fmt.Sprintf(`{"digest":%q}`, artifact.DigestOf(fmt.Append(nil, i))))
		}
		return `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[` + strings.Join(entries, ",") + `]}`
	}
	tests := []struct {
		name     string
		children int
		depth    int
		want     string
		reason   fault.Reason
	}{
		{"at the limit of children", signing.MaxChildren, 0, "done", ""},
		{"beyond it", signing.MaxChildren + 1, 0, "buried", fault.TooManyChildren},
		{"at the limit of depth", 1, signing.MaxDepth - 1, "done", ""},
		{"beyond it", 1, signing.MaxDepth, "buried", fault.TooDeep},
		{"an empty index at the limit of depth", 0, signing.MaxDepth, "done", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "demo")
			s, _ := newService(t, w)
			ref := w.push(t, "demo/app", ociIndex, index(tt.children))
			r := w.waiting[ref]
			r.Depth = tt.depth
			w.waiting[ref] = r
			if d := w.attempt(t, s, ref, 1); d.ended != tt.want {
				t.Fatalf("the delivery ended %q, want %q", d.ended, tt.want)
			}
			if tt.want == "buried" && w.dead[ref].Reason != string(tt.reason) {
				t.Errorf("dead letter with reason %q, want %q", w.dead[ref].Reason, tt.reason)
			}
		})
	}
}

func TestWhatIsNotSigned(t *testing.T) {
	signature := `{"schemaVersion":2,"mediaType":"` + ociImage + `","layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json"}]}`
	referrer := `{"schemaVersion":2,"mediaType":"` + ociImage + `","subject":{"digest":"` + artifact.DigestOf(nil) + `"}}`
	tests := []struct {
		name, repository, raw string
		change                func(w *world, ref artifact.Ref)
		kind                  artifact.Kind
		reason                string
	}{
		{"signature", "demo/app", signature, nil, artifact.Skipped, string(policy.IsAccessory)},
		{"referrer", "demo/app", referrer, nil, artifact.Skipped, string(policy.IsAccessory)},
		{"project that is not enabled", "other/app", image, nil, artifact.Skipped, string(policy.NotEnabled)},
		{"gone", "demo/app", image, func(w *world, ref artifact.Ref) { delete(w.manifests, "demo/app "+ref.Digest()) }, artifact.Vanished, ""},
		{"schema 1", "demo/app", `{"schemaVersion":1}`, nil, artifact.Dead, string(fault.UnsupportedManifest)},
		{"garbage", "demo/app", `{`, nil, artifact.Dead, string(fault.Malformed)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "demo")
			s, _ := newService(t, w)
			ref := w.push(t, tt.repository, ociImage, tt.raw)
			if tt.change != nil {
				tt.change(w, ref)
			}
			w.attempt(t, s, ref, 1)
			if _, waits := w.waiting[ref]; waits {
				t.Error("the request still waits")
			}
			events := w.events(tt.kind, ref)
			if len(events) != 1 || events[0].Reason != tt.reason {
				t.Errorf("events of kind %s: %+v, want one with reason %q", tt.kind, events, tt.reason)
			}
			for _, op := range w.operations {
				if op == "put manifest" {
					t.Error("something was written into the registry")
				}
			}
		})
	}
}

func TestUnreadablePolicyIsTransient(t *testing.T) {
	w := newWorld(t, "demo")
	w.policyErr = errors.New("bucket is away")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	if d := w.attempt(t, s, ref, 1); d.ended != "retry" || d.delay <= 0 {
		t.Fatalf("the delivery ended %q with delay %s, want a retry with a delay", d.ended, d.delay)
	}
	w.policyErr = nil
	w.attempt(t, s, ref, 2)
	wantSigned(t, w, ref, artifact.Made)
}

func TestAPushDuringTheWorkIsNotLost(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	m := w.manifests["demo/app "+ref.Digest()]
	delete(w.manifests, "demo/app "+ref.Digest()) // deleted, and pushed again while the signer is about to say "gone"
	pushed := false
	w.before = func(name string) {
		if name == "record gone" && !pushed {
			pushed = true
			w.manifests["demo/app "+ref.Digest()] = m
			if _, err := w.Record(t.Context(), artifact.Event{
				ID: "again", Kind: artifact.Received, Ref: ref, Time: time.Now(), Origin: artifact.OriginWebhook, CorrelationID: "push-2",
			}); err != nil {
				t.Error(err)
			}
			duplicate, err := w.Enqueue(t.Context(), artifact.Request{Ref: ref, Lane: artifact.Live, CorrelationID: "push-2", RequestedAt: time.Now(), ReceivedSeq: 2})
			if err != nil || !duplicate {
				t.Errorf("the second push: duplicate %t, error %v; want a duplicate", duplicate, err)
			}
		}
	}
	w.attempt(t, s, ref, 1)
	if got := w.waiting[ref].Origin; got != artifact.OriginRequeue {
		t.Fatalf("a request of origin %q waits, want %q", got, artifact.OriginRequeue)
	}
	w.attempt(t, s, ref, 1)
	wantSigned(t, w, ref, artifact.Made)
}

func TestNothingIsRequeuedWithoutANewPush(t *testing.T) {
	for _, seq := range []uint64{0, 1} {
		w := newWorld(t, "other")
		s, _ := newService(t, w)
		ref := w.push(t, "demo/app", ociImage, image)
		r := w.waiting[ref]
		r.ReceivedSeq = seq // 0: a sweep asked
		w.waiting[ref] = r
		w.attempt(t, s, ref, 1)
		if r, waits := w.waiting[ref]; waits {
			t.Errorf("received sequence %d: the request %+v waits, want none", seq, r)
		}
	}
}
