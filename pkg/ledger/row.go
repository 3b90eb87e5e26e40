package ledger

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// MaxNames is how many tags and how many parents a row shows at most: those that were named last.
const MaxNames = 100

// Row is one digest as the report shows it. Times are UTC; those that are unknown are null.
type Row struct {
	Project    string `json:"project"`
	Repository string `json:"repository"` // full name, project included
	Digest     string `json:"digest"`
	MediaType  string `json:"media_type"` // empty until a signer has read the manifest

	// Parents are the digests of the indexes that named this one as their child. Parents and Tags stand in the order in
	// which they were named last, newest first, at most [MaxNames] of each; the totals count all.
	Parents      []string `json:"parents"`
	ParentsTotal int      `json:"parents_total"`
	Tags         []string `json:"tags"`
	TagsTotal    int      `json:"tags_total"`

	// Pusher and PushedAt are Harbor's own word where its feed has told of the push, else that of the first webhook, which is
	// anybody's who knows its secret. PusherSource says which.
	Pusher       string       `json:"pusher"`
	PusherSource PusherSource `json:"pusher_source"`
	PushedAt     *time.Time   `json:"pushed_at"`
	// FirstSeenAt is when the ledger first heard of the digest, by webhook or otherwise; ReceivedAt when the first webhook
	// came in.
	FirstSeenAt time.Time  `json:"first_seen_at"`
	ReceivedAt  *time.Time `json:"received_at"`

	// State with, unless it is signed or pending, Reason (from a closed set) and Detail (for people).
	State  State  `json:"state"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`

	// SignedAt is when a signature was first known to hold, and How is about that one; VerifiedAt is when signatures were
	// last checked, and the rest is about those, which may be others. They stay when the digest or its signature is gone:
	// only State says what counts now.
	SignedAt   *time.Time `json:"signed_at"`
	VerifiedAt *time.Time `json:"verified_at"`
	// Signatures are never nil. KeyID and SignatureDigest are those of the first; Format is its format, or [Both].
	Signatures      []artifact.Evidence `json:"signatures"`
	KeyID           string              `json:"key_id"`
	Format          string              `json:"format"`
	SignatureDigest string              `json:"signature_digest"`
	How             artifact.How        `json:"how"`
	// Note is what the signer said about the signatures, for people: such as why one has another format than was asked for.
	Note string `json:"note"`

	// LogState is how the signatures stand to a transparency log. LogOwed are the formats for which an entry is owed, and
	// LogOwedSince is when that was first recorded; empty and null unless it is [LogOwed]. LogReason, from a closed set, says why
	// nothing is owed any more although an entry could not be made everywhere.
	LogState     LogState          `json:"log_state"`
	LogOwed      []artifact.Format `json:"log_owed"`
	LogOwedSince *time.Time        `json:"log_owed_since"`
	LogReason    string            `json:"log_reason"`

	Attempts       uint64 `json:"attempts"`
	PolicyRevision string `json:"policy_revision"`
	// LedgerSeq is the sequence of the last event that concerns the digest.
	LedgerSeq uint64 `json:"ledger_seq"`
}

// Both is the format of a row whose signatures have more than one.
const Both = "both"

// Row gives the record as the report shows it, with the tags and parents that the record itself holds.
func (r *Record) Row() Row {
	signatures := r.Evidence()
	row := Row{
		Project: r.Ref.Project(), Repository: r.Ref.Repository(), Digest: r.Ref.Digest(), MediaType: r.MediaType,
		Parents: newest(r.Parents), ParentsTotal: len(r.Parents), Tags: newest(r.Tags), TagsTotal: len(r.Tags),
		FirstSeenAt: r.FirstSeenAt, ReceivedAt: optional(r.ReceivedAt),
		State: r.State(), SignedAt: optional(r.SignedAt), VerifiedAt: optional(r.VerifiedAt),
		Signatures: append([]artifact.Evidence{}, signatures...),
		KeyID:      r.KeyID, Format: r.Format, SignatureDigest: r.SignatureDigest, How: r.How, Note: r.Note,
		LogState: r.LogState(), LogOwed: []artifact.Format{}, LogOwedSince: optional(r.LogOwedSince()),
		Attempts: r.Attempts, PolicyRevision: r.PolicyRevision, LedgerSeq: r.LastSeq,
	}
	pushed := r.Push()
	row.Pusher, row.PusherSource, row.PushedAt = pushed.Pusher, pushed.Source, optional(pushed.At)
	if row.State != Signed {
		row.Reason, row.Detail = r.Reason, r.Detail
	}
	if row.LogState == LogOwed {
		row.LogOwed = append(row.LogOwed, r.Owed...)
	}
	r.settle(&row)
	if slices.ContainsFunc(signatures, func(s artifact.Evidence) bool { return s.Format != signatures[0].Format }) {
		row.Format = Both
	}
	return row
}

// settle shows a payment that is newer than what the last signed event had seen.
func (r *Record) settle(row *Row) {
	if !r.paid() {
		return
	}
	row.LogReason = r.PaidReason
	if r.PaidNote != "" {
		row.Note = r.PaidNote
	}
	if r.PaidSignaturesSeq > r.seen() {
		first := r.PaidSignatures[0]
		row.VerifiedAt, row.KeyID, row.Format, row.SignatureDigest = optional(r.PaidAt), first.KeyID, string(first.Format), first.Digest
	}
}

// newest gives the names by the sequence that named them last, newest first, then by name.
func newest(set map[string]Seen) []string {
	names := slices.SortedFunc(maps.Keys(set), func(a, b string) int {
		return cmp.Or(cmp.Compare(set[b].LastSeq, set[a].LastSeq), cmp.Compare(a, b))
	})
	if len(names) > MaxNames {
		names = names[:MaxNames]
	}
	if names == nil {
		names = []string{}
	}
	return names
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
