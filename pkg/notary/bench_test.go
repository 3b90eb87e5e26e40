package notary_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
	"github.com/harborseal/harborseal/pkg/notary"
)

// benchData is as long as that of many events: 600 bytes.
func benchData() string { return fmt.Sprintf(`{"v":1,"kind":"paused","detail":"%0550d"}`, 1) }

// long is a ledger of count events with a checkpoint at the end.
func long(b *testing.B, key *notary.Key, count int) *memory {
	b.Helper()
	m, now := &memory{}, newClock()
	data := benchData()
	for range count {
		m.append(artifact.Event{Kind: artifact.Paused}, data)
	}
	for range 2 {
		if err := notary.Slot(m, key, now.Now); err != nil {
			b.Fatal(err)
		}
	}
	return m
}

// BenchmarkVerify reads 200,000 events: hashing, appending, and comparing with a checkpoint.
func BenchmarkVerify(b *testing.B) {
	key := newKey(b)
	m := long(b, key, 200_000)
	b.ResetTimer()
	for range b.N {
		if r, err := notary.Verify(b.Context(), notary.VerifyConfig{Source: m, Keys: keysOf(b, key)}); err != nil || !r.OK() {
			b.Fatal(r, err)
		}
	}
	b.ReportMetric(float64(b.N*len(m.entries))/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkProof proves events of a log of 1,000,000 in SQLite, and tells what storing them took.
func BenchmarkProof(b *testing.B) {
	key, now, path := newKey(b), newClock(), filepath.Join(b.TempDir(), "ledger.db")
	store, err := sqldb.Open(b.Context(), sqldb.Config{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	const count = 1_000_000
	m := long(b, key, count)
	n, err := notary.New(notary.Config{Ledger: m, Key: key, Store: store, Now: now.Now})
	if err != nil {
		b.Fatal(err)
	}
	started := time.Now()
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = n.Follow(ctx) }()
	until(b, "the leaves", func() bool {
		logs, err := store.Logs(ctx)
		return err == nil && len(logs) == 1
	})
	cancel()
	<-ended
	stored := time.Since(started)
	prover, err := notary.NewProver(n.Keys(), store)
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for i := range b.N {
		if _, err := prover.Proof(b.Context(), uint64(i)*7919%count+1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(count/stored.Seconds(), "stored/s")
	b.StopTimer()
	if err := store.Close(); err != nil { // moves the log into the file
		b.Fatal(err)
	}
	if info, err := os.Stat(path); err == nil {
		b.ReportMetric(float64(info.Size())/count, "bytes/event")
	}
}
