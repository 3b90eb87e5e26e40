package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// progressEach is how often a long sweep says where it is.
const progressEach = 30 * time.Second

var (
	// errNoMemory says that nobody answered what the ledger knows.
	errNoMemory = errors.New("no answer about what the ledger knows")
	// errReplaced says that another project stands under the name for which signing was enabled.
	errReplaced = errors.New("the project has another id than the one that was enabled")
)

// pass is one full sweep of a project. It is used by one goroutine at a time.
type pass struct {
	r           *Reconciler
	project     string
	policy      policy.Policy
	correlation string
	log         zerolog.Logger
	// began is when the sweep began.
	began time.Time

	// at is the last checkpoint and revision the state's as it was saved last, at savedAt. again says that another sweep was
	// asked for meanwhile.
	at       progress
	revision uint64
	savedAt  time.Time
	again    bool
	saved    place     // the last one that is small enough for the state
	saidAt   time.Time // of the last progress line

	// sum is what was counted until now, requests how often Harbor was asked.
	sum      artifact.Sweep
	requests atomic.Int64
	// harborBegan is when the sweep began, by Harbor's clock, and reached a sequence that the ledger had reached by then.
	harborBegan time.Time
	reached     uint64

	seen population
	held holding
	// unanswered counts the checks that failed since the last that did not, as far as their failure may be everybody's.
	unanswered int
	// checked, listed and settled say which steps are done; units is where the last one stands.
	checked, listed, settled, compared bool
	units                              string
}

func newPass(r *Reconciler, p policy.Policy, project string) *pass {
	return &pass{r: r, project: project, policy: p, seen: newPopulation(), held: newHolding(p)}
}

// run does what is left of the sweep.
func (s *pass) run(ctx context.Context) error {
	s.saidAt = time.Now()
	if err := s.sameProject(ctx); err != nil {
		return err
	}
	if s.harborBegan.IsZero() {
		s.harborBegan = s.r.clock.now(ctx, s.r.cfg.Harbor).Add(time.Until(s.began))
	}
	if s.reached == 0 {
		var err error
		if s.reached, err = s.ledgerSeq(ctx); err != nil {
			return err
		}
	}
	if !s.listed {
		if err := s.r.cfg.Harbor.Population(ctx, s.project, s.at.Cursor, s.page); err != nil {
			return fmt.Errorf("listing the project: %w", err)
		}
		s.listed = true
	}
	if !s.settled {
		if err := s.settle(ctx); err != nil {
			return err
		}
		s.settled = true
	}
	if s.at.Partial || s.compared {
		return nil
	}
	if err := s.findGone(ctx); err != nil {
		return err
	}
	s.compared = true
	if less := s.sum.HarborCount + s.sum.Pushed - s.seen.count(); less > 0 {
		s.sum.Deleted = min(less, s.sum.Gone)
	}
	return nil
}

// sameProject keeps the images of another project from being blessed by the policy of one that had its name before.
func (s *pass) sameProject(ctx context.Context) error {
	if s.policy.ProjectID == 0 || s.checked {
		return nil
	}
	p, err := s.r.cfg.Harbor.Project(ctx, s.project)
	if err != nil {
		return fmt.Errorf("asking for the project: %w", err)
	}
	if p.ID != s.policy.ProjectID {
		return fmt.Errorf("%w: %d instead of %d", errReplaced, p.ID, s.policy.ProjectID)
	}
	s.checked = true
	return nil
}

// page looks at the manifests of one page.
func (s *pass) page(ctx context.Context, page artifact.Page) error {
	for batch := range slices.Chunk(page.Manifests, MaxBatch) {
		if err := s.batch(ctx, batch); err != nil {
			return err
		}
	}
	s.sum.HarborCount += page.Total // where Harbor lists each repository for itself, each has one
	s.sum.Requests = int(s.requests.Load())
	if time.Since(s.saidAt) >= progressEach {
		s.saidAt = time.Now()
		s.log.Info().Int("pages", s.at.Pages+1).Int("rows", s.sum.Population).Int("of", s.sum.HarborCount).
			Int("requested", s.sum.Requested).Int("requests", s.sum.Requests).Msg("sweep goes on")
	}
	return s.checkpoint(ctx, page.Next)
}

func (s *pass) batch(ctx context.Context, listed []artifact.Listed) error {
	if len(listed) == 0 {
		return nil
	}
	refs := make([]artifact.Ref, len(listed))
	for i, l := range listed {
		refs[i] = l.Ref
	}
	known, err := s.r.known(ctx, refs)
	if err != nil {
		return err
	}
	for i, l := range listed {
		if !s.seen.add(l.Ref) {
			continue // a page is looked at again, or the listing repeats itself
		}
		before := s.sum
		s.sum.Population++
		if !s.harborBegan.IsZero() && !l.PushedAt.Before(s.harborBegan) {
			s.sum.Pushed++
		}
		if err := s.examine(ctx, l, known[i]); err != nil {
			s.seen.remove(l.Ref)
			s.sum = before // this one is looked at again
			if errors.Is(err, errDeleted) {
				continue // by the search for what is gone
			}
			return err
		}
		if err := s.beat(ctx, saveEach*4); err != nil {
			return err
		}
	}
	return nil
}

// known asks what the ledger knows. What fails here is never taken for "nothing".
func (r *Reconciler) known(ctx context.Context, refs []artifact.Ref) ([]artifact.Known, error) {
	known, err := r.cfg.Memory.Known(ctx, refs)
	if err == nil {
		err = fits(refs, known)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoMemory, err)
	}
	return known, nil
}

// record writes an event about a manifest. Its id holds the sweep: the same finding of another sweep is another fact.
func (s *pass) record(ctx context.Context, e artifact.Event, parts ...string) error {
	e.ID = artifact.EventID(e.Kind, e.Ref, append([]string{s.correlation, e.Reason}, parts...)...)
	e.Time, e.Actor, e.Origin, e.CorrelationID = time.Now().UTC(), actor, artifact.OriginSweep, s.correlation
	e.Lane, e.PolicyRevision = artifact.Bulk, s.policy.Revision
	if _, err := s.r.cfg.Queue.Record(ctx, e); err != nil {
		return fmt.Errorf("recording what was found of %s: %w", e.Ref, err)
	}
	s.about(e.Ref).Info().Str("outcome", string(e.Kind)).Str("reason", e.Reason).Msg("sweep has recorded a change")
	return nil
}

// about gives the log for the one line about a digest.
func (s *pass) about(ref artifact.Ref) *zerolog.Logger {
	log := s.log.With().Str("repository", ref.Repository()).Str("digest", ref.Digest()).Logger()
	return &log
}

// ofTheDigest says that a failing check tells nothing about other digests: what stays broken must not keep the rest of its
// project from being swept, however much there is of it.
func ofTheDigest(err error) bool {
	reason := fault.Of(err).Reason
	return errors.Is(err, errPanicked) || reason == fault.TooLarge || reason == fault.Malformed
}
