package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// overlap is how far a recent sweep looks back beyond the last one: pushes come into Harbor's lists in no strict order.
	overlap = 2 * time.Minute
	// firstLook is how far the first one looks back. What is older is for full sweeps.
	firstLook = time.Hour
	// shares is among how many recent sweeps the listings of all projects are divided that check the feed.
	shares = 60
	// distrust is how long the feed is not used after it has missed a push.
	distrust = time.Hour
	// maxBehind is how many projects a state names, so that it stays far below what can be saved.
	maxBehind = 500
	// behindFor is after how long full sweeps alone care for a project that could not be looked at.
	behindFor = 24 * time.Hour
)

// recentState is what the state keeps of recent sweeps. Watermark, Behind and DistrustUntil are by Harbor's clock.
type recentState struct {
	Version int    `json:"v"`
	Worker  string `json:"worker"`
	// BeatAt is a sign of life of the sweep in work, zero if there is none. BeganAt is when the last one began that has ended.
	BeatAt  time.Time `json:"beat_at,omitzero"`
	BeganAt time.Time `json:"began_at,omitzero"`
	// Watermark is until when pushes were seen, but in the projects that are Behind: there it is the time beside the name.
	Watermark     time.Time            `json:"watermark,omitzero"`
	Behind        map[string]time.Time `json:"behind,omitempty"`
	DistrustUntil time.Time            `json:"distrust_until,omitzero"`
	// Confirmed are the pushes that were confirmed and will be read again, by the first half of the event's id, with their
	// times in milliseconds since 1970. Unconfirmed is since when there are some that could not be confirmed; zero for none.
	Confirmed   map[string]int64 `json:"confirmed,omitempty"`
	Unconfirmed time.Time        `json:"unconfirmed,omitzero"`
}

// recent looks at what was pushed lately. What fails is done by the next slot, from the same time on.
//
// The watermark is saved after everything was asked for: a crash before repeats requests, which wait already.
func (r *Reconciler) recent(ctx context.Context, slot int64) error {
	leave, free := r.enter(Recent, "")
	if !free {
		r.metrics.ended(Recent, skipped)
		return nil
	}
	defer leave()
	began := time.Now()
	st, revision, err := r.loadRecent(ctx)
	if err != nil {
		return err
	}
	late := !st.BeganAt.Before(r.calendar.recentAt(slot))
	if inWork := st.Worker != r.worker && began.Sub(st.BeatAt) < silentFor; late || inWork {
		r.metrics.ended(Recent, skipped)
		return nil
	}
	l := &look{
		r: r, slot: slot, st: st, revision: revision, policies: map[string]policy.Policy{}, behind: map[string]time.Time{},
		log: r.cfg.Logger.With().Str("kind", Recent).Int64("slot", slot).Logger(),
	}
	if err := l.beat(ctx, 0); err != nil {
		if errors.Is(err, policy.ErrConflict) {
			r.metrics.ended(Recent, skipped) // another worker was faster
			return nil
		}
		return err
	}
	err = l.run(ctx)
	if ctx.Err() == nil {
		l.st.BeganAt = began.UTC()
	}
	if saveErr := l.end(ctx); err == nil {
		err = saveErr
	}
	switch {
	case err == nil:
		r.metrics.succeeded(Recent, began)
		l.log.Info().Str("source", l.source).Time("since", l.since).Int("pushes", l.pushes).Int("requested", l.requested).
			Int("pending", l.pending).Int("dead", l.dead).Dur("took_ms", time.Since(began)).Msg("recent sweep finished")
		return nil
	case ctx.Err() != nil:
		r.metrics.ended(Recent, paused)
		return fmt.Errorf("looking at recent pushes: %w", err)
	default:
		r.metrics.ended(Recent, failed)
		l.log.Error().Err(err).Time("since", l.since).Msg("recent sweep failed: the next one looks from the same time on")
		return nil
	}
}

func (r *Reconciler) loadRecent(ctx context.Context) (recentState, uint64, error) {
	data, revision, err := r.cfg.State.LoadState(ctx, Recent, "")
	if err != nil {
		return recentState{}, 0, fmt.Errorf("reading the state of recent sweeps: %w", err)
	}
	var st recentState
	if len(data) > 0 {
		if err := json.Unmarshal(data, &st); err != nil || st.Version > stateVersion {
			r.cfg.Logger.Warn().Err(err).Msg("the state of recent sweeps cannot be read: they begin anew")
			return recentState{}, revision, nil
		}
	}
	return st, revision, nil
}

// look is one recent sweep. It is used by one goroutine.
type look struct {
	r        *Reconciler
	slot     int64
	st       recentState
	revision uint64
	savedAt  time.Time
	log      zerolog.Logger
	policies map[string]policy.Policy // that admit something

	since, now time.Time // by Harbor's clock
	source     string    // feed or listing
	// checking says that what is looked at now is known already if the feed or the webhooks tell everything.
	checking bool

	// behind are the projects that this sweep cannot look at, and from when on they are to be looked at.
	behind map[string]time.Time

	pushes, requested, pending, dead int

	confirmations confirmations
}

// run looks from the watermark on and moves it in the state at hand, which the caller saves.
func (l *look) run(ctx context.Context) error {
	info, err := l.r.cfg.Harbor.System(ctx)
	if err != nil {
		return fmt.Errorf("asking for Harbor's time: %w", err)
	}
	l.r.clock.learn(info)
	if l.now = info.Now.UTC(); info.Now.IsZero() {
		l.now = time.Now().UTC()
	}
	l.since = l.now.Add(-firstLook)
	if !l.st.Watermark.IsZero() {
		l.since = l.st.Watermark.Add(-overlap)
	}
	if latest := l.now.Add(-overlap); l.since.After(latest) {
		l.since = latest // Harbor's clock was set back
	}
	if err := l.all(ctx, l.st.Behind); err != nil {
		return err // the next one looks from the same times on
	}
	l.st.Watermark, l.st.Behind = l.now, l.behind
	if len(l.behind) > maxBehind {
		l.st.Watermark, l.st.Behind = l.allBehind(), nil
	}
	l.confirm(ctx)
	return nil
}

// allBehind is the watermark where more projects are behind than a state can name: then all are.
func (l *look) allBehind() time.Time {
	oldest := l.now
	for _, at := range l.behind {
		if at.Before(oldest) {
			oldest = at
		}
	}
	// The next sweep looks back from the watermark, and is not to go back further each time.
	if oldest = oldest.Add(overlap); oldest.Before(l.now.Add(-behindFor)) {
		oldest = l.now.Add(-behindFor)
	}
	return oldest
}

func (l *look) all(ctx context.Context, behind map[string]time.Time) error {
	fed, err := l.feed(ctx)
	if err != nil {
		return err
	}
	l.source = "listing"
	if fed {
		l.source = "feed"
	}
	l.r.sourceIs(l.source, l.log)
	names, err := l.r.enabled(ctx)
	if errors.Is(err, policy.ErrNotLoaded) || errors.Is(err, errNeverListed) && fault.Is(err, fault.Transient) {
		return err // nobody would come back to the pushes of those that are not known
	}
	if err != nil {
		l.log.Warn().Err(err).Msg("not all projects are known: recent pushes are looked for in the others")
	}
	since, checks := map[string]time.Time{}, map[string]bool{}
	for _, name := range names {
		if !fed {
			since[name] = l.since
		} else if hashOf(name)%shares == uint64(l.slot)%shares { //nolint:gosec // slots of recent sweeps are positive
			// Each project's turn comes once in as many slots.
			since[name], checks[name] = l.now.Add(-shares*l.r.cfg.RecentInterval-overlap), true
		}
	}
	for name, at := range behind {
		if l.now.Sub(at) < behindFor && (since[name].IsZero() || at.Before(since[name])) {
			since[name] = at
		}
		delete(checks, name) // it was not looked at, so that much may be new
	}
	return l.list(ctx, since, checks)
}

// feed asks Harbor's feed once. It says whether there is one that is to be relied on.
func (l *look) feed(ctx context.Context) (bool, error) {
	if l.now.Before(l.st.DistrustUntil) {
		return false, nil
	}
	var ours error
	available, err := l.r.cfg.Harbor.Feed(ctx, l.since, l.now, func(ctx context.Context, page []artifact.Pushed) error {
		ours = l.fed(ctx, page)
		return ours
	})
	switch {
	case ours != nil:
		return false, ours
	case fault.Is(err, fault.Permanent) || fault.Is(err, fault.Gone):
		l.log.Warn().Err(err).Msg("harbor's feed of pushes is refused: the projects are listed")
		return false, nil
	case err != nil:
		return false, fmt.Errorf("reading Harbor's feed of pushes: %w", err)
	}
	l.confirmations.covered = available
	return available, nil
}

// list looks at projects from the times beside their names on. One that cannot be listed is behind, and does not keep the
// others from going on; many in a row are an outage. checks are those that tell whether the feed misses something.
func (l *look) list(ctx context.Context, since map[string]time.Time, checks map[string]bool) error {
	unanswered := 0
	for _, name := range slices.Sorted(maps.Keys(since)) {
		if !l.admits(ctx, name, since[name]) {
			continue
		}
		var ours error
		l.checking = checks[name]
		err := l.r.cfg.Harbor.PushedSince(ctx, name, since[name], func(ctx context.Context, page []artifact.Listed) error {
			ours = l.listed(ctx, page)
			return ours
		})
		switch {
		case ours != nil:
			return ours
		case err == nil:
			unanswered = 0
		case ctx.Err() != nil:
			return err
		case fault.Is(err, fault.Transient):
			l.behind[name] = since[name]
			l.log.Warn().Err(err).Str("project", name).Msg("recent pushes of a project cannot be listed: the next sweep tries again")
			if unanswered++; unanswered > maxUnanswered {
				return fmt.Errorf("listing the recent pushes of %s: %w", name, err)
			}
		default:
			l.log.Error().Err(err).Str("project", name).Msg("recent pushes of a project cannot be listed: full sweeps try again")
		}
	}
	return nil
}

// admits says whether something is done for a project now. Where that cannot be read, the project is behind.
func (l *look) admits(ctx context.Context, project string, since time.Time) bool {
	if p, known := l.policies[project]; known {
		return swept(p)
	}
	p, err := l.r.cfg.Policies.Policy(ctx, project)
	if err != nil {
		if at, found := l.behind[project]; !found || since.Before(at) {
			l.behind[project] = since
		}
		l.log.Warn().Err(err).Str("project", project).Msg("the policy of a project cannot be read: its recent pushes are looked at later")
		return false
	}
	l.policies[project] = p
	return swept(p)
}

// swept says whether sweeps look at a project at all. They leave the images of a canary alone: it tries whether a push is
// signed without them.
func swept(p policy.Policy) bool { return policy.Admit(p).Sign && !p.Canary }

// beat saves a sign of life, unless the last one is younger than the given time.
func (l *look) beat(ctx context.Context, least time.Duration) error {
	if time.Since(l.savedAt) < least {
		return nil
	}
	now := time.Now()
	st := l.st
	st.Worker, st.BeatAt = l.r.worker, now.UTC()
	return l.save(ctx, st)
}

// end saves what was reached, also if the program is stopping.
func (l *look) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	st := l.st
	st.Worker, st.BeatAt = l.r.worker, time.Time{}
	return l.save(ctx, st)
}

func (l *look) save(ctx context.Context, st recentState) error {
	st.Version = stateVersion
	data, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encoding the state of recent sweeps: %w", err)
	}
	revision, err := l.r.cfg.State.SaveState(ctx, Recent, "", data, l.revision)
	if err != nil {
		return fmt.Errorf("saving the state of recent sweeps: %w", err)
	}
	l.revision, l.savedAt = revision, time.Now()
	return nil
}
