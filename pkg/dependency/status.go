package dependency

import (
	"context"
	"strings"
	"sync"
	"time"
)

// Status is what is known of a dependency. Its JSON form is for people and machines: fields are added, never renamed.
type Status struct {
	Dependency string `json:"dependency"`
	// Up is the outcome of the last probe; nil before the first, and while there is nothing to ask for.
	Up *bool `json:"up,omitempty"`
	// CheckedAt is when that probe had ended, and ChangedAt when the first one with this outcome had.
	CheckedAt time.Time `json:"checked_at,omitzero"`
	ChangedAt time.Time `json:"changed_at,omitzero"`
	Cause     Cause     `json:"cause,omitempty"`
	Detail    string    `json:"detail,omitempty"`
	// Seconds is how long the probe took.
	Seconds float64 `json:"seconds,omitempty"`
	// CertificateExpires is when the first certificate of its chain does; zero without TLS.
	CertificateExpires time.Time `json:"certificate_expires,omitzero"`
	// SkewSeconds is by how much its clock is ahead.
	SkewSeconds float64 `json:"skew_seconds,omitempty"`
}

// Status gives what the last probes have found, in the order of the configuration. It asks nobody.
func (m *Monitor) Status() []Status {
	all := make([]Status, 0, len(m.states))
	for _, s := range m.states {
		s.mu.Lock()
		all = append(all, s.status)
		s.mu.Unlock()
	}
	return all
}

// Look probes everything once, and gives what it has found, in the order of the configuration. It records nothing, changes no
// metric, and opens and closes no breaker. It is for a monitor that does not run.
func (m *Monitor) Look(ctx context.Context) []Status {
	all := make([]Status, len(m.tries))
	var running sync.WaitGroup
	for i, t := range m.tries {
		running.Go(func() {
			f := t.run(ctx, m.cfg.Timeout)
			s := &state{status: Status{Dependency: t.Name}}
			if f.skipped {
				all[i] = s.status
				return
			}
			var cause Cause
			var detail string
			if f.err != nil {
				cause, detail = CauseOf(f.err), detailOf(f.err)
			}
			s.set(m.cfg.Now(), f, cause, detail)
			all[i] = s.status
		})
	}
	running.Wait()
	return all
}

// set takes the outcome of a probe.
func (s *state) set(at time.Time, f finding, cause Cause, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	up := f.err == nil
	if s.status.Up == nil || *s.status.Up != up {
		s.status.ChangedAt = at
	}
	s.status.Up, s.status.CheckedAt, s.status.Cause, s.status.Detail = &up, at, cause, detail
	s.status.Seconds, s.status.SkewSeconds = f.latency.Seconds(), f.skew.Seconds()
	if !f.notAfter.IsZero() {
		s.status.CertificateExpires = f.notAfter
	}
}

// forget leaves the name alone.
func (s *state) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = Status{Dependency: s.status.Dependency}
}

// withoutUserinfo takes what stands before an @ out of each address in a text.
func withoutUserinfo(text string) string {
	var clean strings.Builder
	for {
		scheme, rest, found := strings.Cut(text, "://")
		clean.WriteString(scheme)
		if !found {
			return clean.String()
		}
		clean.WriteString("://")
		end := strings.IndexAny(rest, "/?# \t\r\n\"'<>")
		if end < 0 {
			end = len(rest)
		}
		authority := rest[:end]
		clean.WriteString(authority[strings.LastIndex(authority, "@")+1:])
		text = rest[end:]
	}
}
