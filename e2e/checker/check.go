package checker

import (
	"cmp"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Rule is a rule that can be broken.
type Rule string

// The rules.
const (
	Unsigned       Rule = "unsigned"     // no valid signature by our key in a format that is wanted
	SignedTwice    Rule = "signed twice" // more than one signature by our key in one format
	SignedThough   Rule = "signed though it should not be"
	BadSignature   Rule = "bad signature"    // our key signed the wrong thing
	Untrustworthy  Rule = "tampered payload" // what the registry stores is not what the manifest names
	NotLogged      Rule = "not logged"       // no entry that counts beside a signature that should have one
	LoggedTwice    Rule = "logged twice"     // more than one entry that counts for one signature
	NotStamped     Rule = "not timestamped"  // no timestamp that counts beside a signature that should have one
	BadProof       Rule = "bad proof"        // an entry or timestamp that does not count beside our signature
	UnloggedBeside Rule = "unlogged bundle beside a logged legacy signature"
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

// Checker applies the rules for one host, one key and the formats that are wanted. It is safe for concurrent use.
type Checker struct {
	registry *Registry
	host     string
	key      crypto.PublicKey
	// identity is whose certificates stand for our key, which is nil then; nil for a key.
	identity *identity
	formats  []Format
	trust    *trusted
	asked    Asked
}

// New makes a checker. The host is the one that signatures name; the key is one of ParseKey's. The formats are those in
// which everything has to be signed, and nothing in others; none stands for all.
func New(registry *Registry, host string, key crypto.PublicKey, formats ...Format) *Checker {
	if len(formats) == 0 {
		formats = Formats()
	}
	return &Checker{registry: registry, host: host, key: key, formats: formats, trust: &trusted{}}
}

// Evidence is what the registry holds about one manifest.
type Evidence struct {
	MediaType string
	// Tagged is the digest of the manifest on the .sig tag; empty if there is none.
	Tagged string
	// Signatures are those of all signature manifests, the tagged one first, in all formats.
	Signatures []Signature
	// Accessories are the digests of all manifests that refer to this one, the tagged signature included.
	Accessories []string
}

// Valid gives the distinct valid signatures by our key in some formats, or in all if none is named. A layer counts once
// however many manifests carry it, a bundle by its manifest.
func (e Evidence) Valid(formats ...Format) []Signature {
	return e.distinct(func(s Signature) bool {
		return s.Verdict == Valid && (len(formats) == 0 || slices.Contains(formats, s.Format))
	})
}

// Formats gives the formats in which our key has signed validly.
func (e Evidence) Formats() []Format {
	return slices.DeleteFunc(Formats(), func(f Format) bool { return len(e.Valid(f)) == 0 })
}

// Foreign gives the distinct signatures by others.
func (e Evidence) Foreign() []Signature {
	return e.distinct(func(s Signature) bool { return s.Verdict == Foreign })
}

func (e Evidence) distinct(want func(Signature) bool) []Signature {
	var kept []Signature
	// Those with entries come first, so that one without is measured by them.
	all := slices.Clone(e.Signatures)
	slices.SortStableFunc(all, func(a, b Signature) int { return cmp.Compare(len(b.Entries), len(a.Entries)) })
	for _, s := range all {
		if want(s) && !slices.ContainsFunc(kept, s.same) {
			kept = append(kept, s)
		}
	}
	return kept
}

// Look collects what the registry holds about a digest: the .sig tag, and all that the referrers API lists, because
// bundles stand nowhere else, and because Harbor keeps the signature manifests that the tag named before.
func (c *Checker) Look(ctx context.Context, repository, digest string) (Evidence, error) {
	manifest, err := c.registry.Manifest(ctx, repository, digest)
	if err != nil {
		return Evidence{}, err
	}
	found, err := c.signatures(ctx, repository, digest)
	found.MediaType = manifest.MediaType
	return found, err
}

// signatures is Look for a digest that may itself be gone.
func (c *Checker) signatures(ctx context.Context, repository, digest string) (Evidence, error) {
	var found Evidence
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

// Signed checks that a digest carries exactly one signature by our key in each format that is wanted and none in others,
// that they are right and have beside them what is asked for, and that nothing which refers to the digest is signed itself.
func (c *Checker) Signed(ctx context.Context, repository, digest string) (Evidence, []Violation, error) {
	found, err := c.Look(ctx, repository, digest)
	if errors.Is(err, ErrNotFound) {
		return Evidence{}, []Violation{{ManifestAbsent, repository, digest, "the registry does not have it"}}, nil
	}
	if err != nil {
		return Evidence{}, nil, err
	}
	violations := c.badSignatures(repository, digest, found)
	for _, format := range Formats() {
		violations = append(violations, c.countSignatures(repository, digest, format, found)...)
		violations = append(violations, c.proofs(repository, digest, format, found)...)
	}
	violations = append(violations, loggedOnce(repository, digest, found)...)
	for _, accessory := range found.Accessories {
		more, err := c.NotSigned(ctx, repository, accessory)
		if err != nil {
			return Evidence{}, nil, err
		}
		violations = append(violations, more...)
	}
	return found, violations, nil
}

// countSignatures checks how many valid signatures there are in one format.
func (c *Checker) countSignatures(repository, digest string, format Format, found Evidence) []Violation {
	valid := found.Valid(format)
	if !slices.Contains(c.formats, format) {
		if len(valid) == 0 {
			return nil
		}
		detail := fmt.Sprintf("%d valid signatures by our key in the format %s, in which it should have none", len(valid), format)
		return []Violation{{SignedThough, repository, digest, detail}}
	}
	switch {
	case len(valid) == 0:
		detail := fmt.Sprintf("no valid signature by our key in the format %s (%d by others in all formats)", format, len(found.Foreign()))
		return []Violation{{Unsigned, repository, digest, detail}}
	case len(valid) > 1:
		return []Violation{signedTwice(repository, digest, format, valid)}
	}
	// The tag alone is what most verifiers look at: a signature that only an older manifest holds is lost to them.
	if format == Legacy && !found.carries(Legacy, found.Tagged) {
		return []Violation{{Unsigned, repository, digest, "the .sig tag no longer carries our signature"}}
	}
	return nil
}

// Once checks that a digest, signed or not, carries no more than one signature by our key in each format, and for each no more
// than one log entry; and no unlogged bundle beside a logged legacy signature.
func (c *Checker) Once(ctx context.Context, repository, digest string) ([]Violation, error) {
	found, err := c.signatures(ctx, repository, digest)
	if err != nil {
		return nil, err
	}
	var violations []Violation
	for _, format := range Formats() {
		if valid := found.Valid(format); len(valid) > 1 {
			violations = append(violations, signedTwice(repository, digest, format, valid))
		}
	}
	return append(violations, loggedOnce(repository, digest, found)...), nil
}

func signedTwice(repository, digest string, format Format, valid []Signature) Violation {
	detail := fmt.Sprintf("%d distinct valid signatures by our key in the format %s", len(valid), format)
	return Violation{SignedTwice, repository, digest, detail}
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

// Repository checks that what carries our signature may be signed: every digest that a .sig tag speaks of, and every
// manifest that a tag names, with the manifests that it names itself. It finds what was signed although nobody thought of
// looking at it. A bundle of a manifest that no tag leads to it cannot find: a registry lists tags alone.
func (c *Checker) Repository(ctx context.Context, repository string, mayBeSigned []string) ([]Violation, error) {
	tags, err := c.registry.Tags(ctx, repository)
	if err != nil {
		return nil, err
	}
	suspects := make(map[string]bool)
	for _, tag := range tags {
		hex, isSignature := strings.CutSuffix(tag, ".sig")
		if hex, ofDigest := strings.CutPrefix(hex, "sha256-"); isSignature && ofDigest {
			suspects["sha256:"+hex] = true
		}
		named, err := c.named(ctx, repository, tag)
		if err != nil {
			return nil, err
		}
		for _, digest := range named {
			suspects[digest] = true
		}
	}
	var violations []Violation
	for _, digest := range slices.Sorted(maps.Keys(suspects)) {
		if slices.Contains(mayBeSigned, digest) {
			continue
		}
		found, err := c.signatures(ctx, repository, digest)
		if err != nil {
			return nil, err
		}
		if at := slices.IndexFunc(found.Signatures, Signature.ByOurKey); at >= 0 {
			violations = append(violations, Violation{SignedThough, repository, digest, "our key signed it, in " + found.Signatures[at].Manifest})
		}
	}
	return violations, nil
}

// named gives the digest that a tag names and, if that is an index, those of its manifests. A tag that is gone meanwhile
// names nothing.
func (c *Checker) named(ctx context.Context, repository, tag string) ([]string, error) {
	m, err := c.registry.Manifest(ctx, repository, tag)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var index struct {
		Manifests []Descriptor `json:"manifests"`
	}
	digests := []string{m.Digest}
	if json.Unmarshal(m.Content, &index) == nil {
		for _, child := range index.Manifests {
			digests = append(digests, child.Digest)
		}
	}
	return digests, nil
}

// badSignatures reports what our key should never have made, and what the registry should never hold.
func (c *Checker) badSignatures(repository, digest string, found Evidence) []Violation {
	var violations []Violation
	for _, s := range found.Signatures {
		switch s.Verdict {
		case WrongDigest, WrongIdentity, Attestation, Untimely:
			violations = append(violations, Violation{BadSignature, repository, digest, string(s.Verdict) + ": " + s.Detail})
		case Tampered:
			violations = append(violations, Violation{Untrustworthy, repository, digest, s.Detail})
		case Valid, Foreign, Malformed:
		}
		for _, detail := range s.Unproven {
			violations = append(violations, Violation{BadProof, repository, digest, "in " + s.Manifest + ": " + detail})
		}
	}
	return violations
}
