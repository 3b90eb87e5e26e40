package signer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/preflight"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

const (
	// doctorTime bounds everything, and projectsAtOnce how many projects are looked at beside each other.
	doctorTime     = 5 * time.Minute
	projectsAtOnce = 2
)

// DoctorOptions say what [Doctor] looks at.
type DoctorOptions struct {
	// Project is looked at, in place of all that are enabled.
	Project string
	// PushTest has an image pushed into Project, signed, verified and deleted again.
	PushTest bool
	// Progress is told what is being done, by one goroutine; nil for nobody.
	Progress func(format string, args ...any)
}

// Report is what [Doctor] has found. Its JSON form is for machines: fields are added, never renamed.
type Report struct {
	Checks  []preflight.Check `json:"checks"`
	Summary Summary           `json:"summary"`
}

// Summary counts the checks by their status.
type Summary struct {
	OK       int `json:"ok"`
	Warnings int `json:"warnings"`
	Failed   int `json:"failed"`
	Skipped  int `json:"skipped"`
}

// doctor is one run. Its fields are set by one goroutine, before others read them.
type doctor struct {
	cfg   *config.Signer
	opts  DoctorOptions
	app   *App
	ring  *sigstore.Keyring // of the keys that could be opened; nil if that is none
	queue *queue.Client     // nil if it does not answer
	book  *book.Book        // nil if the policies could not be read
	// answered says that a receiver has answered.
	answered bool
	checks   []preflight.Check
}

// Doctor checks everything that signing needs, with the account and the keys of this configuration, and, over the queue, with
// those of a receiver. It changes nothing, unless it is told to push an image. One thing that is wrong hides nothing else; a
// report is always given, within minutes at most.
func Doctor(ctx context.Context, cfg *config.Signer, opts DoctorOptions) Report {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	if opts.Progress == nil {
		opts.Progress = func(string, ...any) {}
	}
	d := &doctor{cfg: cfg, opts: opts, app: &App{
		cfg: cfg, logger: zerolog.Nop(), registry: prometheus.NewRegistry(), dialer: dialerOf(cfg), connected: make(chan struct{}),
	}}
	defer d.close()
	opts.Progress("opening the keys")
	d.open(ctx)
	d.checkKeys(ctx)
	opts.Progress("asking logs, timestamp authorities and key services")
	d.checkDependencies(ctx)
	opts.Progress("asking Harbor")
	d.checkHarbor(ctx)
	opts.Progress("asking the queue")
	d.checkQueue(ctx)
	projects := d.projects(ctx)
	d.checkProjects(ctx, projects)
	if opts.PushTest {
		opts.Progress("signing a test image in %s", opts.Project)
		d.add(d.pushTest(ctx))
	}
	checks := preflight.Merge(withoutEchoes(d.checks))
	return Report{Checks: checks, Summary: summarize(checks)}
}

// withoutEchoes leaves out that there is no active key of a name where it was said why it could not be opened.
func withoutEchoes(checks []preflight.Check) []preflight.Check {
	failed := map[string]bool{}
	return slices.DeleteFunc(checks, func(c preflight.Check) bool {
		if c.Name != preflight.Key || c.Status != preflight.Failed {
			return false
		}
		echo := failed[c.Subject]
		failed[c.Subject] = true
		return echo
	})
}

func summarize(checks []preflight.Check) Summary {
	var s Summary
	for _, c := range checks {
		switch c.Status {
		case preflight.OK:
			s.OK++
		case preflight.Warning:
			s.Warnings++
		case preflight.Failed:
			s.Failed++
		default:
			s.Skipped++
		}
	}
	return s
}

func (d *doctor) add(checks ...preflight.Check) { d.checks = append(d.checks, checks...) }

// close lets go of what was opened. What fails now has no consequences.
func (d *doctor) close() {
	if d.queue != nil {
		d.queue.Close()
	}
	_ = d.app.engine.close()
	if d.app.transport != nil {
		d.app.transport.CloseIdleConnections()
	}
	_ = d.app.dialer.Close()
}

// open makes the parts of a signer, as far as the configuration lets it.
func (d *doctor) open(ctx context.Context) {
	c := preflight.Check{Name: preflight.Configuration, Status: preflight.OK, Detail: "all files that it names can be read"}
	err := errors.Join(config.CheckFiles(d.cfg), shell.CheckQueue(d.cfg.Queue))
	if buildErr := d.app.build(ctx); d.app.listing == nil {
		err = errors.Join(err, buildErr)
		// The keys come last, and say themselves what is wrong with them.
		_ = d.app.engine.openKeys(ctx, d.app)
	}
	if err != nil {
		c.Status, c.Detail, c.Fix = preflight.Failed, err.Error(), "mend what the detail names; signer --check-config says it as well"
	}
	d.add(c)
}

// checkHarbor looks at the way to Harbor, the account, and what is about no project.
func (d *doctor) checkHarbor(ctx context.Context) {
	if d.app.listing == nil {
		return // the configuration's own check says why
	}
	h := d.cfg.Harbor
	account := preflight.ForAccount{
		Harbor: d.app.harbor, URL: h.URL, Account: h.Username, Transport: d.app.transport, Expiry: d.app.harbor.RobotExpiry,
	}
	d.add(account.Check(ctx)...)
	d.add(d.signer().Check(ctx, preflight.Request{})...)
}

func (d *doctor) signer() preflight.ForSigner {
	s := preflight.ForSigner{
		Harbor: d.app.harbor, Keys: noKeys{}, Defaults: d.cfg.Terms(), Account: d.cfg.Harbor.Username, Means: d.app.means,
	}
	if d.ring != nil {
		s.Keys = d.ring
	}
	return s
}

// noKeys is for a signer none of whose keys could be opened.
type noKeys struct{}

// KeyID implements preflight.Keys.
func (noKeys) KeyID(string) (string, bool) { return "", false }

// checkProjects looks at each project with this signer's account, and has a receiver look with its own.
func (d *doctor) checkProjects(ctx context.Context, projects []string) {
	results := make([][]preflight.Check, len(projects))
	slots := make(chan struct{}, projectsAtOnce)
	var running sync.WaitGroup
	for i, name := range projects {
		slots <- struct{}{}
		d.opts.Progress("project %d of %d: %s", i+1, len(projects), name)
		running.Go(func() {
			defer func() { <-slots }()
			results[i] = d.project(ctx, name)
		})
	}
	running.Wait()
	for _, r := range results {
		d.add(r...)
	}
}

func (d *doctor) project(ctx context.Context, name string) []preflight.Check {
	request, checks := d.policyOf(ctx, name)
	var own, receiver []preflight.Check
	var running sync.WaitGroup
	if d.app.listing != nil {
		running.Go(func() { own = d.signer().Check(ctx, request) })
	}
	if d.answered { // else it was said once, and every project would wait for nobody
		running.Go(func() { receiver = d.askReceiver(ctx, name) })
	}
	running.Wait()
	return preflight.Merge(checks, own, receiver)
}

// askReceiver gives one check if there is no answer.
func (d *doctor) askReceiver(ctx context.Context, project string) []preflight.Check {
	checks, err := preflight.AskReceiver(ctx, d.queue, project)
	if err != nil {
		return []preflight.Check{{
			Name: preflight.Receiver, Subject: project, Status: preflight.Failed, Unknown: true, Detail: err.Error(),
			Fix: "see that a receiver runs, reaches the queue, and is not older than this signer",
		}}
	}
	return checks
}
