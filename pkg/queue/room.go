package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// lookEvery is how often the embedded server looks at its volume and at its own health.
	lookEvery = time.Second
	// leastReserve, reservePercent and mostReserve are what is kept free of the volume: as much as can be written between two looks,
	// and of a small volume not all of it.
	leastReserve   = 64 << 20
	reservePercent = 2
	mostReserve    = 1 << 30
	// restartLeast and restartMost bound the time between two restarts of JetStream that do not help.
	restartLeast = 2 * time.Second
	restartMost  = 5 * time.Minute
	// unhealthyLooks is how often in a row the server must be unhealthy, so that nothing is restarted that recovers.
	unhealthyLooks = 2
	// vainRestarts is how often JetStream is restarted, in a row, for what no full disk explains: a broken file of one stream, or
	// something that is none of ours among them, stays as it is, and each restart costs all streams some seconds.
	vainRestarts = 3
)

// room watches the volume of an embedded server. While little is free, the server refuses what would be stored, with an answer
// that every client understands; a disk that is really full would leave publishes without an answer. A stream that has met a full
// disk all the same takes nothing until JetStream is restarted: that is done as soon as there is room.
type room struct {
	server  *Server
	reserve int64 // 0 is a share of the volume
	every   time.Duration

	mu  sync.Mutex
	low bool // guarded by mu

	// What follows belongs to watch alone.
	unhealthy   int       // looks in a row
	wasLow      bool      // since it was healthy last
	restarts    int       // since then
	restartFrom time.Time // before it nothing is restarted
	pause       time.Duration
}

// watch looks until ctx ends.
func (r *room) watch(ctx context.Context) {
	ticker := time.NewTicker(r.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.look(time.Now())
		}
	}
}

// look measures once, and acts.
func (r *room) look(now time.Time) {
	low := r.measure()
	if r.server.broken() == nil {
		r.unhealthy, r.wasLow, r.restarts = 0, false, 0
		return
	}
	r.unhealthy++
	r.wasLow = r.wasLow || low
	if inVain := r.server.nats.JetStreamEnabled() && !r.wasLow && r.restarts >= vainRestarts; inVain {
		return
	}
	if low || r.unhealthy < unhealthyLooks || now.Before(r.restartFrom) {
		return
	}
	if now.Sub(r.restartFrom) > 2*restartMost {
		r.pause = restartLeast
	}
	r.restartFrom = now.Add(r.pause)
	r.pause = min(2*r.pause, restartMost)
	r.unhealthy = 0
	if r.restarts++; r.restarts == vainRestarts {
		r.server.logger.Error().Err(r.server.broken()).Int("restarts", r.restarts).
			Msg("embedded server stays broken: unless its disk was full, jetstream is not restarted again by itself")
	}
	// There is room, so that nothing is refused: a restart forgets the limit of the account.
	if err := r.server.restartJetStream(); err != nil {
		r.server.logger.Error().Err(err).Msg("embedded server cannot restart jetstream, trying again")
	}
}

// measure compares what is free with the reserve, and lets the server refuse or take messages.
func (r *room) measure() (low bool) {
	free, size, err := r.server.Disk()
	if err != nil || size == 0 {
		return r.isLow() // What cannot be measured changes nothing.
	}
	reserve := reserveOf(r.reserve, size)
	if r.isLow() {
		reserve += reserve / 8 // so that it does not change with every message
	}
	low = free < reserve
	if low != r.isLow() {
		r.setLow(low, free, reserve)
	}
	return low
}

// setLow lets the server refuse what would be stored, or take it again.
func (r *room) setLow(low bool, free, reserve int64) {
	if err := r.server.refuseWrites(low); err != nil {
		if !errors.Is(err, errNoJetStream) {
			r.server.logger.Error().Err(err).Msg("embedded server cannot change its limit of storage")
		}
		return
	}
	r.mu.Lock()
	changed := r.low != low
	r.low = low
	r.mu.Unlock()
	if !changed {
		return
	}
	log := r.server.logger.With().Int64("free_bytes", free).Int64("reserve_bytes", reserve).Logger()
	if low {
		log.Error().Msg("volume of the store is nearly full: nothing is stored until there is room")
	} else {
		log.Info().Msg("there is room on the volume of the store again")
	}
}

func (r *room) isLow() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.low
}

// reserveOf is what is kept free of a volume.
func reserveOf(asked, size int64) int64 {
	if asked > 0 {
		return asked
	}
	return min(max(leastReserve, size/100*reservePercent), mostReserve, size/4)
}

// errNoJetStream says that JetStream does not run: it stores nothing then.
var errNoJetStream = errors.New("jetstream is not running")

// errStillStopping says that the server has not ended what it stops by itself.
var errStillStopping = errors.New("the server still stops it")

// refuseWrites sets the limit of the account to nothing, or takes it away. It is for clients of this and of other programs.
func (s *Server) refuseWrites(refuse bool) error {
	if !s.nats.JetStreamEnabled() {
		return errNoJetStream
	}
	limits := server.JetStreamAccountLimits{
		MaxMemory: -1, MaxStore: -1, MaxStreams: -1, MaxConsumers: -1, MaxAckPending: -1, MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1,
	}
	if refuse {
		limits.MaxStore = 0
	}
	if err := s.nats.GlobalAccount().UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{"": limits}); err != nil {
		return fmt.Errorf("changing the limits of jetstream: %w", err)
	}
	return nil
}

// restartJetStream stops JetStream and starts it on what is on disk, which is all that was acknowledged. Connections stay;
// clients open their consumers again.
func (s *Server) restartJetStream() error {
	s.logger.Warn().Err(s.broken()).Msg("embedded server has a broken stream: restarting jetstream")
	// The server's own word for a failure that is to be repaired: it keeps all state.
	if err := s.nats.ShutdownJetStream(); err != nil {
		return fmt.Errorf("stopping jetstream: %w", err)
	}
	// The server stops it by itself when it meets a full disk, in a goroutine of its own: then the call above returns at once, and
	// what is started now would be lost when that goroutine ends. It is gone when nobody knows its settings any more.
	if s.nats.JetStreamConfig() != nil {
		return errStillStopping
	}
	cfg := s.jetStream
	if err := s.nats.EnableJetStream(&cfg); err != nil {
		return fmt.Errorf("starting jetstream: %w", err)
	}
	s.logger.Info().Msg("embedded server has restarted jetstream")
	return nil
}
