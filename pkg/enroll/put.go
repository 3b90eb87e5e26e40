package enroll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// fullTick is the kind of tick that a signer answers with a full sweep.
const fullTick = "full"

// Get gives a project as it is now. One that nobody enabled is no error: it is not enabled.
func (s *Service) Get(ctx context.Context, project string) (View, error) {
	c, err := s.load(ctx, project)
	if err != nil {
		return View{}, err
	}
	return s.view(ctx, c)
}

// Put enables a project or changes its policy.
//
// ifMatch is the header of the request: the ETag of the policy that is to be replaced. It is required where there is a
// policy, be it off (ErrPreconditionRequired), and refused where there is none; a stale one is policy.ErrConflict. A
// repetition of a change that is in force already, by the same actor, is a success whatever its ETag says, so that a lost
// answer can be asked for again.
//
// Errors: policy.FieldError for a request that makes no sense, ErrManagedByConfig, ErrNoHarbor, RefusedError where the
// pre-checks have failed, and faults. Where it is about neither signing's beginning nor its terms, failed checks are
// warnings.
//
// It takes these steps, each of which is safe to repeat:
//  1. the policy's document, with compare-and-set. A crash before it leaves everything as it was. From here on the policy is
//     in force; whoever comes next, Put or the drift check, does the rest.
//  2. the event, from the bucket's history. A crash before it: the next change or check records it, with the same id.
//  3. the state, with the version of the webhook's secret, which counts from then on.
//  4. Harbor's webhook. A crash after it: the next call knows the webhook by its name and address.
//  5. the state again, with the webhook's id.
//  6. a full sweep, in a slot that is the time of the change, so that a repetition proposes the same one.
func (s *Service) Put(ctx context.Context, actor Actor, project string, req PutRequest, ifMatch string) (View, error) {
	if s.cfg.Harbor == nil {
		return View{}, ErrNoHarbor
	}
	if req.Mode == "" {
		req.Mode = policy.ModeSign
	}
	c, err := s.load(ctx, project)
	if err != nil {
		return View{}, err
	}
	if c.rule != nil {
		return View{}, ErrManagedByConfig
	}
	applied := c.applied(actor, req)
	if err := c.precondition(ifMatch, applied); err != nil {
		return View{}, err
	}
	next, err := s.plan(c, actor, req)
	if err != nil {
		return View{}, err
	}
	var found artifact.Project
	var warnings []preflight.Check
	if next.Policy(0).Enabled() {
		if found, warnings, err = s.examine(ctx, actor, c, &next, req); err != nil {
			return View{}, err
		}
		applied = applied && found.ID == c.document.ProjectID
		if err := c.precondition(ifMatch, applied); err != nil {
			return View{}, err // it was about the project that stood here before
		}
	} else if next.ProjectID == 0 {
		return View{}, ErrNoPolicy // there is nothing to switch off
	}
	if !applied {
		if err := s.replace(ctx, &c, next); err != nil {
			return View{}, err
		}
		s.cfg.Logger.Info().Str("project", project).Str("actor", actor.Name).Str("mode", string(next.Mode)).
			Str("backfill", next.Backfill.Choice).Uint64("revision", c.revision).Msg("policy changed")
	}
	if err := s.follow(ctx, &c, found); err != nil {
		return View{}, err
	}
	view, err := s.view(ctx, c)
	view.Warnings = warnings
	return view, err
}

// Delete disables a project: the mode becomes off, and our webhook goes. Everything else of the policy stays for the record.
// ifMatch may be empty. It is safe to repeat; a project that nobody enabled is disabled already.
func (s *Service) Delete(ctx context.Context, actor Actor, project, ifMatch string) (View, error) {
	c, err := s.load(ctx, project)
	if err != nil {
		return View{}, err
	}
	switch {
	case c.rule != nil:
		return View{}, ErrManagedByConfig
	case c.document == nil:
		return s.view(ctx, c)
	}
	if c.document.Mode != policy.ModeOff {
		if ifMatch != "" && !c.matches(ifMatch) {
			return View{}, conflict()
		}
		next := *c.document
		next.Mode = policy.ModeOff
		s.sign(&next, actor)
		if err := s.replace(ctx, &c, next); err != nil {
			return View{}, err
		}
		s.cfg.Logger.Info().Str("project", project).Str("actor", actor.Name).Uint64("revision", c.revision).Msg("project disabled")
	}
	if err := s.follow(ctx, &c, artifact.Project{}); err != nil {
		return View{}, err
	}
	return s.view(ctx, c)
}

// replace puts the next document in the place of the one that was loaded.
func (s *Service) replace(ctx context.Context, c *current, next stored) error {
	// What has happened until now is recorded first, so that the history never loses what nobody has recorded.
	if c.document != nil {
		if err := s.recordChanges(ctx, c.project, c.revision); err != nil {
			return err
		}
	}
	entry, err := s.put(ctx, next, c.revision)
	if err != nil {
		return err
	}
	before := c.document
	c.document, c.revision = &next, entry.Revision
	return s.recordChange(ctx, entry, before, &next)
}

// follow does all that follows from the document that is in force. found is the project in Harbor, where it is enabled.
func (s *Service) follow(ctx context.Context, c *current, found artifact.Project) error {
	if err := s.recordChanges(ctx, c.project, c.revision); err != nil {
		return err
	}
	var err error
	if c.document.Policy(c.revision).Enabled() {
		if err = s.keepWebhook(ctx, found); err == nil {
			err = s.end(ctx, c.project, projectReplaced, projectGone)
		}
	} else {
		err = s.dropWebhook(ctx, c.state)
	}
	if err != nil {
		return err
	}
	if c.state, _, err = s.state(ctx, c.project); err != nil {
		return err
	}
	return s.sweepFor(ctx, *c)
}

// sweepFor proposes the full sweep that a change asks for. It may be proposed again: the slot is that of the change.
func (s *Service) sweepFor(ctx context.Context, c current) error {
	if !c.working() {
		return nil
	}
	return s.propose(ctx, c.project, -c.document.ChangedAt.UnixNano())
}

func (s *Service) propose(ctx context.Context, project string, slot int64) error {
	if _, err := s.cfg.Queue.Propose(ctx, fullTick, project, slot); err != nil {
		return fmt.Errorf("proposing a full sweep: %w", err)
	}
	return nil
}

// Sweep asks for a full sweep of a project now. The error may be a [*TooOftenError].
func (s *Service) Sweep(ctx context.Context, actor Actor, project string) error {
	c, err := s.load(ctx, project)
	if err != nil {
		return err
	}
	if !c.working() {
		return ErrNotEnabled
	}
	if wait := s.limits.take(project, s.cfg.Now()); wait > 0 {
		return &TooOftenError{RetryAfter: wait}
	}
	s.cfg.Logger.Info().Str("project", project).Str("actor", actor.Name).Msg("full sweep asked for")
	return s.propose(ctx, project, -s.cfg.Now().UnixNano())
}

// plan makes the next document of what is asked for. The project's id is that of before; it is 0 for a new one.
func (s *Service) plan(c current, actor Actor, req PutRequest) (stored, error) {
	next := stored{Document: policy.Document{Project: c.project}}
	if c.document != nil {
		next = *c.document
	}
	next.Spec = req.Spec
	err := req.Validate()
	backfill, backfillErr := s.backfill(c, req)
	if err := errors.Join(err, backfillErr); err != nil {
		return stored{}, err
	}
	next.Backfill = backfill
	s.sign(&next, actor)
	return next, nil
}

// backfill gives what is done about the images of before. Where signing or observing begins, somebody has to say it: what was
// observed is not signed by a word that was meant for looking.
func (s *Service) backfill(c current, req PutRequest) (policy.Backfill, error) {
	begins := req.Mode != policy.ModeOff && !c.working() || req.Mode == policy.ModeSign && c.policy().Mode != policy.ModeSign
	switch {
	case !begins && c.document != nil && (req.Backfill == "" || req.Backfill == c.document.Backfill.Choice):
		return c.document.Backfill, nil
	case !begins && req.Backfill == "":
		req.Backfill = "none"
	}
	return policy.ParseBackfill(req.Backfill, s.cfg.Now())
}

// sign notes who changes a document, and when.
func (s *Service) sign(d *stored, actor Actor) {
	d.ChangedBy, d.ChangedFrom, d.ChangedAt = actor.Name, actor.From, s.cfg.Now().UTC()
}

// examine asks whether the project can be signed. It sets the project's id in next.
func (s *Service) examine(ctx context.Context, actor Actor, c current, next *stored, req PutRequest) (artifact.Project, []preflight.Check, error) {
	checks := s.precheck(ctx, actor, c.project, next.Spec)
	found, err := s.cfg.Harbor.Project(ctx, c.project)
	replaced := err == nil && c.document != nil && c.document.ProjectID != found.ID
	if next.Canary && (replaced || !c.canary()) {
		checks = append(checks, s.checkCanary(ctx, actor))
	}
	failures := preflight.Failures(checks)
	if len(failures) > 0 && (err != nil || replaced || c.demands(next.Spec)) {
		return artifact.Project{}, nil, &RefusedError{Checks: failures}
	}
	if err != nil {
		return artifact.Project{}, nil, fmt.Errorf("looking for the project: %w", err)
	}
	if replaced {
		// Whoever sends a change may not know that the images are others now.
		if next.Backfill, err = policy.ParseBackfill(req.Backfill, s.cfg.Now()); err != nil {
			return artifact.Project{}, nil, err
		}
	}
	next.ProjectID = found.ID
	return found, append(failures, preflight.Warnings(checks)...), nil
}

// demands says whether a change asks for more than was there, so that everything has to be right for it.
func (c current) demands(next policy.Spec) bool {
	if !c.working() || c.document == nil {
		return true
	}
	now := c.document.Spec
	return next.Mode == policy.ModeSign && now.Mode != policy.ModeSign ||
		next.Format != now.Format || next.Key != now.Key || next.ResignOnRotation && !now.ResignOnRotation ||
		next.Transparency != now.Transparency || next.Log != now.Log || next.Timestamp != now.Timestamp || next.Canary && !now.Canary
}

// canary says whether the project is a canary already, so that somebody was asked whether it may be one.
func (c current) canary() bool { return c.working() && c.document != nil && c.document.Canary }

// applied says whether what is asked for is what is there already, from the same actor.
func (c current) applied(actor Actor, req PutRequest) bool {
	if c.document == nil || c.document.ChangedBy != actor.Name || c.policy().SuspendedFor != 0 {
		return false
	}
	if req.Backfill != "" && req.Backfill != c.document.Backfill.Choice {
		return false
	}
	asked, err := json.Marshal(req.Spec)
	if err != nil {
		return false
	}
	there, err := json.Marshal(c.document.Spec)
	return err == nil && string(asked) == string(there)
}

// precondition judges If-Match.
//
// SPEC: RFC 9110, section 13.1.1: a server may take a change whose precondition fails for a success if the change has been
// applied already.
func (c current) precondition(ifMatch string, applied bool) error {
	switch {
	case c.document == nil && ifMatch != "":
		return fmt.Errorf("%w: the project has none", conflict())
	case c.document == nil:
		return nil
	case ifMatch == "":
		return ErrPreconditionRequired
	case !applied && !c.matches(ifMatch):
		return conflict()
	default:
		return nil
	}
}

func conflict() error {
	return fmt.Errorf("the ETag is not that of the policy: %w", policy.ErrConflict)
}

// matches compares by the strong comparison: a weak ETag names nothing that can be replaced.
func (c current) matches(ifMatch string) bool {
	for tag := range strings.SplitSeq(ifMatch, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || tag == c.etag() {
			return true
		}
	}
	return false
}

// etag names the document, quoted.
func (c current) etag() string {
	if c.document == nil {
		return ""
	}
	return `"` + c.document.Policy(c.revision).Revision + `"`
}

// view makes what is shown.
func (s *Service) view(ctx context.Context, c current) (View, error) {
	p := c.policy()
	v := View{
		Project: c.project, ProjectID: p.ProjectID, Enabled: c.working(), ManagedBy: p.Manager, ETag: c.etag(), Revision: p.Revision,
		SuspendedFor: p.SuspendedFor, Problems: c.state.Problems, CheckedAt: c.state.CheckedAt,
	}
	live, err := s.cfg.Book.Policy(ctx, c.project)
	if err != nil {
		return View{}, err
	}
	v.Paused = live.Pause
	switch d := c.document; {
	case c.rule != nil:
		v.ProjectID, v.ETag = c.state.ProjectID, ""
		v.Policy, v.Backfill = s.declaredSpec(c.project)
		v.Blocks = c.policy().Blocks
	case d != nil:
		v.Policy, v.Backfill, v.Blocks = &d.Spec, &d.Backfill, d.Blocks
		v.ChangedBy, v.ChangedAt = d.ChangedBy, d.ChangedAt
	}
	if s.cfg.Harbor != nil && p.Enabled() {
		v.Webhook = s.webhookView(c)
	}
	return v, nil
}

func (s *Service) webhookView(c current) *WebhookView {
	v := &WebhookView{Address: s.address + c.project, OK: c.state.WebhookID != 0, SecretVersion: c.state.SecretVersion}
	if c.state.PreviousVersion != 0 && s.cfg.Now().Before(c.state.PreviousUntil) {
		v.PreviousUntil = c.state.PreviousUntil
	}
	for _, p := range c.state.Problems {
		switch reason(p.Reason) {
		case webhookMissing, webhookDisabled, webhookChanged, webhookElsewhere, webhookFailing, notificationsOff, privateAddress, projectReplaced, projectGone:
			v.OK = false
		default:
		}
	}
	return v
}
