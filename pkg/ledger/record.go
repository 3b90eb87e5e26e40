package ledger

import (
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// State is where a digest stands.
type State string

// The states. A state is added, never renamed.
const (
	Pending State = "pending" // asked for, no outcome yet
	Signed  State = "signed"  // a signature was checked and held when it was last looked for
	Failed  State = "failed"  // the last attempt failed and will be repeated
	Dead    State = "dead"    // given up; waits in the dead letters
	Skipped State = "skipped" // not to be signed
	Gone    State = "gone"    // no longer in Harbor

	Unsigned State = "unsigned" // to be signed, and nobody has been asked to: the policy only observes, or its signature was removed
	Blocked  State = "blocked"  // an admin has forbidden to sign it
)

// States gives all states, in the order in which help texts name them.
func States() []State {
	return []State{Pending, Signed, Failed, Dead, Skipped, Gone, Unsigned, Blocked}
}

// Limits of text in a record, in bytes. They keep a page small and fit into an index of every database.
const (
	maxText   = 512
	maxDetail = 2048
	// maxSignatures bounds the evidence of one event: there is one for each format.
	maxSignatures = 16
	// maxAccessories bounds what was listed beside a manifest. An event that names more counts as one that names none: half
	// of a list would pass for the whole of it.
	maxAccessories = 256
)

// Record is all that the events applied so far say of one digest. Each part keeps the lowest or the highest sequence that
// set it, and gives way only to a lower or a higher one: applying events is commutative and idempotent. A sequence of 0
// means that no event has set the part.
//
// Fields are exported for stores, which keep them as they are; only Apply changes them otherwise. All times are UTC with
// a resolution of one microsecond. A Record is not safe for concurrent use.
type Record struct {
	Ref artifact.Ref

	// The event of the lowest sequence, of any kind: a digest whose webhook was lost has no received event.
	FirstSeq    uint64
	FirstSeenAt time.Time
	// LastSeq is the highest sequence of any event.
	LastSeq uint64

	// The first received event. PushedAt is zero where the webhook named no time.
	ReceivedSeq uint64
	ReceivedAt  time.Time
	PushedAt    time.Time
	Pusher      string
	// LastReceivedSeq is the highest sequence of a received event.
	LastReceivedSeq uint64

	// The first event in which Harbor's own feed tells of the push. ConfirmedPushedAt is zero where it names no time.
	ConfirmedSeq      uint64
	ConfirmedPushedAt time.Time
	ConfirmedPusher   string

	// The first signed event. How says whether this service made that signature.
	SignedSeq uint64
	SignedAt  time.Time
	How       artifact.How
	// The last signed event.
	VerifiedSeq     uint64
	VerifiedAt      time.Time
	KeyID           string
	Format          string
	SignatureDigest string

	// The last signed event as well, with a sequence of its own: rows of a program that did not know these parts are made
	// whole when the event is read again. Note is what the event says for people.
	SignaturesSeq uint64
	Signatures    []artifact.Evidence
	Note          string
	// Owed are the formats for which that event says that an entry of a transparency log is owed, and OwedAsOf is what the ledger
	// had reached before the signer looked.
	Owed     []artifact.Format
	OwedAsOf uint64
	// Debts are the signed events by which entries were owed, in the order of what they had seen.
	Debts []Debt

	// The last event by which nothing is owed any more: why, and what it says for people.
	PaidSeq    uint64
	PaidReason string
	PaidNote   string
	// The last of those that name signatures. It has verified them, as a signed event does.
	PaidSignaturesSeq uint64
	PaidAt            time.Time
	PaidSignatures    []artifact.Evidence

	// The last signed event once more, for the same reason: what was listed as a signature when those were verified, and by
	// which set of keys. Both are empty if the event does not say.
	AccessoriesSeq uint64
	Accessories    []string
	KeySet         string

	// GoneSeq is the highest sequence as of which the manifest was gone, and UnsignedSeq the highest as of which no signature
	// counts: a failed attempt found none, one was removed, or signing is observed only, or forbidden.
	GoneSeq     uint64
	UnsignedSeq uint64

	// The last event that is not signed: what the state is as long as no signature counts.
	OtherSeq uint64
	Other    State
	Reason   string
	Detail   string

	// The last event that names a media type, and the last that names a policy revision.
	MediaTypeSeq      uint64
	MediaType         string
	PolicyRevisionSeq uint64
	PolicyRevision    string

	// Attempts is the highest number of attempts that an event names, within what a database can hold.
	Attempts uint64

	// Tags and Parents (digests of indexes) that events name. In a store they are kept beside the record; a record that was
	// loaded holds those of the events applied since, and the union is what counts.
	Tags    map[string]Seen
	Parents map[string]Seen
}

// Seen is when something was named first and last, by sequence.
type Seen struct {
	FirstSeq uint64
	FirstAt  time.Time
	LastSeq  uint64
	LastAt   time.Time
}

// Merge gives the union of both.
func (s Seen) Merge(other Seen) Seen {
	if s.FirstSeq == 0 || other.FirstSeq != 0 && other.FirstSeq < s.FirstSeq {
		s.FirstSeq, s.FirstAt = other.FirstSeq, other.FirstAt
	}
	if other.LastSeq > s.LastSeq {
		s.LastSeq, s.LastAt = other.LastSeq, other.LastAt
	}
	return s
}

// Projects says whether an entry changes a row. Others only move the position: those without an event, those of a kind that
// these rules do not know, and those about images of the service's own. That a dead letter was discarded changes none either: the
// digest stays given up, for the reason that it had, or is what it has become meanwhile. What is about a project changes no row either:
// [ProjectEventOf] reads it.
func Projects(entry artifact.Entry) bool {
	switch e := entry.Event; {
	case e.Canary:
		return false
	case e.Kind == artifact.Signed, e.Kind == artifact.LogPaid, e.Kind == artifact.Confirmed:
		return true
	default:
		_, known := stateOf(e)
		return known
	}
}

// Apply takes an entry of the record's digest into account. An entry that does not project is ignored.
func (r *Record) Apply(entry artifact.Entry) {
	if !Projects(entry) {
		return
	}
	seq, e := entry.Seq, entry.Event
	at := instant(e.Time)

	if lower(&r.FirstSeq, seq) {
		r.FirstSeenAt = at
	}
	higher(&r.LastSeq, seq)
	r.Attempts = max(r.Attempts, min(e.Attempts, math.MaxInt64))
	if e.MediaType != "" && higher(&r.MediaTypeSeq, seq) {
		r.MediaType = clean(e.MediaType, maxText)
	}
	if e.PolicyRevision != "" && higher(&r.PolicyRevisionSeq, seq) {
		r.PolicyRevision = clean(e.PolicyRevision, maxText)
	}
	note(&r.Parents, clean(e.Parent, maxText), seq, at)

	switch e.Kind {
	case artifact.Signed:
		r.applySigned(seq, at, e)
		return
	case artifact.LogPaid:
		r.applyPaid(seq, at, e)
		return
	case artifact.Confirmed:
		r.applyConfirmed(seq, at, e)
		return
	case artifact.Received:
		r.applyReceived(seq, at, e)
	case artifact.Vanished:
		higher(&r.GoneSeq, asOf(seq, e))
	case artifact.Failed, artifact.Dead:
		if e.Unsigned {
			higher(&r.UnsignedSeq, asOf(seq, e))
		}
	default:
	}
	state, _ := stateOf(e)
	switch state {
	case Unsigned:
		higher(&r.UnsignedSeq, asOf(seq, e))
	case Blocked:
		higher(&r.UnsignedSeq, seq) // forbidden from now on, whatever was seen when
	default:
	}
	if higher(&r.OtherSeq, seq) {
		r.Other, r.Reason, r.Detail = state, clean(e.Reason, maxText), clean(e.Detail, maxDetail)
	}
}

func (r *Record) applySigned(seq uint64, at time.Time, e artifact.Event) {
	if lower(&r.SignedSeq, seq) {
		r.SignedAt = at
		r.How = artifact.How(clean(string(e.How), maxText))
	}
	if higher(&r.VerifiedSeq, seq) {
		r.VerifiedAt = at
		r.KeyID, r.Format = clean(e.KeyID, maxText), clean(string(e.Format), maxText)
		r.SignatureDigest = clean(e.SignatureDigest, maxText)
	}
	// Not only if it is higher: a program that knew less may have read the same event.
	if seq == r.SignaturesSeq || higher(&r.SignaturesSeq, seq) {
		r.Signatures, r.Note = evidence(e), clean(e.Detail, maxDetail)
		r.Owed, r.OwedAsOf = owed(e), 0
		if len(r.Owed) > 0 {
			r.OwedAsOf = asOf(seq, e)
		}
	}
	if len(e.LogOwed) > 0 {
		r.owing(Debt{Seq: seq, AsOf: asOf(seq, e), At: at})
	}
	if higher(&r.AccessoriesSeq, seq) {
		r.Accessories, r.KeySet = listed(e)
	}
}

// listed gives what a signed event says about everything that was listed, and nothing if that cannot be kept as it is: a
// sweep then looks again.
func listed(e artifact.Event) (accessories []string, keySet string) {
	if e.KeySet == "" || len(e.KeySet) > maxText || len(e.Accessories) > maxAccessories {
		return nil, ""
	}
	for _, digest := range e.Accessories {
		accessories = append(accessories, clean(digest, maxText))
	}
	return accessories, clean(e.KeySet, maxText)
}

// evidence gives the signatures of a signed event. Events of older programs name one, in fields of their own.
func evidence(e artifact.Event) []artifact.Evidence {
	all := e.Signatures
	if one := (artifact.Evidence{Format: e.Format, KeyID: e.KeyID, Digest: e.SignatureDigest}); len(all) == 0 && one != (artifact.Evidence{}) {
		all = []artifact.Evidence{one}
	}
	kept := make([]artifact.Evidence, 0, len(all))
	for _, s := range all[:min(len(all), maxSignatures)] {
		kept = append(kept, artifact.Evidence{
			Format: artifact.Format(clean(string(s.Format), maxText)), KeyID: clean(s.KeyID, maxText), Digest: clean(s.Digest, maxText),
			Log: clean(s.Log, maxText), LogIndex: s.LogIndex, TimestampedAt: shown(s.TimestampedAt),
		})
	}
	return kept
}

func (r *Record) applyReceived(seq uint64, at time.Time, e artifact.Event) {
	if lower(&r.ReceivedSeq, seq) {
		r.ReceivedAt, r.PushedAt = at, time.Time{}
		if e.PushedAt != nil {
			r.PushedAt = instant(*e.PushedAt)
		}
		r.Pusher = clean(e.Pusher, maxText)
	}
	higher(&r.LastReceivedSeq, seq)
	note(&r.Tags, clean(e.Tag, maxText), seq, at)
}

// applyConfirmed takes Harbor's own word on the push. It says nothing about signatures.
func (r *Record) applyConfirmed(seq uint64, at time.Time, e artifact.Event) {
	if lower(&r.ConfirmedSeq, seq) {
		r.ConfirmedPushedAt = time.Time{}
		if e.PushedAt != nil {
			r.ConfirmedPushedAt = instant(*e.PushedAt)
		}
		r.ConfirmedPusher = clean(e.Pusher, maxText)
	}
	note(&r.Tags, clean(e.Tag, maxText), seq, at)
}

// State is where the digest stands: signed if its last signature is newer than its last disappearance and than the last
// event by which none counts, otherwise what the last event without a signature says. An attempt that failed before it could
// look does not undo a signature that was checked. A digest of which nothing is known but that it was pushed, or that it owes nothing, is
// pending, so that a sweep looks at it.
func (r *Record) State() State {
	switch {
	case max(r.VerifiedSeq, r.PaidSignaturesSeq) > max(r.GoneSeq, r.UnsignedSeq):
		return Signed
	case r.Other == "" && (r.PaidSeq != 0 || r.ConfirmedSeq != 0):
		return Pending
	default:
		return r.Other
	}
}

// SoleKey is the key that made all signatures of a digest that is signed; empty if there are several, or none is known.
func (r *Record) SoleKey() string {
	signatures := r.Evidence()
	if r.State() != Signed || len(signatures) == 0 {
		return ""
	}
	key := signatures[0].KeyID
	for _, s := range signatures[1:] {
		if s.KeyID != key {
			return ""
		}
	}
	return key
}

func stateOf(e artifact.Event) (State, bool) {
	switch e.Kind {
	case artifact.Received, artifact.Queued, artifact.Replayed:
		return Pending, true
	case artifact.Removed:
		return Unsigned, true
	case artifact.Blocked:
		return Blocked, true
	case artifact.Skipped:
		switch policy.Reason(e.Reason) {
		case policy.Observed:
			return Unsigned, true
		case policy.Blocked:
			return Blocked, true
		default:
			return Skipped, true
		}
	case artifact.Vanished:
		return Gone, true
	case artifact.Failed:
		return Failed, true
	case artifact.Dead:
		return Dead, true
	default:
		return "", false
	}
}

// asOf is the sequence up to which an event that found no signature, or no manifest, undoes those that were signed. It may be recorded after
// somebody else has signed: what was signed since it looked stays.
func asOf(seq uint64, e artifact.Event) uint64 {
	if e.AsOf == 0 {
		return seq
	}
	return min(seq, e.AsOf)
}

// lower sets *register to seq if that is lower, or the register is unset.
func lower(register *uint64, seq uint64) bool {
	if *register != 0 && seq >= *register {
		return false
	}
	*register = seq
	return true
}

// higher sets *register to seq if that is higher.
func higher(register *uint64, seq uint64) bool {
	if seq <= *register {
		return false
	}
	*register = seq
	return true
}

func note(set *map[string]Seen, name string, seq uint64, at time.Time) {
	if name == "" {
		return
	}
	if *set == nil {
		*set = make(map[string]Seen, 1)
	}
	(*set)[name] = (*set)[name].Merge(Seen{FirstSeq: seq, FirstAt: at, LastSeq: seq, LastAt: at})
}

// instant brings a time to the resolution that every database keeps.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// shown is an instant that JSON can say; zero if it cannot.
func shown(t time.Time) time.Time {
	if t = instant(t); t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// clean makes text of unknown origin storable everywhere: valid UTF-8, without NUL (PostgreSQL refuses it), of limited
// length. Other control characters stay: they are evidence, and harmless until somebody prints them raw.
func clean(s string, limit int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= limit {
		return s
	}
	cut := limit
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
