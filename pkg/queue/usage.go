package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// Usage is how full the queue is.
type Usage struct {
	// At is when it was measured, by this machine's clock.
	At      time.Time
	Streams []StreamUsage
	// StoreBytes is what all streams of the account take on disk, and StoreLimit the most that they may take: 0 if the server
	// does not tell.
	StoreBytes, StoreLimit int64
	// DiskFree and DiskSize are those of the volume of the embedded server, in bytes, as far as this user may fill it; 0
	// without an embedded server, or where the system does not tell.
	DiskFree, DiskSize int64
	// DeadLetters is how many requests were given up.
	DeadLetters uint64
	// Stranded is how many messages of a work queue no consumer will ever hand out, by stream: normally 0.
	Stranded map[string]uint64
	// Waiting is what is not done yet, by lane, in this harbor: requests in work and those that wait to be tried again too.
	Waiting map[artifact.Lane]Backlog
}

// StreamUsage is how full a stream is. Its limit is 0 if it has none of its own.
type StreamUsage struct {
	Name     string
	Bytes    uint64
	Limit    int64
	Messages uint64
}

// Backlog is what is not done. Oldest is when the oldest of it was stored, by the server's clock; zero if there is none.
type Backlog struct {
	Count  uint64
	Oldest time.Time
}

// Outstanding counts what is not done: requests, and log entries that are owed.
func (u Usage) Outstanding() (requests, debts uint64) {
	return u.Waiting[artifact.Live].Count + u.Waiting[artifact.Bulk].Count, u.Waiting[artifact.Debt].Count
}

// Usage measures how full the queue is. It costs some 20 requests.
func (c *Client) Usage(ctx context.Context) (Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	u := Usage{At: time.Now(), Waiting: map[artifact.Lane]Backlog{}, Stranded: map[string]uint64{}}
	for _, s := range c.streams() {
		handle, err := c.js.Stream(ctx, s.name)
		if err != nil {
			return Usage{}, askFault(fmt.Errorf("asking for stream %s: %w", s.name, err))
		}
		info := handle.CachedInfo()
		u.Streams = append(u.Streams, StreamUsage{
			Name: s.name, Bytes: info.State.Bytes, Limit: max(0, info.Config.MaxBytes), Messages: info.State.Msgs,
		})
		if s.name == streamDead {
			u.DeadLetters = info.State.Msgs
		}
		if s.name != streamSign && s.name != streamDebt {
			continue
		}
		consumers, err := consumersOf(ctx, handle)
		if err != nil {
			return Usage{}, err
		}
		if u.Stranded[s.name], err = stranded(ctx, handle, consumers); err != nil {
			return Usage{}, err
		}
		if s.name == streamSign {
			if err := c.measureLanes(ctx, consumers, u.Waiting); err != nil {
				return Usage{}, err
			}
		}
	}
	count, oldest, err := c.Debts(ctx)
	if err != nil {
		return Usage{}, err
	}
	u.Waiting[artifact.Debt] = Backlog{Count: count, Oldest: oldest}
	if err := c.measureStore(ctx, &u); err != nil {
		return Usage{}, err
	}
	return u, nil
}

// measureLanes counts what is not done in the lanes of requests.
func (c *Client) measureLanes(
	ctx context.Context, consumers map[string]*jetstream.ConsumerInfo, waiting map[artifact.Lane]Backlog,
) error {
	for _, lane := range []artifact.Lane{artifact.Live, artifact.Bulk} {
		var b Backlog
		for part := range Partitions {
			if info := consumers[signConsumer(c.cfg.Harbor, lane, part)]; info != nil {
				b.Count += notDone(info)
			}
		}
		if b.Count > 0 {
			var err error
			if b.Oldest, err = c.oldest(ctx, streamSign, laneFilter(c.cfg.Harbor, lane)); err != nil {
				return err
			}
		}
		waiting[lane] = b
	}
	return nil
}

// measureStore asks the embedded server, which knows its limit, or else the account.
func (c *Client) measureStore(ctx context.Context, u *Usage) error {
	if server := c.cfg.Server; server != nil {
		var err error
		if u.StoreBytes, u.StoreLimit, err = server.Storage(); err != nil {
			return fault.New(fault.Transient, fault.QueueUnavailable, err)
		}
		if u.DiskFree, u.DiskSize, err = server.Disk(); err != nil {
			return fault.New(fault.Transient, fault.QueueUnavailable, err)
		}
		return nil
	}
	info, err := c.js.AccountInfo(ctx)
	if err != nil {
		return askFault(fmt.Errorf("asking for the account's store: %w", err))
	}
	u.StoreBytes, u.StoreLimit = int64(info.Store), max(0, info.Limits.MaxStore) //nolint:gosec // bytes on a disk fit into 63 bits
	return nil
}

// usageEvery is how often [Client.MeasureUsage] measures.
const usageEvery = 15 * time.Second

// MeasureUsage measures how full the queue is every 15 seconds, for the metrics, until ctx ends, and warns once of each limit of
// which 70 % is reached. While the queue does not answer, the metrics keep their last values;
// harborseal_queue_usage_timestamp_seconds says of when they are.
func (c *Client) MeasureUsage(ctx context.Context) error {
	ticker := time.NewTicker(usageEvery)
	defer ticker.Stop()
	failing, limits := false, warnings{}
	for {
		u, err := c.Usage(ctx)
		switch {
		case err == nil:
			c.metrics.usage.set(u)
			limits.look(c.log, u)
		case ctx.Err() == nil && !failing:
			c.log.Warn().Err(err).Msg("cannot measure how full the queue is: the metrics keep their last values")
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
