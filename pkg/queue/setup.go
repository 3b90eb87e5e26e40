package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/fault"
)

// Setup creates what is missing in NATS and updates what differs: the eight streams and the consumers of this harbor's
// partitions and debts. It is idempotent, and several programs may call it at once. While JetStream is not ready, it tries again
// until ctx ends.
//
// What a newer program created is left alone and used as it is. Setup only adds safety: it never reduces replicas and
// never shortens how long events and ticks are kept. A crash between any two steps leaves something that the next call
// completes.
//
// A client of an account that imports (Config.Imported) creates nothing: it waits until everything that it needs is there,
// made by a signer of this version or a newer one.
func (c *Client) Setup(ctx context.Context) error {
	if c.cfg.Imported {
		return c.awaitSetup(ctx)
	}
	for _, s := range c.streams() {
		if s.name == streamLedger {
			c.noteShortened(ctx) // what is repaired now must not go unnoticed
		}
		handle, err := c.ensureStream(ctx, s)
		if err != nil {
			return fmt.Errorf("setting up stream %s: %w", s.name, err)
		}
		if len(s.consumers) == 0 || isNewer(handle.CachedInfo().Config.Metadata) {
			continue
		}
		if err := c.ensureConsumers(ctx, handle, s); err != nil {
			return fmt.Errorf("setting up the consumers of stream %s: %w", s.name, err)
		}
	}
	return nil
}

func (c *Client) ensureStream(ctx context.Context, s stream) (jetstream.Stream, error) {
	var handle jetstream.Stream
	err := c.untilReady(ctx, func(ctx context.Context) error {
		var err error
		handle, err = c.js.Stream(ctx, s.name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			want := jetstream.StreamConfig{}
			s.apply(&want)
			want.Name = s.name
			handle, err = c.js.CreateStream(ctx, want)
			return err
		}
		if err != nil {
			return err
		}
		have := handle.CachedInfo().Config
		if isNewer(have.Metadata) {
			c.log.Warn().Str("stream", s.name).Msg("stream was set up by a newer version, leaving it alone")
			return nil
		}
		want := have
		want.Metadata = maps.Clone(have.Metadata)
		s.apply(&want)
		if reflect.DeepEqual(have, want) {
			return nil
		}
		handle, err = c.js.UpdateStream(ctx, want)
		return err
	})
	return handle, err
}

// ensureConsumers asks for all consumers at once and touches only what differs: on a cluster each change costs up to
// 200 ms, and many at once fail.
func (c *Client) ensureConsumers(ctx context.Context, handle jetstream.Stream, s stream) error {
	have := map[string]jetstream.ConsumerConfig{}
	err := c.untilReady(ctx, func(ctx context.Context) error {
		clear(have)
		lister := handle.ListConsumers(ctx)
		for info := range lister.Info() {
			have[info.Name] = info.Config
		}
		return lister.Err()
	})
	if err != nil {
		return err
	}
	for _, apply := range s.consumers {
		named := jetstream.ConsumerConfig{}
		apply(&named)
		existing, found := have[named.Name]
		if err := c.ensureConsumer(ctx, s.name, existing, found, apply); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) ensureConsumer(
	ctx context.Context, stream string, have jetstream.ConsumerConfig, found bool, apply func(*jetstream.ConsumerConfig),
) error {
	if found && isNewer(have.Metadata) {
		return nil
	}
	want := have
	want.Metadata = maps.Clone(have.Metadata)
	apply(&want)
	if found && reflect.DeepEqual(have, want) {
		return nil
	}
	return c.untilReady(ctx, func(ctx context.Context) error {
		_, err := c.js.CreateOrUpdateConsumer(ctx, stream, want)
		if err != nil {
			return fmt.Errorf("consumer %s: %w", want.Name, err)
		}
		return nil
	})
}

// untilReady repeats an idempotent call to JetStream's API until it succeeds, fails for good or ctx ends.
func (c *Client) untilReady(ctx context.Context, call func(ctx context.Context) error) error {
	retry := newBackoff()
	for {
		err := attempt(ctx, call)
		if err == nil {
			return nil
		}
		if !notReady(err) {
			return fault.New(fault.Permanent, fault.Rejected, err)
		}
		if waitErr := retry.wait(ctx); waitErr != nil {
			return fault.New(fault.Transient, fault.QueueUnavailable, errors.Join(err, waitErr))
		}
		c.log.WithLevel(level(err)).Err(err).Msg("jetstream is not ready, trying again")
	}
}

// attempt bounds one call: a cluster without a leader leaves requests without an answer.
func attempt(ctx context.Context, call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return call(ctx)
}

// noSuitablePeers is what a cluster answers, with the code 400, while its leader does not know the other nodes yet.
const noSuitablePeers jetstream.ErrorCode = 10005

// notReady says whether an error of JetStream's API may pass by itself: no answer, no leader, no room, a cluster that is still
// coming together, or another program that creates the same thing at this moment.
func notReady(err error) bool {
	if apiErr, found := errors.AsType[*jetstream.APIError](err); found {
		passing := []jetstream.ErrorCode{
			jetstream.JSErrCodeStreamNameInUse, jetstream.JSErrCodeConsumerNameExists, jetstream.JSErrCodeConsumerExists,
			jetstream.JSErrCodeConsumerAlreadyExists, jetstream.JSErrCodeConsumerCreate, jetstream.JSErrCodeStreamNotFound,
			noSuitablePeers, codeInsufficientResources, codeStorageExceeded, codeAccountExceeded,
		}
		return apiErr.Code == 503 || slices.Contains(passing, apiErr.ErrorCode)
	}
	passing := []error{
		context.DeadlineExceeded, context.Canceled, nats.ErrTimeout, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
		nats.ErrDisconnected, nats.ErrConnectionReconnecting,
	}
	return slices.ContainsFunc(passing, func(target error) bool { return errors.Is(err, target) })
}

// level keeps what two programs do to each other that start at once out of the warnings.
func level(err error) zerolog.Level {
	if apiErr, ok := errors.AsType[*jetstream.APIError](err); ok && apiErr.Code != 503 {
		return zerolog.DebugLevel
	}
	return zerolog.WarnLevel
}
