package artifact_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/artifact/artifacttest"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

// TestHistoriesConform: whatever stands in the free text of an event, and in its numbers and times, the schema takes it. Histories
// leave out what every program writes, and draw any text where programs choose from a set: that is made whole first.
func TestHistoriesConform(t *testing.T) {
	t.Parallel()
	s := artifacttest.Open(t)
	kinds := constants(t, "Kind")
	rapid.Check(t, func(rt *rapid.T) {
		for _, entry := range ledgertest.Histories().Draw(rt, "history") {
			e := entry.Event
			if e.Kind == "" {
				continue // what stands there cannot be read
			}
			known := slices.Contains(kinds, string(e.Kind))
			if known {
				e = whole(e, example(t, e.Kind))
			}
			data, err := artifact.EncodeEvent(e)
			if err != nil {
				continue // no program can record it: a side of a change that is no JSON, a manifest in an event of the future
			}
			if err := s.CheckCurrent(data); (err == nil) != known {
				rt.Fatalf("an event of kind %s, known %t: %v", e.Kind, known, err)
			}
		}
	})
}

// whole puts what an event lacks, or what no program chooses, in the place of what was drawn.
func whole(e, good artifact.Event) artifact.Event {
	for _, text := range []struct {
		have *string
		want string
	}{{&e.Reason, good.Reason}, {&e.Detail, good.Detail}, {&e.Parent, good.Parent}, {&e.Pusher, good.Pusher}, {&e.KeyID, good.KeyID}} {
		if *text.have == "" {
			*text.have = text.want
		}
	}
	if good.Project != "" && e.Project == "" {
		e.Project = good.Project
	}
	if good.PushedAt != nil && e.PushedAt == nil {
		e.PushedAt = good.PushedAt
	}
	if e.Kind == artifact.Removed {
		e.Unsigned, e.Signatures = true, good.Signatures
	}
	if good.Change != nil && e.Change == nil {
		e.Change = good.Change
	}
	if e.Report != nil {
		e.Report.Format, e.Report.SHA256 = good.Report.Format, good.Report.SHA256
	}
	if e.Key != nil {
		e.Key.State, e.Key.Use = good.Key.State, good.Key.Use
		e.Key.ID += "k"
	}
	e.Key, e.Report, e.Sweep, e.Outage = or(e.Key, good.Key), or(e.Report, good.Report), or(e.Sweep, good.Sweep), or(e.Outage, good.Outage)
	e.Checkpoint, e.Epoch = or(e.Checkpoint, good.Checkpoint), or(e.Epoch, good.Epoch)
	if e.Outage != nil && e.Reason == "" {
		e.Reason = e.Outage.Cause + "x"
	}
	return e
}

func or[T any](have, fallback *T) *T {
	if have == nil {
		return fallback
	}
	return have
}
