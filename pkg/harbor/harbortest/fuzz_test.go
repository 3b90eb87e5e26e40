package harbortest_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// FuzzRequests sends what clients may send; no answer may be a 500, and none may be missing.
func FuzzRequests(f *testing.F) {
	for _, seed := range []struct{ method, path, query, body string }{
		{"GET", "/api/v2.0/projects/library/artifacts", "q=base%3D*%2Cpush_time%3D%5Ba~b%5D&sort=-push_time", ""},
		{"GET", "/api/v2.0/projects/library/repositories/a%252Fb/artifacts/sha256:00", "page=1&page_size=3", ""},
		{"POST", "/api/v2.0/projects/library/webhook/policies", "", `{"name":"x","targets":[{"address":"::"}],"event_types":["PUSH_ARTIFACT"]}`},
		{"POST", "/api/v2.0/robots", "", `{"level":"project","permissions":[{}]}`},
		{"PUT", "/v2/library/app/manifests/v1", "", `{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}`},
		{"POST", "/v2/library/app/blobs/uploads/", "mount=sha256:00&from=library/b", ""},
		{"GET", "/v2/library/app/tags/list", "n=0&last=v1", ""},
		{"GET", "/v2/library/app/referrers/sha256:00", "artifactType=x", ""},
		{"POST", "/api/v2.0/projects/library/immutabletagrules", "", `{"tag_selectors":[{"decoration":"matches","pattern":"[{*"}],"scope_selectors":{"repository":[{"decoration":"repoMatches","pattern":"{a,**"}]}}`},
		{"PUT", "/api/v2.0/projects/library/immutabletagrules/1", "", `{"id":1,"disabled":true}`},
		{"PUT", "/api/v2.0/quotas/1", "", `{"hard":{"storage":10}}`},
		{"GET", "/service/token", "service=harbor-registry&scope=repository:library/app:pull,push", ""},
	} {
		f.Add(seed.method, seed.path, seed.query, seed.body)
	}
	h := harbortest.New(f, harbortest.Config{DeliveryDelayScale: 0.001, RetryScale: 0.0001, Seed: 1})
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		c := newClient(t, h)
		target := (&url.URL{Path: path, RawQuery: query}).String()
		_, err := http.NewRequestWithContext(t.Context(), method, h.URL()+target, nil)
		if err != nil || !strings.HasPrefix(target, "/") || method == http.MethodConnect {
			t.Skip("no request that a client could send")
		}
		got := c.do(admin(), method, target, body, "Content-Type", "application/vnd.oci.image.index.v1+json")
		if got.status >= http.StatusInternalServerError {
			t.Errorf("%s %s: got %d %s", method, target, got.status, got.body)
		}
	})
}
