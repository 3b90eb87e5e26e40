package queue_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// announce runs Announce until leave is called, at the latest at the end of the test.
func announce(t *testing.T, c *queue.Client, group string) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := c.Announce(ctx, group); err != nil {
			t.Errorf("Announce = %v", err)
		}
	}()
	leave = func() {
		cancel()
		<-stopped
	}
	t.Cleanup(leave)
	return leave
}

func awaitPeers(t *testing.T, c *queue.Client, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d members are counted", want), func() bool { return c.Peers("signers") == want })
}

func TestPeersAreCounted(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	clients := []*queue.Client{queuetest.NewClient(t, server), queuetest.NewClient(t, server), queuetest.NewClient(t, server)}
	if got := clients[0].Peers("signers"); got != 1 {
		t.Errorf("%d members before the first, want this program itself", got)
	}
	started := time.Now()
	var leave func()
	for _, c := range clients {
		leave = announce(t, c, "signers")
	}
	announce(t, queuetest.NewClient(t, server), "receivers")
	announce(t, queuetest.Connect(t, queue.Config{Server: server, Harbor: "other"}), "signers")
	for _, c := range clients {
		awaitPeers(t, c, 3)
	}
	if waited := time.Since(started); waited > 4*time.Second {
		t.Errorf("they found each other after %s, want at once and not with the next beat", waited)
	}
	leave()
	started = time.Now()
	for _, c := range clients[:2] {
		awaitPeers(t, c, 2)
	}
	if waited := time.Since(started); waited > 8*time.Second {
		t.Errorf("who left was counted for %s, want that it says so", waited)
	}
	awaitPeers(t, clients[2], 1)
	announce(t, clients[2], "signers")
	for _, c := range clients {
		awaitPeers(t, c, 3)
	}
}

func TestAnnounceRefuses(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client, other := queuetest.NewClient(t, server), queuetest.NewClient(t, server)
	announce(t, client, "signers")
	announce(t, other, "signers")
	awaitPeers(t, client, 2)
	for _, group := range []string{"signers", "", "a.b", ">"} {
		if err := client.Announce(t.Context(), group); err == nil {
			t.Errorf("Announce(%q) has no error", group)
		}
	}
	if got := client.Peers("signers"); got != 2 {
		t.Errorf("%d members after a second announcement, want 2", got)
	}
}

func TestRoster(t *testing.T) {
	t.Parallel()
	type step struct {
		after  time.Duration // since the step before
		member string
		left   bool
		want   int
	}
	const s = time.Second
	tests := []struct {
		name  string
		steps []step
	}{
		{"alone", []step{{0, "self", false, 1}, {5 * s, "self", false, 1}}},
		{"one comes and says that it goes", []step{{0, "self", false, 1}, {s, "a", false, 2}, {s, "a", true, 1}}},
		{"one vanishes", []step{
			{0, "self", false, 1},
			{s, "a", false, 2},
			{4 * s, "self", false, 2},
			{5 * s, "self", false, 2},
			{5 * s, "self", false, 2},
			{5 * s, "self", false, 1},
		}},
		{"one of two vanishes", []step{
			{0, "self", false, 1},
			{0, "a", false, 2},
			{0, "b", false, 3},
			{5 * s, "self", false, 3},
			{5 * s, "self", false, 3},
			{0, "b", false, 3},
			{5 * s, "self", false, 3},
			{5 * s, "self", false, 2},
		}},
		{"nobody is heard for a while, this program neither", []step{
			{0, "self", false, 1},
			{0, "a", false, 2},
			{time.Hour, "self", false, 2},
			{5 * s, "a", false, 2},
			{0, "self", false, 2},
			{15 * s, "a", false, 2},
		}},
		{"one vanishes while nobody is heard", []step{
			{0, "self", false, 1}, {0, "a", false, 2}, {time.Hour, "self", false, 2}, {5 * s, "self", false, 2}, {5 * s, "self", false, 1},
		}},
		{"names that are none", []step{{0, "self", false, 1}, {0, "", false, 1}, {0, string(make([]byte, 100)), false, 1}}},
		{"goodbye of a stranger", []step{{0, "self", false, 1}, {0, "a", true, 1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := queue.NewRoster("self")
			now := time.Unix(1_700_000_000, 0)
			for i, step := range tt.steps {
				now = now.Add(step.after)
				r.Hear(step.member, step.left, now)
				if got := r.Count(); got != step.want {
					t.Fatalf("step %d: %d members, want %d", i, got, step.want)
				}
			}
		})
	}
}
