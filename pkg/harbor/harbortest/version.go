package harbortest

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"
)

// Releases at which Harbor changed in a way that the emulator follows. What has no recording is read from Harbor's
// release notes and code.
const (
	// minorProjectArtifacts brought GET /projects/{project}/artifacts.
	minorProjectArtifacts = 12
	// minorAuditLogExt brought GET /auditlog-exts and that of a project.
	minorAuditLogExt = 13
	// minorBundles made an accessory of the type signature.cosign of a sigstore bundle; it was a subject.accessory.
	minorBundles = 15
)

// release is a version of Harbor: the text that /systeminfo shows, and the minor number of Harbor 2.
type release struct {
	text  string
	minor int
}

// newest is the minor number of what names none, as a development build: it has everything.
const newest = 1 << 20

// parseRelease reads a version, as v2.11.2, 2.11.2 or v2.11.2-6b7ecba1; empty is DefaultVersion.
func parseRelease(text string) release {
	out := release{text: cmp.Or(text, DefaultVersion), minor: newest}
	number, _, _ := strings.Cut(strings.TrimPrefix(out.text, "v"), "-")
	parts := strings.Split(number, ".")
	if len(parts) < 2 || parts[0] != "2" {
		return out
	}
	if minor, err := strconv.Atoi(parts[1]); err == nil && minor >= 0 {
		out.minor = minor
	}
	return out
}

func (r release) has(minor int) bool { return r.minor >= minor }

// full is the version with the commit that a released Harbor appends.
func (r release) full() string {
	if strings.Contains(r.text, "-") {
		return r.text
	}
	return r.text + buildCommit
}

// SetVersion makes another version of Harbor of the emulator, as Config.Version does; empty is DefaultVersion. What is
// there already stays as it is, as after an upgrade: a bundle that was pushed to an old Harbor is no signature to the
// new one.
func (h *Harbor) SetVersion(version string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state.release = parseRelease(version)
}

// Version is the version that is emulated, without the commit.
func (h *Harbor) Version() string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.state.release.text
}

// versionJSON is the form of the version on the control surface.
type versionJSON struct {
	Version string `json:"version"`
}

// since keeps an endpoint from releases that did not have it: to them its path is unknown.
func since(minor int, handle func(*call) error) func(*call) error {
	return func(c *call) error {
		if !c.h.state.release.has(minor) {
			return errUnknownPath(c.r)
		}
		return handle(c)
	}
}

func errUnknownPath(r *http.Request) error { return errNotFound("path %s was not found", r.URL.Path) }
