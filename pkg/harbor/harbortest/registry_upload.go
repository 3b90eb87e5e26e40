package harbortest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// upload is a blob on its way.
type upload struct {
	repo string

	mu   sync.Mutex
	data bytes.Buffer // Guarded by mu.
}

func errBlobUnknown(d string) error {
	return &apiError{
		status: http.StatusNotFound, code: "BLOB_UNKNOWN", message: "blob unknown to registry", detail: d,
	}
}

func (c *call) serveBlob(repo, reference string) error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return errUnsupported()
	}
	d, ok := validDigest(reference)
	if !ok {
		return errDigestInvalid()
	}
	c.h.mu.RLock()
	found := c.h.state.hasBlob(repo, d)
	data := c.h.state.blobs[d]
	c.h.mu.RUnlock()
	if !found {
		return errBlobUnknown(reference)
	}
	header := c.w.Header()
	header.Set("Content-Length", strconv.Itoa(len(data)))
	header.Set(contentTypeHeader, "application/octet-stream")
	header.Set(headerDigest, d.String())
	header.Set(headerAPIVersion, registryVersion)
	header.Set("Etag", `"`+d.String()+`"`)
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodGet {
		c.write(data)
	}
	return nil
}

// startUpload opens an upload, or mounts a blob of another repository.
//
// SPEC: distribution, POST /v2/<name>/blobs/uploads/: the digest parameter and the body of a single-request upload are
// ignored, the blob stays absent.
func (c *call) startUpload(repo string) error {
	if c.r.Method != http.MethodPost {
		return errUnsupported()
	}
	if err := c.refuseProxyPush(repo); err != nil {
		return err
	}
	if d, ok := validDigest(c.r.URL.Query().Get("mount")); ok {
		mounted, err := c.mountBlob(repo, c.r.URL.Query().Get("from"), d)
		if err != nil {
			return err
		}
		if mounted {
			c.blobCreated(repo, d)
			return nil
		}
	}
	id := newUUID()
	c.h.mu.Lock()
	_, err := c.h.state.projectOf(repo)
	if err == nil {
		c.h.state.uploads[id] = &upload{repo: repo}
	}
	c.h.mu.Unlock()
	if err != nil {
		return err
	}
	c.uploadProgress(repo, id, 0)
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// mountBlob links a blob that another repository has, and reports whether that one has it. (Whether the caller may pull
// there was asked before: authorizeRegistry.)
//
// SPEC: Harbor, src/server/middleware/quota: a mount asks for the space of any blob that Harbor knows and the project
// does not hold, before it is known whether the mount will succeed.
func (c *call) mountBlob(repo, from string, d digest.Digest) (bool, error) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	s := c.h.state
	p, err := s.projectOf(repo)
	if err != nil {
		return false, err
	}
	blob := part{digest: d, size: int64(len(s.blobs[d]))}
	if err := s.admit(p, p.quota.missing([]part{blob})); err != nil {
		return false, err
	}
	if !s.hasBlob(from, d) {
		return false, nil
	}
	s.linkBlob(repo, d)
	p.quota.hold(blob)
	return true, nil
}

func (c *call) blobCreated(repo string, d digest.Digest) {
	header := c.w.Header()
	header.Set("Location", "http://"+c.host()+"/v2/"+repo+"/blobs/"+d.String())
	header.Set(headerDigest, d.String())
	header.Set(headerAPIVersion, registryVersion)
	c.w.WriteHeader(http.StatusCreated)
}

// uploadProgress sets the headers that say where an upload goes on, and how far it is.
func (c *call) uploadProgress(repo, id string, size int) {
	header := c.w.Header()
	header.Set("Location", fmt.Sprintf("http://%s/v2/%s/blobs/uploads/%s?_state=%s", c.host(), repo, id, newSecret(24)))
	header.Set("Docker-Upload-Uuid", id)
	header.Set(headerAPIVersion, registryVersion)
	header.Set("Range", fmt.Sprintf("0-%d", max(size-1, 0)))
}

func (c *call) serveUpload(repo, id string) error {
	c.h.mu.RLock()
	u := c.h.state.uploads[id]
	c.h.mu.RUnlock()
	if u == nil || u.repo != repo {
		return &apiError{
			status: http.StatusNotFound, code: "BLOB_UPLOAD_UNKNOWN", message: "blob upload unknown to registry",
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		c.uploadProgress(repo, id, u.data.Len())
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodDelete:
		c.endUpload(id)
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodPatch:
		if err := c.appendTo(u); err != nil {
			return err
		}
		c.uploadProgress(repo, id, u.data.Len())
		c.w.WriteHeader(http.StatusAccepted)
		return nil
	case http.MethodPut:
		return c.finishUpload(repo, id, u)
	default:
		return errUnsupported()
	}
}

// appendTo takes a chunk, which must start where the last one ended. The caller holds u.mu.
func (c *call) appendTo(u *upload) error {
	if raw := c.r.Header.Get("Content-Range"); raw != "" {
		start, _, _ := strings.Cut(raw, "-")
		if at, err := strconv.Atoi(start); err != nil || at != u.data.Len() {
			return &apiError{
				status: http.StatusRequestedRangeNotSatisfiable, code: "BLOB_UPLOAD_INVALID", message: "blob upload invalid",
			}
		}
	}
	if _, err := io.Copy(&u.data, c.r.Body); err != nil {
		return fmt.Errorf("reading the blob: %w", err)
	}
	return nil
}

// finishUpload takes the last chunk and checks the digest. The caller holds u.mu.
func (c *call) finishUpload(repo, id string, u *upload) error {
	want, ok := validDigest(c.r.URL.Query().Get("digest"))
	if !ok {
		return errDigestInvalid()
	}
	before := u.data.Len()
	if err := c.appendTo(u); err != nil {
		return err
	}
	data := u.data.Bytes()
	fits := want.Algorithm().FromBytes(data) == want
	if err := c.commitBlob(repo, id, want, data, fits); err != nil {
		u.data.Truncate(before) // The registry behind the quota never saw this chunk.
		return err
	}
	if !fits {
		return errDigestInvalid()
	}
	c.blobCreated(repo, want)
	return nil
}

// commitBlob ends an upload, and keeps its content if that fits its digest. The quota is asked first, as in Harbor; what
// it refuses can be sent again.
func (c *call) commitBlob(repo, id string, d digest.Digest, data []byte, fits bool) error {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	s := c.h.state
	p, err := s.projectOf(repo)
	if err != nil {
		return err
	}
	blob := part{digest: d, size: int64(len(data))}
	if err := s.admit(p, p.quota.missing([]part{blob})); err != nil {
		return err
	}
	delete(s.uploads, id)
	if !fits {
		return nil
	}
	if _, ok := s.blobs[d]; !ok {
		s.blobs[d] = bytes.Clone(data)
	}
	s.linkBlob(repo, d)
	p.quota.hold(blob)
	return nil
}

func (c *call) endUpload(id string) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	delete(c.h.state.uploads, id)
}
