package queue_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// bare gives direct access to a server in this process, as an operator would have it.
func bare(t *testing.T, server *queue.Server) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(queue.RawConnection(t, server))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// updateStream changes the settings of a stream.
func updateStream(t *testing.T, js jetstream.JetStream, name string, change func(*jetstream.StreamConfig)) {
	t.Helper()
	handle, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	cfg := handle.CachedInfo().Config
	change(&cfg)
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatalf("updating stream %s: %v", name, err)
	}
}

// The server gives one error code for "one is waiting" and for "the stream is full". If this test fails after an upgrade
// of the server, the descriptions have changed, and duplicates would be refused or full streams taken for duplicates.
func TestDuplicateAndFullAreToldApart(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		limit       func(*jetstream.StreamConfig)
		description string
	}{
		{"messages", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgs = 1 }, "maximum messages exceeded"},
		{"bytes", func(cfg *jetstream.StreamConfig) { cfg.MaxBytes = 600 }, "maximum bytes exceeded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := queuetest.NewServer(t)
			client := queuetest.NewClient(t, server)
			updateStream(t, bare(t, server), "SIGN", tt.limit)

			stored, other := request(ref(t, "demo/app", 1), artifact.Live), request(ref(t, "demo/app", 2), artifact.Live)
			if enqueue(t, client, stored) {
				t.Fatal("the first request is a duplicate")
			}
			if !enqueue(t, client, stored) {
				t.Error("a duplicate on a full stream is not called one")
			}
			_, err := client.Enqueue(t.Context(), other)
			wantFault(t, err, fault.Transient, fault.QueueFull)
			var apiErr *jetstream.APIError
			if !errors.As(err, &apiErr) || apiErr.ErrorCode != 10077 || apiErr.Description != tt.description {
				t.Errorf("the server says %+v, want code 10077 %q", apiErr, tt.description)
			}
		})
	}
}

func TestDuplicateDescription(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	r := request(ref(t, "demo/app", 1), artifact.Live)
	enqueue(t, client, r)
	_, err := bare(t, server).Publish(t.Context(), queue.SignSubject("default", r.Lane, r.Ref), []byte("x"))
	var apiErr *jetstream.APIError
	if !errors.As(err, &apiErr) || apiErr.ErrorCode != 10077 || apiErr.Description != "maximum messages per subject exceeded" {
		t.Errorf("the server says %+v, want code 10077 %q", apiErr, "maximum messages per subject exceeded")
	}
}

func TestStoreFullAndRoomAgain(t *testing.T) {
	t.Parallel()
	server := queuetest.StartServer(t, queue.ServerConfig{StoreDir: t.TempDir(), MaxStore: 64 << 10})
	client := queuetest.NewClient(t, server)
	js := bare(t, server)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "BALLAST", Subjects: []string{"ballast"}}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := js.Publish(t.Context(), "ballast", make([]byte, 8<<10)); err != nil {
			break
		}
	}
	r := request(ref(t, "demo/app", 1), artifact.Live)
	_, err := client.Enqueue(t.Context(), r)
	wantFault(t, err, fault.Transient, fault.QueueFull)
	_, err = client.Record(t.Context(), event(r.Ref, artifact.Received, "e-1"))
	wantFault(t, err, fault.Transient, fault.QueueFull)
	wantFault(t, client.Writable(t.Context()), fault.Transient, fault.QueueFull)
	// A program that has not tried to publish knows it as well.
	wantFault(t, queuetest.Connect(t, queue.Config{Server: server}).Writable(t.Context()), fault.Transient, fault.QueueFull)

	if err := js.DeleteStream(t.Context(), "BALLAST"); err != nil {
		t.Fatal(err)
	}
	if enqueue(t, client, r) {
		t.Error("the refused request was stored")
	}
	record(t, client, event(r.Ref, artifact.Received, "e-1"))
	// The server removes the files of a stream later, and calls it broken until then.
	eventually(t, "the server is writable again", func() bool { return client.Writable(t.Context()) == nil })
}

func TestPublishWithoutStreams(t *testing.T) {
	t.Parallel()
	client := queuetest.Connect(t, queue.Config{Server: queuetest.NewServer(t)})
	r := ref(t, "demo/app", 1)
	_, err := client.Enqueue(t.Context(), request(r, artifact.Live))
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	_, err = client.Record(t.Context(), event(r, artifact.Received, "e-1"))
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	wantFault(t, client.Writable(t.Context()), fault.Transient, fault.QueueUnavailable)
	_, _, err = client.LastReceived(t.Context(), r)
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	_, _, err = client.DeadSince(t.Context(), r)
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
}

func TestPublishToAStoppedServer(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	if err := client.Writable(t.Context()); err != nil {
		t.Fatalf("Writable = %v", err)
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "publishes fail", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := client.Enqueue(ctx, request(ref(t, "demo/app", 1), artifact.Live))
		if err != nil {
			wantFault(t, err, fault.Transient, fault.QueueUnavailable)
		}
		return err != nil
	})
	started := time.Now()
	_, err := client.Enqueue(t.Context(), request(ref(t, "demo/app", 1), artifact.Live))
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	if waited := time.Since(started); waited > time.Second {
		t.Errorf("the refusal took %s, want it at once", waited)
	}
	wantFault(t, client.Writable(t.Context()), fault.Transient, fault.QueueUnavailable)
}

func TestPublishRefusesWhatIsNotValid(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	_, err := client.Enqueue(t.Context(), artifact.Request{})
	wantFault(t, err, fault.Permanent, fault.Malformed)
	_, err = client.Record(t.Context(), artifact.Event{})
	wantFault(t, err, fault.Permanent, fault.Malformed)

	large := event(ref(t, "demo/app", 1), artifact.Failed, "e-1")
	large.Detail = strings.Repeat("x", 2<<20)
	_, err = client.Record(t.Context(), large)
	wantFault(t, err, fault.Permanent, fault.TooLarge)

	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = client.Enqueue(cancelled, request(ref(t, "demo/app", 1), artifact.Live))
	wantFault(t, err, fault.Transient, fault.Canceled)
}

func TestRecordGivesTheFirstSequenceAgain(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	first := event(ref(t, "demo/app", 1), artifact.Received, "e-1")
	seq := record(t, client, first)
	other := record(t, client, event(first.Ref, artifact.Received, "e-2"))
	if other <= seq {
		t.Errorf("second event has sequence %d, want more than %d", other, seq)
	}
	if got := record(t, client, first); got != seq {
		t.Errorf("repeated event has sequence %d, want %d", got, seq)
	}
}

// An event about a project is one for good: its subject is its own. Another id of the same subject stands for a repetition that
// comes when the server has forgotten the id of the first.
// TestRecordWithAnIDThatIsUsedUp: somebody else has written an event of another kind under the id that this one will have.
func TestRecordWithAnIDThatIsUsedUp(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client, js := queuetest.NewClient(t, server), bare(t, server)
	r := ref(t, "demo/app", 1)
	foreign := nats.NewMsg(queue.LedgerSubject("default", event(r, artifact.Received, "x")))
	foreign.Header.Set(jetstream.MsgIDHeader, "e-1")
	if _, err := js.PublishMsg(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	dead := event(r, artifact.Dead, "e-1")
	seq, err := client.Record(t.Context(), dead)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "LEDGER")
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetMsg(t.Context(), seq)
	if err != nil || msg.Subject != queue.LedgerSubject("default", dead) {
		t.Errorf("message %d is %+v (%v), want the event", seq, msg, err)
	}
}

func TestRecordKeepsOneEventOfAProject(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	first := artifact.Event{
		ID: artifact.EventID(artifact.Drifted, artifact.Ref{}, "demo"), Kind: artifact.Drifted, Project: "demo", Time: time.Now(), CorrelationID: "c",
	}
	seq := record(t, client, first)
	later := first
	later.ID += "later"
	if got := record(t, client, later); got != seq {
		t.Errorf("repeated event has sequence %d, want %d", got, seq)
	}
	other := first
	other.ID = artifact.EventID(artifact.Drifted, artifact.Ref{}, "demo", "other")
	if got := record(t, client, other); got <= seq {
		t.Errorf("another event has sequence %d, want more than %d", got, seq)
	}
}

func TestLastReceived(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	r := ref(t, "demo/app", 1)
	if seq, _, err := client.LastReceived(t.Context(), r); seq != 0 || err != nil {
		t.Errorf("LastReceived of nothing = %d, %v; want 0", seq, err)
	}
	record(t, client, event(r, artifact.Received, "e-1"))
	want := record(t, client, event(r, artifact.Received, "e-2"))
	record(t, client, event(r, artifact.Signed, "e-3"))
	record(t, client, event(ref(t, "demo/app", 2), artifact.Received, "e-4"))
	seq, got, err := client.LastReceived(t.Context(), r)
	if err != nil || seq != want || got.ID != "e-2" {
		t.Errorf("LastReceived = %d, %q, %v; want %d, e-2", seq, got.ID, err, want)
	}

	newer, err := json.Marshal(map[string]any{"v": 99})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bare(t, server).Publish(t.Context(), queue.LedgerSubject("default", event(r, artifact.Received, "e")), newer); err != nil {
		t.Fatal(err)
	}
	seq, _, err = client.LastReceived(t.Context(), r)
	if !errors.Is(err, artifact.ErrNewerVersion) || seq <= want {
		t.Errorf("LastReceived of a newer event = %d, %v; want its sequence and ErrNewerVersion", seq, err)
	}
	wantFault(t, err, fault.Transient, fault.NewerVersion)
}
