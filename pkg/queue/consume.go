package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
)

const (
	defaultSlots = 32
	defaultAside = 256
	defaultDrain = 30 * time.Second
	// maxParkedOfOne and maxParked bound how many requests of projects at their caps are put aside, of one partition and of
	// all: they take some kilobytes each. Beyond it the rest of the partition waits with them. Retries take at most half of it;
	// beyond that they are given back for some seconds.
	maxParkedOfOne = 1024
	maxParked      = 4096
	// bugDelay is when a request is tried again whose handler had a bug.
	bugDelay = 30 * time.Second
)

// ConsumeConfig describes how requests are worked on.
type ConsumeConfig struct {
	// Slots is how many requests are worked on at once. 0 is 32, and 256 for debts.
	Slots int
	// Aside is how many requests more may be in work without a slot, by [Delivery.Aside]. 0 is 256.
	Aside int
	// Handle works on one request and decides it by a method of the delivery; a request that it leaves undecided is tried
	// again later. It is called concurrently. Its ctx ends only when draining takes too long.
	Handle func(ctx context.Context, d *Delivery)
	// Cap is how many requests of a project, of both lanes together, may be worked on at once by this program; 0 is no bound
	// of their own. At most half of them, but at least one, are retries: requests whose [Delivery.Tries] is above 1. It is asked for each request anew, under a lock: it must answer at once and call nothing of this package.
	// Nil bounds none.
	Cap func(project string) int
	// Gate is asked before each pull of each partition, concurrently. It returns nil, at once, while work may be pulled, and else
	// waits until it may be or ctx ends; its error when ctx has ended does not matter, any other is logged, and it is asked
	// again soon. A request that arrives all the same is given back at once, for other programs. Nil is always open.
	Gate func(ctx context.Context) error
	// Hold is asked about each request before it gets a slot, and again if it had to wait for one, concurrently: true for one
	// that nobody could do now. It is given back, and comes back after the wait, or up to half of it earlier; very many in a
	// row come back later, at most 500 in a second. It never gets to the handler, and [Delivery.Tries] does not count it. A
	// wait of 0 or less is 5 seconds. Hold must answer at once. Nil holds nothing.
	Hold func(request artifact.Request) (wait time.Duration, hold bool)
	// Drain is how long handlers may go on after ctx has ended. 0 is 30 seconds.
	Drain time.Duration
	// Now tells how old a request is that a newer program wrote; nil is time.Now. It is called concurrently.
	Now func() time.Time
}

// Consume hands out the requests of this harbor until ctx ends, whatever happens to the connection or the server. Live
// requests are served first, bulk gets at least a fifth of the slots that become free while both wait. A request whose
// project is at its cap, or would find no place aside, holds no slot and lets those behind it pass, up to 1024 such requests
// in each partition and 4096 in all. Retries of a project with a cap wait for its first tries, but so that one of five is a
// retry while both wait; beyond half of that room they are given back for some seconds, which [Delivery.Attempts] counts.
//
// When ctx ends it stops pulling and gives back at once what waits for a slot; handlers go on, at most for the drain
// time, then their ctx is cancelled and what they leave undecided is given back. Consume returns when the last handler
// has returned. A crash instead leads to a redelivery of everything that was held, after the ack wait.
//
// What cannot be read never comes to a handler. A request of a newer version is given back for 30 seconds, again and again, so
// that an older program which still runs during an upgrade loses none; meanwhile it swallows other requests of its reference.
// An hour after it was stored it is moved to the dead letters, with the reason newer_version, so that it does not wait in
// silence after a downgrade. A malformed one is moved there at once. If the reference can be read all the same, the event of
// kind dead is recorded before.
func (c *Client) Consume(ctx context.Context, cfg ConsumeConfig) error {
	cfg.Slots = orDefault(cfg.Slots, defaultSlots)
	var sources []source
	for _, lane := range []artifact.Lane{artifact.Live, artifact.Bulk} {
		for part := range Partitions {
			sources = append(sources, source{streamSign, lane, c.applySignConsumer(lane, part)})
		}
	}
	return c.consume(ctx, cfg, sources)
}

// source is a consumer from which requests of one lane are pulled.
type source struct {
	stream string
	lane   artifact.Lane
	apply  func(*jetstream.ConsumerConfig)
}

// consume hands out the requests of all sources.
func (c *Client) consume(ctx context.Context, cfg ConsumeConfig, sources []source) error {
	if cfg.Handle == nil {
		return errors.New("consuming requests: no handler")
	}
	if cfg.Slots < 0 || cfg.Aside < 0 {
		return errors.New("consuming requests: slots and places aside must not be negative")
	}
	cfg.Aside = orDefault(cfg.Aside, defaultAside)
	cfg.Drain = orDefault(cfg.Drain, defaultDrain)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	p := &pool{
		client: c, cfg: cfg, slots: newSlots(cfg.Slots, cfg.Aside, cfg.Cap),
		stopped: make(chan struct{}), parking: make(chan struct{}, maxParked), retryParking: make(chan struct{}, maxParked/2),
	}
	var pumps sync.WaitGroup
	for _, from := range sources {
		pumps.Go(func() { p.run(ctx, work, from) })
	}
	<-ctx.Done()
	timer := time.AfterFunc(cfg.Drain, cancel)
	defer timer.Stop()
	pumps.Wait()
	close(p.stopped)
	p.handlers.Wait()
	return nil
}

// pool is one call of Consume.
type pool struct {
	client   *Client
	cfg      ConsumeConfig
	slots    *slots
	handlers sync.WaitGroup
	stopped  chan struct{} // closed when nothing is pulled any more
	// parking holds one for each request that is parked, retryParking for each retry among them: half of the room is not theirs.
	parking, retryParking chan struct{}
}

// run pulls from one source until ctx ends. work is the context of the handlers.
func (p *pool) run(ctx, work context.Context, from source) {
	want := jetstream.ConsumerConfig{}
	from.apply(&want)
	l := &line{
		lane: from.lane, parking: make(chan struct{}, maxParkedOfOne), retryParking: make(chan struct{}, maxParkedOfOne/2),
		pace: newPace(heldPerSecond),
	}
	p.client.keepPulling(ctx, pump{
		name: want.Name,
		open: func(ctx context.Context) (jetstream.Consumer, error) { return p.open(ctx, from, want) },
		gate: p.cfg.Gate,
		take: func(pulling context.Context, consumer jetstream.Consumer, msg jetstream.Msg) {
			p.take(pulling, work, l, consumer, msg)
		},
	})
}

// line is what the requests of one source share.
type line struct {
	lane                  artifact.Lane
	parking, retryParking chan struct{} // as in pool, of this source
	pace                  *pace         // of requests that are given back to come again soon
}

// open binds to the consumer of a source, and creates it again if somebody deleted it.
func (p *pool) open(ctx context.Context, from source, want jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	consumer, err := p.client.js.Consumer(ctx, from.stream, want.Name)
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return consumer, err
	}
	handle, err := p.client.js.Stream(ctx, from.stream)
	if err != nil {
		return nil, err
	}
	if isNewer(handle.CachedInfo().Config.Metadata) {
		return nil, fmt.Errorf("consumer %s does not exist, and the stream is of a newer version", want.Name)
	}
	return p.client.js.CreateOrUpdateConsumer(ctx, from.stream, want)
}

// take waits for a slot and starts a handler, or gives the request back when pulling ends before or it is not to be done now.
// A request whose project may not have a slot yet is parked, so that those behind it are not held up. The server is told that
// the request is worked on from here on.
func (p *pool) take(pulling, work context.Context, l *line, consumer jetstream.Consumer, msg jetstream.Msg) {
	d, err := p.client.newDelivery(msg, l.lane, consumer.CachedInfo().Config.AckWait)
	if err != nil {
		p.client.log.Error().Err(err).Str("subject", msg.Subject()).Msg("message of the queue has no metadata")
		return
	}
	if d.Attempts() > 1 {
		p.client.metrics.redeliveries.WithLabelValues(string(l.lane)).Inc()
	}
	d.keepAlive()
	if pulling.Err() != nil {
		d.giveBack(work, 0)
		d.end()
		return
	}
	if !p.decode(work, d) || p.hold(work, l, d) {
		d.end()
		return
	}
	waiting := p.client.metrics.waiting.WithLabelValues(string(l.lane))
	waiting.Inc()
	c := p.slots.enter(l.lane, d.request.Ref.Project(), d.isRetry())
	waited := !isGranted(c)
	select {
	case <-c.granted:
	case <-pulling.Done():
	case <-c.passed:
		if p.park(work, l, d, c) {
			return
		}
		if c.retry {
			waiting.Dec()
			p.giveWay(work, l, d, c)
			return
		}
	}
	granted := p.await(pulling.Done(), c)
	waiting.Dec()
	if !granted {
		d.giveBack(work, 0)
		d.end()
		return
	}
	p.handlers.Go(func() { p.begin(work, l, d, c, waited) })
}

// begin works on a request that has its slot. If it had to wait for it, what it needs may have gone meanwhile.
func (p *pool) begin(work context.Context, l *line, d *Delivery, c *claim, waited bool) {
	defer p.slots.release(c)
	if waited && p.hold(work, l, d) {
		d.end()
		return
	}
	d.slots, d.claim = p.slots, c
	p.handle(work, d)
}

// await waits for the slot of a claim, and gives the claim up if done comes first.
func (p *pool) await(done <-chan struct{}, c *claim) (granted bool) {
	select {
	case <-c.granted:
		return true
	case <-done:
		p.slots.leave(c)
		return false
	}
}

// park lets a request wait for its slot without holding up others, if there is room.
func (p *pool) park(work context.Context, l *line, d *Delivery, c *claim) bool {
	places := []chan struct{}{p.parking, l.parking}
	if c.retry {
		places = append(places, p.retryParking, l.retryParking)
	}
	if !tryEnter(places) {
		return false
	}
	p.handlers.Go(func() {
		granted := p.await(p.stopped, c)
		for _, place := range places {
			<-place
		}
		p.client.metrics.waiting.WithLabelValues(string(d.lane)).Dec()
		if !granted {
			d.giveBack(work, 0)
			d.end()
			return
		}
		p.begin(work, l, d, c, true)
	})
	return true
}

// tryEnter takes a place of each kind if there is one of all.
func tryEnter(places []chan struct{}) bool {
	for i, place := range places {
		select {
		case place <- struct{}{}:
		default:
			for _, taken := range places[:i] {
				<-taken
			}
			return false
		}
	}
	return true
}

func (c *Client) newDelivery(msg jetstream.Msg, lane artifact.Lane, ackWait time.Duration) (*Delivery, error) {
	metadata, err := msg.Metadata()
	if err != nil {
		return nil, err
	}
	return &Delivery{
		client: c, msg: msg, metadata: metadata, lane: lane, ackWait: orDefault(ackWait, defaultAckWait), stopped: make(chan struct{}),
	}, nil
}

// handle runs the handler and sees to it that the request is decided afterwards.
func (p *pool) handle(work context.Context, d *Delivery) {
	inFlight := p.client.metrics.inFlight.WithLabelValues(string(d.lane))
	inFlight.Inc()
	defer inFlight.Dec()
	defer d.end()
	panicked := p.call(work, d)
	switch {
	case d.state() == decided:
	case work.Err() != nil:
		// Draining took too long. Another program can begin at once.
		d.giveBack(context.WithoutCancel(work), 0)
	case d.state() == undecided && !panicked:
		p.client.log.Error().Str("ref", d.request.Ref.String()).Msg("handler left a request undecided: this is a bug")
		d.giveBack(work, bugDelay)
	default:
		d.giveBack(work, bugDelay)
	}
}

// call keeps one request that makes the handler panic from ending the work on all others.
func (p *pool) call(work context.Context, d *Delivery) (panicked bool) {
	defer func() {
		if r := recover(); r != nil {
			panicked = true
			p.client.log.Error().Interface("panic", r).Bytes("stack", debug.Stack()).Str("ref", d.request.Ref.String()).
				Msg("handler of a request panicked: this is a bug")
		}
	}()
	p.cfg.Handle(work, d)
	return false
}
