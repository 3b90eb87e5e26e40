package harbortest

import (
	"net/http"
	"strconv"
	"time"
)

// States of executions and tasks.
const (
	statusRunning = "Running"
	statusSuccess = "Success"
	statusError   = "Error"
)

// execution is one event for one policy. Guarded by Harbor.mu.
type execution struct {
	id, policyID   int64
	event, payload string
	status         string
	started, ended time.Time
	task           *task // nil when the jobservice never heard of it.
}

type task struct {
	id                                int64
	status                            string
	runs                              int
	created, started, updated, finish time.Time
}

// seconds formats as executions and tasks do, without fractions.
func seconds(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (e *execution) view() any {
	metrics := map[string]int{}
	if e.task != nil {
		metrics["task_count"] = 1
		switch e.task.status {
		case statusSuccess:
			metrics["success_task_count"] = 1
		case statusError:
			metrics["error_task_count"] = 1
		default:
			metrics["running_task_count"] = 1
		}
	}
	return map[string]any{
		"end_time":    seconds(e.ended),
		"extra_attrs": map[string]any{"event_type": e.event, "payload": e.payload},
		"id":          e.id, "metrics": metrics, "start_time": seconds(e.started), "status": e.status, "trigger": "EVENT",
		"vendor_id": e.policyID, "vendor_type": "WEBHOOK",
	}
}

func (t *task) view(e *execution) any {
	return map[string]any{
		"creation_time": seconds(t.created), "end_time": seconds(t.finish), "execution_id": e.id, "id": t.id,
		"run_count": t.runs, "start_time": seconds(t.started), "status": t.status, "update_time": seconds(t.updated),
	}
}

func (c *call) listExecutions() error {
	p, at, err := c.pathPolicy("read")
	if err != nil {
		return err
	}
	return paged(c, newestFirst(p.executionsOf(p.policies[at].id)), func(e *execution) any { return e.view() })
}

func (p *project) executionsOf(policyID int64) []*execution {
	var out []*execution
	for _, e := range p.executions {
		if e.policyID == policyID {
			out = append(out, e)
		}
	}
	return out
}

func (c *call) listTasks() error {
	p, at, err := c.pathPolicy("read")
	if err != nil {
		return err
	}
	ref := c.r.PathValue("execution")
	for _, e := range p.executionsOf(p.policies[at].id) {
		if strconv.FormatInt(e.id, 10) != ref {
			continue
		}
		var tasks []*task
		if e.task != nil {
			tasks = append(tasks, e.task)
		}
		return paged(c, tasks, func(t *task) any { return t.view(e) })
	}
	return errNotFound("webhook execution with ID %s not found", ref)
}

// getLastTrigger tells when each policy fired last, for each of its events.
func (c *call) getLastTrigger() error {
	p, err := c.requireProject("notification-policy", "read")
	if err != nil {
		return err
	}
	out := []any{}
	for _, policy := range newestFirst(p.policies) {
		for _, event := range policy.eventTypes {
			var last time.Time
			for _, e := range p.executionsOf(policy.id) {
				if e.event == event && e.started.After(last) {
					last = e.started
				}
			}
			out = append(out, map[string]any{
				"creation_time": timestamp(policy.created), "enabled": policy.enabled, "event_type": event,
				"last_trigger_time": timestamp(last), "policy_name": policy.name,
			})
		}
	}
	return c.json(http.StatusOK, out)
}
