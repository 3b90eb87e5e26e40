package harbortest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// The payloads, with their fields in Harbor's order: they go over the wire byte for byte.
type (
	eventResource struct {
		Digest      string `json:"digest"`
		Tag         string `json:"tag"`
		ResourceURL string `json:"resource_url"`
	}
	eventRepository struct {
		DateCreated int64  `json:"date_created"`
		Name        string `json:"name"`
		Namespace   string `json:"namespace"`
		FullName    string `json:"repo_full_name"`
		Type        string `json:"repo_type"`
	}
	eventData struct {
		Resources  []eventResource `json:"resources"`
		Repository eventRepository `json:"repository"`
	}
	defaultPayload struct {
		Type     string    `json:"type"`
		OccurAt  int64     `json:"occur_at"`
		Operator string    `json:"operator"`
		Data     eventData `json:"event_data"`
	}
	cloudEventsPayload struct {
		SpecVersion string    `json:"specversion"`
		ID          string    `json:"id"`
		Source      string    `json:"source"`
		Type        string    `json:"type"`
		ContentType string    `json:"datacontenttype"`
		Time        string    `json:"time"`
		Data        eventData `json:"data"`
		Operator    string    `json:"operator"`
		RequestID   string    `json:"requestid"`
	}
)

// firePush hands the event of a push to every policy that wants it. The caller holds Harbor.mu for writing.
func (c *call) firePush(a *artifact, reference string) {
	s := c.h.state
	if !s.notifies() {
		return
	}
	p := a.repo.project
	now := storedNow()
	data := c.pushData(a, reference)
	times, asked := 1, false
	for _, policy := range p.policies {
		if !policy.enabled || !slices.Contains(policy.eventTypes, eventPush) {
			continue
		}
		for _, target := range policy.targets {
			if target.Type != targetHTTP {
				continue
			}
			if !asked {
				times, asked = c.h.webhooksOf(p.name), true
			}
			body, contentType, err := c.payload(policy, target.PayloadFormat, data, now)
			if err != nil {
				c.h.log.Error().Err(err).Msg("encoding a webhook failed")
				return
			}
			e := &execution{
				id: s.next("execution"), policyID: policy.id, event: eventPush, payload: string(body), started: now,
				status: statusRunning,
			}
			p.executions = append(p.executions, e)
			if times == 0 {
				c.h.counters.webhook(func(w *WebhookStats) { w.Events++; w.Lost++ })
				continue
			}
			e.task = &task{id: s.next("task"), created: now, status: statusRunning}
			for range times {
				c.h.hooks.enqueue(&delivery{target: target, body: body, contentType: contentType, execution: e})
			}
			if times > 1 {
				c.h.counters.webhook(func(w *WebhookStats) { w.Doubled++ })
			}
		}
	}
}

func (c *call) pushData(a *artifact, reference string) eventData {
	p := a.repo.project
	kind := "private"
	if p.public() {
		kind = "public"
	}
	separator := ":"
	if strings.Contains(reference, ":") {
		separator = "@"
	}
	return eventData{
		Resources: []eventResource{{
			Digest: a.digest.String(), Tag: reference, ResourceURL: c.h.Host() + "/" + a.repo.name + separator + reference,
		}},
		Repository: eventRepository{
			DateCreated: a.repo.created.Unix(), Name: a.repo.short(), Namespace: p.name, FullName: a.repo.name, Type: kind,
		},
	}
}

func (c *call) payload(p *webhookPolicy, format string, data eventData, now time.Time) ([]byte, string, error) {
	var value any = defaultPayload{Type: eventPush, OccurAt: now.Unix(), Operator: c.who.name, Data: data}
	contentType := "application/json"
	if format == formatCloudEvents {
		value = cloudEventsPayload{
			SpecVersion: "1.0", ID: uuid.NewString(),
			Source: fmt.Sprintf("/projects/%d/webhook/policies/%d", p.project.id, p.id), Type: "harbor.artifact.pushed",
			ContentType: "application/json", Time: now.Format(time.RFC3339), Data: data, Operator: c.who.name,
			RequestID: c.requestID,
		}
		contentType = "application/cloudevents+json"
	}
	body, err := json.Marshal(value)
	if err != nil {
		return nil, "", fmt.Errorf("encoding the event: %w", err)
	}
	return body, contentType, nil
}
