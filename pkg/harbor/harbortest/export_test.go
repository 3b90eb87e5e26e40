package harbortest

import "time"

// RetryGap is the wait after a failure, before scaling.
func RetryGap(fails int, random float64) time.Duration { return retryGap(fails, random) }

// QuotaRowsHeld is how many projects have a manifest PUT that holds their quota row.
func (h *Harbor) QuotaRowsHeld() int {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	held := 0
	for _, row := range h.faults.quotaRows {
		held += len(row)
	}
	return held
}
