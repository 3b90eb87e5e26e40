package preflight

import (
	"context"
	"fmt"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// fullAt is the share of a quota from which on it is worth a warning.
const fullAt = 0.95

func checkVersion(ctx context.Context, system func(context.Context) (artifact.SystemInfo, error)) Check {
	c := Check{Name: Version, Status: OK}
	info, err := system(ctx)
	if err != nil {
		return unknown(c, err)
	}
	c.Detail = "Harbor " + info.Version
	return c
}

func checkReadOnly(ctx context.Context, system func(context.Context) (artifact.SystemInfo, error)) Check {
	c := Check{Name: ReadOnly, Status: OK}
	info, err := system(ctx)
	if err != nil {
		return unknown(c, err)
	}
	if info.ReadOnly {
		c.Status, c.Detail = Warning, "Harbor is read-only: nothing is signed until it takes pushes again"
		c.Fix = "switch the read-only mode off in Harbor's configuration"
	}
	return c
}

func checkNotifications(ctx context.Context, system func(context.Context) (artifact.SystemInfo, error)) Check {
	c := Check{Name: Notifications, Status: OK}
	info, err := system(ctx)
	if err != nil {
		return unknown(c, err)
	}
	if !info.Notifications {
		c.Status, c.Detail = Failed, "Harbor sends no webhooks at all (notification_enable is off): pushes are found by the sweep alone"
		c.Fix = "switch notification_enable on in Harbor's configuration, which takes a system admin"
	}
	return c
}

func checkProject(ctx context.Context, name, account string, project func(context.Context) (artifact.Project, error)) Check {
	c := Check{Name: Project, Subject: name, Status: OK}
	p, err := project(ctx)
	switch {
	case fault.Is(err, fault.Gone):
		c.Status, c.Detail = Failed, fmt.Sprintf("there is no such project, or the account %s may not see it", account)
		c.Fix = "check the name, and that the robot account covers the project"
	case err != nil:
		return unknown(c, err)
	default:
		c.Detail = fmt.Sprintf("project id %d", p.ID)
	}
	return c
}

func checkProxyCache(ctx context.Context, name string, project func(context.Context) (artifact.Project, error)) Check {
	c := Check{Name: ProxyCache, Subject: name, Status: OK}
	p, err := project(ctx)
	switch {
	case fault.Is(err, fault.Gone):
		c.Status, c.Unknown = Skipped, true // the project's own check says so
	case err != nil:
		return unknown(c, err)
	case p.ProxyCache:
		c.Status, c.Detail = Failed, "the project is a proxy cache: Harbor takes no pushes into it, so that no signature can be attached"
		c.Fix = "have the images signed in the registry that is mirrored, or copy them into an ordinary project"
	}
	return c
}

func checkQuota(ctx context.Context, name string, harbor interface {
	Quota(ctx context.Context, projectID int64) (artifact.Quota, error)
}, project func(context.Context) (artifact.Project, error),
) Check {
	c := Check{Name: Quota, Subject: name, Status: OK}
	p, err := project(ctx)
	if err != nil {
		c.Status, c.Unknown = Skipped, true // the project's own check says why
		return c
	}
	q, err := harbor.Quota(ctx, p.ID)
	switch {
	case err != nil && fault.Of(err).Reason == fault.Denied:
		c.Status, c.Unknown, c.Detail = Skipped, true, "the account may not list quotas: the system right quota:list shows them"
	case err != nil:
		return unknown(c, err)
	case q.Hard < 0:
		c.Detail = fmt.Sprintf("%d bytes used, no limit", q.Used)
	case q.Used >= q.Hard:
		c.Status, c.Detail = Failed, fmt.Sprintf("%d of %d bytes are used: nothing can be pushed, signatures neither", q.Used, q.Hard)
		c.Fix = "raise the project's quota, or delete what is not needed; a signature takes some kilobytes"
	case float64(q.Used) > fullAt*float64(q.Hard):
		c.Status, c.Detail = Warning, fmt.Sprintf("%d of %d bytes are used: signing stops when it is full", q.Used, q.Hard)
		c.Fix = "raise the project's quota, or delete what is not needed"
	default:
		c.Detail = fmt.Sprintf("%d of %d bytes used", q.Used, q.Hard)
	}
	return c
}

func missing(ctx context.Context, harbor interface {
	MissingRights(ctx context.Context, project string, rights []string) ([]string, error)
}, project string, needs []need,
) ([]string, error) {
	rights := make([]string, len(needs))
	for i, n := range needs {
		rights[i] = n.right
	}
	return harbor.MissingRights(ctx, project, rights)
}

// checkRights gives one check for each right.
func checkRights(ctx context.Context, project, account string, needs []need, missing func(context.Context) ([]string, error)) []Check {
	lacking, err := missing(ctx)
	switch {
	case fault.Is(err, fault.Gone):
		return nil // the project's own check says so
	case err != nil:
		return []Check{unknown(Check{Name: Rights, Subject: project}, err)}
	}
	checks := make([]Check, 0, len(needs))
	for _, n := range needs {
		c := Check{Name: Right(n.right), Subject: project, Status: OK}
		if slices.Contains(lacking, n.right) {
			c.Status, c.Detail = Warning, fmt.Sprintf("the account %s lacks it%s: %s", account, n.or, n.lost)
			if n.required {
				c.Status = Failed
			}
			c.Fix = fmt.Sprintf("give the robot account %s the right %s on project %s", account, n.right, project)
			if n.system {
				c.Fix = fmt.Sprintf("give the robot account %s the system right %s", account, n.right)
			}
		}
		checks = append(checks, c)
	}
	return checks
}
