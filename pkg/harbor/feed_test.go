package harbor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// feed reads the feed between two times.
func feed(t *testing.T, c *harbor.Client, since, until time.Time) (got []artifact.Pushed, available bool) {
	t.Helper()
	available, err := c.Feed(t.Context(), since, until, func(_ context.Context, pushed []artifact.Pushed) error {
		got = append(got, pushed...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got, available
}

// TestRecordedFeed reads what a real Harbor answered.
func TestRecordedFeed(t *testing.T) {
	t.Parallel()
	c := cannedClient(t, func(r *http.Request) (int, string, error) {
		const want = "operation=create,resource_type=artifact,op_time=[2026-11-22 05:00:00~2026-11-22 07:00:00]"
		if got := r.URL.Query().Get("q"); r.URL.Path != "/api/v2.0/auditlog-exts" || got != want {
			t.Errorf("%s, query %q; want %q", r.URL.Path, got, want)
		}
		return http.StatusOK, recorded(t, "auditlog-pushes-range"), nil
	})
	got, available := feed(t, c, time.Date(2026, 11, 22, 5, 0, 0, 1, time.UTC), time.Date(2026, 11, 22, 6, 59, 59, 1, time.UTC))
	if !available || len(got) != 1 {
		t.Fatalf("Feed gives %v, available %t; want the one that is no signature under a tag", got, available)
	}
	ref, err := artifact.NewRef("siglab/fresh1795327257", "sha256:ff37496e096ee691bb68fc7d2a66f0baa3a6d6845e1b5fc05c110ec8d450202c")
	if err != nil {
		t.Fatal(err)
	}
	want := artifact.Pushed{Ref: ref, By: "robot$signer", At: time.Date(2026, 11, 22, 6, 0, 58, 98_000_000, time.UTC)}
	if got[0] != want {
		t.Errorf("Feed gives %+v, want %+v", got[0], want)
	}
}

func TestFeedEntries(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("ab", 32)
	const at = "2026-11-22T05:00:00.500Z"
	for _, tt := range []struct {
		name, resource, description, at string
		failed                          bool
		want                            string // the reference and the tag
	}{
		{"by tag", "demo/team/app:v1", "push artifact: demo/team/app@" + digest, at, false, "demo/team/app@" + digest + " v1"},
		{"by digest", "2024/app@" + digest, "push artifact: 2024/app@" + digest, at, false, "2024/app@" + digest + " "},
		{"a digest without a description", "demo/app@" + digest, "", at, false, "demo/app@" + digest + " "},
		{"a tag without a description", "demo/app:v1", "", at, false, ""},
		{"another repository", "demo/app:v1", "push artifact: demo/other@" + digest, at, false, ""},
		{"a signature", "demo/app:sha256-" + digest[7:] + ".sig", "push artifact: demo/app@" + digest, at, false, ""},
		{"an attestation", "demo/app:sha256-" + digest[7:] + ".att", "push artifact: demo/app@" + digest, at, false, ""},
		{"an SBOM", "demo/app:sha256-" + digest[7:] + ".sbom", "push artifact: demo/app@" + digest, at, false, ""},
		{"a tag that looks like one", "demo/app:sha256-1.sig", "push artifact: demo/app@" + digest, at, false, "demo/app@" + digest + " sha256-1.sig"},
		{"a refused one", "demo/app:v1", "push artifact: demo/app@" + digest, at, true, ""},
		{"before", "demo/app:v1", "push artifact: demo/app@" + digest, "2026-11-22T05:00:00.399Z", false, ""},
		{"at the beginning", "demo/app:v1", "push artifact: demo/app@" + digest, "2026-11-22T05:00:00.400Z", false, "demo/app@" + digest + " v1"},
		{"at the end", "demo/app:v1", "push artifact: demo/app@" + digest, "2026-11-22T05:00:00.600Z", false, "demo/app@" + digest + " v1"},
		{"after", "demo/app:v1", "push artifact: demo/app@" + digest, "2026-11-22T05:00:00.601Z", false, ""},
		{"nothing", "", "", at, false, ""},
	} {
		body, err := json.Marshal([]any{map[string]any{
			"id": 1, "op_time": tt.at, "operation": "create", "resource_type": "artifact", "operation_result": !tt.failed,
			"resource": tt.resource, "operation_description": tt.description, "username": "dev",
		}})
		if err != nil {
			t.Fatal(err)
		}
		c := cannedClient(t, func(r *http.Request) (int, string, error) {
			if q := r.URL.Query().Get("q"); !strings.Contains(q, "op_time=[2026-11-22 05:00:00~2026-11-22 05:00:01]") {
				t.Errorf("query %q, want whole seconds around the times", q)
			}
			return http.StatusOK, string(body), nil
		})
		got, available := feed(t, c, longAgo().Add(400*time.Millisecond), longAgo().Add(600*time.Millisecond))
		var shown []string
		for _, p := range got {
			shown = append(shown, p.Ref.String()+" "+p.Tag)
		}
		if strings.Join(shown, "; ") != tt.want || !available {
			t.Errorf("%s: Feed gives %q, available %t; want %q", tt.name, shown, available, tt.want)
		}
	}
}

// FuzzFeed gives Feed any entry.
func FuzzFeed(f *testing.F) {
	digest := "sha256:" + strings.Repeat("a", 64)
	f.Add("demo/app:v1", "push artifact: demo/app@"+digest)
	f.Add("demo/app@"+digest, "")
	var body []byte
	c := cannedClient(f, func(*http.Request) (int, string, error) { return http.StatusOK, string(body), nil })
	f.Fuzz(func(t *testing.T, resource, description string) {
		var err error
		body, err = json.Marshal([]any{map[string]any{
			"op_time": "2026-11-22T05:00:00.000Z", "operation_result": true, "resource": resource, "operation_description": description,
		}})
		if err != nil {
			t.Skip()
		}
		got, available := feed(t, c, time.Time{}, time.Time{})
		if !available {
			t.Error("Feed is not available, though it has an entry")
		}
		for _, p := range got {
			by := p.Ref.Repository() + ":" + p.Tag
			if p.Tag == "" {
				by = p.Ref.String()
			}
			if p.Ref.IsZero() || by != resource {
				t.Errorf("Feed makes %+v of %q, %q", p, resource, description)
			}
		}
	})
}

func TestFeedOfTheEmulator(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	url := h.URL()
	boss := newClient(t, url, harbortest.DefaultAdminPassword, func(cfg *harbor.Config) { cfg.PageSize = 2 })
	if got, available := feed(t, boss, time.Time{}, time.Time{}); available || len(got) != 0 {
		t.Errorf("a Harbor without pushes: %v, available %t; want not", got, available)
	}
	post(t, url+"/api/v2.0/projects", map[string]any{"project_name": "2024"})
	var want []string
	for i := range 5 {
		image := randomImage(t)
		push(t, h, fmt.Sprintf("2024/team/app:v%d", i), image)
		want = append(want, fmt.Sprintf("2024/team/app@%s v%d", digestOf(t, image), i))
	}
	started := time.Now()
	reader := robotWith(t, h, "reader", "system", "/", "audit-log:list")
	for name, c := range map[string]*harbor.Client{"admin": boss, "a robot with the right": reader} {
		got, available := feed(t, c, started.Add(-time.Minute), started.Add(time.Minute))
		var shown []string
		for _, p := range got {
			shown = append(shown, p.Ref.String()+" "+p.Tag)
			if p.By != "admin" {
				t.Errorf("%s: pushed by %q, want admin", name, p.By)
			}
		}
		slices.Sort(shown)
		slices.Sort(want)
		if !available || !slices.Equal(shown, want) {
			t.Errorf("%s: Feed gives %v, available %t; want %v", name, shown, available, want)
		}
		if got, available := feed(t, c, started.Add(time.Hour), started.Add(2*time.Hour)); !available || len(got) != 0 {
			t.Errorf("%s: a quiet time: %v, available %t; want nothing, available", name, got, available)
		}
	}
	if got, available := feed(t, robot(t, h, "signer", "repository", "pull"), started.Add(-time.Minute), started.Add(time.Minute)); available || len(got) != 0 {
		t.Errorf("a robot without the right: %v, available %t; want not", got, available)
	}
	h.SetVersion("v2.12.0")
	if got, available := feed(t, boss, started.Add(-time.Minute), started.Add(time.Minute)); available || len(got) != 0 {
		t.Errorf("Harbor 2.12: %v, available %t; want not", got, available)
	}
	stop := fault.New(fault.Transient, fault.QueueFull, context.Canceled)
	h.SetVersion("")
	_, err := boss.Feed(t.Context(), time.Time{}, time.Time{}, func(context.Context, []artifact.Pushed) error { return stop })
	if err == nil || fault.Of(err).Reason != fault.QueueFull {
		t.Errorf("an error of the callback: %v, want it back", err)
	}
}
