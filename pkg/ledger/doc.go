// Package ledger turns the record of what happened (the events of the LEDGER stream) into rows that can be asked: one row
// for each digest of a repository, the history of each project ([ProjectEvent]), and the outages of what the programs depend on
// ([Outage]). From those come the counts of a project ([Coverage]), the metrics that alerts ask ([Gauges]), and what a sweep may
// rely on (artifact.Known). Events about images of the service's own, which canaries push, are passed over.
//
// It guarantees that rows depend on the set of events alone: whatever the order, the repetitions and the batches in which
// events are applied, the rows are the same ([Record]). So the view can be thrown away and rebuilt at any time, and a
// crash at any point costs nothing but time ([Projector]).
//
// It assumes that the stream gives each event one sequence for ever, and that events were validated before they were
// stored. Text in events (tags, pushers, details) is not trusted: it is cut to a limit and made storable, and whoever
// prints it must escape it for where it goes.
//
// It does not decide whether a signature verifies, or whether an entry of a transparency log is owed: it repeats what the signer
// recorded after it had checked. It does not know what is in Harbor either: a project's population is what the ledger heard of, until a sweep has compared both.
package ledger

import (
	"errors"
	"time"
)

// Rules is the version of the rules by which events become rows. A change of [Record] that gives other rows for the same
// events must raise it: a view that was made by older rules is then rebuilt. That forgets the digests whose events have expired; a
// change that only adds parts leaves it as it is, and has the store add them and go through the stream once more.
const Rules = 1

// ErrOtherBasis says that the view was reset, or brought forward, by somebody else meanwhile. Ask for its position again.
var ErrOtherBasis = errors.New("somebody else has reset the view meanwhile")

// Basis is what the rows of a view rest on. The zero value is that of a view that was never filled.
type Basis struct {
	// Stream is when the stream was created, and thereby which stream it is: one that was made anew counts its sequences
	// from 1 again.
	Stream time.Time
	// Rules is the version of the rules that made the rows.
	Rules int
	// Generation counts the resets. It keeps one receiver from going on behind a point that another one has taken the view
	// back to, which would leave a hole.
	Generation uint64
}

// Equal says whether both are the same.
func (b Basis) Equal(other Basis) bool {
	return b.Rules == other.Rules && b.Generation == other.Generation && b.Stream.Equal(other.Stream)
}

// Position is how far a view has come.
type Position struct {
	Basis
	// Seq is the sequence up to which all events are in the rows; 0 if none is.
	Seq uint64
}

// Equal says whether both are the same.
func (p Position) Equal(other Position) bool { return p.Seq == other.Seq && p.Basis.Equal(other.Basis) }
