package memory

import (
	"net/http"
	"slices"
	"strconv"
)

func (r *Registry) blob(w http.ResponseWriter, req *http.Request, t target) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "unsupported")
		return
	}
	raw := r.stored(t.repository, t.reference)
	if raw == nil {
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	serve(w, req, "application/octet-stream", t.reference, raw)
}

// stored gives a blob, nil if the repository does not have it.
func (r *Registry) stored(repository, digest string) []byte {
	repo := r.repository(repository, false)
	if repo == nil {
		return nil
	}
	repo.mu.RLock()
	defer repo.mu.RUnlock()
	return repo.blobs[digest]
}

// upload takes blobs.
//
// SPEC: OCI distribution specification, "Pushing blobs": POST, then PUT with all of the content, or PATCH and a PUT
// without. As in distribution, a POST with ?digest= and content is taken for one without both.
func (r *Registry) upload(w http.ResponseWriter, req *http.Request, t target) {
	repo := r.repository(t.repository, true)
	if t.reference == "" {
		if req.Method != http.MethodPost {
			fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "unsupported")
			return
		}
		if r.mount(w, req, repo, t) {
			return
		}
		repo.mu.Lock()
		repo.lastID++
		id := strconv.FormatUint(repo.lastID, 10)
		repo.uploads[id] = nil
		repo.mu.Unlock()
		t.reference = id
		accepted(w, t, 0)
		return
	}
	content, ok := readBody(w, req)
	if !ok {
		return
	}
	repo.mu.Lock()
	before, known := repo.uploads[t.reference]
	repo.mu.Unlock()
	if !known {
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
		return
	}
	if len(before) > 0 {
		content = append(slices.Clip(before), content...)
	}
	switch req.Method {
	case http.MethodPatch:
		repo.mu.Lock()
		repo.uploads[t.reference] = content
		repo.mu.Unlock()
		accepted(w, t, len(content))
	case http.MethodPut:
		repo.finish(w, t, req.URL.Query().Get("digest"), content)
	default:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "unsupported")
	}
}

// finish ends an upload. One whose content hashes to something else stays open.
func (r *repository) finish(w http.ResponseWriter, t target, digest string, content []byte) {
	if digest != digestOf(content) {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
		return
	}
	r.mu.Lock()
	delete(r.uploads, t.reference)
	r.blobs[digest] = content
	r.mu.Unlock()
	created(w, t, digest)
}

// mount takes a blob over from another repository, if the request asks for that and the other one has it.
func (r *Registry) mount(w http.ResponseWriter, req *http.Request, repo *repository, t target) bool {
	if req.URL.RawQuery == "" {
		return false
	}
	query := req.URL.Query()
	digest := query.Get("mount")
	content := r.stored(query.Get("from"), digest)
	if content == nil {
		return false
	}
	repo.mu.Lock()
	repo.blobs[digest] = content
	repo.mu.Unlock()
	created(w, t, digest)
	return true
}

// accepted says where an upload goes on. The query stands for the state that distribution signs.
func accepted(w http.ResponseWriter, t target, size int) {
	header := w.Header()
	header.Set("Location", "/v2/"+t.repository+"/blobs/uploads/"+t.reference+"?_state="+t.reference)
	header.Set("Range", "0-"+strconv.Itoa(max(size-1, 0)))
	header.Set("Docker-Upload-Uuid", t.reference)
	w.WriteHeader(http.StatusAccepted)
}

func created(w http.ResponseWriter, t target, digest string) {
	w.Header().Set("Location", "/v2/"+t.repository+"/blobs/"+digest)
	w.Header().Set("Docker-Content-Digest", digest)
	w.WriteHeader(http.StatusCreated)
}
