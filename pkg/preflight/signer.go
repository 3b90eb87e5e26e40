package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// SignerHarbor is what is asked of Harbor with the signer's account. Each method makes one attempt, changes nothing, returns
// a fault, and is safe for concurrent use.
type SignerHarbor interface {
	// Project gives a project by its exact name; the fault is Gone if it is not there or not to be seen.
	Project(ctx context.Context, name string) (artifact.Project, error)
	System(ctx context.Context) (artifact.SystemInfo, error)
	// Bundles says whether Harbor takes a bundle for a signature, and which version it is.
	Bundles(ctx context.Context) (can bool, version string, err error)
	// LockedBy gives the immutability rule that locks a tag, in one line for people; empty if none does. The fault is Denied
	// if the account may not list rules.
	LockedBy(ctx context.Context, repository, tag string) (rule string, err error)
	// MissingRights gives those of the rights that the account lacks.
	MissingRights(ctx context.Context, project string, rights []string) (missing []string, err error)
	// Quota gives the project's storage; the fault is Denied if the account may not list quotas.
	Quota(ctx context.Context, projectID int64) (artifact.Quota, error)
}

// Keys knows the signing keys.
type Keys interface {
	// KeyID gives the id of the key of this name that signs; false if there is none.
	KeyID(name string) (id string, ok bool)
}

// Down says what does not answer at the moment, and why, in words for people; empty for what answers and for what nobody has
// called.
type Down struct {
	// Log is the transparency log that the terms name, Timestamps the timestamp authority, and Key the KMS or the Fulcio of the
	// key.
	Log, Timestamps, Key string
}

// ForSigner checks with the account and the keys of a signer. Fields without a default in their comment are required.
type ForSigner struct {
	Harbor SignerHarbor
	Keys   Keys
	// Defaults are the terms of the signer's configuration.
	Defaults policy.Terms
	// Account is the name of the account in Harbor.
	Account string
	// Means gives what the signer's configuration has for what terms ask for; what is Harbor's to say is not looked at.
	// Default: there are no logs, no timestamp authority and no keyless keys.
	Means func(policy.Terms) policy.Means
	// Down gives what does not answer, of what terms ask for. It waits for nobody. Default: nobody knows.
	Down func(policy.Terms) Down
}

// need is a right, with what is lost without it; nothing works without a required one.
type need struct {
	right    string
	required bool
	lost     string
	// system says that it is a right in the whole of Harbor, and not in a project.
	system bool
	// or is what else looks as if the right were missing.
	or string
}

func signerNeeds(r Request) []need {
	return []need{
		{right: "repository:pull", required: true, lost: "nothing can be read"},
		{right: "repository:push", required: true, lost: "no signature can be attached"},
		{right: "repository:list", required: true, lost: "the sweep cannot see what is there"},
		{right: "artifact:list", required: true, lost: "the sweep cannot see what is there"},
		{right: "artifact:read", required: r.Tags, lost: "the tags of an image cannot be asked for, and nothing is ever recorded as gone"},
		{right: "immutable-tag:list", lost: "a signature that a rule refuses looks like any other refusal"},
		{
			right: "audit-log:list", system: true, or: ", or Harbor's log of pushes is empty or switched off",
			lost: "the sweep of each minute costs a request for each project",
		},
	}
}

// probeRepository names a repository that need not exist: rights and rules of a project hold for it as for any other.
const probeRepository = "harborseal-preflight"

// Check does all checks for a project. A project of an empty name leaves those out that are about one.
func (s ForSigner) Check(ctx context.Context, r Request) []Check {
	if s.Means == nil {
		s.Means = func(policy.Terms) policy.Means { return policy.Means{} }
	}
	if s.Down == nil {
		s.Down = func(policy.Terms) Down { return Down{} }
	}
	system := once(s.Harbor.System)
	bundles := once(s.bundles)
	locked := once(func(ctx context.Context) (string, error) { return s.lockedBy(ctx, r.Project) })
	tasks := []task{
		{Version, "", func(ctx context.Context) []Check { return []Check{checkVersion(ctx, system)} }},
		{ReadOnly, "", func(ctx context.Context) []Check { return []Check{checkReadOnly(ctx, system)} }},
		{Key, r.Key, func(context.Context) []Check { return []Check{s.key(r)} }},
		{Format, r.Project, func(ctx context.Context) []Check { return []Check{s.format(ctx, r, bundles)} }},
		{Transparency, r.Project, func(ctx context.Context) []Check { return s.verifiable(ctx, r, bundles, locked) }},
	}
	if r.Project == "" {
		return run(ctx, tasks)
	}
	project := once(func(ctx context.Context) (artifact.Project, error) { return s.Harbor.Project(ctx, r.Project) })
	rights := once(func(ctx context.Context) ([]string, error) { return missing(ctx, s.Harbor, r.Project, signerNeeds(r)) })
	return run(ctx, append(
		tasks,
		task{Project, r.Project, func(ctx context.Context) []Check { return []Check{checkProject(ctx, r.Project, s.Account, project)} }},
		task{ProxyCache, r.Project, func(ctx context.Context) []Check { return []Check{checkProxyCache(ctx, r.Project, project)} }},
		task{Rights, r.Project, func(ctx context.Context) []Check {
			return checkRights(ctx, r.Project, s.Account, signerNeeds(r), rights)
		}},
		task{PullPolicy, r.Project, func(ctx context.Context) []Check { return []Check{s.pullPolicy(ctx, r.Project, project, rights)} }},
		task{Quota, r.Project, func(ctx context.Context) []Check { return []Check{checkQuota(ctx, r.Project, s.Harbor, project)} }},
		task{Immutability, r.Project, func(ctx context.Context) []Check { return []Check{s.immutability(ctx, r, bundles, locked)} }},
	))
}

func (s ForSigner) terms(r Request) policy.Terms {
	return policy.Terms{Format: r.Format, Key: r.Key, Transparency: r.Transparency, Log: r.Log, Timestamp: r.Timestamp}.
		Or(s.Defaults).
		Or(policy.Terms{Format: policy.FormatAuto, Transparency: policy.TransparencyOff, Timestamp: policy.TimestampOff})
}

// harborBundles is what Harbor says of bundles.
type harborBundles struct {
	can     bool
	version string
}

func (s ForSigner) bundles(ctx context.Context) (harborBundles, error) {
	can, version, err := s.Harbor.Bundles(ctx)
	return harborBundles{can, version}, err
}

// lockedBy gives the rule that locks the tags of legacy signatures. No project has none.
func (s ForSigner) lockedBy(ctx context.Context, project string) (string, error) {
	if project == "" {
		return "", nil
	}
	return s.Harbor.LockedBy(ctx, project+"/"+probeRepository, "sha256-"+strings.Repeat("0", 64)+".sig")
}

func (s ForSigner) key(r Request) Check {
	terms := s.terms(r)
	name := terms.Key
	c := Check{Name: Key, Subject: name, Status: OK}
	id, ok := s.Keys.KeyID(name)
	if !ok {
		c.Status, c.Detail = Failed, "the signer has no active key of this name"
		c.Fix = "name a key that the signer's configuration lists as active, or leave the key out for the signer's default"
		return c
	}
	c.Detail = "key id " + id
	if why := s.Down(terms).Key; why != "" {
		c.Status, c.Detail = Warning, "the key cannot sign at the moment: "+why+"; images wait until it can"
		c.Fix = "see to what keeps the key's KMS or Fulcio from answering"
	}
	return c
}

func (s ForSigner) format(ctx context.Context, r Request, bundles func(context.Context) (harborBundles, error)) Check {
	format := s.terms(r).Format
	c := Check{Name: Format, Subject: string(format), Status: OK}
	if format == policy.FormatLegacy {
		return c // every Harbor takes it
	}
	harbor, err := bundles(ctx)
	if err != nil {
		return unknown(c, err)
	}
	formats, err := format.Formats(harbor.can)
	if err != nil {
		c.Status, c.Detail = Failed, fmt.Sprintf("this Harbor is %s, which does not take a bundle for a signature", harbor.version)
		c.Fix = "choose the format auto or legacy, or upgrade Harbor to 2.15 or later"
		return c
	}
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = string(f)
	}
	c.Detail = "signatures are written as " + strings.Join(names, " and ")
	return c
}

// immutability asks whether a rule keeps a legacy signature's tag where it is.
//
// SPEC: measured on Harbor 2.15: an immutability rule lets a .sig tag be pushed once and refuses to move it (412); referrers
// and bundles are always taken.
func (s ForSigner) immutability(
	ctx context.Context, r Request, bundles func(context.Context) (harborBundles, error), locked func(context.Context) (string, error),
) Check {
	c := Check{Name: Immutability, Subject: r.Project, Status: OK}
	format := s.terms(r).Format
	if format == policy.FormatBundle {
		return c
	}
	rule, err := locked(ctx)
	switch {
	case fault.Is(err, fault.Gone):
		c.Status, c.Unknown = Skipped, true // the project's own check says so
		return c
	case err != nil && fault.Of(err).Reason == fault.Denied:
		c.Status, c.Unknown, c.Detail = Skipped, true, "the signer's account may not list immutability rules"
		return c
	case err != nil:
		// Signing itself meets the rule later and says so.
		c = unknown(c, err)
		c.Status = Skipped
		return c
	case rule == "":
		return c
	}
	harbor, err := bundles(ctx)
	switch {
	case err != nil:
		return unknown(c, err)
	case harbor.can:
		c.Detail = rule + " locks the tags of legacy signatures: where one cannot be written, a bundle stands in for it"
	case r.ResignOnRotation:
		c.Status, c.Detail = Failed, rule+" locks the tags of legacy signatures, so that a digest cannot get the signature of a second key"
		c.Fix = "exclude sha256-* from the rule, turn resign_on_rotation off, or upgrade Harbor to 2.15 or later, where bundles need no tag"
	default:
		c.Status = Warning
		c.Detail = rule + " locks the tags of legacy signatures: a digest gets its first signature, and never another one, also where somebody else's stands there already"
		c.Fix = "exclude sha256-* from the rule, or upgrade Harbor to 2.15 or later, where bundles need no tag"
	}
	return c
}

// pullPolicy asks whether the signer can still read what is not signed yet.
//
// SPEC: measured on Harbor 2.15: with the pull policy on, an unsigned manifest is handed out to a token with the right to
// push, for a client that calls itself cosign, as the signer does. So the rights decide.
func (s ForSigner) pullPolicy(ctx context.Context, name string, project func(context.Context) (artifact.Project, error), rights func(context.Context) ([]string, error)) Check {
	c := Check{Name: PullPolicy, Subject: name, Status: Skipped, Detail: "Harbor hands out unsigned images of this project"}
	p, err := project(ctx)
	switch {
	case fault.Is(err, fault.Gone):
		c.Unknown, c.Detail = true, "" // the project's own check says so
		return c
	case err != nil:
		return unknown(c, err)
	case !p.SignedOnly:
		return c
	}
	lacking, err := rights(ctx)
	if err != nil {
		return unknown(c, err)
	}
	c.Status, c.Detail = OK, "Harbor hands out signed images only, and unsigned ones to the signer"
	if slices.Contains(lacking, "repository:push") || slices.Contains(lacking, "repository:pull") {
		c.Status, c.Detail = Failed, "Harbor hands out signed images only, and the signer, which may not push, cannot read what it is to sign"
		c.Fix = fmt.Sprintf("give the account %s the rights repository:pull and repository:push on project %s", s.Account, name)
	}
	return c
}
