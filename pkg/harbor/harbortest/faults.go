package harbortest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Faults is what goes wrong, on purpose. The zero value is a healthy Harbor. Latency, Status, DropConnections and CutAnswers
// meet the requests that Method, PathPrefix, Route and Project select. What is about manifest PUTs and webhooks meets those of
// Project, whatever the other selectors say.
//
// Which requests and pushes a rate hits follows from the emulator's seed, the name of the faults (see SetFault) and how many
// the faults have met before: the tenth that is selected meets the same fate in every run, whoever sent it.
type Faults struct {
	// Method, PathPrefix, Route (a class of Stats.Requests, as "manifest") and Project select; empty selects all. Requests that
	// name no project, as listings of all projects, belong to none.
	Method     string
	PathPrefix string
	Route      string
	Project    string
	// Latency is how much longer each selected request takes.
	Latency time.Duration
	// ManifestPutLatency is how much longer a manifest PUT takes, one at a time for each project: Harbor's pushes take
	// turns on the quota row of their project. Signatures wait, too. Of several faults the longest one counts.
	ManifestPutLatency time.Duration
	// Status, unless 0, is answered instead of the real answer, with RetryAfter in its Retry-After header. A 401 of the registry
	// brings the challenge that Harbor answers to those whose credentials do not suffice.
	Status     int
	RetryAfter string
	// Count is after how many answers with Status the fault ends; 0 is never.
	Count int
	// Rate is the share of the selected requests that meet Status, in (0,1]; 0 is all of them.
	Rate float64
	// DropConnections is the share of the selected requests whose connection breaks without an answer, in [0,1].
	DropConnections float64
	// CutAnswers is the share of the selected requests, in [0,1], that Harbor does, while their connection breaks in the
	// middle of the answer's body: half of it arrives. Where there is no body, as after a PUT, nothing arrives.
	CutAnswers float64
	// LoseWebhooks lets every push succeed while its events never exist, as when Harbor's jobservice is down.
	LoseWebhooks bool
	// LoseNextWebhooks loses the events of that many pushes and then ends. One push with two policies counts once.
	LoseNextWebhooks int
	// LoseWebhookRate and DoubleWebhookRate are the shares of the pushes whose events are lost, and of the others whose events
	// are delivered twice, in [0,1]. Both deliveries have the same body, as when a receiver was slower than Harbor waits.
	LoseWebhookRate   float64
	DoubleWebhookRate float64
}

// faultsJSON is the form of Faults on the wire: durations as "150ms".
type faultsJSON struct {
	Method             string  `json:"method,omitempty"`
	PathPrefix         string  `json:"path_prefix,omitempty"`
	Route              string  `json:"route,omitempty"`
	Project            string  `json:"project,omitempty"`
	Latency            string  `json:"latency,omitempty"`
	ManifestPutLatency string  `json:"manifest_put_latency,omitempty"`
	Status             int     `json:"status,omitempty"`
	RetryAfter         string  `json:"retry_after,omitempty"`
	Count              int     `json:"count,omitempty"`
	Rate               float64 `json:"rate,omitempty"`
	DropConnections    float64 `json:"drop_connections,omitempty"`
	CutAnswers         float64 `json:"cut_answers,omitempty"`
	LoseWebhooks       bool    `json:"lose_webhooks,omitempty"`
	LoseNextWebhooks   int     `json:"lose_next_webhooks,omitempty"`
	LoseWebhookRate    float64 `json:"lose_webhook_rate,omitempty"`
	DoubleWebhookRate  float64 `json:"double_webhook_rate,omitempty"`
}

// MarshalJSON writes durations as "150ms".
func (f Faults) MarshalJSON() ([]byte, error) {
	readable := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return d.String()
	}
	raw, err := json.Marshal(faultsJSON{
		Method: f.Method, PathPrefix: f.PathPrefix, Route: f.Route, Project: f.Project,
		Latency: readable(f.Latency), ManifestPutLatency: readable(f.ManifestPutLatency),
		Status: f.Status, RetryAfter: f.RetryAfter, Count: f.Count, Rate: f.Rate,
		DropConnections: f.DropConnections, CutAnswers: f.CutAnswers, LoseWebhooks: f.LoseWebhooks,
		LoseNextWebhooks: f.LoseNextWebhooks, LoseWebhookRate: f.LoseWebhookRate, DoubleWebhookRate: f.DoubleWebhookRate,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding faults: %w", err)
	}
	return raw, nil
}

// UnmarshalJSON reads what MarshalJSON writes; an unknown key and a rate outside [0,1] are errors, so that a typing error injects something
// loud instead of nothing.
func (f *Faults) UnmarshalJSON(raw []byte) error {
	var wire faultsJSON
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&wire); err != nil {
		return fmt.Errorf("decoding faults: %w", err)
	}
	for name, rate := range map[string]float64{
		"rate": wire.Rate, "drop_connections": wire.DropConnections, "cut_answers": wire.CutAnswers,
		"lose_webhook_rate": wire.LoseWebhookRate, "double_webhook_rate": wire.DoubleWebhookRate,
	} {
		if rate < 0 || rate > 1 {
			return fmt.Errorf("decoding %s: got %v, want a share from 0 to 1", name, rate)
		}
	}
	out := Faults{
		Method: wire.Method, PathPrefix: wire.PathPrefix, Route: wire.Route, Project: wire.Project, Status: wire.Status,
		RetryAfter: wire.RetryAfter, Count: wire.Count, Rate: wire.Rate, DropConnections: wire.DropConnections,
		CutAnswers: wire.CutAnswers, LoseWebhooks: wire.LoseWebhooks, LoseNextWebhooks: wire.LoseNextWebhooks,
		LoseWebhookRate: wire.LoseWebhookRate, DoubleWebhookRate: wire.DoubleWebhookRate,
	}
	for _, field := range []struct {
		name, value string
		into        *time.Duration
	}{
		{"latency", wire.Latency, &out.Latency},
		{"manifest_put_latency", wire.ManifestPutLatency, &out.ManifestPutLatency},
	} {
		if field.value == "" {
			continue
		}
		d, err := time.ParseDuration(field.value)
		if err != nil {
			return fmt.Errorf("decoding %s: %w", field.name, err)
		}
		*field.into = d
	}
	*f = out
	return nil
}
