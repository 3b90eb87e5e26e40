package registry

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// manifestTypes are all types of manifests that a registry may hold. One that is not asked for is answered with 404.
const manifestTypes = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, " +
	"application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, " +
	"application/vnd.docker.distribution.manifest.v1+prettyjws, application/vnd.docker.distribution.manifest.v1+json"

// Manifest reads a manifest by its digest or tag. It has at most [artifact.MaxManifest] bytes and, when read by digest,
// hashes to it. fault.Gone means that the registry says that it does not have it.
func (c *Client) Manifest(ctx context.Context, repository, reference string) (artifact.Manifest, error) {
	u, err := c.manifestURL(repository, reference)
	if err != nil {
		return artifact.Manifest{}, err
	}
	a, err := c.do(ctx, call{
		op: opManifestGet, method: http.MethodGet, url: u, repository: repository,
		accept: manifestTypes, want: http.StatusOK, limit: artifact.MaxManifest,
	})
	if err != nil {
		return artifact.Manifest{}, err // it names the request; that there is no manifest is the most frequent answer of all
	}
	m := artifact.Manifest{MediaType: mediaType(a.header), Digest: artifact.DigestOf(a.body), Raw: a.body}
	want := reference
	if !isDigest(reference) {
		// Nothing but its type tells what a tag names from a page that a proxy answers in the registry's place.
		if !isManifestType(m.MediaType) {
			return artifact.Manifest{}, fault.Newf(fault.Transient, fault.BadAnswer, "reading a manifest: what came for the tag %s is none", reference)
		}
		want = cmp.Or(a.header.Get("Docker-Content-Digest"), m.Digest)
	}
	if m.Digest != want {
		return artifact.Manifest{}, mismatch("manifest", want, m.Digest)
	}
	return m, nil
}

// Blob reads a blob of at most limit bytes that hashes to its digest.
func (c *Client) Blob(ctx context.Context, repository, digest string, limit int64) ([]byte, error) {
	if err := validate(repository, digest); err != nil {
		return nil, err
	}
	a, err := c.do(ctx, call{
		op: opBlobGet, method: http.MethodGet, url: c.address(repository, "/blobs/", digest), repository: repository,
		want: http.StatusOK, limit: limit,
	})
	if err != nil {
		return nil, fmt.Errorf("reading a blob: %w", err)
	}
	if got := artifact.DigestOf(a.body); got != digest {
		return nil, mismatch("blob", digest, got)
	}
	return a.body, nil
}

// PushBlob uploads a blob. Uploading one that is there already changes nothing. A crash in between leaves at most an
// unfinished upload or a blob that nothing refers to; the registry removes both by itself.
//
// An upload in a single POST would save a request, but Harbor ignores the content of such a request without an error.
func (c *Client) PushBlob(ctx context.Context, repository string, b artifact.Blob) error {
	if err := validate(repository, b.Digest); err != nil {
		return err
	}
	if got := artifact.DigestOf(b.Raw); got != b.Digest {
		return fault.Newf(fault.Permanent, fault.DigestMismatch, "pushing a blob: it was to hash to %s, but hashes to %s", b.Digest, got)
	}
	start := call{
		op: opUploadStart, method: http.MethodPost, url: c.address(repository, "/blobs/", "uploads/"), repository: repository,
		want: http.StatusAccepted, limit: maxErrorBody,
	}
	a, err := c.do(ctx, start)
	if err != nil {
		return fmt.Errorf("starting to push a blob: %w", err)
	}
	finish := call{
		op: opUploadFinish, method: http.MethodPut, url: uploadURL(start.url, a.header.Get("Location"), b.Digest), repository: repository,
		contentType: "application/octet-stream", body: b.Raw, want: http.StatusCreated, limit: maxErrorBody,
	}
	if _, err := c.do(ctx, finish); err != nil {
		return fmt.Errorf("pushing a blob: %w", err)
	}
	return nil
}

// uploadURL is where the content of an upload goes, or nil if the location cannot be read. The location's query carries
// the registry's state and is kept.
//
// SPEC: OCI distribution specification, "POST then PUT": the location may be relative, and digest is added to its query.
func uploadURL(base *url.URL, location, digest string) *url.URL {
	if location == "" {
		return nil
	}
	u, err := base.Parse(location)
	if err != nil || u.User != nil {
		return nil
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += "digest=" + url.QueryEscape(digest)
	return u
}

// PutManifest stores a manifest under a tag or its own digest, replacing what the tag named before. Its blobs must be
// there: the fault's reason is BlobUnknown otherwise. Harbor reports every put, also of what is there already, to its
// webhooks.
func (c *Client) PutManifest(ctx context.Context, repository, reference string, m artifact.Manifest) error {
	u, err := c.manifestURL(repository, reference)
	if err != nil {
		return err
	}
	digest := artifact.DigestOf(m.Raw)
	if m.Digest != digest || isDigest(reference) && reference != digest {
		return fault.Newf(fault.Permanent, fault.DigestMismatch, "putting a manifest at %s: it names the digest %s, but hashes to %s",
			reference, m.Digest, digest)
	}
	a, err := c.do(ctx, call{
		op: opManifestPut, method: http.MethodPut, url: u, repository: repository,
		contentType: m.MediaType, body: m.Raw, want: http.StatusCreated, limit: maxErrorBody,
	})
	if err != nil {
		return fmt.Errorf("putting a manifest: %w", err)
	}
	if got := a.header.Get("Docker-Content-Digest"); got != "" && got != digest {
		return fault.Newf(fault.Transient, fault.BadAnswer, "putting a manifest: the registry stored something else than %s", digest)
	}
	return nil
}

// CheckPush asks the token service anew whether the account may pull from and push to a repository. The fault is Denied
// and says which right is missing, or Unauthorized if the account itself is refused.
func (c *Client) CheckPush(ctx context.Context, repository string) error {
	if err := artifact.ValidateRepository(repository); err != nil {
		return fault.New(fault.Permanent, fault.Malformed, err)
	}
	c.tokens.forget(repository)
	if _, err := c.tokens.get(ctx, repository); err != nil {
		return fmt.Errorf("checking the right to push: %w", err)
	}
	return nil
}

func (c *Client) manifestURL(repository, reference string) (*url.URL, error) {
	err := artifact.ValidateRepository(repository)
	if err == nil && isDigest(reference) {
		err = artifact.ValidateDigest(reference)
	} else if err == nil {
		err = artifact.ValidateTag(reference)
	}
	if err != nil {
		return nil, fault.New(fault.Permanent, fault.Malformed, err)
	}
	return c.address(repository, "/manifests/", reference), nil
}

// address is where a repository has something. Both names are valid, so that nothing in them needs an escape.
func (c *Client) address(repository, kind, reference string) *url.URL {
	return &url.URL{Scheme: c.base.Scheme, Host: c.base.Host, Path: "/v2/" + repository + kind + reference}
}

func validate(repository, digest string) error {
	if _, err := artifact.NewRef(repository, digest); err != nil {
		return fault.New(fault.Permanent, fault.Malformed, err)
	}
	return nil
}

// mismatch is transient: a page that a proxy answers in the registry's place passes.
func mismatch(what, want, got string) error {
	return fault.Newf(fault.Transient, fault.DigestMismatch, "reading a %s: asked for %s, the content hashes to %s", what, want, got)
}

func isDigest(reference string) bool { return strings.Contains(reference, ":") }

func isManifestType(mediaType string) bool {
	for known := range strings.SplitSeq(manifestTypes, ", ") {
		if known == mediaType {
			return true
		}
	}
	return false
}

// mediaType gives the content type without parameters.
func mediaType(header http.Header) string {
	value, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(value))
}
