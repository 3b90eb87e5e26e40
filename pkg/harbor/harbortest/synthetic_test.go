package harbortest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

func someSynthetic() harbortest.SyntheticConfig {
	return harbortest.SyntheticConfig{
		Projects: 3, Repositories: 7, Digests: 600, Indexes: 0.1, Children: 4, Unsigned: 0.1, Twice: 0.3, Seed: 42,
		Until: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
	}
}

// synthetic starts an emulator with some content.
func synthetic(t *testing.T) (*client, harbortest.Synthetic, map[harbortest.SyntheticRef]harbortest.SyntheticArtifact) {
	t.Helper()
	c := newClient(t, fast(t))
	made, err := c.h.Synthesize(someSynthetic())
	if err != nil {
		t.Fatalf("Synthesize: %v", err)
	}
	all := make(map[harbortest.SyntheticRef]harbortest.SyntheticArtifact)
	for a := range c.h.SyntheticArtifacts() {
		all[a.SyntheticRef] = a
	}
	return c, made, all
}

type shownArtifact struct {
	recordedArtifact
	Pushed time.Time `json:"push_time"`
}

// pages lists everything under a path, page by page.
func (c *client) pages(path string) (out []shownArtifact, requests int) {
	c.t.Helper()
	for next := path; next != ""; requests++ {
		a := c.want(http.StatusOK, admin(), http.MethodGet, next, nil)
		var page []shownArtifact
		a.decode(c.t, &page)
		out = append(out, page...)
		next = linkTo(a.header.Get("Link"), "next")
	}
	return out, requests
}

func (c *client) list(project, query string) []shownArtifact {
	c.t.Helper()
	out, _ := c.pages("/api/v2.0/projects/" + project + "/artifacts?page_size=100&with_accessory=true&" + query)
	return out
}

// TestSyntheticListings compares what is listed with what was made.
func TestSyntheticListings(t *testing.T) {
	t.Parallel()
	c, made, all := synthetic(t)
	total, signatures, indexes, children, unsigned, requests := 0, 0, 0, 0, 0, 0
	for _, project := range made.Projects {
		listed, n := c.pages("/api/v2.0/projects/" + project +
			"/artifacts?page_size=100&with_accessory=true&with_tag=true&q=base%3D*&sort=push_time")
		requests += n
		var last time.Time
		for _, a := range listed {
			want, ok := all[harbortest.SyntheticRef{Repository: a.Repository, Digest: a.Digest}]
			if !ok {
				t.Fatalf("%s@%s is listed, but was not made", a.Repository, a.Digest)
			}
			checkSynthetic(t, a, want)
			if a.Pushed.Before(last) {
				t.Errorf("%s: pushed at %s, listed after %s", a.Digest, a.Pushed, last)
			}
			last = a.Pushed
			total++
			signatures += len(a.Accessories)
			children += count(want.Child)
			indexes += count(want.Index)
			unsigned += count(len(a.Accessories) == 0)
		}
		backwards := c.list(project, "q=base%3D*&sort=-push_time")
		slices.Reverse(backwards)
		if got, want := listedDigests(backwards), listedDigests(listed); !slices.Equal(got, want) {
			t.Errorf("%s: newest first is not oldest first reversed", project)
		}
		if got, want := len(c.list(project, "")), len(listed)-childrenIn(listed, all); got != want {
			t.Errorf("%s: default listing: got %d, want %d", project, got, want)
		}
		c.compareRepositories(t, project, listed)
		c.compareRange(t, project, listed, all)
	}
	if total != made.Digests || total != 600 || len(all) != 600 {
		t.Errorf("digests: listed %d, made %d, known %d, want 600", total, made.Digests, len(all))
	}
	if indexes != 60 || made.Indexes != 60 || children != 240 {
		t.Errorf("indexes and children: got %d and %d, want 60 and 240", indexes, children)
	}
	if unsigned != 60 || len(made.Unsigned) != 60 || signatures != made.Signatures || signatures <= 540 {
		t.Errorf("unsigned: listed %d, made %d, want 60; signatures: listed %d, made %d", unsigned, len(made.Unsigned),
			signatures, made.Signatures)
	}
	if requests != made.Requests {
		t.Errorf("listing requests: got %d, want %d", requests, made.Requests)
	}
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func listedDigests(list []shownArtifact) []string {
	out := make([]string, 0, len(list))
	for _, a := range list {
		out = append(out, a.Digest)
	}
	return out
}

func childrenIn(list []shownArtifact, all map[harbortest.SyntheticRef]harbortest.SyntheticArtifact) int {
	n := 0
	for _, a := range list {
		n += count(all[harbortest.SyntheticRef{Repository: a.Repository, Digest: a.Digest}].Child)
	}
	return n
}

func checkSynthetic(t *testing.T, got shownArtifact, want harbortest.SyntheticArtifact) {
	t.Helper()
	if until := someSynthetic().Until; got.Pushed.After(until) || got.Pushed.Before(until.AddDate(-1, 0, -1)) {
		t.Errorf("%s: pushed at %s, want in the year before %s", got.Digest, got.Pushed, until)
	}
	if !got.Pushed.Equal(want.Pushed.Truncate(time.Millisecond)) {
		t.Errorf("%s: pushed at %s, want %s", got.Digest, got.Pushed, want.Pushed)
	}
	var signatures []string
	for _, acc := range got.Accessories {
		signatures = append(signatures, acc.Digest)
	}
	if !slices.Equal(signatures, want.Signatures) {
		t.Errorf("%s: signatures: got %v, want %v", got.Digest, signatures, want.Signatures)
	}
	tag := ""
	if len(got.Tags) == 1 {
		tag = got.Tags[0].Name
	}
	if tag != want.Tag || (tag == "") != want.Child || (len(got.References) == 4) != want.Index {
		t.Errorf("%s: got tag %q and %d children, want %+v", got.Digest, tag, len(got.References), want)
	}
}

// compareRepositories lists repository by repository and expects what the project's listing shows.
func (c *client) compareRepositories(t *testing.T, project string, listed []shownArtifact) {
	t.Helper()
	var repos []struct {
		Name    string
		Count   int       `json:"artifact_count"`
		Updated time.Time `json:"update_time"`
	}
	c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/projects/"+project+"/repositories?page_size=100", nil).
		decode(t, &repos)
	for _, r := range repos {
		want := slices.DeleteFunc(slices.Clone(listed), func(a shownArtifact) bool { return a.Repository != r.Name })
		got, _ := c.pages(apiRepository(r.Name) + "/artifacts?page_size=100&q=base%3D*&sort=push_time")
		if !slices.Equal(listedDigests(got), listedDigests(want)) {
			t.Errorf("%s: got %d artifacts, want the %d of the project's listing", r.Name, len(got), len(want))
		}
		if last := want[len(want)-1].Pushed; !r.Updated.Equal(last) {
			t.Errorf("%s: updated at %s, want %s, its last push", r.Name, r.Updated, last)
		}
		top, _ := c.pages(apiRepository(r.Name) + "/artifacts?page_size=100")
		if r.Count != len(top) {
			t.Errorf("%s: artifact_count: got %d, want %d", r.Name, r.Count, len(top))
		}
	}
}

// compareRange asks for the middle of a project by push time.
func (c *client) compareRange(t *testing.T, project string, listed []shownArtifact,
	all map[harbortest.SyntheticRef]harbortest.SyntheticArtifact,
) {
	t.Helper()
	from, to := listed[len(listed)/3].Pushed.Truncate(time.Second), listed[len(listed)*2/3].Pushed.Truncate(time.Second)
	q := url.QueryEscape(fmt.Sprintf("base=*,push_time=[%s~%s]", from.Format(time.DateTime), to.Format(time.DateTime)))
	want := slices.DeleteFunc(slices.Clone(listed), func(a shownArtifact) bool {
		return a.Pushed.Before(from) || a.Pushed.After(to)
	})
	if got := c.list(project, "sort=push_time&q="+q); !slices.Equal(listedDigests(got), listedDigests(want)) {
		t.Errorf("%s: pushed between %s and %s: got %d, want %d", project, from, to, len(got), len(want))
	}
	q = strings.TrimPrefix(q, url.QueryEscape("base=*,"))
	if got := c.list(project, "q="+q); len(got) != len(want)-childrenIn(want, all) {
		t.Errorf("%s: the same without children: got %d, want %d", project, len(got), len(want)-childrenIn(want, all))
	}
}

// TestSyntheticManifests reads what a signer reads: manifests of unsigned digests, whose content has their digest, and
// what the signatures of the others look like from outside.
func TestSyntheticManifests(t *testing.T) {
	t.Parallel()
	c, made, all := synthetic(t)
	indexes := 0
	for _, ref := range made.Unsigned {
		a := c.want(http.StatusOK, admin(), http.MethodGet, "/v2/"+ref.Repository+"/manifests/"+ref.Digest, nil,
			"Accept", allManifestTypes)
		if got := digestOf(a.body); got != ref.Digest {
			t.Errorf("manifest of %s: its digest is %s", ref.Digest, got)
		}
		var m struct {
			Manifests []struct{ Digest string }
		}
		a.decode(t, &m)
		for _, child := range m.Manifests {
			if _, ok := all[harbortest.SyntheticRef{Repository: ref.Repository, Digest: child.Digest}]; !ok {
				t.Errorf("%s names the child %s, which does not exist", ref.Digest, child.Digest)
			}
		}
		indexes += count(len(m.Manifests) == 4)
	}
	if indexes == 0 {
		t.Error("no index is unsigned")
	}
	for ref, a := range all {
		if len(a.Signatures) == 0 {
			continue
		}
		manifests := "/v2/" + ref.Repository + "/manifests/"
		c.want(http.StatusOK, admin(), http.MethodHead, manifests+ref.Digest, nil, "Accept", allManifestTypes)
		c.want(http.StatusNotFound, admin(), http.MethodGet, manifests+ref.Digest, nil, "Accept", allManifestTypes)
		tag := strings.Replace(ref.Digest, ":", "-", 1) + ".sig"
		sig := c.want(http.StatusOK, admin(), http.MethodHead, manifests+tag, nil, "Accept", allManifestTypes)
		if got, want := sig.header.Get("Docker-Content-Digest"), a.Signatures[len(a.Signatures)-1]; got != want {
			t.Errorf("%s: got %s, want %s", tag, got, want)
		}
		if a.Tag != "" {
			head := c.want(http.StatusOK, admin(), http.MethodHead, manifests+a.Tag, nil, "Accept", allManifestTypes)
			if got := head.header.Get("Docker-Content-Digest"); got != ref.Digest {
				t.Errorf("tag %s: got %s, want %s", a.Tag, got, ref.Digest)
			}
		}
	}
}

func TestSyntheticContentIsRepeatable(t *testing.T) {
	t.Parallel()
	_, first, _ := synthetic(t)
	c, second, _ := synthetic(t)
	a, errA := json.Marshal(first)
	b, errB := json.Marshal(second)
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Errorf("the same configuration made different content:\n%.300s\n%.300s", a, b)
	}
	if _, err := c.h.Synthesize(someSynthetic()); err == nil {
		t.Error("Synthesize a second time: got no error")
	}
}

func TestSyntheticContentThatCannotBe(t *testing.T) {
	t.Parallel()
	h := fast(t)
	for name, change := range map[string]func(*harbortest.SyntheticConfig){
		"no projects":                 func(c *harbortest.SyntheticConfig) { c.Projects = 0 },
		"fewer repositories":          func(c *harbortest.SyntheticConfig) { c.Repositories = 2 },
		"no digests":                  func(c *harbortest.SyntheticConfig) { c.Digests = 0 },
		"a share above 1":             func(c *harbortest.SyntheticConfig) { c.Unsigned = 1.1 },
		"a share below 0":             func(c *harbortest.SyntheticConfig) { c.Twice = -0.1 },
		"too many children":           func(c *harbortest.SyntheticConfig) { c.Children = 9 },
		"indexes without children":    func(c *harbortest.SyntheticConfig) { c.Children = 0 },
		"more children than digests":  func(c *harbortest.SyntheticConfig) { c.Indexes = 0.3 },
		"a project that exists":       func(c *harbortest.SyntheticConfig) { c.Prefix = "taken" },
		"a history without any space": func(c *harbortest.SyntheticConfig) { c.History = time.Nanosecond },
	} {
		c := newClient(t, h)
		if name == "a project that exists" {
			c.project("taken-0001", nil)
		}
		cfg := someSynthetic()
		change(&cfg)
		if _, err := h.Synthesize(cfg); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if _, err := h.Touch(harbortest.TouchConfig{}); err == nil {
		t.Error("Touch without content: got no error")
	}
}

// TestSyntheticScale makes the content of the benchmark and looks at memory and at the counts.
func TestSyntheticScale(t *testing.T) {
	if testing.Short() {
		t.Skip("a million digests")
	}
	c := newClient(t, fast(t))
	before := heap()
	made, err := c.h.Synthesize(harbortest.SyntheticConfig{
		Projects: 500, Repositories: 20_000, Digests: 1_000_000, Indexes: 0.2, Children: 4, Unsigned: 0.001, Twice: 0.1, Seed: 1,
	})
	if err != nil {
		t.Fatalf("Synthesize: %v", err)
	}
	const most = 200 << 20
	if used := heap() - before; used > most {
		t.Errorf("heap: got %d bytes more, want at most %d", used, most)
	}
	if len(made.Projects) != 500 || made.Indexes != 200_000 || len(made.Unsigned) != 1000 || made.Requests < 10_000 {
		t.Errorf("made: got %d projects, %d indexes, %d unsigned, %d requests", len(made.Projects), made.Indexes,
			len(made.Unsigned), made.Requests)
	}
	total := 0
	for _, project := range made.Projects {
		var n int
		a := c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/projects/"+project+"/artifacts?page_size=1&q=base%3D*", nil)
		if _, err := fmt.Sscan(a.header.Get("X-Total-Count"), &n); err != nil {
			t.Fatalf("X-Total-Count of %s: %v", project, err)
		}
		total += n
	}
	if total != 1_000_000 {
		t.Errorf("digests in all projects: got %d, want 1000000", total)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // bytes of memory
}
