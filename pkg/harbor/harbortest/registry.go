package harbortest

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

type registryRoute string

const (
	routeBase      registryRoute = "base"
	routeCatalog   registryRoute = "catalog"
	routeManifest  registryRoute = "manifests"
	routeBlob      registryRoute = "blobs"
	routeUploads   registryRoute = "uploads" // Where uploads start.
	routeUpload    registryRoute = "upload"  // One upload.
	routeTags      registryRoute = "tags"
	routeReferrers registryRoute = "referrers"
	routeNone      registryRoute = ""
)

const (
	headerDigest      = "Docker-Content-Digest"
	headerAPIVersion  = "Docker-Distribution-Api-Version"
	registryVersion   = "registry/2.0"
	contentTypeHeader = "Content-Type"
)

// splitRegistryPath takes a path under /v2 apart: what it asks for, the repository, and the tag, digest or upload.
func splitRegistryPath(path string) (route registryRoute, repo, reference string) {
	rest := strings.TrimPrefix(strings.TrimPrefix(path, "/v2"), "/")
	if rest == "" {
		return routeBase, "", ""
	}
	if rest == "_catalog" {
		return routeCatalog, "", ""
	}
	if repo, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return routeTags, repo, ""
	}
	if repo, ok := strings.CutSuffix(strings.TrimSuffix(rest, "/"), "/blobs/uploads"); ok {
		return routeUploads, repo, ""
	}
	for _, part := range []struct {
		separator string
		route     registryRoute
	}{
		{"/blobs/uploads/", routeUpload},
		{"/manifests/", routeManifest},
		{"/blobs/", routeBlob},
		{"/referrers/", routeReferrers},
	} {
		if repo, reference, ok := cutLast(rest, part.separator); ok && !strings.Contains(reference, "/") {
			return part.route, repo, reference
		}
	}
	return routeNone, "", ""
}

func errManifestInvalid(detail string) error {
	return &apiError{
		status: http.StatusBadRequest, code: "MANIFEST_INVALID", message: "manifest invalid", detail: detail,
	}
}

func errDigestInvalid() error {
	return &apiError{
		status: http.StatusBadRequest, code: "DIGEST_INVALID", message: "provided digest did not match uploaded content",
	}
}

func errUnsupported() error {
	return &apiError{
		status: http.StatusMethodNotAllowed, code: "UNSUPPORTED", message: "The operation is unsupported.",
	}
}

// serveRegistry answers under /v2.
func (c *call) serveRegistry() {
	route, repo, reference := splitRegistryPath(c.r.URL.Path)
	if _, err := name.NewRepository("registry.invalid/" + repo); repo != "" && err != nil {
		route = routeNone // distribution's routes match valid names alone
	}
	if err := c.authorizeRegistry(route, repo); err != nil {
		c.fail(err)
		return
	}
	var err error
	switch route {
	case routeBase:
		c.w.Header().Set(headerAPIVersion, registryVersion)
		c.w.Header().Set(contentTypeHeader, "application/json; charset=utf-8")
		c.write([]byte("{}"))
	case routeCatalog:
		err = c.getCatalog()
	case routeManifest:
		err = c.serveManifest(repo, reference)
	case routeBlob:
		err = c.serveBlob(repo, reference)
	case routeUploads:
		err = c.startUpload(repo)
	case routeUpload:
		err = c.serveUpload(repo, reference)
	case routeTags:
		err = c.getTagsList(repo)
	case routeReferrers:
		err = c.getReferrers(repo, reference)
	case routeNone:
		err = errNotFound("path %s was not found", c.r.URL.Path)
	}
	if err != nil {
		c.fail(err)
	}
}

// repositoryAction is the right that a method needs.
func repositoryAction(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		return "pull"
	case http.MethodDelete:
		return "delete"
	default:
		return "push"
	}
}

// authorizeRegistry refuses with 401 and a challenge: the token service for callers without credentials, basic for
// those whose credentials do not suffice.
func (c *call) authorizeRegistry(route registryRoute, repo string) error {
	anonymous := c.r.Header.Get("Authorization") == ""
	refuse := func(scope, message string) error {
		challenge := `Basic realm="harbor"`
		if anonymous && route != routeCatalog {
			challenge = fmt.Sprintf(`Bearer realm="http://%s/service/token",service="%s"`, c.host(), tokenAudience)
			if scope != "" {
				challenge += fmt.Sprintf(`,scope="%s"`, scope)
			}
		}
		c.w.Header().Set("Www-Authenticate", challenge)
		c.w.Header().Set(headerAPIVersion, registryVersion)
		return &apiError{status: http.StatusUnauthorized, code: "UNAUTHORIZED", message: message + ": " + message}
	}
	switch route {
	case routeNone:
		return nil
	case routeBase:
		if !c.who.authenticated() {
			return refuse("", "unauthorized")
		}
		return nil
	case routeCatalog:
		if !c.mayListCatalog() {
			return refuse("registry:catalog:*", "unauthorized to list catalog")
		}
		return nil
	default:
	}
	type need struct{ repo, action string }
	needs := []need{{repo, repositoryAction(c.r.Method)}}
	if from := c.r.URL.Query().Get("from"); route == routeUploads && from != "" {
		needs = append(needs, need{from, "pull"})
	}
	for _, n := range needs {
		scope := fmt.Sprintf("repository:%s:%s", n.repo, scopeActions(n.action))
		if anonymous && n.action == "pull" {
			return refuse(scope, "authorize header needed to send HEAD to repository")
		}
		if !c.mayAccess(n.repo, n.action) {
			return refuse(scope, fmt.Sprintf("unauthorized to access repository: %s, action: %s", n.repo, n.action))
		}
	}
	return nil
}

// scopeActions is what a challenge proposes to ask for: a push pulls, too.
func scopeActions(action string) string {
	if action == "push" {
		return "pull,push"
	}
	return action
}

func (c *call) mayListCatalog() bool {
	c.h.mu.RLock()
	defer c.h.mu.RUnlock()
	if c.who.token != nil {
		return c.who.token.allows("registry", "catalog", "*")
	}
	return c.who.canSystem("catalog", "read")
}

func (c *call) mayAccess(repo, action string) bool {
	c.h.mu.RLock()
	defer c.h.mu.RUnlock()
	projectName, _, _ := strings.Cut(repo, "/")
	p := c.h.state.projects[projectName]
	return p != nil && c.who.canRepository(p, repo, action)
}

// host is the address that the client used.
func (c *call) host() string { return cmp.Or(c.r.Host, c.h.Host()) }

func (c *call) getCatalog() error {
	c.h.mu.RLock()
	names := make([]string, 0, len(c.h.state.repos))
	for name := range c.h.state.repos {
		names = append(names, name)
	}
	c.h.mu.RUnlock()
	slices.Sort(names)
	return c.registryList("/v2/_catalog", names, func(part []string) any { return map[string]any{"repositories": part} })
}

func (c *call) getTagsList(repo string) error {
	if c.r.Method != http.MethodGet {
		return errUnsupported()
	}
	c.h.mu.RLock()
	r := c.h.state.repos[repo]
	var names []string
	if r != nil {
		names = r.synthetic.tags()
		for name := range r.tags {
			names = append(names, name)
		}
	}
	c.h.mu.RUnlock()
	if r == nil {
		return errNotFound("repository %s not found", repo)
	}
	slices.Sort(names)
	return c.registryList("/v2/"+repo+"/tags/list", names, func(part []string) any {
		return struct {
			Name string   `json:"name"`
			Tags []string `json:"tags"`
		}{repo, part}
	})
}

// registryList answers a sorted list with the registry's own paging: n, last, and a Link to the next part.
func (c *call) registryList(path string, names []string, view func([]string) any) error {
	params := c.r.URL.Query()
	if last := params.Get("last"); last != "" {
		at, found := slices.BinarySearch(names, last)
		if found {
			at++
		}
		names = names[at:]
	}
	if raw := params.Get("n"); raw != "" {
		n, err := strconv.Atoi(raw)
		if err != nil || n < 0 {
			return &apiError{
				status: http.StatusBadRequest, code: "BAD_REQUEST", message: "the N must be a positive int type",
			}
		}
		if n < len(names) {
			names = names[:n]
			if n > 0 {
				c.w.Header().Set("Link", fmt.Sprintf(`<%s?last=%s&n=%d>; rel="next"`, path, url.QueryEscape(names[n-1]), n))
			}
		}
	}
	return c.json(http.StatusOK, view(names))
}
