package harbortest_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// onVersion is a project demo on a Harbor of some version, with an image that has a bundle.
func onVersion(t *testing.T, version string) *signedImage {
	t.Helper()
	s := newSignedImage(t)
	s.h.SetVersion(version)
	s.attach(s.referrer(bundleType, 1))
	return s
}

func (s *signedImage) accessoryKinds() []string {
	s.t.Helper()
	var found []struct{ Type string }
	s.want(http.StatusOK, admin(), http.MethodGet,
		"/api/v2.0/projects/demo/repositories/app/artifacts/"+s.subject+"/accessories", nil).decode(s.t, &found)
	var out []string
	for _, f := range found {
		out = append(out, f.Type)
	}
	return out
}

// TestVersionsDiffer holds each version to what it has: the project's listing, the audit feed, and what a bundle is.
func TestVersionsDiffer(t *testing.T) {
	t.Parallel()
	const signature, other = "signature.cosign", "subject.accessory"
	for version, want := range map[string]struct {
		listing, feed int
		bundle        string
		pull          int
	}{
		"v2.8.4":           {http.StatusNotFound, http.StatusNotFound, other, http.StatusPreconditionFailed},
		"v2.11.2":          {http.StatusNotFound, http.StatusNotFound, other, http.StatusPreconditionFailed},
		"2.11.2-6b7ecba1":  {http.StatusNotFound, http.StatusNotFound, other, http.StatusPreconditionFailed},
		"v2.12.0":          {http.StatusOK, http.StatusNotFound, other, http.StatusPreconditionFailed},
		"v2.13.1":          {http.StatusOK, http.StatusOK, other, http.StatusPreconditionFailed},
		"v2.14.0-rc1":      {http.StatusOK, http.StatusOK, other, http.StatusPreconditionFailed},
		"v2.15.0":          {http.StatusOK, http.StatusOK, signature, http.StatusOK},
		"":                 {http.StatusOK, http.StatusOK, signature, http.StatusOK},
		"v2.16.0":          {http.StatusOK, http.StatusOK, signature, http.StatusOK},
		"v3.0.0":           {http.StatusOK, http.StatusOK, signature, http.StatusOK},
		"dev":              {http.StatusOK, http.StatusOK, signature, http.StatusOK},
		"v2.x-development": {http.StatusOK, http.StatusOK, signature, http.StatusOK},
	} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := onVersion(t, version)
			for path, status := range map[string]int{
				"/api/v2.0/projects/demo/artifacts": want.listing, "/api/v2.0/auditlog-exts": want.feed,
				"/api/v2.0/projects/demo/auditlog-exts": want.feed,
				"/api/v2.0/projects/demo/repositories":  http.StatusOK,
			} {
				if got := s.do(admin(), http.MethodGet, path, nil); got.status != status {
					t.Errorf("%s: got %d %s, want %d", path, got.status, got.body, status)
				}
			}
			if got := s.accessoryKinds(); len(got) != 1 || got[0] != want.bundle {
				t.Errorf("a bundle: got %v, want %s", got, want.bundle)
			}
			if got, _ := s.referrers("demo/app", s.subject, bundleType); len(got) != 1 {
				t.Errorf("referrers: got %v, want the bundle", got)
			}
			s.want(http.StatusOK, admin(), http.MethodPut, "/api/v2.0/projects/demo",
				map[string]any{"metadata": map[string]string{"enable_content_trust_cosign": "true"}})
			got := s.do(admin(), http.MethodGet, "/v2/demo/app/manifests/v1", nil, "Accept", ociManifest)
			if got.status != want.pull {
				t.Errorf("pulling what has a bundle alone, signed images only: got %d, want %d", got.status, want.pull)
			}
			s.put(admin(), "demo/app", s.tag, ociManifest, s.legacy(1))
			s.want(http.StatusOK, admin(), http.MethodGet, "/v2/demo/app/manifests/v1", nil, "Accept", ociManifest)
		})
	}
}

// TestAnUnknownListingIsNoMissingProject shows that an old Harbor answers 404 to everybody: its router knows no such
// path.
func TestAnUnknownListingIsNoMissingProject(t *testing.T) {
	t.Parallel()
	c := newClient(t, harbortest.New(t, harbortest.Config{Version: "v2.11.2"}))
	for _, who := range []login{admin(), {}} {
		got := refusal(t, c.do(who, http.MethodGet, "/api/v2.0/projects/library/artifacts", nil))
		if want := "404 NOT_FOUND path /api/v2.0/projects/library/artifacts was not found"; got != want {
			t.Errorf("as %q: got %q, want %q", who.name, got, want)
		}
	}
}

// TestAnUpgradeKeepsAccessories shows that an accessory stays what it was when it was pushed.
func TestAnUpgradeKeepsAccessories(t *testing.T) {
	t.Parallel()
	s := onVersion(t, "v2.14.0")
	s.h.SetVersion("")
	s.attach(s.referrer(bundleType, 1), s.referrer(bundleType, 2))
	if got := s.accessoryKinds(); len(got) != 2 || got[0] != "subject.accessory" || got[1] != "signature.cosign" {
		t.Errorf("accessories: got %v, want the old one as it was, and a signature", got)
	}
}

func TestVersionOverTheControlSurface(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	const path = "/_emulator/version"
	version := func(a answer) string {
		t.Helper()
		var out struct{ Version string }
		a.decode(t, &out)
		return out.Version
	}
	if got := version(c.want(http.StatusOK, login{}, http.MethodGet, path, nil)); got != harbortest.DefaultVersion {
		t.Errorf("version: got %s, want %s", got, harbortest.DefaultVersion)
	}
	if got := version(c.want(http.StatusOK, login{}, http.MethodPut, path, `{"version":"v2.11.2"}`)); got != "v2.11.2" || c.h.Version() != got {
		t.Errorf("version that was set: got %s and %s, want v2.11.2", got, c.h.Version())
	}
	c.want(http.StatusNotFound, admin(), http.MethodGet, "/api/v2.0/projects/library/artifacts", nil)
	c.want(http.StatusBadRequest, login{}, http.MethodPut, path, `{"release":"v2.11.2"}`)
	c.want(http.StatusBadRequest, login{}, http.MethodPut, path, `v2.11.2`)
	c.want(http.StatusNotFound, login{}, http.MethodDelete, path, nil)
	if got := version(c.want(http.StatusOK, login{}, http.MethodPut, path, `{}`)); got != harbortest.DefaultVersion {
		t.Errorf("version that was set back: got %s, want %s", got, harbortest.DefaultVersion)
	}
}

// TestWhoSeesTheVersion asks as everybody who could: accounts do, robots among them, anonymous callers do not. The
// answers to the administrator and to nobody are recorded.
func TestWhoSeesTheVersion(t *testing.T) {
	t.Parallel()
	c := newClient(t, harbortest.New(t, harbortest.Config{Version: "v2.11.2"}))
	c.project("demo", nil)
	for name, test := range map[string]struct {
		who  login
		want string
	}{
		"admin": {admin(), "v2.11.2-080b0220"}, "robot": {c.robot("r", "project", "demo", "repository:pull"), "v2.11.2-080b0220"},
		"anonymous": {login{}, ""}, "wrong password": {login{"admin", "wrong"}, ""},
	} {
		var info map[string]json.RawMessage
		c.want(http.StatusOK, test.who, http.MethodGet, "/api/v2.0/systeminfo", nil).decode(t, &info)
		want := ""
		if test.want != "" {
			want = `"` + test.want + `"`
		}
		if got := string(info["harbor_version"]); got != want {
			t.Errorf("%s: got version %s, want %s", name, got, want)
		}
	}
}
