package harbortest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// TestPagesCoverAListing follows the links and meets every artifact once.
func TestPagesCoverAListing(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	s := &stage{client: c}
	c.project("demo", nil)
	const count = 25
	s.filler("demo/team/app", count)
	seen := make(map[string]bool)
	next := "/api/v2.0/projects/demo/repositories/team%252Fapp/artifacts?page_size=10&q=base%3D*&sort=push_time"
	pages := 0
	for next != "" {
		a := c.want(http.StatusOK, admin(), http.MethodGet, next, nil)
		var part []recordedArtifact
		a.decode(t, &part)
		for _, item := range part {
			if seen[item.Digest] {
				t.Errorf("%s is on two pages", item.Digest)
			}
			seen[item.Digest] = true
		}
		next = linkTo(a.header.Get("Link"), "next")
		pages++
	}
	if len(seen) != count || pages != 3 {
		t.Errorf("got %d artifacts on %d pages, want %d on 3", len(seen), pages, count)
	}
}

// linkTo finds a relation in a Link header, or nothing.
func linkTo(header, relation string) string {
	for link := range strings.SplitSeq(header, " , ") {
		target, rel, _ := strings.Cut(link, "; ")
		if rel == fmt.Sprintf("rel=%q", relation) {
			return strings.Trim(target, "<>")
		}
	}
	return ""
}

func TestQueriesSelect(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	s := &stage{client: c}
	c.project("demo", nil)
	s.filler("demo/app", 3)
	tagged := c.push(admin(), c.image(), "demo/app:v1.2")
	at := func(d time.Duration) string { return time.Now().UTC().Add(d).Format(time.DateTime) }
	for q, want := range map[string]string{
		"": "4",
		"push_time=[" + at(-time.Hour) + "~" + at(time.Hour) + "]":        "4",
		"push_time=[" + at(-2*time.Hour) + "~" + at(-time.Hour) + "]":     "0",
		"push_time=[" + at(time.Hour) + "~]":                              "0",
		"push_time=[~" + at(time.Hour) + "]":                              "4",
		"base=*,push_time=[" + at(-time.Hour) + "~" + at(time.Hour) + "]": "4",
		"tags=nil":                         "3",
		"tags=*":                           "1",
		"tags=~V1":                         "1",
		"tags=v1":                          "0",
		"digest=" + tagged.String():        "1",
		"digest={" + tagged.String() + "}": "1",
		"type=CHART":                       "0",
	} {
		path := "/api/v2.0/projects/demo/artifacts?q=" + url.QueryEscape(q)
		if got := c.want(http.StatusOK, admin(), http.MethodGet, path, nil).header.Get("X-Total-Count"); got != want {
			t.Errorf("q=%s: got %s artifacts, want %s", q, got, want)
		}
	}
	for _, q := range []string{"push_time=yesterday", "push_time=[a~b]", "push_time=[a]", "nothing", "push_time=[~]", "base=", "type={IMAGE"} {
		c.want(http.StatusBadRequest, admin(), http.MethodGet, "/api/v2.0/projects/demo/artifacts?q="+url.QueryEscape(q), nil)
	}
	for _, page := range []string{"page=0", "page_size=0", "page=x", "page_size=101"} {
		c.want(http.StatusUnprocessableEntity, admin(), http.MethodGet, "/api/v2.0/projects/demo/artifacts?"+page, nil)
	}
}

// TestRangesAreCutToSeconds asks around the push time of one artifact. Harbor drops the fractions of both ends, unless
// the layout is one that it does not know and hands on to PostgreSQL.
func TestRangesAreCutToSeconds(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	pushed := c.pushedWithinASecond()
	second := pushed.Truncate(time.Second)
	end := second.Add(999 * time.Millisecond)
	const spaced, millis = time.DateTime + ".000", "2006-01-02T15:04:05.000"
	for _, test := range []struct{ name, q, want string }{
		{"from the last millisecond of its second", "push_time=[" + end.Format(spaced) + "~]", "1"},
		{"from there, with a T", "push_time=[" + end.Format(millis) + "~]", "1"},
		{"from there, as PostgreSQL reads it", "push_time=[" + end.Format(millis) + "Z~]", "0"},
		{"from the next second", "push_time=[" + second.Add(time.Second).Format(spaced) + "~]", "0"},
		{"to the last millisecond of its second", "push_time=[~" + end.Format(spaced) + "]", "0"},
		{"to there, as PostgreSQL reads it", "push_time=[~" + end.Format(millis) + "Z]", "1"},
		{"to the next second", "push_time=[~" + second.Add(time.Second).Format(spaced) + "]", "1"},
		{"from midnight", "push_time=[" + second.Format(time.DateOnly) + "~]", "1"},
		{"to an hour, cut to the day", "push_time=[~" + second.Format(time.DateOnly) + " 23:59]", "0"},
		{"unescaped a second time", url.QueryEscape("push_time=[" + second.Format(time.DateTime) + "~]"), "1"},
		{"a plus is a blank", "push_time=[" + second.Format("2006-01-02+15:04:05") + "~]", "1"},
	} {
		path := "/api/v2.0/projects/demo/artifacts?q=" + url.QueryEscape(test.q)
		if got := c.want(http.StatusOK, admin(), http.MethodGet, path, nil).header.Get("X-Total-Count"); got != test.want {
			t.Errorf("%s: q=%s: got %s artifacts, want %s (pushed at %s)", test.name, test.q, got, test.want, pushed)
		}
	}
}

// pushedWithinASecond pushes until an artifact's push time is not in the first or the last milliseconds of its second,
// and leaves only that one.
func (c *client) pushedWithinASecond() time.Time {
	c.t.Helper()
	for {
		c.push(admin(), c.image(), "demo/app:v1")
		var shown []struct {
			At time.Time `json:"push_time"`
		}
		c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/projects/demo/artifacts", nil).decode(c.t, &shown)
		if ms := shown[0].At.Sub(shown[0].At.Truncate(time.Second)).Milliseconds(); ms > 1 && ms < 998 {
			return shown[0].At
		}
		c.want(http.StatusOK, admin(), http.MethodDelete, "/api/v2.0/projects/demo/repositories/app", nil)
	}
}

func TestPushTimeIsSetOnce(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	img := c.image()
	c.push(admin(), img, "demo/app:v1")
	pushed := func() (out struct {
		At   string `json:"push_time"`
		Tags []struct {
			Name string
			At   string `json:"push_time"`
		}
	},
	) {
		c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/projects/demo/repositories/app/artifacts/v1", nil).decode(t, &out)
		return out
	}
	before := pushed()
	c.push(admin(), img, "demo/app:v2")
	after := pushed()
	if before.At != after.At || len(after.Tags) != 2 || after.Tags[1].At != before.Tags[0].At {
		t.Errorf("after a second tag: got %+v, want the times of %+v", after, before)
	}
}

func TestProjectNamesOfDigits(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("12", nil)
	c.want(http.StatusNotFound, admin(), http.MethodGet, "/api/v2.0/projects/12", nil)
	c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/projects/12", nil, "X-Is-Resource-Name", "true")
	c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/projects/2", nil)
}

// TestRolesOfMembers checks what the roles may do, beyond what the recordings show.
func TestRolesOfMembers(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	c.project("open", map[string]string{"public": "true"})
	(&stage{client: c}).filler("demo/app", 1)
	const demo = "/api/v2.0/projects/demo"
	roles := map[string]int{"projectadmin": 1, "developer": 2, "guest": 3, "maintainer": 4, "limited": 5, "nobody": 0}
	for name, role := range roles {
		c.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/users",
			map[string]string{"username": name, "password": "Passw0rd" + name, "email": name + "@example.com"})
		if role > 0 {
			c.want(http.StatusCreated, admin(), http.MethodPost, demo+"/members",
				map[string]any{"role_id": role, "member_user": map[string]string{"username": name}})
		}
	}
	for what, test := range map[string]struct {
		method, path string
		allowed      []string
		refusal      int
	}{
		"read the project":   {http.MethodGet, demo, []string{"projectadmin", "maintainer", "developer", "guest", "limited"}, 403},
		"list policies":      {http.MethodGet, demo + "/webhook/policies", []string{"projectadmin", "maintainer"}, 403},
		"list members":       {http.MethodGet, demo + "/members", []string{"projectadmin", "maintainer", "developer", "guest"}, 403},
		"list artifacts":     {http.MethodGet, demo + "/artifacts", []string{"projectadmin", "maintainer", "developer", "guest", "limited"}, 403},
		"start an upload":    {http.MethodPost, "/v2/demo/app/blobs/uploads/", []string{"projectadmin", "maintainer", "developer"}, 401},
		"read the log":       {http.MethodGet, demo + "/auditlog-exts", []string{"projectadmin", "maintainer", "developer", "guest"}, 403},
		"list all users":     {http.MethodGet, "/api/v2.0/users", nil, 403},
		"read configuration": {http.MethodGet, "/api/v2.0/configurations", nil, 403},
	} {
		for name := range roles {
			want := test.refusal
			if slices.Contains(test.allowed, name) {
				want = http.StatusOK
			}
			got := c.do(login{name, "Passw0rd" + name}, test.method, test.path, nil).status
			if got == http.StatusAccepted {
				got = http.StatusOK
			}
			if got != want {
				t.Errorf("%s as %s: got %d, want %d", what, name, got, want)
			}
		}
	}
	c.want(http.StatusOK, login{"nobody", "Passw0rdnobody"}, http.MethodGet, "/api/v2.0/projects/open/repositories", nil)
	c.want(http.StatusOK, login{}, http.MethodGet, "/api/v2.0/projects/open/repositories", nil)
	c.want(http.StatusForbidden, login{"nobody", "Passw0rdnobody"}, http.MethodGet, "/api/v2.0/projects/open/members", nil)
}

func TestRobotLife(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	r := c.robot("ci", "project", "demo", "project:read")
	const demo, robots = "/api/v2.0/projects/demo", "/api/v2.0/robots"
	c.want(http.StatusOK, r, http.MethodGet, demo, nil)
	var list []map[string]any
	c.want(http.StatusOK, admin(), http.MethodGet, robots, nil).decode(t, &list)
	path := fmt.Sprintf("%s/%v", robots, list[0]["id"])
	var renewed struct{ Secret string }
	c.want(http.StatusOK, admin(), http.MethodPatch, path, map[string]string{"secret": ""}).decode(t, &renewed)
	c.want(http.StatusUnauthorized, r, http.MethodGet, demo, nil)
	r.secret = renewed.Secret
	c.want(http.StatusOK, r, http.MethodGet, demo, nil)
	list[0]["disable"] = true
	c.want(http.StatusOK, admin(), http.MethodPut, path, list[0])
	c.want(http.StatusUnauthorized, r, http.MethodGet, demo, nil)
	list[0]["disable"] = false
	c.want(http.StatusOK, admin(), http.MethodPut, path, list[0])
	c.want(http.StatusOK, r, http.MethodGet, demo, nil)
	c.want(http.StatusOK, admin(), http.MethodDelete, path, nil)
	c.want(http.StatusUnauthorized, r, http.MethodGet, demo, nil)
	c.want(http.StatusNotFound, admin(), http.MethodGet, path, nil)
}

func TestVersionIsConfigured(t *testing.T) {
	t.Parallel()
	c := newClient(t, harbortest.New(t, harbortest.Config{Version: "v2.12.0", AdminPassword: "else"}))
	c.want(http.StatusUnauthorized, admin(), http.MethodGet, "/api/v2.0/users/current", nil)
	var info struct {
		Version string `json:"harbor_version"`
	}
	c.want(http.StatusOK, login{"admin", "else"}, http.MethodGet, "/api/v2.0/systeminfo", nil).decode(t, &info)
	if info.Version != "v2.12.0-080b0220" {
		t.Errorf("version: got %s, want v2.12.0 with a commit", info.Version)
	}
}
