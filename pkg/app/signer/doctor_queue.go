package signer

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// checkQueue connects, reads the policies, and asks a receiver what it sees.
func (d *doctor) checkQueue(ctx context.Context) {
	c := preflight.Check{Name: preflight.Queue, Status: preflight.OK, Detail: "connected; events and requests would be stored"}
	if len(d.cfg.Queue.URLs) > 0 {
		c.Subject = d.cfg.Queue.URLs[0]
	}
	client, err := dialQueue(ctx, d.cfg, d.app.dialer, "signer-doctor")
	if err != nil {
		c.Status, c.Detail = preflight.Failed, err.Error()
		c.Fix = "see that the queue runs (by default in the receiver), that queue.urls is its address, and that user, password and certificate are its own"
		d.add(
			c, preflight.Check{Name: preflight.Policies, Status: preflight.Skipped, Detail: "cannot be read without the queue"},
			preflight.Check{Name: preflight.Receiver, Status: preflight.Skipped, Detail: "cannot be asked without the queue"},
		)
		return
	}
	d.queue = client
	if err := client.Writable(ctx); err != nil {
		c.Status, c.Detail = preflight.Failed, err.Error()
		c.Fix = "see the queue's disk and its limit (queue.embedded.max_store); where nothing has ever run, start the receiver and a signer once"
	}
	d.add(c)
	d.checkPolicies(ctx)
	checks := d.askReceiver(ctx, "")
	d.answered = !slices.ContainsFunc(checks, func(c preflight.Check) bool { return c.Name == preflight.Receiver && c.Unknown })
	d.add(checks...)
}

func (d *doctor) checkPolicies(ctx context.Context) {
	c := preflight.Check{Name: preflight.Policies, Status: preflight.OK}
	policies := book.New(d.cfg.Terms())
	err := readPolicies(ctx, d.queue, policies.Apply)
	if err == nil {
		policies.Loaded()
		d.book = policies
		// Of no project: what is about all.
		var all policy.Policy
		if all, err = policies.Policy(ctx, ""); err == nil && all.Pause != nil {
			d.add(paused("", *all.Pause))
		}
	}
	if err != nil {
		c.Status, c.Detail = preflight.Failed, err.Error()
		c.Fix = "nothing is signed while the policies cannot be read: see the queue, and upgrade this program if a newer one wrote them"
		d.add(c)
		return
	}
	listed, globs, err := policies.Projects()
	if err != nil {
		c.Status, c.Detail = preflight.Failed, err.Error()
		d.add(c)
		return
	}
	c.Detail = fmt.Sprintf("read; %d projects have one", len(listed))
	if globs {
		c.Detail = fmt.Sprintf("read; %d projects have one of their own, others by globs", len(listed))
	}
	d.add(c)
}

// paused is a warning, because somebody meant it.
func paused(project string, p policy.Pause) preflight.Check {
	resume := "signer resume"
	if project != "" {
		resume += " --project " + project
	}
	return preflight.Check{
		Name: preflight.Pause, Subject: project, Status: preflight.Warning,
		Detail: fmt.Sprintf("signing is paused since %s by %s: %s", p.At.UTC().Format(time.RFC3339), p.By, p.Reason),
		Fix:    "run " + resume + " when signing may go on",
	}
}

// projects gives the one that was asked for, or all that are enabled.
func (d *doctor) projects(ctx context.Context) []string {
	switch {
	case d.opts.Project != "":
		return []string{d.opts.Project}
	case d.book == nil:
		d.add(preflight.Check{
			Name: preflight.Project, Status: preflight.Skipped,
			Detail: "which projects are enabled is not known without the policies: name one with --project",
		})
		return nil
	}
	var listed []string
	if d.app.listing != nil {
		all, err := d.app.harbor.AllProjects(ctx)
		if err != nil { // those that are named are known all the same
			d.add(preflight.Check{
				Name: preflight.Project, Status: preflight.Skipped, Detail: "Harbor's projects could not be listed, and those that only globs mean are left out: " + err.Error(),
			})
		}
		for _, p := range all {
			listed = append(listed, p.Name)
		}
	}
	enabled, err := d.book.Enabled(listed)
	if err != nil {
		d.add(preflight.Check{
			Name: preflight.Policies, Subject: "unreadable", Status: preflight.Failed, Detail: err.Error(),
			Fix: "upgrade this program if a newer one wrote them, or put the policy anew",
		})
	}
	if len(enabled) == 0 && err == nil {
		d.add(preflight.Check{
			Name: preflight.Project, Status: preflight.Warning, Detail: "no project is enabled",
			Fix: "enable one with PUT /api/v1/projects/{name}, or in the receiver's configuration",
		})
	}
	return enabled
}

// policyOf says what the policies say of a project, and what to check it for.
func (d *doctor) policyOf(ctx context.Context, name string) (preflight.Request, []preflight.Check) {
	request := preflight.Request{Project: name}
	c := preflight.Check{Name: preflight.Policies, Subject: name, Status: preflight.OK}
	if d.book == nil {
		c.Status, c.Detail = preflight.Skipped, "could not be read: the signer's own format and key are taken"
		return request, []preflight.Check{c}
	}
	p, err := d.book.Policy(ctx, name)
	if err != nil {
		c.Status, c.Detail, c.Fix = preflight.Failed, err.Error(), "upgrade this program if a newer one wrote it, or put the policy anew"
		return request, []preflight.Check{c}
	}
	request.Format, request.Key, request.ResignOnRotation = p.Terms.Format, p.Terms.Key, p.Terms.ActiveKeyOnly
	request.Tags = p.NeedsTags()
	checks := []preflight.Check{c}
	switch {
	case !p.Enabled():
		checks[0].Status, checks[0].Detail = preflight.Warning, "the project is not enabled: nothing is signed"
		checks[0].Fix = "enable it with PUT /api/v1/projects/" + name + ", or in the receiver's configuration"
	case p.SuspendedFor != 0:
		checks[0].Status, checks[0].Detail = preflight.Failed, "the project was deleted and made anew: nothing is signed"
		checks[0].Fix = "enable it again with PUT /api/v1/projects/" + name + ", if the new one is meant"
	default:
		checks[0].Detail = fmt.Sprintf("mode %s, from %s, revision %s", p.Mode, p.Manager, p.Revision)
	}
	if all, err := d.book.Policy(ctx, ""); err == nil && all.Pause == nil && p.Pause != nil {
		checks = append(checks, paused(name, *p.Pause))
	}
	return request, checks
}
