package harbortest

import (
	"slices"
	"strings"
)

// policyRefuses applies "only signed images": GET and HEAD of a manifest without a signature are refused, to
// administrators too. It looks at the manifest asked for alone, and at what Harbor takes for a signature: nothing is
// verified. The caller holds Harbor.mu.
//
// Let through are signatures themselves, and a signer: bearer token (not basic auth), push right in the token, and a
// User-Agent that contains "cosign".
func (c *call) policyRefuses(a *artifact) bool {
	if a.repo.project.metadata[metaSignedOnly] != "true" {
		return false
	}
	if a.accessory != nil && a.accessory.kind == accessoryCosign {
		return false
	}
	if c.who.token != nil && c.who.token.allows("repository", a.repo.name, "push") &&
		strings.Contains(c.r.UserAgent(), "cosign") {
		return false
	}
	return !slices.ContainsFunc(a.repo.accessoriesOf(a.digest), func(acc *artifact) bool {
		return acc.accessory.kind == accessoryCosign
	})
}
