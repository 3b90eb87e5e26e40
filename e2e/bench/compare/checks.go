package compare

import "fmt"

const (
	leastRatio     = 0.9
	mostCPU        = 1.0 // milliseconds
	warmRequests   = 5
	coldRequests   = 7
	bundleRequests = 6
	readBack       = 1
	growthFraction = 0.10
	growthBytes    = 8 << 20
	checkedLevel   = 32
)

// Missed says whether a target was missed.
func (t *Table) Missed() bool { return t.Checks.Missed() }

// Judge compares what was measured of the engine, its legacy signatures above all, with the targets. Times and memory are
// left out if they were not measured well enough.
func (t *Table) Judge(timed bool) {
	row := t.row(engine, legacy)
	add := t.Checks.Add
	if counted := row.Requests; counted != nil {
		warm, cold := total(counted.Warm), total(counted.Cold, "token")
		add("requests to sign and to read back, warm", fmt.Sprintf("%d + %d", warmRequests, readBack), warm == warmRequests+readBack, "%g", warm)
		add("the first in a repository, besides its token", fmt.Sprintf("%d + %d", coldRequests, readBack), cold == coldRequests+readBack, "%g", cold)
	}
	if counted := t.row(engine, bundle).Requests; counted != nil {
		warm := total(counted.Warm)
		add("bundle: requests to sign and to read back, warm", fmt.Sprintf("at most %d + %d", bundleRequests, readBack), warm <= bundleRequests+readBack, "%g", warm)
	}
	if !timed {
		return
	}
	if level := row.level(checkedLevel); level != nil {
		add(fmt.Sprintf("rate, to the bare loop's, %d in flight", checkedLevel), fmt.Sprintf("at least %.2f", leastRatio), level.Ratio >= leastRatio, "%.3f", level.Ratio)
		add(fmt.Sprintf("CPU of a signature, %d in flight", checkedLevel), fmt.Sprintf("at most %.0f ms", mostCPU), level.CPU <= mostCPU, "%.3f ms", level.CPU)
	}
	if m := t.Memory; m != nil {
		most := m.First + max(growthBytes, int64(float64(m.First)*growthFraction))
		add(fmt.Sprintf("peak RSS after %d signatures", m.Signatures),
			fmt.Sprintf("at most %.1f MiB: 10%% or 8 MiB more than the %.1f after %d", mebibytes(most), mebibytes(m.First), m.FirstSignatures),
			m.Last <= most, "%.1f MiB", mebibytes(m.Last))
	}
}

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }
