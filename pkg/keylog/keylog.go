// Package keylog records in the ledger which keys there are, and how that changes: key_added, key_retired and key_revoked events.
//
// [Journal] is for programs of which several run with one configuration, such as signers. It compares the keys of the
// configuration with those that were recorded last, and records what differs, once, however many programs find it. While a change
// is rolled out, two configurations run beside each other. Then the one that came last is what counts, as long as somebody runs
// it: a program that is restarted with the one before takes nothing back. If nobody has run the last one for [Silent], it was
// rolled back, and that is recorded.
//
// It assumes that all programs are to have the same keys. Where they are not, those of the configuration that came last are
// recorded. It holds no keys, and needs none: ids, names and states are enough.
package keylog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// What keys are for.
const (
	UseImage  = "image"
	UseLedger = "ledger"
)

// The states of keys.
const (
	Active  = "active"  // it signs
	Retired = "retired" // what it signed counts; it signs nothing more
	Revoked = "revoked" // nothing counts that it signed
)

const (
	// Silent is how long nobody has said to run a configuration when it counts as rolled back.
	Silent = 15 * time.Minute
	// Interval is how often a program says what it runs.
	Interval = 5 * time.Minute
	// stateKind is under which states are kept.
	stateKind = "keys"
	// maxConfigurations is how many configurations a state remembers.
	maxConfigurations = 16
	// tries is how often a state is read anew that somebody else has changed meanwhile.
	tries = 10
	// gone is the state, in the journal alone, of a key that has left the configuration.
	gone = "gone"
)

// Key is a key of a configuration.
type Key struct {
	ID, Name string
	// State is Active, Retired or Revoked.
	State string
}

// Recorder takes events. One that was recorded before, by its id, is not stored again.
type Recorder interface {
	Record(ctx context.Context, event artifact.Event) (seq uint64, err error)
}

// State keeps a small value for all programs; see the ports of package reconcile, whose words these are.
type State interface {
	LoadState(ctx context.Context, kind, key string) (value []byte, revision uint64, err error)
	// SaveState gives policy.ErrConflict if somebody else has saved meanwhile.
	SaveState(ctx context.Context, kind, key string, value []byte, expect uint64) (revision uint64, err error)
}

// Config is what a Journal needs.
type Config struct {
	Recorder Recorder
	State    State
	// Keys are those of this program's configuration.
	Keys []Key
	// Actor is the program, such as "signer".
	Actor  string
	Logger zerolog.Logger
}

// Journal records how the keys that sign images change. It is for one goroutine.
type Journal struct {
	cfg         Config
	fingerprint string
}

// New validates the configuration.
func New(cfg Config) (*Journal, error) {
	if cfg.Recorder == nil || cfg.State == nil || cfg.Actor == "" {
		return nil, errors.New("keylog: recorder, state and actor are required")
	}
	if err := check(cfg.Keys); err != nil {
		return nil, err
	}
	return &Journal{cfg: cfg, fingerprint: fingerprint(cfg.Keys)}, nil
}

func check(keys []Key) error {
	seen := map[string]bool{}
	for _, k := range keys {
		switch {
		case k.ID == "" || seen[k.ID]:
			return fmt.Errorf("keylog: key %q: want an id of its own", k.Name)
		case k.State != Active && k.State != Retired && k.State != Revoked:
			return fmt.Errorf("keylog: key %q: state %q is none", k.Name, k.State)
		}
		seen[k.ID] = true
	}
	return nil
}

// fingerprint is the same for configurations with the same keys in the same states.
func fingerprint(keys []Key) string {
	var lines []string
	for _, k := range keys {
		lines = append(lines, k.ID+" "+k.State)
	}
	slices.Sort(lines)
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", lines))
	return hex.EncodeToString(sum[:8])
}

// Run records what differs, and says now and then what this program runs, until ctx ends. What fails is tried again.
func (j *Journal) Run(ctx context.Context) error {
	for {
		wait := Interval
		if err := j.Once(ctx); err != nil && ctx.Err() == nil {
			j.cfg.Logger.Warn().Err(err).Msg("recording which keys there are failed: it is tried again")
			wait = Interval / 10
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// journal is what the state keeps.
type journal struct {
	Version int `json:"v"`
	// Current is the configuration that was recorded.
	Current string `json:"current"`
	// Seen is when somebody has said last to run a configuration.
	Seen map[string]time.Time `json:"seen"`
	Keys map[string]entry     `json:"keys"`
}

// entry is a key as it was recorded last. Changes counts its events, so that each has an id of its own.
type entry struct {
	Name    string `json:"name"`
	State   string `json:"state"`
	Changes int    `json:"changes"`
}

// Once records what differs now, if this program's configuration is the one that counts.
//
// Events come before the state. A crash between them repeats the events, with the same ids, and so do programs that do it at the
// same time.
func (j *Journal) Once(ctx context.Context) error {
	for range tries {
		data, revision, err := j.cfg.State.LoadState(ctx, stateKind, UseImage)
		if err != nil {
			return fmt.Errorf("reading which keys are recorded: %w", err)
		}
		before := journal{}
		if len(data) > 0 {
			if err := json.Unmarshal(data, &before); err != nil {
				return fmt.Errorf("reading which keys are recorded: %w", err)
			}
			if before.Version > 1 {
				return errors.New("reading which keys are recorded: a newer program wrote it")
			}
		}
		now := time.Now().UTC()
		after, changes := j.step(before, now)
		if after == nil {
			return nil
		}
		for _, c := range changes {
			if err := j.record(ctx, c, now); err != nil {
				return err
			}
		}
		if data, err = json.Marshal(after); err != nil {
			return fmt.Errorf("encoding which keys are recorded: %w", err)
		}
		_, err = j.cfg.State.SaveState(ctx, stateKind, UseImage, data, revision)
		if errors.Is(err, policy.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("saving which keys are recorded: %w", err)
		}
		return nil
	}
	return fmt.Errorf("saving which keys are recorded: %w", policy.ErrConflict)
}

// step gives the state that is to be saved, and what is to be recorded before; nil if all was said lately.
func (j *Journal) step(before journal, now time.Time) (*journal, []change) {
	seen, known := before.Seen[j.fingerprint]
	current := before.Current == j.fingerprint
	// An unknown configuration is a new one. One of before counts only when nobody runs the last one any more.
	rolledBack := known && !current && now.Sub(before.Seen[before.Current]) >= Silent
	takesOver := !current && (!known || rolledBack)
	if !takesOver && now.Sub(seen) < Interval/2 {
		return nil, nil
	}
	after := journal{Version: 1, Current: before.Current, Seen: maps.Clone(before.Seen), Keys: before.Keys}
	if after.Seen == nil {
		after.Seen = map[string]time.Time{}
	}
	after.Seen[j.fingerprint] = now
	after.forget()
	if !takesOver {
		return &after, nil
	}
	after.Current = j.fingerprint
	var changes []change
	after.Keys, changes = compare(before.Keys, j.cfg.Keys)
	return &after, changes
}

// forget drops the configurations that were heard of longest ago.
func (s *journal) forget() {
	for len(s.Seen) > maxConfigurations {
		oldest := ""
		for name, at := range s.Seen {
			if name != s.Current && (oldest == "" || at.Before(s.Seen[oldest])) {
				oldest = name
			}
		}
		delete(s.Seen, oldest)
	}
}
