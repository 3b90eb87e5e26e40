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
	// Ref is repository@digest; empty in events about a project.
	Ref        string
	Reason     string
	Signatures []RowSignature
	// Canary says that the image is the service's own.
	Canary bool
}

// ReadLedger reads events, one JSON object a line, oldest first: {"seq":1,"stored":"2026-11-22T19:00:00Z","event":{…}}, where
// the event is as the ledger holds it.
func ReadLedger(r io.Reader) ([]LedgerEvent, error) {
	var all []LedgerEvent
	err := lines(r, func(line []byte) error {
		var written struct {
			Seq    uint64    `json:"seq"`
			Stored time.Time `json:"stored"`
			Event  struct {
				Kind       string         `json:"kind"`
				Ref        string         `json:"ref"`
				Reason     string         `json:"reason"`
				Signatures []RowSignature `json:"signatures"`
				Canary     bool           `json:"canary"`
			} `json:"event"`
		}
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
			Canary: e.Canary,
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
