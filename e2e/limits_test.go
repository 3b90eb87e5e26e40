//go:build e2e

package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// lockTags makes a rule by which tags of a project cannot be moved, nor deleted before it is gone.
func (s *stage) lockTags(t *testing.T, project string) (unlock func()) {
	t.Helper()
	rule := map[string]any{
		"action": "immutable", "template": "immutable_template",
		"tag_selectors": []any{map[string]string{"kind": "doublestar", "decoration": "matches", "pattern": "**"}},
		"scope_selectors": map[string]any{
			"repository": []any{map[string]string{"kind": "doublestar", "decoration": "repoMatches", "pattern": "**"}},
		},
	}
	path := "/api/v2.0/projects/" + project + "/immutabletagrules"
	header := ask(t, s.site.Harbor, http.MethodPost, path, rule, http.StatusCreated, nil)
	_, id, _ := strings.Cut(header.Get("Location"), "/immutabletagrules/")
	return func() {
		t.Helper()
		ask(t, s.site.Harbor, http.MethodDelete, path+"/"+id, nil, http.StatusOK, nil)
	}
}

// pushLocked pushes an image whose .sig tag a rule keeps as somebody else's signature left it.
func (s *stage) pushLocked(t *testing.T, project string) (p harness.Pushed, unlock func()) {
	t.Helper()
	img, err := harness.NewImage(false)
	s.silently(t, func() {
		p = s.pushTo(t, project+"/app", "v1", img, err)
		s.signLegacy(t, otherKeys(t), p)
	})
	unlock = s.lockTags(t, project)
	s.tell(t, p)
	return p, unlock
}

// Where an immutability rule locks a .sig tag, a bundle stands in for the signature there, and the report says so.
func TestLockedTag(t *testing.T) {
	t.Parallel()
	s := newStage(t, env.harbor, 3, inEachFormat)
	for i, format := range formats() {
		t.Run(format, func(t *testing.T) {
			p, unlock := s.pushLocked(t, s.projects[i])
			defer unlock()
			s.awaitSigned(t, p)
			s.settled(t)
			row := s.audit(t.Context(), t, p)
			if row.How != "made" || row.Format != "bundle" || len(row.Signatures) != 1 {
				t.Errorf("the report says %+v, want one bundle that was made", row)
			}
			if format == "bundle" {
				if row.Note != "" {
					t.Errorf("the report's note is %q, want none: nobody asked for the tag", row.Note)
				}
			} else if !strings.Contains(row.Note, checker.SignatureTag(p.Digest)) || !strings.Contains(row.Note, "tags matching ** in repositories matching **") {
				t.Errorf("the report's note is %q, want the tag and the rule", row.Note)
			}
			if layers, err := s.legacyLayers(t.Context(), t, p); err != nil || len(layers) != 1 {
				t.Errorf("under the locked tag stand %d signatures (%v), want the one that was there", len(layers), err)
			}
			for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
				if err := s.client(t, variable).Verify(t.Context(), s.Keys.Public, s.image(p)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A Harbor before 2.15 takes no bundle for a signature: what asks for one, or cannot do without, becomes a dead letter that
// says what to do. What leaves the choice to the service is signed as it always was.
func TestOlderHarbor(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v2.14.1", "v2.11.2"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, newEmulator(t, version), 3, func(projects []string) option {
				return func(o *harness.Options) {
					o.Policies = []harness.Config{{"projects": []string{projects[1]}, "backfill": "all", "format": "bundle"}}
				}
			})
			img, err := harness.NewImage(false)
			auto := s.pushTo(t, s.projects[0]+"/app", "v1", img, err)
			img, err = harness.NewImage(false)
			bundle := s.pushTo(t, s.projects[1]+"/app", "v1", img, err)
			locked, unlock := s.pushLocked(t, s.projects[2])
			defer unlock()
			s.awaitSigned(t, auto)
			s.judgeDead(t, bundle, "unsupported_format", version, "2.15")
			s.judgeDead(t, locked, "immutable", "tags matching ** in repositories matching **", "sha256-*.sig", version)
			if got := len(s.referrers(t, bundle)); got != 0 {
				t.Errorf("%d manifests were attached to what cannot be signed, want none", got)
			}
			if got := len(s.signatureBundles(t, locked)); got != 0 {
				t.Errorf("%d bundles were attached, which this Harbor takes for nothing, want none", got)
			}
			// A sweep finds what no webhook told of, also where Harbor lists the images of a project in the old way.
			var swept harness.Pushed
			s.silently(t, func() {
				img, err := harness.NewImage(false)
				swept = s.pushTo(t, s.projects[0]+"/swept", "v1", img, err)
			})
			s.reconfigure(t, s.Signers[0], func(c harness.Config) { harness.Set(c, "1s", "sweep", "full") })
			s.awaitSigned(t, swept)
			for _, p := range []harness.Pushed{auto, swept} {
				s.judgeCarried(t, p, "legacy")
				if row := s.audit(t.Context(), t, p); row.Format != "legacy" || row.Note != "" {
					t.Errorf("the report says %+v, want format legacy without a note", row)
				}
			}
		})
	}
}

// judgeDead waits until somebody has to do something, and looks whether the report says what.
func (s *stage) judgeDead(t *testing.T, p harness.Pushed, reason string, texts ...string) {
	t.Helper()
	s.awaitState(t, p, "dead")
	row := s.audit(t.Context(), t, p)
	if row.Reason != reason {
		t.Errorf("the reason is %q (%s), want %s", row.Reason, row.Detail, reason)
	}
	for _, text := range texts {
		if !strings.Contains(row.Detail, text) {
			t.Errorf("the detail is %q, want it to say %q", row.Detail, text)
		}
	}
}

// A project without room becomes a dead letter with Harbor's own sizes. Once there is room, the next push of the image
// signs it.
func TestQuotaFull(t *testing.T) {
	t.Parallel()
	s := newStage(t, env.harbor, 1, onlyFormat("both"))
	img, err := harness.NewImage(false)
	var p harness.Pushed
	s.silently(t, func() { p = s.pushTo(t, s.project+"/app", "v1", img, err) })
	var project struct {
		ID int `json:"project_id"`
	}
	ask(t, s.site.Harbor, http.MethodGet, "/api/v2.0/projects/"+s.project, nil, http.StatusOK, &project)
	var quotas []struct {
		ID   int
		Used struct{ Storage int }
	}
	path := fmt.Sprintf("/api/v2.0/quotas?reference=project&reference_id=%d", project.ID)
	ask(t, s.site.Harbor, http.MethodGet, path, nil, http.StatusOK, &quotas)
	if len(quotas) != 1 || quotas[0].Used.Storage == 0 {
		t.Fatalf("the project's quotas are %+v, want one, of which something is used", quotas)
	}
	setLimit := func(limit int) {
		t.Helper()
		body := map[string]any{"hard": map[string]int{"storage": limit}}
		ask(t, s.site.Harbor, http.MethodPut, fmt.Sprintf("/api/v2.0/quotas/%d", quotas[0].ID), body, http.StatusOK, nil)
	}
	setLimit(quotas[0].Used.Storage)
	s.tell(t, p)
	s.judgeDead(t, p, "quota_exceeded", "upper limit of", "iB")
	setLimit(-1)
	if err := s.developer.PutAgain(t.Context(), p, img); err != nil {
		t.Fatal(err)
	}
	s.awaitSigned(t, p)
	s.settled(t)
	s.judgeCarried(t, p, "both")
}
