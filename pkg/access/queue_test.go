package access_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/access"
)

// TestOneCallerLeavesRoomForOthers has an account without any role ask for many names at once, on a Harbor that takes its time.
func TestOneCallerLeavesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		out, dev := d.enter(t, basic("out", "p")), d.enter(t, basic("dev", "p"))
		slow := make(chan struct{})
		d.harbor.set(func(f *fakeHarbor) { f.slow = slow })
		var wg sync.WaitGroup
		outcomes := make(chan error, 40)
		began := time.Now()
		for i := range 40 {
			wg.Go(func() {
				_, err := d.Can(t.Context(), out, access.Read, fmt.Sprintf("guess%d", i))
				outcomes <- err
			})
		}
		synctest.Wait()
		if got := d.harbor.count("role"); got != 4 {
			t.Errorf("Harbor is asked %d questions about one caller at once, want 4", got)
		}
		if got := len(outcomes); got != 24 {
			t.Errorf("%d of 40 were refused at once, want 24: 4 ask and 12 wait", got)
		}
		if may, err := d.Can(t.Context(), dev, access.Read, "demo"); err != nil || !may {
			t.Errorf("a member of demo meanwhile: %t, %v; want true", may, err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("the member waited %s, want not at all", took)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := len(outcomes); got != 36 {
			t.Errorf("%d were refused after a second, want 36", got)
		}
		close(slow)
		wg.Wait()
		close(outcomes)
		refused := 0
		for err := range outcomes {
			if busy, ok := errors.AsType[*access.ThrottledError](err); ok {
				refused++
				if busy.RetryAfter != time.Second || !busy.Busy || strings.Contains(busy.Error(), "log in") {
					t.Errorf("refused with %+v %q, want it to say that the rights are what is waited for", busy, busy)
				}
			} else if err != nil {
				t.Errorf("Can: %v", err)
			}
		}
		if refused != 36 {
			t.Errorf("%d were refused, want 36", refused)
		}
		if got := d.Waiting(); got != 0 {
			t.Errorf("%d callers are still waited for, want none", got)
		}
	})
}

// TestAMomentIsWaited: more questions than a caller's share are answered one after the other, if that does not take long.
func TestAMomentIsWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		out := d.enter(t, basic("out", "p"))
		slow := make(chan struct{})
		d.harbor.set(func(f *fakeHarbor) { f.slow = slow })
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				if _, err := d.Can(t.Context(), out, access.Read, fmt.Sprintf("guess%d", i)); err != nil {
					t.Errorf("Can: %v", err)
				}
			})
		}
		time.Sleep(999 * time.Millisecond)
		close(slow)
		wg.Wait()
	})
}
