package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// holding keeps the manifests that are not in scope for themselves until all indexes were seen, because a child of an index
// in scope is in scope: who pulls the index pulls it. A million take about 50 MB. Nothing is kept where the policy
// does not depend on tags or push times.
type holding struct {
	depends bool
	names   []string         // of repositories
	numbers map[string]int32 // of names
	rows    []heldRow
	// nested are the children of rows that are indexes themselves.
	nested map[int][]string
	// children are those of indexes in scope, with the number of the first of those indexes.
	children map[childKey]int32
	parents  []sum
}

// heldRow is a manifest about which is decided at the end.
type heldRow struct {
	digest     sum
	pushed     int64 // in milliseconds
	repository int32
	reason     uint8 // an index into heldReasons
	known      heldKnown
}

// heldKnown is what matters of what the ledger knows of a manifest that was never signed.
type heldKnown uint8

const (
	heldSaid     heldKnown = 1 << iota // the ledger has the decision with this reason
	heldQueued                         // pending or failed
	heldDead                           // a dead letter
	heldObserved                       // it would be signed if the mode were not observe
	heldCarries                        // Harbor lists something as its signature
)

type childKey struct {
	repository int32
	digest     sum
}

func heldReasons() []policy.Reason {
	return []policy.Reason{policy.NoTag, policy.TagOutOfScope, policy.TagExcluded, policy.NotBackfilled}
}

func newHolding(p policy.Policy) holding {
	return holding{
		depends: p.NeedsTags() || !p.From.IsZero(),
		numbers: map[string]int32{}, nested: map[int][]string{}, children: map[childKey]int32{},
	}
}

// any says whether something is kept that another worker could not know.
func (h *holding) any() bool { return len(h.rows) > 0 || len(h.children) > 0 }

// takes says whether an index may change a decision.
func (h *holding) takes(d policy.Decision) bool {
	return h.depends && slices.Contains(heldReasons(), d.Reason)
}

// parent notes the children of a manifest in scope.
func (h *holding) parent(l artifact.Listed) {
	if h.depends {
		h.adopt(h.number(l.Ref.Repository()), l.Ref.Digest(), l.Children)
	}
}

func (h *holding) adopt(repository int32, index string, children []string) {
	digest, ok := parseSum(index)
	if len(children) == 0 || !ok {
		return
	}
	number := int32(len(h.parents)) //nolint:gosec // far fewer than 2^31
	h.parents = append(h.parents, digest)
	for _, child := range children {
		key := childKey{repository: repository}
		if key.digest, ok = parseSum(child); !ok {
			continue
		}
		if _, found := h.children[key]; !found {
			h.children[key] = number
		}
	}
}

func (h *holding) number(name string) int32 {
	n, found := h.numbers[name]
	if !found {
		name = strings.Clone(name)
		n = int32(len(h.names)) //nolint:gosec // far fewer than 2^31
		h.names = append(h.names, name)
		h.numbers[name] = n
	}
	return n
}

// add keeps a manifest. It was never signed: those that were are in scope whatever their tags and push times.
func (h *holding) add(l artifact.Listed, k artifact.Known, d policy.Decision) error {
	digest, ok := parseSum(l.Ref.Digest())
	if !ok {
		return fault.Newf(fault.Permanent, fault.Malformed, "digest of %s", l.Ref)
	}
	row := heldRow{
		digest: digest, repository: h.number(l.Ref.Repository()),
		reason: uint8(slices.Index(heldReasons(), d.Reason)), //nolint:gosec // there are four
	}
	if !l.PushedAt.IsZero() {
		row.pushed = l.PushedAt.UnixMilli()
	}
	note := func(flag heldKnown, holds bool) {
		if holds {
			row.known |= flag
		}
	}
	note(heldSaid, k.State == isSkipped && k.Reason == string(d.Reason))
	note(heldQueued, k.State == isPending || k.State == isFailed)
	note(heldDead, k.State == isDead)
	note(heldObserved, isObserved(k))
	note(heldCarries, len(l.Signatures) > 0)
	if len(l.Children) > 0 {
		h.nested[len(h.rows)] = slices.Clone(l.Children)
	}
	h.rows = append(h.rows, row)
	return nil
}

func (h *holding) ref(row heldRow) (artifact.Ref, error) {
	return artifact.NewRef(h.names[row.repository], row.digest.String())
}

// spread lets the indexes among the rows adopt their children, where they are children themselves.
func (h *holding) spread() {
	for grown := true; grown; {
		grown = false
		for i, children := range h.nested {
			row := h.rows[i]
			if _, found := h.children[childKey{row.repository, row.digest}]; found {
				delete(h.nested, i)
				h.adopt(row.repository, row.digest.String(), children)
				grown = true
			}
		}
	}
}

// settle decides about the manifests that were kept.
func (s *pass) settle(ctx context.Context) error {
	s.held.spread()
	for len(s.held.rows) > 0 {
		last := len(s.held.rows) - 1
		before := s.sum
		if err := s.settleRow(ctx, s.held.rows[last]); err != nil {
			s.sum = before
			return err
		}
		s.held.rows = s.held.rows[:last]
		if err := s.beat(ctx, saveEach*4); err != nil {
			return err
		}
	}
	return nil
}

func (s *pass) settleRow(ctx context.Context, row heldRow) error {
	ref, err := s.held.ref(row)
	if err != nil {
		return fault.New(fault.Permanent, fault.Malformed, err)
	}
	l := artifact.Listed{Ref: ref}
	if row.pushed != 0 {
		l.PushedAt = time.UnixMilli(row.pushed).UTC()
	}
	parent, found := s.held.children[childKey{row.repository, row.digest}]
	if !found {
		return s.settleExcluded(ctx, l, row)
	}
	if row.known&heldCarries != 0 {
		if l, err = s.r.cfg.Harbor.Artifact(ctx, ref); fault.Is(err, fault.Gone) {
			return nil
		} else if err != nil {
			return fmt.Errorf("asking for the signatures of %s: %w", ref, err)
		}
	}
	k := artifact.Known{Ref: ref}
	switch {
	case row.known&heldObserved != 0:
		k.State, k.Reason = isUnsigned, string(policy.Observed)
	case row.known&heldDead != 0:
		k.State = isDead
	case row.known&heldQueued != 0:
		k.State = isPending
	}
	of := subject(l, k)
	of.Child, of.PushedAt = true, time.Time{}
	switch d := policy.Decide(s.policy, of); {
	case d.Sign, d.Reason == policy.Observed:
		return s.inScope(ctx, l, k, d, s.held.parents[parent].String())
	default: // an exemption has begun to count meanwhile
		return s.excluded(ctx, l, k, d)
	}
}

// settleExcluded is about a manifest that no index in scope names. One that was pushed before the policy's time, but is in
// the queue or a dead letter, was asked for by a push of its own that no listing shows: the signer decides.
func (s *pass) settleExcluded(ctx context.Context, l artifact.Listed, row heldRow) error {
	reason := heldReasons()[row.reason]
	switch {
	case reason == policy.NotBackfilled && row.known&heldQueued != 0:
		s.sum.Pending++
		return nil
	case reason == policy.NotBackfilled && row.known&heldDead != 0:
		s.sum.Failed++
		return nil
	case row.known&heldSaid != 0:
		s.sum.Excluded++
		return nil
	}
	d := policy.Decision{Reason: reason}
	if again := policy.Decide(s.policy, policy.Subject{Ref: l.Ref, PushedAt: l.PushedAt, Child: true, Now: time.Now()}); again.Reason == reason {
		d = again // with its words for people
	}
	return s.excluded(ctx, l, artifact.Known{Ref: l.Ref}, d)
}
