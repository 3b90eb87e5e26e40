package harbor

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/webhook"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/models"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// maxDeliveries is how many of the newest deliveries are looked at.
const maxDeliveries = 20

// States of executions in which nothing more happens.
const (
	executionSuccess = "Success"
	executionError   = "Error"
	executionStopped = "Stopped"
)

// Deliveries counts the newest 20 deliveries of a webhook policy that are finished. Of one that failed last, it gives what
// Harbor's own log says. It needs notification-policy:read, and is a Gone fault if there is no such policy in this project.
//
// A delivery that never ends, because Harbor's jobservice was away, is not finished and counts as nothing.
func (c *Client) Deliveries(ctx context.Context, project string, webhookID int64) (artifact.Deliveries, error) {
	var d artifact.Deliveries
	if err := checkProject(project); err != nil {
		return d, err
	}
	first, size, sort := int64(1), int64(maxDeliveries), "-start_time"
	params := webhook.NewListExecutionsOfWebhookPolicyParams().WithTimeout(c.timeout).WithProjectNameOrID(project).
		WithXIsResourceName(isName()).WithWebhookPolicyID(webhookID).WithPage(&first).WithPageSize(&size).WithSort(&sort)
	answer, err := c.api.Webhook.ListExecutionsOfWebhookPolicy(ctx, params)
	if err == nil {
		err = complete(answer.Payload)
	}
	if err != nil {
		return d, c.wrap("listing the deliveries", err)
	}
	var last *models.Execution
	for _, e := range answer.Payload {
		switch e.Status {
		case executionSuccess, executionError, executionStopped:
		default:
			continue
		}
		d.Finished++
		if e.Status == executionError {
			d.Failed++
		}
		if at := moment(e.EndTime); last == nil || at.After(d.LastAt) {
			last, d.LastAt = e, at
		}
	}
	if last == nil || last.Status != executionError {
		return d, nil
	}
	said, err := c.failure(ctx, project, webhookID, last)
	if err != nil {
		return artifact.Deliveries{}, err
	}
	d.LastFailed, d.LastError = true, c.redactor.Text(said, maxText)
	return d, nil
}

// failure gives Harbor's words about a delivery that failed. They are for people: what cannot be read is left out.
func (c *Client) failure(ctx context.Context, project string, webhookID int64, e *models.Execution) (string, error) {
	said := cmp.Or(e.StatusMessage, "the delivery failed")
	tasks, err := c.api.Webhook.ListTasksOfWebhookExecution(ctx, webhook.NewListTasksOfWebhookExecutionParams().WithTimeout(c.timeout).
		WithProjectNameOrID(project).WithXIsResourceName(isName()).WithWebhookPolicyID(webhookID).WithExecutionID(e.ID))
	if ctx.Err() != nil {
		return "", c.wrap("reading the log of the delivery", ctx.Err())
	}
	if err != nil || len(tasks.Payload) == 0 || tasks.Payload[0] == nil {
		return said, nil //nolint:nilerr // as above
	}
	task := tasks.Payload[0]
	said = cmp.Or(task.StatusMessage, said)
	log, err := c.api.Webhook.GetLogsOfWebhookTask(ctx, webhook.NewGetLogsOfWebhookTaskParams().WithTimeout(c.timeout).
		WithProjectNameOrID(project).WithXIsResourceName(isName()).WithWebhookPolicyID(webhookID).WithExecutionID(e.ID).WithTaskID(task.ID))
	if ctx.Err() != nil {
		return "", c.wrap("reading the log of the delivery", ctx.Err())
	}
	if err != nil {
		return said, nil //nolint:nilerr // as above
	}
	return cmp.Or(lastLine(log.Payload), said), nil
}

// moment reads the time of an execution; zero if there is none.
func moment(text string) time.Time {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}

// lastLine gives the last line of a log that tells of an error; empty if none does.
func lastLine(log string) string {
	for _, line := range slices.Backward(strings.Split(log, "\n")) {
		if strings.Contains(strings.ToLower(line), "error") {
			return line
		}
	}
	return ""
}
