package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/harborseal/harborseal/e2e/chaos/plan"
	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// patience is how long somebody waits for one push or one answer.
const patience = 20 * time.Second

// play does a plan: every project's actions one after the other, and the faults of their own accord. When it returns nothing is
// done any more, and what was broken last is mended.
func (w *world) play(ctx context.Context, p *plan.Plan) error {
	began := time.Now()
	var lanes sync.WaitGroup
	for _, project := range plan.Projects() {
		lanes.Go(func() {
			for _, a := range p.Lane(project.Name) {
				if !w.wait(ctx, began.Add(time.Duration(a.At))) {
					return
				}
				w.do(ctx, a)
			}
		})
	}
	for _, a := range p.Faults() {
		lanes.Go(func() {
			if w.wait(ctx, began.Add(time.Duration(a.At))) {
				w.breakFor(ctx, a)
			}
		})
	}
	done := make(chan struct{})
	go func() { defer close(done); lanes.Wait() }()
	w.report(began, time.Duration(p.Duration), done)
	return context.Cause(ctx)
}

// report says now and then how far it is.
func (w *world) report(began time.Time, duration time.Duration, done <-chan struct{}) {
	ticker := time.NewTicker(15 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			w.say("%d%%: %d pushes, %d faults", min(100, int(100*time.Since(began)/duration)), w.journal.count(checker.StepPush), w.journal.count(checker.StepFault))
		}
	}
}

// wait waits until a time; false means that the run was broken off.
func (w *world) wait(ctx context.Context, until time.Time) bool {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// do does one action of a lane, and writes into the journal what came of it.
func (w *world) do(ctx context.Context, a plan.Action) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	switch a.Do {
	case plan.Push:
		w.push(ctx, a)
	case plan.Attach:
		w.attach(ctx, a)
	case plan.Delete:
		w.delete(ctx, a)
	case plan.Foreign:
		w.signForeign(ctx, a)
	case plan.Policy:
		_ = w.ask(ctx, a.Project, *a.Settings) // it is in the journal
	case plan.Fault:
	}
}

// done writes a step into the journal; an error means that nobody knows what came of it.
func (w *world) done(s checker.Step, err error) {
	s.Ended, s.Accepted = time.Now(), err == nil
	if err != nil {
		s.Detail = fmt.Sprintf("%.300s", err)
	}
	w.journal.write(s)
}

func (w *world) push(ctx context.Context, a plan.Action) {
	content, err := contentOf(w.seed, a)
	if err != nil {
		w.say("%v", err)
		return
	}
	began := time.Now()
	pushed, err := w.developer.Push(ctx, a.Project+"/"+a.Repository, a.Tag, content)
	for _, one := range pushed.All() {
		w.done(checker.Step{
			Kind: checker.StepPush, Began: began, Repository: one.Repository, Digest: one.Digest, Tag: one.Tag, Parent: one.Parent,
		}, err)
	}
}

func (w *world) attach(ctx context.Context, a plan.Action) {
	subject, err := w.subject(a)
	if err != nil {
		w.say("%v", err)
		return
	}
	img, err := image(a.Tag + " to " + subject.Digest)
	if err == nil {
		img, err = harness.NewAccessory(img, subject)
	}
	if err != nil {
		w.say("%v", err)
		return
	}
	began := time.Now()
	pushed, err := w.developer.Push(ctx, subject.Repository, a.Tag, img)
	w.done(checker.Step{
		Kind: checker.StepPush, Began: began, Repository: pushed.Repository, Digest: pushed.Digest, Tag: a.Tag, Subject: subject.Digest,
	}, err)
}

func (w *world) delete(ctx context.Context, a plan.Action) {
	subject, err := w.subject(a)
	if err != nil {
		w.say("%v", err)
		return
	}
	began := time.Now()
	err = w.harbor.DeleteArtifact(ctx, subject.Repository, subject.Digest)
	// Harbor takes the children of an index with it that nothing else holds.
	for _, one := range subject.All() {
		w.done(checker.Step{Kind: checker.StepDelete, Began: began, Repository: one.Repository, Digest: one.Digest, Parent: one.Parent}, err)
	}
}

// signForeign lets a cosign program sign with a key that is none of ours.
func (w *world) signForeign(ctx context.Context, a plan.Action) {
	subject, err := w.subject(a)
	if err != nil {
		w.say("%v", err)
		return
	}
	public, err := os.ReadFile(w.foreign.Public)
	if err != nil {
		w.say("%v", err)
		return
	}
	password, err := os.ReadFile(w.foreign.Password)
	if err != nil {
		w.say("%v", err)
		return
	}
	began := time.Now()
	_, err = w.cosign.RunWith(ctx, []string{"COSIGN_PASSWORD=" + strings.TrimSpace(string(password))}, "sign", "--yes", "--key",
		w.foreign.Private, "--tlog-upload=false", w.harbor.Host+"/"+subject.Repository+"@"+subject.Digest)
	w.done(checker.Step{
		Kind: checker.StepForeign, Began: began, Repository: subject.Repository, Digest: subject.Digest, Format: checker.Legacy, Key: string(public),
	}, err)
}

// ask asks for settings of a project once.
func (w *world) ask(ctx context.Context, project string, s plan.Settings) error {
	step := checker.Step{Kind: checker.StepPolicy, Began: time.Now(), Project: project, Enabled: s.Mode == "sign"}
	if step.Enabled {
		step.Backfill, step.Keys = true, []string{keyOf(s)}
		switch s.Format {
		case "both":
			step.Formats = checker.Formats()
		default:
			step.Formats = []checker.Format{checker.Format(s.Format)}
		}
	}
	err := w.put(ctx, project, s)
	w.done(step, err)
	return err
}

func keyOf(s plan.Settings) string {
	if s.Logged {
		return loggedKey
	}
	return plainKey
}

// put replaces a project's policy, whatever it is, as Harbor's administrator.
func (w *world) put(ctx context.Context, project string, s plan.Settings) error {
	path := "/api/v1/projects/" + project
	found, err := w.system.Call(ctx, w.harbor.Admin(), http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	var header http.Header
	if etag := found.Header.Get("ETag"); etag != "" {
		header = http.Header{"If-Match": {etag}}
	}
	method, body := http.MethodPut, map[string]any(nil)
	if s.Mode == "off" {
		method = http.MethodDelete
	} else {
		body = map[string]any{"mode": s.Mode, "format": s.Format, "key": keyOf(s), "backfill": "all", "transparency": "off"}
		if s.Logged {
			body["transparency"], body["log"] = "deferred", logName
		}
	}
	var sent any
	if body != nil {
		sent = body
	}
	answer, err := w.system.Call(ctx, w.harbor.Admin(), method, path, sent, header)
	if err == nil && answer.Status >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s %s: the answer is %d: %.300s", method, path, answer.Status, answer.Body)
	}
	return err
}

// insist asks for settings until they are in force.
func (w *world) insist(ctx context.Context, project string, s plan.Settings) error {
	return harness.Until(ctx, time.Minute, func(ctx context.Context) error { return w.ask(ctx, project, s) })
}
