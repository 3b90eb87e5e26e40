package preflight

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// ReceiverHarbor is what is asked of Harbor with the receiver's account. Each method makes one attempt, changes nothing,
// returns a fault, and is safe for concurrent use.
type ReceiverHarbor interface {
	// Project gives a project by its exact name; the fault is Gone if it is not there or not to be seen.
	Project(ctx context.Context, name string) (artifact.Project, error)
	System(ctx context.Context) (artifact.SystemInfo, error)
	// MissingRights gives those of the rights that the account lacks.
	MissingRights(ctx context.Context, project string, rights []string) (missing []string, err error)
	// Quota gives the project's storage; the fault is Denied if the account may not list quotas.
	Quota(ctx context.Context, projectID int64) (artifact.Quota, error)
	Webhooks(ctx context.Context, project string) ([]artifact.Webhook, error)
	Deliveries(ctx context.Context, project string, webhookID int64) (artifact.Deliveries, error)
}

// ForReceiver checks with the account of a receiver.
type ForReceiver struct {
	Harbor ReceiverHarbor
	// Account is the name of the account in Harbor.
	Account string
	// WebhookURL is the origin by which Harbor reaches the receiver.
	WebhookURL string
	// Webhook finds the receiver's own webhook among those of a project and says in words what is wrong with it; the zero ID
	// means that there is none. Nil leaves the webhook and its deliveries out: there is none before a project is enabled.
	Webhook func(project string, all []artifact.Webhook) (own artifact.Webhook, wrong []string)
}

func receiverNeeds() []need {
	const lost = "the project's webhook cannot be kept"
	needs := []need{{right: "project:read", required: true, lost: "the project cannot be read"}}
	for _, action := range []string{"list", "read", "create", "update", "delete"} {
		needs = append(needs, need{right: "notification-policy:" + action, required: true, lost: lost})
	}
	const unanswered = "nobody is told whether an image is signed (GET /api/v1/status)"
	return append(needs, need{right: "artifact:read", lost: unanswered}, need{right: "repository:pull", lost: unanswered})
}

// Check does all checks for a project.
func (f ForReceiver) Check(ctx context.Context, name string) []Check {
	system := once(f.Harbor.System)
	project := once(func(ctx context.Context) (artifact.Project, error) { return f.Harbor.Project(ctx, name) })
	rights := once(func(ctx context.Context) ([]string, error) { return missing(ctx, f.Harbor, name, receiverNeeds()) })
	tasks := []task{
		{Project, name, func(ctx context.Context) []Check { return []Check{checkProject(ctx, name, f.Account, project)} }},
		{ProxyCache, name, func(ctx context.Context) []Check { return []Check{checkProxyCache(ctx, name, project)} }},
		{Rights, name, func(ctx context.Context) []Check { return checkRights(ctx, name, f.Account, receiverNeeds(), rights) }},
		{Notifications, "", func(ctx context.Context) []Check { return []Check{checkNotifications(ctx, system)} }},
		{Quota, name, func(ctx context.Context) []Check { return []Check{checkQuota(ctx, name, f.Harbor, project)} }},
		{PrivateAddress, name, func(ctx context.Context) []Check { return []Check{f.privateAddress(ctx, name, project)} }},
	}
	if f.Webhook != nil {
		tasks = append(tasks, task{Webhook, name, func(ctx context.Context) []Check { return f.webhook(ctx, name) }})
	}
	return run(ctx, tasks)
}

// webhook looks at our webhook policy and at what Harbor says of its deliveries.
func (f ForReceiver) webhook(ctx context.Context, name string) []Check {
	c := Check{Name: Webhook, Subject: name, Status: OK}
	all, err := f.Harbor.Webhooks(ctx, name)
	if err != nil {
		return []Check{unknown(c, err)}
	}
	own, wrong := f.Webhook(name, all)
	if len(wrong) > 0 {
		c.Status, c.Detail = Failed, strings.Join(wrong, "; ")
		c.Fix = "nothing, if a receiver runs: it repairs its webhooks within minutes"
	}
	if own.ID == 0 {
		return []Check{c}
	}
	c.Detail = strings.TrimPrefix(c.Detail+"; "+own.Address, "; ")
	d := Check{Name: Deliveries, Subject: name, Status: OK}
	log, err := f.Harbor.Deliveries(ctx, name, own.ID)
	switch {
	case err != nil:
		d = unknown(d, err)
	case log.LastFailed:
		d.Status, d.Detail = Failed, "Harbor's newest delivery has failed: "+log.LastError
		d.Fix = "see that Harbor reaches " + own.Address + " and trusts its certificate"
	default:
		d.Detail = fmt.Sprintf("%d deliveries in Harbor's log, %d of them failed", log.Finished+log.Failed, log.Failed)
	}
	return []Check{c, d}
}

// privateAddress looks whether Harbor would refuse to deliver.
//
// SPEC: goharbor/harbor pull request 23568 (open): Harbor may refuse to deliver webhooks to private addresses unless the
// project's metadata allows it. No release has it, and the key has no settled name: one that speaks of private and of
// webhooks or notifications is taken for it.
func (f ForReceiver) privateAddress(ctx context.Context, name string, project func(context.Context) (artifact.Project, error)) Check {
	c := Check{Name: PrivateAddress, Subject: name, Status: OK}
	p, err := project(ctx)
	if err != nil {
		c.Status, c.Unknown = Skipped, true // the project's own check says why
		return c
	}
	for key, value := range p.Metadata {
		speaks := strings.Contains(key, "private") && (strings.Contains(key, "webhook") || strings.Contains(key, "notification"))
		if !speaks || value != "false" {
			continue
		}
		c.Detail = fmt.Sprintf("the project's metadata %s=%s keeps Harbor from delivering to private addresses", key, value)
		c.Fix = fmt.Sprintf("set the project's metadata %s to true, or give the receiver a public address", key)
		switch private, known := isPrivate(f.WebhookURL); {
		case !known:
			c.Status = Warning
		case private:
			c.Status = Failed
		default:
			c.Status, c.Detail, c.Fix = OK, "", ""
		}
	}
	return c
}

// isPrivate says whether the host of an address is a private one; it cannot tell for names.
func isPrivate(address string) (private, known bool) {
	u, err := url.Parse(address)
	if err != nil {
		return false, false
	}
	if u.Hostname() == "localhost" {
		return true, true
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return false, false
	}
	addr = addr.Unmap()
	return addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast(), true
}
