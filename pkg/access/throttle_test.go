package access_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func guess(i int) http.Header { return basic("ann", fmt.Sprintf("guess %d", i)) }

// TestGuessesSlowDown makes wrong attempts as fast as is allowed.
func TestGuessesSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		for i := range 3 {
			if got := d.try(t, guess(i), here); got != "wrong" {
				t.Fatalf("attempt %d: %s, want wrong", i, got)
			}
		}
		for i, seconds := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
			wait := time.Duration(seconds) * time.Second
			asked := d.harbor.count("account")
			for range 3 { // what is refused counts for nothing
				if got := d.try(t, guess(i), here); got != "slow "+wait.String() {
					t.Fatalf("delay %d: %s, want %s", i, got, wait)
				}
			}
			time.Sleep(wait - time.Millisecond)
			if got := d.try(t, guess(i), here); got != "slow 1ms" {
				t.Fatalf("at the end of delay %d: %s, want 1ms more", i, got)
			}
			if got := d.harbor.count("account"); got != asked {
				t.Fatalf("Harbor was asked %d times during delay %d", got-asked, i)
			}
			time.Sleep(time.Millisecond)
			if got := d.try(t, guess(i), here); got != "wrong" {
				t.Fatalf("after delay %d: %s, want wrong", i, got)
			}
		}
	})
}

// TestDelayIsOfOneAccountAndAddress: others feel nothing of it, and neither does the account at another address.
func TestDelayIsOfOneAccountAndAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		for i := range 3 {
			d.try(t, guess(i), here)
		}
		tests := []struct {
			name, from string
			header     http.Header
			want       string
		}{
			{"the right password", here, basic("ann", "p"), "slow 1s"},
			{"another case of the name", here, basic(" ANN", "p"), "slow 1s"},
			{"with a port", here + ":1", basic("ann", "p"), "slow 1s"},
			{"as IPv6", "::ffff:" + here, basic("ann", "p"), "slow 1s"},
			{"another account", here, basic("dev", "p"), "in"},
			{"another address", there, basic("ann", "p"), "in"},
			{"remembered by now, and all the same", here, basic("ann", "p"), "slow 1s"},
		}
		for _, tt := range tests {
			if got := d.try(t, tt.header, tt.from); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
			}
		}
	})
}

// TestMemoryIsNoOracle: while the owner of an account is known, somebody at the same address finds out nothing faster.
func TestMemoryIsNoOracle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		d.enter(t, basic("ann", "p"))
		hold := make(chan struct{})
		d.harbor.set(func(f *fakeHarbor) { f.hold = hold })
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() { d.try(t, guess(i), here) })
		}
		synctest.Wait()
		if got := d.try(t, basic("ann", "p"), here); got != "slow 1s" {
			t.Errorf("the right one while three guesses are with Harbor: %s, want slow 1s", got)
		}
		close(hold)
		wg.Wait()
		if got := d.try(t, basic("ann", "p"), here); got != "slow 1s" {
			t.Errorf("the right one after three wrong guesses: %s, want slow 1s", got)
		}
	})
}

// TestManyAtOnceAreNoWayAround sends many guesses at the same moment.
func TestManyAtOnceAreNoWayAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		hold := make(chan struct{})
		d.harbor.set(func(f *fakeHarbor) { f.hold = hold })
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() { d.try(t, guess(i), here) })
		}
		synctest.Wait()
		close(hold)
		wg.Wait()
		if got := d.harbor.count("account"); got != 3 {
			t.Errorf("Harbor was asked about %d guesses, want 3", got)
		}
		d.harbor.set(func(f *fakeHarbor) { f.hold = nil })
		time.Sleep(time.Second)
		if got := d.try(t, guess(100), here); got != "wrong" {
			t.Errorf("after the delay: %s, want wrong", got)
		}
	})
}

// TestSuccessBeginsAnew for the account; TestAddressIsBounded shows that it does not for the address.
func TestSuccessBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		for round := range 10 {
			for i := range 2 {
				if got := d.try(t, guess(round*10+i), here); got != "wrong" {
					t.Fatalf("round %d: %s, want wrong", round, got)
				}
			}
			time.Sleep(time.Second)
			if got := d.try(t, basic("ann", "p"), here); got != "in" {
				t.Fatalf("round %d: %s, want in", round, got)
			}
			time.Sleep(59 * time.Second) // so that the right one is verified again
		}
	})
}

func TestAddressIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		d.enter(t, basic("dev", "p"))
		for i := range 30 {
			if got := d.try(t, basic(fmt.Sprintf("u%d", i), "x"), here); got != "wrong" {
				t.Fatalf("account %d: %s, want wrong", i, got)
			}
		}
		for _, header := range []http.Header{basic("u31", "x"), basic("ann", "p"), basic("dev", "p")} {
			if got := d.try(t, header, here); got != "slow 1s" {
				t.Errorf("from there: %s, want slow 1s", got)
			}
		}
		if got := d.try(t, basic("dev", "p"), there); got != "in" {
			t.Errorf("from another address: %s, want in", got)
		}
		time.Sleep(time.Second)
		if got := d.try(t, basic("ann", "p"), here); got != "in" {
			t.Errorf("after the delay: %s, want in", got)
		}
		if got := d.try(t, basic("u32", "x"), here); got != "wrong" {
			t.Errorf("a success of one account: %s, want wrong", got)
		}
		if got := d.try(t, basic("u33", "x"), here); got != "slow 2s" {
			t.Errorf("after it: %s, want that the address has not begun anew: slow 2s", got)
		}
	})
}

// TestNetworkIsOneAddress: whoever has one address of IPv6 has 2^64.
func TestNetworkIsOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		for i := range 3 {
			d.try(t, guess(i), fmt.Sprintf("[2001:db8::%d]:443", i))
		}
		for from, want := range map[string]string{"2001:db8::9": "slow 1s", "2001:db8:0:1::9": "in"} {
			if got := d.try(t, basic("ann", "p"), from); got != want {
				t.Errorf("%s: %s, want %s", from, got, want)
			}
		}
		for i := range 3 {
			d.try(t, guess(i), fmt.Sprintf("no address %d", i))
		}
		if got := d.try(t, basic("ann", "p"), ""); got != "slow 1s" {
			t.Errorf("no address: %s, want that these are one: slow 1s", got)
		}
	})
}

func TestWrongAttemptsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		for i := range 3 {
			d.try(t, guess(i), here)
		}
		time.Sleep(15*time.Minute + time.Second)
		for i := range 3 {
			if got := d.try(t, guess(i), here); got != "wrong" {
				t.Fatalf("attempt %d after a quarter of an hour: %s, want wrong", i, got)
			}
		}
	})
}

// TestIDTokensDoNotShareADelay: they end every few minutes, and somebody else's must not count.
func TestIDTokensDoNotShareADelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		d.harbor.set(func(f *fakeHarbor) { f.mode = "oidc_auth" })
		for range 3 {
			d.try(t, bearer("old.one"), here)
		}
		for token, want := range map[string]string{"old.one": "slow 1s", "e.y.J": "in"} {
			if got := d.try(t, bearer(token), here); got != want {
				t.Errorf("%s: %s, want %s", token, got, want)
			}
		}
		for i := range 30 {
			d.try(t, bearer(fmt.Sprintf("x.y.%d", i)), here)
		}
		if got := d.try(t, bearer("e.y.J"), here); !strings.HasPrefix(got, "slow") {
			t.Errorf("after thirty others: %s, want slow", got)
		}
	})
}

// TestNoMoreGuessesThanAllowed makes any sequence of guesses and pauses: within any minute of it Harbor is asked about one
// account from one address no more often than three times and the delays allow.
func TestNoMoreGuessesThanAllowed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		pauses := rapid.SliceOfN(rapid.IntRange(0, 3000), 1, 200).Draw(rt, "pauses in milliseconds")
		synctest.Test(t, func(t *testing.T) {
			d := open(t, "")
			began := time.Now()
			for i, pause := range pauses {
				time.Sleep(time.Duration(pause) * time.Millisecond)
				d.try(t, guess(i), here)
			}
			most, total := 3, time.Duration(0)
			for delay := time.Second; total+delay <= time.Since(began); delay *= 2 {
				most, total = most+1, total+delay
			}
			if got := d.harbor.count("account"); got > most {
				t.Errorf("%d guesses within %s, want at most %d", got, time.Since(began), most)
			}
		})
	})
}
