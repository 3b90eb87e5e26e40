package queue_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// events gives what the ledger holds.
func events(t *testing.T, js jetstream.JetStream) (list []artifact.Event) {
	t.Helper()
	ledger, err := js.Stream(t.Context(), "LEDGER")
	if err != nil {
		t.Fatal(err)
	}
	for seq := range ledger.CachedInfo().State.LastSeq {
		msg, err := ledger.GetMsg(t.Context(), seq+1)
		if err != nil {
			t.Fatal(err)
		}
		event, err := artifact.DecodeEvent(msg.Data)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, event)
	}
	return list
}

func TestMalformedRequestsAreBuried(t *testing.T) {
	t.Parallel()
	r := ref(t, "demo/app", 1)
	wrongLane, err := artifact.EncodeRequest(request(r, artifact.Bulk))
	if err != nil {
		t.Fatal(err)
	}
	subject := queue.DeadSubject("default", r)
	hash := subject[strings.LastIndex(subject, ".")+1:]
	tests := []struct {
		name        string
		data        string
		correlation string // of the event; empty if there is none
	}{
		{"not JSON", "\x00\xff{", ""},
		{"empty", "", ""},
		{"no reference", `{"v":1,"correlation_id":"c-1"}`, ""},
		{"bad reference", `{"v":1,"ref":"demo/app:latest","correlation_id":"c-1"}`, ""},
		{"reference of another type", `{"v":1,"ref":{"repository":"demo/app"}}`, ""},
		{"of the other lane", string(wrongLane), "c-1"},
		{"incomplete", fmt.Sprintf(`{"v":1,"ref":%q,"correlation_id":"c-2"}`, r), "c-2"},
		{"no correlation", fmt.Sprintf(`{"ref":%q}`, r), hash},
		{"other fields of another type", fmt.Sprintf(`{"v":"1","ref":%q,"lane":7,"correlation_id":8}`, r), hash},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := queuetest.NewServer(t)
			client := queuetest.NewClient(t, server)
			js := bare(t, server)
			if _, err := js.Publish(t.Context(), queue.SignSubject("default", artifact.Live, r), []byte(tt.data)); err != nil {
				t.Fatal(err)
			}
			k := consume(t, client, queue.ConsumeConfig{})
			eventually(t, "the request is gone", func() bool { return waiting(t, js, "SIGN") == 0 })
			letter := deadLetter(t, js, r)
			if string(letter.Request) != tt.data || letter.Reason != "malformed" {
				t.Errorf("dead letter = %q, %s; want %q, malformed", letter.Request, letter.Reason, tt.data)
			}
			if len(k.deliveries) > 0 {
				t.Error("a handler got it")
			}
			recorded := events(t, js)
			if tt.correlation == "" {
				if len(recorded) != 0 || letter.Event != nil {
					t.Errorf("events %+v, event of the letter %s; want none", recorded, letter.Event)
				}
				return
			}
			if len(recorded) != 1 {
				t.Fatalf("events %+v, want one", recorded)
			}
			e := recorded[0]
			if e.Kind != artifact.Dead || e.Ref != r || e.Origin != artifact.OriginSigner || e.Reason != "malformed" ||
				e.CorrelationID != tt.correlation || e.Lane != artifact.Live || e.Attempts != 1 {
				t.Errorf("event %+v, want dead, malformed, correlation id %s", e, tt.correlation)
			}
			if inLetter, err := artifact.DecodeEvent(letter.Event); err != nil || inLetter.ID != e.ID {
				t.Errorf("event of the letter = %s, %v; want that of the ledger, %s", inLetter.ID, err, e.ID)
			}
		})
	}
}

// Without a record in the ledger nothing is given up, and a second attempt is the same event.
func TestMalformedRequestWaitsForTheLedger(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	js := bare(t, server)
	r := ref(t, "demo/app", 1)
	if _, err := js.Publish(t.Context(), queue.SignSubject("default", artifact.Live, r), fmt.Appendf(nil, `{"ref":%q}`, r)); err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), "LEDGER"); err != nil {
		t.Fatal(err)
	}
	k := consume(t, client, queue.ConsumeConfig{})
	eventually(t, "the request was taken", func() bool { return ackPending(t, server, artifact.Live, "demo") == 1 })
	k.stop()
	receive(t, k.stopped, "Consume to return")
	if got := waiting(t, js, "SIGN"); got != 1 {
		t.Errorf("%d requests are kept, want 1", got)
	}
	if got := waiting(t, js, "DEAD"); got != 0 {
		t.Errorf("%d dead letters, want 0", got)
	}
}

func TestRequestOfANewerVersionIsGivenBack(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	registry := prometheus.NewRegistry()
	var log logBuffer
	client := queuetest.Connect(t, queue.Config{Server: server, Registerer: registry, Logger: newLogger(&log)})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	js := bare(t, server)
	r := ref(t, "demo/app", 1)
	newer, err := json.Marshal(map[string]any{"v": 2, "ref": map[string]string{"changed": "shape"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), queue.SignSubject("default", artifact.Live, r), newer); err != nil {
		t.Fatal(err)
	}
	acks := make(chan *nats.Msg, 100)
	raw := queue.RawConnection(t, server)
	if _, err := raw.ChanSubscribe("$JS.ACK.SIGN.>", acks); err != nil {
		t.Fatal(err)
	}
	if err := raw.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	older := consume(t, client, queue.ConsumeConfig{})
	eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "newer version") })
	// Requests that this program can read are worked on meanwhile.
	enqueue(t, client, request(ref(t, "demo/app", 2), artifact.Live))
	d := older.next(t)
	if d.Request().Ref == r {
		t.Error("a handler got it")
	}
	if err := d.Done(t.Context()); err != nil {
		t.Error(err)
	}
	close(d.finish)
	if got := value(t, registry, "harborseal_queue_undecodable_total"); got != 1 {
		t.Errorf("counted %v, want 1", got)
	}
	if sign, dead := waiting(t, js, "SIGN"), waiting(t, js, "DEAD"); sign != 1 || dead != 0 {
		t.Errorf("%d requests, %d dead letters; want 1 and 0", sign, dead)
	}
	// What the server hands out again after a delay, it hands to whoever asks first.
	msg := receive(t, acks, "the answer to the server")
	if got, want := string(msg.Data), `-NAK {"delay": 30000000000}`; got != want {
		t.Errorf("the server was told %s, want %s", got, want)
	}
}
