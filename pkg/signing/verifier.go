package signing

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// maxBlob is the largest blob of a signature that is fetched, in bytes. Payloads have about 250, bundles about 1,500, or
	// 10,000 with a log entry and a timestamp.
	maxBlob = 256 << 10
	// maxUnread is how many bundles of one subject are read in one go. More is a mistake or an attack.
	maxUnread = 100
	// maxBeside is how many of them are read to find one by the active key beside one that is enough.
	maxBeside = 10
	// judgedSize bounds what is remembered of bundles: some megabytes.
	judgedSize = 10_000
)

// Verdict is what the registry proves about one manifest at one moment.
type Verdict struct {
	// Signatures are those that verify, with a key that is accepted, over this digest and, where the format has a place for
	// it, under this repository's name. At least one for each format that is not missing; of each format, those that satisfy
	// the requirement come first.
	Signatures []artifact.Evidence
	// Missing are the required formats in which no signature satisfies the requirement.
	Missing []artifact.Format
	// Owed are the formats in which the log entry, which may come later, is not there. One that is missing may be among them,
	// and so is a bundle that waits for its entry, which is not missing.
	Owed []artifact.Format
	// Tag is the manifest that stands under the legacy format's tag, whatever it holds; nil if there is none, or if the
	// legacy format was not asked for.
	Tag *artifact.Manifest
	// LockedBy is the immutability rule that keeps the tag as it is, without a signature that is enough; empty if none does. A
	// bundle stands in for the legacy format then, which is not missing if there is one.
	LockedBy string

	// imperfect are those by keys that would satisfy the requirement, and lack a log entry or a timestamp: nobody signs again
	// what they hold.
	imperfect []artifact.Evidence
	// beside says that signatures of the legacy format may be there, where they were not asked for.
	beside bool
}

// Signed says whether nothing is missing.
func (v Verdict) Signed() bool { return len(v.Signatures) > 0 && len(v.Missing) == 0 }

// Verifier decides "signed" for everybody: before signing, after attaching, in sweeps. What can change is read from the
// registry for every verdict; a bundle, which is immutable, is verified once and recognised by the digest of its
// manifest. It is safe for concurrent use.
type Verifier struct {
	cfg    VerifierConfig
	judged *recent[bundleOf, judgement]
}

// VerifierConfig is what a Verifier needs.
type VerifierConfig struct {
	Registry Registry
	Keys     Keys
	Legacy   LegacyFormat
	Bundles  BundleFormat
	Harbor   Harbor
	// Logs are those that a policy may name; nil for none.
	Logs LogTypes
	// Timestamps says whether there is a timestamp authority.
	Timestamps bool
	// PublicHost is the registry's name in signatures, with its port if it has one.
	PublicHost string
}

// NewVerifier validates the configuration.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	switch {
	case cfg.Registry == nil, cfg.Keys == nil, cfg.Legacy == nil, cfg.Bundles == nil, cfg.Harbor == nil:
		return nil, errors.New("verifier: registry, keys, formats and harbor are required")
	case cfg.PublicHost == "":
		return nil, errors.New("verifier: the registry's public host is required")
	}
	return &Verifier{cfg: cfg, judged: &recent[bundleOf, judgement]{size: judgedSize}}, nil
}

// Over gives a Verifier that reads another view of the registry and remembers nothing: everything that it says rests on what it
// has read itself.
func (v *Verifier) Over(registry Registry) *Verifier {
	cfg := v.cfg
	cfg.Registry = registry
	return &Verifier{cfg: cfg, judged: &recent[bundleOf, judgement]{size: judgedSize}}
}

// Require gives what a policy asks for on this Harbor. The fault is permanent and UnsupportedFormat if this Harbor cannot
// have it. It is transient and Unverifiable if what the policy asks of logs and timestamps cannot be had here, or could be
// verified by nobody: that is the configuration's for all digests of the project, whose requests wait until it is put right.
func (v *Verifier) Require(ctx context.Context, p policy.Policy) (Requirement, error) {
	bundles, version := false, ""
	if p.Terms.Format != policy.FormatLegacy {
		var err error
		if bundles, version, err = v.cfg.Harbor.Bundles(ctx); err != nil {
			return Requirement{}, fmt.Errorf("asking Harbor for its version: %w", err)
		}
	}
	formats, err := p.Terms.Format.Formats(bundles)
	if err != nil {
		return Requirement{}, fault.Newf(fault.Permanent, fault.UnsupportedFormat, "this Harbor is %.32q: %w", version, err)
	}
	r := Requirement{
		Key: p.Terms.Key, Formats: formats, ActiveOnly: p.Terms.ActiveKeyOnly, Annotations: p.Terms.Annotations,
		Transparency: p.Terms.Transparency, Log: p.Terms.Log, Timestamp: p.Terms.Timestamp,
	}
	if v.cfg.Logs != nil {
		r.LogType, _ = v.cfg.Logs.Type(r.Log)
	}
	if err := p.Terms.Verifiable(policy.Means{
		Log: r.LogType, Timestamps: v.cfg.Timestamps, Keyless: v.cfg.Keys.Keyless(r.Key), Formats: formats, Bundles: bundles,
	}); err != nil {
		return Requirement{}, fault.Newf(fault.Transient, fault.Unverifiable, "what the policy asks for cannot be verified: %w", err)
	}
	return r, nil
}

// Claim is what a signature of ref says.
func (v *Verifier) Claim(ref artifact.Ref, r Requirement) artifact.Claim {
	return artifact.Claim{Identity: v.cfg.PublicHost + "/" + ref.Repository(), Digest: ref.Digest(), Annotations: r.Annotations}
}

// Verify reads the signatures of ref and checks them. That a format is missing means that the registry said that it has
// none that counts: whatever leaves that open is an error.
func (v *Verifier) Verify(ctx context.Context, ref artifact.Ref, r Requirement) (Verdict, error) {
	var verdict Verdict
	formats := r.Formats
	if slices.Contains(formats, artifact.Legacy) {
		var err error
		var found evidence
		if verdict.Tag, found, err = v.legacy(ctx, ref, r); err != nil {
			return Verdict{}, err
		}
		if len(found.enough) == 0 && verdict.Tag != nil {
			verdict.LockedBy = v.lockedBy(ctx, ref)
		}
		if verdict.LockedBy != "" {
			formats = []artifact.Format{artifact.Bundle}
		} else {
			verdict.add(r, artifact.Legacy, found)
		}
	}
	if slices.Contains(formats, artifact.Bundle) {
		found, err := v.bundles(ctx, ref, r)
		if err != nil {
			return Verdict{}, err
		}
		verdict.beside = found.beside
		verdict.add(r.Only(formats...), artifact.Bundle, found)
	}
	return verdict, nil
}

// evidence is what was found in one format.
type evidence struct {
	enough    []artifact.Evidence // satisfy the requirement; the best first
	imperfect []artifact.Evidence // by keys that would; those that lack an entry that may come later are enough as well
	others    []artifact.Evidence // by other keys that are accepted
	beside    bool                // of the other format there may be some
}

// add adds what was found in one format of the requirement.
func (v *Verdict) add(r Requirement, format artifact.Format, found evidence) {
	if len(found.enough) == 0 && (format != artifact.Bundle || !r.defersBundle()) {
		v.Missing = append(v.Missing, format)
	}
	v.Owed = append(v.Owed, r.Only(format).owed(found.enough)...)
	v.imperfect = append(v.imperfect, found.imperfect...)
	if len(found.enough) == 0 {
		found.enough = found.imperfect // evidence all the same
	}
	v.Signatures = append(append(v.Signatures, found.enough...), found.others...)
}

// lockedBy is silent where it cannot tell, or where this Harbor takes no bundle: the put will be refused then, and say why.
func (v *Verifier) lockedBy(ctx context.Context, ref artifact.Ref) string {
	if can, _, err := v.cfg.Harbor.Bundles(ctx); err != nil || !can {
		return ""
	}
	rule, err := v.cfg.Harbor.LockedBy(ctx, ref.Repository(), v.cfg.Legacy.Tag(ref.Digest()))
	if err != nil {
		return ""
	}
	return rule
}

// legacy costs one request where the payloads are as this program writes them.
func (v *Verifier) legacy(ctx context.Context, ref artifact.Ref, r Requirement) (*artifact.Manifest, evidence, error) {
	tag, err := readTag(ctx, v.cfg.Registry, v.cfg.Legacy, ref)
	if err != nil || tag == nil {
		return nil, evidence{}, err
	}
	wanted, err := v.inTag(ctx, ref, r, *tag, func(keyID string) bool { return v.satisfies(r, keyID) })
	if err != nil {
		return nil, evidence{}, err
	}
	var found evidence
	for _, s := range wanted {
		e := s.Evidence(tag.Digest)
		if r.complete(e) {
			found.enough = append(found.enough, e)
		}
		if !r.perfect(e) {
			found.imperfect = append(found.imperfect, e)
		}
	}
	slices.SortStableFunc(found.enough, func(a, b artifact.Evidence) int { return v.rank(r, b) - v.rank(r, a) })
	if !r.ActiveOnly {
		return tag, found, nil
	}
	others, err := v.inTag(ctx, ref, r, *tag, func(keyID string) bool { return v.counts(r, keyID) && !v.satisfies(r, keyID) })
	for _, s := range others {
		found.others = append(found.others, s.Evidence(tag.Digest))
	}
	return tag, found, err
}

// inTag gives the signatures in a tag's manifest by keys that are wanted. A payload of other keys is not fetched.
func (v *Verifier) inTag(ctx context.Context, ref artifact.Ref, r Requirement, tag artifact.Manifest, wanted func(keyID string) bool) ([]artifact.Signature, error) {
	signatures, err := v.cfg.Legacy.Verify(ctx, tag, v.Claim(ref, r), wanted, v.fetch(ref))
	if err != nil {
		return nil, fmt.Errorf("verifying the signatures: %w", err)
	}
	return signatures, nil
}

// rank says which of two signatures that are enough tells more: an entry that may come later before the active key.
func (v *Verifier) rank(r Requirement, e artifact.Evidence) int {
	rank := 0
	if r.perfect(e) {
		rank += 2
	}
	if v.isActive(r, e.KeyID) {
		rank++
	}
	return rank
}

// counts says whether signatures by a key count, satisfies whether one is enough.
func (v *Verifier) counts(r Requirement, keyID string) bool {
	return keyID != "" && v.cfg.Keys.Accepts(r.Key, keyID)
}

func (v *Verifier) satisfies(r Requirement, keyID string) bool {
	return v.counts(r, keyID) && (!r.ActiveOnly || v.isActive(r, keyID))
}

func (v *Verifier) isActive(r Requirement, keyID string) bool {
	active, known := v.cfg.Keys.KeyID(r.Key)
	return known && keyID == active
}

func (v *Verifier) fetch(ref artifact.Ref) Fetch {
	return func(ctx context.Context, digest string) ([]byte, error) {
		return v.cfg.Registry.Blob(ctx, ref.Repository(), digest, maxBlob)
	}
}
