package queue_test

import (
	"context"
	"errors"
	"testing"

	"github.com/harborseal/harborseal/pkg/queue"
)

func TestStoreMustFitIntoItsVolume(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	tests := []struct {
		name    string
		store   int64
		volume  int64
		err     error
		wantErr []string
	}{
		{"fits", 800 * mib, 1000 * mib, nil, nil},
		{"too large", 801 * mib, 1000 * mib, nil, []string{"max_store is 839909376 bytes", "has 1048576000", "at most 838860800 (80 %)"}},
		{"larger than the volume", 2000 * mib, 1000 * mib, nil, []string{"max_store", "larger volume"}},
		{"left to the server", 0, 1, nil, nil},
		{"size is not told", 100 * mib, 0, nil, nil},
		{"no answer", 100 * mib, 0, errors.New("a fault of the day"), []string{"size of the volume", "a fault of the day"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := queue.OnVolume(queue.ServerConfig{StoreDir: t.TempDir(), MaxStore: tt.store}, tt.volume, tt.err)
			server, err := queue.StartServer(t.Context(), cfg)
			if err == nil {
				if err := server.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
			}
			if len(tt.wantErr) == 0 && err != nil {
				t.Errorf("StartServer = %v, want it to start", err)
			}
			for _, want := range tt.wantErr {
				wantErrorWith(t, err, want)
			}
		})
	}
}

// The system is really asked.
func TestStoreBeyondAnyVolume(t *testing.T) {
	t.Parallel()
	server, err := queue.StartServer(t.Context(), queue.ServerConfig{StoreDir: t.TempDir(), MaxStore: 1 << 60})
	if err == nil {
		_ = server.Shutdown(context.Background())
	}
	wantErrorWith(t, err, "max_store is 1152921504606846976 bytes")
}
