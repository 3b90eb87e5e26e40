package queue_test

import (
	"context"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

func TestEnqueueFindsDuplicates(t *testing.T) {
	t.Parallel()
	r := request(ref(t, "my.project/team/app", 1), artifact.Live)
	tests := []struct {
		name string
		// act is what happens to the earlier request; nil leaves it waiting.
		act           func(ctx context.Context, d held) error
		wantDuplicate bool
	}{
		{"waiting", nil, true},
		{"in work", func(context.Context, held) error { return nil }, true},
		{"given back with a delay", func(ctx context.Context, d held) error { return d.Retry(ctx, time.Hour) }, true},
		{"done", func(ctx context.Context, d held) error { return d.Done(ctx) }, false},
		{"buried", func(ctx context.Context, d held) error { return d.Bury(ctx, event(r.Ref, artifact.Dead, "dead-1")) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := queuetest.NewServer(t)
			client := queuetest.NewClient(t, server)
			if enqueue(t, client, r) {
				t.Fatal("the first request is a duplicate")
			}
			if tt.act != nil {
				if err := tt.act(t.Context(), consume(t, client, queue.ConsumeConfig{}).next(t)); err != nil {
					t.Fatal(err)
				}
			}
			if got := enqueue(t, client, r); got != tt.wantDuplicate {
				t.Errorf("duplicate = %t, want %t", got, tt.wantDuplicate)
			}
			if n := waiting(t, bare(t, server), "SIGN"); n != 1 {
				t.Errorf("%d requests are stored, want 1", n)
			}
		})
	}
}

func TestEnqueueKeepsOthersApart(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	first := request(ref(t, "demo/app", 1), artifact.Live)
	for _, other := range []artifact.Request{
		first,
		request(ref(t, "demo/app", 2), artifact.Live),
		request(ref(t, "demo/app2", 1), artifact.Live),
		request(ref(t, "demo2/app", 1), artifact.Live),
		request(first.Ref, artifact.Bulk),
	} {
		if enqueue(t, client, other) {
			t.Errorf("request for %s on %s is a duplicate", other.Ref, other.Lane)
		}
	}
}
