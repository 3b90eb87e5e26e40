package harbortest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Faults is what goes wrong, on purpose. The zero value is a healthy Harbor. Latency, Status and DropConnections meet
// the requests that Method, PathPrefix and Route select; the others stand for themselves.
type Faults struct {
	// Method, PathPrefix and Route (a class of Stats.Requests, as "manifest") select requests; empty selects all.
	Method     string
	PathPrefix string
	Route      string
	// Latency is how much longer each selected request takes.
	Latency time.Duration
	// ManifestPutLatency is how much longer a manifest PUT takes, one at a time for each project: Harbor's pushes take
	// turns on the quota row of their project.
	ManifestPutLatency time.Duration
	// Status, unless 0, is answered instead of the real answer, with RetryAfter in its Retry-After header.
	Status     int
	RetryAfter string
	// Count is after how many answers with Status the fault ends; 0 is never.
	Count int
	// Rate is the share of the selected requests that meet Status, in (0,1]; 0 is all of them.
	Rate float64
	// DropConnections is the share of the selected requests whose connection breaks without an answer, in [0,1].
	DropConnections float64
	// LoseWebhooks lets every push succeed while its events never exist, as when Harbor's jobservice is down.
	LoseWebhooks bool
	// LoseNextWebhooks loses the events of that many pushes and then ends. One push with two policies counts once.
	LoseNextWebhooks int
}

// faultsJSON is the form of Faults on the wire: durations as "150ms".
type faultsJSON struct {
	Method             string  `json:"method,omitempty"`
	PathPrefix         string  `json:"path_prefix,omitempty"`
	Route              string  `json:"route,omitempty"`
	Latency            string  `json:"latency,omitempty"`
	ManifestPutLatency string  `json:"manifest_put_latency,omitempty"`
	Status             int     `json:"status,omitempty"`
	RetryAfter         string  `json:"retry_after,omitempty"`
	Count              int     `json:"count,omitempty"`
	Rate               float64 `json:"rate,omitempty"`
	DropConnections    float64 `json:"drop_connections,omitempty"`
	LoseWebhooks       bool    `json:"lose_webhooks,omitempty"`
	LoseNextWebhooks   int     `json:"lose_next_webhooks,omitempty"`
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
		Method: f.Method, PathPrefix: f.PathPrefix, Route: f.Route,
		Latency: readable(f.Latency), ManifestPutLatency: readable(f.ManifestPutLatency),
		Status: f.Status, RetryAfter: f.RetryAfter, Count: f.Count, Rate: f.Rate,
		DropConnections: f.DropConnections, LoseWebhooks: f.LoseWebhooks, LoseNextWebhooks: f.LoseNextWebhooks,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding faults: %w", err)
	}
	return raw, nil
}

// UnmarshalJSON reads what MarshalJSON writes; an unknown key is an error, so that a typing error injects something
// loud instead of nothing.
func (f *Faults) UnmarshalJSON(raw []byte) error {
	var wire faultsJSON
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&wire); err != nil {
		return fmt.Errorf("decoding faults: %w", err)
	}
	out := Faults{
		Method: wire.Method, PathPrefix: wire.PathPrefix, Route: wire.Route, Status: wire.Status,
		RetryAfter: wire.RetryAfter, Count: wire.Count, Rate: wire.Rate, DropConnections: wire.DropConnections,
		LoseWebhooks: wire.LoseWebhooks, LoseNextWebhooks: wire.LoseNextWebhooks,
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

// faultState holds the current faults and the locks that stand for Harbor's quota rows.
type faultState struct {
	mu        sync.Mutex
	current   Faults                   // Guarded by mu.
	quotaRows map[string]chan struct{} // By project; a full channel is a locked row. Guarded by mu.
}

// SetFaults replaces all faults at once; the zero value heals the emulator.
func (h *Harbor) SetFaults(f Faults) {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	h.faults.current = f
}

// CurrentFaults returns the faults in force, counts as far as they have come.
func (h *Harbor) CurrentFaults() Faults {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	return h.faults.current
}

// injectFault delays, refuses or breaks a request, and reports whether that was its answer.
func (h *Harbor) injectFault(w http.ResponseWriter, r *http.Request, route string) bool {
	h.faults.mu.Lock()
	f := h.faults.current
	selected := (f.Method == "" || f.Method == r.Method) && (f.Route == "" || f.Route == route) &&
		strings.HasPrefix(r.URL.Path, f.PathPrefix)
	refuse := selected && f.Status != 0 && (f.Rate == 0 || h.random() < f.Rate)
	if refuse && f.Count > 0 {
		h.faults.current.Count--
		if h.faults.current.Count == 0 {
			h.faults.current.Status = 0
		}
	}
	h.faults.mu.Unlock()
	if !selected {
		return false
	}
	if !h.pause(r.Context(), f.Latency) || (f.DropConnections > 0 && h.random() < f.DropConnections) {
		panic(http.ErrAbortHandler) // The one way to break a connection; net/http recovers it silently.
	}
	if !refuse {
		return false
	}
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	http.Error(w, http.StatusText(f.Status), f.Status)
	return true
}

// lockQuotaRow waits for the project's turn and holds it for ManifestPutLatency.
func (h *Harbor) lockQuotaRow(ctx context.Context, projectName string) {
	h.faults.mu.Lock()
	latency := h.faults.current.ManifestPutLatency
	if latency <= 0 {
		h.faults.mu.Unlock()
		return
	}
	if h.faults.quotaRows == nil {
		h.faults.quotaRows = make(map[string]chan struct{})
	}
	row := h.faults.quotaRows[projectName]
	if row == nil {
		row = make(chan struct{}, 1)
		h.faults.quotaRows[projectName] = row
	}
	h.faults.mu.Unlock()
	select {
	case row <- struct{}{}:
	case <-ctx.Done():
		return
	case <-h.ctx.Done():
		return
	}
	h.pause(ctx, latency)
	<-row
}

// loseEvent reports whether the events of this push are to be lost.
func (h *Harbor) loseEvent() bool {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	if h.faults.current.LoseWebhooks {
		return true
	}
	if h.faults.current.LoseNextWebhooks > 0 {
		h.faults.current.LoseNextWebhooks--
		return true
	}
	return false
}
