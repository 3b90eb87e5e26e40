package checker

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// LedgerEvent is what the checker reads of one event of the ledger.
type LedgerEvent struct {
	// Seq is its place in the ledger. Stored is when the queue stored it, by the queue's clock: the time that the event itself
	// tells is that of a program whose clock a fault may have shifted.
	Seq    uint64
	Stored time.Time
	Kind   string
	// Origin is what asked for what the event tells of, such as webhook or sweep, and Correlation names that very push or sweep.
	Origin      string
	Correlation string
	// Ref is repository@digest; empty in events about a project.
	Ref        string
	Reason     string
	Signatures []RowSignature
	// Canary says that the image is the service's own.
	Canary bool
	// Sweep is set in events of sweeps alone.
	Sweep *Sweep
}

// exported is a line of an export.
type exported struct {
	Seq    uint64    `json:"seq"`
	Stored time.Time `json:"stored"`
	Event  event     `json:"event"`
}

// event is an event as the ledger holds it.
type event struct {
	Kind        string         `json:"kind"`
	Ref         string         `json:"ref"`
	Time        time.Time      `json:"time"`
	Origin      string         `json:"origin"`
	Correlation string         `json:"correlation_id"`
	Reason      string         `json:"reason"`
	Signatures  []RowSignature `json:"signatures"`
	Canary      bool           `json:"canary"`
	Swept       *struct {
		Began time.Time `json:"started_at"`
	} `json:"sweep"`
}

func (e event) sweep() *Sweep {
	if e.Swept == nil {
		return nil
	}
	return &Sweep{Took: e.Time.Sub(e.Swept.Began)}
}

// ReadLedger reads events, one JSON object a line, oldest first: {"seq":1,"stored":"2026-11-22T19:00:00Z","event":{…}}, where
// the event is as the ledger holds it.
func ReadLedger(r io.Reader) ([]LedgerEvent, error) {
	var all []LedgerEvent
	err := lines(r, func(line []byte) error {
		var written exported
		if err := json.Unmarshal(line, &written); err != nil {
			return err
		}
		e := written.Event
		if written.Seq == 0 || written.Stored.IsZero() || e.Kind == "" {
			return fmt.Errorf("seq, stored or kind is missing: %.200s", line)
		}
		if len(all) > 0 && all[len(all)-1].Seq >= written.Seq {
			return fmt.Errorf("seq %d comes after %d", written.Seq, all[len(all)-1].Seq)
		}
		all = append(all, LedgerEvent{
			Seq: written.Seq, Stored: written.Stored, Kind: e.Kind, Ref: e.Ref, Reason: e.Reason, Signatures: e.Signatures,
			Canary: e.Canary, Origin: e.Origin, Correlation: e.Correlation, Sweep: e.sweep(),
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	return all, nil
}

// Letter is a dead letter: a request that was given up.
type Letter struct {
	Repository string
	Digest     string
	Reason     string
}
