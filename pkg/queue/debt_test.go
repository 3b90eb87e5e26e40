package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// consumeDebts is consume for debts.
func consumeDebts(t *testing.T, c *queue.Client, cfg queue.ConsumeConfig) *consumer {
	t.Helper()
	return startConsumer(t, c.ConsumeDebts, cfg)
}

func owe(t *testing.T, c *queue.Client, r artifact.Ref) (duplicate bool) {
	t.Helper()
	duplicate, err := c.EnqueueDebt(t.Context(), request(r, artifact.Live))
	if err != nil {
		t.Fatalf("EnqueueDebt(%s) = %v", r, err)
	}
	return duplicate
}

func wantDebts(t *testing.T, c *queue.Client, want uint64) (oldest time.Time) {
	t.Helper()
	var count uint64
	eventually(t, fmt.Sprintf("there are %d debts", want), func() (reached bool) {
		var err error
		if count, oldest, err = c.Debts(t.Context()); err != nil {
			t.Fatalf("Debts = %v", err)
		}
		return count == want
	})
	if oldest.IsZero() != (want == 0) {
		t.Errorf("Debts = %d, %s", count, oldest)
	}
	return oldest
}

// A debt waits once for each reference, beside requests for the same one, until it is acknowledged.
func TestDebts(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	wantDebts(t, client, 0)
	before := time.Now().Add(-time.Second)
	a, b := ref(t, "demo/app.v1", 1), ref(t, "demo/app", 2)
	enqueue(t, client, request(a, artifact.Live))
	for i, r := range []artifact.Ref{a, b} {
		if owe(t, client, r) {
			t.Errorf("the first debt of %s is a duplicate", r)
		}
		if !owe(t, client, r) {
			t.Errorf("the second debt of %s is none", r)
		}
		wantDebts(t, client, uint64(i+1))
	}
	oldest := wantDebts(t, client, 2)
	if oldest.Before(before) || oldest.After(time.Now().Add(time.Second)) {
		t.Errorf("the oldest is of %s, want of now", oldest)
	}
	harbor := queuetest.Connect(t, queue.Config{Server: server, Harbor: "other"})
	if err := harbor.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantDebts(t, harbor, 0)
	k := consumeDebts(t, client, queue.ConsumeConfig{})
	got := map[artifact.Ref]held{}
	for range 2 {
		d := k.next(t)
		if d.Request().Lane != artifact.Debt || d.Attempts() != 1 || d.Request().CorrelationID != "c-1" {
			t.Errorf("got %+v, attempt %d", d.Request(), d.Attempts())
		}
		got[d.Request().Ref] = d
	}
	wantDebts(t, client, 2) // those in work are not paid
	if !owe(t, client, a) {
		t.Error("a debt in work is forgotten")
	}
	if err := got[a].Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	if later := wantDebts(t, client, 1); later.Before(oldest) {
		t.Errorf("the oldest is of %s, before that of the one that was paid", later)
	}
	if owe(t, client, a) {
		t.Error("a paid debt swallows a new one")
	}
	close(got[a].finish)
	if again := k.next(t); again.Request().Ref != a {
		t.Errorf("got %s, want %s again", again.Request().Ref, a)
	}
}

func TestOwing(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	owed, other := ref(t, "demo/owed", 1), ref(t, "demo/other", 2)
	owe(t, client, owed)
	for _, tt := range []struct {
		ref  artifact.Ref
		want bool
	}{{owed, true}, {other, false}} {
		if got, err := client.Owing(t.Context(), tt.ref); got != tt.want || err != nil {
			t.Errorf("Owing(%s) = %t, %v, want %t", tt.ref, got, err, tt.want)
		}
	}
}

func TestDebtsAreValidated(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	_, err := client.EnqueueDebt(t.Context(), artifact.Request{Ref: ref(t, "demo/app", 1)})
	wantFault(t, err, fault.Permanent, fault.Malformed)
}

// As on SIGN: one error code for two answers, told apart by their description.
func TestDuplicateDebtOnAFullStream(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	updateStream(t, bare(t, server), "DEBT", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgs = 1 })
	owe(t, client, ref(t, "demo/app", 1))
	if !owe(t, client, ref(t, "demo/app", 1)) {
		t.Error("a duplicate on a full stream is not called one")
	}
	_, err := client.EnqueueDebt(t.Context(), request(ref(t, "demo/app", 2), artifact.Live))
	wantFault(t, err, fault.Transient, fault.QueueFull)
	var apiErr *jetstream.APIError
	if !errors.As(err, &apiErr) || apiErr.ErrorCode != 10077 {
		t.Errorf("the server says %+v, want code 10077", apiErr)
	}
	// No message of a debt may have an id: a later debt would be swallowed by a paid one.
	_, err = bare(t, server).Publish(t.Context(), queue.DebtSubject("default", ref(t, "demo/app", 1)), []byte("x"))
	if !errors.As(err, &apiErr) || apiErr.Description != "maximum messages per subject exceeded" {
		t.Errorf("the server says %+v, want that there is one", apiErr)
	}
}

// Servers restart and programs vanish while debts are noted and paid: none is lost.
func TestDebtsSurviveRestarts(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}
	clientCfg.AckWait = time.Second
	publisher, worker := queuetest.Connect(t, clientCfg), queuetest.Connect(t, clientCfg)
	if err := publisher.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	const n = 200
	var mu sync.Mutex
	paid := map[artifact.Ref]bool{}
	consumeDebts(t, worker, queue.ConsumeConfig{Slots: 8, Handle: func(ctx context.Context, d *queue.Delivery) {
		if d.Attempts() == 1 && strings.HasSuffix(d.Request().Ref.Digest(), "7") {
			_ = d.Retry(ctx, 50*time.Millisecond) // the log did not answer
			return
		}
		if err := d.Done(ctx); err != nil {
			_ = d.Retry(ctx, 0) // The connection may be away: it comes again after the ack wait.
			return
		}
		mu.Lock()
		defer mu.Unlock()
		paid[d.Request().Ref] = true
	}})
	done := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(paid)
	}
	published := make(chan struct{})
	go func() {
		defer close(published)
		for i := range n {
			r := request(ref(t, fmt.Sprintf("project-%d/app", i%5), i), artifact.Live)
			insist(t, func(ctx context.Context) error {
				_, err := publisher.EnqueueDebt(ctx, r)
				return err
			})
		}
	}()
	eventually(t, "some debts are paid", func() bool { return done() > n/10 })
	server = startAgain(t, server, serverCfg)
	eventually(t, "more debts are paid", func() bool { return done() > n/2 })
	startAgain(t, server, serverCfg)
	receive(t, published, "all debts to be noted")
	eventually(t, "all debts are paid", func() bool {
		count, _, err := publisher.Debts(t.Context())
		return err == nil && count == 0
	})
}

// Somebody who deletes the consumer, or a program that set the streams up before there were debts, stops nobody from paying.
func TestDebtConsumerIsMadeAgain(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	owe(t, client, ref(t, "demo/app", 1))
	if err := bare(t, server).DeleteConsumer(t.Context(), "DEBT", "debt-default"); err != nil {
		t.Fatal(err)
	}
	if d := consumeDebts(t, client, queue.ConsumeConfig{}).next(t); d.Request().Ref != ref(t, "demo/app", 1) {
		t.Errorf("got %s", d.Request().Ref)
	}
	wantDebts(t, client, 1)
}

// A debt that cannot be read goes to the dead letters, under its reference where the subject tells it; one of a newer version
// stays.
func TestDebtsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	js := bare(t, server)
	r, newer := ref(t, "demo/app", 1), ref(t, "demo/app", 2)
	for of, data := range map[artifact.Ref]string{r: `{"v":1,"ref":"` + r.String() + `"}`, newer: `{"v":99}`} {
		if _, err := js.Publish(t.Context(), queue.DebtSubject("default", of), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	consumeDebts(t, client, queue.ConsumeConfig{})
	eventually(t, "the malformed debt is a dead letter", func() bool { return waiting(t, js, "DEAD") == 1 })
	if letter := deadLetter(t, js, r); letter.Reason != string(fault.Malformed) || letter.Subject != queue.DebtSubject("default", r) {
		t.Errorf("dead letter %+v, want a malformed one of the debt", letter)
	}
	eventually(t, "the newer one alone is left", func() bool { return waiting(t, js, "DEBT") == 1 })
	wantDebts(t, client, 1)
}

// A program from before there were debts has set the streams up, and a newer one may have set up this stream.
func TestSetupOfDebtsBesideOtherVersions(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	js := bare(t, server)
	if err := js.DeleteStream(t.Context(), "DEBT"); err != nil {
		t.Fatal(err)
	}
	_, err := client.EnqueueDebt(t.Context(), request(ref(t, "demo/app", 1), artifact.Live))
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	_, _, err = client.Debts(t.Context())
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	owe(t, client, ref(t, "demo/app", 1))
	updateStream(t, js, "DEBT", func(cfg *jetstream.StreamConfig) {
		cfg.Metadata["harborseal_schema"], cfg.Description = "2", "of a newer version"
	})
	if err := js.DeleteConsumer(t.Context(), "DEBT", "debt-default"); err != nil {
		t.Fatal(err)
	}
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := streamConfig(t, js, "DEBT").Description; got != "of a newer version" {
		t.Errorf("the newer stream was changed: %q", got)
	}
	if _, err := js.Consumer(t.Context(), "DEBT", "debt-default"); !errors.Is(err, jetstream.ErrConsumerNotFound) {
		t.Errorf("a consumer was made on a newer stream: %v", err)
	}
}
