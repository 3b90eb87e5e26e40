package logs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// Catch is how a signer has caught up with images that were waiting for it.
type Catch struct {
	Signatures int `json:"signatures"`
	// Took is from the first request in work to the last signature.
	Took time.Duration `json:"took_ns"`
	Cost
	// Waiting is the most that were seen waiting for the log at once.
	Waiting int `json:"most_waiting"`
	// Failures are attempts that had to be repeated, by their reasons.
	Failures map[string]int `json:"failed_attempts"`
}

// Rate is signatures a second.
func (c Catch) Rate() float64 { return rate(c.Signatures, c.Took) }

func rate(n int, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(n) / took.Seconds()
}

// catchUp pushes images while the signer is away, and measures how it signs them. What follows a signature is not waited for.
func (w *world) catchUp(ctx context.Context, n int) (c Catch, err error) {
	if err := w.signer().Process.Stop(); err != nil {
		return c, err
	}
	if err := w.push(ctx, n); err != nil {
		return c, err
	}
	if err := w.LaunchProgram(ctx, w.signer()); err != nil {
		return c, err
	}
	// The start of the program and the reading of its key are left out.
	err = harness.Until(ctx, patience, func(ctx context.Context) error {
		m, err := w.Metrics(ctx, w.signer())
		if err == nil && m.InFlight()+m.Sum("harborseal_queue_aside") == 0 {
			err = errors.New("nothing is in work")
		}
		return err
	})
	if err != nil {
		return c, fmt.Errorf("%w\n%s", err, w.Tails())
	}
	cost, err := w.begin()
	if err != nil {
		return c, err
	}
	err = w.reach(ctx, n, signed, func(m harness.Metrics) {
		c.Waiting, c.Failures = max(c.Waiting, int(m.Sum("harborseal_queue_aside"))), failures(m)
	})
	if err != nil {
		return c, err
	}
	c.Signatures = n
	c.Took, c.Cost, err = cost.end(n)
	return c, err
}

// Cost is the processor time of one signature or debt, by who used it. Log is all that is not one of the others: log, database,
// timestamp authority.
type Cost struct {
	Signer   time.Duration `json:"signer_cpu_ns"`
	Receiver time.Duration `json:"receiver_cpu_ns"`
	Emulator time.Duration `json:"emulator_cpu_ns"`
	Log      time.Duration `json:"log_cpu_ns"`
	// Busy is which part of the machine's processor time was used, by whomever, from 0 to 1.
	Busy float64 `json:"processors_busy"`
}

// meter measures a cost.
type meter struct {
	processes [3]*harness.Process
	before    [3]time.Duration
	load      load
}

func (w *world) begin() (m *meter, err error) {
	m = &meter{processes: [...]*harness.Process{w.signer().Process, w.Receiver.Process, w.emulator}}
	for i, p := range m.processes {
		if m.before[i], err = usage(p); err != nil {
			return nil, err
		}
	}
	m.load = newLoad()
	return m, nil
}

// end gives the time since then, and the cost of each of n.
func (m *meter) end(n int) (took time.Duration, c Cost, err error) {
	used := m.load.since()
	c.Busy, c.Log = used.busy, used.started
	for i, to := range []*time.Duration{&c.Signer, &c.Receiver, &c.Emulator} {
		after, err := usage(m.processes[i])
		if err != nil {
			return 0, c, err
		}
		*to = (after - m.before[i]) / time.Duration(n)
		c.Log -= after - m.before[i]
	}
	c.Log = max(0, c.Log) / time.Duration(n)
	return used.took, c, nil
}
