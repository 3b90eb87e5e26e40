package enroll_test

import (
	"context"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// harbor is the world's Harbor.
type harborOf struct{ *world }

func (h harborOf) answer() error { return h.away }

func (h harborOf) Project(_ context.Context, name string) (artifact.Project, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, found := h.projects[name]
	switch {
	case h.away != nil:
		return artifact.Project{}, h.away
	case !found:
		return artifact.Project{}, fault.Newf(fault.Gone, fault.NotFound, "no project %s", name)
	}
	return p, nil
}

func (h harborOf) AllProjects(context.Context) ([]artifact.Project, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []artifact.Project
	for _, p := range h.projects {
		all = append(all, p)
	}
	return all, h.answer()
}

func (h harborOf) System(context.Context) (artifact.SystemInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.system, h.answer()
}

// missingProject answers as Harbor does to an account that is no system admin.
func (h harborOf) missingProject(project string) error {
	if _, found := h.projects[project]; !found {
		return fault.Newf(fault.Permanent, fault.Denied, "forbidden")
	}
	return h.away
}

func (h harborOf) Webhooks(_ context.Context, project string) ([]artifact.Webhook, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.missingProject(project); err != nil {
		return nil, err
	}
	if slices.Contains(h.missing, "notification-policy:list") {
		return nil, fault.Newf(fault.Permanent, fault.Denied, "the account lacks notification-policy:list")
	}
	return slices.Clone(h.webhooks[project]), nil
}

func (h harborOf) CreateWebhook(_ context.Context, project string, hook artifact.Webhook) (int64, error) {
	err := h.step("create webhook", func() error {
		if err := h.missingProject(project); err != nil {
			return err
		}
		if slices.ContainsFunc(h.webhooks[project], func(other artifact.Webhook) bool { return other.Name == hook.Name }) {
			return fault.Newf(fault.Permanent, fault.Rejected, "a webhook of this name is there")
		}
		h.nextID++
		hook.ID = h.nextID
		h.webhooks[project] = append(h.webhooks[project], hook)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return hook.ID, nil
}

func (h harborOf) UpdateWebhook(_ context.Context, project string, hook artifact.Webhook) error {
	return h.step("update webhook", func() error {
		if err := h.missingProject(project); err != nil {
			return err
		}
		for i, known := range h.webhooks[project] {
			if known.ID == hook.ID {
				h.webhooks[project][i] = hook
				return nil
			}
		}
		return fault.Newf(fault.Gone, fault.NotFound, "no webhook %d", hook.ID)
	})
}

func (h harborOf) DeleteWebhook(_ context.Context, project string, id int64) error {
	return h.step("delete webhook", func() error {
		if h.stuck {
			return fault.Newf(fault.Permanent, fault.Rejected, "a delivery is under way")
		}
		before := len(h.webhooks[project])
		h.webhooks[project] = slices.DeleteFunc(h.webhooks[project], func(w artifact.Webhook) bool { return w.ID == id })
		if len(h.webhooks[project]) == before {
			return fault.Newf(fault.Gone, fault.NotFound, "no webhook %d", id)
		}
		return h.away
	})
}

func (h harborOf) Deliveries(context.Context, string, int64) (artifact.Deliveries, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.delivered, h.answer()
}

func (h harborOf) Quota(context.Context, int64) (artifact.Quota, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.quota, h.answer()
}

func (h harborOf) MissingRights(_ context.Context, _ string, rights []string) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lacking []string
	for _, right := range rights {
		if slices.Contains(h.missing, right) {
			lacking = append(lacking, right)
		}
	}
	return lacking, h.answer()
}

// callerOf is the world's Harbor with somebody's credentials.
type callerOf struct {
	harborOf
	authorization string
}

func (c callerOf) CurrentAccount(context.Context) (artifact.Account, error) {
	return artifact.Account{Name: "x", SystemAdmin: slices.Contains(c.admins, c.authorization)}, nil
}

func (c callerOf) RoleIn(ctx context.Context, project string) (artifact.Role, artifact.Project, error) {
	p, err := c.Project(ctx, project)
	return c.roles[c.authorization], p, err
}
