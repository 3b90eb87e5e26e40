package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// stuckAfter is after how long a digest that is still pending is asked for when the feed is checked: its push may have come
// into the ledger and never into the queue.
const stuckAfter = 15 * time.Minute

// arrival is a push, as the feed or a listing tells of it.
type arrival struct {
	listed artifact.Listed
	at     time.Time
	// pushed says that somebody has pushed it at that time, whenever Harbor got it first.
	pushed bool
}

// fed looks at a page of the feed.
func (l *look) fed(ctx context.Context, page []artifact.Pushed) error {
	at := map[artifact.Ref]int{}
	var arrivals []arrival
	for _, p := range page {
		if l.ownOrAccessory(p) {
			continue
		}
		if !l.admits(ctx, p.Ref.Project(), l.since) {
			_, unread := l.behind[p.Ref.Project()]
			l.confirmations.unread = l.confirmations.unread || unread
			continue
		}
		l.confirmations.note(p, l.policies[p.Ref.Project()])
		i, found := at[p.Ref]
		if !found {
			i = len(arrivals)
			at[p.Ref] = i
			arrivals = append(arrivals, arrival{listed: artifact.Listed{Ref: p.Ref}, at: p.At, pushed: true})
		}
		if a := &arrivals[i]; p.Tag != "" {
			a.listed.Tags = append(a.listed.Tags, p.Tag)
		}
		if p.At.After(arrivals[i].at) {
			arrivals[i].at = p.At
		}
	}
	return l.arrived(ctx, arrivals)
}

// ownOrAccessory recognises what belongs to an image and is none, as far as the feed can tell.
func (l *look) ownOrAccessory(p artifact.Pushed) bool {
	own := p.Tag == "" && slices.Contains(l.r.cfg.OwnAccounts, p.By)
	return own || artifact.IsAccessoryTag(p.Tag)
}

// listed looks at a page of a listing.
func (l *look) listed(ctx context.Context, page []artifact.Listed) error {
	arrivals := make([]arrival, 0, len(page))
	for _, row := range page {
		if !onlyAccessoryTags(row.Tags) {
			arrivals = append(arrivals, arrival{listed: row, at: row.PushedAt})
		}
	}
	return l.arrived(ctx, arrivals)
}

// onlyAccessoryTags recognises what cosign attaches, such as a legacy attestation, as far as tags can tell. Full sweeps ask a
// signer to look.
func onlyAccessoryTags(tags []string) bool {
	return len(tags) > 0 && !slices.ContainsFunc(tags, func(tag string) bool { return !artifact.IsAccessoryTag(tag) })
}

// arrived asks for those that the ledger does not know to be cared for.
func (l *look) arrived(ctx context.Context, arrivals []arrival) error {
	// The look back repeats what the last sweep saw.
	arrivals = slices.DeleteFunc(arrivals, func(a arrival) bool { return !l.checking && l.r.pushes.has(a.key()) })
	for batch := range slices.Chunk(arrivals, MaxBatch) {
		refs := make([]artifact.Ref, len(batch))
		for i, a := range batch {
			refs[i] = a.listed.Ref
		}
		known, err := l.r.known(ctx, refs)
		if err != nil {
			return err
		}
		for i, a := range batch {
			if err := l.look(ctx, a, known[i]); err != nil {
				return err
			}
			l.r.pushes.add(a.key())
		}
		if err := l.beat(ctx, saveEach*4); err != nil {
			return err
		}
	}
	return nil
}

func (l *look) look(ctx context.Context, a arrival, k artifact.Known) error {
	l.pushes++
	p := l.policies[a.listed.Ref.Project()]
	s := subject(a.listed, k)
	var cut *time.Time
	if a.pushed && !a.at.Before(p.From) {
		s.PushedAt = time.Time{} // like a webhook's push, which is always of now
	} else {
		at := a.at.UTC()
		s.PushedAt, cut = at, &at
	}
	d := policy.Decide(p, s)
	wanted := d.Sign || d.Reason == policy.Observed && !isObserved(k)
	if !wanted || !l.open(p, a, k) {
		l.r.metrics.manifests.WithLabelValues(Recent, "known").Inc()
		return nil
	}
	// A dead letter is for full sweeps, and for whoever mends what is wrong with it.
	_, dead, err := l.r.cfg.Queue.DeadSince(ctx, a.listed.Ref)
	if err != nil {
		return fmt.Errorf("looking for a dead letter of %s: %w", a.listed.Ref, err)
	}
	if dead {
		l.dead++
		l.r.metrics.manifests.WithLabelValues(Recent, "dead").Inc()
		return nil
	}
	correlation := "push-" + artifact.EventID(artifact.Received, a.listed.Ref, strconv.FormatInt(a.at.UnixMilli(), 10))
	duplicate, err := l.r.cfg.Queue.Enqueue(ctx, artifact.Request{
		Ref: a.listed.Ref, Lane: artifact.Bulk, Origin: artifact.OriginSweep, Actor: actor, CorrelationID: correlation,
		RequestedAt: time.Now().UTC(), PushedAt: cut, SignedBefore: signedBefore(k),
	})
	if err != nil {
		return fmt.Errorf("asking for %s: %w", a.listed.Ref, err)
	}
	if duplicate {
		l.pending++
		l.r.metrics.manifests.WithLabelValues(Recent, "pending").Inc()
		return nil
	}
	l.requested++
	l.r.metrics.manifests.WithLabelValues(Recent, "requested").Inc()
	l.log.Info().Str("project", a.listed.Ref.Project()).Str("repository", a.listed.Ref.Repository()).Str("digest", a.listed.Ref.Digest()).
		Str("correlation_id", correlation).Str("outcome", "requested").Time("pushed_at", a.at).Msg("push found that no webhook has told of")
	l.missed(a, k)
	return nil
}

// open says whether nobody cares for a digest, as far as the ledger knows.
func (l *look) open(p policy.Policy, a arrival, k artifact.Known) bool {
	switch k.State {
	case "", isGone, isSkipped, isBlocked:
		return true
	case isUnsigned: // where its signature was removed, that may be all that is to be said
		return len(k.Signatures) == 0 || p.Restore != policy.RestoreAlert
	case isPending, isFailed:
		return l.checking && l.now.Sub(a.at) > stuckAfter
	default: // signed, or a dead letter
		return false
	}
}

// missed looks for pushes of which the feed should have told when it was asked before, and of which the ledger knows nothing.
// What was pushed before the project was enabled is not among them.
func (l *look) missed(a arrival, k artifact.Known) {
	enabled := l.r.enabledSince(a.listed.Ref.Project())
	if !l.checking || k.State != "" || !a.at.Before(l.since) || enabled.IsZero() || a.at.Before(enabled.Add(overlap)) {
		return
	}
	l.r.metrics.missed.Inc()
	l.st.DistrustUntil = l.now.Add(distrust)
	l.r.metrics.feed.Set(0)
	l.log.Warn().Str("project", a.listed.Ref.Project()).Str("repository", a.listed.Ref.Repository()).Str("digest", a.listed.Ref.Digest()).
		Time("until", l.st.DistrustUntil).Msg("neither a webhook nor harbor's feed has told of a push: the projects are listed for a while")
}

// sourceIs says where recent pushes are looked for, when that changes.
func (r *Reconciler) sourceIs(source string, log zerolog.Logger) {
	value := 0.0
	if source == "feed" {
		value = 1
	}
	r.metrics.feed.Set(value)
	r.mu.Lock()
	last := r.source
	r.source = source
	r.mu.Unlock()
	if last != source {
		log.Info().Str("source", source).Str("before", last).Msg("recent pushes are looked for in another place")
	}
}

// key names a push.
func (a arrival) key() pushKey { return pushKey{ref: a.listed.Ref, at: a.at.UnixMilli()} }

type pushKey struct {
	ref artifact.Ref
	at  int64
}

// maxPushes bounds how many pushes are remembered in each of two halves.
const maxPushes = 20_000

// pushMemory knows the pushes that were looked at last. Forgetting one costs a question.
type pushMemory struct {
	mu         sync.Mutex
	young, old map[pushKey]struct{} // guarded by mu
}

func (m *pushMemory) has(k pushKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, young := m.young[k]
	_, old := m.old[k]
	return young || old
}

func (m *pushMemory) add(k pushKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.young == nil || len(m.young) >= maxPushes {
		m.young, m.old = map[pushKey]struct{}{}, m.young
	}
	m.young[k] = struct{}{}
}
