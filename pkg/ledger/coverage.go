package ledger

import (
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Coverage says how far a project is signed, in digests of its repositories, as the ledger knows it. Accessories (signatures,
// attestations, SBOMs) and what is gone are not counted.
type Coverage struct {
	// Population is the sum of what follows.
	Population int `json:"population"`
	Signed     int `json:"signed"`
	Pending    int `json:"pending"`
	// Failed are those whose last attempt failed, and those that were given up.
	Failed int `json:"failed"`
	// Excluded are those that the policy leaves out, exempt ones included.
	Excluded int `json:"excluded"`
	Blocked  int `json:"blocked"`
	// Unsigned are those that nobody was asked to sign, because the policy only observes or their signature was removed.
	Unsigned int `json:"unsigned"`
	// OldestUnsignedAt is when the ledger first heard of the oldest one that is pending, failed or unsigned; null if none is.
	OldestUnsignedAt *time.Time `json:"oldest_unsigned_at"`
	// LogDebt are those of the signed for which an entry of a transparency log is owed, and OldestLogDebtAt is since when the oldest of
	// them is; null if none is.
	LogDebt         int        `json:"log_debt"`
	OldestLogDebtAt *time.Time `json:"oldest_log_debt_at"`
	// LastSweep is null before the first full sweep.
	LastSweep *SweepRow `json:"last_sweep"`
}

// SweepRow is what a full sweep found, and when it ended.
type SweepRow struct {
	FinishedAt time.Time `json:"finished_at"`
	artifact.Sweep
}

// Count adds digests of one state. The oldest is when the ledger first heard of the oldest of them.
func (c *Coverage) Count(state State, digests int, oldest time.Time) {
	if digests == 0 {
		return
	}
	missing := false
	switch state {
	case Signed:
		c.Signed += digests
	case Pending:
		c.Pending += digests
		missing = true
	case Failed, Dead:
		c.Failed += digests
		missing = true
	case Unsigned:
		c.Unsigned += digests
		missing = true
	case Blocked:
		c.Blocked += digests
	case Skipped:
		c.Excluded += digests
	default: // Gone, and what newer rules may know
		return
	}
	c.Population += digests
	if missing && (c.OldestUnsignedAt == nil || oldest.Before(*c.OldestUnsignedAt)) {
		c.OldestUnsignedAt = &oldest
	}
}

// Owe adds digests for which an entry is owed, the oldest of them since that time.
func (c *Coverage) Owe(digests int, oldest time.Time) {
	if digests == 0 {
		return
	}
	c.LogDebt += digests
	if c.OldestLogDebtAt == nil || oldest.Before(*c.OldestLogDebtAt) {
		c.OldestLogDebtAt = &oldest
	}
}

// Swept takes the summary of the last sweep from its event.
func (c *Coverage) Swept(e ProjectEvent) {
	if e.Sweep != nil {
		c.LastSweep = &SweepRow{FinishedAt: e.At, Sweep: *e.Sweep}
	}
}

// AccessoryReasons are the reasons for which a digest is skipped that belongs to another one: a signer has read the manifest.
// Who pushed it, or under which tag, is no proof.
func AccessoryReasons() []policy.Reason { return []policy.Reason{policy.IsAccessory} }

// Accessory says whether the digest belongs to another one, and is none of those that are to be signed.
func (r *Record) Accessory() bool {
	if r.State() != Skipped {
		return false
	}
	for _, reason := range AccessoryReasons() {
		if r.Reason == string(reason) {
			return true
		}
	}
	return false
}

// Listed says whether a sweep should find the digest in Harbor's listing: it is not gone, and no accessory.
func (r *Record) Listed() bool { return r.State() != Gone && !r.Accessory() }

// Known gives what a sweep may rely on.
func (r *Record) Known() artifact.Known {
	known := artifact.Known{Ref: r.Ref, State: string(r.State()), KeySet: r.KeySet}
	known.Signatures = append(known.Signatures, r.Evidence()...)
	known.Accessories = append(known.Accessories, r.Accessories...)
	if r.State() != Signed {
		known.Reason = r.Reason
	}
	return known
}

// UnitFilter is a question for the digests of a project as stores take it: checked, with everything filled in.
type UnitFilter struct {
	Project string
	// After is the digest after which the page begins; zero for the first page.
	After artifact.Ref
	Limit int
}

// NewUnitFilter checks what a listing of digests is asked for: after is empty or what the page before gave as its next one;
// a limit of 0 means [DefaultLimit]. The error is an [*InvalidQueryError].
func NewUnitFilter(project, after string, limit int) (UnitFilter, error) {
	if artifact.ValidateProject(project) != nil {
		return UnitFilter{}, invalid("project", wantProject)
	}
	limit, err := pageLimit(limit)
	if err != nil {
		return UnitFilter{}, err
	}
	f := UnitFilter{Project: project, Limit: limit}
	if after == "" {
		return f, nil
	}
	f.After, err = artifact.ParseRef(after)
	if err != nil || f.After.Project() != project {
		return UnitFilter{}, invalid("after", "want what the page before gave as its next one, of the same project")
	}
	return f, nil
}
