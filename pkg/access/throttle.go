package access

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// freeOfAccount and freeOfAddress are how many wrong attempts cost no delay: at one account from one address, and from
	// one address at all.
	freeOfAccount = 3
	freeOfAddress = 30
	firstDelay    = time.Second
	maxDelay      = 5 * time.Minute
	// forgetAfter is how long after the last wrong attempt all is forgotten.
	forgetAfter = 15 * time.Minute
	// maxOfAddress is how many attempts of one address are made at once.
	maxOfAddress = 8
	// maxGuessers bounds each table of a throttle, in entries.
	maxGuessers = 10_000
)

// outcome is how an attempt ended.
type outcome int

const (
	unknown outcome = iota // Harbor did not say
	right
	wrong
)

// guesser is the attempts of one (account, address), or of one address.
type guesser struct {
	wrong    int
	inFlight int
	last     time.Time // of the last wrong attempt
	until    time.Time // before it nothing is tried
}

// throttle slows guesses down. An attempt in flight counts as a wrong one until it has ended, so that many at once are no
// way around. It is safe for concurrent use.
type throttle struct {
	mu        sync.Mutex
	accounts  map[key]*guesser // guarded by mu
	addresses map[key]*guesser // guarded by mu
}

func newThrottle() *throttle {
	return &throttle{accounts: make(map[key]*guesser), addresses: make(map[key]*guesser)}
}

// check says whether an attempt would be refused at the moment, as a ThrottledError.
func (t *throttle) check(account, address key) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refuse(account, address, time.Now())
}

// begin is check, and takes part: the caller must call settle once the attempt has ended.
func (t *throttle) begin(account, address key) (settle func(outcome) (delay time.Duration), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if err := t.refuse(account, address, now); err != nil {
		return nil, err
	}
	if g := t.addresses[address]; g != nil && g.inFlight >= maxOfAddress {
		return nil, &ThrottledError{RetryAfter: firstDelay, Busy: true}
	}
	ofAccount, ofAddress := entry(t.accounts, account, now), entry(t.addresses, address, now)
	ofAccount.inFlight++
	ofAddress.inFlight++
	return func(o outcome) time.Duration {
		t.mu.Lock()
		defer t.mu.Unlock()
		now := time.Now()
		ofAccount.end(o, freeOfAccount, now)
		// An attacker with an account of their own must not be able to begin anew for all the others.
		if o == right {
			o = unknown
		}
		ofAddress.end(o, freeOfAddress, now)
		drop(t.accounts, account)
		drop(t.addresses, address)
		return max(ofAccount.until.Sub(now), ofAddress.until.Sub(now), 0)
	}, nil
}

// refuse is check for who holds mu.
func (t *throttle) refuse(account, address key, now time.Time) error {
	wait := max(t.accounts[account].wait(freeOfAccount, now), t.addresses[address].wait(freeOfAddress, now))
	if wait > 0 {
		return &ThrottledError{RetryAfter: wait}
	}
	return nil
}

// wait is how long nothing is tried.
func (g *guesser) wait(free int, now time.Time) time.Duration {
	switch {
	case g == nil || g.forgotten(now) || g.wrong+g.inFlight < free:
		return 0
	case now.Before(g.until):
		return g.until.Sub(now)
	case g.inFlight > 0:
		return firstDelay
	default:
		return 0
	}
}

func (g *guesser) forgotten(now time.Time) bool {
	return g.inFlight == 0 && now.Sub(g.last) > forgetAfter
}

// end counts an attempt that has ended.
func (g *guesser) end(o outcome, free int, now time.Time) {
	g.inFlight--
	switch o {
	case right:
		g.wrong, g.until = 0, time.Time{}
	case wrong:
		g.wrong++
		g.last = now
		if g.wrong >= free {
			// 2^9 s is more than maxDelay: shifting further would only overflow.
			g.until = now.Add(min(firstDelay<<min(g.wrong-free, 9), maxDelay))
		}
	case unknown:
	}
}

// drop deletes an entry that says nothing.
func drop(table map[key]*guesser, k key) {
	if g := table[k]; g != nil && g.wrong == 0 && g.inFlight == 0 {
		delete(table, k)
	}
}

// entry gives the entry of a key, made anew if there is none that counts. In a table that is full the one goes whose last
// wrong attempt is the longest ago.
func entry(table map[key]*guesser, k key, now time.Time) *guesser {
	if g := table[k]; g != nil {
		if g.forgotten(now) {
			*g = guesser{}
		}
		return g
	}
	if len(table) >= maxGuessers {
		var oldest key
		var least *guesser
		for k, g := range table {
			switch {
			case g.forgotten(now):
				delete(table, k)
			case g.inFlight == 0 && (least == nil || g.last.Before(least.last)):
				oldest, least = k, g
			}
		}
		if len(table) >= maxGuessers && least != nil {
			delete(table, oldest)
		}
	}
	g := &guesser{}
	table[k] = g
	return g
}

// addressOf gives what counts as one address: that of IPv4, the /64 of IPv6, because whoever has one address of it has all.
// What is no address is "unknown".
func addressOf(remote string) string {
	if both, err := netip.ParseAddrPort(remote); err == nil {
		remote = both.Addr().String()
	}
	address, err := netip.ParseAddr(remote)
	if err != nil {
		return "unknown"
	}
	address = address.Unmap().WithZone("")
	if address.Is4() {
		return address.String()
	}
	return netip.PrefixFrom(address, 64).Masked().String()
}
