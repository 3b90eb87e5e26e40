package queue_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats-server/v2/server/archive"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/backup"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// copies is a queue as package backup knows it, as the receiver's commands make it.
type copies struct{ *queue.Client }

func (copies) Streams() []string { return queue.SnapshotStreams() }

func (copies) Check(stream string, description json.RawMessage, r io.Reader) (backup.Contents, error) {
	contents, err := queue.CheckSnapshot(stream, description, r)
	return backup.Contents(contents), err
}

func (c copies) Restore(ctx context.Context, stream string, description json.RawMessage, r io.Reader, progress func(int64)) error {
	return c.RestoreStream(ctx, stream, description, r, progress)
}

func (c copies) Remove(ctx context.Context, stream string) error { return c.RemoveStream(ctx, stream) }

// kept is a message as a stream keeps it.
type kept struct {
	Seq     uint64
	Time    time.Time
	Subject string
	Header  string
	Data    string
}

// contents reads a stream without this package's client, up to a sequence.
func contents(t *testing.T, js jetstream.JetStream, stream string, to uint64) map[uint64]kept {
	t.Helper()
	handle, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatalf("stream %s: %v", stream, err)
	}
	found := map[uint64]kept{}
	for from := uint64(1); ; {
		msg, err := handle.GetMsg(t.Context(), from, jetstream.WithGetMsgSubject(">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && msg.Sequence > to {
			return found
		}
		if err != nil {
			t.Fatalf("stream %s from %d: %v", stream, from, err)
		}
		header, err := json.Marshal(msg.Header)
		if err != nil {
			t.Fatal(err)
		}
		found[msg.Sequence] = kept{msg.Sequence, msg.Time, msg.Subject, string(header), string(msg.Data)}
		from = msg.Sequence + 1
	}
}

// fillQueue puts something into every stream, and leaves gaps: a signer's work with c, and a receiver's.
func fillQueue(t *testing.T, c, receiver *queue.Client, n int) {
	t.Helper()
	for i := range n {
		r := ref(t, "shop/cart", i)
		record(t, receiver, event(r, artifact.Received, fmt.Sprintf("received-%d", i)))
		enqueue(t, c, request(r, artifact.Live))
	}
	for i := range 3 {
		if _, err := c.EnqueueDebt(t.Context(), request(ref(t, "shop/cart", i), artifact.Live)); err != nil {
			t.Fatal(err)
		}
	}
	keep(t, c, ref(t, "shop/cart", 7), signature(artifact.Legacy, keyID(1)))
	revision := uint64(0)
	for i := range 5 {
		var err error
		if revision, err = receiver.PutPolicy(t.Context(), book.Policy, "shop", fmt.Appendf(nil, `{"v":%d}`, i), revision); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.SaveState(t.Context(), "full", "shop", []byte("state"), 0); err != nil {
		t.Fatal(err)
	}
	// A dead letter, and gaps where requests were.
	k := consume(t, c, queue.ConsumeConfig{Slots: 4, Drain: time.Millisecond})
	for i := range 4 {
		d := k.next(t)
		var err error
		if i == 0 {
			err = d.Bury(t.Context(), event(d.Request().Ref, artifact.Dead, "dead"))
		} else {
			err = d.Done(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		close(d.finish)
	}
	k.stop()
	<-k.stopped
}

func TestBackupUnderLoadIsRestored(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	fillQueue(t, client, client, 200)

	stop, load := load(t, client)
	dir := filepath.Join(t.TempDir(), "backup")
	m, err := backup.Make(t.Context(), copies{client}, backup.Options{Dir: dir, Harbor: "default", Version: "v1"})
	stop()
	if err != nil {
		t.Fatal(err)
	}
	if load.Load() == 0 {
		t.Error("nothing was recorded while the backup was made")
	}
	raw, err := jetstream.New(queue.RawConnection(t, server))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]map[uint64]kept{}
	for _, stream := range m.Streams {
		want[stream.Stream] = contents(t, raw, stream.Stream, stream.LastSeq)
		if stream.Messages == 0 {
			t.Errorf("the copy of %s is empty", stream.Stream)
		}
	}

	// The restored one, after a restart on its own folder.
	store := filepath.Join(t.TempDir(), "store")
	restoring, err := queue.StartRestoring(t.Context(), queue.ServerConfig{StoreDir: store})
	if err != nil {
		t.Fatal(err)
	}
	into := queuetest.Connect(t, queue.Config{Server: restoring.Server})
	if err := backup.Restore(t.Context(), copies{into}, m, backup.Options{Dir: dir, Harbor: "default"}); err != nil {
		t.Fatal(err)
	}
	into.Close()
	if err := restoring.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := queuetest.StartServer(t, queue.ServerConfig{StoreDir: store})
	restored := queuetest.NewClient(t, again)
	restoredRaw, err := jetstream.New(queue.RawConnection(t, again))
	if err != nil {
		t.Fatal(err)
	}
	for _, stream := range m.Streams {
		got := contents(t, restoredRaw, stream.Stream, stream.LastSeq)
		if uint64(len(got)) != stream.Messages {
			t.Errorf("%s has %d messages, and the manifest says %d", stream.Stream, len(got), stream.Messages)
		}
		for seq, msg := range want[stream.Stream] { // what went away since is in the copy alone
			if !reflect.DeepEqual(got[seq], msg) {
				t.Errorf("%s %d: got %+v, want %+v", stream.Stream, seq, got[seq], msg)
			}
		}
	}
	// Sequences go on behind those of before, and requests are handed out.
	if seq := record(t, restored, event(ref(t, "shop/cart", 1), artifact.Received, "later")); seq != m.Of(queue.LedgerStream).LastSeq+1 {
		t.Errorf("the next event has sequence %d, want %d", seq, m.Of(queue.LedgerStream).LastSeq+1)
	}
	entry, err := restored.GetPolicy(t.Context(), book.Policy, "shop")
	if err != nil || string(entry.Value) != `{"v":4}` {
		t.Errorf("policy is %+v, %v", entry, err)
	}
	if d := consume(t, restored, queue.ConsumeConfig{Slots: 4}).next(t); d.Request().Ref.Project() != "shop" && d.Request().Ref.Project() != "team" {
		t.Errorf("a request of %s is handed out", d.Request().Ref)
	}
}

// load records and enqueues until it is stopped, and counts.
func load(t *testing.T, c *queue.Client) (stop func(), count *atomic.Int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	count = &atomic.Int64{}
	for worker := range 4 {
		running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				r, err := artifact.NewRef("team/app", fmt.Sprintf("sha256:%064x", 1_000_000*worker+i+1))
				if err == nil {
					_, err = c.Record(ctx, event(r, artifact.Received, fmt.Sprintf("load-%d-%d", worker, i)))
				}
				if err == nil {
					_, err = c.Enqueue(ctx, request(r, artifact.Bulk))
				}
				if err != nil && ctx.Err() == nil {
					t.Errorf("under load: %v", err)
					return
				}
				count.Add(1)
			}
		})
	}
	eventuallyLoaded := time.After(patience)
	for count.Load() < 50 {
		select {
		case <-eventuallyLoaded:
			t.Fatal("no load")
		case <-time.After(time.Millisecond):
		}
	}
	return func() { cancel(); running.Wait() }, count
}

func TestRestoringTakesAnEmptyStoreAlone(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	server := queuetest.StartServer(t, queue.ServerConfig{StoreDir: store})
	if _, err := queue.StartRestoring(t.Context(), queue.ServerConfig{StoreDir: store}); err == nil || !strings.Contains(err.Error(), "stop the receiver first") {
		t.Errorf("beside a running receiver: %v", err)
	}
	client := queuetest.NewClient(t, server)
	client.Close()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := queue.StartRestoring(t.Context(), queue.ServerConfig{StoreDir: store}); !errors.Is(err, queue.ErrNotEmpty) {
		t.Errorf("on a store with streams: %v", err)
	}
}

// What was interrupted leaves the store as it was, and can be repeated.
func TestRestoringIsInterrupted(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	left := filepath.Join(store, ".restoring", "jetstream", "$G", "streams", "LEDGER")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	restoring, err := queue.StartRestoring(t.Context(), queue.ServerConfig{StoreDir: store})
	if err != nil {
		t.Fatal(err)
	}
	client := queuetest.Connect(t, queue.Config{Server: restoring.Server})
	if present, err := client.Present(t.Context()); err != nil || len(present) > 0 {
		t.Errorf("the server has %v, %v: what was left behind", present, err)
	}
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if err := restoring.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(store)
	if err != nil || len(entries) != 1 || entries[0].Name() != "lock" {
		t.Errorf("the store has %v, %v: want the lock alone", entries, err)
	}
}

func TestRestoreStreamRefusesWhatIsCutOff(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	fillQueue(t, client, client, 50)
	var snapshot bytes.Buffer
	description, err := client.Snapshot(t.Context(), queue.LedgerStream, &snapshot, nil)
	if err != nil {
		t.Fatal(err)
	}
	found, err := queue.CheckSnapshot(queue.LedgerStream, description, bytes.NewReader(snapshot.Bytes()))
	if err != nil || found.Messages == 0 || found.LastSeq < 50 {
		t.Fatalf("the copy has %+v, %v", found, err)
	}
	target := queuetest.Connect(t, queue.Config{Server: queuetest.NewServer(t)})
	newer := bytes.Replace(description, []byte(`"harborseal_schema":"1"`), []byte(`"harborseal_schema":"2"`), 1)
	flipped := bytes.Clone(snapshot.Bytes())
	flipped[len(flipped)/2] ^= 1
	for _, c := range []struct {
		name        string
		description json.RawMessage
		data        []byte
		want        string
	}{
		{"nothing", description, nil, ""},
		{"half", description, snapshot.Bytes()[:snapshot.Len()/2], ""},
		{"without its end", description, snapshot.Bytes()[:snapshot.Len()-20], ""},
		{"another byte", description, flipped, ""},
		{"newer version", newer, snapshot.Bytes(), "newer version"},
		{"no description", []byte("{}"), snapshot.Bytes(), "description"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := queue.CheckSnapshot(queue.LedgerStream, c.description, bytes.NewReader(c.data))
			wantErrorWith(t, err, c.want)
			err = target.RestoreStream(t.Context(), queue.LedgerStream, c.description, bytes.NewReader(c.data), nil)
			wantErrorWith(t, err, c.want)
			if err := target.RemoveStream(t.Context(), queue.LedgerStream); err != nil {
				t.Error(err)
			}
		})
	}
	if err := target.RestoreStream(t.Context(), queue.LedgerStream, description, bytes.NewReader(snapshot.Bytes()), nil); err != nil {
		t.Errorf("the whole copy: %v", err)
	}
}

// Nothing is left of a copy that cannot be written, neither here nor at the server.
func TestSnapshotEndsWithItsWriter(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	for i, value := range [20][500 << 10]byte{} { // far more than is on its way at once
		if _, err := rand.Read(value[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := client.PutPolicy(t.Context(), book.Policy, fmt.Sprintf("p%d", i), value[:], 0); err != nil {
			t.Fatal(err)
		}
	}
	var w bytes.Buffer
	description, err := client.Snapshot(t.Context(), "KV_POLICIES", &w, nil)
	if err == nil {
		_, err = queue.CheckSnapshot("KV_POLICIES", description, &w)
	}
	if err != nil {
		t.Errorf("a large copy: %v", err)
	}
	if _, err := client.Snapshot(t.Context(), "KV_POLICIES", full{}, nil); !errors.Is(err, errFull) {
		t.Errorf("got %v, want that of the writer", err)
	}
}

var errFull = errors.New("no space left on device")

// full is a disk.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// A backup of servers of their own, by the users of deploy/nats, and a restore onto others.
func TestBackupOfServers(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			from := deploy(t, nodes, nil)
			fillQueue(t, from.connect(t, "signer"), from.connect(t, "receiver"), 20)
			dir := filepath.Join(t.TempDir(), "backup")
			o := backup.Options{Dir: dir, Harbor: "default"}
			by := from.connect(t, "backup")
			m, err := backup.Make(t.Context(), copies{by}, o)
			if err != nil {
				t.Fatal(err)
			}
			made := artifact.Event{ID: "b", Kind: artifact.BackupMade, Time: time.Now(), Origin: artifact.OriginAPI, CorrelationID: "b"}
			if _, err := by.Record(t.Context(), made); err != nil {
				t.Errorf("recording the backup: %v", err)
			}
			if err := backup.Restore(t.Context(), copies{by}, m, o); !errors.Is(err, backup.ErrNotEmpty) {
				t.Errorf("restoring onto what is there: %v", err)
			}

			to := deploy(t, nodes, nil)
			into := to.connect(t, "restore")
			if err := backup.Restore(t.Context(), copies{into}, m, o); err != nil {
				t.Fatal(err)
			}
			if err := into.Setup(t.Context()); err != nil {
				t.Fatal(err)
			}
			signer := to.connect(t, "signer")
			if seq, err := signer.LedgerSeq(t.Context()); err != nil || seq != m.Of(queue.LedgerStream).LastSeq {
				t.Errorf("the ledger ends at %d, %v: want %d", seq, err, m.Of(queue.LedgerStream).LastSeq)
			}
			if d := consume(t, signer, queue.ConsumeConfig{Slots: 4}).next(t); d.Request().Ref.Project() != "shop" {
				t.Errorf("a request of %s is handed out", d.Request().Ref)
			}
		})
	}
}

// What a checksum of S2 does not tell: entries that no server writes.
func TestCheckSnapshotReadsEveryEntry(t *testing.T) {
	t.Parallel()
	state := archive.Header{Name: "state.json"}
	end := archive.Header{}
	msg := func(seq uint64) archive.Header {
		return archive.Header{Name: "ledger.v1.x", Sequence: seq, Timestamp: 1}
	}
	description := []byte(`{"config":{"name":"LEDGER"},"state":{"messages":2,"first_seq":1,"last_seq":2}}`)
	for _, c := range []struct {
		name    string
		entries []archive.Header
		want    string
	}{
		{"good", []archive.Header{state, msg(1), msg(2), end}, ""},
		{"no state", []archive.Header{msg(1), msg(2), end}, "does not begin"},
		{"no end", []archive.Header{state, msg(1), msg(2)}, "before its end"},
		{"another order", []archive.Header{state, msg(2), msg(1), end}, "message 1 comes behind message 2"},
		{"twice the same", []archive.Header{state, msg(1), msg(2), msg(2), end}, "message 2 comes behind message 2"},
		{"one less", []archive.Header{state, msg(1), end}, "the messages 1 to 1"},
		{"one more", []archive.Header{state, msg(1), msg(2), msg(3), end}, "the messages 1 to 3"},
		{"something else", []archive.Header{state, msg(1), {Name: "consumers/x"}, end}, "none of a stream's"},
	} {
		var b bytes.Buffer
		compressed := s2.NewWriter(&b)
		w := archive.NewWriter(compressed)
		for _, e := range c.entries {
			if err := w.WriteHeader(&e); err != nil {
				t.Fatal(err)
			}
		}
		if err := compressed.Close(); err != nil {
			t.Fatal(err)
		}
		found, err := queue.CheckSnapshot(queue.LedgerStream, description, &b)
		if c.want != "" {
			wantErrorWith(t, err, c.want)
		} else if err != nil || found.Messages != 2 || found.LastSeq != 2 {
			t.Errorf("%s: got %+v, %v", c.name, found, err)
		}
	}
}
