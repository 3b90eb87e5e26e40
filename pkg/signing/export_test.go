package signing

import (
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

// Recent lets the tests see a memory's bounds.
type Recent[K comparable, V any] = recent[K, V]

// NewRecent gives a memory of this size.
func NewRecent[K comparable, V any](size int) *Recent[K, V] { return &Recent[K, V]{size: size} }

// Len is how much it remembers.
func (r *recent[K, V]) Len() int { return len(r.new) + len(r.old) }

// Put is put.
func (r *recent[K, V]) Put(key K, value V) { r.put(key, value) }

// Get is get.
func (r *recent[K, V]) Get(key K) (V, bool) { return r.get(key) }

// Failure is what a verdict is about.
type Failure struct {
	Fault              fault.Error
	Recorded, Unproven bool
	Age                time.Duration
	Tries              uint64
}

// Judge says what becomes of a request, and the fault as it is told.
func (s *Service) Judge(f Failure) (verdict string, told fault.Error) {
	v, told := s.judge(failure{fault: f.Fault, recorded: f.Recorded, unproven: f.Unproven, age: f.Age, tries: f.Tries})
	return string(v), told
}

// JudgeDebt says what becomes of a debt, and after which delay.
func (s *Service) JudgeDebt(f fault.Error, failures uint64) (verdict string, delay time.Duration) {
	v, delay := s.judgeDebt(f, failures)
	return string(v), delay
}

// HasAction says whether the table has an entry for a reason of its own.
func HasAction(reason fault.Reason) bool {
	_, found := actions()[reason]
	return found
}

// Actions is how many entries the table has.
func Actions() int { return len(actions()) }

// RetryDelay and PauseDelay are the delays.
func RetryDelay(failures uint64, f fault.Error) time.Duration { return retryDelay(failures, f) }

// PauseDelay is the delay of a request that waits.
func PauseDelay(f fault.Error) time.Duration { return pauseDelay(f) }
