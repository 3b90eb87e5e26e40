package delivery

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/delivery/yardstick"
	"github.com/harborseal/harborseal/e2e/bench/hooks"
	"github.com/harborseal/harborseal/e2e/bench/stage"
	"github.com/harborseal/harborseal/e2e/bench/target"
)

const (
	// leastOfLoop and leastOfServer are what the receiver has to reach of the yardsticks' rates.
	leastOfLoop   = 0.6
	leastOfServer = 0.8
	// harborWaits is how long Harbor waits for an answer.
	harborWaits = 3 * time.Second
)

// ReceiverResult is how the receiver takes webhooks.
type ReceiverResult struct {
	Rows   []*ReceiverRow `json:"rows"`
	Checks target.Checks  `json:"checks"`
}

// ReceiverRow is one number of connections.
type ReceiverRow struct {
	Connections int           `json:"connections"`
	Receiver    hooks.Answers `json:"receiver"`
	// CPU is the receiver's own for all webhooks, its embedded queue and its report included.
	CPU time.Duration `json:"cpu_ns"`
	// Loop is the bare loop, as many webhooks at once as there are connections; Server the same publishes behind a bare HTTP
	// server.
	Loop   yardstick.Loop `json:"loop"`
	Server hooks.Answers  `json:"server"`
}

// OfLoop is the ratio to the rate of the bare loop.
func (r *ReceiverRow) OfLoop() float64 { return ratio(r.Receiver.Rate(), r.Loop.Rate()) }

// OfServer is the ratio to the rate of the bare server.
func (r *ReceiverRow) OfServer() float64 { return ratio(r.Receiver.Rate(), r.Server.Rate()) }

// Receiver measures the receiver. No signer runs.
func Receiver(ctx context.Context, o Options) (*ReceiverResult, error) {
	programs, y, err := o.build(ctx)
	if err != nil {
		return nil, err
	}
	const project = "receiver"
	webhooks, connections := 6000, []int{1, 10, 100}
	if o.Quick {
		webhooks, connections = 600, []int{10}
	}
	r := &ReceiverResult{}
	err = with(ctx, stage.Options{
		Dir: o.dir(project), Programs: programs, Progress: o.Progress, Projects: []string{project},
	}, func(s *stage.Stage) error {
		if err := s.System.StartProgram(ctx, s.System.Receiver); err != nil {
			return err
		}
		b := &receiverBench{Stage: s, y: y, project: project}
		for _, n := range connections {
			row, err := b.row(ctx, n, webhooks)
			if err != nil {
				return err
			}
			r.Rows = append(r.Rows, row)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.Judge(o.Quick)
	return r, nil
}

// receiverBench is a running receiver.
type receiverBench struct {
	*stage.Stage
	y       *yardstick.Yardstick
	project string
	sent    int // so far: each webhook is about a digest of its own
}

func (b *receiverBench) row(ctx context.Context, connections, webhooks int) (r *ReceiverRow, err error) {
	r = &ReceiverRow{Connections: connections}
	b.Say("receiver: %d webhooks over %d connections", webhooks, connections)
	before, serverBefore, err := b.yardsticks(ctx, connections, webhooks/2)
	if err != nil {
		return nil, err
	}
	to, err := b.Target(b.project)
	if err != nil {
		return nil, err
	}
	used, err := b.System.Receiver.Process.Usage()
	if err != nil {
		return nil, err
	}
	if r.Receiver, err = hooks.Send(ctx, to, b.order(connections, webhooks)); err != nil {
		return nil, err
	}
	usedAfter, err := b.System.Receiver.Process.Usage()
	if err != nil {
		return nil, err
	}
	r.CPU = usedAfter.CPU - used.CPU
	after, serverAfter, err := b.yardsticks(ctx, connections, webhooks-webhooks/2)
	if err != nil {
		return nil, err
	}
	r.Loop, r.Server = before.Join(after), serverBefore.Join(serverAfter)
	return r, nil
}

// yardsticks measures the bare loop and the bare server.
func (b *receiverBench) yardsticks(ctx context.Context, connections, webhooks int) (l yardstick.Loop, server hooks.Answers, err error) {
	if l, err = b.y.Publish(ctx, webhooks, connections); err != nil {
		return l, server, err
	}
	err = b.y.Serve(ctx, webhooks, func(ctx context.Context, origin string) error {
		to, err := hooks.NewTarget(origin+"/webhooks/harbor/"+b.project, b.System.WebhookAuth)
		if err != nil {
			return err
		}
		server, err = hooks.Send(ctx, to, b.order(connections, webhooks))
		return err
	})
	return l, server, err
}

// order is about digests that were in none before.
func (b *receiverBench) order(connections, webhooks int) hooks.Order {
	from := b.sent
	b.sent += webhooks
	return hooks.Order{
		Webhooks: upTo(from, b.sent), AtOnce: connections,
		Body: func(i int) []byte { return stage.Body(invented(b.project, i)) },
	}
}

// Judge holds it against the targets; without times where they say nothing.
func (r *ReceiverResult) Judge(quick bool) {
	r.Checks = nil
	for _, row := range r.Rows {
		name := fmt.Sprintf("%d connections: ", row.Connections)
		r.Checks.Add(name+"accepted", fmt.Sprintf("all %d", row.Receiver.Sent), row.Receiver.Sent > 0 && row.Receiver.Accepted == row.Receiver.Sent,
			"%d", row.Receiver.Accepted)
		if quick {
			continue
		}
		r.Checks.Add(name+"slowest answer", "at most "+harborWaits.String(), row.Receiver.All.Max <= harborWaits, "%s",
			row.Receiver.All.Max.Round(time.Millisecond))
		r.Checks.Add(name+"to the bare loop", fmt.Sprintf("at least %.1f", leastOfLoop), row.OfLoop() >= leastOfLoop, "%.2f", row.OfLoop())
		r.Checks.Add(name+"to the bare server", fmt.Sprintf("at least %.1f", leastOfServer), row.OfServer() >= leastOfServer, "%.2f", row.OfServer())
	}
}

// Missed says whether a target was missed.
func (r *ReceiverResult) Missed() bool { return r.Checks.Missed() }

// Print writes the table.
func (r *ReceiverResult) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "receiver: connections\twebhooks\taccepted/s\tp50 / p99 / max\tCPU, ms each\tbare loop/s\tratio\tits p50 / p99 / max\tbare server/s\tratio\t")
	for _, row := range r.Rows {
		cpu := float64(row.CPU.Microseconds()) / 1000 / float64(max(1, row.Receiver.Sent))
		_, _ = fmt.Fprintf(w, "%d\t%d\t%.0f\t%s\t%.2f\t%.0f\t%.2f\t%s\t%.0f\t%.2f\t\n", row.Connections, row.Receiver.Sent, row.Receiver.Rate(),
			row.Receiver.All, cpu, row.Loop.Rate(), row.OfLoop(), row.Loop.Latency, row.Server.Rate(), row.OfServer())
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	_, err := fmt.Fprintln(out, "A webhook is two publishes, one after the other, each synced to disk, to subjects of its own. The bare loop does those alone, in\n"+
		"one process with its server; the bare server does them behind net/http, with the same sender. The receiver's CPU has its queue's\n"+
		"and its report's in it.")
	if err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	return r.Checks.Print(out)
}
