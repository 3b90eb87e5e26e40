package main

import (
	"context"
	"io"
	"os"

	"github.com/harborseal/harborseal/e2e/bench/compare"
	"github.com/harborseal/harborseal/e2e/bench/delivery"
	"github.com/harborseal/harborseal/e2e/bench/flood"
	"github.com/harborseal/harborseal/e2e/bench/footprint"
	"github.com/harborseal/harborseal/e2e/bench/logs"
	"github.com/harborseal/harborseal/e2e/bench/projects"
	"github.com/harborseal/harborseal/e2e/bench/reporting"
	"github.com/harborseal/harborseal/e2e/bench/scale"
	"github.com/harborseal/harborseal/e2e/harness"
)

const (
	partSigning   = "signing"
	partFootprint = "footprint"
	partSystem    = "system"
	partScale     = "scale"
	partLogs      = "logs"
	partReceiver  = "receiver"
	partSurge     = "surge"
	partRecovery  = "recovery"
	partQueue     = "queue"
	partFlood     = "flood"
	partProjects  = "projects"
	partReport    = "report"
)

func allParts() []string {
	return []string{
		partSigning, partFootprint, partSystem, partScale, partLogs, partReceiver, partSurge, partRecovery, partQueue, partFlood, partProjects,
		partReport,
	}
}

// measured is what a part has found out.
type measured interface {
	// Missed says whether a target was missed.
	Missed() bool
	// Print writes it for people.
	Print(out io.Writer) error
}

// setting is what the parts need.
type setting struct {
	options
	// dir is a folder for all that the programs write.
	dir      string
	harbor   *harness.Harbor // nil for the emulator
	progress io.Writer
}

// measure measures one part.
func (s setting) measure(ctx context.Context, part string) (measured, error) {
	of := delivery.Options{Dir: s.dir, Progress: s.progress, Quick: s.quick, Surge: s.surge}
	switch part {
	case partSigning:
		return compare.Run(ctx, compare.Options{
			Dir: s.dir, Harbor: s.harbor, Plan: s.plan(), Cosign: true, ProfileDir: s.profiles, Progress: s.progress,
		})
	case partFootprint:
		rows, err := footprint.Measure(ctx, s.dir, s.progress)
		return footprintRows(rows), err
	case partSystem:
		return measureSystem(ctx, s.slotsOfSystem, s.backlog, s.live, s.progress)
	case partScale:
		if s.quick {
			return scale.Run(ctx, scale.Quick(s.dir, s.progress))
		}
		return scale.Run(ctx, scale.Full(s.dir, s.progress))
	case partLogs:
		if s.quick {
			return logs.Run(ctx, logs.Quick(s.dir, s.progress))
		}
		return logs.Run(ctx, logs.Full(s.dir, s.debts, s.progress))
	case partReceiver:
		return delivery.Receiver(ctx, of)
	case partSurge:
		return delivery.Surge(ctx, of)
	case partRecovery:
		return delivery.Recovery(ctx, of)
	case partQueue:
		return delivery.Queue(ctx, of)
	case partFlood:
		return flood.Run(ctx, flood.Options{Dir: s.dir, Progress: s.progress, Quick: s.quick})
	case partReport:
		return reporting.Run(ctx, reporting.Options{Dir: s.dir, Progress: s.progress, Quick: s.quick, Digests: s.digests()})
	default:
		return projects.Run(ctx, projects.Options{Dir: s.dir, Progress: s.progress, Quick: s.quick})
	}
}

// digests is how many rows the report has.
func (s setting) digests() int {
	switch {
	case s.quick:
		return 5_000
	case os.Getenv("SCALE") == "full":
		return 10_000_000
	default:
		return 1_000_000
	}
}

// plan is that of signing.
func (s setting) plan() compare.Plan {
	switch {
	case s.quick:
		return compare.Quick()
	case s.harbor != nil:
		return compare.Real(s.count)
	default:
		return compare.Full(s.count)
	}
}

// footprintRows are measured, and have no target.
type footprintRows []footprint.Row

// Missed implements measured.
func (footprintRows) Missed() bool { return false }

// Print implements measured.
func (r footprintRows) Print(out io.Writer) error { return footprint.Print(out, r) }
