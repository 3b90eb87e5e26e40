package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// tailIdle is when the server forgets the consumer of a reader that has vanished.
const tailIdle = time.Minute

// gapless reads the messages of a consumer of its own, in order and without gaps. It belongs to the goroutine that follows.
type gapless struct {
	messages jetstream.MessagesContext
	next     uint64 // the consumer's own number of the next message
}

// Next waits for a message. After an error the reader must begin anew, unless it is that of the options.
func (g *gapless) Next(wait ...jetstream.NextOpt) (jetstream.Msg, *jetstream.MsgMetadata, error) {
	msg, err := g.messages.Next(wait...)
	if err != nil {
		return nil, nil, err
	}
	metadata, err := msg.Metadata()
	if err != nil {
		return nil, nil, err
	}
	if metadata.Sequence.Consumer != g.next {
		return nil, nil, fmt.Errorf("message %d of the consumer instead of %d", metadata.Sequence.Consumer, g.next)
	}
	g.next++
	return msg, metadata, nil
}

// follow makes a consumer for one reader, which begins where cfg says, and lets it read until it fails or ctx ends. Its
// context ends at a reconnect as well, because the consumer may be gone then; and a gap is an error, because what was on its
// way to a lost connection does not come again: the consumer knows no acknowledgements. The reader begins anew after both.
func (c *Client) follow(
	ctx context.Context, stream string, cfg jetstream.ConsumerConfig, read func(session context.Context, from *gapless) error,
) error {
	reconnected := c.nextReconnect()
	setup, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	cfg.AckPolicy = jetstream.AckNonePolicy
	cfg.InactiveThreshold = tailIdle
	cfg.MemoryStorage = true
	cfg.Replicas = 1
	consumer, err := c.js.CreateConsumer(setup, stream, cfg)
	if err != nil {
		return fmt.Errorf("creating a consumer of stream %s: %w", stream, err)
	}
	defer c.forgetConsumer(ctx, stream, consumer.CachedInfo().Name)
	messages, err := consumer.Messages(
		jetstream.PullMaxMessages(2*batchSize), jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat),
		jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return fmt.Errorf("pulling from stream %s: %w", stream, err)
	}
	defer messages.Stop()

	session, end := untilClosed(ctx, reconnected)
	defer end()
	return read(session, &gapless{messages: messages, next: 1})
}

// untilClosed gives a context that ends when a channel is closed, too. Whoever asks for it must call end.
func untilClosed(ctx context.Context, closed <-chan struct{}) (session context.Context, end func()) {
	session, cancel := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case <-closed:
			cancel()
		case <-session.Done():
		}
	})
	return session, func() {
		cancel()
		watcher.Wait()
	}
}

// forgetConsumer removes a consumer that is no longer read. Without it, the server does so after a minute.
func (c *Client) forgetConsumer(ctx context.Context, stream, name string) {
	if !c.nats.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	err := c.js.DeleteConsumer(ctx, stream, name)
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound) {
		c.log.Debug().Err(err).Str("stream", stream).Msg("cannot remove a consumer")
	}
}
