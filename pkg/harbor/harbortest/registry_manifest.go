package harbortest

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// maxManifest is the largest manifest that the registry takes.
//
// SPEC: distribution, handlers.maxManifestBodySize.
const maxManifest = 4 << 20

func (c *call) serveManifest(repo, reference string) error {
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		return c.getManifest(repo, reference)
	case http.MethodPut:
		return c.putManifest(repo, reference)
	case http.MethodDelete:
		return c.deleteManifest(repo, reference)
	default:
		return errUnsupported()
	}
}

func (c *call) getManifest(repo, reference string) error {
	c.h.mu.RLock()
	a, err := c.h.state.lookup(repo, reference)
	refused := err == nil && c.policyRefuses(a)
	c.h.mu.RUnlock()
	if err != nil {
		return err
	}
	if refused {
		return &apiError{
			status: http.StatusPreconditionFailed, code: "PROJECTPOLICYVIOLATION",
			message: "The image is not signed by cosign.",
		}
	}
	if a.content == nil && c.r.Method == http.MethodGet {
		return errNoContent(a.digest)
	}
	if err := acceptable(c.r.Header.Values("Accept"), a.manifestType); err != nil {
		return err
	}
	header := c.w.Header()
	header.Set("Content-Length", strconv.Itoa(a.length()))
	header.Set(contentTypeHeader, a.manifestType)
	header.Set(headerDigest, a.digest.String())
	header.Set(headerAPIVersion, registryVersion)
	header.Set("Etag", `"`+a.digest.String()+`"`)
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil // A HEAD is no pull.
	}
	c.write(a.content)
	c.recordPull(a, reference)
	return nil
}

// errNoContent refuses to serve a digest that was invented: see Synthesize.
func errNoContent(d digest.Digest) error {
	return &apiError{
		status: http.StatusNotFound, code: "MANIFEST_UNKNOWN", message: "synthetic content has no manifest", detail: d,
	}
}

// acceptable refuses a manifest type that the client did not name. Wildcards do not count.
func acceptable(accept []string, mediaType string) error {
	what, plural := "manifest", "manifests"
	switch mediaType {
	case typeOCIManifest:
	case typeOCIIndex:
		what, plural = "index", "indexes"
	default:
		return nil // Docker's own types are served to everybody.
	}
	for _, line := range accept {
		for item := range strings.SplitSeq(line, ",") {
			if got, _, err := mime.ParseMediaType(strings.TrimSpace(item)); err == nil && got == mediaType {
				return nil
			}
		}
	}
	return &apiError{
		status: http.StatusNotFound, code: "MANIFEST_UNKNOWN",
		message: fmt.Sprintf("OCI %s found, but accept header does not support OCI %s", what, plural),
	}
}

func (c *call) recordPull(a *artifact, reference string) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	now := storedNow()
	a.pulled = now
	a.repo.pulls++
	a.repo.updated = now
	if t := a.repo.tags[reference]; t != nil {
		t.pulled = now
	}
	c.audit("pull", "artifact", nameOf(a.repo.name, reference), "pull artifact: "+a.repo.name+"@"+a.digest.String(),
		a.repo.project)
}

// nameOf joins a repository and a tag or digest.
func nameOf(repo, reference string) string {
	if strings.Contains(reference, ":") {
		return repo + "@" + reference
	}
	return repo + ":" + reference
}

func (c *call) putManifest(repo, reference string) error {
	if err := c.refuseProxyPush(repo); err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(c.r.Body, maxManifest+1))
	if err != nil {
		return fmt.Errorf("reading the manifest: %w", err)
	}
	if len(body) > maxManifest {
		return errManifestInvalid("manifest is larger than 4 MiB")
	}
	m, err := parseManifest(c.r.Header.Get(contentTypeHeader), body)
	if err != nil {
		return err
	}
	d := digest.FromBytes(body)
	tagName := ""
	switch {
	case strings.Contains(reference, ":"):
		if reference != d.String() {
			return errDigestInvalid()
		}
	case validTag(reference):
		tagName = reference
	default:
		return &apiError{status: http.StatusBadRequest, code: "TAG_INVALID", message: "manifest tag did not match URI"}
	}
	projectName, _, _ := strings.Cut(repo, "/")
	c.h.lockQuotaRow(c.r.Context(), projectName)
	if err := c.commitManifest(repo, m, body, d, tagName); err != nil {
		return err
	}
	header := c.w.Header()
	header.Set("Location", "http://"+c.host()+"/v2/"+repo+"/manifests/"+d.String())
	header.Set(headerDigest, d.String())
	header.Set(headerAPIVersion, registryVersion)
	if m.Subject != nil {
		header.Set("OCI-Subject", m.Subject.Digest.String())
	}
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

// commitManifest checks what the manifest needs and stores it, in one step.
func (c *call) commitManifest(repo string, m *manifest, body []byte, d digest.Digest, tagName string) error {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	p, err := c.h.state.projectOf(repo)
	if err != nil {
		return err
	}
	r := c.h.state.repos[repo]
	if r != nil {
		if err := r.refuseImmutablePush(tagName); err != nil {
			return err
		}
	}
	if err := c.h.state.admit(p, p.quota.missing(m.parts(d, len(body)))); err != nil {
		return err
	}
	missing := func(d digest.Digest) error {
		return &apiError{
			status: http.StatusBadRequest, code: "MANIFEST_BLOB_UNKNOWN", message: "blob unknown to registry", detail: d,
		}
	}
	for _, blob := range m.blobs() {
		if !c.h.state.hasBlob(repo, blob.Digest) && len(blob.URLs) == 0 {
			return missing(blob.Digest)
		}
	}
	for _, ch := range m.Manifests {
		if r == nil || r.resolve(ch.Digest.String()) == nil {
			return missing(ch.Digest)
		}
	}
	c.store(c.h.state.ensureRepo(p, repo), m, body, d, tagName)
	return nil
}

// store adds an artifact to a repository, or finds it there, moves the tag, links it to its subject, and fires the
// webhooks: for the same PUT again, too. The caller holds Harbor.mu for writing and has checked that all parts exist.
func (c *call) store(r *repository, m *manifest, body []byte, d digest.Digest, tagName string) {
	s := c.h.state
	now := storedNow()
	r.own(d.String())
	r.own(tagName)
	for _, ch := range m.Manifests {
		r.own(ch.Digest.String())
	}
	a := r.artifacts[d]
	if a == nil {
		a = &artifact{
			id: s.next("artifact"), repo: r, digest: d, content: body, pushed: now, parents: make(map[*artifact]bool),
		}
		m.describe(a, s.blobs[m.Config.Digest])
		a.size = int64(len(body))
		for _, blob := range m.blobs() {
			a.size += blob.Size
		}
		for _, ch := range m.Manifests {
			childArtifact := r.artifacts[ch.Digest]
			childArtifact.parents[a] = true
			a.size += childArtifact.size
			a.children = append(a.children, child{artifact: childArtifact, platform: ch.Platform.view()})
		}
		a.parts = m.parts(d, len(body))
		r.project.quota.holdArtifact(a)
		r.artifacts[d] = a
		r.project.artifacts = append(r.project.artifacts, a)
	}
	r.updated = now
	if tagName != "" {
		s.attachTag(a, tagName)
	}
	if a.accessory == nil {
		s.attachAccessory(a, m, tagName)
	}
	reference := tagName
	if reference == "" {
		reference = d.String()
	}
	c.audit("create", "artifact", nameOf(r.name, reference), "push artifact: "+r.name+"@"+d.String(), r.project)
	c.firePush(a, reference)
}

func (p *platformJSON) view() *platform {
	if p == nil {
		return nil
	}
	return &platform{Architecture: p.Architecture, OS: p.OS, OSFeatures: p.OSFeatures, Variant: p.Variant}
}

// attachAccessory makes an artifact an accessory when it names a subject (which may come later), or when it is pushed
// to the cosign tag of a digest that is there.
func (s *state) attachAccessory(a *artifact, m *manifest, tagName string) {
	kind, subject := accessoryCosign, digest.Digest("")
	if m.Subject != nil {
		kind, subject = m.accessoryKind(s.release), m.Subject.Digest
	} else if signed, ok := m.legacySubject(tagName); ok && a.repo.resolve(signed.String()) != nil {
		subject = signed
	}
	if subject == "" {
		return
	}
	s.makeAccessory(a, kind, subject)
}

func (s *state) makeAccessory(a *artifact, kind string, subject digest.Digest) {
	a.accessory = &accessory{id: s.next("accessory"), kind: kind, subject: subject, created: storedNow()}
	a.repo.accessories[subject] = append(a.repo.accessories[subject], a)
}

// deleteManifest removes an artifact by digest. (By tag, the registry deletes the whole artifact, too.)
func (c *call) deleteManifest(repo, reference string) error {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	a, err := c.h.state.lookup(repo, reference)
	if err != nil {
		return err
	}
	if a.isSynthetic() {
		a.repo.own(a.digest.String())
		a = a.repo.resolve(a.digest.String())
	}
	if len(a.parents) > 0 {
		return &apiError{
			status: http.StatusPreconditionFailed, code: "VIOLATE_FOREIGN_KEY_CONSTRAINT",
			message: "the deleting artifact is referenced by others",
		}
	}
	if err := a.refuseImmutableDelete(); err != nil {
		return err
	}
	c.remove(a)
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// getReferrers lists what refers to a digest: all its accessories, which are manifests with that subject, and legacy
// cosign signatures, also those that their tag has left.
//
// SPEC: Harbor, src/server/registry/referrers.go: no digest and no repository is unknown, it has no referrers; the count
// is from before the filter; there are no pages.
func (c *call) getReferrers(repo, reference string) error {
	if c.r.Method != http.MethodGet {
		return errUnsupported()
	}
	subject, ok := validDigest(reference)
	if !ok {
		return errBadRequest("unsupported digest %s: %v", reference, subject.Validate())
	}
	only := c.r.URL.Query().Get("artifactType")
	out := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}{2, typeOCIIndex, []descriptor{}}
	c.h.mu.RLock()
	total := 0
	if r := c.h.state.repos[repo]; r != nil {
		accessories := r.accessoriesOf(subject)
		total = len(accessories)
		for _, a := range accessories {
			if only == "" || only == a.artifactType {
				out.Manifests = append(out.Manifests, descriptor{
					MediaType: a.manifestType, Digest: a.digest, Size: int64(a.length()), Annotations: a.annotations,
					ArtifactType: a.artifactType,
				})
			}
		}
	}
	c.h.mu.RUnlock()
	c.w.Header().Set("X-Total-Count", strconv.Itoa(total))
	if only != "" {
		c.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return c.jsonAs(http.StatusOK, typeOCIIndex, out)
}
