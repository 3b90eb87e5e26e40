package memory

import (
	"net/http"
	"strings"
	"sync/atomic"
)

// resource is what a path names.
type resource int

const (
	resourceNone resource = iota
	resourcePing
	resourceManifest
	resourceBlob
	resourceUpload
	resourceReferrers
)

// target is a path below /v2/, taken apart.
type target struct {
	resource   resource
	repository string
	// reference is a tag, a digest or the id of an upload; empty where a new upload starts.
	reference string
}

// split reads a path. The repository may have slashes, but what follows the last of these words has none.
func split(path string) target {
	if path == "" {
		return target{resource: resourcePing}
	}
	for _, known := range [...]struct {
		infix    string
		resource resource
	}{
		{"/manifests/", resourceManifest},
		{"/blobs/uploads/", resourceUpload},
		{"/blobs/", resourceBlob},
		{"/referrers/", resourceReferrers},
	} {
		at := strings.LastIndex(path, known.infix)
		if at <= 0 {
			continue
		}
		reference := path[at+len(known.infix):]
		if strings.Contains(reference, "/") || reference == "" && known.resource != resourceUpload {
			return target{}
		}
		return target{resource: known.resource, repository: path[:at], reference: reference}
	}
	return target{}
}

// kind is how a request is counted.
type kind int

const (
	kindOther kind = iota
	kindToken
	kindPing
	kindManifestHead
	kindManifestGet
	kindManifestPut
	kindBlobHead
	kindBlobGet
	kindUploadPost
	kindUploadPatch
	kindUploadPut
	kindReferrers
	kinds
)

// String is the kind's name in a report.
func (k kind) String() string {
	return [kinds]string{
		"other", "token", "ping", "manifest HEAD", "manifest GET", "manifest PUT", "blob HEAD", "blob GET",
		"upload POST", "upload PATCH", "upload PUT", "referrers GET",
	}[k]
}

func (t target) kind(method string) kind {
	switch {
	case t.resource == resourcePing:
		return kindPing
	case t.resource == resourceManifest && method == http.MethodHead:
		return kindManifestHead
	case t.resource == resourceManifest && method == http.MethodGet:
		return kindManifestGet
	case t.resource == resourceManifest && method == http.MethodPut:
		return kindManifestPut
	case t.resource == resourceBlob && method == http.MethodHead:
		return kindBlobHead
	case t.resource == resourceBlob && method == http.MethodGet:
		return kindBlobGet
	case t.resource == resourceUpload && method == http.MethodPost:
		return kindUploadPost
	case t.resource == resourceUpload && method == http.MethodPatch:
		return kindUploadPatch
	case t.resource == resourceUpload && method == http.MethodPut:
		return kindUploadPut
	case t.resource == resourceReferrers:
		return kindReferrers
	default:
		return kindOther
	}
}

// counters count requests. The zero value is ready.
type counters [kinds]atomic.Int64

func (c *counters) add(k kind) { c[k].Add(1) }

func (c *counters) snapshot() map[string]int64 {
	counted := make(map[string]int64)
	for k := range kinds {
		if n := c[k].Load(); n > 0 {
			counted[k.String()] = n
		}
	}
	return counted
}
