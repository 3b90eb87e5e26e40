// Command consume works on requests and does nothing: it is for measuring what the queue costs by itself. It takes so many
// requests from the queue that it connects to, as a signer does, ends each at once, and prints what that took as JSON.
//
// With -bare it does not use the service's own client: it pulls from the same consumers one message after the other and
// acknowledges each, waiting for the confirmation, and nothing else.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/e2e/bench/contender"
	"github.com/harborseal/harborseal/pkg/queue"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "consume:", err)
		os.Exit(1) //nolint:forbidigo // this is a main package outside cmd/
	}
}

// options are the flags.
type options struct {
	url, user, passwordFile string
	requests                int64
	bare                    bool
}

// result is what the requests have taken, from the first one that came to the end of the last. CPU is this process's.
type result struct {
	Took time.Duration `json:"took_ns"`
	CPU  time.Duration `json:"cpu_ns"`
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	flags := flag.NewFlagSet("consume", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.url, "url", "", "address of the queue")
	flags.StringVar(&o.user, "user", "", "user there")
	flags.StringVar(&o.passwordFile, "password-file", "", "file with its password")
	flags.Int64Var(&o.requests, "requests", 1, "requests to end")
	flags.BoolVar(&o.bare, "bare", false, "use nothing of the service")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("parsing flags: %w", err)
	}
	consume := service
	if o.bare {
		consume = bare
	}
	m := &meter{want: o.requests, done: make(chan struct{})}
	consuming, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- consume(consuming, o, m) }()
	select {
	case <-m.done:
		cancel()
		if err := <-ended; err != nil {
			return err
		}
	case err := <-ended:
		return errors.Join(err, ctx.Err(), errors.New("it ended before the requests"))
	}
	if err := json.NewEncoder(stdout).Encode(m.result); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return m.err
}

// meter counts requests that were ended.
type meter struct {
	want  int64
	count atomic.Int64
	begin sync.Once
	begun time.Time
	cpu   time.Duration
	done  chan struct{} // closed behind the last one; result and err are set before
	result
	err error
}

// first notes when the first request came.
func (m *meter) first() {
	m.begin.Do(func() {
		cpu, err := contender.CPUTime()
		m.begun, m.cpu, m.err = time.Now(), cpu, err
	})
}

func (m *meter) ended() {
	if m.count.Add(1) != m.want {
		return
	}
	m.Took = time.Since(m.begun)
	cpu, err := contender.CPUTime()
	m.CPU, m.err = cpu-m.cpu, errors.Join(m.err, err)
	close(m.done)
}

// service consumes as a signer does.
func service(ctx context.Context, o options, m *meter) error {
	client, err := queue.Connect(ctx, queue.Config{
		URLs: []string{o.url}, Username: o.user, PasswordFile: o.passwordFile, Name: "consume", Logger: zerolog.Nop(),
	})
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Consume(ctx, queue.ConsumeConfig{Handle: func(ctx context.Context, d *queue.Delivery) {
		m.first()
		if d.Done(ctx) == nil {
			m.ended()
		}
	}})
}

// bare consumes with nats.go alone.
func bare(ctx context.Context, o options, m *meter) error {
	password, err := os.ReadFile(o.passwordFile)
	if err != nil {
		return fmt.Errorf("reading the password: %w", err)
	}
	conn, err := nats.Connect(o.url, nats.UserInfo(o.user, strings.TrimSpace(string(password))))
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	stream, err := js.Stream(ctx, "SIGN")
	if err != nil {
		return fmt.Errorf("looking at the stream: %w", err)
	}
	var pulls sync.WaitGroup
	defer pulls.Wait()
	names := stream.ConsumerNames(ctx)
	for name := range names.Name() {
		consumer, err := stream.Consumer(ctx, name)
		if err != nil {
			return fmt.Errorf("looking at a consumer: %w", err)
		}
		messages, err := consumer.Messages()
		if err != nil {
			return fmt.Errorf("pulling: %w", err)
		}
		stop := context.AfterFunc(ctx, messages.Stop)
		pulls.Go(func() {
			defer stop()
			for msg, err := messages.Next(); err == nil; msg, err = messages.Next() {
				m.first()
				if msg.DoubleAck(ctx) == nil {
					m.ended()
				}
			}
		})
	}
	<-ctx.Done()
	return nil
}
