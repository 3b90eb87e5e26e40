//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// fleet is a system with several receivers and signers on NATS servers of its own, and a developer in each of its projects.
type fleet struct {
	*stage
	nats *harness.NATS

	mu     sync.Mutex
	pushes map[string]harness.Pushed // everything that was pushed, by digest; guarded by mu
}

// newFleet prepares a system for so many projects, and starts nothing of it but the servers; without nodes it is to embed one.
// The gaps between Harbor's attempts are shorter by scale. Nothing looks for what webhooks have not told of, but the first sweeps,
// unless options say so.
func newFleet(t *testing.T, projects int, scale float64, servers harness.NATSOptions, options ...option) *fleet {
	t.Helper()
	h := env.harbor
	if h.Emulated {
		h = hurriedHarbor(t, scale)
	}
	names := someProjects(projects)
	site, err := harness.NewSite(t.Context(), h, names...)
	if err != nil {
		t.Fatalf("preparing Harbor: %v", err)
	}
	// The test's own context has ended when it cleans up.
	lasting := context.WithoutCancel(t.Context())
	removed := env.later(func() { _ = site.Remove(lasting) })
	t.Cleanup(func() {
		defer removed()
		if err := site.Remove(lasting); err != nil {
			t.Errorf("cleaning up in Harbor: %v", err)
		}
	})
	dir := filepath.Join(env.dir, strings.ReplaceAll(t.Name(), "/", "_")+"-"+names[0])
	f := &fleet{pushes: make(map[string]harness.Pushed)}
	o := harness.Options{
		Programs: env.programs, Dir: dir, Site: site, Enabled: names, Proxy: env.proxy, Receivers: 2, Signers: 2,
		Format: quickFormat(t, h),
	}
	if servers.Nodes > 0 {
		servers.Dir = filepath.Join(dir, "servers")
		f.nats = startNATS(t, servers)
		o.NATS = f.nats
	}
	if o.Advertise, err = env.ports.next(); err != nil {
		t.Fatal(err)
	}
	for _, change := range options {
		change(&o)
	}
	w := &world{site: site, developer: h.NewDeveloper(site.Developer), project: names[0], dir: dir}
	if w.System, err = harness.NewSystem(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	stopped := env.later(w.Kill)
	t.Cleanup(func() { w.end(t); stopped() })
	if w.checker, err = w.Checker(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.stage = &stage{world: w, projects: names}
	for _, project := range names {
		webhook, err := w.AddWebhook(t.Context(), project, "Default")
		if err != nil {
			t.Fatal(err)
		}
		f.webhooks = append(f.webhooks, webhook)
	}
	return f
}

// hurriedHarbor is an emulator of one's own, whose gaps between attempts at a webhook are shorter by scale.
func hurriedHarbor(t *testing.T, scale float64) *harness.Harbor {
	t.Helper()
	speed := harness.EmulatorOptions{RetryScale: scale, DeliveryDelayScale: 0.1}
	h, process, err := harness.StartEmulator(t.Context(), env.programs, t.TempDir(), speed)
	if err != nil {
		t.Fatal(err)
	}
	stopped := env.later(func() { _ = process.Kill() })
	t.Cleanup(func() {
		if err := process.Stop(); err != nil {
			t.Error(err)
		}
		stopped()
	})
	return h
}

// startNATS starts servers that end with the test.
func startNATS(t *testing.T, o harness.NATSOptions) *harness.NATS {
	t.Helper()
	var err error
	if o.Program, err = env.natsServer(); err != nil {
		t.Fatal(err)
	}
	n, err := harness.StartNATS(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ended := env.later(func() { _ = n.Close() })
	t.Cleanup(func() {
		defer ended()
		if t.Failed() {
			t.Log(n.Tails())
		}
		if err := n.Close(); err != nil {
			t.Errorf("ending the servers: %v", err)
		}
	})
	return n
}

// start starts all programs and waits for the first sweeps: from then on nobody finds what no webhook tells of.
func (f *fleet) start(t *testing.T) {
	t.Helper()
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"full", "recent"} {
		// A cluster on a busy machine makes its consumers slowly.
		err := harness.Until(t.Context(), 2*time.Minute, func(ctx context.Context) error {
			n, err := f.sum(ctx, "harborseal_sweeps_total", `kind="`+kind+`"`)
			if err == nil && n == 0 {
				err = fmt.Errorf("no %s sweep was made", kind)
			}
			return err
		})
		if err != nil {
			t.Fatalf("%v\n%s", err, f.Tails())
		}
	}
}

// crowd are developers who push, one into each project, until they are told to end.
type crowd struct {
	fleet   *fleet
	stop    func()
	running sync.WaitGroup

	mu     sync.Mutex
	pushed []harness.Pushed // guarded by mu
}

// settledWithin waits until no webhook is on its way: Harbor may try for minutes.
func (f *fleet) settledWithin(t *testing.T, limit time.Duration) {
	t.Helper()
	if !f.site.Harbor.Emulated {
		return
	}
	err := harness.Until(t.Context(), limit, func(ctx context.Context) error {
		stats, err := f.site.Harbor.Stats(ctx)
		if err == nil && stats.Webhooks.Pending > 0 {
			err = fmt.Errorf("%d webhooks wait", stats.Webhooks.Pending)
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, f.Tails())
	}
}

// pushing lets a developer push into each project, one image after the other at this pace.
func (f *fleet) pushing(t *testing.T, repository string, pace time.Duration) *crowd {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	c := &crowd{fleet: f, stop: stop}
	t.Cleanup(func() { c.end() })
	for _, project := range f.projects {
		c.running.Go(func() {
			ticker := time.NewTicker(pace)
			defer ticker.Stop()
			for n := 0; ctx.Err() == nil; n++ {
				img, err := harness.NewImage(false)
				if err != nil {
					t.Errorf("pushing under load: %v", err)
					return
				}
				p, err := f.developer.Push(context.WithoutCancel(ctx), project+"/"+repository, fmt.Sprintf("n%d", n), img)
				if err != nil {
					t.Errorf("pushing under load: %v", err)
					return
				}
				c.mu.Lock()
				c.pushed = append(c.pushed, p)
				c.mu.Unlock()
				select {
				case <-ctx.Done():
				case <-ticker.C:
				}
			}
		})
	}
	return c
}

// count is how many images were pushed.
func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pushed)
}

// further waits until so many more were pushed.
func (c *crowd) further(t *testing.T, n int) {
	t.Helper()
	want := c.count() + n
	c.fleet.until(t, func(context.Context) error {
		if got := c.count(); got < want {
			return fmt.Errorf("%d images were pushed, want %d", got, want)
		}
		return nil
	})
}

// end ends it, and gives what was pushed.
func (c *crowd) end() []harness.Pushed {
	c.stop()
	c.running.Wait()
	c.fleet.mu.Lock()
	defer c.fleet.mu.Unlock()
	for _, p := range c.pushed {
		if _, ok := c.fleet.pushes[p.Digest]; !ok {
			c.fleet.pushes[p.Digest] = p
			c.fleet.pushed = append(c.fleet.pushed, p)
		}
	}
	return c.pushed
}

// awaitSigned waits until each receiver that runs reports all of them as signed.
func (f *fleet) awaitSigned(t *testing.T, pushed []harness.Pushed, limit time.Duration) {
	t.Helper()
	for _, receiver := range f.Receivers {
		if !receiver.Process.Running() {
			continue
		}
		err := harness.Until(t.Context(), limit, func(ctx context.Context) error {
			rows, err := f.reportOf(receiver).Rows(ctx, url.Values{"limit": {"500"}, "state": {"signed"}})
			if err != nil {
				return err
			}
			signed := make(map[string]bool)
			for _, row := range rows {
				signed[row.Repository+"@"+row.Digest] = true
			}
			var missing []string
			for _, p := range pushed {
				if !signed[p.Repository+"@"+p.Digest] {
					missing = append(missing, p.Repository+"@"+p.Digest)
				}
			}
			if len(missing) > 0 {
				return fmt.Errorf("%s does not report %d of %d images as signed, such as %s", receiver.Name, len(missing), len(pushed), missing[0])
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%v\n%s", err, f.Tails())
		}
	}
}

// reportOf is the report of one receiver.
func (f *fleet) reportOf(receiver *harness.Program) checker.Report {
	return checker.Report{URL: "http://" + receiver.Listen, Token: f.Token}
}

// judgeFleet looks from the outside: everything is signed once, and each receiver that runs reports just that.
func (f *fleet) judgeFleet(t *testing.T) {
	t.Helper()
	f.settled(t)
	f.judge(t)
	var first []checker.Row
	for _, receiver := range f.Receivers {
		if !receiver.Process.Running() {
			continue
		}
		rows, err := f.reportOf(receiver).Rows(t.Context(), url.Values{"limit": {"500"}})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = rows
			continue
		}
		for _, row := range rows {
			if !slices.ContainsFunc(first, func(o checker.Row) bool {
				return o.Repository == row.Repository && o.Digest == row.Digest && o.State == row.State && o.SignatureDigest == row.SignatureDigest
			}) {
				t.Errorf("%s reports %s@%s as %s, which the first receiver does not", receiver.Name, row.Repository, row.Digest, row.State)
			}
		}
		if len(rows) != len(first) {
			t.Errorf("%s reports %d rows, the first receiver %d", receiver.Name, len(rows), len(first))
		}
	}
}

// tidings is how Harbor's reports of some pushes fared.
type tidings struct {
	// first were taken at once, again at the second or third attempt, never not at all: those the sweep has to find.
	first, again, never int
}

func (n tidings) String() string {
	return fmt.Sprintf("%d webhooks were taken at once, %d at a further attempt, %d never (found by the sweep)", n.first, n.again, n.never)
}

// tidings asks Harbor how its reports of these pushes fared; none may be on its way any more.
func (f *fleet) tidings(t *testing.T, pushed []harness.Pushed) tidings {
	t.Helper()
	wanted := make(map[string]bool)
	for _, p := range pushed {
		wanted[p.Digest] = true
	}
	var n tidings
	for _, webhook := range f.webhooks {
		for _, runs := range f.deliveries(t, webhook.Project, wanted) {
			switch runs {
			case 0:
				n.never++
			case 1:
				n.first++
			default:
				n.again++
			}
		}
	}
	return n
}

// deliveries gives how many attempts each delivery took of those that tell of these digests; 0 for one that was given up.
func (f *fleet) deliveries(t *testing.T, project string, wanted map[string]bool) []int {
	t.Helper()
	h := f.site.Harbor
	var policies []struct {
		ID int64 `json:"id"`
	}
	root := "/api/v2.0/projects/" + project + "/webhook/policies"
	ask(t, h, http.MethodGet, root, nil, http.StatusOK, &policies)
	var runs []int
	for _, policy := range policies {
		for page := 1; ; page++ {
			var executions []struct {
				ID     int64  `json:"id"`
				Status string `json:"status"`
				Extra  struct {
					Payload string `json:"payload"`
				} `json:"extra_attrs"`
			}
			at := fmt.Sprintf("%s/%d/executions", root, policy.ID)
			ask(t, h, http.MethodGet, fmt.Sprintf("%s?page_size=100&page=%d", at, page), nil, http.StatusOK, &executions)
			for _, e := range executions {
				if !wanted[digestIn(t, e.Extra.Payload)] {
					continue
				}
				var tasks []struct {
					Runs int `json:"run_count"`
				}
				ask(t, h, http.MethodGet, fmt.Sprintf("%s/%d/tasks", at, e.ID), nil, http.StatusOK, &tasks)
				if e.Status != "Success" || len(tasks) != 1 {
					runs = append(runs, 0)
				} else {
					runs = append(runs, tasks[0].Runs)
				}
			}
			if len(executions) < 100 {
				break
			}
		}
	}
	return runs
}

// digestIn gives what a webhook tells of.
func digestIn(t *testing.T, payload string) string {
	t.Helper()
	var event struct {
		Data struct {
			Resources []struct {
				Digest string `json:"digest"`
			} `json:"resources"`
		} `json:"event_data"`
	}
	if err := json.Unmarshal([]byte(payload), &event); err != nil || len(event.Data.Resources) == 0 {
		t.Fatalf("a webhook tells %q, %v", payload, err)
	}
	return event.Data.Resources[0].Digest
}
