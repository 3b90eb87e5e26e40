package inspect_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/inspect"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	host       = "harbor.example.com"
	repository = "demo/team/app"
	ociImage   = "application/vnd.oci.image.manifest.v1+json"
	ociIndex   = "application/vnd.oci.image.index.v1+json"
)

// world is a registry with images, and a signer beside it whose keys are one, two, three and gone.
type world struct {
	mu        sync.Mutex
	manifests map[string]artifact.Manifest
	blobs     map[string][]byte
	asked     map[string]int // guarded by mu; by what was asked for
	fail      func(what string) error
	policy    policy.Policy
	policyErr error

	log      testLog
	ring     *sigstore.Keyring
	making   *sigstore.Keyring // with which all sign, also the key that is revoked
	formats  formats
	verifier *signing.Verifier
	inspect  *inspect.Inspector
}

func newKey(tb testing.TB) *keys.Key {
	tb.Helper()
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(raw)
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(tb.TempDir(), "key")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		tb.Fatal(err)
	}
	key, err := keys.LoadFile(path, "")
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{
		manifests: map[string]artifact.Manifest{}, blobs: map[string][]byte{}, asked: map[string]int{},
		policy: policy.Policy{
			Project: "demo", Mode: policy.ModeSign, Manager: policy.ByAPI, Revision: "api-7", Terms: policy.Terms{Format: policy.FormatBoth, Key: "one"},
		},
	}
	named := map[string]*keys.Key{}
	var signs []sigstore.NamedKey
	for _, name := range []string{"one", "two", "three", "gone"} {
		named[name] = newKey(tb)
		signs = append(signs, sigstore.NamedKey{Name: name, State: sigstore.Active, Signer: named[name]})
	}
	trust := sigstore.Trust{Logs: []sigstore.EntryVerifier{w.log}, Timestamps: []sigstore.TimestampVerifier{testAuthority{}}}
	var err error
	if w.making, err = sigstore.NewKeyring(signs, trust); err != nil {
		tb.Fatal(err)
	}
	signs[2] = sigstore.NamedKey{Name: "three", State: sigstore.VerifyOnly, Public: named["three"].Public()}
	signs[3] = sigstore.NamedKey{Name: "gone", State: sigstore.Revoked, Public: named["gone"].Public()}
	if w.ring, err = sigstore.NewKeyring(signs, trust); err != nil {
		tb.Fatal(err)
	}
	w.formats = formats{w.ring, sigstore.NewLegacy(w.ring), sigstore.NewBundles(w.ring)}
	if w.verifier, err = signing.NewVerifier(signing.VerifierConfig{
		Registry: registryOf{w}, Keys: w.ring, Legacy: w.formats.legacy, Bundles: w.formats.bundles, Harbor: harborOf{}, PublicHost: host,
		Logs: logTypes{}, Timestamps: true,
	}); err != nil {
		tb.Fatal(err)
	}
	if w.inspect, err = inspect.New(inspect.Config{Registry: w, Verifier: w.verifier, Formats: w.formats, Policies: w, Now: func() time.Time { return noon }}); err != nil {
		tb.Fatal(err)
	}
	return w
}

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func (w *world) Policy(context.Context, string) (policy.Policy, error) { return w.policy, w.policyErr }

func (w *world) ask(what string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[what]++
	if w.fail != nil {
		return w.fail(what)
	}
	return nil
}

func (w *world) Manifest(_ context.Context, _, reference string) (artifact.Manifest, error) {
	if err := w.ask(reference); err != nil {
		return artifact.Manifest{}, err
	}
	if m, found := w.manifests[reference]; found {
		return m, nil
	}
	return artifact.Manifest{}, fault.Newf(fault.Gone, fault.NotFound, "manifest %s is unknown", reference)
}

func (w *world) Blob(_ context.Context, _, digest string, limit int64) ([]byte, error) {
	if err := w.ask(digest); err != nil {
		return nil, err
	}
	raw, found := w.blobs[digest]
	switch {
	case !found:
		return nil, fault.Newf(fault.Gone, fault.NotFound, "blob %s is unknown", digest)
	case int64(len(raw)) > limit:
		return nil, fault.Newf(fault.Permanent, fault.TooLarge, "blob %s is too large", digest)
	default:
		return raw, nil
	}
}

func (w *world) Referrers(_ context.Context, _, digest string) (found []artifact.Descriptor, err error) {
	if err := w.ask("referrers of " + digest); err != nil {
		return nil, err
	}
	for name, m := range w.manifests {
		var named struct {
			ArtifactType string
			Subject      struct{ Digest string }
			Annotations  map[string]string
		}
		if name == m.Digest && json.Unmarshal(m.Raw, &named) == nil && named.Subject.Digest == digest {
			found = append(found, artifact.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Raw)), ArtifactType: named.ArtifactType, Annotations: named.Annotations})
		}
	}
	return found, nil
}

// registryOf is the registry that a verifier is made with.
type registryOf struct{ *world }

func (registryOf) PushBlob(context.Context, string, artifact.Blob) error {
	return errors.New("read only")
}

func (registryOf) PutManifest(context.Context, string, string, artifact.Manifest) error {
	return errors.New("read only")
}

type harborOf struct{}

func (harborOf) ProjectExists(context.Context, string) (bool, error) { return true, nil }

func (harborOf) ProjectID(context.Context, string) (int64, error) { return 1, nil }

func (harborOf) Project(context.Context, string) (artifact.Project, error) {
	return artifact.Project{}, nil
}

func (harborOf) Artifact(context.Context, artifact.Ref) (artifact.Listed, error) {
	return artifact.Listed{}, nil
}

func (harborOf) Bundles(context.Context) (bool, string, error) { return true, "2.15.2", nil }

func (harborOf) LockedBy(context.Context, string, string) (string, error) { return "", nil }

// testLog knows its entries by their bodies.
type testLog struct{}

func (testLog) Name() string         { return "log" }
func (testLog) Type() policy.LogType { return policy.RekorV1 }

func (l testLog) Verify(e artifact.LogEntry, s artifact.Signature) error {
	if string(e.Body) != l.body(s) || string(e.SET) != "promise" {
		return errors.New("not the entry of this signature")
	}
	return nil
}

// body is a body as verifiers want to read it.
func (testLog) body(s artifact.Signature) string {
	type object = map[string]any
	sum := sha256.Sum256(s.Payload)
	hash := object{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}
	key := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: s.PublicKey})
	kind := "hashedrekord"
	spec := object{"data": object{"hash": hash}, "signature": object{"content": s.Bytes, "publicKey": object{"content": key}}}
	if s.Format == artifact.Bundle {
		kind = "dsse"
		spec = object{"envelopeHash": hash, "payloadHash": hash, "signatures": []object{{"signature": base64.StdEncoding.EncodeToString(s.Bytes), "verifier": key}}}
	}
	body, err := json.Marshal(object{"apiVersion": "0.0.1", "kind": kind, "spec": spec})
	if err != nil {
		panic(err)
	}
	return string(body)
}

func (l testLog) enter(s artifact.Signature) *artifact.LogEntry {
	kind := "hashedrekord"
	if s.Format == artifact.Bundle {
		kind = "dsse"
	}
	return &artifact.LogEntry{
		LogID: make([]byte, 32), Kind: kind, Version: "0.0.1", Body: []byte(l.body(s)), Index: 42, IntegratedAt: noon.Unix(), SET: []byte("promise"),
		Proof: &artifact.InclusionProof{Index: 42, TreeSize: 43, RootHash: make([]byte, 32), Hashes: [][]byte{make([]byte, 32)}, Checkpoint: "log\n43\n"},
	}
}

// logTypes are the logs of package signing.
type logTypes struct{}

func (logTypes) Type(name string) (policy.LogType, bool) {
	if name != "log" {
		return "", false
	}
	return policy.RekorV1, true
}

type testAuthority struct{}

func (testAuthority) Name() string { return "authority" }

func (testAuthority) Verify(response, message []byte) (time.Time, error) {
	if !bytes.Equal(response, stampOf(message)) {
		return time.Time{}, errors.New("a timestamp of something else")
	}
	return noon, nil
}

func stampOf(message []byte) []byte { return fmt.Appendf(nil, "stamp\x00%x", sha256.Sum256(message)) }

// formats is what pkg/app/signer makes of package sigstore.
type formats struct {
	ring    *sigstore.Keyring
	legacy  *sigstore.Legacy
	bundles *sigstore.Bundles
}

func (f formats) Tag(digest string) string            { return f.legacy.Tag(digest) }
func (f formats) IsBundle(d artifact.Descriptor) bool { return f.bundles.Candidate(d) }
func (f formats) Key(nameOrID string) (string, bool)  { return f.ring.Named(nameOrID) }
func (f formats) Legacy(ctx context.Context, m artifact.Manifest, c artifact.Claim, limit int, fetch inspect.Fetch) ([]inspect.Reading, bool, error) {
	found, more, err := f.legacy.Examine(ctx, m, c, limit, fetch)
	all := make([]inspect.Reading, 0, len(found))
	for _, r := range found {
		all = append(all, inspect.Reading(r))
	}
	return all, more, err
}

func (f formats) Bundle(ctx context.Context, m artifact.Manifest, c artifact.Claim, fetch inspect.Fetch) (inspect.Reading, bool, error) {
	r, ok, err := f.bundles.Examine(ctx, m, c, fetch)
	return inspect.Reading(r), ok, err
}

// push puts a manifest into the registry.
func (w *world) push(t *testing.T, mediaType, raw string) artifact.Ref {
	t.Helper()
	m := artifact.Manifest{MediaType: mediaType, Digest: artifact.DigestOf([]byte(raw)), Raw: []byte(raw)}
	w.manifests[m.Digest] = m
	ref, err := artifact.NewRef(repository, m.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// image pushes one that differs for each n.
func (w *world) image(t *testing.T, n int) artifact.Ref {
	t.Helper()
	return w.push(t, ociImage, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[],"annotations":{"n":"%d"}}`,
		ociImage, artifact.DigestOf([]byte("{}")), n))
}

// index pushes one that names these.
func (w *world) index(t *testing.T, children ...artifact.Ref) artifact.Ref {
	t.Helper()
	var listed []string
	for _, child := range children {
		listed = append(listed, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, ociImage, child.Digest(), len(w.manifests[child.Digest()].Raw)))
	}
	return w.push(t, ociIndex, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ociIndex, strings.Join(listed, ",")))
}

// made is how a signature is made.
type made struct {
	key     string
	logged  bool
	stamped bool
	claim   *artifact.Claim
	change  func(s *artifact.Signature)
}

// sign attaches a signature in a format, beside those that are there.
func (w *world) sign(t *testing.T, ref artifact.Ref, format artifact.Format, how made) {
	t.Helper()
	claim := artifact.Claim{Identity: host + "/" + ref.Repository(), Digest: ref.Digest(), Annotations: map[string]string{"environment": "production"}}
	if how.claim != nil {
		claim = *how.claim
	}
	s, err := w.making.Sign(t.Context(), how.key, format, claim)
	if err != nil {
		t.Fatal(err)
	}
	if how.change != nil {
		how.change(&s)
	}
	if how.logged {
		s.Entry = w.log.enter(s)
	}
	if how.stamped {
		s.Timestamp = stampOf(s.Bytes)
	}
	var m artifact.Manifest
	var blobs []artifact.Blob
	if format == artifact.Legacy {
		tag := w.formats.legacy.Tag(ref.Digest())
		var existing *artifact.Manifest
		if there, found := w.manifests[tag]; found {
			existing = &there
		}
		if m, blobs, err = w.formats.legacy.Append(existing, s); err == nil {
			w.manifests[tag] = m
		}
	} else {
		subject := w.manifests[ref.Digest()]
		m, blobs, err = w.formats.bundles.Compose(s, artifact.Descriptor{MediaType: subject.MediaType, Digest: ref.Digest(), Size: int64(len(subject.Raw))})
	}
	if err != nil {
		t.Fatal(err)
	}
	w.manifests[m.Digest] = m
	for _, b := range blobs {
		w.blobs[b.Digest] = b.Raw
	}
}

func (w *world) signBoth(t *testing.T, ref artifact.Ref, how made) {
	t.Helper()
	w.sign(t, ref, artifact.Legacy, how)
	w.sign(t, ref, artifact.Bundle, how)
}

// Ask implements the asker of a client: one signer, without a queue.
func (w *world) Ask(ctx context.Context, topic string, request []byte) ([]byte, error) {
	switch topic {
	case inspect.VerifyTopic:
		return w.inspect.AnswerVerify(ctx, request)
	case inspect.EvidenceTopic:
		return w.inspect.AnswerEvidence(ctx, request)
	default:
		return nil, fmt.Errorf("topic %q", topic)
	}
}

// look asks about one manifest.
func (w *world) look(t *testing.T, topic string, q inspect.Question) inspect.Report {
	t.Helper()
	request, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := w.Ask(t.Context(), topic, request)
	if err != nil {
		t.Fatalf("asking %s for %+v: %v", topic, q, err)
	}
	if len(raw) > 1<<20 {
		t.Errorf("the answer has %d bytes, more than the queue takes", len(raw))
	}
	var r inspect.Report
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	return r
}
