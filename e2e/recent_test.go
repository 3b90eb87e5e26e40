//go:build e2e

package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// Where no webhook comes, a push is found by the next recent sweep: in Harbor's feed of pushes, or in its listings, which
// differ from version to version.
func TestPushesWithoutWebhooks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		version string // of an emulator of its own; empty for the suite's Harbor
		granted bool   // the robot may read the feed
		feed    bool   // this Harbor has one
	}{
		{"feed", "", true, true},
		{"listing of projects", "", false, false},
		{"v2.12.4", "v2.12.4", true, false},
		{"v2.11.2", "v2.11.2", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := env.harbor
			if tt.version != "" {
				h = newEmulator(t, tt.version)
			}
			testPushesWithoutWebhooks(t, h, tt.granted, tt.feed && hasFeed(t, h))
		})
	}
}

func testPushesWithoutWebhooks(t *testing.T, h *harness.Harbor, granted, feed bool) {
	t.Helper()
	projects := someProjects(2)
	site, err := harness.NewSite(t.Context(), h, projects...)
	if err != nil {
		t.Fatal(err)
	}
	if granted {
		if err := h.GrantFeed(t.Context(), site.Signer, harness.SignerRights(), projects...); err != nil {
			t.Fatal(err)
		}
	}
	s := newSweeperOn(t, site, projects, func(o *harness.Options) {
		o.EditSigner = func(c harness.Config) { harness.Set(c, "2s", "sweep", "incremental") }
	})
	for _, project := range projects {
		s.begin(t, project, settings{"backfill": "all"})
	}
	const sweeps, manifests = "harborseal_sweeps_total", "harborseal_sweep_manifests_total"
	recent, done, asked := `kind="recent"`, `outcome="done"`, `finding="requested"`
	s.awaitCount(t, 1, sweeps, recent, done)
	// A sweep is counted after it was recorded.
	s.awaitCount(t, float64(len(projects)), sweeps, `kind="full"`, done)
	full := s.count(t, sweeps, `kind="full"`, done)

	index, err := harness.NewIndex("linux/amd64")
	pushed := []harness.Pushed{s.pushTo(t, projects[0]+"/multi", "v1", index, err)}
	pushed = append(pushed, s.pushAside(t, projects[0]+"/deeply/nested/app", ""), s.pushAside(t, projects[1]+"/app", "v1"))
	before := s.count(t, sweeps, recent, done)
	// Manifests of the index may be found by its signer before.
	s.awaitCount(t, float64(len(pushed)), manifests, recent, asked)
	// One sweep may have passed already, and Harbor's times have whole seconds in places.
	if after := s.count(t, sweeps, recent, done); after > before+2 {
		t.Errorf("it took the end of %v recent sweeps to find the pushes, want at most 2", after-before)
	}
	s.awaitSigned(t, pushed...)
	s.settled(t)
	s.pushed = append(s.pushed, slices.Concat(pushed[0].All(), pushed[1:])...)
	s.judge(t)
	for _, p := range s.pushed {
		if row := s.audit(t.Context(), t, p); row.ReceivedAt != nil {
			t.Errorf("%s has a webhook of %s, want none", p.Digest, row.ReceivedAt)
		}
	}
	if got := s.count(t, "harborseal_sweep_feed_available") == 1; got != feed {
		t.Errorf("recent sweeps use the feed: %v, want %v", got, feed)
	}
	// What the signatures themselves are pushed with is not asked for.
	all := s.count(t, manifests, recent, asked)
	s.awaitCount(t, s.count(t, sweeps, recent, done)+2, sweeps, recent, done)
	if got := s.count(t, manifests, recent, asked); got != all {
		t.Errorf("recent sweeps have asked for %v manifests more after everything was signed, want none", got-all)
	}
	s.confirmed(t, feed)
	if got := s.count(t, sweeps, `kind="full"`, done); got != full {
		t.Errorf("%v full sweeps came in between: this test tests nothing", got-full)
	}
}

// hasFeed says whether this Harbor is recent enough for a feed of all pushes.
func hasFeed(t *testing.T, h *harness.Harbor) bool {
	t.Helper()
	const first = 13
	var info struct {
		Version string `json:"harbor_version"`
	}
	ask(t, h, http.MethodGet, "/api/v2.0/systeminfo", nil, http.StatusOK, &info)
	var major, minor int
	if _, err := fmt.Sscanf(strings.TrimPrefix(info.Version, "v"), "%d.%d", &major, &minor); err != nil {
		t.Fatalf("reading the version %q: %v", info.Version, err)
	}
	return major > 2 || minor >= first
}

// confirmed looks whether each push is confirmed once where Harbor's feed tells of it, with who pushed, and that nothing else is:
// no signature, and no push of which a listing alone has told. Recent sweeps have ended since.
func (s *sweeper) confirmed(t *testing.T, feed bool) {
	t.Helper()
	want := map[string]bool{}
	if feed {
		for _, p := range s.pushed {
			want[p.Repository+"@"+p.Digest] = true
		}
	}
	events, err := s.ledger.Events(t.Context(), "push_confirmed")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if !want[e.Ref] || e.Pusher == "" || e.Actor != e.Pusher || e.PushedAt.IsZero() {
			t.Errorf("confirmed once more, or by nobody, or not to be confirmed: %+v", e)
		}
		delete(want, e.Ref)
	}
	if len(want) > 0 {
		t.Errorf("not confirmed: %v", want)
	}
}
