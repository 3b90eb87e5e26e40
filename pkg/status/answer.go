package status

import (
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Outcome is what an answer says, from a closed set: it is a metric label, and decides the status of HTTP.
type Outcome string

// The outcomes.
const (
	Signed  Outcome = "signed"  // 200
	Pending Outcome = "pending" // 202: asking again, or waiting, helps
	Refused Outcome = "refused" // 409: it will not be signed unless somebody does something
	Missing Outcome = "missing" // 404: Harbor does not have it
	failed  Outcome = "error"   // there is no answer
)

// The reasons of a pending answer, from a closed set. Those of a refused one are reasons of package policy, faults of a dead letter, or
// ChildRefused.
const (
	Queued           = "queued"            // a request waits for its turn
	InWork           = "in_work"           // a signer has had the request
	Recording        = "recording"         // no request waits any more, and what became of it is on its way
	Retrying         = "retrying"          // the last attempt failed and will be repeated; detail says why
	SigningPaused    = "paused"            // an admin has paused signing
	Asked            = "asked"             // nobody had asked for it: that was done just now
	SignatureMissing = "signature_missing" // it was signed, the signature has vanished, and it was asked for again
	Children         = "waiting_for_children"
	ChildRefused     = "child_not_signed"
)

// Answer is what is known of an image. Times are UTC.
type Answer struct {
	Outcome Outcome `json:"-"`

	// Image is what was asked for, Digest what it names; empty if nothing.
	Image  string `json:"image"`
	Digest string `json:"digest"`
	// State is that of the report for the digest itself, such as signed, pending, failed, dead, skipped, blocked or unsigned; empty if the
	// ledger does not know it yet.
	State string `json:"state"`
	// Reason, from a closed set, and Detail, for people, say why it is not signed; empty if it is.
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	// WhatToDo is for people; empty if there is nothing to do.
	WhatToDo string `json:"what_to_do"`
	// Lane and Place are where the request waits; empty and null if none does.
	Lane  artifact.Lane `json:"lane"`
	Place *Place        `json:"place"`
	// Signatures are those that were found in the registry, at CheckedAt or later; empty and null unless the digest itself is signed.
	Signatures []artifact.Evidence `json:"signatures"`
	CheckedAt  *time.Time          `json:"checked_at"`
	// Children sums up the manifests below an index; null for an image, and as long as the index itself is not signed.
	Children *ChildrenSum `json:"children"`
}

// Place is where a request waits.
type Place struct {
	// AheadEstimate is how many requests of the lane were stored before and are not handed out yet. It is an estimate: projects take
	// turns, and what is tried again comes in between.
	AheadEstimate uint64 `json:"ahead_estimate"`
	// Since is when the request was stored.
	Since time.Time `json:"since"`
	// HandedOut says that a signer has had it.
	HandedOut bool `json:"handed_out"`
}

// ChildrenSum sums up the manifests below an index, those below its children included.
type ChildrenSum struct {
	Total  int `json:"total"`
	Signed int `json:"signed"`
	// Unsigned are the first of the others; never nil.
	Unsigned []Child `json:"unsigned"`
}

// Child is a manifest below an index that is not signed.
type Child struct {
	Digest string `json:"digest"`
	State  string `json:"state"`
	Reason string `json:"reason"`
}

// whatToDo says it for a reason for which a manifest is not signed.
func whatToDo(reason string) string {
	switch policy.Reason(reason) {
	case policy.NotEnabled:
		return "ask a project admin to enable signing for the project: PUT /api/v1/projects/{name}"
	case policy.Suspended:
		return "the project was made anew under this name: ask a project admin to enable signing for it again"
	case policy.Observed:
		return "the project is only observed: ask a project admin to set the policy's mode to sign"
	case policy.Blocked:
		return "ask a project admin, who can take the block away: DELETE /api/v1/projects/{name}/blocks/{digest}"
	case policy.Exempt:
		return "nothing, if the exemption is meant: it is in the project's policy, with who approved it"
	case policy.OutOfScope, policy.TagOutOfScope, policy.TagExcluded, policy.NoTag:
		return "push it to a repository and with a tag that the project's policy includes, or have the policy changed"
	case policy.NotBackfilled:
		return "it was pushed before signing was enabled: POST /api/v1/sign asks for it, or enable the project with a longer backfill"
	case policy.IsAccessory, policy.OwnPush:
		return "it belongs to another image, such as a signature: ask about that image"
	default:
	}
	switch fault.Reason(reason) {
	case fault.QuotaExceeded:
		return "make room in the Harbor project, then have the dead letter replayed: POST /api/v1/dead-letters/{id}/replay"
	case fault.UnsupportedManifest, fault.Malformed, fault.TooLarge, fault.TooManyChildren, fault.TooDeep:
		return "this manifest cannot be signed as it is: detail says why; push the image in another form"
	default:
		return "a project admin can have it tried again once the cause is gone: POST /api/v1/dead-letters/{id}/replay, or POST /api/v1/sign"
	}
}
