package notary_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
	"github.com/harborseal/harborseal/pkg/notary"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const keyName = "registry.example.com/harborseal/default"

// clock is moved by the test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newKey(tb testing.TB) *notary.Key {
	tb.Helper()
	text, err := notary.NewKey()
	if err != nil {
		tb.Fatal(err)
	}
	key, err := notary.ParseKey(text, keyName)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func keysOf(tb testing.TB, keys ...*notary.Key) *notary.Keys {
	tb.Helper()
	var texts []string
	for _, k := range keys {
		texts = append(texts, k.VerifierKey())
	}
	made, err := notary.NewKeys(texts...)
	if err != nil {
		tb.Fatal(err)
	}
	return made
}

func newStore(tb testing.TB) *sqldb.Store {
	tb.Helper()
	store, err := sqldb.Open(tb.Context(), sqldb.Config{Path: filepath.Join(tb.TempDir(), "ledger.db")})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = store.Close() })
	return store
}

// event is one that nobody else records.
func event(i int) artifact.Event {
	id := artifact.EventID(artifact.Paused, artifact.Ref{}, fmt.Sprint(i))
	return artifact.Event{
		ID: id, Kind: artifact.Paused, Time: time.Date(2026, 3, 1, 0, 0, i, 0, time.UTC), CorrelationID: id, Project: fmt.Sprintf("p%d", i%7),
	}
}

// world is a real ledger, with a key and a database.
type world struct {
	t      *testing.T
	server *server.Server
	client *queue.Client
	key    *notary.Key
	store  *sqldb.Store
	clock  *clock
	n      int // events that were recorded
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, key: newKey(t), store: newStore(t), clock: newClock()}
	w.serve()
	return w
}

// serve starts an empty JetStream server of the world's own, which a test can write to as who owns it.
func (w *world) serve() {
	w.t.Helper()
	w.server = startServer(w.t, w.t.TempDir())
	w.client = connect(w.t, w.server)
}

func connect(tb testing.TB, s *server.Server) *queue.Client {
	tb.Helper()
	client := queuetest.Connect(tb, queue.Config{URLs: []string{s.ClientURL()}})
	if err := client.Setup(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return client
}

func startServer(tb testing.TB, dir string) *server.Server {
	tb.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
	})
	if err != nil {
		tb.Fatal(err)
	}
	s.Start()
	tb.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		tb.Fatal("the server does not start")
	}
	return s
}

func (w *world) config() notary.Config {
	return notary.Config{Ledger: w.client, Key: w.key, Store: w.store, Now: w.clock.Now}
}

func (w *world) record(count int) {
	w.t.Helper()
	for range count {
		w.n++
		if _, err := w.client.Record(w.t.Context(), event(w.n)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// running is a notary that follows.
type running struct {
	*notary.Notary
	stop func()
}

// start makes a notary follow until the test ends or it is stopped.
func (w *world) start(cfg notary.Config) *running {
	w.t.Helper()
	n, err := notary.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Follow(ctx) }()
	var once sync.Once
	r := &running{n, func() {
		once.Do(func() {
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				w.t.Errorf("Follow = %v, want context.Canceled", err)
			}
		})
	}}
	w.t.Cleanup(r.stop)
	return r
}

// last is the sequence of the newest event.
func (w *world) last() uint64 {
	w.t.Helper()
	newest, _, err := w.client.NewestOf(w.t.Context(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	return newest.Seq
}

// caughtUp waits until a notary has read everything.
func (w *world) caughtUp(n *running) {
	w.t.Helper()
	last := w.last()
	until(w.t, fmt.Sprintf("the notary to read event %d", last), func() bool { return n.CaughtUp(last) })
}

// tick lets a notary do what is due, until nothing is.
func (w *world) tick(n *running) {
	w.t.Helper()
	w.caughtUp(n)
	w.clock.Advance(time.Minute)
	for range 2 { // an epoch, and its first checkpoint
		if err := n.Tick(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		w.caughtUp(n)
	}
}

// until polls for a condition.
func until(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			tb.Fatalf("waited 20 s for %s", what)
		}
	}
}

// saved waits until the database has the leaves up to a sequence.
func (w *world) saved(seq uint64) {
	w.t.Helper()
	until(w.t, fmt.Sprintf("the leaves up to %d in the database", seq), func() bool {
		logs, err := w.store.Logs(w.t.Context())
		return err == nil && len(logs) > 0 && logs[len(logs)-1].LastSeq >= seq
	})
}

func (w *world) verify(cfg notary.VerifyConfig) notary.Report {
	w.t.Helper()
	cfg.Source, cfg.Keys = w.client, keysOf(w.t, w.key)
	report, err := notary.Verify(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return report
}

func (w *world) jetStream() jetstream.JetStream {
	w.t.Helper()
	connection, err := nats.Connect(w.server.ClientURL())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(connection.Close)
	js, err := jetstream.New(connection)
	if err != nil {
		w.t.Fatal(err)
	}
	return js
}

func (w *world) stream() jetstream.Stream {
	w.t.Helper()
	stream, err := w.jetStream().Stream(w.t.Context(), "LEDGER")
	if err != nil {
		w.t.Fatal(err)
	}
	return stream
}

// message is one that the stream holds.
type message struct {
	seq     uint64
	subject string
	data    []byte
}

func (w *world) messages() []message {
	w.t.Helper()
	var all []message
	ended := errors.New("ended")
	last := w.last()
	err := w.client.Events(w.t.Context(), 0, func(_ context.Context, entries []artifact.Entry) error {
		for _, e := range entries {
			if all = append(all, message{e.Seq, e.Subject, bytes.Clone(e.Data)}); e.Seq == last {
				return ended
			}
		}
		return nil
	})
	if !errors.Is(err, ended) {
		w.t.Fatal(err)
	}
	return all
}

// rewrite makes the stream anew from messages, as who owns the server can, and gives the world of it. What is missing
// between them is made up for by events of another harbor.
func (w *world) rewrite(messages []message) *world {
	w.t.Helper()
	next := &world{t: w.t, key: w.key, store: w.store, clock: w.clock, n: w.n}
	next.serve()
	js := next.jetStream()
	for at, m := 1, messages; len(m) > 0; at++ {
		if m[0].seq > uint64(at) {
			if _, err := js.Publish(w.t.Context(), "ledger.v1.other.paused.x.y", nil); err != nil {
				w.t.Fatal(err)
			}
			continue
		}
		if _, err := js.Publish(w.t.Context(), m[0].subject, m[0].data); err != nil {
			w.t.Fatal(err)
		}
		m = m[1:]
	}
	return next
}

// wantFindings compares kinds and sequences.
func wantFindings(t *testing.T, report notary.Report, want ...string) {
	t.Helper()
	var got []string
	for _, f := range report.Findings {
		got = append(got, fmt.Sprintf("%s %d-%d", f.Kind, f.From, f.To))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("findings %q, want %q (%+v)", got, want, report)
	}
}
