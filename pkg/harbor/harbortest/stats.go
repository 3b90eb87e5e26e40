package harbortest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"sync"
)

const controlPrefix = "/_emulator/"

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

// serveControl answers under /_emulator/: GET and PUT faults, GET and PUT version, GET stats.
func (h *Harbor) serveControl(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET " + controlPrefix + "faults":
		h.answerControl(w, h.CurrentFaults())
	case "PUT " + controlPrefix + "faults":
		var f Faults
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAPIBody)).Decode(&f); err != nil {
			http.Error(w, fmt.Sprintf("reading faults: %v", err), http.StatusBadRequest)
			return
		}
		h.SetFaults(f)
		h.answerControl(w, f)
	case "GET " + controlPrefix + "version":
		h.answerControl(w, versionJSON{Version: h.Version()})
	case "PUT " + controlPrefix + "version":
		h.putVersion(w, http.MaxBytesReader(w, r.Body, maxAPIBody))
	case "GET " + controlPrefix + "stats":
		h.answerControl(w, h.Stats())
	default:
		http.Error(w, "the control surface has faults (GET, PUT), version (GET, PUT) and stats (GET)", http.StatusNotFound)
	}
}

func (h *Harbor) answerControl(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		h.log.Debug().Err(err).Msg("client went away")
	}
}
