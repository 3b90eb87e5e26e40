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

// Requirement is what a policy asks of the signatures of a manifest: one in each format, by a key that it accepts.
type Requirement struct {
	// Key is the name of the key that signs; Keys.Accepts says whose signatures count beside.
	Key     string
	Formats []artifact.Format
	// ActiveOnly asks for signatures of that very key. Those of other keys that are accepted are seen, and not enough.
	ActiveOnly bool
	// Annotations are those of new signatures.
	Annotations map[string]string
}

// Only gives the requirement for some of the formats.
func (r Requirement) Only(formats ...artifact.Format) Requirement {
	r.Formats = formats
	return r
}

// Verdict is what the registry proves about one manifest at one moment.
type Verdict struct {
	// Signatures are those that verify, with a key that is accepted, over this digest and, where the format has a place for
	// it, under this repository's name. At least one for each format that is not missing; of each format, those that satisfy
	// the requirement come first.
	Signatures []artifact.Evidence
	// Missing are the required formats in which no signature satisfies the requirement.
	Missing []artifact.Format
	// Tag is the manifest that stands under the legacy format's tag, whatever it holds; nil if there is none, or if the
	// legacy format was not asked for.
	Tag *artifact.Manifest
	// LockedBy is the immutability rule that keeps the tag as it is, without a signature that is enough; empty if none does. A
	// bundle stands in for the legacy format then, which is not missing if there is one.
	LockedBy string
}

// Signed says whether nothing is missing.
func (v Verdict) Signed() bool { return len(v.Signatures) > 0 && len(v.Missing) == 0 }

// Verifier decides "signed" for everybody: before signing, after attaching, in sweeps. What can change is read from the
// registry for every verdict; a bundle, which is immutable, is verified once and recognised by the digest of its
// manifest. It is safe for concurrent use.
type Verifier struct {
	cfg    VerifierConfig
	judged *recent[bundleOf, string] // the id of the key that a bundle verifies with, or ""
}

// bundleOf is a bundle, by the digest of its manifest, as a signature of a subject.
type bundleOf struct{ bundle, subject string }

// VerifierConfig is what a Verifier needs.
type VerifierConfig struct {
	Registry Registry
	Keys     Keys
	Legacy   LegacyFormat
	Bundles  BundleFormat
	Harbor   Harbor
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
	return &Verifier{cfg: cfg, judged: &recent[bundleOf, string]{size: judgedSize}}, nil
}

// Require gives what a policy asks for on this Harbor. The fault is permanent and UnsupportedFormat if this Harbor cannot
// have it.
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
	return Requirement{Key: p.Terms.Key, Formats: formats, ActiveOnly: p.Terms.ActiveKeyOnly, Annotations: p.Terms.Annotations}, nil
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
			verdict.add(artifact.Legacy, found)
		}
	}
	if slices.Contains(formats, artifact.Bundle) {
		found, err := v.bundles(ctx, ref, r)
		if err != nil {
			return Verdict{}, err
		}
		verdict.add(artifact.Bundle, found)
	}
	return verdict, nil
}

// evidence is what was found in one format.
type evidence struct {
	enough []artifact.Evidence // satisfy the requirement
	others []artifact.Evidence // by other keys that are accepted
}

func (v *Verdict) add(format artifact.Format, found evidence) {
	if len(found.enough) == 0 {
		v.Missing = append(v.Missing, format)
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
	var found evidence
	if found.enough, err = v.inTag(ctx, ref, r, *tag, func(keyID string) bool { return v.satisfies(r, keyID) }); err != nil {
		return nil, evidence{}, err
	}
	if r.ActiveOnly {
		found.others, err = v.inTag(ctx, ref, r, *tag, func(keyID string) bool { return v.counts(r, keyID) && !v.satisfies(r, keyID) })
	}
	return tag, found, err
}

// inTag gives the signatures in a tag's manifest by keys that are wanted. A payload of other keys is not fetched.
func (v *Verifier) inTag(ctx context.Context, ref artifact.Ref, r Requirement, tag artifact.Manifest, wanted func(keyID string) bool) ([]artifact.Evidence, error) {
	signatures, err := v.cfg.Legacy.Verify(ctx, tag, v.Claim(ref, r), wanted, v.fetch(ref))
	if err != nil {
		return nil, fmt.Errorf("verifying the signatures: %w", err)
	}
	var found []artifact.Evidence
	for _, s := range signatures {
		found = append(found, artifact.Evidence{Format: artifact.Legacy, KeyID: s.KeyID, Digest: tag.Digest})
	}
	return found, nil
}

// bundles costs one request, and two for each bundle that was not seen before, up to the first by the active key. Where one by
// another key is enough, it is evidence if the active key's is not among the next few; where only the active key's are, the
// others are evidence as well, and all are read.
func (v *Verifier) bundles(ctx context.Context, ref artifact.Ref, r Requirement) (evidence, error) {
	listed, err := listReferrers(ctx, v.cfg.Registry, ref)
	if err != nil {
		return evidence{}, err
	}
	var found evidence
	var unread []artifact.Descriptor
	for _, d := range listed {
		if !v.cfg.Bundles.Candidate(d) {
			continue
		}
		keyID, known := v.judged.get(bundleOf{d.Digest, ref.Digest()})
		if !known {
			unread = append(unread, d)
		} else if v.sort(&found, r, keyID, d.Digest) {
			return found, nil
		}
	}
	beside := 0
	for n, d := range unread {
		if len(found.enough) > 0 && !r.ActiveOnly {
			beside++
		}
		if beside > maxBeside || n == maxUnread && len(found.enough) > 0 {
			break
		}
		if n == maxUnread {
			return evidence{}, fault.Newf(fault.Permanent, fault.TooLarge, "%d bundles by others refer to the manifest, and %d are read at once: delete some", len(unread), maxUnread)
		}
		keyID, err := v.judge(ctx, ref, r, d.Digest)
		if err != nil {
			return evidence{}, err
		}
		if v.sort(&found, r, keyID, d.Digest) {
			return found, nil
		}
	}
	return found, nil
}

// sort adds a bundle to what was found, and says whether no other one needs to be looked at.
func (v *Verifier) sort(found *evidence, r Requirement, keyID, digest string) (done bool) {
	e := artifact.Evidence{Format: artifact.Bundle, KeyID: keyID, Digest: digest}
	switch {
	case r.ActiveOnly && v.satisfies(r, keyID):
		found.enough = append(found.enough, e)
	case v.satisfies(r, keyID) && v.isActive(r, keyID):
		found.enough = []artifact.Evidence{e}
		return true
	case v.satisfies(r, keyID):
		if len(found.enough) == 0 {
			found.enough = append(found.enough, e)
		}
	case v.counts(r, keyID):
		found.others = append(found.others, e)
	}
	return false
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

// judge reads a bundle and gives the id of the key that it verifies with, or none. Only what was read is remembered: a
// bundle that is gone now may come back.
func (v *Verifier) judge(ctx context.Context, ref artifact.Ref, r Requirement, digest string) (string, error) {
	m, err := v.cfg.Registry.Manifest(ctx, ref.Repository(), digest)
	if err != nil {
		if f := fault.Of(err); f.Kind == fault.Gone || f.Reason == fault.TooLarge {
			return "", nil
		}
		return "", fmt.Errorf("reading a bundle's manifest: %w", err)
	}
	return v.learn(ctx, m, v.Claim(ref, r), v.fetch(ref))
}

// learn verifies a bundle and remembers the result, unless part of it could not be read.
func (v *Verifier) learn(ctx context.Context, m artifact.Manifest, claim artifact.Claim, fetch Fetch) (keyID string, err error) {
	complete := true
	signatures, err := v.cfg.Bundles.Verify(ctx, m, claim, func(ctx context.Context, digest string) ([]byte, error) {
		content, err := fetch(ctx, digest)
		complete = complete && err == nil
		return content, err
	})
	if err != nil {
		return "", fmt.Errorf("verifying a bundle: %w", err)
	}
	if len(signatures) > 0 {
		keyID = signatures[0].KeyID
	}
	if complete {
		v.judged.put(bundleOf{m.Digest, claim.Digest}, keyID)
	}
	return keyID, nil
}

func (v *Verifier) fetch(ref artifact.Ref) Fetch {
	return func(ctx context.Context, digest string) ([]byte, error) {
		return v.cfg.Registry.Blob(ctx, ref.Repository(), digest, maxBlob)
	}
}
