package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/fault"
)

// tickRetry is when a tick whose handler failed is handed out again.
const tickRetry = 10 * time.Second

// Tick is one slot of recurring work.
type Tick struct {
	// Kind of work, such as "sweep": 1 to 32 of a-z, 0-9, - and _.
	Kind string
	// Key is what the work is about, such as a project; empty if it is about everything.
	Key string
	// Slot numbers the interval: the time divided by the interval's length.
	Slot int64
}

// Propose offers a tick. All replicas propose each tick: the first is accepted, the others are refused, also after the
// work is done and after the server was restarted, as long as ticks are remembered (Limits.ScanMaxAge).
//
// A crash or an error before the answer leaves open whether it was accepted; proposing it again is safe.
func (c *Client) Propose(ctx context.Context, kind, key string, slot int64) (accepted bool, err error) {
	if err := validateKind(kind); err != nil {
		return false, fault.New(fault.Permanent, fault.Malformed, err)
	}
	_, err = c.publish(ctx, streamScan, ScanSubject(c.cfg.Harbor, kind, key, slot), nil)
	if errors.Is(err, errDuplicate) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("proposing a tick: %w", err)
	}
	return true, nil
}

// ConsumeTicks hands the ticks of one kind to handle until ctx ends, one at a time, oldest first. Over all programs, at
// most atOnce of the kind are out at once; all programs should name the same number, the last one that began counts (unless
// it is one that may not change it: [Config].Imported). An
// error of handle gives the tick back for another attempt, after the delay of its fault or else 10 seconds, during which it
// counts as out; a program that vanishes gives it back after the ack wait. Ticks queue up while nobody works: the handler skips a slot that has passed. A tick whose handler panics is logged and counts
// as done: it would do the same to each program in turn, and the next slot is the next attempt.
//
// ctx is also the handler's: a tick that was interrupted goes to another program at once. A crash after the work and
// before the acknowledgement repeats the work.
func (c *Client) ConsumeTicks(
	ctx context.Context, kind string, atOnce int, handle func(ctx context.Context, tick Tick) error,
) error {
	if err := validateKind(kind); err != nil {
		return fmt.Errorf("consuming ticks: %w", err)
	}
	if atOnce < 1 {
		return fmt.Errorf("consuming ticks: %d at once, want at least 1", atOnce)
	}
	open := func(ctx context.Context) (jetstream.Consumer, error) { return c.openTicks(ctx, kind, atOnce) }
	c.keepPulling(ctx, pump{
		name: scanConsumer(c.cfg.Harbor, kind), open: open,
		take: func(pulling context.Context, consumer jetstream.Consumer, msg jetstream.Msg) {
			c.handleTick(ctx, pulling, consumer, msg, handle)
		},
	})
	return nil
}

// openTicks binds to the kind's consumer, and creates it where it is missing or changes it where another number of ticks may
// be out at once: kinds are not known at set-up. What a newer program made is left alone.
func (c *Client) openTicks(ctx context.Context, kind string, atOnce int) (jetstream.Consumer, error) {
	consumer, err := c.js.Consumer(ctx, streamScan, scanConsumer(c.cfg.Harbor, kind))
	want := jetstream.ConsumerConfig{}
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound) && c.cfg.Imported:
		return nil, fmt.Errorf("consumer %s is not there: signers make it: %w", scanConsumer(c.cfg.Harbor, kind), err)
	case errors.Is(err, jetstream.ErrConsumerNotFound):
	case err != nil:
		return nil, err
	default:
		want = consumer.CachedInfo().Config
		if want.MaxAckPending == atOnce || isNewer(want.Metadata) || c.cfg.Imported {
			return consumer, nil
		}
	}
	c.applyScanConsumer(kind, atOnce)(&want)
	return c.js.CreateOrUpdateConsumer(ctx, streamScan, want)
}

func (c *Client) handleTick(
	ctx, pulling context.Context, consumer jetstream.Consumer, msg jetstream.Msg, handle func(context.Context, Tick) error,
) {
	d, err := c.newDelivery(msg, "", consumer.CachedInfo().Config.AckWait)
	if err != nil {
		c.log.Error().Err(err).Str("subject", msg.Subject()).Msg("tick has no metadata")
		return
	}
	d.keepAlive()
	defer d.end()
	ack := context.WithoutCancel(ctx)
	tick, err := parseScanSubject(msg.Subject())
	if err != nil {
		// Nobody can ever read it, and it carries nothing but its subject.
		c.metrics.undecodable.WithLabelValues(streamScan).Inc()
		c.log.Error().Err(err).Str("subject", msg.Subject()).Msg("tick cannot be read, dropping it")
		c.ackTick(ack, d)
		return
	}
	if ctx.Err() != nil {
		<-pulling.Done()
		d.giveBack(ack, 0)
		return
	}
	panicked, err := c.callTick(ctx, tick, handle)
	switch {
	case err == nil || panicked:
		c.ackTick(ack, d)
	case ctx.Err() != nil:
		<-pulling.Done()
		d.giveBack(ack, 0)
	default:
		c.log.Warn().Err(err).Str("kind", tick.Kind).Str("key", tick.Key).Int64("slot", tick.Slot).Msg("tick failed, trying again")
		d.giveBack(ack, orDefault(fault.Of(err).RetryAfter, tickRetry))
	}
}

// callTick keeps one tick that makes the handler panic from ending the program, and then the next one that gets it.
func (c *Client) callTick(
	ctx context.Context, tick Tick, handle func(context.Context, Tick) error,
) (panicked bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			panicked = true
			c.log.Error().Interface("panic", r).Bytes("stack", debug.Stack()).
				Str("kind", tick.Kind).Str("key", tick.Key).Int64("slot", tick.Slot).
				Msg("handler of a tick panicked, dropping the tick: this is a bug")
		}
	}()
	return false, handle(ctx, tick)
}

// ackTick ends a tick. If the confirmation is lost the work is repeated, after the ack wait.
func (c *Client) ackTick(ctx context.Context, d *Delivery) {
	if err := d.Done(ctx); err != nil {
		c.log.Warn().Err(err).Str("subject", d.msg.Subject()).Msg("cannot acknowledge a tick, it may be repeated")
	}
}
