package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

func TestOf(t *testing.T) {
	base := errors.New("base")
	tests := []struct {
		name  string
		err   error
		kind  fault.Kind
		why   fault.Reason
		after time.Duration
	}{
		{"plain error", base, fault.Transient, fault.Unknown, 0},
		{"cancelled", fmt.Errorf("asking: %w", context.Canceled), fault.Transient, fault.Canceled, 0},
		{"deadline", fmt.Errorf("asking: %w", context.DeadlineExceeded), fault.Transient, fault.Timeout, 0},
		{"permanent", fault.New(fault.Permanent, fault.Denied, base), fault.Permanent, fault.Denied, 0},
		{"wrapped", fmt.Errorf("pushing: %w", fault.New(fault.Gone, fault.NotFound, base)), fault.Gone, fault.NotFound, 0},
		{"with delay", fmt.Errorf("pushing: %w", fault.After(7*time.Second, fault.RateLimited, base)), fault.Transient, fault.RateLimited, 7 * time.Second},
		{
			"the outermost decides",
			fault.New(fault.Permanent, fault.TooOld, fault.New(fault.Transient, fault.Timeout, base)),
			fault.Permanent, fault.TooOld, 0,
		},
		{"a fault around a cancelled context", fault.New(fault.Permanent, fault.TooOld, context.Canceled), fault.Permanent, fault.TooOld, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := fault.Of(tt.err)
			if got.Kind != tt.kind || got.Reason != tt.why || got.RetryAfter != tt.after {
				t.Errorf("Of(%v) = %s, %s, %s; want %s, %s, %s", tt.err, got.Kind, got.Reason, got.RetryAfter, tt.kind, tt.why, tt.after)
			}
			if !fault.Is(tt.err, tt.kind) {
				t.Errorf("Is(%v, %s) = false, want true", tt.err, tt.kind)
			}
		})
	}
}

func TestErrorKeepsTheChain(t *testing.T) {
	base := errors.New("base")
	err := fault.Newf(fault.Permanent, fault.Denied, "pushing: %w", base)
	if !errors.Is(err, base) {
		t.Errorf("errors.Is(%v, base) = false, want true", err)
	}
	if got, want := err.Error(), "pushing: base"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	if fault.Is(nil, fault.Transient) {
		t.Error("Is(nil, Transient) = true, want false")
	}
}
