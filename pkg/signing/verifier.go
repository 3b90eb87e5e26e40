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
	// judgedSize bounds what is remembered of bundles: some megabytes.
	judgedSize = 10_000
)

// Requirement is what a policy asks of the signatures of a manifest: one in each format, by a key that it accepts.
type Requirement struct {
	// Key is the name of the key that signs; Keys.Accepts says whose signatures count beside.
	Key     string
	Formats []artifact.Format
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
	// it, under this repository's name. At least one for each format that is not missing.
	Signatures []artifact.Evidence
	// Missing are the required formats in which no signature counts.
	Missing []artifact.Format
	// Tag is the manifest that stands under the legacy format's tag, whatever it holds; nil if there is none, or if the
	// legacy format was not asked for.
	Tag *artifact.Manifest
	// LockedBy is the immutability rule that keeps the tag as it is, without a signature that counts; empty if none does. A
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
	return Requirement{Key: p.Terms.Key, Formats: formats, Annotations: p.Terms.Annotations}, nil
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
		var found []artifact.Evidence
		if verdict.Tag, found, err = v.legacy(ctx, ref, r); err != nil {
			return Verdict{}, err
		}
		if len(found) == 0 && verdict.Tag != nil {
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

func (v *Verdict) add(format artifact.Format, found []artifact.Evidence) {
	if len(found) == 0 {
		v.Missing = append(v.Missing, format)
	}
	v.Signatures = append(v.Signatures, found...)
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
func (v *Verifier) legacy(ctx context.Context, ref artifact.Ref, r Requirement) (*artifact.Manifest, []artifact.Evidence, error) {
	tag, err := readTag(ctx, v.cfg.Registry, v.cfg.Legacy, ref)
	if err != nil || tag == nil {
		return nil, nil, err
	}
	accepts := func(keyID string) bool { return v.cfg.Keys.Accepts(r.Key, keyID) }
	signatures, err := v.cfg.Legacy.Verify(ctx, *tag, v.Claim(ref, r), accepts, v.fetch(ref))
	if err != nil {
		return nil, nil, fmt.Errorf("verifying the signatures: %w", err)
	}
	var found []artifact.Evidence
	for _, s := range signatures {
		found = append(found, artifact.Evidence{Format: artifact.Legacy, KeyID: s.KeyID, Digest: tag.Digest})
	}
	return tag, found, nil
}

// bundles costs one request, and two for each bundle that was not seen before, up to the first that counts.
func (v *Verifier) bundles(ctx context.Context, ref artifact.Ref, r Requirement) ([]artifact.Evidence, error) {
	listed, err := listReferrers(ctx, v.cfg.Registry, ref)
	if err != nil {
		return nil, err
	}
	var unread []artifact.Descriptor
	for _, d := range listed {
		if !v.cfg.Bundles.Candidate(d) {
			continue
		}
		keyID, known := v.judged.get(bundleOf{d.Digest, ref.Digest()})
		if !known {
			unread = append(unread, d)
		} else if v.counts(r, keyID) {
			return bundleEvidence(keyID, d.Digest), nil
		}
	}
	for n, d := range unread {
		if n == maxUnread {
			return nil, fault.Newf(fault.Permanent, fault.TooLarge, "%d bundles by others refer to the manifest, and %d are read at once: delete some", len(unread), maxUnread)
		}
		keyID, err := v.judge(ctx, ref, r, d.Digest)
		if err != nil {
			return nil, err
		}
		if v.counts(r, keyID) {
			return bundleEvidence(keyID, d.Digest), nil
		}
	}
	return nil, nil
}

func (v *Verifier) counts(r Requirement, keyID string) bool {
	return keyID != "" && v.cfg.Keys.Accepts(r.Key, keyID)
}

func bundleEvidence(keyID, digest string) []artifact.Evidence {
	return []artifact.Evidence{{Format: artifact.Bundle, KeyID: keyID, Digest: digest}}
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
