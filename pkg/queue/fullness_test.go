package queue_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

func TestLimitsAreWarnedOfOnce(t *testing.T) {
	t.Parallel()
	stream := func(bytes uint64) queue.Usage {
		return queue.Usage{Streams: []queue.StreamUsage{{Name: "LEDGER", Bytes: bytes, Limit: 1000}, {Name: "SIGN", Bytes: 1 << 40}}}
	}
	tests := []struct {
		name  string
		looks []queue.Usage
		warns int
		limit string
	}{
		{"below", []queue.Usage{stream(699), stream(0)}, 0, ""},
		{"a stream", []queue.Usage{stream(100), stream(700), stream(900)}, 1, `"stream LEDGER"`},
		{"the store", []queue.Usage{{StoreBytes: 70, StoreLimit: 100}}, 1, `"store"`},
		{"the disk", []queue.Usage{{DiskFree: 30, DiskSize: 100}}, 1, `"disk"`},
		{"no limits", []queue.Usage{{StoreBytes: 70, Streams: []queue.StreamUsage{{Name: "SIGN", Bytes: 5}}}}, 0, ""},
		{"to and fro", []queue.Usage{stream(700), stream(660), stream(700)}, 1, `"stream LEDGER"`},
		{"again after calm", []queue.Usage{stream(700), stream(640), stream(700)}, 2, `"stream LEDGER"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			look := queue.LookAtLimits(newLogger(&log))
			for _, u := range tt.looks {
				look(u)
			}
			if got := strings.Count(log.String(), `"level":"warn"`); got != tt.warns || !strings.Contains(log.String(), tt.limit) {
				t.Errorf("%d warnings, want %d of %s:\n%s", got, tt.warns, tt.limit, log.String())
			}
		})
	}
}

func TestStrandedMessagesAreCounted(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	registry := prometheus.NewRegistry()
	client := queuetest.Connect(t, queue.Config{Server: server, Registerer: registry})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	js := bare(t, server)
	for i := range 5 {
		enqueue(t, client, request(ref(t, "demo/app", i), artifact.Live))
	}
	usage := func() queue.Usage {
		t.Helper()
		u, err := client.Usage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	if u := usage(); u.Stranded["SIGN"] != 0 || u.Stranded["DEBT"] != 0 || len(u.Stranded) != 2 {
		t.Errorf("stranded = %v, want none in both", u.Stranded)
	}
	for _, subject := range []string{
		queue.SignSubject("removed", artifact.Live, ref(t, "demo/app", 1)), "sign.v1.default.urgent.0.a.b", "sign.v1.default.live.99.a.b",
		queue.DebtSubject("removed", ref(t, "demo/app", 1)),
	} {
		if _, err := js.Publish(t.Context(), subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	if u := usage(); u.Stranded["SIGN"] != 3 || u.Stranded["DEBT"] != 1 {
		t.Errorf("stranded = %v, want 3 in SIGN and 1 in DEBT", u.Stranded)
	}
}

func TestFilterMatches(t *testing.T) {
	t.Parallel()
	tests := []struct {
		filter, subject string
		want            bool
	}{
		{">", "a", true},
		{"a.>", "a.b.c", true},
		{"a.>", "a", false},
		{"a.*.c", "a.b.c", true},
		{"a.*", "a.b.c", false},
		{"a.b", "a.b", true},
		{"a.b", "a", false},
		{"a.b", "a.c", false},
		{"sign.v1.h.live.1.>", "sign.v1.h.live.11.x", false},
	}
	for _, tt := range tests {
		if got := queue.Matches(tt.filter, tt.subject); got != tt.want {
			t.Errorf("%q matches %q: %t, want %t", tt.filter, tt.subject, got, tt.want)
		}
	}
}

func TestReserveOfAVolume(t *testing.T) {
	t.Parallel()
	const mib, gib = 1 << 20, 1 << 30
	tests := []struct{ asked, size, want int64 }{
		{0, 100 * mib, 25 * mib},
		{0, gib, 64 * mib},
		{0, 10 * gib, 10 * gib / 100 * 2},
		{0, 1000 * gib, gib},
		{5 * mib, 1000 * gib, 5 * mib},
	}
	for _, tt := range tests {
		if got := queue.ReserveOf(tt.asked, tt.size); got != tt.want {
			t.Errorf("reserve of %d bytes, asked for %d: %d, want %d", tt.size, tt.asked, got, tt.want)
		}
	}
}
