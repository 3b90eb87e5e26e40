package report

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// Line is a line of report.jsonl: a row as GET /api/v1/signatures shows it, with the registry.
type Line struct {
	Registry string `json:"registry"`
	ledger.Row
	// Proof is there where proofs were asked for and the row's last event is in a checkpoint already.
	Proof *Proof `json:"ledger_proof,omitempty"`
}

// Proof shows that the event with a row's ledger_seq is in the ledger's Merkle log.
//
// SPEC: RFC 6962, section 2.1.1, Merkle audit paths; C2SP tlog-checkpoint.
type Proof struct {
	// Subject and Event are the event as the ledger stores it: the leaf of the log is made of them and of ledger_seq.
	Subject string `json:"subject"`
	Event   []byte `json:"event"`
	// Index is the leaf's in the log, Size that of the log; Hashes are those beside the leaf's way up, the lowest first.
	Index  uint64   `json:"index"`
	Size   uint64   `json:"size"`
	Hashes [][]byte `json:"hashes"`
	// Checkpoint is the signed checkpoint of that size; empty where it is that of the manifest.
	Checkpoint string `json:"checkpoint,omitempty"`
}

// prover gives the proof for the event with a sequence, which is of ref; nil if no checkpoint has it yet. It verifies what it
// gives. It is safe for concurrent use, makes one attempt and ends when ctx does; its errors are faults.
type prover interface {
	ProveRow(ctx context.Context, ref artifact.Ref, seq uint64) (*Proof, error)
}

// appendJSONL appends a row as a line.
func appendJSONL(b []byte, line *Line) ([]byte, error) {
	raw, err := json.Marshal(line)
	if err != nil {
		return nil, fmt.Errorf("encoding a row: %w", err)
	}
	return append(appendPrintable(b, raw), '\n'), nil
}

// splitLines gives the lines without their ends.
func splitLines(raw []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for more := true; more; {
			var line []byte
			if line, raw, more = bytes.Cut(raw, []byte{'\n'}); !yield(line) {
				return
			}
		}
	}
}
