package signing

import (
	"context"
	"fmt"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// Limits of an index. Beyond them a request is a permanent fault: a push of such an index is a mistake or an attack.
const (
	MaxChildren = 1000
	MaxDepth    = 3
)

// enqueueChildren asks for each manifest of an index. It comes before the index is signed and acknowledged, so that a
// crash at any point leaves the index in the queue until all of its children are there; those that are there already,
// from an earlier attempt or by Harbor's own events, are duplicates. A cycle cannot be: an index holds the digests of
// its children. The depth bounds a chain all the same.
func (s *Service) enqueueChildren(ctx context.Context, j *job, children []string) error {
	switch {
	case len(children) == 0:
		return nil
	case len(children) > MaxChildren:
		return fault.Newf(fault.Permanent, fault.TooManyChildren, "the index names %d manifests, at most %d are signed: split it", len(children), MaxChildren)
	case j.request.Depth >= MaxDepth:
		return fault.Newf(fault.Permanent, fault.TooDeep, "the index stands below %d others, at most %d levels are followed: flatten it", j.request.Depth, MaxDepth)
	}
	for _, digest := range children {
		child, err := j.request.Ref.Sibling(digest)
		if err != nil {
			return fault.Newf(fault.Permanent, fault.Malformed, "reading a child of the index: %w", err)
		}
		// The record tells the report what the child belongs to, whoever gets it signed in the end. Its id is the relation.
		queued := s.newEvent(j, artifact.Queued, "")
		queued.ID = artifact.EventID(artifact.Queued, child, j.request.Ref.Digest())
		queued.Ref, queued.Parent, queued.Attempts = child, j.request.Ref.Digest(), 0
		if err := s.record(ctx, queued); err != nil {
			return fmt.Errorf("recording a child of the index: %w", err)
		}
		_, err = s.cfg.Queue.Enqueue(ctx, artifact.Request{
			Ref: child, Lane: j.request.Lane, Origin: artifact.OriginIndex, Actor: j.request.Actor,
			CorrelationID: j.request.CorrelationID, RequestedAt: s.cfg.Now().UTC(),
			Parent: j.request.Ref.Digest(), Depth: j.request.Depth + 1,
		})
		if err != nil {
			return fmt.Errorf("enqueueing a child of the index: %w", err)
		}
	}
	return nil
}
