package harbor_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

func TestResolve(t *testing.T) {
	h := harbortest.New(t, harbortest.Config{})
	const project = "demo"
	post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": project})
	index, err := random.Index(64, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	first, second := randomImage(t), randomImage(t)
	push(t, h, project+"/team/app:v1", first)
	push(t, h, project+"/team/app:multi", index)
	c := newClient(t, h.URL(), harbortest.DefaultAdminPassword)
	resolve := func(reference string) artifact.Listed {
		t.Helper()
		l, err := c.Resolve(t.Context(), project+"/team/app", reference)
		if err != nil {
			t.Fatalf("Resolve(%s): %v", reference, err)
		}
		return l
	}
	if got := resolve("v1"); got.Ref.String() != project+"/team/app@"+digestOf(t, first) || len(got.Children) != 0 {
		t.Errorf("v1 = %+v, want the first image", got)
	}
	if got := resolve("multi"); got.Ref.Digest() != digestOf(t, index) || len(got.Children) != 2 {
		t.Errorf("multi = %+v, want the index with 2 children", got)
	}
	if got := resolve(digestOf(t, index)); len(got.Children) != 2 {
		t.Errorf("by digest: %+v, want 2 children", got)
	}
	push(t, h, project+"/team/app:v1", second)
	if got := resolve("v1"); got.Ref.Digest() != digestOf(t, second) {
		t.Errorf("v1 was moved: %+v, want the second image", got)
	}
	// A project that hands out signed images alone refuses unsigned ones at the registry, and not at the API.
	admin(t, http.MethodPut, h.URL()+"/api/v2.0/projects/"+project, map[string]any{"metadata": map[string]string{"enable_content_trust_cosign": "true"}})
	if got, err := c.Answers(t.Context(), resolve("v1").Ref); !fault.Is(err, fault.Permanent) {
		t.Errorf("the registry answers %t, %v for an unsigned image, want that it refuses", got, err)
	}
	for _, tt := range [][2]string{
		{project + "/team/app", "v2"},
		{project + "/team/app", "sha256:" + strings.Repeat("0", 64)},
		{project + "/none", "v1"},
		{project + "/../app", "v1"},
		{project, "v1"},
		{project + "/team/app", "../v1"},
		{project + "/team/app", "sha256:0"},
		{project + "/team/app", ""},
	} {
		if got, err := c.Resolve(t.Context(), tt[0], tt[1]); !fault.Is(err, fault.Gone) {
			t.Errorf("Resolve(%q, %q) = %+v, %v; want gone", tt[0], tt[1], got, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	h := harbortest.New(t, harbortest.Config{})
	post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": "demo"})
	image := randomImage(t)
	push(t, h, "demo/team/app:v1", image)
	c := newClient(t, h.URL(), harbortest.DefaultAdminPassword)
	for digest, want := range map[string]bool{digestOf(t, image): true, "sha256:" + strings.Repeat("0", 64): false} {
		ref, err := artifact.NewRef("demo/team/app", digest)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Answers(t.Context(), ref); err != nil || got != want {
			t.Errorf("Answers(%s) = %t, %v; want %t", ref, got, err, want)
		}
	}
	ref, err := artifact.NewRef("demo/team/app", digestOf(t, image))
	if err != nil {
		t.Fatal(err)
	}
	h.SetFaults(harbortest.Faults{Status: 500})
	if got, err := c.Answers(t.Context(), ref); got || !fault.Is(err, fault.Transient) {
		t.Errorf("Answers with Harbor away = %t, %v; want a transient fault", got, err)
	}
}

// TestAnswersOfAStranger: neither a proxy's page nor its 404 says anything about a manifest.
func TestAnswersOfAStranger(t *testing.T) {
	ref, err := artifact.NewRef("demo/app", "sha256:"+strings.Repeat("0", 64))
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range []int{http.StatusOK, http.StatusNotFound, http.StatusForbidden} {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
		}))
		c := newClient(t, proxy.URL, "secret")
		if got, err := c.Answers(t.Context(), ref); got || !fault.Is(err, fault.Transient) {
			t.Errorf("a proxy answers %d: %t, %v; want a transient fault", status, got, err)
		}
		proxy.Close()
	}
}
