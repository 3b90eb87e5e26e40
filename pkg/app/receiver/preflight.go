package receiver

import (
	"context"
	"sync"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// preflight checks with this receiver's account, for the doctor, which asks over the queue. Without a project it checks what
// is about none.
func (a *App) preflight(ctx context.Context, project string) []preflight.Check {
	if a.harbor == nil {
		return []preflight.Check{{
			Name: preflight.Receiver, Subject: project, Status: preflight.Skipped,
			Detail: "it answers, and has no account in Harbor (harbor.url): webhooks are made by hand, and not looked at",
		}}
	}
	account := a.cfg.Harbor.Username
	if project == "" {
		return a.preflightSelf(ctx)
	}
	f := preflight.ForReceiver{Harbor: a.harbor, Account: account, WebhookURL: a.cfg.Webhook.URL}
	if p, err := a.policies.Policy(ctx, project); err != nil || p.Enabled() {
		f.Webhook = func(name string, all []artifact.Webhook) (artifact.Webhook, []string) {
			return a.enroll.JudgeWebhook(ctx, name, all)
		}
	}
	return f.Check(ctx, project)
}

// preflightSelf looks both ways at once, because whoever asks waits for some seconds only.
func (a *App) preflightSelf(ctx context.Context) []preflight.Check {
	account := a.cfg.Harbor.Username
	checks := []preflight.Check{
		{Name: preflight.Receiver, Subject: account, Status: preflight.OK, Detail: "it answers, and sees to webhooks with this account"},
		{}, // the address of webhooks
	}
	var running sync.WaitGroup
	running.Go(func() { checks[1] = preflight.CheckAddress(ctx, a.transport, a.cfg.Webhook.URL) })
	own := preflight.ForAccount{
		Harbor: a.harbor, URL: a.cfg.Harbor.URL, Account: account, Program: "receiver", Transport: a.transport,
	}.Check(ctx)
	running.Wait()
	return append(checks, own...)
}
