package scale

import (
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// Compare is how what was asked for is held against what is unsigned.
func Compare(requested map[string]bool, want []harbortest.SyntheticRef) Found {
	return compare(requested, want)
}

// SignedEvent is what the ledger is filled with.
func SignedEvent(a harbortest.SyntheticArtifact, key string, at time.Time) (artifact.Event, error) {
	return signedEvent(a, key, at)
}
