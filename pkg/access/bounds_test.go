package access_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/access"
)

// TestMemoryIsBounded asks about more repositories than are remembered, as one robot could for ever.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		c := d.enter(t, basic("robot$demo+ci", "r"))
		ask := func(from, to int) {
			t.Helper()
			for i := from; i < to; i++ {
				if _, err := d.CanPull(t.Context(), c, fmt.Sprintf("demo/r%d", i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		ask(0, 10_100)
		if got, _ := d.Sizes(); got != 10_000 {
			t.Errorf("%d answers are remembered, want 10000", got)
		}
		time.Sleep(time.Minute)
		ask(20_000, 20_001)
		if got, _ := d.Sizes(); got != 1 {
			t.Errorf("%d answers are remembered after a minute, want the newest", got)
		}
	})
}

// TestGuessersAreBounded guesses from more addresses than are remembered. Who guessed last is not forgotten.
func TestGuessersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		from := func(i int) string { return fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255) }
		for i := range 10_100 {
			time.Sleep(time.Millisecond)
			d.try(t, guess(i), from(i))
		}
		if _, got := d.Sizes(); got != 10_000 {
			t.Errorf("%d guessers are remembered, want 10000", got)
		}
		last := from(10_099)
		for i := range 2 {
			d.try(t, guess(i), last)
		}
		for i := range 50 {
			d.try(t, guess(i), from(30_000+i))
		}
		if got := d.try(t, guess(3), last); got != "slow 1s" {
			t.Errorf("who guessed three times a moment ago: %s, want slow 1s", got)
		}
		time.Sleep(16 * time.Minute)
		d.try(t, guess(4), from(20_000))
		if _, got := d.Sizes(); got != 1 {
			t.Errorf("%d guessers are remembered after a quarter of an hour, want one", got)
		}
		if got := d.try(t, basic("ann", "p"), last); got != "in" {
			t.Errorf("after a quarter of an hour: %s, want in", got)
		}
	})
}

// TestRightLeavesNothing: who logs in without a mistake is nobody to remember.
func TestRightLeavesNothing(t *testing.T) {
	d := open(t, "")
	d.enter(t, basic("ann", "p"))
	if _, err := d.Authenticate(t.Context(), nil, here); err == nil {
		t.Error("nothing was let in")
	}
	if _, got := d.Sizes(); got != 0 {
		t.Errorf("%d guessers are remembered, want none", got)
	}
	var zero access.Caller
	if d.Harbor(zero) != "" {
		t.Error("nobody has credentials")
	}
}
