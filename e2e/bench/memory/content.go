package memory

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// repository is one repository's content.
type repository struct {
	mu        sync.RWMutex
	blobs     map[string][]byte       // guarded by mu; by digest
	manifests map[string]*manifest    // guarded by mu; by digest
	tags      map[string]*manifest    // guarded by mu
	uploads   map[string][]byte       // guarded by mu; what PATCH has brought, by id
	referrers map[string][]descriptor // guarded by mu; by subject
	lastID    uint64                  // guarded by mu
}

type manifest struct {
	mediaType, digest string
	raw               []byte
}

type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// document is what the registry reads of a manifest or an index.
type document struct {
	ArtifactType string            `json:"artifactType"`
	Config       *descriptor       `json:"config"`
	Layers       []descriptor      `json:"layers"`
	Manifests    []descriptor      `json:"manifests"`
	Subject      *descriptor       `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
}

func newRepository() *repository {
	return &repository{
		blobs: make(map[string][]byte), manifests: make(map[string]*manifest), tags: make(map[string]*manifest),
		uploads: make(map[string][]byte), referrers: make(map[string][]descriptor),
	}
}

func (r *Registry) manifest(w http.ResponseWriter, req *http.Request, t target) {
	switch req.Method {
	case http.MethodGet, http.MethodHead:
		repo := r.repository(t.repository, false)
		var found *manifest
		if repo != nil {
			found = repo.find(t.reference)
		}
		if found == nil {
			fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
			return
		}
		serve(w, req, found.mediaType, found.digest, found.raw)
	case http.MethodPut:
		raw, ok := readBody(w, req)
		if !ok {
			return
		}
		r.repository(t.repository, true).put(w, t, req.Header.Get("Content-Type"), raw)
	default:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "unsupported")
	}
}

func (r *repository) find(reference string) *manifest {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if strings.Contains(reference, ":") {
		return r.manifests[reference]
	}
	return r.tags[reference]
}

func (r *repository) put(w http.ResponseWriter, t target, mediaType string, raw []byte) {
	m := &manifest{mediaType: mediaType, digest: digestOf(raw), raw: raw}
	byDigest := strings.Contains(t.reference, ":")
	var d document
	switch err := json.Unmarshal(raw, &d); {
	case err != nil || mediaType == "" || d.Config == nil && d.Manifests == nil:
		fail(w, http.StatusBadRequest, "MANIFEST_INVALID", "this is no manifest")
		return
	case byDigest && t.reference != m.digest:
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if missing := r.missing(d); missing != "" {
		fail(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry: "+missing)
		return
	}
	if d.Subject != nil {
		w.Header().Set("Oci-Subject", d.Subject.Digest)
		if r.manifests[m.digest] == nil {
			r.referrers[d.Subject.Digest] = append(r.referrers[d.Subject.Digest], m.refers(d))
		}
	}
	r.manifests[m.digest] = m
	if !byDigest {
		r.tags[t.reference] = m
	}
	w.Header().Set("Location", "/v2/"+t.repository+"/manifests/"+m.digest)
	w.Header().Set("Docker-Content-Digest", m.digest)
	w.WriteHeader(http.StatusCreated)
}

// missing gives a digest that the document names and the repository lacks. It is called with mu held.
func (r *repository) missing(d document) string {
	if d.Config != nil && r.blobs[d.Config.Digest] == nil {
		return d.Config.Digest
	}
	for _, layer := range d.Layers {
		if r.blobs[layer.Digest] == nil {
			return layer.Digest
		}
	}
	for _, child := range d.Manifests {
		if r.manifests[child.Digest] == nil {
			return child.Digest
		}
	}
	return ""
}

// refers is how the referrers API lists a manifest.
//
// SPEC: OCI distribution specification, "Listing Referrers": artifactType is the manifest's own, else its config's type.
func (m *manifest) refers(d document) descriptor {
	listed := descriptor{
		MediaType: m.mediaType, Digest: m.digest, Size: int64(len(m.raw)), ArtifactType: d.ArtifactType, Annotations: d.Annotations,
	}
	if listed.ArtifactType == "" && d.Config != nil {
		listed.ArtifactType = d.Config.MediaType
	}
	return listed
}

func (r *Registry) referrers(w http.ResponseWriter, req *http.Request, t target) {
	if req.Method != http.MethodGet {
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "unsupported")
		return
	}
	const indexType = "application/vnd.oci.image.index.v1+json"
	index := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}{SchemaVersion: 2, MediaType: indexType, Manifests: []descriptor{}}
	wanted := req.URL.Query().Get("artifactType")
	if repo := r.repository(t.repository, false); repo != nil {
		repo.mu.RLock()
		for _, listed := range repo.referrers[t.reference] {
			if wanted == "" || listed.ArtifactType == wanted {
				index.Manifests = append(index.Manifests, listed)
			}
		}
		repo.mu.RUnlock()
	}
	raw, err := json.Marshal(index)
	if err != nil {
		fail(w, http.StatusInternalServerError, "UNKNOWN", "the list cannot be written")
		return
	}
	if wanted != "" {
		w.Header().Set("Oci-Filters-Applied", "artifactType")
	}
	serve(w, req, indexType, "", raw)
}

// serve answers with content.
func serve(w http.ResponseWriter, req *http.Request, mediaType, digest string, raw []byte) {
	header := w.Header()
	header.Set("Content-Type", mediaType)
	header.Set("Content-Length", strconv.Itoa(len(raw)))
	if digest != "" {
		header.Set("Docker-Content-Digest", digest)
	}
	w.WriteHeader(http.StatusOK)
	if req.Method != http.MethodHead {
		_, _ = w.Write(raw) // the client has gone
	}
}
