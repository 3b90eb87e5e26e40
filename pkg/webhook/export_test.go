package webhook

import (
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// MaxBudgets is how many budgets are kept.
const MaxBudgets = maxBudgets

// Budgets are the budgets alone.
type Budgets struct{ b *budgets }

// NewBudgets makes them.
func NewBudgets(fallback policy.Rate) Budgets { return Budgets{newBudgets(fallback)} }

// Lane takes one push.
func (b Budgets) Lane(project string, budget policy.Rate, now time.Time) artifact.Lane {
	return b.b.lane(project, budget, now)
}

// Len counts the projects that are kept.
func (b Budgets) Len() int { return len(b.b.projects) }

// MaxStrangers is how many secrets are looked at at once.
const MaxStrangers = maxStrangers

// InHand is how many deliveries are in hand, and how many wait for that.
func InHand(h *Handler) (places, waiting int) { return h.inHand.counts() }

// SetPatience sets how long a delivery waits to be taken in hand.
func SetPatience(h *Handler, d time.Duration) { h.inHand.patience = d }

// QueueShut says whether pushes are refused without asking the queue.
func QueueShut(h *Handler) bool { return h.door.gate.isShut() }
