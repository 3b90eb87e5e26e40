package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	indexType = "application/vnd.oci.image.index.v1+json"

	// The limits of one listing. A page has at most [artifact.MaxManifest] bytes, as the specification lets registries
	// assume.
	maxReferrers      = 10_000
	maxReferrerPages  = 100
	maxReferrersBytes = 2 * artifact.MaxManifest
)

// Referrers lists the manifests that refer to a digest, in the registry's order and without repetition. Harbor lists what
// it calls accessories: also the manifest under a .sig tag, and those that the tag named before. None is only said when
// the registry said so; Harbor says it of a digest and of a repository that it does not have too. fault.Gone means that
// the registry says that it does not have the repository.
//
// At most 10,000 in 100 pages and 8 MiB are read: the fault is permanent and its reason TooLarge beyond that.
//
// SPEC: OCI distribution specification, "Listing Referrers": an image index; a Link header with rel="next" leads on.
func (c *Client) Referrers(ctx context.Context, repository, digest string) ([]artifact.Descriptor, error) {
	if err := validate(repository, digest); err != nil {
		return nil, err
	}
	var listed []artifact.Descriptor
	seen := make(map[string]bool)
	u, left := c.address(repository, "/referrers/", digest), int64(maxReferrersBytes)
	for range maxReferrerPages {
		page := call{
			op: opReferrers, method: http.MethodGet, url: u, repository: repository,
			accept: indexType, want: http.StatusOK, limit: min(left, artifact.MaxManifest),
		}
		a, err := c.do(ctx, page)
		if err != nil {
			return nil, fmt.Errorf("listing referrers: %w", err)
		}
		descriptors, next, err := readReferrers(a)
		if err != nil {
			return nil, fault.Newf(fault.Transient, fault.BadAnswer, "listing referrers: %s: %w", page.what(), err)
		}
		for _, d := range descriptors {
			if !seen[d.Digest] {
				seen[d.Digest] = true
				listed = append(listed, d)
			}
		}
		if len(listed) > maxReferrers {
			return nil, tooManyReferrers(digest)
		}
		if next == "" {
			return listed, nil
		}
		u, left = follow(u, next), left-int64(len(a.body))
	}
	return nil, tooManyReferrers(digest)
}

func tooManyReferrers(digest string) error {
	return fault.Newf(fault.Permanent, fault.TooLarge, "listing referrers: more than %d manifests or %d pages refer to %s, which is the limit",
		maxReferrers, maxReferrerPages, digest)
}

// readReferrers reads one page and where the next one is; empty if this is the last. Its errors repeat nothing of it.
func readReferrers(a answer) ([]artifact.Descriptor, string, error) {
	// SPEC: "If the request is successful, the Content-Type header MUST be set to application/vnd.oci.image.index.v1+json":
	// what a proxy answers in the registry's place is told from "none" by that.
	if mediaType(a.header) != indexType {
		return nil, "", errors.New("the answer is no image index: it does not count as none")
	}
	var index struct {
		MediaType string                 `json:"mediaType"`
		Manifests *[]artifact.Descriptor `json:"manifests"`
	}
	switch err := json.Unmarshal(a.body, &index); {
	case err != nil:
		return nil, "", errors.New("the image index cannot be read")
	case index.MediaType != "" && index.MediaType != indexType, index.Manifests == nil:
		return nil, "", errors.New("the image index lists no manifests: that does not count as none")
	}
	for i, d := range *index.Manifests {
		if artifact.ValidateDigest(d.Digest) != nil || d.Size < 0 {
			return nil, "", fmt.Errorf("manifests[%d] has no digest or size that can be read", i)
		}
	}
	next, err := nextLink(a.header.Values("Link"))
	return *index.Manifests, next, err
}

// nextLink finds the target of the link with the relation "next"; empty if there is none. A link that cannot be read is an
// error, because it may have been that one.
//
// SPEC: RFC 8288, section 3: <target> and parameters, separated by semicolons; several links by commas.
func nextLink(values []string) (string, error) {
	for _, value := range values {
		for rest := strings.TrimLeft(value, " \t,"); rest != ""; rest = strings.TrimLeft(rest, " \t,") {
			target, tail, found := strings.Cut(strings.TrimPrefix(rest, "<"), ">")
			if !strings.HasPrefix(rest, "<") || !found || target == "" {
				return "", errors.New("the link to the next page cannot be read")
			}
			params := make(map[string]string)
			rest = readParams(strings.TrimLeft(tail, " \t"), params)
			// A relation may be one of several: "next last".
			for relation := range strings.FieldsSeq(params["rel"]) {
				if strings.EqualFold(relation, "next") {
					return target, nil
				}
			}
		}
	}
	return "", nil
}

// readParams reads ;name=value as often as it comes and gives what follows. The first of a name counts.
func readParams(s string, params map[string]string) (rest string) {
	for strings.HasPrefix(s, ";") {
		s = strings.TrimLeft(s[1:], " \t;")
		end := strings.IndexAny(s, "=;,")
		if end < 0 {
			return ""
		}
		name, value := strings.ToLower(strings.TrimSpace(s[:end])), ""
		if s = s[end:]; s[0] == '=' {
			value, s = parseValue(s[1:], ";,")
		}
		if _, ok := params[name]; !ok {
			params[name] = value
		}
		s = strings.TrimLeft(s, " \t")
	}
	return s
}

// follow gives the address of a page, or nil if it cannot be read.
func follow(from *url.URL, target string) *url.URL {
	u, err := from.Parse(target)
	if err != nil || u.User != nil {
		return nil
	}
	return u
}
