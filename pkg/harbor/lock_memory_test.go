package harbor_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

// TestRulesAreRemembered walks through the life of an answer, on fake time.
func TestRulesAreRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked, id, status := 0, 1, http.StatusServiceUnavailable
		c := cannedClient(t, func(*http.Request) (int, string, error) {
			asked++
			if status != http.StatusOK {
				return status, "", nil
			}
			return http.StatusOK, rulesJSON(t, rule(id, "repoMatches **", "matches v1")), nil
		})
		check := func(what string, wantAsked, wantRule int, want fault.Reason) {
			t.Helper()
			got, err := c.LockedBy(t.Context(), "demo/app", "v1")
			rule := ""
			if wantRule != 0 {
				rule = fmt.Sprintf("rule %d: tags matching v1 in repositories matching **", wantRule)
			}
			if got != rule || (err != nil) != (want != "") {
				t.Errorf("%s: LockedBy() = %q, %v; want %q, %s", what, got, err, rule, want)
			}
			if err != nil && fault.Of(err).Reason != want {
				t.Errorf("%s: %v, want %s", what, err, want)
			}
			if asked != wantAsked {
				t.Errorf("%s: %d requests, want %d", what, asked, wantAsked)
			}
		}
		check("nothing is known", 1, 0, fault.Unavailable)
		check("a fault is not remembered", 2, 0, fault.Unavailable)
		status = http.StatusOK
		check("the first answer", 3, 1, "")
		id = 2
		time.Sleep(5*time.Minute - time.Nanosecond)
		check("5 minutes are not over", 3, 1, "")
		if got, err := c.LockedBy(t.Context(), "demo/app", "v2"); err != nil || got != "" || asked != 3 {
			t.Errorf("another tag: LockedBy() = %q, %v after %d requests; want none, from memory", got, err, asked)
		}
		time.Sleep(time.Nanosecond)
		check("5 minutes are over", 4, 2, "")
		status = http.StatusServiceUnavailable
		time.Sleep(5 * time.Minute)
		check("Harbor does not answer", 5, 2, "")
		time.Sleep(30*time.Second - time.Nanosecond)
		check("nor is it asked at once again", 5, 2, "")
		time.Sleep(time.Nanosecond)
		check("but after a pause", 6, 2, "")
		status = http.StatusForbidden
		time.Sleep(30 * time.Second)
		check("the right is gone: no old rule", 7, 0, fault.Denied)
		time.Sleep(time.Minute - time.Nanosecond)
		check("that is remembered", 7, 0, fault.Denied)
		time.Sleep(time.Nanosecond)
		check("for a minute", 8, 0, fault.Denied)
		status = http.StatusServiceUnavailable
		time.Sleep(time.Minute)
		check("Harbor does not answer, and the right was lacking", 9, 0, fault.Denied)
		status = http.StatusOK
		time.Sleep(30 * time.Second)
		check("the right is there", 10, 2, "")
	})
}

// TestManyAskForTheRulesOnce asks for two projects at once: neither waits for the other.
func TestManyAskForTheRulesOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		release := make(chan struct{})
		body := rulesJSON(t, rule(1, "repoMatches **", "matches v1"))
		c := cannedClient(t, func(r *http.Request) (int, string, error) {
			asked.Add(1)
			if strings.Contains(r.URL.Path, "/slow/") {
				select {
				case <-release:
				case <-r.Context().Done():
					return 0, "", r.Context().Err()
				}
			}
			return http.StatusOK, body, nil
		})
		var wg sync.WaitGroup
		var first error
		asking, stop := context.WithCancel(t.Context())
		wg.Go(func() { _, first = c.LockedBy(asking, "slow/app", "v1") })
		synctest.Wait()
		var slow, quick atomic.Int64
		for i := range 50 {
			tag, locked := "v1", true
			if i%2 == 1 {
				tag, locked = "v2", false
			}
			wg.Go(func() {
				if got, err := c.LockedBy(t.Context(), "slow/app", tag); err == nil && (got != "") == locked {
					slow.Add(1)
				}
			})
			wg.Go(func() {
				if got, err := c.LockedBy(t.Context(), "quick/app", tag); err == nil && (got != "") == locked {
					quick.Add(1)
				}
			})
		}
		synctest.Wait()
		if s, q, n := slow.Load(), quick.Load(), asked.Load(); s != 0 || q != 50 || n != 2 {
			t.Errorf("while one project waits: %d and %d answers after %d requests; want 0 and 50 after 2", s, q, n)
		}
		stop()
		synctest.Wait()
		if n := asked.Load(); !errors.Is(first, context.Canceled) || n != 3 {
			t.Errorf("the one that gave up asking = %v, %d requests; want canceled, and one more", first, n)
		}
		close(release)
		wg.Wait()
		if s, n := slow.Load(), asked.Load(); s != 50 || n != 3 {
			t.Errorf("%d answers after %d requests, want 50 after 3", s, n)
		}
	})
}

// TestAPanicIsNoAnswer lets one who asks panic while another waits.
func TestAPanicIsNoAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		release := make(chan struct{})
		body := rulesJSON(t, rule(1, "repoMatches **", "matches v1"))
		c := cannedClient(t, func(*http.Request) (int, string, error) {
			if asked.Add(1) == 1 {
				<-release
				panic("broken")
			}
			return http.StatusOK, body, nil
		})
		var wg sync.WaitGroup
		var panicked any
		var rule string
		var err error
		wg.Go(func() {
			defer func() { panicked = recover() }()
			_, _ = c.LockedBy(t.Context(), "demo/app", "v1")
		})
		synctest.Wait()
		wg.Go(func() { rule, err = c.LockedBy(t.Context(), "demo/app", "v1") })
		synctest.Wait()
		close(release)
		wg.Wait()
		if panicked == nil || err != nil || rule == "" || asked.Load() != 2 {
			t.Errorf("panic %v; the one that waited: %q, %v after %d requests; want a rule after 2", panicked, rule, err, asked.Load())
		}
	})
}

// TestRulesOfManyProjects asks for more projects than are remembered.
func TestRulesOfManyProjects(t *testing.T) {
	t.Parallel()
	asked := 0
	c := cannedClient(t, func(*http.Request) (int, string, error) {
		asked++
		return http.StatusOK, "[]", nil
	})
	ask := func(project int) {
		t.Helper()
		if got, err := c.LockedBy(t.Context(), fmt.Sprintf("p%d/app", project), "v1"); err != nil || got != "" {
			t.Fatalf("project %d: LockedBy() = %q, %v; want none", project, got, err)
		}
	}
	check := func(what string, want int) {
		t.Helper()
		if asked != want {
			t.Errorf("%s: %d requests, want %d", what, asked, want)
		}
	}
	for project := range 1000 {
		ask(project)
	}
	for project := range 1000 {
		ask(project)
	}
	check("as many as are remembered", 1000)
	ask(0)
	ask(1000)
	check("one more", 1001)
	ask(0)
	check("one that was asked for lately", 1001)
	ask(1)
	check("the one that was not asked for for the longest time", 1002)
}
