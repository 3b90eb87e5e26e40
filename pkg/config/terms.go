package config

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// maxAnnotations and maxAnnotation bound what every signature carries: Harbor keeps it for each image.
	maxAnnotations = 32
	maxAnnotation  = 256
)

// ProjectTerms are how the images of some projects are signed. What they leave open comes from [Sign].
type ProjectTerms struct {
	// Projects are names and globs. An entry enables nothing: that is for [Signer].Projects.
	Projects []string `key:"projects"`
	// Format is empty, or one of the formats of package policy.
	Format policy.Format `key:"format"`
	// Key is empty, or the name of an active key.
	Key string `key:"key"`
	// Annotations are nil, or replace those of [Sign] as a whole.
	Annotations map[string]string `key:"annotations"`
}

// Policies gives the projects that are signed, and their terms. It shares its lists with the configuration.
func (c *Signer) Policies() policy.SetConfig {
	cfg := policy.SetConfig{
		Projects: c.Projects,
		Default:  policy.Terms{Format: c.Sign.Format, Key: c.Sign.Key, Annotations: c.Sign.Annotations},
	}
	for _, t := range c.Terms {
		cfg.Rules = append(cfg.Rules, policy.Rule{
			Projects: t.Projects,
			Terms:    policy.Terms{Format: t.Format, Key: t.Key, Annotations: t.Annotations},
		})
	}
	return cfg
}

// completeTerms takes the names of the active keys.
func (c *Signer) completeTerms(active []string, p *problems) {
	p.format("sign.format", c.Sign.Format)
	switch {
	case c.Sign.Key != "":
		p.activeKey("sign.key", c.Sign.Key, active)
	case len(active) == 1:
		c.Sign.Key = active[0]
	case len(active) > 1:
		p.add("sign.key", "is required where several keys are active")
	}
	p.annotations("sign.annotations", c.Sign.Annotations)
	for i, t := range c.Terms {
		at := entry("policies", i)
		if len(t.Projects) == 0 {
			p.add(at+".projects", "want at least one entry")
		}
		p.projects(at+".projects", t.Projects)
		if t.Format != "" {
			p.format(at+".format", t.Format)
		}
		if t.Key != "" {
			p.activeKey(at+".key", t.Key, active)
		}
		p.annotations(at+".annotations", t.Annotations)
	}
}

// format does not pass on what Validate says: that repeats the value.
func (p *problems) format(path string, f policy.Format) {
	if f.Validate() != nil {
		p.add(path, "want one of auto, legacy, bundle, both")
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
