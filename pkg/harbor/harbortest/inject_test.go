package harbortest_test

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// statuses asks for paths and gives the statuses, as often as told.
func statuses(c *client, times int, paths ...string) []int {
	var all []int
	for range times {
		for _, path := range paths {
			all = append(all, c.do(admin(), http.MethodGet, path, nil).status)
		}
	}
	return all
}

func TestFaultsOfAProject(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	for _, project := range []string{"demo", "other"} {
		s.project(project, nil)
		s.blob(project+"/team/app", "application/vnd.oci.image.config.v1+json", []byte("{}"))
		s.put(admin(), project+"/team/app", "v1", ociManifest, s.plain(0))
	}
	s.h.SetFault("demo only", harbortest.Faults{Project: "demo", Status: http.StatusTooManyRequests})
	for _, tt := range []struct {
		path string
		want int
	}{
		{"/v2/demo/team/app/tags/list", 429},
		{"/v2/demo/team/app/blobs/" + digestOf([]byte("{}")), 429},
		{"/api/v2.0/projects/demo", 429},
		{"/api/v2.0/projects/demo/repositories", 429},
		{"/service/token?service=harbor-registry&scope=repository:demo/team/app:pull,push", 429},
		{"/v2/other/team/app/tags/list", 200},
		{"/api/v2.0/projects/other", 200},
		{"/service/token?service=harbor-registry&scope=repository:other/team/app:pull,push", 200},
		{"/api/v2.0/projects", 200},
		{"/api/v2.0/ping", 200},
		{"/v2/", 200},
	} {
		if got := statuses(s.client, 1, tt.path)[0]; got != tt.want {
			t.Errorf("GET %s: got status %d, want %d", tt.path, got, tt.want)
		}
	}
}

// TestNamedFaults stand side by side: each ends alone, and SetFaults ends them all.
func TestNamedFaults(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	const ping, health = "/api/v2.0/ping", "/api/v2.0/health"
	check := func(when string, want ...int) {
		t.Helper()
		if got := statuses(c, 1, ping, health); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", when, got, want)
		}
	}
	put := func(name, faults string) {
		t.Helper()
		c.want(http.StatusOK, login{}, http.MethodPut, "/_emulator/faults"+name, faults)
	}
	put("/b", `{"path_prefix":"/api/v2.0/ping","status":503}`)
	put("/a", `{"path_prefix":"/api/v2.0/health","status":502}`)
	check("two", 503, 502)
	put("/a", `{"status":500}`)
	check("both meet the same request, by name", 500, 500)
	put("/a", `{}`)
	check("one has ended", 503, 200)
	var there harbortest.Faults
	c.want(http.StatusOK, login{}, http.MethodGet, "/_emulator/faults/b", nil).decode(t, &there)
	if there.Status != 503 || c.h.CurrentFault("a") != (harbortest.Faults{}) || c.h.CurrentFaults() != (harbortest.Faults{}) {
		t.Errorf("faults in force: got %+v of b, %+v of a and %+v without a name, want 503 of b alone",
			there, c.h.CurrentFault("a"), c.h.CurrentFaults())
	}
	put("", `{"path_prefix":"/api/v2.0/health","status":504}`)
	check("all are replaced", 200, 504)
}

// TestRatesFollowTheSeed: the n-th request meets the same fate in every emulator with the seed, whatever pushes and other
// faults meet meanwhile.
func TestRatesFollowTheSeed(t *testing.T) {
	t.Parallel()
	const requests = 40
	run := func(seed uint64, disturb bool) []int {
		s := &stage{client: newClient(t, harbortest.New(t, harbortest.Config{Seed: seed, DeliveryDelayScale: 0.001}))}
		s.h.SetFault("limits", harbortest.Faults{PathPrefix: "/api/v2.0/ping", Status: 429, Rate: 0.5})
		if disturb {
			s.project("demo", nil)
			s.policy("demo", "hook", newReceiver(t, ok200).url(), "Default")
			s.h.SetFault("a", harbortest.Faults{LoseWebhookRate: 0.5})
			s.h.SetFault("z", harbortest.Faults{PathPrefix: "/api/v2.0/health", Status: 503, Rate: 0.5})
			s.blob("demo/app", "application/vnd.oci.image.config.v1+json", []byte("{}"))
			s.put(admin(), "demo/app", "v1", ociManifest, s.plain(0))
			statuses(s.client, 3, "/api/v2.0/health")
			settled(t, s.client, newReceiver(t, ok200))
		}
		return statuses(s.client, requests, "/api/v2.0/ping")
	}
	want := run(7, false)
	if !slices.Contains(want, 429) || !slices.Contains(want, 200) {
		t.Fatalf("a rate of a half: got %v, want some of both", want)
	}
	if got := run(7, true); !slices.Equal(got, want) {
		t.Errorf("the same seed: got %v, want %v", got, want)
	}
	if got := run(8, false); slices.Equal(got, want) {
		t.Errorf("another seed: got the same %v", got)
	}
}

func TestCutAnswers(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	s.project("demo", nil)
	s.blob("demo/app", "application/vnd.oci.image.config.v1+json", []byte("{}"))
	body := s.plain(0)
	cut := func(method, path string, body []byte, headers map[string]string) ([]byte, error) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.h.URL()+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(admin().name, admin().secret)
		for key, value := range headers {
			req.Header.Set(key, value)
		}
		res, err := s.http.Do(req)
		if err != nil {
			return nil, err
		}
		defer func() { _ = res.Body.Close() }()
		got, err := io.ReadAll(res.Body)
		if err == nil {
			t.Errorf("%s %s: got all of %q, want an error", method, path, got)
		}
		return got, err
	}
	s.h.SetFault("cut", harbortest.Faults{CutAnswers: 1})
	const manifest = "/v2/demo/app/manifests/v1"
	if got, err := cut(http.MethodPut, manifest, body, map[string]string{"Content-Type": ociManifest}); err == nil {
		t.Errorf("a PUT whose answer is cut: got %q, want an error", got)
	}
	if got, _ := cut(http.MethodGet, manifest, nil, map[string]string{"Accept": ociManifest}); string(got) != string(body[:len(body)/2]) {
		t.Errorf("a GET whose answer is cut: got %q, want half of %q", got, body)
	}
	if got, _ := cut(http.MethodGet, "/api/v2.0/systeminfo", nil, nil); len(got) == 0 {
		t.Error("a GET of the API whose answer is cut: got nothing, want half")
	}
	if got := s.h.Stats().CutAnswers; got < 3 {
		t.Errorf("cut answers: got %d, want at least 3", got)
	}
	s.h.SetFaults(harbortest.Faults{})
	s.want(http.StatusOK, admin(), http.MethodGet, manifest, nil, "Accept", ociManifest)
}

func TestUnauthorizedOfTheRegistryBringsAChallenge(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.h.SetFaults(harbortest.Faults{Status: http.StatusUnauthorized})
	for _, tt := range []struct {
		name string
		who  login
		path string
		want string
	}{
		{"with credentials", admin(), "/v2/demo/app/tags/list", `Basic realm="harbor"`},
		{"without", login{}, "/v2/demo/app/tags/list", `Bearer realm="http://` + c.h.Host() + `/service/token",service="harbor-registry"`},
		{"API", login{}, "/api/v2.0/projects", ""},
	} {
		got := c.want(http.StatusUnauthorized, tt.who, http.MethodGet, tt.path, nil).header.Get("Www-Authenticate")
		if got != tt.want {
			t.Errorf("%s: got the challenge %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestWebhooksAreLostAndDoubledByRate(t *testing.T) {
	t.Parallel()
	const pushes = 40
	deliveries := func(f harbortest.Faults) (delivered, other int, stats harbortest.WebhookStats) {
		s := &stage{client: newClient(t, fast(t))}
		hook := newReceiver(t, ok200)
		for _, project := range []string{"demo", "other"} {
			s.project(project, nil)
			s.policy(project, "hook", hook.url(), "CloudEvents")
			s.blob(project+"/app", "application/vnd.oci.image.config.v1+json", []byte("{}"))
		}
		s.h.SetFault("hooks", f)
		for i := range pushes {
			for _, project := range []string{"demo", "other"} {
				s.put(admin(), project+"/app", "v1", ociManifest, s.plain(i))
			}
		}
		for _, raw := range settled(t, s.client, hook) {
			if strings.Contains(string(raw), `"namespace":"demo"`) {
				delivered++
			} else {
				other++
			}
		}
		return delivered, other, s.h.Stats().Webhooks
	}
	for _, tt := range []struct {
		name     string
		faults   harbortest.Faults
		min, max int
	}{
		{"none", harbortest.Faults{}, pushes, pushes},
		{"half are lost", harbortest.Faults{LoseWebhookRate: 0.5}, 1, pushes - 1},
		{"all are lost", harbortest.Faults{LoseWebhookRate: 1, DoubleWebhookRate: 1}, 0, 0},
		{"half are doubled", harbortest.Faults{DoubleWebhookRate: 0.5}, pushes + 1, 2*pushes - 1},
		{"all are doubled", harbortest.Faults{DoubleWebhookRate: 1}, 2 * pushes, 2 * pushes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.faults.Project = "demo"
			delivered, other, stats := deliveries(tt.faults)
			if delivered < tt.min || delivered > tt.max || other != pushes {
				t.Errorf("deliveries: got %d of demo and %d of the other, want %d to %d and %d", delivered, other, tt.min, tt.max, pushes)
			}
			if got := int64(delivered + other); stats.Delivered != got || stats.Events != got+stats.Lost ||
				int64(delivered) != pushes+stats.Doubled-stats.Lost {
				t.Errorf("%d deliveries of demo are counted as %+v", delivered, stats)
			}
		})
	}
}
