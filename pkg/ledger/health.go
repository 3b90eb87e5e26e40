package ledger

import (
	"sync"
	"time"
)

// ProjectionState is how the projection stands.
type ProjectionState string

// The states.
const (
	ProjectionStarting  ProjectionState = "starting"  // nothing was tried yet
	ProjectionFollowing ProjectionState = "following" // events come into the view as they are recorded
	ProjectionStopped   ProjectionState = "stopped"   // the database or the ledger does not answer; it is tried again and again
)

// ProjectionStatus says whether the report is kept up to date. While it is not, pushes are accepted and signed as ever.
type ProjectionStatus struct {
	State ProjectionState `json:"state"`
	// Since is when it came to this state; null while it starts.
	Since *time.Time `json:"since"`
	// Position is the sequence up to which events are known to be in the view.
	Position uint64 `json:"position"`
	// Error is why it stopped last; empty while it follows.
	Error string `json:"error"`
}

// Status says how the projection stands. It asks nobody, and may be called at any time.
func (p *Projector) Status() ProjectionStatus {
	status := p.health.status()
	status.Position = p.applied.Load()
	return status
}

// health remembers how the projection stands. The zero value is that of the start. It is safe for concurrent use.
type health struct {
	mu    sync.Mutex
	state ProjectionState // guarded by mu: empty at the start
	since time.Time       // guarded by mu
	err   error           // guarded by mu
}

// started says that nothing has failed yet. What has failed before counts until something has worked.
func (h *health) started() {
	h.mu.Lock()
	first := h.state == ""
	h.mu.Unlock()
	if first {
		h.going()
	}
}

func (h *health) going() { h.turn(ProjectionFollowing, nil) }

func (h *health) stopped(err error) { h.turn(ProjectionStopped, err) }

func (h *health) turn(to ProjectionState, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != to {
		h.state, h.since = to, time.Now().UTC()
	}
	h.err = err
}

func (h *health) status() ProjectionStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == "" {
		return ProjectionStatus{State: ProjectionStarting}
	}
	since := h.since
	status := ProjectionStatus{State: h.state, Since: &since}
	if h.err != nil {
		status.Error = h.err.Error()
	}
	return status
}
