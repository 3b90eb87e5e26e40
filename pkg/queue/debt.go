package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// defaultDebtSlots is how many debts are paid at once: nearly all of that time is waiting for a log.
const defaultDebtSlots = 256

// Owing says whether log entries of a reference wait to be made, or are being made.
func (c *Client) Owing(ctx context.Context, ref artifact.Ref) (bool, error) {
	msg, err := c.lastMessage(ctx, streamDebt, DebtSubject(c.cfg.Harbor, ref))
	return msg != nil, err
}

// EnqueueDebt notes that a signature of the reference is still to be entered into a transparency log; the request's lane
// becomes that of debts. duplicate says that such a debt is there already; it may be waiting or in work, and may be this
// request's own earlier attempt. Both are success.
//
// A crash or an error before the answer leaves open whether the debt is stored; enqueueing it again is safe.
func (c *Client) EnqueueDebt(ctx context.Context, request artifact.Request) (duplicate bool, err error) {
	request.Lane = artifact.Debt
	data, err := artifact.EncodeRequest(request)
	if err != nil {
		return false, fault.New(fault.Permanent, fault.Malformed, err)
	}
	// No message id, as in Enqueue.
	_, err = c.publish(ctx, streamDebt, DebtSubject(c.cfg.Harbor, request.Ref), data)
	if errors.Is(err, errDuplicate) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("enqueueing a debt: %w", err)
	}
	return false, nil
}

// ConsumeDebts hands out the debts of this harbor until ctx ends, as [Client.Consume] does with requests, with slots of its
// own.
func (c *Client) ConsumeDebts(ctx context.Context, cfg ConsumeConfig) error {
	cfg.Slots = orDefault(cfg.Slots, defaultDebtSlots)
	return c.consume(ctx, cfg, []source{{streamDebt, artifact.Debt, c.applyDebtConsumer}})
}

// Debts gives the number of debts of this harbor, those in work included, and when the oldest was stored, by the server's
// clock: zero if there is none. It may be behind by some milliseconds. It costs two requests.
func (c *Client) Debts(ctx context.Context) (count uint64, oldest time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	consumer, err := c.js.Consumer(ctx, streamDebt, debtConsumer(c.cfg.Harbor))
	if err != nil {
		return 0, time.Time{}, askFault(fmt.Errorf("counting debts: %w", err))
	}
	if count = notDone(consumer.CachedInfo()); count == 0 {
		return 0, time.Time{}, nil
	}
	oldest, err = c.oldest(ctx, streamDebt, debtFilter(c.cfg.Harbor))
	return count, oldest, err
}

// notDone is how many messages a consumer has not seen acknowledged, whether they were handed out or not.
func notDone(info *jetstream.ConsumerInfo) uint64 {
	return info.NumPending + uint64(max(0, info.NumAckPending))
}

// oldest gives when the oldest message was stored whose subject fits; zero if there is none.
func (c *Client) oldest(ctx context.Context, stream, filter string) (time.Time, error) {
	msg, err := c.fetch(ctx, stream, func(ctx context.Context, handle jetstream.Stream) (*jetstream.RawStreamMsg, error) {
		return handle.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(filter))
	})
	if err != nil || msg == nil {
		return time.Time{}, err
	}
	return msg.Time, nil
}
