package notary

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	defaultInterval       = time.Minute
	defaultVerifyInterval = 24 * time.Hour
	// idleInterval is the time between two checkpoints of a ledger in which nothing happens.
	idleInterval = time.Hour
	// maxAhead bounds the leaves that are remembered behind the newest checkpoint, of 40 bytes each. A checkpoint is made before.
	maxAhead = 1 << 20
	// sendTime bounds an attempt to bring a checkpoint to another place.
	sendTime = 30 * time.Second
)

// Source reads the ledger. It is safe for concurrent use. Its errors are faults, or those of a context.
type Source interface {
	// Events hands the events behind a sequence to fn, in order and without gaps, until ctx ends or fn fails, whose error it returns.
	Events(ctx context.Context, after uint64, fn func(context.Context, []artifact.Entry) error) error
	// LedgerState tells the first and last sequence of the stream, of all harbors, and when it was made.
	LedgerState(ctx context.Context) (firstSeq, lastSeq uint64, created time.Time, err error)
	// NewestOf gives the newest event of a kind, of any kind if that is empty.
	NewestOf(ctx context.Context, kind artifact.Kind) (entry artifact.Entry, found bool, err error)
}

// Ledger is a Source to which events are recorded. An event whose id it holds already is not recorded again. A crash or an error
// before the answer leaves open whether it was: recording it again is safe.
type Ledger interface {
	Source
	Record(ctx context.Context, event artifact.Event) (seq uint64, err error)
}

// Config is what a Notary needs. Ledger and Key are required.
type Config struct {
	Ledger Ledger
	Key    *Key
	// VerifierKeys are those of the keys of before, whose notes stay valid.
	VerifierKeys []string
	// Store keeps the leaves; nil for a notary without proofs and exact findings.
	Store Store
	// File and Webhook are second places; nil for none. CheckpointsFile is the path of File, which is read at the start.
	File            *File
	Webhook         *Webhook
	CheckpointsFile string
	// Interval is the time between two checkpoints, 0 means a minute; VerifyInterval that between two readings of the whole ledger, 0
	// means a day.
	Interval       time.Duration
	VerifyInterval time.Duration
	Now            func() time.Time
	// Ticks gives what a time.Ticker does; nil means that.
	Ticks      func(d time.Duration) (ticks <-chan time.Time, stop func())
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
}

// Notary makes checkpoints and looks after them. Its methods are safe for concurrent use, and Run is called once.
type Notary struct {
	cfg     Config
	keys    *Keys
	metrics *metrics
	logger  zerolog.Logger
	// An outbox holds the newest checkpoint for each second place: one that could not be sent is replaced by the next, which covers all
	// that it did.
	outboxes []outbox

	mu sync.Mutex // guards what follows
	// follower is the reading that is going on, nil between two.
	follower *follower
	summary  Summary
	recorded int                       // how many of the findings have been recorded
	seen     artifact.CheckpointRecord // that of the summary
}

// maxFindings bounds what is remembered and recorded: whoever finds more knows enough.
const maxFindings = 1000

// maxForged bounds those of them that are of bad signatures, which whoever may write events can make as many of as they like: the
// others must have room.
const maxForged = 100

// Summary is what a notary knows of the ledger.
type Summary struct {
	// Origin is that of the current log, and Checkpoint the newest that was verified; empty before there is one.
	Origin     string
	Epoch      uint64
	Size       uint64
	LastSeq    uint64
	Checkpoint string
	// At is when the checkpoint was made, VerifiedAt when the whole ledger was last verified by this receiver; zero if it was not.
	At         time.Time
	VerifiedAt time.Time
	// Epochs are those that were met since the start, and the newest before.
	Epochs []Epoch
	// Findings are those since the start.
	Findings []Finding
	// Halted says that no checkpoints are made, because the ledger does not fit the last.
	Halted bool
}

// Epoch is the opening of an epoch.
type Epoch struct {
	Epoch  uint64    `json:"epoch"`
	Seq    uint64    `json:"seq"`
	First  uint64    `json:"first"`
	Reason string    `json:"reason"`
	Stream time.Time `json:"stream"`
	Note   string    `json:"note"`
}

// New checks the configuration.
func New(cfg Config) (*Notary, error) {
	if cfg.Ledger == nil || cfg.Key == nil {
		return nil, errors.New("making the notary: a ledger and a key are required")
	}
	if cfg.Interval < 0 || cfg.VerifyInterval < 0 {
		return nil, errors.New("making the notary: an interval is negative")
	}
	if cfg.Interval == 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.VerifyInterval == 0 {
		cfg.VerifyInterval = defaultVerifyInterval
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Ticks == nil {
		cfg.Ticks = func(d time.Duration) (<-chan time.Time, func()) {
			ticker := time.NewTicker(d)
			return ticker.C, ticker.Stop
		}
	}
	keys, err := NewKeys(append([]string{cfg.Key.VerifierKey()}, cfg.VerifierKeys...)...)
	if err != nil {
		return nil, fmt.Errorf("making the notary: %w", err)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	n := &Notary{cfg: cfg, keys: keys, metrics: m, logger: cfg.Logger}
	if cfg.File != nil {
		n.outboxes = append(n.outboxes, outbox{placeFile, cfg.File, make(chan artifact.CheckpointRecord, 1)})
	}
	if cfg.Webhook != nil {
		n.outboxes = append(n.outboxes, outbox{placeWebhook, cfg.Webhook, make(chan artifact.CheckpointRecord, 1)})
	}
	return n, nil
}

// Keys are those whose notes are accepted.
func (n *Notary) Keys() *Keys { return n.keys }

// Summary tells what the notary knows.
func (n *Notary) Summary() Summary {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.summary
	s.Epochs = append([]Epoch(nil), s.Epochs...)
	s.Findings = append([]Finding(nil), s.Findings...)
	return s
}

// Run follows the ledger, makes checkpoints, sends them, and verifies the whole ledger from time to time, until ctx ends, whose
// error it returns. Nothing else ends it: it tries again.
func (n *Notary) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for _, o := range n.outboxes {
		running.Go(func() { n.deliver(ctx, o) })
	}
	running.Go(func() { n.keepVerifying(ctx) })
	running.Go(func() { n.keepTicking(ctx) })
	ticks, stop := n.cfg.Ticks(n.cfg.Interval)
	defer stop()
	for {
		err := n.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, ErrOtherLog) {
			reason := fault.Of(err).Reason
			n.logger.Warn().Err(err).Str("reason", string(reason)).Msg("following the ledger for its checkpoints was interrupted, trying again")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticks:
		}
	}
}

// keepTicking makes what is due in each slot.
func (n *Notary) keepTicking(ctx context.Context) {
	ticks, stop := n.cfg.Ticks(n.cfg.Interval)
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		if err := n.Tick(ctx); err != nil && ctx.Err() == nil {
			n.logger.Warn().Err(err).Str("reason", string(fault.Of(err).Reason)).Msg("checkpoint of the ledger could not be made, trying again in the next slot")
		}
	}
}

// found remembers a finding. It is called with mu held.
func (n *Notary) found(f Finding) {
	forged := 0
	for _, known := range n.summary.Findings {
		if known.Kind == BadSignature {
			forged++
		}
		if known.Kind == f.Kind && known.Epoch == f.Epoch && known.From == f.From && known.To == f.To {
			return
		}
	}
	n.metrics.tampered.Set(1)
	if len(n.summary.Findings) == maxFindings || f.Kind == BadSignature && forged == maxForged {
		return
	}
	n.summary.Findings = append(n.summary.Findings, f)
	n.logger.Error().Str("finding", string(f.Kind)).Uint64("epoch", f.Epoch).Uint64("from", f.From).Uint64("to", f.To).
		Str("detail", f.Detail).Msg("the ledger was tampered with")
}

// recordFindings records what was found. What is recorded already stays as it is.
func (n *Notary) recordFindings(ctx context.Context) error {
	n.mu.Lock()
	from := n.recorded
	waiting := slices.Clone(n.summary.Findings[from:])
	n.mu.Unlock()
	for i, f := range waiting {
		if _, err := n.cfg.Ledger.Record(ctx, f.event(n.cfg.Key, n.cfg.Now())); err != nil {
			return fmt.Errorf("recording a finding: %w", err)
		}
		n.mu.Lock()
		n.recorded = max(n.recorded, from+i+1)
		n.mu.Unlock()
	}
	return nil
}
