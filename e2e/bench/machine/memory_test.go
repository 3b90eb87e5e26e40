package machine_test

import (
	"os"
	"testing"

	"github.com/harborseal/harborseal/e2e/bench/machine"
)

func TestPeakRSS(t *testing.T) {
	t.Parallel()
	const least = 1 << 20
	if peak, err := machine.PeakRSS(os.Getpid()); err != nil || peak < least {
		t.Errorf("the peak of this process is %d, %v; want at least %d", peak, err, least)
	}
	if _, err := machine.PeakRSS(-1); err == nil {
		t.Error("the peak of no process: got no error")
	}
}
