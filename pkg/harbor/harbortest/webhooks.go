package harbortest

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	eventPush         = "PUSH_ARTIFACT"
	formatDefault     = "Default"
	formatCloudEvents = "CloudEvents"
	targetHTTP        = "http"
	targetSlack       = "slack"
)

// webhookPolicy is replaced, never changed, so that deliveries may keep the one that they started with.
type webhookPolicy struct {
	id                int64
	project           *project
	name, description string
	enabled           bool
	eventTypes        []string
	targets           []webhookTarget
	created, updated  time.Time
}

type webhookTarget struct {
	Address        string `json:"address"`
	AuthHeader     string `json:"auth_header,omitempty"` // In clear text, to everybody who may list policies.
	PayloadFormat  string `json:"payload_format,omitempty"`
	SkipCertVerify bool   `json:"skip_cert_verify,omitempty"`
	Type           string `json:"type"`
}

func (p *webhookPolicy) view() any {
	return map[string]any{
		"creation_time": timestamp(p.created), "description": p.description, "enabled": p.enabled,
		"event_types": p.eventTypes, "id": p.id, "name": p.name, "project_id": p.project.id, "targets": p.targets,
		"update_time": timestamp(p.updated),
	}
}

func eventTypes() []string {
	return []string{
		eventPush, "PULL_ARTIFACT", "DELETE_ARTIFACT", "QUOTA_EXCEED", "QUOTA_WARNING", "SCANNING_FAILED",
		"SCANNING_STOPPED", "SCANNING_COMPLETED", "REPLICATION", "TAG_RETENTION",
	}
}

type policyRequest struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Enabled     bool            `json:"enabled"`
	EventTypes  []string        `json:"event_types"`
	Targets     []webhookTarget `json:"targets"`
}

// validate checks in Harbor's order: events first, then targets.
func (req *policyRequest) validate() error {
	if len(req.EventTypes) == 0 {
		return errBadRequest("empty event type")
	}
	for _, event := range req.EventTypes {
		if !slices.Contains(eventTypes(), event) {
			return errBadRequest("unsupported event type %s", event)
		}
	}
	if len(req.Targets) == 0 {
		return errBadRequest("empty notification target with policy %s", req.Name)
	}
	for i := range req.Targets {
		if err := req.Targets[i].validate(req.Name); err != nil {
			return err
		}
	}
	return nil
}

func (t *webhookTarget) validate(policyName string) error {
	address := strings.TrimRight(strings.TrimSpace(t.Address), "/")
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return errBadRequest("invalid URL: %s", t.Address)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return errBadRequest("invalid scheme: %s", u.Scheme)
	}
	t.Address = u.Scheme + "://" + u.Host + u.Path // Harbor drops the query.
	if t.Type != targetHTTP && t.Type != targetSlack {
		return errBadRequest("unsupported target type %s with policy %s", t.Type, policyName)
	}
	if t.PayloadFormat == "" {
		t.PayloadFormat = formatDefault
	}
	if t.PayloadFormat != formatDefault && t.PayloadFormat != formatCloudEvents {
		return errBadRequest("unsupported payload format type: %s", t.PayloadFormat)
	}
	return nil
}

func (c *call) getWebhookEvents() error {
	if _, err := c.requireProject("notification-policy", "read"); err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{
		"event_type": eventTypes(), "notify_type": []string{targetHTTP, targetSlack},
		"payload_formats": []any{
			map[string]any{"formats": []string{formatDefault, formatCloudEvents}, "notify_type": targetHTTP},
		},
	})
}

func (c *call) listPolicies() error {
	p, err := c.requireProject("notification-policy", "list")
	if err != nil {
		return err
	}
	return paged(c, newestFirst(p.policies), func(w *webhookPolicy) any { return w.view() })
}

func (c *call) createPolicy() error {
	var req policyRequest
	if err := c.decode("policy", &req); err != nil {
		return err
	}
	p, err := c.requireProject("notification-policy", "create")
	if err != nil {
		return err
	}
	if err := req.validate(); err != nil {
		return err
	}
	// The id is taken before the name is checked, as an SQL insert does: a refused duplicate leaves a hole.
	id := c.h.state.next("policy")
	if slices.ContainsFunc(p.policies, func(w *webhookPolicy) bool { return w.name == req.Name }) {
		return errConflict("notification policy named %s already exists", req.Name)
	}
	now := storedNow()
	p.policies = append(p.policies, &webhookPolicy{
		id: id, project: p, name: req.Name, description: req.Description, enabled: req.Enabled,
		eventTypes: req.EventTypes, targets: req.Targets, created: now, updated: now,
	})
	return c.created(fmt.Sprintf("%s/%d", c.r.URL.EscapedPath(), id))
}

// pathPolicy finds the policy of the path, and its place in the list.
func (c *call) pathPolicy(action string) (*project, int, error) {
	p, err := c.requireProject("notification-policy", action)
	if err != nil {
		return nil, 0, err
	}
	ref := c.r.PathValue("policy")
	at := slices.IndexFunc(p.policies, func(w *webhookPolicy) bool { return strconv.FormatInt(w.id, 10) == ref })
	if at < 0 {
		return nil, 0, errNotFound("notificationPolicy %s not found", ref)
	}
	return p, at, nil
}

func (c *call) getPolicy() error {
	p, at, err := c.pathPolicy("read")
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, p.policies[at].view())
}

// putPolicy replaces the whole policy.
func (c *call) putPolicy() error {
	var req policyRequest
	if err := c.decode("policy", &req); err != nil {
		return err
	}
	p, at, err := c.pathPolicy("update")
	if err != nil {
		return err
	}
	if err := req.validate(); err != nil {
		return err
	}
	old := p.policies[at]
	if slices.ContainsFunc(p.policies, func(w *webhookPolicy) bool { return w != old && w.name == req.Name }) {
		return errConflict("notification policy named %s already exists", req.Name)
	}
	p.policies[at] = &webhookPolicy{
		id: old.id, project: p, name: req.Name, description: req.Description, enabled: req.Enabled,
		eventTypes: req.EventTypes, targets: req.Targets, created: old.created, updated: storedNow(),
	}
	return c.ok()
}

// deletePolicy removes a policy and its executions.
//
// SPEC: Harbor, src/pkg/task DeleteByVendor: not while one of them is under way, and one whose event was lost before the
// jobservice heard of it stays so for ever.
func (c *call) deletePolicy() error {
	p, at, err := c.pathPolicy("delete")
	if err != nil {
		return err
	}
	id := p.policies[at].id
	if slices.ContainsFunc(p.executionsOf(id), func(e *execution) bool { return e.status == statusRunning }) {
		return errPrecondition("contains executions that aren't in final status, stop the execution first")
	}
	p.executions = slices.DeleteFunc(p.executions, func(e *execution) bool { return e.policyID == id })
	p.policies = slices.Delete(p.policies, at, at+1)
	return c.ok()
}
