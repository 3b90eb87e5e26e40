package report

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// slot is the time in which the readings of one caller, of one path with the same parameters, are one event.
	slot = 10 * time.Minute
	// defaultWaiting is how many events wait for the ledger, and maxSeen how many readings of a slot are remembered.
	defaultWaiting = 1024
	maxSeen        = 16384
	// maxScopes is how many different questions of one caller are told apart in a slot. The others are one event, so that no reader fills
	// the ledger by asking for ever something else.
	maxScopes = 100
	// maxScope and maxName bound texts in events, in bytes.
	maxScope = 2048
	maxName  = 256
	// recordTimeout bounds one attempt. After it, the next one waits from retryFirst on, twice as long each time, up to retryMost.
	recordTimeout = 5 * time.Second
	retryFirst    = time.Second
	retryMost     = 30 * time.Second
	// lastChance is how long what waits may still be recorded when the program ends.
	lastChance = 3 * time.Second
)

// book is the ledger. An event whose id it holds is not stored again. It is safe for concurrent use, makes one attempt and ends when ctx does.
// Its errors are faults. A crash before it returns leaves open whether the event is stored; recording it again is safe.
type book interface {
	Record(ctx context.Context, event artifact.Event) (seq uint64, err error)
}

// RecorderConfig is what a [Recorder] needs. Book is required.
type RecorderConfig struct {
	Book book
	// Waiting is how many events may wait; 0 means 1024. The ones beyond are dropped, and counted.
	Waiting int
	// Registerer may be nil.
	Registerer prometheus.Registerer
	// Now may be nil: then it is the clock.
	Now    func() time.Time
	Logger zerolog.Logger
}

// Recorder records who has read the report, and who has exported it. Its methods never wait for the ledger. It is safe for
// concurrent use.
//
// What waits when the program is killed, or when the ledger does not answer until it ends, is not recorded: reading goes before
// recording that it was read.
type Recorder struct {
	cfg     RecorderConfig
	waiting chan artifact.Event
	events  *prometheus.CounterVec

	mu   sync.Mutex
	slot int64               // guarded by mu; the slot that seen is of
	seen map[string]struct{} // guarded by mu; the ids of what waits or is recorded
	// asked counts the different questions of each caller in the slot. Guarded by mu.
	asked map[string]int
}

// The outcomes of readings and exports, as metrics show them.
const (
	outcomeRecorded  = "recorded"
	outcomeCoalesced = "coalesced"
	outcomeDropped   = "dropped"
	outcomeRefused   = "refused"
)

// NewRecorder checks the configuration. It starts nothing.
func NewRecorder(cfg RecorderConfig) (*Recorder, error) {
	if cfg.Book == nil || cfg.Waiting < 0 {
		return nil, errors.New("making the recorder of readings: Book, and numbers that are not negative, are required")
	}
	if cfg.Waiting == 0 {
		cfg.Waiting = defaultWaiting
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Recorder{
		cfg: cfg, waiting: make(chan artifact.Event, cfg.Waiting), seen: map[string]struct{}{}, asked: map[string]int{},
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_report_access_events_total",
			Help: "Readings and exports of the report: recorded in the ledger, coalesced with one that was, dropped because too many waited or the program ended, or refused by the ledger.",
		}, []string{"outcome"}),
	}
	for _, outcome := range []string{outcomeRecorded, outcomeCoalesced, outcomeDropped, outcomeRefused} {
		r.events.WithLabelValues(outcome)
	}
	return r, register(cfg.Registerer, r.events)
}

// Reading is somebody's question for the report that was answered.
type Reading struct {
	Actor, Address string
	// Project is the one that the question is about; empty for several.
	Project string
	// Path and Parameters are those of the question. What only turns pages (cursor, limit) is no other question.
	Path       string
	Parameters url.Values
}

// scope says what was asked for.
func (r *Reading) scope() string {
	var b strings.Builder
	b.WriteString(r.Path)
	separator := byte('?')
	for _, name := range slices.Sorted(maps.Keys(r.Parameters)) {
		if name == "cursor" || name == "limit" {
			continue
		}
		for _, value := range r.Parameters[name] {
			b.WriteByte(separator)
			b.WriteString(url.QueryEscape(name) + "=" + url.QueryEscape(value))
			separator = '&'
		}
	}
	return cut(b.String(), maxScope)
}

// manyScopes is the scope of the readings of a caller that are not told apart any more.
const manyScopes = "(more questions than are told apart)"

// Read records that the report was read: once for each caller, path and parameters in 10 minutes, and once for all that a caller asks
// beyond a hundred different questions in them. Several receivers agree on the id, so that the ledger holds one event.
func (r *Recorder) Read(reading Reading) {
	now := r.cfg.Now().UTC()
	number := now.Unix() / int64(slot/time.Second)
	scope := reading.scope()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slot != number {
		r.slot = number
		clear(r.seen)
		clear(r.asked)
	}
	if len(r.seen) >= maxSeen { // a repetition beyond is the ledger's to find
		clear(r.seen)
	}
	id := readingID(reading.Actor, scope, number)
	if _, known := r.seen[id]; !known && r.asked[reading.Actor] >= maxScopes {
		scope, reading.Project = manyScopes, ""
		id = readingID(reading.Actor, scope, number)
	}
	if _, known := r.seen[id]; known {
		r.events.WithLabelValues(outcomeCoalesced).Inc()
		return
	}
	if r.enqueue(artifact.Event{
		ID: id, Kind: artifact.ReportRead, Project: reading.Project, Time: now, Actor: cut(reading.Actor, maxName), Origin: artifact.OriginAPI,
		CorrelationID: id, Report: &artifact.ReportRecord{Scope: scope, Address: cut(reading.Address, maxName), Complete: true},
	}) {
		r.seen[id] = struct{}{}
		r.asked[reading.Actor]++
	}
}

func readingID(actor, scope string, slot int64) string {
	return artifact.EventID(artifact.ReportRead, artifact.Ref{}, actor, scope, fmt.Sprint(slot))
}

// Exported records an export, whole or not.
func (r *Recorder) Exported(reading Reading, format Format, result Result) {
	now := r.cfg.Now().UTC()
	scope := reading.scope()
	id := artifact.EventID(artifact.ReportExported, artifact.Ref{}, reading.Actor, reading.Address, scope, now.Format(time.RFC3339Nano), result.SHA256)
	outcome := artifact.Success
	if !result.Complete {
		outcome = artifact.Failure
	}
	r.enqueue(artifact.Event{
		ID: id, Kind: artifact.ReportExported, Project: reading.Project, Time: now, Actor: cut(reading.Actor, maxName), Origin: artifact.OriginAPI,
		CorrelationID: id, Result: outcome, Report: &artifact.ReportRecord{
			Scope: scope, Format: string(format), Rows: result.Rows, SHA256: result.SHA256, Complete: result.Complete, Address: cut(reading.Address, maxName),
		},
	})
}

// enqueue never waits.
func (r *Recorder) enqueue(event artifact.Event) bool {
	select {
	case r.waiting <- event:
		return true
	default:
		r.events.WithLabelValues(outcomeDropped).Inc()
		return false
	}
}

// Run records what comes until ctx is done, and then returns nil. At most one Run at a time.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		select {
		case event := <-r.waiting:
			if !r.record(ctx, event) {
				r.drain(ctx, &event)
				return nil
			}
		case <-ctx.Done():
			r.drain(ctx, nil)
			return nil
		}
	}
}

// record tries until the ledger has answered; false if ctx ended before.
func (r *Recorder) record(ctx context.Context, event artifact.Event) bool {
	for delay := retryFirst; ; delay = min(2*delay, retryMost) {
		err := r.once(ctx, event)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if fault.Of(err).Kind != fault.Transient {
			r.events.WithLabelValues(outcomeRefused).Inc()
			r.cfg.Logger.Error().Err(err).Str("kind", string(event.Kind)).Msg("reading of the report cannot be recorded")
			return true
		}
		r.cfg.Logger.Warn().Err(err).Str("kind", string(event.Kind)).Msg("reading of the report is not recorded yet")
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

func (r *Recorder) once(ctx context.Context, event artifact.Event) error {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	_, err := r.cfg.Book.Record(ctx, event)
	if err == nil {
		r.events.WithLabelValues(outcomeRecorded).Inc()
	}
	return err
}

// drain gives what waits a last chance, first what was in hand.
func (r *Recorder) drain(ctx context.Context, first *artifact.Event) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastChance)
	defer cancel()
	lost := 0
	try := func(event artifact.Event) {
		if ctx.Err() != nil || r.once(ctx, event) != nil {
			lost++
		}
	}
	if first != nil {
		try(*first)
	}
	for {
		select {
		case event := <-r.waiting:
			try(event)
		default:
			if lost > 0 {
				r.events.WithLabelValues(outcomeDropped).Add(float64(lost))
				r.cfg.Logger.Error().Int("events", lost).Msg("readings of the report are not recorded: the program ends")
			}
			return
		}
	}
}

// cut shortens a text to so many bytes of whole characters.
func cut(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}
