package harbortest

import (
	"slices"
	"strings"
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

// audit appends to the log, unless it is switched off. The caller holds Harbor.mu for writing.
//
// SPEC: Harbor, src/common: disabled_audit_log_event_types is a list with commas of operation_resource, as create_artifact;
// skip_audit_log_database keeps everything out of the log that the API shows.
func (c *call) audit(operation, resourceType, resource, description string, p *project) {
	c.auditAt(storedNow(), operation, resourceType, resource, description, p)
}

// auditAt is audit for what happened at another time, but not before the last entry.
func (c *call) auditAt(at time.Time, operation, resourceType, resource, description string, p *project) {
	s := c.h.state
	if skip, ok := s.config["skip_audit_log_database"].Value.(bool); ok && skip {
		return
	}
	disabled, _ := s.config["disabled_audit_log_event_types"].Value.(string)
	if slices.Contains(strings.Split(disabled, ","), operation+"_"+resourceType) {
		return
	}
	s.audit = append(s.audit, &auditEntry{
		id: s.next("audit"), at: at, operation: operation, description: description,
		resource: resource, resourceType: resourceType, user: c.who.name, project: p,
	})
}

// PurgeAudit empties the audit log, as Harbor's purge does with what is older than it shall keep.
func (h *Harbor) PurgeAudit() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state.audit = nil
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
	within, err := q.timeRange("op_time")
	if err != nil {
		return err
	}
	var out []*auditEntry
	for _, e := range slices.Backward(within.ofLog(c.h.state.audit)) {
		if visible(e) && q.matches("operation", e.operation) && q.matches("resource_type", e.resourceType) &&
			q.matches("resource", e.resource) && q.matches("username", e.user) {
			out = append(out, e)
		}
	}
	if spec := c.r.URL.Query().Get("sort"); spec != "-op_time" { // As they are.
		sortBy(out, spec, map[string]func(a, b *auditEntry) int{
			"op_time": byTime(func(e *auditEntry) time.Time { return e.at }),
			"id":      byOrdered(func(e *auditEntry) int64 { return e.id }),
		})
	}
	return paged(c, out, func(e *auditEntry) any { return e.view() })
}

// ofLog is the part of the log, which rises by time, that the range includes.
func (r timeRange) ofLog(log []*auditEntry) []*auditEntry {
	if !r.from.IsZero() {
		from, _ := slices.BinarySearchFunc(log, r.from, func(e *auditEntry, at time.Time) int { return e.at.Compare(at) })
		log = log[from:]
	}
	if !r.to.IsZero() {
		// The first that is later.
		to, _ := slices.BinarySearchFunc(log, r.to, func(e *auditEntry, at time.Time) int {
			if e.at.After(at) {
				return 1
			}
			return -1
		})
		log = log[:to]
	}
	return log
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
