package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	stateVersion = 1
	// silentFor is after how long without a sign of life another worker takes a sweep over. It is longer than one check of a
	// digest may take, and than clocks differ.
	silentFor = 3 * time.Minute
	// saveEach and savePages are after how long, and after how many pages, a sweep saves where it is.
	saveEach  = 5 * time.Second
	savePages = 10
	// maxEdge is how many manifests of one second a state names, so that it stays far below what can be saved, however long
	// their names are.
	maxEdge = 500
	// stopTimeout bounds the last save of a sweep that is interrupted.
	stopTimeout = 5 * time.Second
)

// errOvertaken says that another worker goes on with a sweep.
var errOvertaken = errors.New("another worker goes on with the sweep")

// progress is what the state keeps of the sweeps of one project: where the one in work is, and when the last one began.
type progress struct {
	Version int `json:"v"`
	// Slot and Worker are of the sweep in work or the last one. Policy is the revision that it goes by.
	Slot   int64  `json:"slot"`
	Worker string `json:"worker"`
	Policy string `json:"policy"`
	// Unfinished sweeps are in work as long as BeatAt is young. It is zero for one that waits to be gone on with.
	Unfinished bool      `json:"unfinished,omitempty"`
	BeatAt     time.Time `json:"beat_at,omitzero"`
	// SucceededAt is when the last sweep began that ended well.
	SucceededAt time.Time `json:"succeeded_at,omitzero"`
	// Again asks for another sweep when this one ends: somebody asked for one meanwhile.
	Again bool `json:"again,omitempty"`

	// Retries says that the sweep asks for dead letters however young they are: somebody has asked for it.
	Retries bool `json:"retries,omitempty"`

	place
	// Holds says that decisions were put off until the end, or depend on indexes that were seen: only the worker that has seen
	// them can go on.
	Holds bool `json:"holds,omitempty"`
	// Partial says that a worker went on that has not seen everything.
	Partial bool `json:"partial,omitempty"`
	// Stuck counts the failures since the cursor moved last.
	Stuck int `json:"stuck,omitempty"`
}

// place is where to go on, and what was counted until there; Sweep.StartedAt is when the sweep began.
type place struct {
	Cursor artifact.Cursor `json:"cursor,omitzero"`
	Pages  int             `json:"pages,omitempty"`
	Sweep  artifact.Sweep  `json:"sweep"`
}

// inWork says whether some worker is at it now.
func (p progress) inWork(now time.Time) bool {
	return p.Unfinished && !p.BeatAt.IsZero() && now.Sub(p.BeatAt) < silentFor
}

// load gives the zero value for a project that was never swept. A state that cannot be read, such as a newer program's,
// counts as none: it is replaced, which costs a sweep from the beginning.
func (r *Reconciler) load(ctx context.Context, project string) (progress, uint64, error) {
	data, revision, err := r.cfg.State.LoadState(ctx, Full, project)
	if err != nil {
		return progress{}, 0, fmt.Errorf("reading the state of the sweep: %w", err)
	}
	var p progress
	if len(data) > 0 {
		if err := json.Unmarshal(data, &p); err != nil || p.Version > stateVersion {
			r.cfg.Logger.Warn().Err(err).Str("project", project).Msg("the state of a sweep cannot be read: it begins anew")
			return progress{}, revision, nil
		}
	}
	return p, revision, nil
}

func (r *Reconciler) save(ctx context.Context, project string, p progress, expect uint64) (uint64, error) {
	p.Version = stateVersion
	data, err := json.Marshal(p)
	if err != nil {
		return 0, fmt.Errorf("encoding the state of the sweep: %w", err)
	}
	revision, err := r.cfg.State.SaveState(ctx, Full, project, data, expect)
	if err != nil {
		return 0, fmt.Errorf("saving the state of the sweep: %w", err)
	}
	return revision, nil
}

// small gives a state that can be saved.
func (s *pass) small(p progress) progress {
	if len(p.Cursor.Edge) > maxEdge {
		p.place = s.saved
	}
	s.saved = p.place
	return p
}

// keep saves a state of this pass. Somebody may have written since: whoever asks for another sweep, which is taken over, or a
// worker that goes on with this one, which is errOvertaken. Where very many manifests were pushed within a second, it is the
// place before them that is saved: only another worker has to list them again.
func (s *pass) keep(ctx context.Context, p progress) error {
	p = s.small(p)
	for range 3 {
		p.Again = p.Again || s.again
		revision, err := s.r.save(ctx, s.project, p, s.revision)
		if err == nil {
			s.revision, s.savedAt = revision, time.Now()
			return nil
		}
		if !errors.Is(err, policy.ErrConflict) {
			return err
		}
		now, revision, err := s.r.load(ctx, s.project)
		if err != nil {
			return err
		}
		if now.Worker != s.r.worker || now.Slot != p.Slot || !now.Unfinished {
			return errOvertaken
		}
		s.again, s.revision = s.again || now.Again, revision
	}
	return errOvertaken
}

// checkpoint makes what was done so far the place to go on from, and saves it now and then.
//
// A crash before the next save repeats what came since the last: requests wait already, events have the same ids.
func (s *pass) checkpoint(ctx context.Context, cursor artifact.Cursor) error {
	s.at.Cursor, s.at.Sweep, s.at.Stuck = cursor, s.sum, 0
	s.at.Pages++
	s.at.Holds = s.held.any()
	if s.at.Pages%savePages != 0 && time.Since(s.savedAt) < saveEach {
		return nil
	}
	return s.beat(ctx, 0)
}

// beat saves the last checkpoint again with a sign of life, unless the last save is younger than the given time.
func (s *pass) beat(ctx context.Context, least time.Duration) error {
	if time.Since(s.savedAt) < least {
		return nil
	}
	s.at.BeatAt = time.Now().UTC()
	return s.keep(ctx, s.at)
}

// rest saves that the sweep waits to be gone on with, also if the program is stopping. If that fails, others wait until the
// last sign of life is old.
func (s *pass) rest(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	s.at.BeatAt = time.Time{}
	if err := s.keep(ctx, s.at); err != nil {
		s.log.Warn().Err(err).Msg("saving where the sweep is failed: another worker goes on with it in some minutes")
	}
}
