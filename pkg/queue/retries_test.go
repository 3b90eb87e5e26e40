package queue_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

func TestRetriesTakeHalfOfACap(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name              string
		slots, limit      int
		retries, want     int // waiting retries, and how many of them get slots
		first, wantFirst  int // first tries that come after them
		others, wantOther int // requests of another project that come last
	}{
		{"half of the cap", 32, 8, 100, 4, 100, 4, 5, 5},
		{"at least one", 32, 1, 100, 1, 100, 0, 5, 5},
		{"an odd cap", 32, 5, 100, 2, 100, 3, 5, 5},
		{"a cap beyond the slots", 8, 100, 100, 4, 100, 4, 5, 0},
		{"no cap", 8, 0, 100, 8, 100, 0, 5, 0},
		{"first tries alone", 32, 8, 0, 0, 100, 8, 5, 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := queue.NewSlotsAside(tt.slots, 100, func(project string) int {
				if project == "failing" {
					return tt.limit
				}
				return 0
			})
			enter := func(project string, n int, retry bool) (granted int) {
				for range n {
					_, got := s.EnterAs(artifact.Live, project, retry)
					select {
					case <-got:
						granted++
					default:
					}
				}
				return granted
			}
			retries, first, others := enter("failing", tt.retries, true), enter("failing", tt.first, false), enter("other", tt.others, false)
			if retries != tt.want || first != tt.wantFirst || others != tt.wantOther {
				t.Errorf("%d retries, %d first tries and %d others began, want %d, %d and %d",
					retries, first, others, tt.want, tt.wantFirst, tt.wantOther)
			}
		})
	}
}

// A retry that steps aside counts still: else those that step aside and hang when they are back would fill the whole cap.
func TestRetriesAsideCount(t *testing.T) {
	t.Parallel()
	s := queue.NewSlotsAside(32, 100, func(string) int { return 4 })
	var began []*queue.Claim
	for range 10 {
		c, granted := s.EnterAs(artifact.Live, "demo", true)
		select {
		case <-granted:
			began = append(began, c)
			s.AskForPlace(c)
		default:
		}
	}
	if len(began) != 2 || s.Aside() != 2 {
		t.Fatalf("%d retries began, %d are aside; want 2", len(began), s.Aside())
	}
	_, granted := s.EnterAs(artifact.Live, "demo", true)
	s.AskForSlot(began[0])
	s.Release(began[0])
	if s.Held() != 1 {
		t.Errorf("%d retries began when one had ended, want 1", s.Held())
	}
	select {
	case <-granted:
		t.Error("the last one began before the older ones")
	default:
	}
}

// First tries go first, and one of five is a retry while both wait.
func TestFirstTriesGoBeforeRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := queue.NewSlotsAside(1, 1, func(string) int { return 1 })
		busy, _ := s.Enter(artifact.Live, "demo")
		turns := make(chan bool)
		var waiters sync.WaitGroup
		wait := func(retry bool) {
			c, granted := s.EnterAs(artifact.Live, "demo", retry)
			waiters.Go(func() {
				<-granted
				turns <- retry
				s.Release(c)
			})
		}
		for range 3 {
			wait(true)
		}
		for range 10 {
			wait(false)
		}
		s.Release(busy)
		var got []bool
		for range 13 {
			got = append(got, <-turns)
		}
		waiters.Wait()
		n, y := false, true
		if want := []bool{n, n, n, n, y, n, n, n, n, y, n, n, y}; !slices.Equal(got, want) {
			t.Errorf("retries had the turns %v, want %v", got, want)
		}
	})
}

// A thousand digests of a project fail and hang when they are tried again: its others, its partition mates and everybody else
// are served at once.
func TestFailingDigestsHoldUpNobody(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	registry := prometheus.NewRegistry()
	client := queuetest.Connect(t, queue.Config{Server: server, Registerer: registry})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	const n = 1000
	flood, mate := mates(t)
	for i := range n {
		enqueue(t, client, request(ref(t, flood+"/failing", i), artifact.Live))
	}
	var failed, hanging, most atomic.Int64
	served := make(chan artifact.Ref, 100)
	release := make(chan struct{})
	var once sync.Once
	var mu sync.Mutex
	handled := map[artifact.Ref]uint64{} // guarded by mu
	k := consume(t, client, queue.ConsumeConfig{
		Cap: func(string) int { return 8 },
		Handle: func(ctx context.Context, d *queue.Delivery) {
			r := d.Request().Ref
			if r.Repository() != flood+"/failing" {
				if err := d.Done(ctx); err != nil {
					t.Errorf("Done = %v", err)
				}
				served <- r
				return
			}
			mu.Lock()
			handled[r]++
			tries := handled[r]
			mu.Unlock()
			if got := d.Tries(); got != tries {
				t.Errorf("%s: Tries() = %d of %d attempts, want %d: what gave way was not tried", r, got, d.Attempts(), tries)
			}
			if tries == 1 {
				failed.Add(1)
			} else {
				most.Store(max(most.Load(), hanging.Add(1)))
				<-release
				hanging.Add(-1)
			}
			if err := d.Retry(ctx, time.Millisecond); err != nil {
				t.Errorf("Retry = %v", err)
			}
		},
	})
	t.Cleanup(func() { once.Do(func() { close(release) }) })
	eventually(t, "all have failed and some hang", func() bool { return failed.Load() == n && hanging.Load() == 4 })
	eventually(t, "the rest waits, or was given back", func() bool { return value(t, registry, "harborseal_queue_waiting_for_slot") >= 500 })
	var slowest time.Duration
	for i := range 100 {
		repository := []string{flood + "/fine", mate + "/fine", "else/fine"}[i%3]
		lane := []artifact.Lane{artifact.Live, artifact.Bulk}[i%2]
		r, started := ref(t, repository, i), time.Now()
		enqueue(t, client, request(r, lane))
		if got := receive(t, served, "request "+r.String()); got != r {
			t.Errorf("served %s, want %s", got, r)
		}
		slowest = max(slowest, time.Since(started))
	}
	t.Logf("the slowest of 100 others took %s", slowest)
	if slowest > 2*time.Second {
		t.Errorf("the slowest of the others took %s", slowest)
	}
	if got := most.Load(); got != 4 {
		t.Errorf("at most %d retries were in work, want half of the cap, 4", got)
	}
	if got := value(t, registry, "harborseal_queue_waiting_for_slot"); got > 512 {
		t.Errorf("%v wait in this program, want at most 512", got)
	}
	once.Do(func() { close(release) })
	eventually(t, "those that gave way are tried again", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for _, tries := range handled {
			if tries < 2 {
				return false
			}
		}
		return true
	})
	k.stop()
	receive(t, k.stopped, "Consume to return")
	if got := waiting(t, bare(t, server), "SIGN"); got != n {
		t.Errorf("%d requests are kept, want all %d that failed", got, n)
	}
}
