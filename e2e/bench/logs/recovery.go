package logs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/policy"
)

// callers is how many wait for the log while debts are paid: the default of sign.log_concurrency.
const callers = 256

// loopback is a name of every front that needs no name server.
const loopback = "127.0.0.1"

// Recovery is what follows an outage of the log.
type Recovery struct {
	Log     policy.LogType `json:"log"`
	Waiting int            `json:"waiting"`
	// Debts is how many entries were owed when the log was back, Entries how many more it has in the end.
	Debts   int `json:"debts"`
	Entries int `json:"entries"`
	// Signing is how long pushing and signing them took while the log was away.
	Signing time.Duration `json:"signing_ns"`
	// First and Took are from when the log was back to the first entry that was made, and to the last. Most is when nearly all
	// were made: 99 of 100.
	First time.Duration `json:"first_ns"`
	Most  time.Duration `json:"most_ns"`
	Took  time.Duration `json:"took_ns"`
	Own   Own           `json:"own"`
	Cost
	// Failures are attempts that had to be repeated, by their reasons.
	Failures map[string]int `json:"failed_attempts"`
}

// Rate is entries a second, from when the log was back.
func (r *Recovery) Rate() float64 { return rate(r.Debts, r.Took) }

// Ratio is that of the rates.
func (r *Recovery) Ratio() float64 { return ratio(r.Rate(), r.Own.Rate()) }

// recovery signs images while nobody answers for the log, and measures how their entries are made when it is back.
func (b *bench) recovery(ctx context.Context, log *harness.Rekor) (r *Recovery, err error) {
	r = &Recovery{Log: policy.LogType(log.Type), Debts: b.Debts, Waiting: callers}
	away, err := harness.StartFront(ctx, filepath.Join(b.Dir, "away"), log.URL)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeFront(ctx, away)) }()
	// The bare loop has a front as well, which is never away.
	there, err := harness.StartFront(ctx, filepath.Join(b.Dir, "there"), log.URL)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeFront(ctx, there)) }()
	own, err := newOwn(log, there.URL(loopback), callers, there.CAFile)
	if err != nil {
		return nil, err
	}
	defer own.close()
	if err := away.Cause(ctx, harness.Trouble{Refuse: true}); err != nil {
		return nil, err
	}
	c := logConfig(log, logName, away.URL(loopback))
	c["ca_file"] = away.CAFile
	w, err := b.newWorld(ctx, withLog(c), func(c harness.Config) {
		harness.Set(c, string(policy.TransparencyDeferred), "sign", "transparency")
		harness.Set(c, callers, "sign", "log_concurrency")
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.end()) }()
	if err := b.owe(ctx, w, r); err != nil {
		return nil, err
	}
	compared := min(b.Compared, b.Debts)
	b.say("recovery, %s: the log itself", r.Log)
	if err := own.measure(ctx, compared/2, &r.Own); err != nil {
		return nil, err
	}
	before, err := size(ctx, log)
	if err != nil {
		return nil, err
	}
	if err := b.payAll(ctx, w, away, r); err != nil {
		return nil, err
	}
	after, err := size(ctx, log)
	if err != nil {
		return nil, err
	}
	r.Entries = after - before
	if err := own.measure(ctx, compared-compared/2, &r.Own); err != nil {
		return nil, err
	}
	b.say("recovery, %s: %.1f debts a second, the log itself %.1f, ratio %.2f", r.Log, r.Rate(), r.Own.Rate(), r.Ratio())
	return r, nil
}

// owe pushes images and waits until they are signed.
func (b *bench) owe(ctx context.Context, w *world, r *Recovery) error {
	b.say("recovery, %s: pushing and signing %d images while the log is away", r.Log, b.Debts)
	begun := time.Now()
	if err := w.push(ctx, b.Debts); err != nil {
		return err
	}
	if err := w.reach(ctx, b.Debts, signed, func(harness.Metrics) {}); err != nil {
		return err
	}
	r.Signing = time.Since(begun)
	// What the queue holds is measured every some seconds.
	return w.until(ctx, func(m harness.Metrics) error {
		if owed := int(m.Sum("harborseal_log_debt")); owed != b.Debts {
			return fmt.Errorf("%d entries are owed, want %d", owed, b.Debts)
		}
		return nil
	})
}

// payAll lets the log be back.
func (b *bench) payAll(ctx context.Context, w *world, away *harness.Front, r *Recovery) error {
	b.say("recovery, %s: the log is back", r.Log)
	cost, err := w.begin()
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := away.Cause(ctx, harness.Trouble{}); err != nil {
		return err
	}
	next := b.Debts / 4
	err = w.reach(ctx, b.Debts, paid, func(m harness.Metrics) {
		since, have := time.Since(begun), paid(m)
		if have > 0 && r.First == 0 {
			r.First = since
		}
		if have >= b.Debts*99/100 && r.Most == 0 {
			r.Most = since
		}
		if have >= next && next > 0 {
			b.say("recovery, %s: %d paid after %s", r.Log, have, since.Round(time.Second))
			next += b.Debts / 4
		}
		r.Failures = failures(m)
	})
	if err != nil {
		return err
	}
	r.Took, r.Cost, err = cost.end(b.Debts)
	return err
}

// closeFront ends a front, also when ctx has ended.
func closeFront(ctx context.Context, f *harness.Front) error {
	return f.Cause(context.WithoutCancel(ctx), harness.Trouble{Refuse: true})
}
