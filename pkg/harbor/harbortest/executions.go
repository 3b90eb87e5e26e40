package harbortest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// States of executions and tasks.
const (
	statusRunning = "Running"
	statusSuccess = "Success"
	statusError   = "Error"
)

const vendorWebhook = "WEBHOOK"

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
	log                               []string // The lines of all attempts.
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
		"vendor_id": e.policyID, "vendor_type": vendorWebhook,
	}
}

func (t *task) view(e *execution) any {
	return map[string]any{
		"creation_time": seconds(t.created), "end_time": seconds(t.finish), "execution_id": e.id, "id": t.id,
		"run_count": t.runs, "start_time": seconds(t.started), "status": t.status, "update_time": seconds(t.updated),
	}
}

// listExecutions answers the executions of a policy, newest first, or as q and sort say.
func (c *call) listExecutions() error {
	p, at, err := c.pathPolicy("read")
	if err != nil {
		return err
	}
	params := c.r.URL.Query()
	q, err := parseQuery(params.Get("q"))
	if err != nil {
		return err
	}
	var out []*execution
	for _, e := range slices.Backward(p.executionsOf(p.policies[at].id)) {
		if q.matches("id", strconv.FormatInt(e.id, 10)) && q.matches("status", e.status) && q.matches("trigger", "EVENT") &&
			q.matches("vendor_type", vendorWebhook) && q.matches("vendor_id", strconv.FormatInt(e.policyID, 10)) {
			out = append(out, e)
		}
	}
	for name, at := range executionTimes() {
		if out, err = filterTime(out, q, name, at); err != nil {
			return err
		}
	}
	sortBy(out, params.Get("sort"), map[string]func(a, b *execution) int{
		"id":         byOrdered(func(e *execution) int64 { return e.id }),
		"start_time": byTime(executionTimes()["start_time"]),
		"end_time":   byTime(executionTimes()["end_time"]),
	})
	return paged(c, out, func(e *execution) any { return e.view() })
}

func executionTimes() map[string]func(*execution) time.Time {
	return map[string]func(*execution) time.Time{
		"start_time": func(e *execution) time.Time { return e.started },
		"end_time":   func(e *execution) time.Time { return e.ended },
	}
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

// pathExecution finds the execution of the path.
func (c *call) pathExecution() (*execution, error) {
	p, at, err := c.pathPolicy("read")
	if err != nil {
		return nil, err
	}
	ref := c.r.PathValue("execution")
	for _, e := range p.executionsOf(p.policies[at].id) {
		if strconv.FormatInt(e.id, 10) == ref {
			return e, nil
		}
	}
	return nil, errNotFound("webhook execution with ID %s not found", ref)
}

func (e *execution) tasks() []*task {
	if e.task == nil {
		return nil
	}
	return []*task{e.task}
}

func (c *call) listTasks() error {
	e, err := c.pathExecution()
	if err != nil {
		return err
	}
	q, err := parseQuery(c.r.URL.Query().Get("q"))
	if err != nil {
		return err
	}
	tasks := slices.DeleteFunc(e.tasks(), func(t *task) bool { return !q.matches("status", t.status) })
	return paged(c, tasks, func(t *task) any { return t.view(e) })
}

// getTaskLog answers what the jobservice wrote down about a delivery, as plain text.
//
// SPEC: Harbor, src/jobservice/job/impl/notification/webhook_job.go: a refusal shows the status and the whole body that
// the receiver answered with, to everybody who may read the policy. (The prefix of the lines has no recording.)
func (c *call) getTaskLog() error {
	e, err := c.pathExecution()
	if err != nil {
		return err
	}
	ref := c.r.PathValue("task")
	for _, t := range e.tasks() {
		if strconv.FormatInt(t.id, 10) == ref {
			c.w.Header().Set(contentTypeHeader, "text/plain; charset=utf-8")
			c.write([]byte(strings.Join(t.log, "")))
			return nil
		}
	}
	return errNotFound("webhook task %s not found", ref)
}

// write adds a line to the log of a task.
func (t *task) write(at time.Time, level, format string, args ...any) {
	t.log = append(t.log, at.UTC().Format(time.RFC3339)+" ["+level+"] "+fmt.Sprintf(format, args...)+"\n")
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
