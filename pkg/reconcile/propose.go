package reconcile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/harborseal/harborseal/pkg/policy"
)

// listedFor is how long the list of Harbor's projects is used: that is after how long a new project is found that a glob
// means.
const listedFor = 5 * time.Minute

// loadingPause is how soon it is tried again while the policies are being read.
const loadingPause = 200 * time.Millisecond

// errNeverListed says that Harbor's projects are not known, not even those of before.
var errNeverListed = errors.New("listing the projects for the first time")

// Run proposes ticks until ctx ends: one for recent sweeps at each of their intervals, and one for each project at each part
// of the interval of full sweeps.
func (r *Reconciler) Run(ctx context.Context) error {
	for {
		err := r.propose(ctx)
		wait := min(r.cfg.RecentInterval, r.calendar.step())
		next := time.Until(time.Now().Truncate(wait).Add(wait))
		switch {
		case errors.Is(err, policy.ErrNotLoaded):
			next = min(next, loadingPause) // at the start: nothing is wrong
		case err != nil && ctx.Err() == nil:
			r.metrics.proposeErrors.Inc()
			r.cfg.Logger.Warn().Err(err).Msg("proposing sweeps failed: another replica or the next interval will do it")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(next):
		}
	}
}

func (r *Reconciler) propose(ctx context.Context) error {
	if _, _, err := r.cfg.Policies.Projects(); errors.Is(err, policy.ErrNotLoaded) {
		return fmt.Errorf("reading the policies: %w", err)
	}
	now := time.Now()
	_, recentErr := r.cfg.Queue.Propose(ctx, Recent, "", r.calendar.recentSlot(now))
	projects, err := r.enabled(ctx)
	errs := []error{recentErr, err}
	for _, project := range projects {
		slot := r.calendar.fullSlot(project, now)
		if r.proposed(project) == slot {
			continue
		}
		if _, err := r.cfg.Queue.Propose(ctx, Full, project, slot); err != nil {
			errs = append(errs, fmt.Errorf("project %s: %w", project, err))
			continue
		}
		r.mu.Lock()
		r.latest[project] = slot
		r.mu.Unlock()
	}
	return errors.Join(errs...)
}

func (r *Reconciler) proposed(project string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest[project]
}

// enabled gives the projects for which something is done, also beside an error: those that are named do not depend on
// Harbor's list, which is asked for only if globs may mean others.
func (r *Reconciler) enabled(ctx context.Context) ([]string, error) {
	_, globs, err := r.cfg.Policies.Projects()
	if err != nil {
		return nil, fmt.Errorf("reading the policies: %w", err)
	}
	var listed []string
	var listErr error
	if globs {
		listed, listErr = r.listed.names(ctx, r.cfg.Harbor)
	}
	names, err := r.cfg.Policies.Enabled(listed)
	r.noteEnabled(names)
	return names, errors.Join(listErr, err)
}

// noteEnabled keeps since when this worker has known projects to be enabled.
func (r *Reconciler) noteEnabled(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	since := make(map[string]time.Time, len(names))
	for _, name := range names {
		if since[name] = r.since[name]; since[name].IsZero() {
			since[name] = time.Now()
		}
	}
	r.since = since
}

// enabledSince is zero for a project that is not enabled.
func (r *Reconciler) enabledSince(project string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.since[project]
}

// listMemory keeps the list of Harbor's projects for a while.
type listMemory struct {
	mu   sync.Mutex
	at   time.Time // guarded by mu
	last []string  // guarded by mu
}

// names gives the last list beside an error.
func (m *listMemory) names(ctx context.Context, h Harbor) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.at.IsZero() && time.Since(m.at) < listedFor {
		return m.last, nil
	}
	projects, err := h.AllProjects(ctx)
	switch {
	case err != nil && m.at.IsZero():
		return nil, fmt.Errorf("%w: %w", errNeverListed, err)
	case err != nil:
		return m.last, fmt.Errorf("listing the projects: %w", err)
	}
	m.last = nil
	for _, p := range projects {
		m.last = append(m.last, p.Name)
	}
	m.at = time.Now()
	return m.last, nil
}
