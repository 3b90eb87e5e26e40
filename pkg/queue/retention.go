package queue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
)

const (
	// retentionEvery is how often the ledger's retention is looked at.
	retentionEvery = time.Minute
	// longestAgeKey is the key of the stream's metadata that says for how long a program has set it up to keep events, at most:
	// what is shorter was shortened by somebody else.
	longestAgeKey = "harborseal.ledger_max_age"
)

// withLongestAge notes how long the ledger keeps events from now on; 0 is for ever. It never notes less than before.
func withLongestAge(metadata map[string]string, age time.Duration) map[string]string {
	if before, known := longestAge(metadata); known && !isShorter(before, age) {
		return metadata
	}
	metadata[longestAgeKey] = age.String()
	return metadata
}

func longestAge(metadata map[string]string) (age time.Duration, known bool) {
	age, err := time.ParseDuration(metadata[longestAgeKey])
	return age, err == nil && age >= 0
}

// isShorter compares two ages, of which 0 is for ever.
func isShorter(age, than time.Duration) bool { return age != 0 && (than == 0 || age < than) }

// shortenings says by what the ledger loses events earlier than it should: the age that is wanted, and what no program ever sets.
// Nothing else removes events: deleting and purging are denied, and NATS never allows them again.
func shortenings(cfg jetstream.StreamConfig, wanted time.Duration) []string {
	var found []string
	if isShorter(cfg.MaxAge, wanted) {
		found = append(found, fmt.Sprintf("events are kept for %s instead of %s (MaxAge)", cfg.MaxAge, ageText(wanted)))
	}
	if cfg.Discard != jetstream.DiscardNew {
		found = append(found, "a full ledger drops its oldest events instead of refusing new ones (Discard)")
	}
	if cfg.MaxMsgs > 0 {
		found = append(found, fmt.Sprintf("at most %d events are kept (MaxMsgs)", cfg.MaxMsgs))
	}
	if cfg.MaxMsgsPerSubject > 0 {
		found = append(found, fmt.Sprintf("at most %d events of a kind are kept of an image (MaxMsgsPerSubject)", cfg.MaxMsgsPerSubject))
	}
	return found
}

func ageText(age time.Duration) string {
	if age == 0 {
		return "for ever"
	}
	return age.String()
}

// noteShortened records that the ledger keeps events for less time than programs have set it up for, before that is repaired. It
// fails nothing: what it cannot record stands in the log.
func (c *Client) noteShortened(ctx context.Context) {
	cfg, err := c.ledgerConfig(ctx)
	if err != nil || isNewer(cfg.Metadata) {
		return // there is none yet, or it cannot be asked for: the set-up says so
	}
	wanted := cfg.MaxAge
	// A longer age in the configuration alone is a change of the configuration.
	if longest, known := longestAge(cfg.Metadata); known && isShorter(cfg.MaxAge, c.wantedAge()) {
		wanted = longest
	}
	c.report(ctx, shortenings(cfg, wanted))
}

// wantedAge is how long the ledger should keep events.
func (c *Client) wantedAge() time.Duration {
	return orDefault(c.cfg.Limits.LedgerMaxAge, defaultLedgerMaxAge)
}

func (c *Client) ledgerConfig(ctx context.Context) (jetstream.StreamConfig, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	handle, err := c.js.Stream(ctx, streamLedger)
	if err != nil {
		return jetstream.StreamConfig{}, askFault(fmt.Errorf("asking for stream %s: %w", streamLedger, err))
	}
	return handle.CachedInfo().Config, nil
}

// report logs and records what shortens the retention. The event is recorded once a day, however many programs see it.
func (c *Client) report(ctx context.Context, found []string) {
	if len(found) == 0 {
		return
	}
	detail := strings.Join(found, "; ")
	c.log.Error().Str("detail", detail).Msg("somebody has shortened the ledger's retention: events that an audit needs are lost")
	now := time.Now().UTC()
	id := artifact.EventID(artifact.RetentionShortened, artifact.Ref{}, detail, now.Format(time.DateOnly))
	_, err := c.Record(ctx, artifact.Event{
		ID: id, Kind: artifact.RetentionShortened, Time: now, Origin: artifact.OriginProbe, CorrelationID: id, Detail: detail,
	})
	if err != nil {
		c.log.Error().Err(err).Msg("cannot record that the ledger's retention was shortened")
	}
}

// WatchRetention compares how long the ledger keeps events with Limits.LedgerMaxAge, every minute until ctx ends. What is shorter
// is logged once, recorded once a day, and stands in harborseal_ledger_retention_shortened (0 or 1), beside
// harborseal_ledger_retention_seconds (+Inf for ever). It repairs nothing: [Client.Setup] does, at the next start.
//
// While the queue does not answer, the metrics keep their last values.
func (c *Client) WatchRetention(ctx context.Context) error {
	seconds, shortened, err := c.retentionMetrics()
	if err != nil {
		return err
	}
	ticker := time.NewTicker(orDefault(c.cfg.retentionEvery, retentionEvery))
	defer ticker.Stop()
	said := ""
	for {
		if cfg, err := c.ledgerConfig(ctx); err == nil {
			found := shortenings(cfg, c.wantedAge())
			seconds.Set(ageSeconds(cfg.MaxAge))
			shortened.Set(float64(min(1, len(found))))
			today := time.Now().UTC().Format(time.DateOnly) + strings.Join(found, "; ")
			if said != today {
				c.report(ctx, found)
			}
			said = today
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func ageSeconds(age time.Duration) float64 {
	if age == 0 {
		return math.Inf(1)
	}
	return age.Seconds()
}

func (c *Client) retentionMetrics() (seconds, shortened prometheus.Gauge, err error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	seconds = gauge("harborseal_ledger_retention_seconds", "For how long the ledger keeps events; +Inf for ever.")
	shortened = gauge("harborseal_ledger_retention_shortened", "1 while the ledger loses events earlier than the configuration says, else 0.")
	if c.cfg.Registerer == nil {
		return seconds, shortened, nil
	}
	return seconds, shortened, errors.Join(c.cfg.Registerer.Register(seconds), c.cfg.Registerer.Register(shortened))
}
