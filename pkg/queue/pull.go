package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// pullExpiry and pullHeartbeat bound how long a lost pull request goes unnoticed: two heartbeats, 10 seconds. A server
// that was killed loses it without a word.
const (
	pullExpiry    = 30 * time.Second
	pullHeartbeat = 5 * time.Second
	// pullSettles is how long the first wait for a message lasts. nats.go asks for the next message when a wait begins, and
	// not while it is still sending the request before: where the answer overtakes the end of that, nobody asks, until two
	// heartbeats were missed. A second wait asks.
	pullSettles = 20 * time.Millisecond
)

// takeFunc gets one message. The context ends once no further message will be asked for: what is given back before that
// could come straight back to this program.
type takeFunc func(pulling context.Context, consumer jetstream.Consumer, msg jetstream.Msg)

// pump is how messages are pulled from one consumer.
type pump struct {
	name string
	open func(ctx context.Context) (jetstream.Consumer, error)
	// gate waits until another message may be asked for; nil never does.
	gate func(ctx context.Context) error
	take takeFunc
}

// keepPulling hands the messages of a consumer to take, one at a time, until ctx ends. Whatever breaks, it opens the
// consumer again.
func (c *Client) keepPulling(ctx context.Context, from pump) {
	retry := newBackoff()
	for ctx.Err() == nil {
		started := time.Now()
		err := c.pullOnce(ctx, from)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > retry.limit {
			retry.reset()
		}
		c.log.Warn().Err(err).Str("consumer", from.name).Msg("pulling was interrupted, trying again")
		if retry.wait(ctx) != nil {
			return
		}
	}
}

// pullOnce pulls until ctx ends or something breaks. After ctx has ended, what the server had sent before is handed over
// as well, so that it can be given back.
func (c *Client) pullOnce(ctx context.Context, from pump) error {
	opening, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	consumer, err := from.open(opening)
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(
		jetstream.PullMaxMessages(1), jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return err
	}
	defer messages.Stop()
	pulling, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stop := context.AfterFunc(ctx, func() {
		defer end()
		if c.nats.IsConnected() {
			messages.Drain()
		} else {
			messages.Stop() // Nothing can arrive, and draining would wait for the connection.
		}
	})
	defer stop()
	for {
		if from.gate != nil {
			// When ctx has ended, what the server had sent before is still to be taken.
			if err := from.gate(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("asking whether to pull: %w", err)
			}
		}
		msg, err := messages.Next(jetstream.NextMaxWait(pullSettles))
		if errors.Is(err, nats.ErrTimeout) {
			msg, err = messages.Next()
		}
		if err != nil {
			return err
		}
		from.take(pulling, consumer, msg)
	}
}
