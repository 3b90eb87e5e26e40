package queue_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

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
	huge := request(r, artifact.Live)
	huge.CorrelationID = strings.Repeat("x", 200_000)
	large, err := artifact.EncodeRequest(huge)
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
		{"correlation of a book's length", fmt.Sprintf(`{"ref":%q,"correlation_id":%q}`, r, strings.Repeat("x", 200_000)), hash},
		{"decodable, but far too large", string(large), hash},
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

// The largest message that the server takes is no letter that it does not take.
func TestHugeRequestIsBuried(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client, js := queuetest.NewClient(t, server), bare(t, server)
	r := ref(t, "demo/app", 1)
	data := fmt.Appendf(nil, `{"v":1,"ref":%q,"lane":"%s"}`, r, strings.Repeat("x", 1_000_000))
	if _, err := js.Publish(t.Context(), queue.SignSubject("default", artifact.Live, r), data); err != nil {
		t.Fatal(err)
	}
	consume(t, client, queue.ConsumeConfig{})
	eventually(t, "the request is gone", func() bool { return waiting(t, js, "SIGN") == 0 })
	list := letters(t, client, 0, 0)
	if len(list) != 1 {
		t.Fatalf("%d letters, want 1", len(list))
	}
	if l := list[0]; l.Ref != r || !strings.HasPrefix(string(data), string(l.Stored)) || !strings.Contains(l.LastError, "are kept") {
		t.Errorf("letter of %q with %d bytes, %s; want %s, the beginning of the request", l.Ref, len(l.Stored), l.LastError, r)
	}
}

func TestRequestOfANewerVersionIsBuriedAfterAnHour(t *testing.T) {
	t.Parallel()
	r, unknown := ref(t, "demo/app", 1), ref(t, "demo/app", 2)
	lanes := []struct {
		name    string
		subject func(artifact.Ref) string
		consume func(*queue.Client) func(context.Context, queue.ConsumeConfig) error
		stream  string
	}{
		{
			"requests", func(r artifact.Ref) string { return queue.SignSubject("default", artifact.Bulk, r) },
			func(c *queue.Client) func(context.Context, queue.ConsumeConfig) error { return c.Consume }, "SIGN",
		},
		{
			"debts", func(r artifact.Ref) string { return queue.DebtSubject("default", r) },
			func(c *queue.Client) func(context.Context, queue.ConsumeConfig) error { return c.ConsumeDebts }, "DEBT",
		},
	}
	for _, tt := range lanes {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := queuetest.NewServer(t)
			client, js := queuetest.NewClient(t, server), bare(t, server)
			for to, data := range map[artifact.Ref]string{
				r:       fmt.Sprintf(`{"v":2,"ref":%q,"correlation_id":"c-7"}`, r),
				unknown: `{"v":2,"ref":{"changed":"shape"}}`,
			} {
				if _, err := js.Publish(t.Context(), tt.subject(to), []byte(data)); err != nil {
					t.Fatal(err)
				}
			}
			var early, late queue.ConsumeConfig
			early.Now = func() time.Time { return time.Now().Add(59 * time.Minute) }
			late.Now = func() time.Time { return time.Now().Add(61 * time.Minute) }
			run := tt.consume(client)
			durable := func() *jetstream.ConsumerInfo { return durableOf(t, js, tt.stream, artifact.Bulk, "demo") }
			// givenBack has a program look at both, handed out so often before. The consumer is made anew, so that the test need not
			// wait for the delay.
			givenBack := func(cfg queue.ConsumeConfig, before int) {
				remakeConsumer(t, client, js, tt.stream, durable().Name)
				handOut(t, js, tt.stream, durable().Name, before)
				old := startConsumer(t, run, cfg)
				eventually(t, "both were given back", func() bool {
					return durable().NumAckPending == 2 && int(durable().Delivered.Consumer) == 2*before+2 //nolint:gosec // a small number
				})
				old.stop()
				receive(t, old.stopped, "the consumer to return")
				if dead := waiting(t, js, "DEAD"); dead != 0 {
					t.Fatalf("%d dead letters, want 0", dead)
				}
			}
			givenBack(early, 30) // it was not stored for an hour
			givenBack(late, 5)   // it was not handed around for long
			remakeConsumer(t, client, js, tt.stream, durable().Name)
			handOut(t, js, tt.stream, durable().Name, 19)
			startConsumer(t, run, late)
			eventually(t, "both are gone", func() bool { return waiting(t, js, tt.stream) == 0 })
			byRef := map[artifact.Ref]artifact.DeadLetter{}
			for _, l := range letters(t, client, 0, 0) {
				byRef[l.Ref] = l
			}
			if l := byRef[r]; l.Reason != "newer_version" || l.Request != nil || l.CorrelationID != "c-7" || !strings.Contains(l.LastError, "version") {
				t.Errorf("letter = %+v, want one of a newer version", l)
			}
			if l := byRef[artifact.Ref{}]; l.Reason != "newer_version" || string(l.Stored) != `{"v":2,"ref":{"changed":"shape"}}` {
				t.Errorf("letter = %+v, want one of a newer version", l)
			}
			recorded := events(t, js)
			if len(recorded) != 1 || recorded[0].Ref != r || recorded[0].Kind != artifact.Dead || recorded[0].Reason != "newer_version" {
				t.Errorf("events %+v, want one, that %s is dead", recorded, r)
			}
		})
	}
}

// remakeConsumer makes a consumer anew, which forgets what it has handed out.
func remakeConsumer(t *testing.T, client *queue.Client, js jetstream.JetStream, stream, name string) {
	t.Helper()
	if err := js.DeleteConsumer(t.Context(), stream, name); err != nil {
		t.Fatal(err)
	}
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// handOut takes each of both messages of a consumer so often, and gives them back.
func handOut(t *testing.T, js jetstream.JetStream, stream, name string, times int) {
	t.Helper()
	consumer, err := js.Consumer(t.Context(), stream, name)
	if err != nil {
		t.Fatal(err)
	}
	for enough := []jetstream.Msg{}; len(enough) < 2; {
		msg, err := consumer.Next(jetstream.FetchMaxWait(patience))
		if err != nil {
			t.Fatal(err)
		}
		metadata, err := msg.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		give := []jetstream.Msg{msg}
		if metadata.NumDelivered >= uint64(times) { //nolint:gosec // a small number
			enough = append(enough, msg)
			give = nil
		}
		if len(enough) == 2 {
			give = enough
		}
		for _, m := range give {
			if err := m.Nak(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// durableOf gives the state of the consumer of requests of a project, or of debts.
func durableOf(t *testing.T, js jetstream.JetStream, stream string, lane artifact.Lane, project string) *jetstream.ConsumerInfo {
	t.Helper()
	name := "debt-default"
	if stream == "SIGN" {
		name = fmt.Sprintf("sign-default-%s-%02d", lane, queue.Partition(project))
	}
	durable, err := js.Consumer(t.Context(), stream, name)
	if err != nil {
		t.Fatal(err)
	}
	return durable.CachedInfo()
}
