package contender

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
)

// profile writes profiles until stop is called: one of CPU time, and at the end one of all allocations so far beside it, in
// a file with ".allocs" behind its name.
func profile(path string) (stop func() error, err error) {
	cpu, err := os.Create(path) //nolint:gosec // whoever measures names the file
	if err != nil {
		return nil, fmt.Errorf("profiling: %w", err)
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, errors.Join(fmt.Errorf("profiling: %w", err), cpu.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		allocations, err := os.Create(path + ".allocs") //nolint:gosec // as above
		if err != nil {
			return errors.Join(fmt.Errorf("profiling: %w", err), cpu.Close())
		}
		return errors.Join(cpu.Close(), pprof.Lookup("allocs").WriteTo(allocations, 0), allocations.Close())
	}, nil
}
