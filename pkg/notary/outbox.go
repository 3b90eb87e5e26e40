package notary

import (
	"context"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// outbox is a second place and the newest checkpoint that waits for it.
type outbox struct {
	name    string
	place   Place
	waiting chan artifact.CheckpointRecord
}

// put replaces what waits. It never blocks. It has one caller at a time.
func (o outbox) put(r artifact.CheckpointRecord) {
	select {
	case <-o.waiting:
	default:
	}
	select {
	case o.waiting <- r:
	default: // deliver has put back what failed, in between: the next checkpoint covers this one.
	}
}

// deliver sends what waits. What fails waits for the next slot, unless a newer one comes.
func (n *Notary) deliver(ctx context.Context, o outbox) {
	ticks, stop := n.cfg.Ticks(n.cfg.Interval)
	defer stop()
	for {
		var r artifact.CheckpointRecord
		select {
		case <-ctx.Done():
			return
		case r = <-o.waiting:
		}
		sending, cancel := context.WithTimeout(ctx, sendTime)
		err := o.place.Send(sending, r)
		cancel()
		if err == nil || ctx.Err() != nil {
			continue
		}
		n.metrics.failures.WithLabelValues(o.name).Inc()
		n.logger.Warn().Err(err).Str("place", o.name).Msg("checkpoint did not reach its second place, trying again")
		select {
		case o.waiting <- r:
		default: // A newer one is there.
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
	}
}
