package signing

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// mergeRounds is how often a merge starts anew because the tag has moved meanwhile.
	mergeRounds = 10
	// maxOthers and maxOtherBytes are how much of one subject is read by a merge. A manifest of one signature has less than
	// a kilobyte.
	maxOthers     = 1000
	maxOtherBytes = 16 << 20
	// mergedSize bounds what is remembered of manifests that were merged: some megabytes.
	mergedSize = 10_000
)

// Merger brings back the signatures that concurrent writers of a legacy tag have overwritten.
//
// A registry knows no compare-and-swap. Of two writers that read the tag, add a signature each and put it, the second one
// overwrites the first one's, and no read-back of either can tell. But Harbor keeps listing every manifest that ever
// stood under the tag as an accessory of the subject, until somebody deletes it. So the tag is made to hold the union of
// what those manifests hold. Mergers that meet make the same bytes from the same manifests, and come to an end.
//
// To remove a signature for good, its manifests must be deleted from Harbor's accessories, not only left out of the tag.
//
// It is safe for concurrent use.
type Merger struct {
	registry Registry
	legacy   LegacyFormat
	known    *recent[mergedInto, struct{}] // manifests that have nothing which another one lacks
}

// mergedInto says that a manifest has nothing to add to another one. Both are immutable.
type mergedInto struct{ other, current string }

// NewMerger makes a Merger.
func NewMerger(registry Registry, legacy LegacyFormat) (*Merger, error) {
	if registry == nil || legacy == nil {
		return nil, errors.New("merger: registry and format are required")
	}
	return &Merger{registry: registry, legacy: legacy, known: &recent[mergedInto, struct{}]{size: mergedSize}}, nil
}

// Merge makes the tag hold what Harbor lists, and says whether it had to. It costs one request where no other manifest is
// listed than that with the digest current, which stood under the tag when it was last seen; so that it is there still.
// The fault is ConcurrentWriter if others kept writing: somebody should come back later.
//
// A crash at any point leaves a tag that lacks something, as it did before: the next merge finds the same.
func (m *Merger) Merge(ctx context.Context, ref artifact.Ref, current string) (changed bool, err error) {
	for range mergeRounds {
		listed, err := m.listed(ctx, ref)
		if err != nil || len(listed) == 0 || len(listed) == 1 && listed[0] == current {
			return changed, err
		}
		tag, err := readTag(ctx, m.registry, m.legacy, ref)
		if err != nil {
			return changed, err
		}
		merged, err := m.union(ctx, ref, tag, listed)
		if err != nil || merged == nil {
			return changed, err
		}
		if err := m.registry.PutManifest(ctx, ref.Repository(), m.legacy.Tag(ref.Digest()), *merged); err != nil {
			return changed, fmt.Errorf("putting the merged signatures: %w", err)
		}
		// Whoever wrote at the same time is listed now: look once more.
		changed, current = true, merged.Digest
	}
	return changed, fault.Newf(fault.Transient, fault.ConcurrentWriter, "others keep writing %s", m.legacy.Tag(ref.Digest()))
}

// listed gives the digests of the manifests that may hold signatures of the legacy format, in order.
func (m *Merger) listed(ctx context.Context, ref artifact.Ref) ([]string, error) {
	referrers, err := listReferrers(ctx, m.registry, ref)
	if err != nil {
		return nil, err
	}
	var digests []string
	for _, d := range referrers {
		if m.legacy.Candidate(d) {
			digests = append(digests, d.Digest)
		}
	}
	if len(digests) > maxOthers {
		return nil, fault.Newf(fault.Permanent, fault.TooLarge, "%d manifests refer to the manifest, at most %d are merged: delete some", len(digests), maxOthers)
	}
	slices.Sort(digests)
	return slices.Compact(digests), nil
}

// contains notes that a manifest holds all that another one does.
func (m *Merger) contains(current, other string) {
	m.known.put(mergedInto{other, current}, struct{}{})
}

func (m *Merger) isKnown(other, current string) bool {
	_, known := m.known.get(mergedInto{other, current})
	return known
}

// union gives the manifest that holds all, or nil if the tag does.
func (m *Merger) union(ctx context.Context, ref artifact.Ref, tag *artifact.Manifest, digests []string) (*artifact.Manifest, error) {
	current := ""
	if tag != nil {
		current = tag.Digest
	}
	var others []artifact.Manifest
	bytes := 0
	for _, digest := range digests {
		if digest == current || m.isKnown(digest, current) {
			continue
		}
		other, err := m.registry.Manifest(ctx, ref.Repository(), digest)
		if fault.Is(err, fault.Gone) || err != nil && fault.Of(err).Reason == fault.TooLarge {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading a manifest of signatures: %w", err)
		}
		if bytes += len(other.Raw); bytes > maxOtherBytes {
			return nil, fault.Newf(fault.Permanent, fault.TooLarge, "the manifests to be merged have more than %d bytes: delete some", maxOtherBytes)
		}
		others = append(others, other)
	}
	if len(others) == 0 {
		return nil, nil //nolint:nilnil // nothing to merge: that is the answer
	}
	merged, err := m.legacy.Merge(tag, others)
	if err != nil {
		return nil, fmt.Errorf("merging signatures: %w", err)
	}
	for _, other := range others {
		m.contains(merged.Digest, other.Digest)
	}
	if tag != nil {
		m.contains(merged.Digest, tag.Digest)
	}
	if merged.Digest == current || merged.Digest == "" {
		return nil, nil //nolint:nilnil // as above
	}
	return &merged, nil
}
