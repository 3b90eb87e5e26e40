// Package machine reads of the system what processes use. It works on Linux alone.
package machine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// PeakRSS is the most memory that was ever resident for a process, in bytes.
func PeakRSS(pid int) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the peak of memory: %w", err)
	}
	// SPEC: proc_pid_status(5): VmHWM is the peak resident set size, in kB.
	for line := range strings.Lines(string(raw)) {
		if value, found := strings.CutPrefix(line, "VmHWM:"); found {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("reading the peak of memory: %w", err)
			}
			return kilobytes << 10, nil
		}
	}
	return 0, fmt.Errorf("reading the peak of memory: /proc/%d/status has no VmHWM", pid)
}
