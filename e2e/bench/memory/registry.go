// Package memory is an OCI registry that keeps everything in memory and does as little as it can, so that a benchmark
// measures its clients.
//
// It guarantees what clients meet in distribution and Harbor and what sloppier registries forgive:
//   - An upload is POST, optionally PATCH, and PUT. Content that comes with the POST (?digest=) is ignored: the answer is
//     202, and the blob is not there.
//   - The location of an upload is relative and carries a query.
//   - A manifest is refused (400 MANIFEST_BLOB_UNKNOWN) if the repository lacks a blob or manifest that it names.
//   - Blobs belong to a repository, and content is stored only if it hashes to the digest that the client names.
//   - The referrers API lists the manifests that name a subject.
//   - It counts requests by kind.
//
// It does not delete, list tags, redirect, serve ranges or keep anything on disk. A token's rights are those that were
// asked for. Its methods are safe for concurrent use.
package memory

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// maxContent bounds one request's body.
const maxContent = 64 << 20

// Registry is an http.Handler.
type Registry struct {
	counters counters
	tokens   *tokens // nil if everybody may do everything

	mu           sync.RWMutex
	repositories map[string]*repository // guarded by mu
}

// New makes an empty registry. With a username it asks for bearer tokens and has a token service at /service/token.
func New(username, secret string) *Registry {
	r := &Registry{repositories: make(map[string]*repository)}
	if username != "" {
		r.tokens = newTokens(username, secret)
	}
	return r
}

// Reset forgets all content, but no token and no count.
func (r *Registry) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repositories = make(map[string]*repository)
}

// Requests gives how many requests of each kind came so far; kinds without any are left out.
func (r *Registry) Requests() map[string]int64 { return r.counters.snapshot() }

// ServeHTTP serves the registry and its token service.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path, isRegistry := strings.CutPrefix(req.URL.Path, "/v2/")
	switch {
	case !isRegistry && req.URL.Path == tokenPath && r.tokens != nil:
		r.counters.add(kindToken)
		r.tokens.serve(w, req)
		return
	case !isRegistry:
		r.counters.add(kindOther)
		fail(w, http.StatusNotFound, "NOT_FOUND", "no such page")
		return
	}
	t := split(path)
	r.counters.add(t.kind(req.Method))
	if r.tokens != nil && !r.tokens.allow(req, t.repository) {
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s%s",service="registry"`, req.Host, tokenPath))
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "a token is needed")
		return
	}
	switch t.resource {
	case resourcePing:
		w.WriteHeader(http.StatusOK)
	case resourceManifest:
		r.manifest(w, req, t)
	case resourceBlob:
		r.blob(w, req, t)
	case resourceUpload:
		r.upload(w, req, t)
	case resourceReferrers:
		r.referrers(w, req, t)
	case resourceNone:
		fail(w, http.StatusNotFound, "NAME_INVALID", "no such path")
	}
}

// repository finds one, and makes it if create is set; nil if there is none.
func (r *Registry) repository(name string, create bool) *repository {
	r.mu.RLock()
	found := r.repositories[name]
	r.mu.RUnlock()
	if found != nil || !create {
		return found
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if found = r.repositories[name]; found == nil {
		found = newRepository()
		r.repositories[name] = found
	}
	return found
}

// fail answers with an error.
//
// SPEC: OCI distribution specification, "Error codes": {"errors":[{"code","message"}]}.
func fail(w http.ResponseWriter, status int, code, message string) {
	body, err := json.Marshal(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
	if err != nil {
		body = nil // strings can always be written
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has gone
}

// readBody reads all content of a request; false if it was refused.
func readBody(w http.ResponseWriter, req *http.Request) ([]byte, bool) {
	if req.ContentLength > maxContent {
		fail(w, http.StatusRequestEntityTooLarge, "SIZE_INVALID", "the content is too large")
		return nil, false
	}
	if req.ContentLength >= 0 {
		body := make([]byte, req.ContentLength)
		if _, err := io.ReadFull(req.Body, body); err != nil {
			return nil, false // the client has gone
		}
		return body, true
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxContent))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, "SIZE_INVALID", "the content is too large")
		return nil, false
	}
	return body, true
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}
