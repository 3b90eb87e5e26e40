package queue_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/backup"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// benchEvents is how many events the ledger has in the benchmarks.
const benchEvents = 100_000

// recordPushes records events of about the size of those of a push.
func recordPushes(b *testing.B, client *queue.Client) {
	b.Helper()
	var running sync.WaitGroup
	const workers = 64
	for worker := range workers {
		running.Go(func() {
			for i := worker; i < benchEvents; i += workers {
				r, err := artifact.NewRef("shop/cart", fmt.Sprintf("sha256:%064x", i))
				if err == nil {
					e := event(r, artifact.Received, fmt.Sprintf("%032x", i))
					e.Tag, e.Pusher, e.CorrelationID = "v1.2.3", "robot$ci", e.ID
					_, err = client.Record(b.Context(), e)
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
}

// BenchmarkBackup copies a ledger, checks the copy and restores it: events and bytes (of the copy) in a second.
func BenchmarkBackup(b *testing.B) {
	server := queuetest.NewServer(b)
	client := queuetest.NewClient(b, server)
	recordPushes(b, client)
	var m backup.Manifest
	o, made, root := backup.Options{Harbor: "default"}, 0, b.TempDir()
	rate := func(b *testing.B, bytes int64, since time.Time) {
		b.Helper()
		seconds := time.Since(since).Seconds() / float64(b.N)
		b.ReportMetric(benchEvents/seconds, "events/s")
		b.ReportMetric(float64(bytes)/1e6/seconds, "MB/s")
	}
	b.Run("copy alone", func(b *testing.B) {
		started := time.Now()
		var w bytes.Buffer
		for b.Loop() {
			w.Reset()
			if _, err := client.Snapshot(b.Context(), queue.LedgerStream, &w, nil); err != nil {
				b.Fatal(err)
			}
		}
		rate(b, int64(w.Len()), started)
	})
	b.Run("make", func(b *testing.B) {
		started := time.Now()
		for b.Loop() {
			made++
			o.Dir = filepath.Join(root, fmt.Sprint(made))
			var err error
			if m, err = backup.Make(b.Context(), copies{client}, o); err != nil {
				b.Fatal(err)
			}
		}
		rate(b, m.Bytes(), started)
	})
	b.Run("check", func(b *testing.B) {
		started := time.Now()
		for b.Loop() {
			if _, err := backup.Check(b.Context(), copies{}, queue.SnapshotStreams(), o); err != nil {
				b.Fatal(err)
			}
		}
		rate(b, m.Bytes(), started)
	})
	b.Run("restore", func(b *testing.B) {
		started := time.Now()
		for b.Loop() {
			restoring, err := queue.StartRestoring(b.Context(), queue.ServerConfig{StoreDir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			into := queuetest.Connect(b, queue.Config{Server: restoring.Server})
			if err := backup.Restore(b.Context(), copies{into}, m, o); err != nil {
				b.Fatal(err)
			}
			into.Close()
			if err := restoring.Finish(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		rate(b, m.Bytes(), started)
	})
}
