package harbortest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// unlimited is a quota without a limit.
const unlimited = -1

// resourceStorage is the only resource that quotas limit.
const resourceStorage = "storage"

// quota is the storage of a project, and its limit.
//
// SPEC: Harbor, src/controller/blob: a project pays once for each digest that it holds, blobs and manifests alike, in
// however many repositories; a blob from the moment of its upload, whether or not a manifest ever names it.
type quota struct {
	id               int64
	hard             int64 // Bytes, or unlimited.
	used             int64 // Bytes.
	held             map[digest.Digest]*heldBlob
	created, updated time.Time
}

type heldBlob struct {
	size      int64
	artifacts int // How many artifacts of the project need it.
}

func (s *state) newQuota(hard int64, at time.Time) *quota {
	return &quota{
		id: s.next("quota"), hard: hard, held: make(map[digest.Digest]*heldBlob), created: at, updated: at,
	}
}

// part is something that an artifact consists of: its manifest, its config, a layer.
type part struct {
	digest digest.Digest
	size   int64
}

// parts are what a manifest makes its project hold. Layers that live elsewhere, by URL, do not count.
func (m *manifest) parts(d digest.Digest, length int) []part {
	out := []part{{digest: d, size: int64(length)}}
	for _, blob := range m.blobs() {
		if len(blob.URLs) == 0 {
			out = append(out, part{digest: blob.Digest, size: blob.Size})
		}
	}
	return out
}

// missing is how many bytes the parts would add.
func (q *quota) missing(parts []part) int64 {
	var total int64
	seen := make(map[digest.Digest]bool, len(parts))
	for _, p := range parts {
		if q.held[p.digest] == nil && !seen[p.digest] {
			total += p.size
		}
		seen[p.digest] = true
	}
	return total
}

func (q *quota) hold(p part) *heldBlob {
	b := q.held[p.digest]
	if b == nil {
		b = &heldBlob{size: p.size}
		q.held[p.digest] = b
		q.used += p.size
		q.updated = storedNow()
	}
	return b
}

// holdArtifact counts a new artifact's parts.
func (q *quota) holdArtifact(a *artifact) {
	for _, p := range a.parts {
		q.hold(p).artifacts++
	}
}

// releaseArtifact lets go of what no other artifact of the project needs.
func (q *quota) releaseArtifact(a *artifact) {
	for _, p := range a.parts {
		b := q.held[p.digest]
		if b.artifacts--; b.artifacts <= 0 {
			delete(q.held, p.digest)
			q.used -= b.size
			q.updated = storedNow()
		}
	}
}

// admit refuses a request that would bring the project above its limit. Where quotas are switched off, nothing is.
func (s *state) admit(p *project, size int64) error {
	q := p.quota
	if enabled, ok := s.config["quota_per_project_enable"].Value.(bool); ok && !enabled {
		return nil
	}
	if size <= 0 || q.hard == unlimited || q.used+size <= q.hard {
		return nil
	}
	return &apiError{
		status: http.StatusForbidden, code: "DENIED",
		message: fmt.Sprintf("adding %s of storage resource, which when updated to current usage of %s will exceed "+
			"the configured upper limit of %s.", displaySize(size), displaySize(q.used), displaySize(q.hard)),
	}
}

// displaySize writes bytes as Harbor does: "300 B", "7.4 KiB".
func displaySize(n int64) string {
	const unit = 1 << 10
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefixes := float64(n)/unit, "KMGTPE"
	for value >= unit {
		value, prefixes = value/unit, prefixes[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, prefixes[0])
}

// storageLimit reads the limit of a project from a request's resources, and refuses as Harbor does.
func storageLimit(hard map[string]int64) (int64, error) {
	for name, value := range hard {
		if name != resourceStorage {
			return 0, errBadRequest("resource %s not support", name)
		}
		if value <= 0 && value != unlimited {
			return 0, errBadRequest("invalid value for resource %s", name)
		}
	}
	if len(hard) == 0 {
		return 0, errBadRequest("hard required in body")
	}
	return hard[resourceStorage], nil
}

// defaultLimit is the limit of new projects.
func (s *state) defaultLimit() int64 {
	switch limit := s.config["storage_per_project"].Value.(type) {
	case float64:
		return int64(limit)
	default:
		return unlimited
	}
}

func (p *project) quotaView() map[string]any {
	q := p.quota
	return map[string]any{
		"creation_time": timestamp(q.created), "update_time": timestamp(q.updated), "id": q.id,
		"hard": map[string]int64{resourceStorage: q.hard}, "used": map[string]int64{resourceStorage: q.used},
		"ref": map[string]any{"id": p.id, "name": p.name, "owner_name": ""},
	}
}

func (c *call) listQuotas() error {
	if err := c.requireSystem("quota", "list"); err != nil {
		return err
	}
	params := c.r.URL.Query()
	reference, referenceID := params.Get("reference"), params.Get("reference_id")
	var projects []*project
	for _, p := range c.h.state.projects {
		if (reference == "" || reference == kindProject) && (referenceID == "" || referenceID == strconv.FormatInt(p.id, 10)) {
			projects = append(projects, p)
		}
	}
	slices.SortFunc(projects, func(a, b *project) int { return int(b.quota.id - a.quota.id) })
	sortBy(projects, params.Get("sort"), map[string]func(a, b *project) int{
		"hard.storage": byOrdered(func(p *project) int64 { return p.quota.hard }),
		"used.storage": byOrdered(func(p *project) int64 { return p.quota.used }),
	})
	return paged(c, projects, func(p *project) any { return p.quotaView() })
}

// requireQuota finds the project whose quota the path names.
func (c *call) requireQuota(action string) (*project, error) {
	if err := c.requireSystem("quota", action); err != nil {
		return nil, err
	}
	ref := c.r.PathValue("quota")
	id, err := strconv.ParseInt(ref, 10, 64)
	if err != nil {
		return nil, errUnprocessable(fmt.Sprintf("id in path must be of type int64: %q", ref))
	}
	for _, p := range c.h.state.projects {
		if p.quota.id == id {
			return p, nil
		}
	}
	return nil, errNotFound("quota %d not found", id)
}

func (c *call) getQuota() error {
	p, err := c.requireQuota("read")
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, p.quotaView())
}

// putQuota sets the limit; one below what is used already refuses every push that adds something.
func (c *call) putQuota() error {
	var req struct {
		Hard map[string]int64 `json:"hard"`
	}
	if err := c.decode("hard", &req); err != nil {
		return err
	}
	p, err := c.requireQuota("update")
	if err != nil {
		return err
	}
	limit, err := storageLimit(req.Hard)
	if err != nil {
		return err
	}
	p.quota.hard, p.quota.updated = limit, storedNow()
	return c.ok()
}

// projectOf finds the project of a repository, for the registry.
func (s *state) projectOf(repo string) (*project, error) {
	name, _, _ := strings.Cut(repo, "/")
	if p := s.projects[name]; p != nil {
		return p, nil
	}
	return nil, errNotFound("project %s not found", name)
}
