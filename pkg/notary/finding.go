package notary

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// FindingKind is what was done to the ledger.
type FindingKind string

// The kinds of findings. They are part of the ledger's vocabulary: a kind is added, never renamed.
const (
	// Changed, Removed, Inserted and Reordered events: From and To are their sequences, or those between which they are.
	Changed   FindingKind = "changed"
	Removed   FindingKind = "removed"
	Inserted  FindingKind = "inserted"
	Reordered FindingKind = "reordered"
	// RolledBack: a checkpoint is known of more events than the ledger has. From is the first that is missing, To the last.
	RolledBack FindingKind = "rolled_back"
	// Mismatch: the events between From and To are not those that a checkpoint covers.
	Mismatch FindingKind = "checkpoint_mismatch"
	// BadSignature: the note of the event From is of no known key, or says something else than its record.
	BadSignature FindingKind = "bad_signature"
)

// Finding is one thing that does not fit.
type Finding struct {
	Kind  FindingKind `json:"kind"`
	Epoch uint64      `json:"epoch"`
	// From and To are sequences of the ledger, both included.
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
	// Detail is for people.
	Detail string `json:"detail"`
}

// event is what is recorded of a finding: once, however often it is found and by how many receivers.
func (f Finding) event(key *Key, now time.Time) artifact.Event {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	id := key.eventID(artifact.Tampered, string(f.Kind), number(f.Epoch), number(f.From), number(f.To))
	return artifact.Event{
		ID: id, Kind: artifact.Tampered, Time: now.UTC(), Actor: artifact.Self, Origin: artifact.OriginProbe, CorrelationID: id, Reason: string(f.Kind),
		Detail: fmt.Sprintf("events %d to %d of epoch %d: %s", f.From, f.To, f.Epoch, f.Detail),
	}
}

// compareFindings orders findings by where they are.
func compareFindings(a, b Finding) int {
	return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Kind, b.Kind))
}
