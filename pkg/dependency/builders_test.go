package dependency_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/fault"
)

func TestHarborRobot(t *testing.T) {
	t.Parallel()
	end := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	broken := errors.New("no answer")
	for _, tt := range []struct {
		name     string
		answered time.Time
		err      error
		want     time.Time
		fails    bool
	}{
		{name: "it expires", answered: end, want: end},
		{name: "it never does"},
		{name: "it may not ask", err: &fault.Error{Kind: fault.Permanent, Reason: fault.Denied, Err: broken}},
		{name: "it is no robot account", err: &fault.Error{Kind: fault.Gone, Err: broken}},
		{name: "Harbor does not answer", err: &fault.Error{Kind: fault.Transient, Err: broken}, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			robot := dependency.HarborRobot(func(context.Context) (time.Time, error) { return tt.answered, tt.err })
			got, err := robot.Expires(t.Context())
			if !got.Equal(tt.want) || (err != nil) != tt.fails {
				t.Errorf("it expires at %s (%v), want %s, an error: %t", got, err, tt.want, tt.fails)
			}
		})
	}
}
