//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// world is one system with a project in Harbor, for one test.
type world struct {
	*harness.System
	site      *harness.Site
	developer *harness.Developer
	checker   *checker.Checker
	// project is enabled and has a webhook policy.
	project string
	webhook *harness.Webhook
	dir     string
	// pushed is all that has to be signed at the end.
	pushed []harness.Pushed
}

// option changes a system before it is made.
type option func(*harness.Options)

// newWorld starts a system, and waits for its first sweeps.
func newWorld(t *testing.T, options ...option) *world {
	t.Helper()
	w := prepareWorld(t, options...)
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.firstSweeps(t)
	return w
}

// firstSweeps waits for the sweeps that come at once: from then on nobody finds what no webhook tells of.
func (w *world) firstSweeps(t *testing.T) {
	t.Helper()
	w.awaitCount(t, 1, "harborseal_sweeps_total", `kind="full"`) // also one that has failed: some projects are not there
	w.awaitCount(t, 1, "harborseal_sweeps_total", `kind="recent"`)
}

// prepareWorld makes everything for a system, and starts nothing.
func prepareWorld(t *testing.T, options ...option) *world {
	t.Helper()
	ctx := t.Context()
	project := harness.Random("e2e-")
	site, err := harness.NewSite(ctx, env.harbor, project)
	if err != nil {
		t.Fatalf("preparing Harbor: %v", err)
	}
	dir := filepath.Join(env.dir, strings.ReplaceAll(t.Name(), "/", "_")+"-"+project)
	done := env.later(func() { _ = site.Remove(context.WithoutCancel(ctx)) })
	t.Cleanup(func() {
		defer done()
		// The test's own context has ended by now.
		if err := site.Remove(context.WithoutCancel(ctx)); err != nil {
			t.Errorf("cleaning up in Harbor: %v", err)
		}
	})
	o := harness.Options{Programs: env.programs, Dir: dir, Site: site, Enabled: []string{project}, Proxy: env.proxy}
	if o.Advertise, err = env.ports.next(); err != nil {
		t.Fatal(err)
	}
	for _, change := range options {
		change(&o)
	}
	w := &world{site: site, developer: env.harbor.NewDeveloper(site.Developer), project: project, dir: dir}
	if w.System, err = harness.NewSystem(ctx, o); err != nil {
		t.Fatal(err)
	}
	stopped := env.later(w.Kill)
	t.Cleanup(func() { w.end(t); stopped() })
	if w.checker, err = w.Checker(ctx); err != nil {
		t.Fatal(err)
	}
	if w.webhook, err = w.AddWebhook(ctx, project, "Default"); err != nil {
		t.Fatal(err)
	}
	return w
}

// end stops the system and collects where it dialled.
func (w *world) end(t *testing.T) {
	t.Helper()
	if t.Failed() {
		t.Log(w.Tails())
	}
	w.conform(t)
	if err := w.Stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	w.once(t)
	foreign, err := w.Foreign()
	if err != nil {
		t.Error(err)
	}
	if len(foreign) > 0 {
		t.Errorf("the programs dialled %q, which nobody configured", foreign)
	}
	env.mu.Lock()
	defer env.mu.Unlock()
	env.foreign = append(env.foreign, foreign...)
}

// once looks at everything that was pushed when the programs have ended: whatever happened in between, and whether it got
// signed or not, our key has signed nothing twice in one format.
func (w *world) once(t *testing.T) {
	t.Helper()
	if w.checker == nil {
		return
	}
	// The test's own context has ended by now.
	ctx := context.WithoutCancel(t.Context())
	for _, p := range w.pushed {
		violations, err := w.checker.Once(ctx, p.Repository, p.Digest)
		if err != nil {
			t.Errorf("looking for double signatures: %v", err)
			return
		}
		complain(t, violations)
	}
}

// push pushes something to be signed into the project.
func (w *world) push(t *testing.T, repository, tag string, what remote.Taggable, err error) harness.Pushed {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.developer.Push(t.Context(), w.project+"/"+repository, tag, what)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range p.All() {
		if !slices.ContainsFunc(w.pushed, func(o harness.Pushed) bool { return o.Repository == one.Repository && o.Digest == one.Digest }) {
			w.pushed = append(w.pushed, one)
		}
	}
	return p
}

// pushImage pushes a small image.
func (w *world) pushImage(t *testing.T, repository, tag string) harness.Pushed {
	t.Helper()
	img, err := harness.NewImage(false)
	return w.push(t, repository, tag, img, err)
}

// until waits for a condition.
func (w *world) until(t *testing.T, condition func(ctx context.Context) error) {
	t.Helper()
	if err := harness.Until(t.Context(), env.patience, condition); err != nil {
		t.Fatalf("%v\n%s", err, w.Tails())
	}
}

// row gives the report's row of a manifest.
func (w *world) row(ctx context.Context, p harness.Pushed) (checker.Row, error) {
	rows, err := w.Report().Rows(ctx, nil)
	if err != nil {
		return checker.Row{}, err
	}
	at := slices.IndexFunc(rows, func(r checker.Row) bool { return r.Repository == p.Repository && r.Digest == p.Digest })
	if at < 0 {
		return checker.Row{State: "not in the report"}, nil
	}
	return rows[at], nil
}

// awaitState waits until the report says so of a manifest.
func (w *world) awaitState(t *testing.T, p harness.Pushed, state string) checker.Row {
	t.Helper()
	var row checker.Row
	w.until(t, func(ctx context.Context) error {
		var err error
		if row, err = w.row(ctx, p); err == nil && row.State != state {
			err = fmt.Errorf("%s@%s is %q (%s %s), want %q", p.Repository, p.Digest, row.State, row.Reason, row.Detail, state)
		}
		return err
	})
	return row
}

// awaitAll waits until the report says of everything that it is signed, and then judges everything.
func (w *world) awaitAll(t *testing.T) {
	t.Helper()
	for _, p := range w.pushed {
		w.awaitState(t, p, "signed")
	}
	w.idle(t)
	w.judge(t)
}

// idle waits until nothing is in work and no webhook is on its way: events of our own signatures have been answered then.
func (w *world) idle(t *testing.T) {
	t.Helper()
	w.until(t, func(ctx context.Context) error {
		if env.harbor.Emulated {
			stats, err := env.harbor.Stats(ctx)
			if err != nil {
				return err
			}
			if stats.Webhooks.Pending > 0 {
				return fmt.Errorf("%d webhooks wait", stats.Webhooks.Pending)
			}
		}
		for _, signer := range w.Signers {
			if signer.Process == nil || !signer.Process.Running() {
				continue
			}
			m, err := w.Metrics(ctx, signer)
			if err != nil {
				return err
			}
			if m.InFlight() > 0 {
				return fmt.Errorf("%s has requests in work", signer.Name)
			}
		}
		return nil
	})
}

// judge looks from the outside: each digest is signed once in each format, nothing else is signed, and the report says so.
func (w *world) judge(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	var facts []checker.Fact
	byRepository := make(map[string][]string)
	for _, p := range w.pushed {
		evidence, violations, err := w.checker.Signed(ctx, p.Repository, p.Digest)
		if err != nil {
			t.Fatal(err)
		}
		complain(t, violations)
		facts = append(facts, checker.Fact{Repository: p.Repository, Digest: p.Digest, Evidence: evidence, Parent: p.Parent})
		byRepository[p.Repository] = append(byRepository[p.Repository], p.Digest)
	}
	for repository, digests := range byRepository {
		violations, err := w.checker.Repository(ctx, repository, digests)
		if err != nil {
			t.Fatal(err)
		}
		complain(t, violations)
	}
	rows, err := w.Report().Rows(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	violations, err := w.checker.Compare(facts, rows)
	if err != nil {
		t.Fatal(err)
	}
	complain(t, violations)
}

func complain(t *testing.T, violations []checker.Violation) {
	t.Helper()
	for _, v := range violations {
		t.Error(v)
	}
}

// name is how tools name a manifest.
func name(p harness.Pushed) string { return env.harbor.Host + "/" + p.Repository + "@" + p.Digest }

// tool finds a tool, with the developer's credentials.
func (w *world) tool(t *testing.T, variable string) *harness.Tool {
	t.Helper()
	host, _, _ := strings.Cut(env.harbor.Host, ":")
	tool, err := harness.NewTool(variable, filepath.Join(w.dir, strings.ToLower(variable)), env.harbor, w.site.Developer,
		append(env.proxy.Env(), "NO_PROXY="+host))
	if err != nil {
		t.Fatal(err)
	}
	return tool
}

// lose runs f while Harbor reports nothing of this project, as if its webhooks were lost.
func (w *world) lose(t *testing.T, f func()) {
	t.Helper()
	w.webhook.Disabled = true
	if err := env.harbor.UpdateWebhook(t.Context(), w.webhook); err != nil {
		t.Fatal(err)
	}
	f()
	w.webhook.Disabled = false
	if err := env.harbor.UpdateWebhook(t.Context(), w.webhook); err != nil {
		t.Fatal(err)
	}
}

// inFlight waits until a signer has exactly so many requests in work.
func (w *world) inFlight(t *testing.T, signer *harness.Program, want int) {
	t.Helper()
	w.until(t, func(ctx context.Context) error {
		m, err := w.Metrics(ctx, signer)
		if err == nil && int(m.InFlight()) != want {
			err = fmt.Errorf("%s has %v requests in work, want %d", signer.Name, m.InFlight(), want)
		}
		return err
	})
}

// awaitKilled waits until a process was ended by SIGKILL.
func (w *world) awaitKilled(t *testing.T, p *harness.Program) {
	t.Helper()
	w.until(t, func(context.Context) error {
		if p.Process.Running() {
			return errors.New(p.Name + " still runs")
		}
		return nil
	})
	if !p.Process.Killed() {
		t.Fatalf("%s ended by itself\n%s", p.Name, p.Process.Tail())
	}
}
