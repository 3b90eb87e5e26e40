package api

import (
	"context"
	"math"
	"time"

	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// rateOver is the time over which the rate of signing anew is measured.
const rateOver = 10 * time.Minute

// rotationAnswer says how far a change of keys has come.
type rotationAnswer struct {
	// Retired is how many signed digests no active key had signed when the last full sweep ended, at AsOf; null before it.
	Retired *int       `json:"retired"`
	AsOf    *time.Time `json:"as_of"`
	// Resign says whether the policy asks for signing them anew. What follows is null unless it does, and if it is not known
	// which key signs the project.
	Resign bool `json:"resign_on_rotation"`
	// Left is how many digests have signatures of one other key alone, as the ledger knows them now.
	Left *int `json:"left"`
	// PerMinute is the rate of the last 10 minutes, of digests that were known before.
	PerMinute *float64 `json:"per_minute"`
	// ETASeconds is how long the rest takes at that rate; null while nothing is signed anew.
	ETASeconds *int64 `json:"eta_seconds"`
}

func (a *API) rotation(ctx context.Context, view enroll.View, last *ledger.SweepRow) (rotationAnswer, error) {
	var r rotationAnswer
	if last != nil {
		r.Retired, r.AsOf = &last.Retired, &last.FinishedAt
	}
	if !view.Enabled || view.Policy == nil || !view.Policy.ResignOnRotation {
		return r, nil
	}
	r.Resign = true
	key, known := a.signingKey(view.Policy.Key)
	if !known || a.cfg.Rotations == nil {
		return r, nil
	}
	left, done, err := a.cfg.Rotations.Resigned(ctx, view.Project, []string{key}, time.Now().Add(-rateOver))
	if err != nil {
		return rotationAnswer{}, err
	}
	rate := float64(done) / rateOver.Minutes()
	r.Left, r.PerMinute = &left, &rate
	switch eta := int64(0); {
	case left == 0:
		r.ETASeconds = &eta
	case done > 0:
		eta = int64(math.Ceil(float64(left) / float64(done) * rateOver.Seconds()))
		r.ETASeconds = &eta
	}
	return r, nil
}

// signingKey gives the id of the active key that a policy names. Where it names none, that of the signer's configuration
// signs: it is known here if there is only one.
func (a *API) signingKey(name string) (id string, known bool) {
	for _, key := range a.active {
		if name == key.Name || name == "" && len(a.active) == 1 {
			return key.ID, true
		}
	}
	return "", false
}
