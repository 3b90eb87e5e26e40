package harbortest

import (
	"maps"
	"sync"
)

// Stats counts what happened since the start.
type Stats struct {
	// Requests by "METHOD class", where class is token, api, manifest, blob, upload, tags, referrers, registry or
	// other: "PUT manifest" is the number of pushes tried. Faults are counted too.
	Requests map[string]int64 `json:"requests"`
	// FaultAnswers is how many requests were answered by an injected status.
	FaultAnswers int64 `json:"fault_answers"`
	// Webhooks counts deliveries.
	Webhooks WebhookStats `json:"webhooks"`
}

// WebhookStats counts deliveries, one for each event and policy: Events = Delivered + GivenUp + Lost + Pending, and
// Attempts counts the HTTP requests.
type WebhookStats struct {
	Events    int64 `json:"events"`
	Attempts  int64 `json:"attempts"`
	Delivered int64 `json:"delivered"` // Answered 2xx.
	GivenUp   int64 `json:"given_up"`  // Refused three times.
	Lost      int64 `json:"lost"`      // Swallowed by an injected fault.
	Pending   int64 `json:"pending"`   // Waiting, in delivery, or waiting for the next attempt.
}

type counters struct {
	mu       sync.Mutex
	requests map[string]int64 // Guarded by mu.
	faults   int64            // Guarded by mu.
	webhooks WebhookStats     // Guarded by mu.
}

func (c *counters) request(method, class string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests[method+" "+class]++
}

func (c *counters) refused() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults++
}

// webhook changes the webhook counters under their lock.
func (c *counters) webhook(change func(*WebhookStats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.webhooks)
}

// Stats returns a copy of the counters.
func (h *Harbor) Stats() Stats {
	h.counters.mu.Lock()
	defer h.counters.mu.Unlock()
	return Stats{
		Requests: maps.Clone(h.counters.requests), FaultAnswers: h.counters.faults, Webhooks: h.counters.webhooks,
	}
}
