package notary_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/notary"
)

func TestLoadKey(t *testing.T) {
	t.Parallel()
	good, err := notary.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		t.Fatalf("the key is a %T", parsed)
	}
	public := private.Public()
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ledger.pem")
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if key, err := notary.LoadKey(path, keyName, other.Public()); err != nil || key.Name() != keyName {
		t.Errorf("LoadKey: %v", err)
	}
	if _, err := notary.LoadKey(path, keyName, public); err == nil || !strings.Contains(err.Error(), "signs images") {
		t.Errorf("LoadKey of an image key = %v, want a refusal", err)
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "no PEM": []byte("secret"), "ECDSA": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"another block": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	} {
		if _, err := notary.ParseKey(text, keyName); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v, want one without the content", name, err)
		}
	}
	if _, err := notary.ParseKey(good, "a name with blanks"); err == nil {
		t.Error("a name with blanks is taken")
	}
}

// What others call a checkpoint is what is signed here.
func TestCheckpointIsWhatOthersRead(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	signed, err := notary.SignCheckpoint(key, 3, 42, [notary.HashSize]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(key.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	c, rest, _, err := log.ParseCheckpoint([]byte(signed), notary.Origin(keyName, 3), verifier)
	if err != nil || c.Size != 42 || !bytes.Equal(c.Hash[:3], []byte{1, 2, 3}) || len(rest) != 0 {
		t.Errorf("ParseCheckpoint = %+v, %q, %v", c, rest, err)
	}
	own, err := notary.OpenCheckpoint(keysOf(t, key), signed)
	if err != nil || own.Size != 42 || own.Epoch != 3 || own.Root != [notary.HashSize]byte{1, 2, 3} {
		t.Errorf("OpenCheckpoint = %+v, %v", own, err)
	}
	if _, err := notary.OpenCheckpoint(keysOf(t, newKey(t)), signed); err == nil {
		t.Error("a checkpoint of another key is taken")
	}
}

// After a change of keys, the notes of the key before stay valid if it is named.
func TestChangeOfKeys(t *testing.T) {
	t.Parallel()
	w := history(t)
	before := w.key
	w.key = newKey(t)
	cfg := w.config()
	cfg.VerifierKeys = []string{before.VerifierKey()}
	w.record(5)
	n := w.start(cfg)
	w.tick(n)
	n.stop()
	report, err := notary.Verify(t.Context(), notary.VerifyConfig{Source: w.client, Keys: keysOf(t, w.key, before), Store: w.store})
	if err != nil || !report.OK() || report.Checkpoints != 4 || len(report.Epochs) != 1 {
		t.Errorf("report %+v, %v; want 4 checkpoints, one epoch, nothing found", report, err)
	}
	wantNot := w.verify(notary.VerifyConfig{})
	if wantNot.OK() {
		t.Error("the notes of a key that is not named are taken")
	}
}

// Two notaries record one checkpoint in each slot, and agree.
func TestTwoNotaries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.record(5)
	a, b := w.start(w.config()), w.start(w.config())
	for range 4 {
		w.tick(a)
		w.caughtUp(b)
		if err := b.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.record(3)
	}
	w.caughtUp(a)
	w.caughtUp(b)
	if x, y := a.Summary(), b.Summary(); x.Checkpoint != y.Checkpoint || x.Size == 0 || len(x.Findings)+len(y.Findings) > 0 {
		t.Errorf("summaries differ: %+v and %+v", x, y)
	}
	report := w.verify(notary.VerifyConfig{Store: w.store})
	if !report.OK() || report.Checkpoints != 4 || len(report.Epochs) != 1 {
		t.Errorf("%d checkpoints, %d epochs, findings %v; want 4, 1, none", report.Checkpoints, len(report.Epochs), report.Findings)
	}
}

// An idle ledger gets a checkpoint each hour alone.
func TestIdle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.record(5)
	n := w.start(w.config())
	w.tick(n)
	last := w.last()
	for range 59 {
		w.tick(n)
	}
	if got := w.last(); got != last {
		t.Errorf("%d events in an idle hour, want none", got-last)
	}
	w.tick(n)
	if got := w.last(); got != last+1 {
		t.Errorf("%d events after an idle hour, want a checkpoint", got-last)
	}
}

// Each event that a checkpoint covers is proved, over restarts and an emptied database.
func TestProofs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.record(300)
	n := w.start(w.config())
	w.tick(n)
	w.record(260)
	w.tick(n)
	n.stop()
	w.store = newStore(t) // it was deleted
	n = w.start(w.config())
	w.record(7)
	w.tick(n)
	w.saved(w.last() - 1)
	prover, err := notary.NewProver(n.Keys(), w.store)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range w.messages()[:w.last()-1] {
		p, err := prover.Proof(t.Context(), m.seq)
		if err != nil {
			t.Fatalf("event %d: %v", m.seq, err)
		}
		hash := notary.LeafHash(m.seq, m.subject, m.data)
		if err := notary.VerifyProof(n.Keys(), p); err != nil || !bytes.Equal(hash[:], p.LeafHash) {
			t.Fatalf("proof of event %d: %v", m.seq, err)
		}
		p.LeafHash = bytes.Clone(p.LeafHash)
		p.LeafHash[0]++
		if notary.VerifyProof(n.Keys(), p) == nil {
			t.Fatalf("event %d: a proof of something else is taken", m.seq)
		}
	}
	if _, err := prover.Proof(t.Context(), w.last()); !errors.Is(err, notary.ErrNoProof) {
		t.Errorf("proof of an event that no checkpoint covers: %v", err)
	}
}

// A restore opens an epoch, and what is known of the time that was lost is explained by it.
func TestRestored(t *testing.T) {
	t.Parallel()
	w := history(t)
	restored := w.rewrite(w.messages()[:28])
	if _, err := restored.client.Record(t.Context(), artifact.Event{
		ID: "restored-1", Kind: artifact.Restored, Time: w.clock.Now(), CorrelationID: "restored-1",
	}); err != nil {
		t.Fatal(err)
	}
	n := restored.start(restored.config())
	restored.tick(n)
	restored.record(20)
	restored.tick(n)
	s := n.Summary()
	if s.Epoch != 2 || len(s.Findings) > 0 || s.Epochs[len(s.Epochs)-1].Reason != notary.AfterRestore || s.Epochs[len(s.Epochs)-1].First != 23 {
		t.Errorf("summary %+v, want epoch 2 from 23 on and no finding", s)
	}
	restored.saved(restored.last() - 1)
	report := restored.verify(notary.VerifyConfig{Store: w.store})
	if !report.OK() || len(report.Notes) == 0 || len(report.Epochs) != 2 {
		t.Errorf("report %+v, want a note about what was lost, and no finding", report)
	}
}

// Events that have expired are no finding.
func TestRetention(t *testing.T) {
	t.Parallel()
	for _, keep := range []uint64{5, 12, 13, 20, 30} {
		w := history(t)
		js := w.jetStream()
		made := w.stream().CachedInfo().Config
		next := &world{t: t, key: w.key, store: newStore(t), clock: w.clock, n: w.n}
		next.serve()
		if err := next.jetStream().DeleteStream(t.Context(), "LEDGER"); err != nil {
			t.Fatal(err)
		}
		made.FirstSeq = keep
		if _, err := next.jetStream().CreateStream(t.Context(), made); err != nil {
			t.Fatal(err)
		}
		_ = js
		for _, m := range w.messages() {
			if m.seq < keep {
				continue
			}
			if _, err := next.jetStream().Publish(t.Context(), m.subject, m.data); err != nil {
				t.Fatal(err)
			}
		}
		report := next.verify(notary.VerifyConfig{Store: w.store})
		if !report.OK() || len(report.Notes) == 0 || report.First != keep {
			t.Errorf("from %d: report %+v, want notes and no finding", keep, report)
		}
		n := next.start(next.config()) // with an empty database
		next.record(3)
		next.tick(n)
		if s := n.Summary(); len(s.Findings) > 0 || s.Size == 0 {
			t.Errorf("from %d: %+v, want a checkpoint", keep, s)
		}
		next.saved(next.last() - 1)
		prover, err := notary.NewProver(n.Keys(), next.store)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := prover.Proof(t.Context(), next.last()-2); err != nil {
			t.Errorf("from %d: %v", keep, err)
		}
		n.stop()
	}
}

// The second place finds what the ledger and the database have lost.
func TestSecondPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "checkpoints.jsonl")
	file := notary.NewFile(path)
	w.record(10)
	n := w.start(w.config())
	w.tick(n)
	early := w.messages()
	w.record(10)
	w.tick(n)
	n.stop()
	newest, _, err := w.client.NewestOf(t.Context(), artifact.Checkpointed)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("half a li"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := file.Send(t.Context(), *newest.Event.Checkpoint); err != nil {
		t.Fatal(err)
	}
	known, skipped, err := notary.ReadFile(path, keysOf(t, w.key))
	if err != nil || len(known) != 1 || skipped != 1 {
		t.Fatalf("ReadFile = %+v, %d, %v", known, skipped, err)
	}
	wantFindings(t, w.verify(notary.VerifyConfig{Known: known}))
	old := w.rewrite(early)
	old.store = newStore(t)
	wantFindings(t, old.verify(notary.VerifyConfig{Store: old.store}))
	wantFindings(t, old.verify(notary.VerifyConfig{Known: known}), "rolled_back 13-22")
	cfg := old.config()
	cfg.CheckpointsFile = path
	n = old.start(cfg)
	old.tick(n)
	if s := n.Summary(); s.Epoch != 2 || len(s.Findings) != 1 || s.Findings[0].Kind != notary.RolledBack {
		t.Errorf("summary %+v, want epoch 2 and a finding", s)
	}
}

// A page of a login that answers 200 has not kept a checkpoint.
func TestWebhookFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/checkpoints" {
			http.Redirect(w, r, "/login", http.StatusFound)
		}
	}))
	t.Cleanup(served.Close)
	hook, err := notary.NewWebhook(served.URL+"/checkpoints", func() ([]byte, error) { return []byte("secret"), nil }, served.Client())
	if err != nil {
		t.Fatal(err)
	}
	if err := hook.Send(t.Context(), artifact.CheckpointRecord{Epoch: 1}); err == nil || !strings.Contains(err.Error(), "302") {
		t.Errorf("Send = %v, want the answer 302 for a failure", err)
	}
}

// A notary that meets a checkpoint that does not fit its tree signs nothing any more.
func TestNothingIsSignedThatDoesNotFit(t *testing.T) {
	t.Parallel()
	w := history(t)
	all := w.messages()
	all[24].data = bytes.Replace(all[24].data, []byte("paused"), []byte("resumed"), 1)
	forged := w.rewrite(all)
	forged.store = newStore(t)
	n := forged.start(forged.config())
	forged.caughtUp(n)
	last := forged.last()
	forged.record(3)
	forged.tick(n)
	newest, _, err := forged.client.NewestOf(t.Context(), artifact.Checkpointed)
	if err != nil || newest.Seq > last {
		t.Errorf("checkpoint at %d, %v; want none behind %d", newest.Seq, err, last)
	}
	if s := n.Summary(); !s.Halted || len(s.Findings) != 1 {
		t.Errorf("summary %+v, want it halted with a finding", s)
	}
	if _, found, err := forged.client.NewestOf(t.Context(), artifact.Tampered); err != nil || !found {
		t.Errorf("no tampered event: %v", err)
	}
}

// crashing fails to record, before or after it is done.
type crashing struct {
	notary.Ledger
	after, before bool
}

func (c *crashing) Record(ctx context.Context, e artifact.Event) (uint64, error) {
	if c.before {
		return 0, errors.New("crashed")
	}
	seq, err := c.Ledger.Record(ctx, e)
	if c.after {
		return 0, errors.New("crashed")
	}
	return seq, err
}

// brokenStore fails to store.
type brokenStore struct{ notary.Store }

func (brokenStore) SaveLog(context.Context, notary.Log, notary.Log, []notary.Tile) error {
	return errors.New("the disk is full")
}

func TestCrashes(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(cfg *notary.Config){
		"before the event is recorded": func(cfg *notary.Config) { cfg.Ledger = &crashing{Ledger: cfg.Ledger, before: true} },
		"after the event is recorded":  func(cfg *notary.Config) { cfg.Ledger = &crashing{Ledger: cfg.Ledger, after: true} },
		"before the leaves are stored": func(cfg *notary.Config) { cfg.Store = brokenStore{cfg.Store} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for range 3 {
				w.record(10)
				cfg := w.config()
				change(&cfg)
				n := w.start(cfg)
				w.caughtUp(n)
				for range 2 {
					_ = n.Tick(t.Context())
					w.caughtUp(n)
				}
				n.stop()
				n = w.start(w.config())
				w.tick(n)
				w.saved(w.last() - 1)
				n.stop()
			}
			report := w.verify(notary.VerifyConfig{Store: w.store})
			if !report.OK() || report.Compared < w.last()-1 || report.Checkpoints < 3 {
				t.Errorf("report %+v, want all compared and nothing found", report)
			}
		})
	}
}

func FuzzReadCheckpoints(f *testing.F) {
	key := newKey(f)
	keys := keysOf(f, key)
	signed, err := notary.SignCheckpoint(key, 1, 0, [notary.HashSize]byte{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(signed))
	f.Add([]byte(`{"epoch":1,"size":0,"note":"x","frontier":["AA=="]}` + "\n\n{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if known, _, err := notary.ReadCheckpoints(bytes.NewReader(data), "fuzz", keys); err != nil || len(known) > 0 {
			t.Errorf("ReadCheckpoints = %v, %v; nobody has signed these", known, err)
		}
		if c, err := notary.OpenCheckpoint(keys, string(data)); err == nil && c.Epoch != 1 {
			t.Errorf("OpenCheckpoint = %+v", c)
		}
	})
}
