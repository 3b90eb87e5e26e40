package lifecycle_test

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

	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const stopTimeout = 20 * time.Second

// journal notes what happened, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) want(t *testing.T, want ...string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Equal(j.lines, want) {
		t.Errorf("got  %q\nwant %q", j.lines, want)
	}
}

// component notes its start and its stop.
func (j *journal) component(name string) lifecycle.Component {
	return lifecycle.Component{
		Start: func(context.Context) error { j.note("start " + name); return nil },
		Stop:  func(context.Context) error { j.note("stop " + name); return nil },
	}
}

// task notes its begin and its end, and runs until its context ends.
func (j *journal) task(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		j.note("begin " + name)
		<-ctx.Done()
		j.note("end " + name)
		return ctx.Err()
	}
}

// running runs the group and ends it after a minute.
func running(t *testing.T, g *lifecycle.Group) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return g.Run(ctx)
}

func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		g := lifecycle.New(stopTimeout)
		g.Add("a", j.component("a"))
		g.Go("b", j.task("b"))
		g.Add("c", lifecycle.Component{Start: func(context.Context) error {
			synctest.Wait() // b has begun
			j.note("start c")
			return nil
		}, Stop: j.component("c").Stop})
		g.Add("nothing", lifecycle.Component{})
		if err := running(t, g); err != nil {
			t.Errorf("got %v, want none", err)
		}
		j.want(t, "start a", "begin b", "start c", "stop c", "end b", "stop a")
	})
}

func TestFailedStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		cause := errors.New("port in use")
		g := lifecycle.New(stopTimeout)
		g.Add("a", j.component("a"))
		g.Add("listener", lifecycle.Component{
			Start: func(context.Context) error { return cause },
			Stop:  func(context.Context) error { j.note("stop listener"); return nil },
		})
		g.Add("c", j.component("c"))
		begin := time.Now()
		err := running(t, g)
		if !errors.Is(err, cause) || err.Error() != "starting listener: port in use" {
			t.Errorf("got %v, want starting listener: %v", err, cause)
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("took %s, want no waiting", d)
		}
		j.want(t, "start a", "stop a")
	})
}

func TestFailedTaskEndsTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		cause, late := errors.New("lost"), errors.New("flush failed")
		g := lifecycle.New(stopTimeout)
		g.Add("a", lifecycle.Component{Stop: func(context.Context) error { return late }})
		g.Go("other", j.task("other"))
		g.Go("consumer", func(context.Context) error {
			<-time.After(time.Second)
			return cause
		})
		begin := time.Now()
		err := running(t, g)
		if want := "consumer: lost\nstopping a: flush failed"; err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
		if !errors.Is(err, cause) || !errors.Is(err, late) {
			t.Errorf("got %v, want both causes wrapped", err)
		}
		if d := time.Since(begin); d != time.Second {
			t.Errorf("ended after %s, want 1s", d)
		}
		j.want(t, "begin other", "end other")
	})
}

// A start that waits for something that will never come must not outlive the failure of a part that runs already.
func TestFailedTaskEndsAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := lifecycle.New(stopTimeout)
		g.Go("server", func(context.Context) error { return errors.New("died") })
		g.Add("client", lifecycle.Component{Start: func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("connecting: %w", ctx.Err())
		}})
		if err := running(t, g); err == nil || err.Error() != "server: died" {
			t.Errorf("got %v, want the cause alone", err)
		}
	})
}

func TestFinishedTaskEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := lifecycle.New(stopTimeout)
		g.Go("once", func(context.Context) error { return nil })
		begin := time.Now()
		if err := running(t, g); err != nil {
			t.Errorf("got %v, want none", err)
		}
		if d := time.Since(begin); d != time.Minute {
			t.Errorf("ended after %s, want 1m0s", d)
		}
	})
}

func TestTaskErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		task func(ctx context.Context) error
		want string
	}{
		{"cancelled by itself", func(context.Context) error { return context.Canceled }, "task: context canceled"},
		{"cancelled by the group", func(ctx context.Context) error { <-ctx.Done(); return fmt.Errorf("reading: %w", ctx.Err()) }, ""},
		{"failed while it stops", func(ctx context.Context) error { <-ctx.Done(); return errors.New("flush failed") }, "task: flush failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := lifecycle.New(stopTimeout)
				g.Go("task", c.task)
				got := ""
				if err := running(t, g); err != nil {
					got = err.Error()
				}
				if got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestEndedBeforeAndWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		g := lifecycle.New(stopTimeout)
		g.Add("a", j.component("a"))
		if err := g.Run(ended); err != nil {
			t.Errorf("ended before: got %v, want none", err)
		}
		j.want(t)

		g = lifecycle.New(stopTimeout)
		g.Add("a", j.component("a"))
		g.Add("slow", lifecycle.Component{Start: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		g.Add("c", j.component("c"))
		if err := running(t, g); err != nil {
			t.Errorf("ended while starting: got %v, want none", err)
		}
		j.want(t, "start a", "stop a")
	})
}

func TestPanics(t *testing.T) {
	cause := errors.New("nil map")
	for _, c := range []struct {
		name, part string
		add        func(g *lifecycle.Group, f func(context.Context) error)
	}{
		{"start", "starting x: panic: nil map", func(g *lifecycle.Group, f func(context.Context) error) {
			g.Add("x", lifecycle.Component{Start: f})
		}},
		{"stop", "stopping x: panic: nil map", func(g *lifecycle.Group, f func(context.Context) error) {
			g.Add("x", lifecycle.Component{Stop: f})
		}},
		{"task", "x: panic: nil map", func(g *lifecycle.Group, f func(context.Context) error) { g.Go("x", f) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				g := lifecycle.New(stopTimeout)
				g.Add("a", j.component("a"))
				c.add(g, func(context.Context) error { panic(cause) })
				err := running(t, g)
				if err == nil || !strings.HasPrefix(err.Error(), c.part) || !strings.Contains(err.Error(), "lifecycle_test.go") {
					t.Errorf("got %v, want %q and a stack", err, c.part)
				}
				if !errors.Is(err, cause) {
					t.Error("the panic's error is not wrapped")
				}
				j.want(t, "start a", "stop a")
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		g := lifecycle.New(stopTimeout)
		g.Go("x", func(context.Context) error { panic("text") })
		if err := running(t, g); err == nil || !strings.HasPrefix(err.Error(), "x: panic: text\n") {
			t.Errorf("a panic with a text: got %v", err)
		}
	})
}

func TestOneDeadlineForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		g := lifecycle.New(stopTimeout)
		g.Add("server", lifecycle.Component{Stop: func(ctx context.Context) error {
			j.note(fmt.Sprint("server: ", ctx.Err()))
			return nil
		}})
		g.Add("jobs", lifecycle.Component{Stop: func(ctx context.Context) error {
			<-ctx.Done()
			<-time.After(500 * time.Millisecond) // within the grace
			j.note("jobs dropped")
			return nil
		}})
		g.Add("first", lifecycle.Component{Stop: func(ctx context.Context) error {
			deadline, _ := ctx.Deadline()
			j.note("first has " + time.Until(deadline).String())
			<-time.After(5 * time.Second)
			return nil
		}})
		begin := time.Now()
		if err := running(t, g); err != nil {
			t.Errorf("got %v, want none", err)
		}
		if d, want := time.Since(begin), time.Minute+stopTimeout+500*time.Millisecond; d != want {
			t.Errorf("took %s, want %s", d, want)
		}
		j.want(t, "first has 20s", "jobs dropped", "server: context deadline exceeded")
	})
}

func TestPartsThatDoNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		release := make(chan struct{})
		defer close(release)
		g := lifecycle.New(stopTimeout)
		g.Add("a", j.component("a"))
		g.Go("deaf task", func(context.Context) error { <-release; return nil })
		g.Add("deaf component", lifecycle.Component{Stop: func(context.Context) error { <-release; return nil }})
		begin := time.Now()
		err := running(t, g)
		want := "stopping deaf component: has not finished: context deadline exceeded\n" +
			"stopping deaf task: has not finished: context deadline exceeded"
		if err == nil || err.Error() != want || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v\nwant %s", err, want)
		}
		if d, want := time.Since(begin), time.Minute+stopTimeout+2*time.Second; d != want {
			t.Errorf("took %s, want %s", d, want)
		}
		j.want(t, "start a", "stop a")
	})
}

func TestRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		g := lifecycle.New(stopTimeout)
		g.Add("a", j.component("a"))
		if err := running(t, g); err != nil {
			t.Fatal(err)
		}
		if err := running(t, g); err == nil {
			t.Error("the second run: got no error")
		}
		j.want(t, "start a", "stop a")
	})
}
