package signing

import (
	"math/rand/v2"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

// Delays between attempts: they double from the first to the last, and vary so that what failed together does not come
// back together.
const (
	firstDelay = time.Second
	lastDelay  = 5 * time.Minute
	// longestRetryAfter is the most that another side can put an attempt off.
	longestRetryAfter = time.Hour
)

// leastPause is how long a request waits at most, at the beginning of a pause, before it asks whether that has ended.
const leastPause = 30 * time.Second

// permanentDebt is how long a debt waits that nothing but a change somewhere would get paid.
const permanentDebt = time.Hour

// leastAttempts is how often a request is tried at least, however old it is: it may have waited while no signer ran.
const leastAttempts = 10

// verdict is what becomes of a request whose attempt failed.
type verdict string

const (
	// retry gives the request back with a delay, until it is too old.
	retry verdict = "retry"
	// retryAlways is retry for a request that never becomes too old: what failed is not the digest's, and comes back.
	retryAlways verdict = "retry_always"
	// wait gives the request back and counts no failure: somebody wants it so.
	wait verdict = "wait"
	// dead puts the request into the dead letters.
	dead verdict = "dead"
)

// action is what a fault leads to, by its kind. A fault of the kind gone leads to what a transient one does: where something being
// gone is an outcome, no fault comes here.
type action struct {
	transient, permanent verdict
	// account says that the fault is the robot account's and not one digest's.
	account bool
}

// actions is the table of what follows from a fault, the only one: docs/operations.md has it for operators. What has no entry is
// treated as unknown; a test sees to it that each reason has one.
func actions() map[fault.Reason]action {
	var (
		// What passes by itself is repeated, and what does not is for people.
		usual = action{transient: retry, permanent: dead}
		// A robot account that is refused gets its right back, or Harbor's database answers again: Harbor refuses a good account too
		// while it does not, by a token for nobody.
		account = action{transient: retry, permanent: retry, account: true}
		// A log, or what else makes a signature better: then all that ask for it wait, however long it is away or not configured, and
		// are signed when it is back. See job.unproven for the reasons that others have, too.
		evidence = action{transient: retryAlways, permanent: dead}
		paused   = action{transient: wait, permanent: wait}
	)
	return map[fault.Reason]action{
		// Something between here and the answer.
		fault.Unknown:     usual,
		fault.Canceled:    usual,
		fault.Unreachable: usual,
		fault.Timeout:     usual,
		fault.Unavailable: usual,
		fault.RateLimited: usual,
		fault.BadAnswer:   usual,

		fault.Unauthorized: account,
		fault.Denied:       account,
		fault.PullPolicy:   account,

		// Harbor's word about this digest, this tag or this project.
		fault.Rejected:      usual,
		fault.QuotaExceeded: usual,
		fault.Immutable:     usual,
		fault.NotFound:      usual,
		fault.ForeignOrigin: usual,
		fault.BlobUnknown:   usual,

		// What was read or written.
		fault.TooLarge:            usual,
		fault.TooManyChildren:     usual,
		fault.TooDeep:             usual,
		fault.DigestMismatch:      usual,
		fault.Malformed:           usual,
		fault.NewerVersion:        usual,
		fault.UnsupportedManifest: usual,
		fault.UnsupportedFormat:   usual,
		fault.VerificationFailed:  usual,
		fault.ConcurrentWriter:    usual,

		// What this program needs.
		fault.PolicyUnreadable:   usual,
		fault.QueueFull:          usual,
		fault.QueueUnavailable:   usual,
		fault.KeyUnavailable:     usual,
		fault.StorageUnavailable: usual,

		fault.LogUnavailable:   evidence,
		fault.ProofInvalid:     evidence,
		fault.TimestampMissing: evidence,
		fault.IdentityMissing:  evidence,
		fault.Unverifiable:     evidence,
		fault.DependencyDown:   evidence,

		fault.Paused: paused,
		// Decided here, and nobody's word.
		fault.TooOld: usual,
	}
}

// failure is a fault with what is known of the attempt that met it.
type failure struct {
	fault fault.Error
	// recorded says that the outcome is in the ledger: what is left is the queue's, and a digest that is recorded as signed is not
	// given up.
	recorded bool
	// unproven says that the attempt ended where it asked for evidence.
	unproven bool
	// age is how long the request could have been worked on, and tries how often it was.
	age   time.Duration
	tries uint64
}

// actionOf gives the row of a reason.
func (s *Service) actionOf(reason fault.Reason) action {
	if a, found := s.actions[reason]; found {
		return a
	}
	return s.actions[fault.Unknown]
}

// judge says what becomes of a request, and gives the fault as it is told: one that has become too old says so, and one of the
// account is transient.
func (s *Service) judge(f failure) (verdict, fault.Error) {
	told := f.fault
	a := s.actionOf(told.Reason)
	v := a.transient
	if told.Kind == fault.Permanent && !f.recorded {
		v = a.permanent
	}
	if a.account || f.recorded {
		told.Kind = fault.Transient
	}
	if f.unproven && v == retry && told.Reason != fault.Rejected {
		v = retryAlways // what is refused in so many words may be about the digest after all
	}
	if v == retry && !f.recorded && f.age > s.cfg.MaxAge && f.tries >= leastAttempts {
		told.Reason = fault.TooOld
		return dead, told
	}
	return v, told
}

// judgeDebt is judge for a debt, which is never given up: it tells the delay, or that it waits for a pause to end.
func (s *Service) judgeDebt(f fault.Error, failures uint64) (verdict, time.Duration) {
	a := s.actionOf(f.Reason)
	switch {
	case a.transient == wait:
		return wait, pauseDelay(f)
	case f.Kind == fault.Permanent && !a.account:
		return retryAlways, permanentDebt - jitter(permanentDebt/4)
	default:
		return retryAlways, retryDelay(failures, f)
	}
}

// retryDelay is how long a request waits after so many failures: what the other side asked for, but at least an exponential delay
// with up to half of it taken off by chance.
func retryDelay(failures uint64, f fault.Error) time.Duration {
	exponential := lastDelay
	if doublings := max(failures, 1) - 1; doublings < 9 {
		exponential = min(firstDelay<<doublings, lastDelay)
	}
	return max(exponential-jitter(exponential/2), min(f.RetryAfter, longestRetryAfter))
}

// pauseDelay is how long a request waits before it looks whether the pause has ended.
func pauseDelay(f fault.Error) time.Duration {
	least := max(min(f.RetryAfter, longestRetryAfter), leastPause)
	return least - jitter(least/2)
}

// jitter gives a part of d by chance.
func jitter(d time.Duration) time.Duration {
	return rand.N(d) //nolint:gosec // spreads load, keeps no secret
}
