package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// watcher is a running WatchPolicies with what it knows.
type watcher struct {
	loaded chan struct{}
	ended  chan error

	mu      sync.Mutex
	entries map[string]book.Entry // guarded by mu; by kind and project
	applied []book.Entry          // guarded by mu
	loads   int                   // guarded by mu
	losses  int                   // guarded by mu
}

// watchPolicies starts a watcher and stops it at the end of the test.
func watchPolicies(t *testing.T, c *queue.Client) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{loaded: make(chan struct{}), ended: make(chan error, 1), entries: map[string]book.Entry{}}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.ended <- c.WatchPolicies(ctx, func(e book.Entry) {
			w.mu.Lock()
			defer w.mu.Unlock()
			key := fmt.Sprintf("%s/%s", e.Kind, e.Project)
			if known := w.entries[key].Revision; e.Revision <= known {
				t.Errorf("%s: revision %d after %d", key, e.Revision, known)
			}
			w.entries[key] = e
			w.applied = append(w.applied, e)
		}, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.loads++; w.loads == 1 {
				close(w.loaded)
			}
			if w.loads != w.losses+1 {
				t.Errorf("loaded was called %d times and lost %d, want them in turn", w.loads, w.losses)
			}
		}, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.losses++; w.losses != w.loads {
				t.Errorf("lost was called %d times and loaded %d, want them in turn", w.losses, w.loads)
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-stopped
	})
	return w
}

// values gives what is not deleted.
func (w *watcher) values() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	values := map[string]string{}
	for key, e := range w.entries {
		if len(e.Value) > 0 {
			values[key] = string(e.Value)
		}
	}
	return values
}

func (w *watcher) await(t *testing.T, want map[string]string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the watcher knows %v", want), func() bool { return maps.Equal(w.values(), want) })
}

func TestWatchPolicies(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	old := putPolicy(t, client, book.Policy, "my.project", "old", 0)
	revision := putPolicy(t, client, book.Policy, "my.project", "one", old)
	gone := putPolicy(t, client, book.Policy, "gone", "one", 0)
	if err := client.DeletePolicy(t.Context(), book.Policy, "gone", gone); err != nil {
		t.Fatal(err)
	}
	putPolicy(t, client, book.Pause, "", "pause", 0)
	putPolicy(t, client, book.Declared, "", "declared", 0)
	putPolicy(t, queuetest.Connect(t, queue.Config{Server: server, Harbor: "other"}), book.Policy, "foreign", "one", 0)

	w := watchPolicies(t, queuetest.NewClient(t, server))
	receive(t, w.loaded, "the first values")
	// Nothing of it may come later than loaded.
	want := map[string]string{"policy/my.project": "one", "pause/": "pause", "declared/": "declared"}
	if got := w.values(); !maps.Equal(got, want) {
		t.Fatalf("when loaded: got %v, want %v", got, want)
	}
	w.mu.Lock()
	first, deleted, count := w.entries["policy/my.project"], w.entries["policy/gone"], len(w.applied)
	w.mu.Unlock()
	if first.Revision != revision || time.Since(first.At) > time.Minute {
		t.Errorf("got %+v, want revision %d, just now", first, revision)
	}
	if deleted.Revision <= gone || deleted.Kind != book.Policy || deleted.Project != "gone" {
		t.Errorf("a deleted entry came as %+v, want a revision above %d", deleted, gone)
	}
	if count != 4 {
		t.Errorf("%d entries were applied, want the newest of each, 4", count)
	}

	next := putPolicy(t, client, book.Policy, "my.project", "two", revision)
	putPolicy(t, client, book.State, "my.project", "state", 0)
	want["policy/my.project"], want["state/my.project"] = "two", "state"
	w.await(t, want)
	if err := client.DeletePolicy(t.Context(), book.Policy, "my.project", next); err != nil {
		t.Fatal(err)
	}
	delete(want, "policy/my.project")
	w.await(t, want)
}

func TestWatchOfAnEmptyBucket(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	w := watchPolicies(t, client)
	receive(t, w.loaded, "the end of nothing")
	putPolicy(t, client, book.Policy, "demo", "one", 0)
	w.await(t, map[string]string{"policy/demo": "one"})
}

// Values that this program cannot place are passed over; one that it cannot hold makes the policy of its project unknown,
// and no other.
func TestWatchPassesOverWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	js := bare(t, server)
	document, err := policy.Pause{Paused: true, By: "admin"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	putPolicy(t, client, book.Pause, "demo", string(document), 0)
	publish := func(subject string, size int) {
		t.Helper()
		if _, err := js.Publish(t.Context(), subject, bytes.Repeat([]byte("1"), size)); err != nil {
			t.Fatal(err)
		}
	}
	publish(queue.PolicySubject("default", "blessing", "demo"), 1)
	publish("$KV.POLICIES.v1.default.policy.NOT-BASE32", 1)
	publish("$KV.POLICIES.v1.default.policy.mrsw23y.more", 1)
	publish(queue.PolicySubject("default", book.Policy, "large"), 1000<<10+1)
	publish(queue.PolicySubject("default", book.Policy, "empty"), 0)

	b := book.New(policy.Terms{})
	loaded := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() {
		stopped <- client.WatchPolicies(ctx, func(e book.Entry) {
			if e.Kind == "blessing" {
				t.Errorf("an entry of an unknown kind was applied: %+v", e)
			}
			b.Apply(e)
		}, func() {
			b.Loaded()
			close(loaded)
		}, nil)
	}()
	receive(t, loaded, "the first values")
	if p, err := b.Policy(t.Context(), "demo"); err != nil || p.Pause == nil {
		t.Errorf("Policy(demo) = %+v, %v; want it paused", p, err)
	}
	for _, project := range []string{"large", "empty"} {
		if _, err := b.Policy(t.Context(), project); err == nil {
			t.Errorf("the policy of project %q is known, want an error", project)
		}
	}
	cancel()
	if err := receive(t, stopped, "the end"); !errors.Is(err, context.Canceled) {
		t.Errorf("WatchPolicies = %v, want context.Canceled", err)
	}
}

// Changes while the server restarts, again and again, and while the watcher reads: the watcher ends with the last of each.
func TestWatchSurvivesRestarts(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}
	writer, reader := queuetest.Connect(t, clientCfg), queuetest.Connect(t, clientCfg)
	if err := writer.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := watchPolicies(t, reader)
	receive(t, w.loaded, "the end of nothing")

	want := map[string]string{}
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range 300 {
			project := fmt.Sprintf("project-%d", i%7)
			key := "policy/" + project
			insist(t, func(ctx context.Context) error {
				entry, err := writer.GetPolicy(ctx, book.Policy, project)
				switch {
				case err != nil:
					return err
				case i%5 == 4:
					delete(want, key)
					return writer.DeletePolicy(ctx, book.Policy, project, entry.Revision)
				}
				want[key] = fmt.Sprint("value ", i)
				_, err = writer.PutPolicy(ctx, book.Policy, project, []byte(want[key]), entry.Revision)
				return err
			})
		}
	}()
	for _, n := range []int{20, 60} {
		eventually(t, "some changes were seen", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.applied) > n
		})
		server = startAgain(t, server, serverCfg)
	}
	receive(t, written, "all changes to be written")
	w.await(t, want)
}

// A bucket that was made anew has no old revision: what it no longer holds is deleted, and a change counts, although its
// stream has begun again. A book that lived through it must know it.
func TestWatchOfABucketMadeAnew(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	for i := range 10 {
		putPolicy(t, client, book.State, "kept", fmt.Sprint(i), getPolicy(t, client, book.State, "kept").Revision)
	}
	last := putPolicy(t, client, book.Policy, "lost", "one", 0)
	w := watchPolicies(t, queuetest.NewClient(t, server))
	receive(t, w.loaded, "the first values")
	w.await(t, map[string]string{"state/kept": "9", "policy/lost": "one"})

	if err := bare(t, server).DeleteStream(t.Context(), "KV_POLICIES"); err != nil {
		t.Fatal(err)
	}
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if first := putPolicy(t, client, book.State, "kept", "again", 0); first <= last {
		t.Errorf("the new bucket begins at revision %d, want one above %d", first, last)
	}
	w.await(t, map[string]string{"state/kept": "again"})
	putPolicy(t, client, book.Policy, "lost", "two", 0)
	w.await(t, map[string]string{"state/kept": "again", "policy/lost": "two"})
}

// The same with nothing in it, behind a restart: the server lost its store.
func TestWatchOfAServerThatLostItsStore(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}
	client := queuetest.Connect(t, clientCfg)
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	putPolicy(t, client, book.Policy, "demo", "one", 0)
	w := watchPolicies(t, client)
	w.await(t, map[string]string{"policy/demo": "one"})
	serverCfg.StoreDir = filepath.Join(t.TempDir(), "other")
	startAgain(t, server, serverCfg)
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.await(t, map[string]string{})
	putPolicy(t, client, book.Policy, "demo", "two", 0)
	w.await(t, map[string]string{"policy/demo": "two"})
}

// An older copy of the bucket gives revisions a second time: whoever lived through it cannot know what is true.
func TestWatchOfABucketThatWentBack(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}
	client := queuetest.Connect(t, clientCfg)
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	revision := putPolicy(t, client, book.Policy, "demo", "one", 0)
	server = startAgain(t, server, serverCfg) // So that everything is in the files.
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(backup, os.DirFS(serverCfg.StoreDir)); err != nil {
		t.Fatal(err)
	}
	w := watchPolicies(t, client)
	receive(t, w.loaded, "the first values")
	insist(t, func(ctx context.Context) error {
		_, err := client.PutPolicy(ctx, book.Policy, "demo", []byte("two"), revision)
		return err
	})
	w.await(t, map[string]string{"policy/demo": "two"})
	serverCfg.StoreDir = backup
	startAgain(t, server, serverCfg)
	wantFault(t, receive(t, w.ended, "the end of the watch"), fault.Permanent, fault.Rejected)
}

// Without a connection nobody knows what is changed: whoever decides by the policies hears of it at once, not when there is
// another connection.
func TestALostConnectionIsToldAtOnce(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}
	reader := queuetest.Connect(t, clientCfg)
	if err := reader.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := watchPolicies(t, reader)
	receive(t, w.loaded, "the first values")
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the watcher knows that it may miss changes", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.losses == 1
	})
}
