package queue_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// What is no stream lies among the streams: the server says that it is not well, and everything works.
func TestRestartsInVainEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var log logBuffer
	server := queuetest.StartServer(t, queue.Looking(queue.ServerConfig{StoreDir: dir, Logger: newLogger(&log)}, time.Hour))
	client := queuetest.NewClient(t, server)
	var streams string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && e.Name() == "streams" {
			streams = path
		}
		return err
	})
	if err != nil || streams == "" {
		t.Fatalf("the streams are in %q: %v", streams, err)
	}
	stray, now := filepath.Join(streams, "lost+found"), time.Now()
	for round := 1; round <= 2; round++ {
		if err := os.Mkdir(stray, 0o700); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			now = now.Add(time.Hour)
			server.LookAt(now)
		}
		if got := strings.Count(log.String(), "has restarted jetstream"); got != 3*round {
			t.Errorf("round %d: jetstream was restarted %d times, want %d", round, got, 3*round)
		}
		if got := strings.Count(log.String(), "stays broken"); got != round {
			t.Errorf("round %d: that it stays broken was logged %d times, want %d", round, got, round)
		}
		if err := os.Remove(stray); err != nil {
			t.Fatal(err)
		}
		server.LookAt(now)
	}
	eventually(t, "requests are stored", func() bool {
		return client.Writable(t.Context()) == nil
	})
}
