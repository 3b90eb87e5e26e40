package queue_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/queue"
)

// What passes by itself is waited for; what does not ends the start with its reason.
func TestNotReady(t *testing.T) {
	t.Parallel()
	api := func(code int, number jetstream.ErrorCode) error {
		return fmt.Errorf("asking: %w", &jetstream.APIError{Code: code, ErrorCode: number, Description: "made up"})
	}
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"no leader", api(503, 10008), true},
		{"nodes do not know each other yet", api(400, 10005), true},
		{"the store is full", api(503, 10023), true},
		{"nothing may be stored", api(500, 10047), true},
		{"the account is full", api(400, 10002), true},
		{"somebody made it meanwhile", api(400, jetstream.JSErrCodeStreamNameInUse), true},
		{"no answer", context.DeadlineExceeded, true},
		{"no connection", nats.ErrDisconnected, true},
		{"a setting that the server refuses", api(400, 10052), false},
		{"no right", nats.ErrAuthorization, false},
		{"anything else", errors.New("made up"), false},
	} {
		if got := queue.NotReady(tt.err); got != tt.want {
			t.Errorf("%s: it may pass: %t, want %t", tt.name, got, tt.want)
		}
	}
}
