package config

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// maxAnnotations and maxAnnotation bound what every signature carries: Harbor keeps it for each image.
	maxAnnotations = 32
	maxAnnotation  = 256
)

// ProjectPolicy is the policy of some projects.
type ProjectPolicy struct {
	// Projects are names and globs. Projects that are made later are meant as well.
	Projects []string `key:"projects"`
	policy.Spec
	// Backfill says which of the images that are there already are signed: "all", or "since:" and a time.
	Backfill string `key:"backfill"`
	// Blocks are digests that are never signed.
	Blocks []Block `key:"blocks"`
}

// Block keeps one digest from ever being signed.
type Block struct {
	Digest string `key:"digest"`
	Reason string `key:"reason"`
}

// Declared gives the policies that the file declares. It shares its lists with the configuration.
func (c *Receiver) Declared() (*policy.Declared, error) {
	var rules []policy.Rule
	for _, p := range c.Policies {
		backfill, err := policy.ParseBackfill(p.Backfill, time.Time{})
		if err != nil {
			return nil, err
		}
		rule := policy.Rule{Projects: p.Projects, Spec: p.Spec, Backfill: backfill}
		for _, b := range p.Blocks {
			rule.Blocks = append(rule.Blocks, policy.Block{Digest: b.Digest, Reason: b.Reason, By: "config"})
		}
		rules = append(rules, rule)
	}
	return policy.NewDeclared(rules)
}

// Terms gives how images are signed where their project's policy leaves it open.
func (c *Signer) Terms() policy.Terms {
	return policy.Terms{
		Format: c.Sign.Format, Key: c.Sign.Key, Annotations: c.Sign.Annotations,
		Transparency: c.Sign.Transparency, Log: c.Sign.Log, Timestamp: c.Sign.Timestamp,
	}
}

// completeSign takes the names of the active keys and of the active logs.
func (c *Signer) completeSign(keys, logs []string, p *problems) {
	p.format("sign.format", c.Sign.Format)
	switch {
	case c.Sign.Key != "":
		p.activeKey("sign.key", c.Sign.Key, keys)
	case len(keys) == 1:
		c.Sign.Key = keys[0]
	case len(keys) > 1:
		p.add("sign.key", "is required where several keys are active")
	}
	p.annotations("sign.annotations", c.Sign.Annotations)
	p.transparency("sign.transparency", c.Sign.Transparency)
	switch {
	case c.Sign.Log != "" && !slices.Contains(logs, c.Sign.Log):
		p.add("sign.log", "want the name of a log whose state is active")
	case c.Sign.Log == "" && len(logs) == 1:
		c.Sign.Log = logs[0]
	case c.Sign.Log == "" && len(logs) > 1:
		p.add("sign.log", "is required where several logs are active")
	}
	if c.Sign.Timestamp == "" {
		c.Sign.Timestamp = policy.TimestampOff
		if _, active := c.ActiveAuthority(); active {
			c.Sign.Timestamp = policy.TimestampOptional
		}
	}
	p.timestamp("sign.timestamp", c.Sign.Timestamp)
	c.checkVerifiable(p)
}

// checkPolicies can tell a wrong name of a key only where the file names the active keys.
func (c *Receiver) checkPolicies(p *problems) {
	var active []string
	for _, k := range c.Keys {
		if k.State == Active {
			active = append(active, k.Name)
		}
	}
	for i, declared := range c.Policies {
		at := entry("policies", i)
		if len(declared.Projects) == 0 {
			p.add(at+".projects", "want at least one entry")
		}
		p.projects(at+".projects", declared.Projects)
		if err := declared.Validate(); err != nil {
			for _, wrong := range policy.FieldErrors(err) {
				p.add(at+"."+wrong.Field, "%s", wrong.Want)
			}
		}
		for j, b := range declared.Blocks {
			block := at + entry(".blocks", j)
			if artifact.ValidateDigest(b.Digest) != nil {
				p.add(block+".digest", "want sha256: and 64 lower-case hexadecimal digits")
			}
			if !policy.ValidReason(b.Reason) {
				p.add(block+".reason", "want why, in at most %d bytes", policy.MaxReason)
			}
		}
		if declared.Key != "" {
			p.activeKey(at+".key", declared.Key, active)
		}
		if _, err := policy.ParseBackfill(declared.Backfill, time.Time{}); err != nil || declared.Backfill == "none" {
			p.add(at+".backfill", "is required: want all, or since: and a time such as since:2026-01-31T00:00:00Z: which of the images that are there already are signed")
		}
	}
}

// format does not pass on what Validate says: that repeats the value.
func (p *problems) format(path string, f policy.Format) {
	if f.Validate() != nil {
		p.add(path, "want one of auto, legacy, bundle, both")
	}
}

func (p *problems) transparency(path string, t policy.Transparency) {
	if t.Validate() != nil {
		p.add(path, "want one of off, required, deferred")
	}
}

func (p *problems) timestamp(path string, t policy.Timestamp) {
	if t.Validate() != nil {
		p.add(path, "want one of off, optional, required")
	}
}

// activeKey says nothing where no key is active: that is a problem of its own.
func (p *problems) activeKey(path, name string, active []string) {
	if len(active) > 0 && !slices.Contains(active, name) {
		p.add(path, "want the name of a key whose state is active")
	}
}

// annotations names no key: one that came from a variable may be a value in the wrong place.
func (p *problems) annotations(path string, texts map[string]string) {
	keys, values := true, true
	for key, value := range texts {
		keys = keys && key != "" && len(key) <= maxAnnotation && utf8.ValidString(key) && !strings.ContainsFunc(key, unicode.IsControl)
		values = values && len(value) <= maxAnnotation && utf8.ValidString(value)
	}
	switch {
	case len(texts) > maxAnnotations:
		p.add(path, "want at most %d keys", maxAnnotations)
	case !keys:
		p.add(path, "want keys of 1 to %d bytes in UTF-8 without control characters", maxAnnotation)
	case !values:
		p.add(path, "want values of at most %d bytes in UTF-8", maxAnnotation)
	}
}
