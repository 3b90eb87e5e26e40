package api

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/notary"
	"github.com/harborseal/harborseal/pkg/problem"
)

// merkle is the tamper evidence of the ledger, from memory. It is safe for concurrent use.
type merkle interface {
	Summary() notary.Summary
	Keys() *notary.Keys
}

// ledgerAnswer is the body of GET /api/v1/ledger.
type ledgerAnswer struct {
	// VerifierKeys are those whose notes count, the present one first.
	VerifierKeys []string `json:"verifier_keys"`
	// Origin, Epoch, Size, LastSeq, Checkpoint and CheckpointAt are those of the newest verified checkpoint; Checkpoint is empty and
	// CheckpointAt null before there is one.
	Origin       string     `json:"origin"`
	Epoch        uint64     `json:"epoch"`
	Size         uint64     `json:"size"`
	LastSeq      uint64     `json:"last_seq"`
	Checkpoint   string     `json:"checkpoint"`
	CheckpointAt *time.Time `json:"checkpoint_at"`
	// VerifiedAt is when this receiver last compared the whole ledger with its checkpoints; null if it has not since it started.
	VerifiedAt *time.Time       `json:"verified_at"`
	Epochs     []notary.Epoch   `json:"epochs"`
	Findings   []notary.Finding `json:"findings"`
	// Halted says that no checkpoints are made, because the ledger does not fit the last.
	Halted bool `json:"halted"`
}

// getLedger answers with what a verifier of the ledger needs.
func (a *API) getLedger(c *gin.Context) {
	if a.cfg.Merkle == nil {
		problem.Abort(c, problem.Document{
			Status: http.StatusNotFound, Detail: "the ledger has no checkpoints: the configuration names no ledger key (ledger.checkpoint.key_file)",
		})
		return
	}
	s := a.cfg.Merkle.Summary()
	answer := ledgerAnswer{
		VerifierKeys: a.cfg.Merkle.Keys().Texts(), Origin: s.Origin, Epoch: s.Epoch, Size: s.Size, LastSeq: s.LastSeq,
		Checkpoint: s.Checkpoint, CheckpointAt: known(s.At), VerifiedAt: known(s.VerifiedAt),
		Epochs: append([]notary.Epoch{}, s.Epochs...), Findings: append([]notary.Finding{}, s.Findings...), Halted: s.Halted,
	}
	a.answer(c, http.StatusOK, answer)
}

// known is nil for a time that nobody knows.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
