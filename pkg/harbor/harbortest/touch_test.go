package harbortest_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

type auditLine struct {
	At          time.Time `json:"op_time"`
	Operation   string    `json:"operation"`
	Description string    `json:"operation_description"`
	Resource    string    `json:"resource"`
	User        string    `json:"username"`
}

func (c *client) feed(q string) []auditLine {
	c.t.Helper()
	var out []auditLine
	c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/auditlog-exts?page_size=100&sort=-op_time&q="+url.QueryEscape(q),
		nil).decode(c.t, &out)
	return out
}

const pushes = "operation=create,resource_type=artifact"

// TestTouchShowsEverywhere pushes and pulls, and finds it in the feed, in the listings and in the repositories.
func TestTouchShowsEverywhere(t *testing.T) {
	t.Parallel()
	c, _, _ := synthetic(t)
	since := time.Now().UTC().Add(-time.Minute).Truncate(time.Second)
	if got := c.feed(pushes); len(got) != 0 {
		t.Errorf("feed before: got %d pushes, want none", len(got))
	}
	var pushed []harbortest.SyntheticRef
	for range 2 {
		touched, err := c.h.Touch(harbortest.TouchConfig{Pushes: 20, Pulls: 0.5, Over: 10 * time.Second})
		if err != nil {
			t.Fatalf("Touch: %v", err)
		}
		if touched.Pulled != 4 || len(touched.Pushed) != 20 || touched.Projects < 1 || touched.Projects > 3 {
			t.Errorf("touched: got %+v, want 20 pushes and pulls from 4 of 7 repositories", touched)
		}
		pushed = append(pushed, touched.Pushed...)
	}
	feed := c.feed(pushes)
	if !slices.IsSortedFunc(feed, func(a, b auditLine) int { return b.At.Compare(a.At) }) {
		t.Error("feed: not newest first")
	}
	for i, ref := range pushed {
		line := feed[len(feed)-1-i]
		if want := "push artifact: " + ref.Repository + "@" + ref.Digest; line.Description != want {
			t.Errorf("feed: got %q, want %q", line.Description, want)
		}
		if !strings.HasPrefix(line.Resource, ref.Repository+":v1.") {
			t.Errorf("feed: got the resource %q, want a tag of %s", line.Resource, ref.Repository)
		}
		a := c.want(http.StatusOK, admin(), http.MethodGet, "/v2/"+ref.Repository+"/manifests/"+ref.Digest, nil,
			"Accept", allManifestTypes)
		if got := digestOf(a.body); got != ref.Digest {
			t.Errorf("manifest of %s: its digest is %s", ref.Digest, got)
		}
	}
	if got := len(c.feed("operation=pull")); got != 8+40 {
		t.Errorf("pulls in the log: got %d, want 4 twice, and the 40 of this test", got)
	}
	c.checkTouched(t, since, pushed)
}

// TestTouchMovesUpdateTimes pulls, then pushes, each alone, in content whose last push is still to come.
func TestTouchMovesUpdateTimes(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	cfg := someSynthetic()
	made, err := c.h.Synthesize(cfg)
	if err != nil {
		t.Fatalf("Synthesize: %v", err)
	}
	updated := func() (names []string) {
		for _, project := range made.Projects {
			var repos []struct{ Name string }
			q := url.QueryEscape("update_time=[" + cfg.Until.Format(time.DateTime) + "~]")
			c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/projects/"+project+"/repositories?page_size=100&q="+q, nil).
				decode(t, &repos)
			for _, r := range repos {
				names = append(names, r.Name)
			}
		}
		return names
	}
	if got := updated(); len(got) != 0 {
		t.Errorf("updated before: got %v, want none", got)
	}
	touched, err := c.h.Touch(harbortest.TouchConfig{Pushes: 1})
	if got := updated(); err != nil || len(got) != 1 || got[0] != touched.Pushed[0].Repository {
		t.Errorf("updated after a push (error %v): got %v, want %v", err, got, touched.Pushed)
	}
	if _, err := c.h.Touch(harbortest.TouchConfig{Pulls: 1}); err != nil {
		t.Errorf("Touch: %v", err)
	}
	if got := updated(); len(got) != 7 {
		t.Errorf("updated after pulls from everything: got %v, want all 7", got)
	}
}

// TestPushesFollowContentOfTheFuture keeps the order of push times when the clock is behind the content.
func TestPushesFollowContentOfTheFuture(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	cfg := someSynthetic()
	cfg.Until = time.Now().Add(time.Hour)
	if _, err := c.h.Synthesize(cfg); err != nil {
		t.Fatalf("Synthesize: %v", err)
	}
	touched, err := c.h.Touch(harbortest.TouchConfig{Pushes: 3})
	if err != nil {
		t.Fatalf("Touch: %v", err)
	}
	for _, ref := range touched.Pushed {
		project, _, _ := strings.Cut(ref.Repository, "/")
		listed := c.list(project, "q=base%3D*&sort=push_time")
		at := slices.Index(listedDigests(listed), ref.Digest)
		if at < len(listed)-3 {
			t.Errorf("%s: listed as number %d of %d, want it at the end", ref.Digest, at, len(listed))
		}
	}
}

// checkTouched finds the pushes by push time, and the repositories by update time.
func (c *client) checkTouched(t *testing.T, since time.Time, pushed []harbortest.SyntheticRef) {
	t.Helper()
	q := url.QueryEscape("base=*,push_time=[" + since.Format(time.DateTime) + "~]")
	var found []harbortest.SyntheticRef
	for _, project := range []string{"synthetic-0001", "synthetic-0002", "synthetic-0003"} {
		for _, a := range c.list(project, "sort=push_time&q="+q) {
			found = append(found, harbortest.SyntheticRef{Repository: a.Repository, Digest: a.Digest})
		}
	}
	if len(found) != len(pushed) {
		t.Errorf("found by push time: got %d, want %d", len(found), len(pushed))
	}
	for _, ref := range pushed {
		if !slices.Contains(found, ref) {
			t.Errorf("%v: not found by push time", ref)
		}
		updated := url.QueryEscape("update_time=[" + since.Format(time.DateTime) + "~]")
		project, _, _ := strings.Cut(ref.Repository, "/")
		var repos []struct{ Name string }
		c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/projects/"+project+"/repositories?page_size=100&q="+updated,
			nil).decode(t, &repos)
		if !slices.Contains(repos, struct{ Name string }{ref.Repository}) {
			t.Errorf("%s: not found by update time among %v", ref.Repository, repos)
		}
	}
}

// TestSyntheticContentChanges signs, tags and deletes synthetic digests: they then behave as all others do.
func TestSyntheticContentChanges(t *testing.T) {
	t.Parallel()
	c, made, all := synthetic(t)
	s := &stage{client: c}
	ref := made.Unsigned[0]
	artifact := apiRepository(ref.Repository) + "/artifacts/"
	config := s.blob(ref.Repository, "application/vnd.oci.image.config.v1+json", []byte("{}"))
	layer := s.blob(ref.Repository, "application/vnd.dev.cosign.simplesigning.v1+json", []byte("payload"))
	signature := s.padded(map[string]any{
		"schemaVersion": 2, "mediaType": ociManifest, "config": config, "layers": []any{layer},
	}, 700)
	s.put(admin(), ref.Repository, strings.Replace(ref.Digest, ":", "-", 1)+".sig", ociManifest, signature)
	shown := s.show(artifact + ref.Digest + "?with_accessory=true")
	if len(shown.Accessories) != 1 || shown.Accessories[0].Digest != digestOf(signature) {
		t.Errorf("accessories after signing: got %+v, want the signature", shown.Accessories)
	}
	project, _, _ := strings.Cut(ref.Repository, "/")
	total := len(c.list(project, "q=base%3D*"))
	var index, single harbortest.SyntheticArtifact
	for _, a := range all {
		if strings.HasPrefix(a.Repository, project+"/") && a.Index {
			index = a
		}
		if strings.HasPrefix(a.Repository, project+"/") && !a.Index && !a.Child && len(a.Signatures) == 2 {
			single = a
		}
	}
	c.checkTagging(t, single)
	children := s.show(apiRepository(index.Repository) + "/artifacts/" + index.Digest).References
	at := apiRepository(index.Repository) + "/artifacts/"
	c.want(http.StatusPreconditionFailed, admin(), http.MethodDelete, at+children[0].Digest, nil)
	c.want(http.StatusOK, admin(), http.MethodDelete, at+index.Digest, nil)
	for _, digest := range []string{index.Digest, children[0].Digest, children[3].Digest} {
		c.want(http.StatusNotFound, admin(), http.MethodGet, at+digest, nil)
	}
	if got := len(c.list(project, "q=base%3D*")); got != total-5 {
		t.Errorf("artifacts after the deletion of an index with 4 children: got %d, want %d", got, total-5)
	}
	c.want(http.StatusOK, admin(), http.MethodDelete, apiRepository(single.Repository), nil)
	for _, a := range c.list(project, "q=base%3D*") {
		if a.Repository == single.Repository {
			t.Fatalf("%s is listed after its repository was deleted", a.Digest)
		}
	}
	if _, err := c.h.Touch(harbortest.TouchConfig{Pushes: 5, Pulls: 1}); err != nil {
		t.Errorf("Touch afterwards: %v", err)
	}
}

// checkTagging sets a second tag: nothing else changes.
func (c *client) checkTagging(t *testing.T, a harbortest.SyntheticArtifact) {
	t.Helper()
	s := &stage{client: c}
	path := apiRepository(a.Repository) + "/artifacts/" + a.Digest
	before := c.list(strings.SplitN(a.Repository, "/", 2)[0], "q=base%3D*&sort=-push_time")
	c.want(http.StatusCreated, admin(), http.MethodPost, path+"/tags", map[string]string{"name": "stable"})
	shown := s.show(path + "?with_accessory=true")
	if len(shown.Tags) != 2 || len(shown.Accessories) != 2 || shown.Accessories[0].Digest != a.Signatures[0] {
		t.Errorf("after a second tag: got %+v, want two tags and the same signatures", shown)
	}
	after := c.list(strings.SplitN(a.Repository, "/", 2)[0], "q=base%3D*&sort=-push_time")
	if !slices.Equal(listedDigests(before), listedDigests(after)) {
		t.Error("a second tag changed the order of the listing")
	}
	c.want(http.StatusOK, admin(), http.MethodDelete, path+"/tags/stable", nil)
}

// TestASyntheticTagMoves pushes something else to the tag of a synthetic digest.
func TestASyntheticTagMoves(t *testing.T) {
	t.Parallel()
	c, _, all := synthetic(t)
	s := &stage{client: c}
	for ref, a := range all {
		if a.Tag == "" {
			continue
		}
		config := s.blob(ref.Repository, "application/vnd.oci.image.config.v1+json", []byte("{}"))
		body := s.padded(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": config, "layers": []any{}}, 500)
		s.put(admin(), ref.Repository, a.Tag, ociManifest, body)
		at := apiRepository(ref.Repository) + "/artifacts/"
		if old := s.show(at + ref.Digest); len(old.Tags) != 0 {
			t.Errorf("%s: tags after its tag moved: got %v, want none", ref.Digest, old.Tags)
		}
		if got := s.show(at + a.Tag).Digest; got != digestOf(body) {
			t.Errorf("tag %s: got %s, want the new image", a.Tag, got)
		}
		return
	}
}

func TestAuditLogCanEnd(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	s.project("demo", nil)
	push := func(n int) {
		body := s.plain(n)
		s.put(admin(), "demo/app", digestOf(body), ociManifest, body)
	}
	push(0)
	if got := len(s.feed(pushes)); got != 1 {
		t.Fatalf("feed: got %d, want 1", got)
	}
	s.h.PurgeAudit()
	if got := len(s.feed(pushes)); got != 0 {
		t.Errorf("feed after a purge: got %d, want 0", got)
	}
	const name = "disabled_audit_log_event_types"
	s.want(http.StatusOK, admin(), http.MethodPut, "/api/v2.0/configurations", map[string]string{name: "pull_artifact,create_artifact"})
	push(1)
	if got := len(s.feed(pushes)); got != 0 {
		t.Errorf("feed with pushes disabled: got %d, want 0", got)
	}
	s.want(http.StatusOK, admin(), http.MethodPut, "/api/v2.0/configurations", map[string]string{name: ""})
	push(2)
	if got := len(s.feed(pushes)); got != 1 {
		t.Errorf("feed with pushes enabled again: got %d, want 1", got)
	}
}

// TestFeedRanges asks around the time of one entry: both ends are whole seconds and belong to the range.
func TestFeedRanges(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	s.project("demo", nil)
	body := s.plain(0)
	s.put(admin(), "demo/app", digestOf(body), ociManifest, body)
	at := s.feed(pushes)[0].At.Truncate(time.Second)
	for _, test := range []struct {
		from, to time.Duration
		want     int
	}{{0, time.Second, 1}, {-time.Hour, time.Hour, 1}, {time.Second, time.Hour, 0}, {-time.Hour, -time.Second, 0}} {
		q := pushes + ",op_time=[" + at.Add(test.from).Format(time.DateTime) + "~" + at.Add(test.to).Format(time.DateTime) + "]"
		if got := len(s.feed(q)); got != test.want {
			t.Errorf("%s: got %d, want %d", q, got, test.want)
		}
	}
}
