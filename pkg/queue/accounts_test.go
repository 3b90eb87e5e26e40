package queue_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/inspect"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/preflight"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/reconcile"
	"github.com/harborseal/harborseal/pkg/status"
)

// may says whether the server lets a user do something, which it says only where it does not.
func may(t *testing.T, connection *nats.Conn, denials <-chan error, do func() error) bool {
	t.Helper()
	if err := do(); err != nil {
		t.Fatal(err)
	}
	if err := connection.Flush(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-denials:
		if !strings.Contains(err.Error(), "Permissions Violation") {
			t.Fatal(err)
		}
		return false
	case <-time.After(50 * time.Millisecond): // The denial comes before the answer to Flush, and is handed over behind it.
		return true
	}
}

// What each user may publish and subscribe to: the table of deploy/nats/README.md.
func TestRightsOfUsers(t *testing.T) {
	d := deploy(t, 1, nil)
	d.connect(t, "signer")
	letters := map[byte]string{'s': "signer", 'o': "operator", 'r': "receiver", 'b': "backup", 'x': "restore"}
	for c, user := range letters {
		connection, denials := d.raw(t, user)
		for _, right := range rights() {
			want := strings.IndexByte(right.who, c) >= 0
			got := may(t, connection, denials, func() error {
				if right.subscribe {
					subscription, err := connection.SubscribeSync(right.subject)
					if err == nil {
						t.Cleanup(func() { _ = subscription.Unsubscribe() })
					}
					return err
				}
				return connection.Publish(right.subject, []byte("{"))
			})
			if got != want {
				t.Errorf("%s on %q (subscribing: %t): allowed is %t, want %t", letters[c], right.subject, right.subscribe, got, want)
			}
		}
	}
}

type right struct {
	subject   string
	who       string // s, o, r, b and x: see TestRightsOfUsers
	subscribe bool
}

func rights() []right {
	pub := func(who string, subjects ...string) (list []right) {
		for _, s := range subjects {
			list = append(list, right{subject: s, who: who})
		}
		return list
	}
	sub := func(who string, subjects ...string) (list []right) {
		for _, s := range subjects {
			list = append(list, right{subject: s, who: who, subscribe: true})
		}
		return list
	}
	var all []right
	for _, list := range [][]right{
		pub("sr", "sign.v1.default.live.1.a.b"),
		pub("sor", "sign.v1.default.bulk.1.a.b"),
		pub("s", "sign.v1.default.other.1.a.b", "debt.v1.default.a.b", "dead.v1.default.a.b", "$KV.SIGNATURES.v1.default.a.b.legacy.k", "$KV.SWEEPS.v1.default.a.b"),
		pub("s", kinds(artifact.Queued, artifact.Signed, artifact.Skipped, artifact.Vanished, artifact.Failed, artifact.Dead, artifact.Removed,
			artifact.Blocked, artifact.LogPaid, artifact.Swept)...),
		pub("r", kinds(artifact.Received, artifact.PolicyChanged, artifact.Drifted, artifact.Repaired)...),
		pub("r", kinds(artifact.ReportRead, artifact.ReportExported, artifact.Checkpointed, artifact.EpochOpened, artifact.Tampered)...),
		pub("sr", kinds(artifact.Outage, artifact.KeyAdded, artifact.KeyRetired)...),
		pub("s", kinds(artifact.KeyRevoked)...), // a receiver that could take its place would hide that a key is revoked
		pub("srx", kinds(artifact.RetentionShortened)...),
		pub("s", kinds(artifact.Confirmed)...),
		pub("b", kinds(artifact.BackupMade)...),
		pub("x", kinds(artifact.Restored)...),
		pub("sox", kinds(artifact.Paused)...),
		pub("so", kinds(artifact.Resumed)...),
		pub("sor", kinds(artifact.Replayed, artifact.Discarded, artifact.Unreadable)...),
		pub("r", "$KV.POLICIES.v1.default.policy.a", "$KV.POLICIES.v1.default.state.a", "$KV.POLICIES.v1.default.declared.-"),
		pub("sox", "$KV.POLICIES.v1.default.pause.-"),
		pub("", "$KV.POLICIES.v1.default.other.a"),
		pub("sr", "scan.v1.default.drift.a.1"),
		pub("sorx", "scan.v1.default.full.a.1"),
		pub("s", "scan.v1.default.recent.-.1", "scan.v1.default.canary.a.1"),
		// The API of who owns the streams, and the one that is imported. Nobody purges, and no program that runs all the time
		// deletes, copies or restores a stream.
		pub("x", "$JS.API.STREAM.DELETE.SIGN", "$JS.API.STREAM.RESTORE.LEDGER", "$JS.SNAPSHOT.RESTORE.LEDGER.x"),
		pub("b", "$JS.API.STREAM.SNAPSHOT.LEDGER", "$JS.SNAPSHOT.ACK.LEDGER.x.1.1"),
		pub("", "$JS.API.STREAM.SNAPSHOT.SCAN"),
		pub("", "$JS.API.STREAM.PURGE.SIGN", "$JS.API.STREAM.PURGE.LEDGER", "$JS.API.STREAM.MSG.DELETE.LEDGER",
			"$JS.API.STREAM.MSG.DELETE.SIGN", "$JS.API.STREAM.PURGE.KV_POLICIES", "$JS.API.STREAM.MSG.DELETE.KV_POLICIES", "$JS.API.STREAM.CREATE.OTHER",
			"$JS.API.CONSUMER.DELETE.SIGN.sign-default-live-00"),
		pub("sx", "$JS.API.STREAM.UPDATE.LEDGER", "$JS.API.CONSUMER.CREATE.SIGN.x"),
		pub("s", "$JS.API.STREAM.CREATE.LEDGER", "$JS.API.STREAM.PURGE.DEAD",
			"$JS.API.CONSUMER.CREATE.LEDGER.x", "$JS.API.CONSUMER.MSG.NEXT.SIGN.sign-default-live-00", "$JS.ACK.SIGN.sign-default-live-00.1.1.1.1.1"),
		pub("s", "$JS.API.DIRECT.GET.LEDGER.ledger.v1.default.received.a.b"),
		pub("o", "$JS.API.CONSUMER.NAMES.SIGN"),
		pub("so", "$JS.API.INFO", "$JS.API.STREAM.MSG.DELETE.DEAD"),
		pub("sobx", "$JS.API.STREAM.INFO.LEDGER"),
		pub("sox", "$JS.API.STREAM.MSG.GET.DEAD", "$JS.API.CONSUMER.CREATE.KV_POLICIES.x"),
		pub("r", "JS.HARBORSEAL.API.INFO", "JS.HARBORSEAL.API.STREAM.INFO.LEDGER", "JS.HARBORSEAL.API.DIRECT.GET.LEDGER",
			"JS.HARBORSEAL.API.STREAM.MSG.GET.DEAD", "JS.HARBORSEAL.API.STREAM.MSG.DELETE.DEAD",
			"JS.HARBORSEAL.API.CONSUMER.MSG.NEXT.SCAN.scan-default-drift"),
		pub("sr", "$JS.ACK.SCAN.scan-default-drift.1.1.1.1.1"),
		pub("", "JS.HARBORSEAL.API.CONSUMER.CREATE.LEDGER.x", "JS.HARBORSEAL.API.STREAM.CREATE.X", "JS.HARBORSEAL.API.STREAM.UPDATE.LEDGER",
			"JS.HARBORSEAL.API.STREAM.PURGE.DEAD", "JS.HARBORSEAL.API.STREAM.MSG.DELETE.SIGN",
			"JS.HARBORSEAL.API.CONSUMER.MSG.NEXT.SIGN.sign-default-live-00", "JS.HARBORSEAL.API.CONSUMER.MSG.NEXT.SCAN.scan-default-full"),
		pub("s", "$JS.ACK.SCAN.scan-default-full.1.1.1.1.1"),
		pub("sor", subjectOf(shell.TrustTopic), subjectOf(preflight.Topic), subjectOf(inspect.VerifyTopic), subjectOf(inspect.EvidenceTopic), subjectOf(status.LookTopic)),
		pub("so", subjectOf(reconcile.TopicKnown), subjectOf(reconcile.TopicUnits), subjectOf(preflight.ReceiverTopic)),
		pub("sr", "presence.v1.default.signers", "_R_.x"),
		pub("", "_INBOX_receiver.x", "stored.ledger.v1.default.signed.a.b", "$SYS.REQ.SERVER.PING", "other"),
		pub("s", "_INBOX_operator.x"),
		sub("s", "_INBOX_signer.>"), sub("o", "_INBOX_operator.>"), sub("r", "_INBOX_receiver.>", "stored.>"),
		sub("b", "_INBOX_backup.>"), sub("x", "_INBOX_restore.>"),
		sub("", "_INBOX.>", ">", "*", "_R_.>", "ledger.>", "sign.>", "$JS.>", "$KV.>", "$SYS.>"),
		sub("s", "ask.v1.>"), sub("sr", subjectOf(reconcile.TopicKnown), subjectOf(reconcile.TopicUnits), subjectOf(preflight.ReceiverTopic)),
	} {
		all = append(all, list...)
	}
	return all
}

func kinds(kinds ...artifact.Kind) (subjects []string) {
	for _, kind := range kinds {
		subjects = append(subjects, "ledger.v1.default."+string(kind)+".mrsw23y.x")
	}
	return subjects
}

func subjectOf(topic string) string { return "ask.v1.default." + topic }

// Beyond its rights in its own account, a receiver reaches of the owner's account what is imported: no answer comes from the rest.
func TestReceiversReachWhatTheyImport(t *testing.T) {
	d := deploy(t, 1, addOwner)
	d.connect(t, "signer")
	connection, _ := d.raw(t, "receiver")
	for subject, want := range map[string]bool{
		"JS.HARBORSEAL.API.INFO":                                    true,
		"JS.HARBORSEAL.API.STREAM.INFO.LEDGER":                      true,
		"JS.HARBORSEAL.API.STREAM.MSG.GET.KV_POLICIES":              true,
		"JS.HARBORSEAL.API.CONSUMER.LIST.SIGN":                      true,
		"JS.HARBORSEAL.API.CONSUMER.INFO.SCAN.scan-default-drift":   true,
		"JS.HARBORSEAL.API.STREAM.MSG.GET.KV_SIGNATURES":            false,
		"JS.HARBORSEAL.API.STREAM.MSG.GET.KV_SWEEPS":                false,
		"JS.HARBORSEAL.API.CONSUMER.INFO.SIGN.sign-default-live-00": false,
		"JS.HARBORSEAL.API.CONSUMER.CREATE.LEDGER.x":                false,
		"$JS.API.STREAM.INFO.LEDGER":                                false,
	} {
		answer, err := connection.Request(subject, []byte(`{"seq":1}`), 200*time.Millisecond)
		got := err == nil && json.Valid(answer.Data) && !strings.Contains(string(answer.Data), "not enabled for account")
		if got != want {
			t.Errorf("%s: answered is %t (%v), want %t", subject, got, err, want)
		}
	}
}

// The words that deploy/nats repeats.
func TestDeployedWords(t *testing.T) {
	t.Parallel()
	if enroll.DriftTick != "drift" {
		t.Errorf("receivers work on ticks of kind %q: change deploy/nats, and what Setup makes", enroll.DriftTick)
	}
}

// All that a receiver does, on one server and on three, while a signer does its own.
func TestReceiversWork(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d servers", nodes), func(t *testing.T) {
			d := deploy(t, nodes, nil)
			signer, receiver := d.connect(t, "signer"), d.connect(t, "receiver")
			testPushes(t, signer, receiver)
			testPolicies(t, d, signer, receiver)
			testTicks(t, receiver)
			testQuestions(t, signer, receiver)
			testState(t, signer, receiver)
			testLetters(t, signer, receiver)
			testHistory(t, signer, receiver)
		})
	}
}

func testPushes(t *testing.T, signer, receiver *queue.Client) {
	t.Helper()
	r := ref(t, "demo/app", 1)
	follower := read(t, receiver, 0)
	received := record(t, receiver, event(r, artifact.Received, "e-1"))
	if again := record(t, receiver, event(r, artifact.Received, "e-1")); again != received {
		t.Errorf("recorded again: %d, want %d", again, received)
	}
	if enqueue(t, receiver, request(r, artifact.Live)) || !enqueue(t, receiver, request(r, artifact.Live)) {
		t.Error("the first request is a duplicate, or the second none")
	}
	for _, client := range []*queue.Client{signer, receiver} {
		if seq, got, err := client.LastReceived(t.Context(), r); seq != received || got.ID != "e-1" || err != nil {
			t.Errorf("LastReceived = %d, %q, %v; want %d, e-1", seq, got.ID, err, received)
		}
	}
	k := consume(t, signer, queue.ConsumeConfig{})
	delivery := k.next(t)
	record(t, signer, event(r, artifact.Signed, "e-2"))
	insist(t, delivery.Done)
	close(delivery.finish)
	k.stop()
	<-k.stopped
	changed := ofProject("demo")
	changed.ID = artifact.EventID(changed.Kind, artifact.Ref{}, "demo", "1")
	seq := record(t, receiver, changed)
	if again := record(t, receiver, changed); again != seq {
		t.Errorf("recorded again: %d, want %d", again, seq)
	}
	entries, _ := follower.take(t, 3)
	for i, want := range []string{"e-1", "e-2", changed.ID} {
		if entries[i].Event.ID != want {
			t.Errorf("entry %d is %q, want %q", i, entries[i].Event.ID, want)
		}
	}
	if first, last, created, err := receiver.LedgerState(t.Context()); first != 1 || last != seq || created.IsZero() || err != nil {
		t.Errorf("LedgerState = %d, %d, %s, %v; want 1, %d", first, last, created, err, seq)
	}
}

func testPolicies(t *testing.T, d *deployed, signer, receiver *queue.Client) {
	t.Helper()
	revision := putPolicy(t, receiver, book.Policy, "demo", "one", 0)
	putPolicy(t, receiver, book.State, "demo", "state", 0)
	putPolicy(t, receiver, book.Declared, "", "declared", 0)
	watchers := []*watcher{watchPolicies(t, receiver), watchPolicies(t, signer)}
	for _, w := range watchers {
		receive(t, w.loaded, "the first values")
	}
	revision = putPolicy(t, receiver, book.Policy, "demo", "two", revision)
	_, err := receiver.PutPolicy(t.Context(), book.Policy, "demo", []byte("three"), revision-1)
	wantFault(t, err, fault.Transient, fault.ConcurrentWriter)
	operator := d.connect(t, "operator")
	putPolicy(t, operator, book.Pause, "", "paused", 0)
	if history, err := receiver.PolicyHistory(t.Context(), "demo"); len(history) != 2 || err != nil {
		t.Errorf("PolicyHistory = %d entries, %v; want 2", len(history), err)
	}
	for _, w := range watchers {
		w.await(t, map[string]string{"policy/demo": "two", "state/demo": "state", "declared/": "declared", "pause/": "paused"})
	}
	if err := receiver.DeletePolicy(t.Context(), book.Policy, "demo", revision); err != nil {
		t.Error(err)
	}
	for _, w := range watchers {
		w.await(t, map[string]string{"state/demo": "state", "declared/": "declared", "pause/": "paused"})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := signer.PutPolicy(ctx, book.Policy, "demo", []byte("signer's"), 0); err == nil {
		t.Error("a signer has stored a policy")
	}
}

func testTicks(t *testing.T, receiver *queue.Client) {
	t.Helper()
	for i, want := range []bool{true, false} {
		if accepted, err := receiver.Propose(t.Context(), enroll.DriftTick, "demo", 1); accepted != want || err != nil {
			t.Errorf("proposal %d = %t, %v; want %t", i, accepted, err, want)
		}
	}
	if accepted, err := receiver.Propose(t.Context(), "full", "demo", 1); !accepted || err != nil {
		t.Errorf("Propose(full) = %t, %v", accepted, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	attempts := make(chan queue.Tick, 10)
	ended := make(chan error, 1)
	var count atomic.Int32
	go func() {
		ended <- receiver.ConsumeTicks(ctx, enroll.DriftTick, 2, func(_ context.Context, tick queue.Tick) error {
			attempts <- tick
			if count.Add(1) == 1 {
				return &fault.Error{Kind: fault.Transient, Reason: fault.Timeout, RetryAfter: time.Millisecond, Err: errors.New("again")}
			}
			return nil
		})
	}()
	for range 2 { // It fails once, and comes again.
		if tick := receive(t, attempts, "a tick"); tick.Key != "demo" || tick.Slot != 1 {
			t.Errorf("tick is %+v", tick)
		}
	}
	cancel()
	if err := receive(t, ended, "the end"); err != nil {
		t.Error(err)
	}
}

func testQuestions(t *testing.T, signer, receiver *queue.Client) {
	t.Helper()
	for topic, pair := range map[string][2]*queue.Client{ // who asks, who answers
		shell.TrustTopic: {receiver, signer}, preflight.Topic: {receiver, signer},
		inspect.VerifyTopic: {receiver, signer}, inspect.EvidenceTopic: {receiver, signer}, status.LookTopic: {receiver, signer},
		reconcile.TopicKnown: {signer, receiver}, reconcile.TopicUnits: {signer, receiver}, preflight.ReceiverTopic: {signer, receiver},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- pair[1].Answer(ctx, topic, 2, func(_ context.Context, question []byte) ([]byte, error) {
				return append([]byte("answer to "), question...), nil
			})
		}()
		eventually(t, "somebody answers "+topic, func() bool {
			asking, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			answer, err := pair[0].Ask(asking, topic, []byte("q"))
			return err == nil && string(answer) == "answer to q"
		})
		cancel()
		if err := receive(t, ended, "the end"); err != nil {
			t.Error(err)
		}
	}
}

func testState(t *testing.T, signer, receiver *queue.Client) {
	t.Helper()
	if err := receiver.Writable(t.Context()); err != nil {
		t.Error(err)
	}
	waiting := request(ref(t, "idle/app", 5), artifact.Bulk)
	if _, err := signer.EnqueueDebt(t.Context(), waiting); err != nil {
		t.Fatal(err)
	}
	usage, err := receiver.Usage(t.Context())
	if err != nil || len(usage.Streams) != 8 || usage.Waiting[artifact.Debt].Count != 1 || usage.Waiting[artifact.Debt].Oldest.IsZero() {
		t.Errorf("Usage = %+v, %v; want 8 streams and a debt", usage, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- receiver.Announce(ctx, "receivers") }()
	cancel()
	if err := receive(t, ended, "the end"); err != nil || receiver.Peers("receivers") != 1 {
		t.Errorf("Announce = %v, Peers = %d", err, receiver.Peers("receivers"))
	}
}

func testLetters(t *testing.T, signer, receiver *queue.Client) {
	t.Helper()
	for i := range 2 {
		r := ref(t, "dead/app", i)
		enqueue(t, receiver, request(r, artifact.Live))
	}
	ctx, cancel := context.WithCancel(t.Context())
	buried := make(chan error, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- signer.Consume(ctx, queue.ConsumeConfig{Handle: func(ctx context.Context, d *queue.Delivery) {
			dead := event(d.Request().Ref, artifact.Dead, "dead-"+d.Request().Ref.Digest())
			dead.Reason = string(fault.Rejected)
			buried <- d.Bury(ctx, dead)
		}})
	}()
	for range 2 {
		if err := receive(t, buried, "a dead letter"); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := receive(t, ended, "the end"); err != nil {
		t.Error(err)
	}
	r := ref(t, "dead/app", 0)
	if _, found, err := receiver.DeadSince(t.Context(), r); !found || err != nil {
		t.Errorf("DeadSince = %t, %v", found, err)
	}
	letters, err := receiver.Letters(t.Context(), 0, 10)
	if err != nil || len(letters) != 2 {
		t.Fatalf("Letters = %d, %v; want 2", len(letters), err)
	}
	if letter, err := receiver.Letter(t.Context(), letters[1].ID); letter.Ref != letters[1].Ref || err != nil {
		t.Errorf("Letter = %s, %v; want %s", letter.Ref, err, letters[1].Ref)
	}
	if err := receiver.RemoveLetter(t.Context(), letters[1].ID); err != nil {
		t.Error(err)
	}
	if err := receiver.ClearDead(t.Context(), letters[0].Ref); err != nil {
		t.Error(err)
	}
	if letters, err = receiver.Letters(t.Context(), 0, 10); len(letters) != 0 || err != nil {
		t.Errorf("Letters = %d, %v; want none", len(letters), err)
	}
}
