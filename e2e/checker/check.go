package checker

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Rule is a rule that can be broken.
type Rule string

// The rules.
const (
	Unsigned       Rule = "unsigned"     // no valid signature by our key
	SignedTwice    Rule = "signed twice" // more than one signature by our key
	SignedThough   Rule = "signed though it should not be"
	BadSignature   Rule = "bad signature"    // our key signed the wrong thing
	Untrustworthy  Rule = "tampered payload" // what the registry stores is not what the manifest names
	ReportMissing  Rule = "missing in the report"
	ReportSurplus  Rule = "surplus in the report"
	ReportWrong    Rule = "wrong in the report"
	ManifestAbsent Rule = "manifest is not there"
)

// Violation is one broken rule.
type Violation struct {
	Rule       Rule
	Repository string
	Digest     string
	Detail     string
}

// String names all of it in one line.
func (v Violation) String() string {
	return fmt.Sprintf("%s: %s@%s: %s", v.Rule, v.Repository, v.Digest, v.Detail)
}

// Checker applies the rules for one host and one key. It is safe for concurrent use.
type Checker struct {
	registry *Registry
	host     string
	key      *ecdsa.PublicKey
}

// New makes a checker. The host is the one that signatures name.
func New(registry *Registry, host string, key *ecdsa.PublicKey) *Checker {
	return &Checker{registry: registry, host: host, key: key}
}

// Evidence is what the registry holds about one manifest.
type Evidence struct {
	MediaType string
	// Tagged is the digest of the manifest on the .sig tag; empty if there is none.
	Tagged string
	// Signatures are those of all signature manifests, the tagged one first.
	Signatures []Signature
	// Accessories are the digests of all manifests that refer to this one, the tagged signature included.
	Accessories []string
}

// Valid gives the distinct valid signatures by our key, the bytes of each once however many manifests carry them.
func (e Evidence) Valid() []Signature {
	return e.distinct(func(s Signature) bool { return s.Verdict == Valid })
}

// Foreign gives the distinct signatures by others.
func (e Evidence) Foreign() []Signature {
	return e.distinct(func(s Signature) bool { return s.Verdict == Foreign })
}

func (e Evidence) distinct(want func(Signature) bool) []Signature {
	var kept []Signature
	for _, s := range e.Signatures {
		known := slices.ContainsFunc(kept, func(k Signature) bool { return k.Bytes == s.Bytes && k.Payload == s.Payload })
		if want(s) && !known {
			kept = append(kept, s)
		}
	}
	return kept
}

// Look collects what the registry holds about a digest: the .sig tag, and all that the referrers API lists, because
// Harbor keeps the signature manifests that the tag named before.
func (c *Checker) Look(ctx context.Context, repository, digest string) (Evidence, error) {
	var found Evidence
	manifest, err := c.registry.Manifest(ctx, repository, digest)
	if err != nil {
		return Evidence{}, err
	}
	found.MediaType = manifest.MediaType
	tagged, err := c.registry.Manifest(ctx, repository, SignatureTag(digest))
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return Evidence{}, err
	default:
		found.Tagged = tagged.Digest
		found.Accessories = append(found.Accessories, tagged.Digest)
		if found.Signatures, err = c.signaturesIn(ctx, repository, digest, tagged); err != nil {
			return Evidence{}, err
		}
	}
	referrers, err := c.registry.Referrers(ctx, repository, digest)
	if err != nil {
		return Evidence{}, err
	}
	for _, r := range referrers {
		if slices.Contains(found.Accessories, r.Digest) {
			continue
		}
		found.Accessories = append(found.Accessories, r.Digest)
		m, err := c.registry.Manifest(ctx, repository, r.Digest)
		if err != nil {
			return Evidence{}, err
		}
		more, err := c.signaturesIn(ctx, repository, digest, m)
		if err != nil {
			return Evidence{}, err
		}
		found.Signatures = append(found.Signatures, more...)
	}
	return found, nil
}

// Signed checks that a digest carries exactly one signature by our key, that it is right, and that nothing which
// refers to the digest is signed itself.
func (c *Checker) Signed(ctx context.Context, repository, digest string) (Evidence, []Violation, error) {
	found, err := c.Look(ctx, repository, digest)
	if errors.Is(err, ErrNotFound) {
		return Evidence{}, []Violation{{ManifestAbsent, repository, digest, "the registry does not have it"}}, nil
	}
	if err != nil {
		return Evidence{}, nil, err
	}
	violations := c.badSignatures(repository, digest, found)
	switch valid := found.Valid(); {
	case len(valid) == 0:
		detail := fmt.Sprintf("no valid signature by our key (%d by others)", len(found.Foreign()))
		violations = append(violations, Violation{Unsigned, repository, digest, detail})
	case len(valid) > 1:
		detail := fmt.Sprintf("%d distinct valid signatures by our key", len(valid))
		violations = append(violations, Violation{SignedTwice, repository, digest, detail})
	}
	// The tag alone is what most verifiers look at: a signature that only an older manifest holds is lost to them.
	onTag := slices.ContainsFunc(found.Signatures, func(s Signature) bool { return s.Verdict == Valid && s.Manifest == found.Tagged })
	if len(found.Valid()) > 0 && !onTag {
		violations = append(violations, Violation{Unsigned, repository, digest, "the .sig tag no longer carries our signature"})
	}
	for _, accessory := range found.Accessories {
		more, err := c.NotSigned(ctx, repository, accessory)
		if err != nil {
			return Evidence{}, nil, err
		}
		violations = append(violations, more...)
	}
	return found, violations, nil
}

// NotSigned checks that our key has signed nothing for a digest.
func (c *Checker) NotSigned(ctx context.Context, repository, digest string) ([]Violation, error) {
	found, err := c.Look(ctx, repository, digest)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	violations := c.badSignatures(repository, digest, found)
	if ours := found.distinct(Signature.ByOurKey); len(ours) > 0 {
		violations = append(violations, Violation{SignedThough, repository, digest, "our key signed it, in " + ours[0].Manifest})
	}
	return violations, nil
}

// Repository checks that every .sig tag of a repository that carries our signature belongs to a digest that may be
// signed. It finds what was signed although nobody thought of looking at it.
func (c *Checker) Repository(ctx context.Context, repository string, mayBeSigned []string) ([]Violation, error) {
	tags, err := c.registry.Tags(ctx, repository)
	if err != nil {
		return nil, err
	}
	var violations []Violation
	for _, tag := range tags {
		hex, isSignature := strings.CutSuffix(tag, ".sig")
		hex, ofDigest := strings.CutPrefix(hex, "sha256-")
		digest := "sha256:" + hex
		if !isSignature || !ofDigest || slices.Contains(mayBeSigned, digest) {
			continue
		}
		m, err := c.registry.Manifest(ctx, repository, tag)
		if err != nil {
			return nil, err
		}
		signatures, err := c.signaturesIn(ctx, repository, digest, m)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(signatures, Signature.ByOurKey) {
			violations = append(violations, Violation{SignedThough, repository, digest, "our key signed it, on tag " + tag})
		}
	}
	return violations, nil
}

// badSignatures reports what our key should never have made, and what the registry should never hold.
func (c *Checker) badSignatures(repository, digest string, found Evidence) []Violation {
	var violations []Violation
	for _, s := range found.Signatures {
		switch s.Verdict {
		case WrongDigest, WrongIdentity:
			violations = append(violations, Violation{BadSignature, repository, digest, string(s.Verdict) + ": " + s.Detail})
		case Tampered:
			violations = append(violations, Violation{Untrustworthy, repository, digest, s.Detail})
		case Valid, Foreign, Malformed:
		}
	}
	return violations
}
