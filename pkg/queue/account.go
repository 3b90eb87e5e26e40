package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// What accounts that import need of the one that owns the streams. deploy/nats names the same.
const (
	// importedAPI is under what prefix they import JetStream's API: in an account without streams its own answers nothing.
	importedAPI = "JS.HARBORSEAL.API"
	// storedPrefix is where the owner's account tells of each message that LEDGER or the bucket of policies has stored: only that
	// it is there, not what it says. What does not arrive is found out a little later.
	storedPrefix   = "stored."
	storedPolicies = "policies.v1"
	// ledgerSubjects are those of all events.
	ledgerSubjects = "ledger.>"
	// receiverTicks is the kind of ticks that receivers work on, and receiverTicksAtOnce how many may be out at once.
	receiverTicks       = "drift"
	receiverTicksAtOnce = 2
)

// errOldSetup says that what a receiver needs was made by a program that does not know receivers with an account.
var errOldSetup = errors.New("it was set up by older signers: upgrade and start the signers first")

// awaitSetup waits until signers have made what this client needs, until ctx ends.
func (c *Client) awaitSetup(ctx context.Context) error {
	retry := newBackoff()
	for {
		err := attempt(ctx, c.isSetUp)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errOldSetup) && !notReady(err) && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return fault.New(fault.Permanent, fault.Rejected, fmt.Errorf("waiting for the streams: %w", err))
		}
		if waitErr := retry.wait(ctx); waitErr != nil {
			return fault.New(fault.Transient, fault.QueueUnavailable, errors.Join(
				fmt.Errorf("waiting for the streams, which signers make: %w", err), waitErr))
		}
		c.log.Warn().Err(err).Msg("waiting for the streams and consumers, which signers make; no answer may also mean that the account imports less than deploy/nats says")
	}
}

// isSetUp looks for what this client needs. What a newer program made is used as it is.
func (c *Client) isSetUp(ctx context.Context) error {
	for _, s := range c.streams() {
		handle, err := c.js.Stream(ctx, s.name)
		if err != nil {
			return fmt.Errorf("stream %s: %w", s.name, err)
		}
		cfg := handle.CachedInfo().Config
		if isNewer(cfg.Metadata) {
			c.log.Warn().Str("stream", s.name).Msg("stream was set up by a newer version")
			continue
		}
		isOld := s.name == streamLedger && !cfg.AllowDirect ||
			(s.name == streamLedger || s.name == streamPolicy) && cfg.RePublish == nil
		if isOld {
			return fmt.Errorf("stream %s: %w", s.name, errOldSetup)
		}
	}
	for stream, name := range map[string]string{
		streamScan: scanConsumer(c.cfg.Harbor, receiverTicks), streamDebt: debtConsumer(c.cfg.Harbor),
	} {
		if _, err := c.js.Consumer(ctx, stream, name); err != nil {
			return fmt.Errorf("consumer %s of stream %s: %w", name, stream, err)
		}
	}
	return nil
}

// clearLast is ClearDead without the right to purge: it removes the dead letter that is there now.
func (c *Client) clearLast(ctx context.Context, ref artifact.Ref) error {
	msg, err := c.lastMessage(ctx, streamDead, DeadSubject(c.cfg.Harbor, ref))
	if err != nil || msg == nil {
		return err
	}
	return c.RemoveLetter(ctx, msg.Sequence)
}
