package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// answer runs Answer until stop is called, at the latest at the end of the test, and waits until it answers.
func answer(
	t *testing.T, c *queue.Client, topic string, workers int, fn func(context.Context, []byte) ([]byte, error),
) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := c.Answer(ctx, topic, workers, fn); err != nil {
			t.Errorf("Answer = %v", err)
		}
	}()
	stop = func() {
		cancel()
		<-stopped
	}
	t.Cleanup(stop)
	return stop
}

// ask insists: who answers may still be about to begin.
func ask(t *testing.T, c *queue.Client, topic, request string) (data []byte, err error) {
	t.Helper()
	eventually(t, "somebody answers", func() bool {
		data, err = c.Ask(t.Context(), topic, []byte(request))
		return err == nil || fault.Of(err).Reason != fault.QueueUnavailable
	})
	return data, err
}

func TestAskAndAnswer(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	started := time.Now()
	_, err := client.Ask(t.Context(), "known", nil)
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	if waited := time.Since(started); waited > 3*time.Second {
		t.Errorf("nobody is there, and it took %s to say so", waited)
	}
	stop := answer(t, queuetest.NewClient(t, server), "known", 2, func(_ context.Context, request []byte) ([]byte, error) {
		return append([]byte("you said "), request...), nil
	})
	if got, err := ask(t, client, "known", "hello"); string(got) != "you said hello" || err != nil {
		t.Errorf("Ask = %q, %v; want an answer", got, err)
	}
	if got, err := ask(t, client, "known", ""); string(got) != "you said " || err != nil {
		t.Errorf("Ask for nothing = %q, %v; want an answer", got, err)
	}
	_, err = client.Ask(t.Context(), "units", nil)
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	other := queuetest.Connect(t, queue.Config{Server: server, Harbor: "other"})
	_, err = other.Ask(t.Context(), "known", nil)
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	stop()
	_, err = client.Ask(t.Context(), "known", nil)
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
}

// Each question goes to one program, and to no more workers at once than were asked for.
func TestAnswersAreShared(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	var mu sync.Mutex
	seen := map[string]int{}
	var working, most atomic.Int32
	for range 2 {
		answer(t, queuetest.NewClient(t, server), "known", 3, func(_ context.Context, request []byte) ([]byte, error) {
			now := working.Add(1)
			defer working.Add(-1)
			for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
			}
			mu.Lock()
			defer mu.Unlock()
			seen[string(request)]++
			return request, nil
		})
	}
	client := queuetest.NewClient(t, server)
	if _, err := ask(t, client, "known", "first"); err != nil {
		t.Fatal(err)
	}
	var asking sync.WaitGroup
	for i := range 60 {
		asking.Go(func() {
			want := fmt.Sprint("question ", i)
			if got, err := client.Ask(t.Context(), "known", []byte(want)); string(got) != want || err != nil {
				t.Errorf("Ask(%s) = %q, %v", want, got, err)
			}
		})
	}
	asking.Wait()
	mu.Lock()
	defer mu.Unlock()
	for question, times := range seen {
		if times != 1 {
			t.Errorf("%s was answered %d times, want once", question, times)
		}
	}
	if most.Load() > 6 {
		t.Errorf("%d questions were worked on at once, want at most 6", most.Load())
	}
}

func TestFaultsCrossOver(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	tests := map[string]struct {
		err  error
		want fault.Error
		text string
	}{
		"permanent": {fault.Newf(fault.Permanent, fault.Denied, "no right"), fault.Error{Kind: fault.Permanent, Reason: fault.Denied}, "no right"},
		"gone":      {fault.Newf(fault.Gone, fault.NotFound, "not there"), fault.Error{Kind: fault.Gone, Reason: fault.NotFound}, "not there"},
		"delay": {
			fault.After(7*time.Second, fault.RateLimited, errors.New("slowly")),
			fault.Error{Kind: fault.Transient, Reason: fault.RateLimited, RetryAfter: 7 * time.Second},
			"slowly",
		},
		"wrapped": {
			fmt.Errorf("reading it: %w", fault.Newf(fault.Permanent, fault.Paused, "paused")),
			fault.Error{Kind: fault.Permanent, Reason: fault.Paused},
			"reading it: paused",
		},
		"no fault":   {errors.New("plain"), fault.Error{Kind: fault.Transient, Reason: fault.Unknown}, "plain"},
		"deadline":   {context.DeadlineExceeded, fault.Error{Kind: fault.Transient, Reason: fault.Timeout}, "deadline"},
		"long":       {errors.New(strings.Repeat("ä", 10_000)), fault.Error{Kind: fault.Transient, Reason: fault.Unknown}, strings.Repeat("ä", 512)},
		"two lines":  {errors.New("one\r\ntwo"), fault.Error{Kind: fault.Transient, Reason: fault.Unknown}, "one  two"},
		"no text":    {errors.New(""), fault.Error{Kind: fault.Transient, Reason: fault.Unknown}, "an error without a text"},
		"other kind": {fault.Newf("fatal", "made_up", "odd"), fault.Error{Kind: fault.Transient, Reason: fault.Unknown}, "odd"},
	}
	answer(t, queuetest.NewClient(t, server), "known", 1, func(_ context.Context, request []byte) ([]byte, error) {
		return []byte("not an answer"), tests[string(request)].err
	})
	for name, tt := range tests {
		data, err := ask(t, client, "known", name)
		if err == nil || data != nil {
			t.Errorf("%s: Ask = %q, %v; want an error alone", name, data, err)
			continue
		}
		got := fault.Of(err)
		if got.Kind != tt.want.Kind || got.Reason != tt.want.Reason || got.RetryAfter != tt.want.RetryAfter {
			t.Errorf("%s: got %s %s after %s, want %+v", name, got.Kind, got.Reason, got.RetryAfter, tt.want)
		}
		if !strings.Contains(err.Error(), tt.text) || len(err.Error()) > 1100 || !utf8.ValidString(err.Error()) {
			t.Errorf("%s: got text %q, want %q", name, err, tt.text)
		}
	}
}

// All reasons that exist cross over; the list is of the package that names them.
func TestReasonsAreAllKnown(t *testing.T) {
	t.Parallel()
	for _, reason := range declaredReasons(t) {
		f := fault.Of(queue.CrossOver(fault.Newf(fault.Permanent, reason, "text")))
		if f.Reason != reason || f.Kind != fault.Permanent {
			t.Errorf("reason %s came over as %s %s", reason, f.Kind, f.Reason)
		}
	}
}

// declaredReasons reads them from the source of package fault.
func declaredReasons(t *testing.T) (reasons []fault.Reason) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../fault/fault.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Reason" {
			literal, ok := spec.Values[0].(*ast.BasicLit)
			if !ok {
				t.Fatalf("reason %s is no literal", spec.Names[0])
			}
			text, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			reasons = append(reasons, fault.Reason(text))
		}
		return true
	})
	if len(reasons) < 30 {
		t.Fatalf("found %d reasons", len(reasons))
	}
	return reasons
}

func FuzzDecodeFault(f *testing.F) {
	f.Add("permanent", "denied", "5s", []byte("text"))
	f.Add("fatal", "", "-1h", []byte("\xff\x00"))
	f.Fuzz(func(t *testing.T, kind, reason, delay string, body []byte) {
		err := queue.DecodeFault(kind, reason, delay, body)
		if kind == "" {
			if err != nil {
				t.Fatalf("an answer without a kind became %v", err)
			}
			return
		}
		got := fault.Of(err)
		if got.Kind != fault.Transient && got.Kind != fault.Permanent && got.Kind != fault.Gone {
			t.Errorf("kind %q", got.Kind)
		}
		if len(err.Error()) > 1024 || !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\r\n\x00") {
			t.Errorf("text %q", err)
		}
		if got.RetryAfter < 0 || got.RetryAfter > time.Hour {
			t.Errorf("delay %s", got.RetryAfter)
		}
	})
}

func TestQuestionsThatAreRefused(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	answer(t, queuetest.NewClient(t, server), "known", 1, func(_ context.Context, request []byte) ([]byte, error) {
		if string(request) == "panic" {
			panic("one row of one batch")
		}
		return make([]byte, 2<<20), nil
	})
	_, err := ask(t, client, "known", "much")
	wantFault(t, err, fault.Permanent, fault.TooLarge)
	_, err = ask(t, client, "known", "panic")
	wantFault(t, err, fault.Transient, fault.Unknown)
	if strings.Contains(err.Error(), "row") {
		t.Errorf("what the bug was crossed over: %v", err)
	}
	_, err = client.Ask(t.Context(), "known", make([]byte, 2<<20))
	wantFault(t, err, fault.Permanent, fault.TooLarge)
	for _, topic := range []string{"", "a.b", "*", "A"} {
		_, err := client.Ask(t.Context(), topic, nil)
		wantFault(t, err, fault.Permanent, fault.Malformed)
		if err := client.Answer(t.Context(), topic, 1, nil); err == nil {
			t.Errorf("Answer(%q) has no error", topic)
		}
	}
	if err := client.Answer(t.Context(), "known", 0, nil); err == nil {
		t.Error("Answer by nobody has no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = client.Ask(ctx, "known", nil)
	wantFault(t, err, fault.Transient, fault.Canceled)
}

// Who may ask must not have the answer stored as an event: the subject of the reply is of their choice.
func TestAnswersGoToNoStream(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	answer(t, client, "known", 1, func(_ context.Context, request []byte) ([]byte, error) { return request, nil })
	if _, err := ask(t, client, "known", "hello"); err != nil {
		t.Fatal(err)
	}
	connection := queue.RawConnection(t, server)
	for _, reply := range []string{
		"ledger.v1.default.signed.a.b", "sign.v1.default.live.1.a.b", "debt.v1.default.a.b", "dead.v1.default.a.b", "scan.v1.default.full.a.1",
		"$KV.POLICIES.v1.default.policy.mrsw23y", "$JS.API.STREAM.DELETE.SIGN",
	} {
		if err := connection.PublishMsg(&nats.Msg{Subject: "ask.v1.default.known", Reply: reply, Data: []byte("forged")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := connection.Flush(); err != nil {
		t.Fatal(err)
	}
	// One worker, in order: behind this answer all others are decided.
	if _, err := ask(t, client, "known", "hello"); err != nil {
		t.Fatal(err)
	}
	js := bare(t, server)
	for _, stream := range []string{"LEDGER", "SIGN", "DEBT", "DEAD", "SCAN", "KV_POLICIES"} {
		if got := waiting(t, js, stream); got != 0 {
			t.Errorf("stream %s holds %d messages, want none", stream, got)
		}
	}
}

// A program that stops tells those who still wait, so that they need not wait in vain.
func TestStoppingTellsWhoWaits(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	working := make(chan struct{}, 1)
	stop := answer(t, queuetest.NewClient(t, server), "known", 1, func(ctx context.Context, request []byte) ([]byte, error) {
		if bytes.Equal(request, []byte("hello")) {
			return nil, nil
		}
		working <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if _, err := ask(t, client, "known", "hello"); err != nil {
		t.Fatal(err)
	}
	const n = 5
	failures := make(chan error, n)
	for range n {
		go func() {
			_, err := client.Ask(context.Background(), "known", []byte("wait"))
			failures <- err
		}()
	}
	receive(t, working, "the first question")
	// Questions travel in order on a connection, so that one which was answered elsewhere shows that these have arrived.
	answer(t, queuetest.NewClient(t, server), "echo", 1, func(context.Context, []byte) ([]byte, error) { return nil, nil })
	if _, err := ask(t, client, "echo", "hello"); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	stop()
	for range n {
		if err := receive(t, failures, "an answer"); !fault.Is(err, fault.Transient) {
			t.Errorf("got %v, want a transient fault", err)
		}
	}
	if waited := time.Since(started); waited > 3*time.Second {
		t.Errorf("they waited %s", waited)
	}
}

func TestAnswersAfterARestart(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}
	client := queuetest.Connect(t, clientCfg)
	answer(t, queuetest.Connect(t, clientCfg), "known", 1, func(context.Context, []byte) ([]byte, error) { return []byte("here"), nil })
	if _, err := ask(t, client, "known", "hello"); err != nil {
		t.Fatal(err)
	}
	startAgain(t, server, serverCfg)
	if got, err := ask(t, client, "known", "hello"); string(got) != "here" || err != nil {
		t.Errorf("Ask = %q, %v after a restart", got, err)
	}
}
