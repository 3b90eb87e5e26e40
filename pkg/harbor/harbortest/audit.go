package harbortest

import (
	"time"
)

// auditEntry is one line of the audit log.
type auditEntry struct {
	id           int64
	at           time.Time
	operation    string
	description  string
	resource     string
	resourceType string
	user         string
	project      *project // nil for what concerns the whole system.
}

// audit appends to the log. The caller holds Harbor.mu for writing.
func (c *call) audit(operation, resourceType, resource, description string, p *project) {
	c.h.state.audit = append(c.h.state.audit, &auditEntry{
		id: c.h.state.next("audit"), at: time.Now().UTC(), operation: operation, description: description,
		resource: resource, resourceType: resourceType, user: c.who.name, project: p,
	})
}

func (e *auditEntry) view() any {
	return map[string]any{
		"id": e.id, "op_time": timestamp(e.at), "operation": e.operation, "operation_description": e.description,
		"operation_result": true, "resource": e.resource, "resource_type": e.resourceType, "username": e.user,
	}
}

// listAuditLog answers the whole log to whoever has the system right audit-log:list, users what happened in their
// projects, and everybody else an empty list, not an error.
func (c *call) listAuditLog() error {
	if !c.who.authenticated() {
		return errUnauthorized()
	}
	all := c.who.canSystem("audit-log", "list")
	return c.answerAudit(func(e *auditEntry) bool {
		return all || (c.who.user != nil && e.project != nil && c.who.can(e.project, "log", "list"))
	})
}

func (c *call) listProjectAuditLog() error {
	p, err := c.requireProject("log", "list")
	if err != nil {
		return err
	}
	return c.answerAudit(func(e *auditEntry) bool { return e.project == p })
}

func (c *call) answerAudit(visible func(*auditEntry) bool) error {
	q, err := parseQuery(c.r.URL.Query().Get("q"))
	if err != nil {
		return err
	}
	var out []*auditEntry
	for _, e := range c.h.state.audit {
		if !visible(e) || !q.matches("operation", e.operation) || !q.matches("resource_type", e.resourceType) ||
			!q.matches("resource", e.resource) || !q.matches("username", e.user) {
			continue
		}
		out = append(out, e)
	}
	out, err = filterTime(newestFirst(out), q, "op_time", func(e *auditEntry) time.Time { return e.at })
	if err != nil {
		return err
	}
	sortBy(out, c.r.URL.Query().Get("sort"), map[string]func(a, b *auditEntry) int{
		"op_time": byTime(func(e *auditEntry) time.Time { return e.at }),
		"id":      byOrdered(func(e *auditEntry) int64 { return e.id }),
	})
	return paged(c, out, func(e *auditEntry) any { return e.view() })
}

// listLegacyAuditLog answers the log that Harbor 2.13 superseded: it stays empty.
func (c *call) listLegacyAuditLog() error {
	if !c.who.authenticated() {
		return errUnauthorized()
	}
	return c.answerAudit(func(*auditEntry) bool { return false })
}

func (c *call) listLegacyProjectLog() error {
	if _, err := c.requireProject("log", "list"); err != nil {
		return err
	}
	return c.answerAudit(func(*auditEntry) bool { return false })
}
