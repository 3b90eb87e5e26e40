package notary_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/notary"
)

// Run makes checkpoints, sends them to the second places, repeats what failed, and verifies.
func TestRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.record(10)
	var failed atomic.Int32
	received := make(chan artifact.CheckpointRecord, 100)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, []byte("secret"))
		mac.Write(body)
		var record artifact.CheckpointRecord
		switch {
		case r.Header.Get(notary.SignatureHeader) != "sha256="+hex.EncodeToString(mac.Sum(nil)) || json.Unmarshal(body, &record) != nil:
			rw.WriteHeader(http.StatusForbidden)
		case failed.Add(1) == 1:
			rw.WriteHeader(http.StatusServiceUnavailable)
		default:
			received <- record
		}
	}))
	defer server.Close()
	hook, err := notary.NewWebhook(server.URL, func() ([]byte, error) { return []byte("secret"), nil }, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "checkpoints.jsonl")
	ticks := make(chan time.Time)
	cfg := w.config()
	cfg.File, cfg.CheckpointsFile, cfg.Webhook = notary.NewFile(path), path, hook
	cfg.Ticks = func(time.Duration) (<-chan time.Time, func()) { return ticks, func() {} }
	n, err := notary.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	var got artifact.CheckpointRecord
	until(t, "a checkpoint at the webhook, a verification, and the file", func() bool {
		select {
		case ticks <- time.Time{}:
			w.clock.Advance(time.Minute)
		case got = <-received:
		default:
		}
		known, _, err := notary.ReadFile(path, n.Keys())
		return got.Size > 0 && err == nil && len(known) > 0 && !n.Summary().VerifiedAt.IsZero()
	})
	if _, _, err := notary.OpenRecord(n.Keys(), got); err != nil {
		t.Errorf("the record at the webhook: %v", err)
	}
	if failed.Load() < 2 {
		t.Error("what failed was not sent again")
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want context.Canceled", err)
	}
}

// memory is a ledger without a server, for many histories.
type memory struct{ entries []artifact.Entry }

func (m *memory) LedgerState(context.Context) (first, last uint64, created time.Time, err error) {
	if len(m.entries) == 0 {
		return 1, 0, time.Unix(0, 0), nil
	}
	return m.entries[0].Seq, m.entries[len(m.entries)-1].Seq, time.Unix(0, 0), nil
}

func (m *memory) NewestOf(_ context.Context, kind artifact.Kind) (artifact.Entry, bool, error) {
	for _, e := range slices.Backward(m.entries) {
		if kind == "" || e.Event.Kind == kind {
			return e, true, nil
		}
	}
	return artifact.Entry{}, false, nil
}

func (m *memory) Events(ctx context.Context, after uint64, fn func(context.Context, []artifact.Entry) error) error {
	for len(m.entries) > 0 {
		var batch []artifact.Entry
		for _, e := range m.entries {
			if e.Seq > after {
				batch = append(batch, e)
			}
		}
		if len(batch) == 0 {
			break
		}
		if err := fn(ctx, batch); err != nil {
			return err
		}
		after = batch[len(batch)-1].Seq
	}
	<-ctx.Done()
	return ctx.Err()
}

func (m *memory) append(e artifact.Event, data string) {
	seq := uint64(len(m.entries) + 1)
	m.entries = append(m.entries, artifact.Entry{Seq: seq, Event: e, Subject: "s", Data: []byte(data)})
}

func (m *memory) Record(_ context.Context, e artifact.Event) (uint64, error) {
	data, err := json.Marshal(e)
	if err == nil {
		m.append(e, string(data))
	}
	return uint64(len(m.entries)), err
}

// Whatever the history: it verifies, and with any covered event changed, removed or doubled it does not.
func TestAnyHistory(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	keys := keysOf(t, key)
	rapid.Check(t, func(t *rapid.T) {
		m, now := &memory{}, newClock()
		for range rapid.IntRange(1, 5).Draw(t, "checkpoints") {
			for range rapid.IntRange(0, 9).Draw(t, "events") {
				m.append(artifact.Event{Kind: artifact.Paused}, rapid.String().Draw(t, "data"))
			}
			now.Advance(time.Minute)
			for range 2 { // the epoch, and its checkpoint
				if err := notary.Slot(m, key, now.Now); err != nil {
					t.Fatal(err)
				}
			}
		}
		verify := func(entries []artifact.Entry) notary.Report {
			report, err := notary.Verify(context.Background(), notary.VerifyConfig{Source: &memory{entries}, Keys: keys})
			if err != nil {
				t.Fatal(err)
			}
			return report
		}
		if report := verify(m.entries); !report.OK() {
			t.Fatalf("an honest history: %+v", report.Findings)
		}
		newest, found, _ := m.NewestOf(context.Background(), artifact.Checkpointed)
		if !found {
			return
		}
		last := int(newest.Event.Checkpoint.LastSeq) //nolint:gosec // a few
		at := rapid.IntRange(0, last-1).Draw(t, "place")
		changed := slices.Clone(m.entries)
		changed[at].Data = append(slices.Clone(changed[at].Data), 'x')
		removed := slices.Delete(slices.Clone(m.entries), at, at+1)
		moved := slices.Clone(m.entries)
		moved[at].Data = moved[at+1].Data
		for name, entries := range map[string][]artifact.Entry{"changed": changed, "removed": removed, "moved": moved} {
			same := name == "moved" && string(m.entries[at].Data) == string(m.entries[at+1].Data)
			expired := name == "removed" && at == 0 // the first of a stream cannot be told from what has expired
			if report := verify(entries); report.OK() && !same && !expired {
				t.Fatalf("event %d was %s, and nothing was found: %+v", at+1, name, report)
			}
		}
	})
}
