package ledger

import "context"

// Behind is how many events of the stream this projector has not brought into the view: all of them before it has begun, and
// while the view is being made anew. Events of other Harbors count as well, so that it is an upper bound.
func (p *Projector) Behind(ctx context.Context) (uint64, error) {
	applied := p.applied.Load() // before the state, which only grows
	_, last, _, err := p.state(ctx)
	if err != nil {
		return 0, err
	}
	return last - min(last, applied), nil
}
