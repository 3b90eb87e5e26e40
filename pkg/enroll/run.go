package enroll

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// loadingPause is how soon it is tried again while the policies are being read.
const loadingPause = 200 * time.Millisecond

// slot numbers the intervals of drift checks.
func (s *Service) slot() int64 { return s.cfg.Now().UnixNano() / int64(s.cfg.Interval) }

// Run proposes a drift check of each project that is enabled, or was, in each interval, until ctx ends. Whoever consumes the
// ticks calls Check. All receivers propose: the queue takes each slot once. A failure is logged, and the next interval is
// the next attempt. It also sees that what was declared is still in the bucket, which may have been made anew.
func (s *Service) Run(ctx context.Context) error {
	for {
		next := loadingPause
		if _, _, err := s.cfg.Book.Projects(); !errors.Is(err, policy.ErrNotLoaded) {
			s.round(ctx)
			next = time.Unix(0, (s.slot()+1)*int64(s.cfg.Interval)).Sub(s.cfg.Now())
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// Tick handles a tick of the kind DriftTick: it checks the project, unless the tick has waited for so long that a newer one
// has taken its place; one out of turn is never too late. A failure is logged and no reason for another attempt: the next slot
// is. It is an error only that ctx has ended, so that another receiver takes the tick.
func (s *Service) Tick(ctx context.Context, project string, slot int64) error {
	if slot > 0 && slot < s.slot()-1 {
		s.cfg.Logger.Warn().Str("project", project).Dur("interval_ms", s.cfg.Interval).
			Msg("drift check is too late and left to a later round: checking all projects takes longer than the interval")
		return nil
	}
	err := s.Check(ctx, project)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		s.cfg.Logger.Warn().Err(err).Str("project", project).Str("reason", string(fault.Of(err).Reason)).Msg("project could not be checked for drift")
	}
	return nil
}

// round proposes the checks of one slot, and once more out of turn if the declared policies were changed since: their projects
// are not to wait for their webhooks. Each round begins at another project: what comes too late in one is early in another.
func (s *Service) round(ctx context.Context) {
	if declared := s.declared.Load(); declared != nil {
		if err := s.Declare(ctx, declared); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Error().Err(err).Msg("declared policies could not be published")
		}
	}
	if s.cfg.Harbor == nil {
		return
	}
	slot, hurry := s.slot(), s.hurry.Swap(false)
	projects := s.toCheck(ctx)
	begin := beginOf(slot, len(projects))
	for _, project := range slices.Concat(projects[begin:], projects[:begin]) {
		accepted, err := s.cfg.Queue.Propose(ctx, DriftTick, project, slot)
		if err == nil && !accepted && hurry {
			_, err = s.cfg.Queue.Propose(ctx, DriftTick, project, -s.cfg.Now().UnixNano())
		}
		if err != nil {
			if ctx.Err() == nil {
				s.cfg.Logger.Warn().Err(err).Str("project", project).Msg("drift checks could not be proposed")
			}
			return // the others would fail as well
		}
	}
}

// beginOf gives where the round of a slot begins among so many projects: anywhere, and the same for all receivers.
func beginOf(slot int64, projects int) int {
	if projects == 0 {
		return 0
	}
	return int(spread(strconv.FormatInt(slot, 10)) % uint64(projects)) //nolint:gosec // less than projects
}

// toCheck gives the projects that are enabled, and those for which something is left to be done: a webhook of ours that may
// still be there, or a problem that stands.
func (s *Service) toCheck(ctx context.Context) []string {
	listed, err := s.list(ctx)
	if err != nil {
		// Those that are named are checked all the same.
		s.cfg.Logger.Warn().Err(err).Msg("projects could not be listed for the drift check")
	}
	enabled, err := s.cfg.Book.Enabled(listed)
	if err != nil {
		s.cfg.Logger.Warn().Err(err).Msg("policies of some projects could not be read for the drift check")
	}
	named, _, err := s.cfg.Book.Projects()
	if err != nil {
		return nil // not loaded
	}
	names := enabled
	s.mu.Lock()
	candidates := slices.Concat(listed, named, s.listed)
	s.mu.Unlock()
	for _, name := range candidates {
		if state, _, err := s.cfg.Book.State(name); err == nil && (state.WebhookID != 0 || len(state.Problems) > 0) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	s.mu.Lock()
	s.listed = names
	s.mu.Unlock()
	return names
}
