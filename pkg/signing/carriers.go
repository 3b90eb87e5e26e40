package signing

import (
	"context"
	"fmt"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// readTag reads the manifest under the legacy format's tag; nil if there is none.
func readTag(ctx context.Context, registry Registry, legacy LegacyFormat, ref artifact.Ref) (*artifact.Manifest, error) {
	tag, err := registry.Manifest(ctx, ref.Repository(), legacy.Tag(ref.Digest()))
	if fault.Is(err, fault.Gone) {
		return nil, nil //nolint:nilnil // there is no tag: that is the answer
	}
	if err != nil {
		return nil, fmt.Errorf("reading the signatures: %w", err)
	}
	return &tag, nil
}

// listReferrers lists what refers to a manifest. A manifest that is gone has nothing.
func listReferrers(ctx context.Context, registry Registry, ref artifact.Ref) ([]artifact.Descriptor, error) {
	listed, err := registry.Referrers(ctx, ref.Repository(), ref.Digest())
	if fault.Is(err, fault.Gone) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing what refers to the manifest: %w", err)
	}
	return listed, nil
}

// restore merges what was overwritten under the tag and verifies again if that changed anything. What can not be merged for
// good, because a rule locks the tag or it holds what nobody may overwrite, leaves the verdict as it is.
func restore(ctx context.Context, v *Verifier, m *Merger, ref artifact.Ref, need Requirement, verdict Verdict) (Verdict, error) {
	current := ""
	if verdict.Tag != nil {
		current = verdict.Tag.Digest
	}
	changed, err := m.Merge(ctx, ref, current)
	if fault.Is(err, fault.Permanent) || err == nil && !changed {
		return verdict, nil
	}
	if err != nil {
		return Verdict{}, fmt.Errorf("merging overwritten signatures: %w", err)
	}
	return v.Verify(ctx, ref, need)
}

// standIn says, for people, why there is a bundle and no signature under the tag.
func standIn(legacy LegacyFormat, ref artifact.Ref, rule string) string {
	return fmt.Sprintf("the tag %s is locked by %s: a bundle stands in for it", legacy.Tag(ref.Digest()), rule)
}
