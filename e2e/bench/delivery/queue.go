package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/harborseal/harborseal/e2e/bench/stage"
	"github.com/harborseal/harborseal/e2e/bench/target"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
)

const (
	// queueProjects is among how many projects the requests are divided: all partitions have some.
	queueProjects = 64
	// leastOfBare is what has to be reached of the bare consumer's rate.
	leastOfBare = 0.5
)

// QueueResult is what a request costs by the queue alone, from its delivery to its confirmed end.
type QueueResult struct {
	Requests int `json:"requests"`
	// Service uses the service's own client, as a signer does; Bare pulls and acknowledges, and does nothing else.
	Service QueueCost     `json:"service"`
	Bare    QueueCost     `json:"bare"`
	Checks  target.Checks `json:"checks"`
}

// QueueCost is for all requests of one run, or of several. CPU is the consumer's, ServerCPU the receiver's with its embedded queue.
type QueueCost struct {
	Requests  int           `json:"requests"`
	Took      time.Duration `json:"took_ns"`
	CPU       time.Duration `json:"cpu_ns"`
	ServerCPU time.Duration `json:"server_cpu_ns"`
}

// Rate is requests a second.
func (c QueueCost) Rate() float64 { return float64(c.Requests) / max(c.Took.Seconds(), 1e-9) }

// Queue measures the queue with a handler that does nothing. All requests wait when the consumer starts.
func Queue(ctx context.Context, o Options) (*QueueResult, error) {
	programs, _, err := o.build(ctx)
	if err != nil {
		return nil, err
	}
	program := filepath.Join(o.Dir, "consume")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/harborseal/harborseal/e2e/bench/programs/consume") //nolint:gosec // our own program
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the program consume: %w\n%s", err, out)
	}
	r := &QueueResult{Requests: 20_000}
	if o.Quick {
		r.Requests = 1000
	}
	err = with(ctx, stage.Options{
		Dir: o.dir("queue"), Programs: programs, Progress: o.Progress, Projects: []string{"queue"},
	}, func(s *stage.Stage) error {
		if err := s.System.StartProgram(ctx, s.System.Receiver); err != nil {
			return err
		}
		b := &queueBench{Stage: s, program: program}
		// Each half of what is compared lies around the other.
		for _, run := range []struct {
			of   *QueueCost
			bare bool
			n    int
		}{{&r.Bare, true, r.Requests / 2}, {&r.Service, false, r.Requests}, {&r.Bare, true, r.Requests - r.Requests/2}} {
			if err := b.run(ctx, run.of, run.bare, run.n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.Judge(o.Quick)
	return r, nil
}

// queueBench is a running receiver.
type queueBench struct {
	*stage.Stage
	program string
	made    int // requests so far: each is about a digest of its own
}

// run lets requests wait, and then be ended.
func (b *queueBench) run(ctx context.Context, cost *QueueCost, bare bool, n int) error {
	if err := b.enqueue(ctx, n); err != nil {
		return err
	}
	b.Say("queue: ending %d requests, bare: %t", n, bare)
	before, err := b.System.Receiver.Process.Usage()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, b.program, "-url", b.System.QueueURL(), "-user", "signer", "-password-file", b.System.QueuePassword(), //nolint:gosec // our own program
		"-requests", strconv.Itoa(n), "-bare="+strconv.FormatBool(bare))
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("running the program consume: %w\n%s", err, exit.Stderr)
	}
	if err != nil {
		return fmt.Errorf("running the program consume: %w", err)
	}
	after, err := b.System.Receiver.Process.Usage()
	if err != nil {
		return err
	}
	var one QueueCost
	if err := json.Unmarshal(out, &one); err != nil {
		return fmt.Errorf("reading what consume has measured: %w", err)
	}
	cost.Requests += n
	cost.Took += one.Took
	cost.CPU += one.CPU
	cost.ServerCPU += after.CPU - before.CPU
	return nil
}

// enqueue puts requests into the queue, as a sweep does.
func (b *queueBench) enqueue(ctx context.Context, n int) error {
	const atOnce = 32
	client, err := queue.Connect(ctx, queue.Config{
		URLs: []string{b.System.QueueURL()}, Username: "signer", PasswordFile: b.System.QueuePassword(), Name: "bench", Logger: zerolog.Nop(),
	})
	if err != nil {
		return err
	}
	defer client.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for range n {
		i := b.made
		b.made++
		g.Go(func() error {
			digest := invented("queue-"+strconv.Itoa(i%queueProjects), i)
			ref, err := artifact.NewRef(digest.Repository, digest.Digest)
			if err != nil {
				return err
			}
			_, err = client.Enqueue(ctx, artifact.Request{
				Ref: ref, Lane: artifact.Live, Origin: artifact.OriginSweep, Actor: "bench", CorrelationID: "bench", RequestedAt: time.Now(),
			})
			return err
		})
	}
	return g.Wait()
}

// Judge holds it against the targets; without times where they say nothing.
func (r *QueueResult) Judge(quick bool) {
	r.Checks = nil
	if !quick {
		of := ratio(r.Service.Rate(), r.Bare.Rate())
		r.Checks.Add("requests a second, to the bare consumer", fmt.Sprintf("at least %.1f", leastOfBare), of >= leastOfBare, "%.2f", of)
	}
}

// Missed says whether a target was missed.
func (r *QueueResult) Missed() bool { return r.Checks.Missed() }

// Print writes the table.
func (r *QueueResult) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "queue: a handler that does nothing\trequests\ta second\tms each\tCPU of the consumer, ms each\tCPU of the receiver, ms each\t")
	for _, row := range []struct {
		name string
		cost QueueCost
	}{{"the service's client", r.Service}, {"bare pulls and double acks", r.Bare}} {
		each := func(d time.Duration) float64 {
			return float64(d.Microseconds()) / 1000 / float64(max(1, row.cost.Requests))
		}
		_, _ = fmt.Fprintf(w, "%s\t%d\t%.0f\t%.3f\t%.3f\t%.3f\t\n", row.name, row.cost.Requests, row.cost.Rate(), each(row.cost.Took), each(row.cost.CPU),
			each(row.cost.ServerCPU))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	return r.Checks.Print(out)
}
