package queue_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// blocks counts the files of the ledger's store, and the compressed ones among them.
func blocks(t *testing.T, store string) (all, compressed int) {
	t.Helper()
	err := filepath.WalkDir(store, func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.Contains(path, "/LEDGER/") || filepath.Ext(path) != ".blk" {
			return err
		}
		content, err := os.ReadFile(path) //nolint:gosec // a file of the test
		all++
		if bytes.HasPrefix(content, []byte("cmp")) {
			compressed++
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) { // A block may be replaced meanwhile.
		t.Fatal(err)
	}
	return all, compressed
}

// fillLedger records events until the ledger has so many.
func fillLedger(t *testing.T, client *queue.Client, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		e := event(ref(t, "demo/app", i), artifact.Received, fmt.Sprint("e-", i))
		e.Reason = strings.Repeat("x", 1000)
		record(t, client, e)
	}
}

// An earlier version let the server compress the ledger. What is compressed stays readable, and nothing more is compressed once
// the server was started again.
func TestSetupEndsTheCompressionOfALedger(t *testing.T) {
	t.Parallel()
	cfg := queue.ServerConfig{StoreDir: t.TempDir()}
	server := queuetest.StartServer(t, cfg)
	limits := queue.Limits{LedgerMaxBytes: 120_000} // For blocks of 32 kB.
	client := queuetest.Connect(t, queue.Config{Server: server, Limits: limits})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	js := bare(t, server)
	earlier := streamConfig(t, js, "LEDGER")
	earlier.Compression = jetstream.S2Compression
	if err := js.DeleteStream(t.Context(), "LEDGER"); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), earlier); err != nil {
		t.Fatal(err)
	}
	fillLedger(t, client, 0, 40)
	eventually(t, "a block is compressed", func() bool { _, compressed := blocks(t, cfg.StoreDir); return compressed > 0 })

	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := streamConfig(t, js, "LEDGER").Compression; got != jetstream.NoCompression {
		t.Fatalf("compression %v after Setup, want none", got)
	}
	client.Close()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, compressed := blocks(t, cfg.StoreDir)
	client = queuetest.Connect(t, queue.Config{Server: queuetest.StartServer(t, cfg), Limits: limits})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	fillLedger(t, client, 40, 80)
	if after, now := blocks(t, cfg.StoreDir); after <= before || now != compressed {
		t.Errorf("%d of %d blocks are compressed, want more blocks than %d and still %d compressed", now, after, before, compressed)
	}
	entries, _ := read(t, client, 0).take(t, 80)
	for i, e := range entries {
		if want := fmt.Sprint("e-", i); e.Event.ID != want {
			t.Fatalf("event %d is %q, want %q", i, e.Event.ID, want)
		}
	}
}
