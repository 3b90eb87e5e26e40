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
	// FaultAnswers is how many requests were answered by an injected status, CutAnswers how many answers broke off.
	FaultAnswers int64 `json:"fault_answers"`
	CutAnswers   int64 `json:"cut_answers"`
	// Webhooks counts deliveries.
	Webhooks WebhookStats `json:"webhooks"`
}

// WebhookStats counts deliveries, one for each event and policy, and one more for each that an injected fault doubled: Events = Delivered + GivenUp + Lost + Pending, and
// Attempts counts the HTTP requests.
type WebhookStats struct {
	Events    int64 `json:"events"`
	Attempts  int64 `json:"attempts"`
	Delivered int64 `json:"delivered"` // Answered 2xx.
	GivenUp   int64 `json:"given_up"`  // Refused three times.
	Lost      int64 `json:"lost"`      // Swallowed by an injected fault.
	Doubled   int64 `json:"doubled"`   // Delivered twice, by an injected fault; both are counted above.
	Pending   int64 `json:"pending"`   // Waiting, in delivery, or waiting for the next attempt.
}

type counters struct {
	mu       sync.Mutex
	requests map[string]int64 // Guarded by mu.
	faults   int64            // Guarded by mu.
	cut      int64            // Guarded by mu.
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

func (c *counters) broken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut++
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
		Requests: maps.Clone(h.counters.requests), FaultAnswers: h.counters.faults, CutAnswers: h.counters.cut, Webhooks: h.counters.webhooks,
	}
}
