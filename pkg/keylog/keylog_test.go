package keylog_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/artifact/artifacttest"
	"github.com/harborseal/harborseal/pkg/keylog"
	"github.com/harborseal/harborseal/pkg/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is the ledger and the state, in memory.
type store struct {
	mu       sync.Mutex
	events   []artifact.Event
	value    []byte
	revision uint64
	err      error
	saveErr  error
	saves    int
}

func (s *store) Record(_ context.Context, e artifact.Event) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	if err := artifacttest.CheckEvent(e); err != nil {
		return 0, err
	}
	if !slices.ContainsFunc(s.events, func(other artifact.Event) bool { return other.ID == e.ID }) {
		s.events = append(s.events, e)
	}
	return uint64(len(s.events)), nil
}

func (s *store) LoadState(context.Context, string, string) ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.value), s.revision, s.err
}

func (s *store) SaveState(_ context.Context, _, _ string, value []byte, expect uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.saveErr != nil:
		return 0, s.saveErr
	case expect != s.revision:
		return 0, fmt.Errorf("saving: %w", policy.ErrConflict)
	}
	s.value, s.revision = slices.Clone(value), s.revision+1
	s.saves++
	return s.revision, nil
}

// said gives what was recorded since the last call, such as "key_added a active".
func (s *store) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, e := range s.events {
		if e.Time.IsZero() || e.Key == nil {
			continue
		}
		all = append(all, fmt.Sprintf("%s %s %s", e.Kind, e.Key.ID, e.Key.State))
	}
	return strings.Join(all, ", ")
}

// keys reads "a:active b:retired".
func keys(text string) []keylog.Key {
	var all []keylog.Key
	for word := range strings.FieldsSeq(text) {
		id, state, _ := strings.Cut(word, ":")
		all = append(all, keylog.Key{ID: id, Name: "name of " + id, State: state})
	}
	return all
}

func journal(t *testing.T, s *store, text string) *keylog.Journal {
	t.Helper()
	j, err := keylog.New(keylog.Config{Recorder: s, State: s, Keys: keys(text), Actor: "signer", Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func once(t *testing.T, j *keylog.Journal) {
	t.Helper()
	if err := j.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestChangesOfKeys(t *testing.T) {
	for _, tt := range []struct{ name, before, after, want string }{
		{"the first start", "", "a:active b:retired c:revoked", "key_added a active, key_added b retired, key_revoked c revoked"},
		{"nothing", "a:active", "a:active", ""},
		{"one more", "a:active", "a:active b:active", "key_added b active"},
		{"a rotation", "a:active", "b:active a:retired", "key_added b active, key_retired a retired"},
		{"a compromise", "a:active", "b:active a:revoked", "key_added b active, key_revoked a revoked"},
		{"revoked later", "b:active a:retired", "b:active a:revoked", "key_revoked a revoked"},
		{"one left out", "b:active a:retired", "b:active", "key_retired a retired"},
		{"a revoked one left out", "b:active a:revoked", "b:active", ""},
		{"back to work", "b:active a:retired", "a:active b:active", "key_added a active"},
		{"no longer revoked", "b:active a:revoked", "b:active a:retired", "key_added a retired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &store{}
			if tt.before != "" {
				once(t, journal(t, s, tt.before))
			}
			told := len(s.events)
			once(t, journal(t, s, tt.after))
			s.events = s.events[told:]
			if got := s.said(); got != tt.want {
				t.Errorf("recorded: %s\nwant: %s", got, tt.want)
			}
			for _, e := range s.events {
				if gone := tt.name == "one left out"; (e.Detail != "") != gone {
					t.Errorf("detail %q of %s", e.Detail, e.Kind)
				}
				if e.Key.Use != keylog.UseImage || e.Key.Name != "name of "+e.Key.ID || e.Actor != "signer" || e.Origin != artifact.OriginConfig {
					t.Errorf("event %+v", e)
				}
			}
		})
	}
}

// TestThereAndBackAgain: the same change a second time is another fact.
func TestThereAndBackAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		for _, configured := range []string{"a:active", "a:retired b:active", "a:active", "a:retired b:active"} {
			once(t, journal(t, s, configured))
			time.Sleep(keylog.Silent)
		}
		want := "key_added a active, key_added b active, key_retired a retired, key_added a active, key_retired b retired, key_added b active, key_retired a retired"
		sorted := func(text string) string {
			words := strings.Split(text, ", ")
			slices.Sort(words)
			return strings.Join(words, ", ")
		}
		if got := s.said(); sorted(got) != sorted(want) {
			t.Errorf("recorded: %s\nwant: %s", got, want)
		}
	})
}

// TestARollingChangeDoesNotFlap: while a change is rolled out, programs with the configuration before start too.
func TestARollingChangeDoesNotFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		start := func(configured string) (stop func()) {
			mine, end := context.WithCancel(ctx)
			j := journal(t, s, configured)
			done := make(chan struct{})
			running.Go(func() {
				defer close(done)
				if err := j.Run(mine); err != nil {
					t.Errorf("Run: %v", err)
				}
			})
			return func() { end(); <-done }
		}
		stopOld := start("a:active")
		synctest.Wait()
		stopNew := start("b:active a:retired")
		for range 30 { // one with the old keys starts again and again, for an hour and a half
			time.Sleep(3 * time.Minute)
			stopOld()
			stopOld = start("a:active")
		}
		synctest.Wait()
		const rotated = "key_added a active, key_added b active, key_retired a retired"
		if got := s.said(); got != rotated {
			t.Errorf("recorded: %s\nwant: %s", got, rotated)
		}
		// The new one was a mistake.
		stopNew()
		time.Sleep(keylog.Silent + keylog.Interval)
		synctest.Wait()
		if got, want := s.said(), rotated+", key_added a active, key_retired b retired"; got != want {
			t.Errorf("after it was rolled back: %s\nwant: %s", got, want)
		}
		stopOld()
		cancel()
		running.Wait()
	})
}

// TestManyStartAtOnce: all find the change, and it is recorded once.
func TestManyStartAtOnce(t *testing.T) {
	s := &store{}
	var starting sync.WaitGroup
	for range 16 {
		j := journal(t, s, "a:active b:retired")
		starting.Go(func() {
			if err := j.Once(t.Context()); err != nil && !errors.Is(err, policy.ErrConflict) {
				t.Errorf("Once: %v", err)
			}
		})
	}
	starting.Wait()
	if got, want := s.said(), "key_added a active, key_added b retired"; got != want {
		t.Errorf("recorded: %s\nwant: %s", got, want)
	}
}

// TestACrashBetweenEventAndState repeats the event with its id, and loses nothing.
func TestACrashBetweenEventAndState(t *testing.T) {
	s := &store{saveErr: errors.New("killed")}
	j := journal(t, s, "a:active")
	if err := j.Once(t.Context()); err == nil {
		t.Fatal("nothing failed: the test tests nothing")
	}
	s.saveErr = nil
	once(t, journal(t, s, "a:active"))
	once(t, journal(t, s, "a:active"))
	if got := s.said(); got != "key_added a active" {
		t.Errorf("recorded: %s, want it once", got)
	}
}

// TestRunTriesAgain, and writes no more than it has to.
func TestRunTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{err: errors.New("away")}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- journal(t, s, "a:active").Run(ctx) }()
		time.Sleep(time.Minute)
		s.mu.Lock()
		s.err = nil
		s.mu.Unlock()
		time.Sleep(time.Hour)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if got := s.said(); got != "key_added a active" || s.saves < 10 || s.saves > 14 {
			t.Errorf("recorded: %s, saved %d times; want it once, and 12 times in an hour", got, s.saves)
		}
	})
}

func TestDeclare(t *testing.T) {
	s := &store{}
	for range 2 {
		if err := keylog.Declare(t.Context(), s, "receiver", keylog.UseLedger, keys("a:active old:retired")); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := s.said(), "key_added a active, key_retired old retired"; got != want {
		t.Errorf("recorded: %s\nwant: %s", got, want)
	}
	if len(s.events) != 2 || s.events[0].Key.Use != keylog.UseLedger {
		t.Errorf("events: %+v", s.events)
	}
}

func TestWhatIsNoKey(t *testing.T) {
	s := &store{}
	for name, text := range map[string]string{"no id": ":active", "twice": "a:active a:retired", "no state": "a", "another state": "a:lost"} {
		if _, err := keylog.New(keylog.Config{Recorder: s, State: s, Keys: keys(text), Actor: "signer"}); err == nil {
			t.Errorf("%s: New takes it", name)
		}
		if err := keylog.Declare(t.Context(), s, "receiver", keylog.UseLedger, keys(text)); err == nil {
			t.Errorf("%s: Declare takes it", name)
		}
	}
	if _, err := keylog.New(keylog.Config{}); err == nil {
		t.Error("New takes nothing")
	}
	s.value = []byte(`{"v":2}`)
	if err := journal(t, s, "a:active").Once(t.Context()); err == nil || len(s.events) != 0 {
		t.Error("a state of a newer program is overwritten")
	}
}
