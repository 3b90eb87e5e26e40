package harbortest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// selector is one selector of a rule, as "matches v*".
func selector(text string) map[string]string {
	decoration, pattern, _ := strings.Cut(text, " ")
	return map[string]string{"kind": "doublestar", "decoration": decoration, "pattern": pattern}
}

func immutableRule(scope, tags string) map[string]any {
	return map[string]any{
		"action": "immutable", "template": "immutable_template",
		"scope_selectors": map[string]any{"repository": []any{selector(scope)}}, "tag_selectors": []any{selector(tags)},
	}
}

// addRule makes a rule in the project demo and returns its path.
func (c *client) addRule(rule map[string]any) string {
	c.t.Helper()
	return c.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/projects/demo/immutabletagrules", rule).
		header.Get("Location")
}

// imageIn is a small image manifest, the n-th of its kind, whose blobs are in the repository.
func (s *stage) imageIn(repo string, n int) []byte {
	s.t.Helper()
	config := s.blob(repo, "application/vnd.oci.image.config.v1+json", []byte("{}"))
	return s.padded(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": config, "layers": []any{}}, 400+n)
}

// tryPut pushes a manifest and returns the answer, whatever it is.
func (s *stage) tryPut(repo, reference string, body []byte) answer {
	s.t.Helper()
	return s.do(admin(), http.MethodPut, "/v2/"+repo+"/manifests/"+reference, body, "Content-Type", ociManifest)
}

// refusal is the code and the message of an answer that refuses.
func refusal(t *testing.T, a answer) string {
	t.Helper()
	var out struct {
		Errors []struct{ Code, Message string }
	}
	a.decode(t, &out)
	if len(out.Errors) != 1 {
		t.Fatalf("refusal: got %s, want one error", a.body)
	}
	return fmt.Sprintf("%d %s %s", a.status, out.Errors[0].Code, out.Errors[0].Message)
}

const signatureTag = "sha256-2222222222222222222222222222222222222222222222222222222222222222.sig"

func TestImmutableRulesCoverTags(t *testing.T) {
	t.Parallel()
	second := immutableRule("repoMatches **", "matches v*")
	second["tag_selectors"] = []any{selector("matches no"), selector("matches v*")}
	noScope := immutableRule("repoMatches **", "matches **")
	delete(noScope, "scope_selectors")
	noTags := immutableRule("repoMatches **", "matches **")
	delete(noTags, "tag_selectors")
	for name, test := range map[string]struct {
		rules   []map[string]any
		repo    string
		tag     string
		refused bool
	}{
		"no rule":              {nil, "app", "v1", false},
		"everything":           {[]map[string]any{immutableRule("repoMatches **", "matches **")}, "app", "v1", true},
		"a signature":          {[]map[string]any{immutableRule("repoMatches **", "matches **")}, "app", signatureTag, true},
		"not signatures: sig":  {[]map[string]any{immutableRule("repoMatches **", "excludes sha256-*.sig")}, "app", signatureTag, false},
		"not signatures: tag":  {[]map[string]any{immutableRule("repoMatches **", "excludes sha256-*.sig")}, "app", "v1", true},
		"alternatives":         {[]map[string]any{immutableRule("repoMatches **", "matches {v*,release-*}")}, "app", "release-1", true},
		"no alternative":       {[]map[string]any{immutableRule("repoMatches **", "matches {v*,release-*}")}, "app", "latest", false},
		"another repository":   {[]map[string]any{immutableRule("repoMatches other", "matches **")}, "app", "v1", false},
		"not this repository":  {[]map[string]any{immutableRule("repoExcludes app", "matches **")}, "app", "v1", false},
		"not the other":        {[]map[string]any{immutableRule("repoExcludes other", "matches **")}, "app", "v1", true},
		"nested, one star":     {[]map[string]any{immutableRule("repoMatches *", "matches **")}, "team/app", "v1", false},
		"nested, two stars":    {[]map[string]any{immutableRule("repoMatches **", "matches **")}, "team/app", "v1", true},
		"nested, by its team":  {[]map[string]any{immutableRule("repoMatches team/*", "matches **")}, "team/app", "v1", true},
		"with the project":     {[]map[string]any{immutableRule("repoMatches demo/app", "matches **")}, "app", "v1", false},
		"the second rule":      {[]map[string]any{immutableRule("repoMatches no", "matches **"), immutableRule("repoMatches **", "matches v1")}, "app", "v1", true},
		"the second selector":  {[]map[string]any{second}, "app", "v1", false},
		"no scope":             {[]map[string]any{noScope}, "app", "v1", false},
		"no tags":              {[]map[string]any{noTags}, "app", "v1", false},
		"empty pattern":        {[]map[string]any{immutableRule("repoMatches **", "matches ")}, "app", "v1", true},
		"malformed pattern":    {[]map[string]any{immutableRule("repoMatches **", "matches [")}, "app", "v1", false},
		"unknown decoration":   {[]map[string]any{immutableRule("repoMatches **", "likes **")}, "app", "v1", false},
		"decorations mixed up": {[]map[string]any{immutableRule("matches **", "repoMatches **")}, "app", "v1", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &stage{client: newClient(t, fast(t))}
			s.project("demo", nil)
			for _, rule := range test.rules {
				s.addRule(rule)
			}
			repo := "demo/" + test.repo
			s.put(admin(), repo, test.tag, ociManifest, s.imageIn(repo, 0)) // The first push always works.
			got := s.tryPut(repo, test.tag, s.imageIn(repo, 1))
			want := http.StatusCreated
			if test.refused {
				want = http.StatusPreconditionFailed
			}
			if got.status != want {
				t.Fatalf("moving %s:%s: got %d %s, want %d", repo, test.tag, got.status, got.body, want)
			}
			if !test.refused {
				return
			}
			message := "412 PRECONDITION Failed to process request due to '" + test.repo + ":" + test.tag + "' configured as immutable."
			if said := refusal(t, got); said != message {
				t.Errorf("refusal: got %q, want %q", said, message)
			}
		})
	}
}

// TestSignaturesUnderAnImmutableRule shows which of the ways to sign a rule on everything leaves.
func TestSignaturesUnderAnImmutableRule(t *testing.T) {
	t.Parallel()
	s := newSignedImage(t)
	rule := s.addRule(immutableRule("repoMatches **", "matches **"))
	first := s.legacy(1)
	for _, step := range []struct {
		name, reference string
		body            []byte
		want            int
	}{
		{"the first legacy signature", s.tag, first, http.StatusCreated},
		{"the same once more", s.tag, first, http.StatusPreconditionFailed},
		{"another one", s.tag, s.legacy(2), http.StatusPreconditionFailed},
		{"another one by its digest", digestOf(s.legacy(2)), s.legacy(2), http.StatusCreated},
		{"an OCI 1.1 signature", digestOf(s.referrer(cosignType, 1)), s.referrer(cosignType, 1), http.StatusCreated},
		{"a second one", digestOf(s.referrer(cosignType, 2)), s.referrer(cosignType, 2), http.StatusCreated},
		{"a bundle", digestOf(s.referrer(bundleType, 1)), s.referrer(bundleType, 1), http.StatusCreated},
	} {
		if got := s.tryPut("demo/app", step.reference, step.body); got.status != step.want {
			t.Errorf("%s: got %d %s, want %d", step.name, got.status, got.body, step.want)
		}
	}
	// What was pushed by its digest alone carries no subject: to Harbor it is an untagged image.
	if got, _ := s.referrers("demo/app", s.subject, ""); len(got) != 4 {
		t.Errorf("referrers: got %v, want the first legacy signature, two of OCI 1.1, and the bundle", digestsOf(got))
	}
	if got := s.tagged(s.tag); got != digestOf(first) {
		t.Errorf("the signature's tag: got %s, want the first signature %s", got, digestOf(first))
	}
	s.want(http.StatusOK, admin(), http.MethodDelete, rule, nil)
	s.addRule(immutableRule("repoMatches **", "excludes sha256-*.sig"))
	s.put(admin(), "demo/app", s.tag, ociManifest, s.legacy(3))
	if got := s.tryPut("demo/app", "v1", s.imageIn("demo/app", 9)); got.status != http.StatusPreconditionFailed {
		t.Errorf("moving another tag: got %d %s, want 412", got.status, got.body)
	}
}

// TestImmutableTagsAreNotDeleted tries every way in which a tag could go, and finds everything in its place.
func TestImmutableTagsAreNotDeleted(t *testing.T) {
	t.Parallel()
	s := newSignedImage(t)
	s.put(admin(), "demo/app", s.tag, ociManifest, s.legacy(1))
	index := s.padded(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
		"manifests": []any{map[string]any{"mediaType": ociManifest, "digest": s.subject, "size": 400}},
	}, 500)
	s.put(admin(), "demo/app", "multi", "application/vnd.oci.image.index.v1+json", index)
	const repo = "/api/v2.0/projects/demo/repositories/app"
	s.want(http.StatusOK, admin(), http.MethodDelete, repo+"/artifacts/"+s.subject+"/tags/v1", nil)
	signature := digestOf(s.legacy(1))
	rule := s.addRule(immutableRule("repoMatches **", "matches sha256-*"))
	tags := string(s.want(http.StatusOK, admin(), http.MethodGet, "/v2/demo/app/tags/list", nil).body)
	for name, path := range map[string]string{
		"the tag":               repo + "/artifacts/" + s.tag + "/tags/" + s.tag,
		"by its tag":            repo + "/artifacts/" + s.tag,
		"by its digest":         repo + "/artifacts/" + signature,
		"in the registry":       "/v2/demo/app/manifests/" + signature,
		"with the index above":  repo + "/artifacts/multi",
		"with the repository":   repo,
		"index in the registry": "/v2/demo/app/manifests/" + digestOf(index),
	} {
		want := "412 PRECONDITION the tag " + s.tag + " configured as immutable, cannot be deleted"
		if got := refusal(t, s.do(admin(), http.MethodDelete, path, nil)); got != want {
			t.Errorf("deleting %s: got %q, want %q", name, got, want)
		}
	}
	if got := string(s.want(http.StatusOK, admin(), http.MethodGet, "/v2/demo/app/tags/list", nil).body); got != tags {
		t.Errorf("tags afterwards: got %s, want %s", got, tags)
	}
	s.want(http.StatusOK, admin(), http.MethodDelete, rule, nil)
	s.want(http.StatusOK, admin(), http.MethodDelete, repo+"/artifacts/multi", nil)
	s.want(http.StatusNotFound, admin(), http.MethodGet, repo+"/artifacts/"+signature, nil)
}

func TestCopiesDoNotMoveImmutableTags(t *testing.T) {
	t.Parallel()
	s := newSignedImage(t)
	s.put(admin(), "demo/other", "v1", ociManifest, s.imageIn("demo/other", 7))
	rule := s.addRule(immutableRule("repoMatches other", "matches **"))
	const copied = "/api/v2.0/projects/demo/repositories/other/artifacts?from=demo/app:v1"
	want := "412 PRECONDITION the tag v1 configured as immutable, cannot be updated"
	if got := refusal(t, s.do(admin(), http.MethodPost, copied, nil)); got != want {
		t.Errorf("copying: got %q, want %q", got, want)
	}
	s.want(http.StatusOK, admin(), http.MethodDelete, rule, nil)
	s.want(http.StatusCreated, admin(), http.MethodPost, copied, nil)

	for n := range 2 {
		s.put(admin(), "demo/app", s.tag, ociManifest, s.legacy(n))
	}
	s.attach(s.referrer(bundleType, 1))
	s.addRule(immutableRule("repoMatches other", "matches *.sig"))
	s.blob("demo/other", "", []byte("payload"))
	s.put(admin(), "demo/other", s.tag, ociManifest, s.legacy(9))
	want = "412 PRECONDITION the tag " + s.tag + " configured as immutable, cannot be updated"
	if got := refusal(t, s.do(admin(), http.MethodPost, copied, nil)); got != want {
		t.Errorf("copying a signature onto an immutable tag: got %q, want %q", got, want)
	}
	s.want(http.StatusCreated, admin(), http.MethodPost, strings.Replace(copied, "/other/", "/fresh/", 1), nil)
	from, _ := s.referrers("demo/app", s.subject, "")
	if got, _ := s.referrers("demo/fresh", s.subject, ""); len(got) != 3 || !reflect.DeepEqual(got, from) {
		t.Errorf("referrers of the copy: got %v, want those of the original, %v", digestsOf(got), digestsOf(from))
	}
}

// TestImmutableRuleAPI goes through the life of a rule.
func TestImmutableRuleAPI(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	c.project("other", nil)
	const rules = "/api/v2.0/projects/demo/immutabletagrules"
	rule := immutableRule("repoMatches **", "matches v*")
	rule["disabled"] = true
	path := c.addRule(rule)
	list := func() (out []map[string]any) {
		t.Helper()
		c.want(http.StatusOK, admin(), http.MethodGet, rules, nil).decode(t, &out)
		return out
	}
	if got := list(); len(got) != 1 || got[0]["disabled"] != nil {
		t.Errorf("a rule that was created disabled: got %v, want one that is enabled, as Harbor makes it", got)
	}
	c.want(http.StatusConflict, admin(), http.MethodPost, rules, rule)
	c.want(http.StatusUnprocessableEntity, admin(), http.MethodPost, rules, "no JSON")

	changed := immutableRule("repoMatches **", "matches release-*")
	c.want(http.StatusBadRequest, admin(), http.MethodPut, path, changed)
	changed["id"], changed["disabled"] = 1, true
	c.want(http.StatusOK, admin(), http.MethodPut, path, changed)
	pattern := func() string {
		t.Helper()
		raw, err := json.Marshal(list()[0]["tag_selectors"])
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	if got := list(); got[0]["disabled"] != true || !strings.Contains(pattern(), "v*") {
		t.Errorf("switched off and changed at once: got %v, want it off and otherwise as it was", got)
	}
	c.want(http.StatusOK, admin(), http.MethodPut, path, changed)
	if got := pattern(); !strings.Contains(got, "release-*") {
		t.Errorf("changed: got %s, want release-*", got)
	}
	s := &stage{client: c}
	for n := range 2 { // The rule is off: the tag can be moved.
		s.put(admin(), "demo/app", "release-1", ociManifest, s.imageIn("demo/app", n))
	}
	changed["disabled"] = false
	c.want(http.StatusOK, admin(), http.MethodPut, path, changed)
	if got := s.tryPut("demo/app", "release-1", s.imageIn("demo/app", 2)).status; got != http.StatusPreconditionFailed {
		t.Errorf("moving a tag after the rule was switched on again: got %d, want 412", got)
	}

	for name, wrong := range map[string]string{
		"of another project": strings.Replace(path, "demo", "other", 1), "unknown": rules + "/77",
	} {
		if got := c.do(admin(), http.MethodDelete, wrong, nil); got.status != http.StatusNotFound {
			t.Errorf("deleting a rule that is %s: got %d, want 404", name, got.status)
		}
	}
	c.want(http.StatusUnprocessableEntity, admin(), http.MethodDelete, rules+"/one", nil)
	c.want(http.StatusOK, admin(), http.MethodDelete, path, nil)
	if got := list(); len(got) != 0 {
		t.Errorf("rules in the end: got %v, want none", got)
	}
}

func TestImmutableRuleRights(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	const rules = "/api/v2.0/projects/demo/immutabletagrules"
	for _, action := range []string{"list", "create", "update", "delete"} {
		robot := c.robot("only-"+action, "project", "demo", "immutable-tag:"+action)
		rule := immutableRule("repoMatches "+action, "matches **")
		path := c.addRule(rule)
		rule["id"] = path[strings.LastIndex(path, "/")+1:]
		got := make(map[string]int)
		got["list"] = c.do(robot, http.MethodGet, rules, nil).status
		got["create"] = c.do(robot, http.MethodPost, rules, immutableRule("repoMatches by-"+action, "matches **")).status
		got["update"] = c.do(robot, http.MethodPut, path, fmt.Sprintf(`{"id":%s}`, rule["id"])).status
		got["delete"] = c.do(robot, http.MethodDelete, path, nil).status
		for tried, status := range got {
			if allowed := status < http.StatusBadRequest; allowed != (tried == action) || !allowed && status != http.StatusForbidden {
				t.Errorf("robot with immutable-tag:%s, %s: got %d", action, tried, status)
			}
		}
	}
	if got := c.do(login{}, http.MethodGet, rules, nil).status; got != http.StatusUnauthorized {
		t.Errorf("anonymous: got %d, want 401", got)
	}
}
