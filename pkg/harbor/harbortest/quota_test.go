package harbortest_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// quotaOf is the quota of a project, and the path under which it is changed.
func (c *client) quotaOf(project string) (recordedQuota, string) {
	c.t.Helper()
	var all []recordedQuota
	c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/quotas?reference=project&page_size=100", nil).decode(c.t, &all)
	for _, q := range all {
		if q.Ref.Name == project {
			return q, fmt.Sprintf("/api/v2.0/quotas/%d", q.ID)
		}
	}
	c.t.Fatalf("quota of %s: not listed", project)
	return recordedQuota{}, ""
}

func (c *client) used(project string) int {
	c.t.Helper()
	q, _ := c.quotaOf(project)
	return q.Used.Storage
}

// limit sets the quota of a project to that much above what it uses.
func (c *client) limit(project string, room int) {
	c.t.Helper()
	q, path := c.quotaOf(project)
	c.want(http.StatusOK, admin(), http.MethodPut, path, map[string]any{"hard": map[string]int{"storage": q.Used.Storage + room}})
}

// TestQuotaCountsEachDigestOnce follows the usage of a project step by step.
func TestQuotaCountsEachDigestOnce(t *testing.T) {
	t.Parallel()
	s := newSignedImage(t)
	s.project("other", nil)
	layer := []byte(strings.Repeat("l", 1000))
	withLayer := func(repo string, n int) []byte {
		config := s.blob(repo, "application/vnd.oci.image.config.v1+json", []byte("{}"))
		return s.padded(map[string]any{
			"schemaVersion": 2, "mediaType": ociManifest, "config": config, "layers": []any{s.blob(repo, "", layer)},
		}, 600+n)
	}
	const repo, artifacts = "/api/v2.0/projects/demo/repositories/", "/artifacts/"
	remove := func(path string) func() {
		return func() { s.want(http.StatusOK, admin(), http.MethodDelete, repo+path, nil) }
	}
	bundle := s.referrer(bundleType, 1)
	total := s.used("demo")
	if total != len(s.imageIn("demo/app", 0))+len("{}") {
		t.Fatalf("one image: got %d bytes, want its manifest and its config", total)
	}
	for _, step := range []struct {
		name string
		do   func()
		adds int
	}{
		{"a blob", func() { s.blob("demo/app", "", layer) }, len(layer)},
		{"the same blob", func() { s.blob("demo/app", "", layer) }, 0},
		{"the same blob in another repository", func() { s.blob("demo/b", "", layer) }, 0},
		{"an image of blobs that are there", func() { s.put(admin(), "demo/app", "v2", ociManifest, withLayer("demo/app", 0)) }, 600},
		{"another tag on it", func() { s.put(admin(), "demo/app", "v3", ociManifest, withLayer("demo/app", 0)) }, 0},
		{"the same image in another repository", func() { s.put(admin(), "demo/b", "v2", ociManifest, withLayer("demo/b", 0)) }, 0},
		{"a second image", func() { s.put(admin(), "demo/b", "v3", ociManifest, withLayer("demo/b", 1)) }, 601},
		{"a signature", func() { s.attach(bundle) }, len(bundle)},
		{"a mount within the project", func() {
			s.want(http.StatusCreated, admin(), http.MethodPost, "/v2/demo/c/blobs/uploads/?from=demo/app&mount="+digestOf(layer), nil)
		}, 0},
		{"an image whose blobs others need", remove("app" + artifacts + "v2"), 0},
		{"a signature and its image", remove("app" + artifacts + s.subject), -400 - len(bundle)},
		{"the last image but one", remove("b" + artifacts + "v2"), -600},
		{"a whole repository", remove("b"), -601 - len(layer) - len("{}")},
	} {
		step.do()
		if total += step.adds; s.used("demo") != total {
			t.Fatalf("after %s: got %d bytes, want %d", step.name, s.used("demo"), total)
		}
	}
	s.want(http.StatusCreated, admin(), http.MethodPost, "/v2/other/c/blobs/uploads/?from=demo/c&mount="+digestOf(layer), nil)
	if got := s.used("other"); got != len(layer) {
		t.Errorf("after a mount from another project: got %d bytes, want %d", got, len(layer))
	}
}

// TestQuotaRefusals fills a project to the last byte and then tries to add one, in each way.
func TestQuotaRefusals(t *testing.T) {
	t.Parallel()
	s := newSignedImage(t)
	s.project("source", nil)
	blob, foreign := bytes.Repeat([]byte("b"), 2048), []byte("from elsewhere")
	s.blob("source/app", "", foreign)
	s.put(admin(), "source/app", "v1", ociManifest, s.imageIn("source/app", 5))
	signature := s.legacy(1)
	start := func() string {
		return s.want(http.StatusAccepted, admin(), http.MethodPost, "/v2/demo/app/blobs/uploads/", nil).header.Get("Location")
	}
	whole := start() + "&digest=" + digestOf(blob)
	chunked := s.want(http.StatusAccepted, admin(), http.MethodPatch, start(), blob).header.Get("Location")
	s.limit("demo", 10)
	used := s.used("demo")
	denied := func(size, used, limit string) string {
		return "403 DENIED adding " + size + " of storage resource, which when updated to current usage of " + used +
			" will exceed the configured upper limit of " + limit + "."
	}
	have, most := fmt.Sprintf("%.1f KiB", float64(used)/1024), fmt.Sprintf("%.1f KiB", float64(used+10)/1024)
	if used < 1024 {
		have = fmt.Sprintf("%d B", used)
	}
	if used+10 < 1024 {
		most = fmt.Sprintf("%d B", used+10)
	}
	for name, test := range map[string]struct {
		method, path string
		body         []byte
		size         string
	}{
		"a blob":           {http.MethodPut, whole, blob, "2.0 KiB"},
		"a blob in chunks": {http.MethodPut, chunked + "&digest=" + digestOf(blob), nil, "2.0 KiB"},
		"a wrong digest":   {http.MethodPut, start() + "&digest=" + digestOf(nil), blob, "2.0 KiB"},
		"a mount":          {http.MethodPost, "/v2/demo/app/blobs/uploads/?from=source/app&mount=" + digestOf(foreign), nil, fmt.Sprintf("%d B", len(foreign))},
		"a signature":      {http.MethodPut, "/v2/demo/app/manifests/" + s.tag, signature, fmt.Sprintf("%d B", len(signature))},
		// The project has the copy's config already.
		"a copy": {http.MethodPost, "/api/v2.0/projects/demo/repositories/copy/artifacts?from=source/app:v1", nil, "405 B"},
	} {
		got := s.do(admin(), test.method, test.path, test.body, "Content-Type", ociManifest)
		if said := refusal(t, got); said != denied(test.size, have, most) {
			t.Errorf("%s: got %q, want %q", name, said, denied(test.size, have, most))
		}
	}
	if got := s.used("demo"); got != used {
		t.Errorf("after refusals: got %d bytes, want %d", got, used)
	}
	s.want(http.StatusNotFound, admin(), http.MethodHead, "/v2/demo/app/manifests/"+s.tag, nil, "Accept", ociManifest)
	s.want(http.StatusNotFound, admin(), http.MethodHead, "/v2/demo/app/blobs/"+digestOf(blob), nil)
	s.put(admin(), "demo/app", "again", ociManifest, s.imageIn("demo/app", 0)) // What is there needs no room.
	s.blob("demo/app", "", []byte("ten bytes!"))
	if got := refusal(t, s.do(admin(), http.MethodPut, start()+"&digest="+digestOf([]byte("x")), []byte("x"))); !strings.HasPrefix(got, "403 DENIED adding 1 B ") {
		t.Errorf("one byte more than fits: got %q, want 403", got)
	}

	s.limit("demo", len(signature)+len(blob))
	s.put(admin(), "demo/app", s.tag, ociManifest, signature)
	// The uploads were kept, as they were before the refusal.
	s.want(http.StatusCreated, admin(), http.MethodPut, whole, blob)
	s.want(http.StatusCreated, admin(), http.MethodPut, chunked+"&digest="+digestOf(blob), nil)
	s.limit("demo", -1)
	if got := s.tryPut("demo/app", "again", s.imageIn("demo/app", 0)).status; got != http.StatusCreated {
		t.Errorf("pushing what is there above the limit: got %d, want 201", got)
	}
	s.want(http.StatusOK, admin(), http.MethodPut, "/api/v2.0/configurations", map[string]any{"quota_per_project_enable": false})
	s.blob("demo/app", "", []byte("quotas are off"))
}

func TestQuotaAPI(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/projects", map[string]any{"project_name": "demo", "storage_limit": 5000})
	c.want(http.StatusBadRequest, admin(), http.MethodPost, "/api/v2.0/projects", map[string]any{"project_name": "minus", "storage_limit": -2})
	q, path := c.quotaOf("demo")
	if q.Hard.Storage != 5000 {
		t.Errorf("limit of a new project: got %d, want 5000", q.Hard.Storage)
	}
	var summary struct{ Quota recordedQuota }
	c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/projects/demo/summary", nil).decode(t, &summary)
	if got := summary.Quota.Hard.Storage; got != 5000 {
		t.Errorf("limit in the summary: got %d, want 5000", got)
	}
	for body, want := range map[string]int{
		`{"hard":{"storage":-1}}`: http.StatusOK, `{"hard":{"storage":1}}`: http.StatusOK, `{"hard":{}}`: http.StatusBadRequest,
		`{"hard":{"storage":0}}`: http.StatusBadRequest, `{"hard":{"storage":-2}}`: http.StatusBadRequest,
		`{"hard":{"count":5}}`: http.StatusBadRequest, `{}`: http.StatusBadRequest, `no`: http.StatusUnprocessableEntity,
	} {
		if got := c.do(admin(), http.MethodPut, path, body).status; got != want {
			t.Errorf("PUT %s: got %d, want %d", body, got, want)
		}
	}
	for query, want := range map[string]string{
		"": "2", "?reference=project": "2", "?reference=user": "0", "?reference_id=1": "1", "?reference_id=9": "0",
	} {
		if got := c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/quotas"+query, nil).header.Get("X-Total-Count"); got != want {
			t.Errorf("quotas%s: got %s, want %s", query, got, want)
		}
	}
	c.want(http.StatusNotFound, admin(), http.MethodGet, "/api/v2.0/quotas/99", nil)
	c.want(http.StatusUnprocessableEntity, admin(), http.MethodGet, "/api/v2.0/quotas/one", nil)
	limit := map[string]any{"hard": map[string]int{"storage": 7000}}
	for right, allowed := range map[string]string{"read": "read", "list": "list", "update": "update"} {
		robot := c.robot("quota-"+right, "system", "/", "quota:"+right)
		for tried, status := range map[string]int{
			"list":   c.do(robot, http.MethodGet, "/api/v2.0/quotas", nil).status,
			"read":   c.do(robot, http.MethodGet, path, nil).status,
			"update": c.do(robot, http.MethodPut, path, limit).status,
		} {
			want := http.StatusForbidden
			if tried == allowed {
				want = http.StatusOK
			}
			if status != want {
				t.Errorf("robot with quota:%s, %s: got %d, want %d", right, tried, status, want)
			}
		}
	}
}

// TestQuotaUsageIsWhatIsThere pushes and deletes at random: what a project uses is the size of the distinct manifests
// and configs of the artifacts that are left, whatever came before.
func TestQuotaUsageIsWhatIsThere(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		project := fmt.Sprintf("p%d", run)
		s.project(project, nil)
		left := make(map[[2]string]int) // Repository and manifest, to the number of its config.
		manifests := make(map[string]int)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			repo := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "repository")
			config := rapid.IntRange(1, 3).Draw(rt, "config")
			blob := s.blob(project+"/"+repo, "application/vnd.oci.image.config.v1+json", bytes.Repeat([]byte(" "), config))
			body := s.padded(map[string]any{
				"schemaVersion": 2, "mediaType": ociManifest, "config": blob, "layers": []any{},
			}, 400+rapid.IntRange(0, 2).Draw(rt, "manifest"))
			s.put(admin(), project+"/"+repo, digestOf(body), ociManifest, body)
			manifests[digestOf(body)] = len(body)
			left[[2]string{repo, digestOf(body)}] = config
			if !rapid.Bool().Draw(rt, "delete") {
				continue
			}
			s.want(http.StatusOK, admin(), http.MethodDelete,
				"/api/v2.0/projects/"+project+"/repositories/"+repo+"/artifacts/"+digestOf(body), nil)
			delete(left, [2]string{repo, digestOf(body)})
		}
		distinct := make(map[any]int)
		for key, config := range left {
			distinct[key[1]], distinct[config] = manifests[key[1]], config
		}
		want := 0
		for _, size := range distinct {
			want += size
		}
		var found struct {
			Quota recordedQuota
		}
		s.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/projects/"+project+"/summary", nil).decode(t, &found)
		if got := found.Quota.Used.Storage; got != want {
			rt.Fatalf("used: got %d, want %d", got, want)
		}
	})
}
