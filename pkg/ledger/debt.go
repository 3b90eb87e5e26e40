package ledger

import (
	"cmp"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// LogState is how the signatures of a digest stand to a transparency log.
type LogState string

// The states. A state is added, never renamed.
const (
	// LogNone: there is no entry, and none is owed.
	LogNone LogState = ""
	// LogOwed: an entry is still to be made: the debt.
	LogOwed LogState = "owed"
	// LogEntered: the entry of at least one signature was verified, and none is owed.
	LogEntered LogState = "logged"
)

// LogStates gives all states.
func LogStates() []LogState { return []LogState{LogNone, LogOwed, LogEntered} }

// maxDebts bounds the events of one digest that a record keeps to know since when an entry is owed.
const maxDebts = 8

// Debt is a signed event that says that an entry is owed. AsOf is what the ledger had reached before the signer looked: a payment
// with a higher sequence settles it.
type Debt struct {
	Seq  uint64    `json:"seq"`
	AsOf uint64    `json:"as_of"`
	At   time.Time `json:"at"`
}

// owing takes a signed event into account that says that an entry is owed. Of more than maxDebts, the first and the last are
// kept, by what they had seen: that is a matter of the set of events alone, and exact unless a digest whose debt was paid once
// owes again, and has been found owing more often than that. The debt then looks younger than it is.
func (r *Record) owing(debt Debt) {
	at, known := slices.BinarySearchFunc(r.Debts, debt, func(a, b Debt) int {
		return cmp.Or(cmp.Compare(a.AsOf, b.AsOf), cmp.Compare(a.Seq, b.Seq))
	})
	if known {
		return
	}
	r.Debts = slices.Insert(r.Debts, at, debt)
	if len(r.Debts) > maxDebts {
		r.Debts = slices.Delete(r.Debts, 1, 2)
	}
}

// owed gives the formats for which a signed event says that an entry is owed.
func owed(e artifact.Event) []artifact.Format {
	var kept []artifact.Format
	for _, format := range e.LogOwed[:min(len(e.LogOwed), maxSignatures)] {
		kept = append(kept, artifact.Format(clean(string(format), maxText)))
	}
	return kept
}

// applyPaid takes an event into account that says that nothing is owed any more.
func (r *Record) applyPaid(seq uint64, at time.Time, e artifact.Event) {
	if higher(&r.PaidSeq, seq) {
		r.PaidReason, r.PaidNote = clean(e.Reason, maxText), clean(e.Detail, maxDetail)
	}
	if signatures := evidence(e); len(signatures) > 0 && higher(&r.PaidSignaturesSeq, seq) {
		r.PaidAt, r.PaidSignatures = at, signatures
	}
}

// seen is what the last signed event had seen of payments: those that come later change what it says.
func (r *Record) seen() uint64 {
	if len(r.Owed) > 0 {
		return r.OwedAsOf
	}
	return r.SignaturesSeq
}

// paid says whether the last payment is newer than what the last signed event had seen.
func (r *Record) paid() bool { return r.PaidSeq > r.seen() }

// Evidence gives the signatures that were verified last: those of the last signed event, or of the payment after it.
func (r *Record) Evidence() []artifact.Evidence {
	if r.PaidSignaturesSeq > r.seen() {
		return r.PaidSignatures
	}
	return r.Signatures
}

// LogState says how the digest stands to a transparency log. Only what is signed owes.
func (r *Record) LogState() LogState {
	switch {
	case r.State() != Signed:
		return LogNone
	case len(r.Owed) > 0 && !r.paid():
		return LogOwed
	case slices.ContainsFunc(r.Evidence(), func(s artifact.Evidence) bool { return s.Log != "" }):
		return LogEntered
	default:
		return LogNone
	}
}

// LogOwedSince is when it was first recorded that what is owed now is owed; zero if nothing is.
func (r *Record) LogOwedSince() time.Time {
	if r.LogState() != LogOwed {
		return time.Time{}
	}
	for _, debt := range r.Debts {
		if debt.AsOf >= r.PaidSeq {
			return debt.At
		}
	}
	return r.VerifiedAt // of an event that is not among them: there is none
}
