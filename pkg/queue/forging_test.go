package queue_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
)

// forgery is a way by which a receiver could get a message of its own onto a subject that only signers publish to.
type forgery struct {
	name string
	try  func(f *forger, target string)
	// byAnswer says that the server does it in answer to something that a receiver may do: permissions do not help within an account.
	byAnswer bool
}

// forger is a receiver that was taken over.
type forger struct {
	*nats.Conn
	t   *testing.T
	api string // prefix of JetStream's API
}

// publish publishes with a subject for the answer.
func (f *forger) publish(subject, reply string, body []byte) {
	f.t.Helper()
	if err := f.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: body}); err != nil {
		f.t.Error(err)
	}
}

// call waits until the server has done what it was asked, or for half a second, as where it does not answer.
func (f *forger) call(subject string, body []byte) {
	_, _ = f.Request(subject, body, 500*time.Millisecond)
}

func signedEvent(t *testing.T, id string) []byte {
	t.Helper()
	data, err := artifact.EncodeEvent(event(ref(t, "demo/app", 7), artifact.Signed, id))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// pushing has worked if there is the consumer: where it delivers is up to whoever made it, answers to signers included.
const pushing = "as the subject of a consumer that pushes"

func forgeries() []forgery {
	received := func(f *forger) string {
		return queue.LedgerSubject("default", event(ref(f.t, "demo/app", 7), artifact.Received, "x"))
	}
	return []forgery{
		{"publishing it", func(f *forger, target string) {
			f.publish(target, "", signedEvent(f.t, "a"))
		}, false},
		{"as the reply subject of a request", func(f *forger, target string) {
			f.publish(queue.SignSubject("default", artifact.Bulk, ref(f.t, "demo/app", 7)), target, []byte("{}"))
		}, true},
		{"as the reply subject of a stored event that is read", func(f *forger, target string) {
			f.publish(received(f), "", signedEvent(f.t, "b")) // The body is of the forger's choice.
			f.publish(f.api+".DIRECT.GET.LEDGER", target, []byte(`{"seq":1,"batch":10}`))
		}, true},
		{"as the reply subject of a policy that is read", func(f *forger, target string) {
			f.publish("$KV.POLICIES.v1.default.policy.mzxw6", "", signedEvent(f.t, "c"))
			f.publish(f.api+".STREAM.MSG.GET.KV_POLICIES", target, []byte(`{"last_by_subj":"$KV.POLICIES.v1.default.policy.mzxw6"}`))
		}, true},
		{"as the reply subject of a pull of ticks", func(f *forger, target string) {
			f.publish(f.api+".CONSUMER.MSG.NEXT.SCAN.scan-default-drift", target, []byte(`{"batch":1,"no_wait":true}`))
		}, true},
		{"as the reply subject of a question", func(f *forger, target string) {
			f.publish(f.api+".INFO", target, nil)
		}, true},
		{"as the destination of a trace", func(f *forger, target string) {
			msg := nats.NewMsg(received(f))
			msg.Header.Set("Nats-Trace-Dest", target)
			if err := f.PublishMsg(msg); err != nil {
				f.t.Error(err)
			}
		}, false},
		{pushing, func(f *forger, target string) {
			f.call(f.api+".CONSUMER.CREATE.KV_POLICIES.forger", marshal(f.t, map[string]any{
				"stream_name": "KV_POLICIES", "action": "create",
				"config": map[string]any{"name": "forger", "deliver_subject": target, "ack_policy": "none", "inactive_threshold": time.Hour},
			}))
		}, false},
		{"as what a stream publishes again", func(f *forger, target string) {
			f.call(f.api+".STREAM.CREATE.FORGED", marshal(f.t, jetstream.StreamConfig{
				Name: "FORGED", Subjects: []string{"forged"}, RePublish: &jetstream.RePublish{Source: "forged", Destination: target},
			}))
			f.publish("forged", "", signedEvent(f.t, "e"))
		}, false},
	}
}

// forged counts what the owner's account has on the target of each forgery.
func forged(t *testing.T, owner jetstream.JetStream, targets map[string]string) []string {
	t.Helper()
	ledger, err := owner.Stream(t.Context(), "LEDGER")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, target := range targets {
		info, err := ledger.Info(t.Context(), jetstream.WithSubjectFilter(target))
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Subjects[target] > 0 {
			names = append(names, name)
		}
	}
	if _, err := owner.PushConsumer(t.Context(), "KV_POLICIES", "forger"); err == nil {
		names = append(names, pushing)
	}
	slices.Sort(names)
	return names
}

// forge tries everything and gives what has worked, once wanted has come or time is up: nothing tells of what does not happen.
func forge(t *testing.T, d *deployed, api string, wanted []string) []string {
	t.Helper()
	d.connect(t, "signer")
	connection, _ := d.raw(t, "receiver")
	admin := d.owner(t)
	f := &forger{connection, t, api}
	targets := map[string]string{}
	for i, a := range forgeries() {
		targets[a.name] = queue.LedgerSubject("default", event(ref(t, "demo/app", 1000+i), artifact.Signed, "x"))
		a.try(f, targets[a.name])
		if err := f.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	until := time.Now().Add(2 * time.Second)
	for {
		names = forged(t, admin, targets)
		if len(wanted) > 0 && slices.Equal(names, wanted) || time.Now().After(until) {
			return names
		}
		<-time.After(20 * time.Millisecond)
	}
}

// owner connects as somebody who may do everything in the account that owns the streams.
func (d *deployed) owner(t *testing.T) jetstream.JetStream {
	t.Helper()
	connection, _ := d.raw(t, "owner")
	js, err := jetstream.New(connection)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// addOwner adds a user without limits to the account that owns the streams, for tests to look.
func addOwner(opts *server.Options) {
	opts.Users = append(opts.Users, &server.User{Username: "owner", Password: "owner-secret", Account: accountOf(opts, "HARBORSEAL")})
}

func accountOf(opts *server.Options, name string) *server.Account {
	for _, account := range opts.Accounts {
		if account.Name == name {
			return account
		}
	}
	return nil
}

// oneAccount moves the receiver into the account that owns the streams: with the same permissions, or without any.
func oneAccount(limited bool) func(*server.Options) {
	return func(opts *server.Options) {
		addOwner(opts)
		for _, user := range opts.Users {
			if user.Username != "receiver" {
				continue
			}
			user.Account = accountOf(opts, "HARBORSEAL")
			if !limited {
				user.Permissions = nil
				continue
			}
			allow := user.Permissions.Publish.Allow
			for i := range allow {
				allow[i] = strings.Replace(allow[i], "JS.HARBORSEAL.API", "$JS.API", 1)
			}
		}
	}
}

// What the accounts are for. In one account, a receiver forges "signed" events by each of these; the permissions of deploy/nats
// alone leave those in which the server answers. With the accounts, nothing is left.
func TestReceiversForgeNothing(t *testing.T) {
	all, byAnswer := map[string]bool{}, map[string]bool{}
	for _, f := range forgeries() {
		all[f.name] = true
		if f.byAnswer {
			byAnswer[f.name] = true
		}
	}
	for _, tt := range []struct {
		name, api string
		change    func(*server.Options)
		want      map[string]bool
	}{
		{"one account", "$JS.API", oneAccount(false), all},
		{"one account with permissions", "$JS.API", oneAccount(true), byAnswer},
		{"accounts", "JS.HARBORSEAL.API", addOwner, nil},
		{"accounts past the imports", "$JS.API", addOwner, nil},
		{"accounts without permissions", "JS.HARBORSEAL.API", func(opts *server.Options) {
			addOwner(opts)
			for _, user := range opts.Users {
				if user.Username == "receiver" {
					user.Permissions = nil
				}
			}
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := slices.Sorted(maps.Keys(tt.want))
			got := forge(t, deploy(t, 1, tt.change), tt.api, want)
			if !slices.Equal(got, want) {
				t.Errorf("forged:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
		})
	}
}

// An event that says to be signed, on a subject on which a receiver may publish: whoever reads the ledger passes over it. Neither
// does it help to name another subject in a header, as the server does in what it answers.
func TestEventsAreWhatTheirSubjectSays(t *testing.T) {
	d := deploy(t, 1, nil)
	signer, receiver := d.connect(t, "signer"), d.connect(t, "receiver")
	connection, _ := d.raw(t, "receiver")
	r := ref(t, "demo/app", 7)
	subject := queue.LedgerSubject("default", event(r, artifact.Received, "x"))
	publish := func(header nats.Header, data []byte) {
		t.Helper()
		if _, err := connection.RequestMsg(&nats.Msg{Subject: subject, Header: header, Data: data}, patience); err != nil {
			t.Fatal(err)
		}
	}
	check := func(name string, client *queue.Client, want ...string) {
		t.Helper()
		entries, _ := read(t, client, 0).take(t, len(want))
		for i, e := range entries {
			if e.Event.ID != want[i] || e.Seq != uint64(i+1) {
				t.Errorf("%s: entry %d is %q with sequence %d, want %q and %d", name, i, e.Event.ID, e.Seq, want[i], i+1)
			}
		}
	}
	publish(nil, signedEvent(t, "forged-1"))
	publish(nats.Header{
		"Nats-Subject":  {queue.LedgerSubject("default", event(r, artifact.Signed, "x"))},
		"Nats-Sequence": {"9"}, "Nats-Last-Sequence": {"8"},
	}, signedEvent(t, "forged-2"))
	record(t, receiver, event(r, artifact.Received, "last"))
	check("signer", signer, "", "", "last")
	check("receiver", receiver, "", "", "last")
	// What looks like the end of a page is none.
	publish(nats.Header{"Status": {"204"}, "Nats-Num-Pending": {"0"}, "Nats-Last-Sequence": {"3"}}, nil)
	record(t, receiver, event(r, artifact.Received, "behind"))
	check("receiver", receiver, "", "", "last", "", "behind")
}
