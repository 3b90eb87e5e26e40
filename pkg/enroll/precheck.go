package enroll

import (
	"context"
	"fmt"
	"sync"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// precheck asks everything that has to be right, with the caller's credentials, with the receiver's account and, through
// the signers, with theirs.
func (s *Service) precheck(ctx context.Context, actor Actor, project string, spec policy.Spec) []preflight.Check {
	var caller, own, signer []preflight.Check
	var running sync.WaitGroup
	running.Go(func() { caller = []preflight.Check{s.checkCaller(ctx, actor, project)} })
	running.Go(func() { own = s.receiver().Check(ctx, project) })
	running.Go(func() { signer = s.askSigner(ctx, project, spec) })
	running.Wait()
	return preflight.Merge(caller, own, signer)
}

func (s *Service) receiver() preflight.ForReceiver {
	return preflight.ForReceiver{Harbor: s.cfg.Harbor, Account: s.cfg.Account, WebhookURL: s.cfg.WebhookURL}
}

// askSigner gives one failed check if no signer answers: whether the project can be signed is not known then.
func (s *Service) askSigner(ctx context.Context, project string, spec policy.Spec) []preflight.Check {
	checks, err := preflight.RequestFor(project, spec).Ask(ctx, s.cfg.Queue)
	if err != nil {
		return []preflight.Check{{
			Name: preflight.Signer, Subject: project, Status: preflight.Failed, Unknown: true, Detail: err.Error(),
			Fix: "see that a signer runs and reaches the queue, and ask again",
		}}
	}
	return checks
}

// checkCaller asks Harbor what the caller may, with the caller's own credentials: whoever holds rights of our robot accounts
// alone must not change a project through us.
func (s *Service) checkCaller(ctx context.Context, actor Actor, project string) preflight.Check {
	c := preflight.Check{Name: preflight.Role, Subject: actor.Name, Status: preflight.OK}
	if actor.Authorization == "" {
		c.Status, c.Detail = preflight.Skipped, "the caller has no account in Harbor"
		return c
	}
	caller := s.cfg.As(actor.Authorization)
	role, _, err := caller.RoleIn(ctx, project)
	switch {
	case fault.Is(err, fault.Gone):
		c.Status, c.Detail = preflight.Failed, "the caller does not see such a project in Harbor"
		c.Fix = "check the project's name, and become a member of it"
		return c
	case err != nil:
		return couldNotTell(c, err)
	case role == artifact.RoleProjectAdmin:
		return c
	}
	account, err := caller.CurrentAccount(ctx)
	switch {
	case err != nil:
		return couldNotTell(c, err)
	case !account.SystemAdmin:
		c.Status, c.Detail = preflight.Failed, fmt.Sprintf("the caller is no admin of project %s in Harbor", project)
		c.Fix = "ask one of the project's admins"
	}
	return c
}

// checkCanary wants a system admin: what is a canary is in no report, and whoever is reported on must not decide that. An API
// token is nobody in Harbor; the configuration file is the operator's.
func (s *Service) checkCanary(ctx context.Context, actor Actor) preflight.Check {
	c := preflight.Check{Name: preflight.Canary, Subject: actor.Name, Status: preflight.OK}
	admin := false
	if actor.Authorization != "" {
		account, err := s.cfg.As(actor.Authorization).CurrentAccount(ctx)
		if err != nil {
			return couldNotTell(c, err)
		}
		admin = account.SystemAdmin
	}
	if !admin {
		c.Status, c.Detail = preflight.Failed, "a canary project is in no report, so that only a system admin of Harbor makes one"
		c.Fix = "ask a system admin, or name the project under policies in the receiver's configuration file"
	}
	return c
}

func couldNotTell(c preflight.Check, err error) preflight.Check {
	c.Status, c.Unknown, c.Detail, c.Fix = preflight.Failed, true, "could not be told: "+err.Error(), "ask again in a moment"
	return c
}
