package harbor

import (
	"context"
	"path"
	"slices"
	"strconv"

	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/webhook"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/models"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// targetHTTP is the kind of target that gets Harbor's own payloads.
const targetHTTP = "http"

// Webhooks gives the webhook policies of a project, the newest first. Of a policy with several targets the first is given. It
// needs notification-policy:list.
func (c *Client) Webhooks(ctx context.Context, project string) ([]artifact.Webhook, error) {
	if err := checkProject(project); err != nil {
		return nil, err
	}
	var hooks []artifact.Webhook
	err := c.eachPage(ctx, func(ctx context.Context, page int64) (int, int64, error) {
		params := webhook.NewListWebhookPoliciesOfProjectParams().WithTimeout(c.timeout).WithProjectNameOrID(project).
			WithXIsResourceName(isName()).WithPage(&page).WithPageSize(&c.pageSize)
		answer, err := c.api.Webhook.ListWebhookPoliciesOfProject(ctx, params)
		if err == nil {
			err = complete(answer.Payload)
		}
		if err != nil {
			return 0, 0, c.wrap("listing the webhook policies", err)
		}
		for _, p := range answer.Payload {
			hooks = append(hooks, toWebhook(p))
		}
		return len(answer.Payload), answer.XTotalCount, nil
	})
	return hooks, err
}

// CreateWebhook makes a webhook policy and gives its ID. A name that is taken is a permanent fault, Rejected: Webhooks shows the
// policy that has it. A crash before the answer leaves a policy under that name. It needs notification-policy:create.
func (c *Client) CreateWebhook(ctx context.Context, project string, w artifact.Webhook) (int64, error) {
	if err := checkProject(project); err != nil {
		return 0, err
	}
	quiet := c.hiding(w.AuthHeader)
	params := webhook.NewCreateWebhookPolicyOfProjectParams().WithTimeout(c.timeout).WithProjectNameOrID(project).
		WithXIsResourceName(isName()).WithPolicy(fromWebhook(w))
	answer, err := quiet.api.Webhook.CreateWebhookPolicyOfProject(ctx, params)
	if err != nil {
		return 0, quiet.wrap("making the webhook policy", err)
	}
	if id, err := strconv.ParseInt(path.Base(answer.Location), 10, 64); err == nil && id > 0 {
		return id, nil
	}
	// A proxy has changed the answer.
	hooks, err := quiet.Webhooks(ctx, project)
	if err != nil {
		return 0, err
	}
	at := slices.IndexFunc(hooks, func(h artifact.Webhook) bool { return h.Name == w.Name })
	if at < 0 {
		return 0, fault.Newf(fault.Transient, fault.BadAnswer, "making the webhook policy: Harbor does not list it afterwards")
	}
	return hooks[at].ID, nil
}

// UpdateWebhook replaces the webhook policy with the ID of w, all of it. It is a Gone fault if there is none in this project. It
// needs notification-policy:update.
func (c *Client) UpdateWebhook(ctx context.Context, project string, w artifact.Webhook) error {
	if err := checkProject(project); err != nil {
		return err
	}
	quiet := c.hiding(w.AuthHeader)
	params := webhook.NewUpdateWebhookPolicyOfProjectParams().WithTimeout(c.timeout).WithProjectNameOrID(project).
		WithXIsResourceName(isName()).WithWebhookPolicyID(w.ID).WithPolicy(fromWebhook(w))
	if _, err := quiet.api.Webhook.UpdateWebhookPolicyOfProject(ctx, params); err != nil {
		return quiet.wrap("changing the webhook policy", err)
	}
	return nil
}

// DeleteWebhook removes a webhook policy. It is a Gone fault if there is none of this ID in this project, and a permanent one,
// Rejected, while a delivery of it is under way: Harbor waits for its last attempt, so it is best disabled first. It needs
// notification-policy:delete.
func (c *Client) DeleteWebhook(ctx context.Context, project string, id int64) error {
	if err := checkProject(project); err != nil {
		return err
	}
	params := webhook.NewDeleteWebhookPolicyOfProjectParams().WithTimeout(c.timeout).WithProjectNameOrID(project).
		WithXIsResourceName(isName()).WithWebhookPolicyID(id)
	if _, err := c.api.Webhook.DeleteWebhookPolicyOfProject(ctx, params); err != nil {
		return c.wrap("deleting the webhook policy", err)
	}
	return nil
}

func toWebhook(p *models.WebhookPolicy) artifact.Webhook {
	w := artifact.Webhook{ID: p.ID, Name: p.Name, Description: p.Description, Enabled: p.Enabled, Events: p.EventTypes}
	for _, target := range p.Targets {
		if target != nil {
			w.Address, w.AuthHeader, w.Format = target.Address, target.AuthHeader, string(target.PayloadFormat)
			w.SkipCertVerify = target.SkipCertVerify
			break
		}
	}
	return w
}

// fromWebhook names the ID too: recorded requests do, and Harbor takes that of the path.
func fromWebhook(w artifact.Webhook) *models.WebhookPolicy {
	return &models.WebhookPolicy{
		ID: w.ID, Name: w.Name, Description: w.Description, Enabled: w.Enabled, EventTypes: slices.Clone(w.Events),
		Targets: []*models.WebhookTargetObject{{
			Type: targetHTTP, Address: w.Address, AuthHeader: w.AuthHeader, PayloadFormat: models.PayloadFormatType(w.Format),
			SkipCertVerify: w.SkipCertVerify,
		}},
	}
}
