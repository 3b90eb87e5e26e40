//go:build e2e

package e2e_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// sweepCase is one thing that happens behind the service's back, in a project of its own. The second project is for whatever
// needs two.
type sweepCase struct {
	*sweeper
	t               *testing.T
	project, second string
}

// What somebody does to signatures and images in Harbor behind the service's back is found by the next full sweep. Each
// case has a project of its own.
func TestSweepFinds(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		run  func(c sweepCase)
	}{
		{"signature removed", sweepCase.signatureRemoved},
		{"signature removed where that is only told", sweepCase.removalTold},
		{"signatures of others", sweepCase.onlyForeign},
		{"tag of an older signature", sweepCase.tagMovedBack},
		{"image deleted", sweepCase.imageDeleted},
		{"pull policy", sweepCase.pullPolicyInside},
		{"tags locked", sweepCase.lockedInside},
		{"copy", sweepCase.copied},
	}
	projects := someProjects(len(cases) + 1)
	site, err := harness.NewSite(t.Context(), env.harbor, projects...)
	if err != nil {
		t.Fatal(err)
	}
	rights := append(harness.SignerRights(), "immutable-tag:list")
	if err := env.harbor.UpdateRobot(t.Context(), site.Signer, rights, projects...); err != nil {
		t.Fatal(err)
	}
	s := newSweeperOn(t, site, projects)
	for i, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			tt.run(sweepCase{sweeper: s, t: t, project: projects[i], second: projects[len(cases)]})
		})
	}
}

// A signature that was deleted becomes an event, and the image is signed again: once.
func (c sweepCase) signatureRemoved() {
	t, s, project := c.t, c.sweeper, c.project
	s.begin(t, project, settings{"backfill": "all"})
	p := s.pushSigned(t, project+"/app", "v1")
	other := s.pushSigned(t, project+"/team/other", "v1")
	deleted := s.unsign(t, p)
	s.finds(t, project, found{Signed: 1, Requested: 1, Removed: len(deleted)})
	s.awaitSignings(t, p, 2)
	if got := s.removed(t, p); len(got) != 1 || !slices.Equal(got[0], deleted) {
		t.Errorf("the ledger tells of removed signatures %q, want once of %q", got, deleted)
	}
	if got := s.removed(t, other); got != nil {
		t.Errorf("the ledger tells of removed signatures %q of an image that has its own, want none", got)
	}
	s.verifies(t, s.Keys.Public, p, other)
	s.finds(t, project, found{Signed: 2})
	// And once more, though the event of before has the same image.
	deleted = s.unsign(t, p)
	s.finds(t, project, found{Signed: 1, Requested: 1, Removed: len(deleted)})
	s.awaitSignings(t, p, 3)
	s.verifies(t, s.Keys.Public, p)
	if got := s.removed(t, p); len(got) != 2 {
		t.Errorf("the ledger tells of removed signatures %q, want twice", got)
	}
}

// With restore: alert there is the event, and nobody signs.
func (c sweepCase) removalTold() {
	t, s, project := c.t, c.sweeper, c.project
	s.begin(t, project, settings{"backfill": "all", "restore": "alert"})
	p := s.pushSigned(t, project+"/app", "v1")
	deleted := s.unsign(t, p)
	for _, told := range []int{len(deleted), 0} {
		s.finds(t, project, found{Unsigned: 1, Removed: told})
		s.awaitState(t, p, "unsigned")
		s.settled(t)
		s.unsigned(t, p)
		if got := s.removed(t, p); len(got) != 1 || !slices.Equal(got[0], deleted) {
			t.Errorf("the ledger tells of removed signatures %q, want once of %q", got, deleted)
		}
	}
	// Whoever wants it signed again all the same says so.
	s.begin(t, project, settings{"backfill": "all", "restore": "sign"})
	s.awaitSigned(t, p)
	s.settled(t)
	s.verifies(t, s.Keys.Public, p)
}

// Only garbage, or the signature of somebody else, stands where ours should be: ours is put beside it.
func (c sweepCase) onlyForeign() {
	t, s, project := c.t, c.sweeper, c.project
	s.begin(t, project, settings{"backfill": "all"})
	keys := otherKeys(t)
	foreign := s.pushAside(t, project+"/foreign", "v1")
	s.signLegacy(t, keys, foreign)
	garbage := s.pushAside(t, project+"/garbage", "v1")
	s.attach(t, garbage, []byte("garbage"))
	s.finds(t, project, found{Requested: 2})
	s.awaitSigned(t, foreign, garbage)
	s.settled(t)
	s.verifies(t, s.Keys.Public, foreign, garbage)
	cosign := s.client(t, harness.EnvCosignV3)
	if _, err := cosign.Run(t.Context(), append(cosign.VerifyArgs(keys.Public, s.image(foreign)), harness.LegacyOnly)...); err != nil {
		t.Errorf("the signature of somebody else: %v", err)
	}
	s.finds(t, project, found{Signed: 2})
}

// Harbor lists a signature manifest that the .sig tag has left as if nothing had happened.
func (c sweepCase) tagMovedBack() {
	t, s, project := c.t, c.sweeper, c.project
	s.begin(t, project, settings{"backfill": "all"})
	keys := otherKeys(t)
	p := s.pushAside(t, project+"/app", "v1")
	s.signLegacy(t, keys, p)
	moveBack := s.remember(t, p)
	s.finds(t, project, found{Requested: 1})
	s.awaitSigned(t, p)
	s.settled(t)
	s.finds(t, project, found{Signed: 1})
	moveBack()
	if layers, err := s.legacyLayers(t.Context(), t, p); err != nil || len(layers) != 1 {
		t.Fatalf("the tag holds %d signatures, %v, want the older one", len(layers), err)
	}
	// The signature is read and checked again, and the tag is put where it was: no key signs anything.
	if sum := s.sweepNow(t, project); sum.Verified != 1 || sum.Signed != 1 {
		t.Errorf("the sweep has verified %d and found %d signed, want the one", sum.Verified, sum.Signed)
	}
	if layers, err := s.legacyLayers(t.Context(), t, p); err != nil || len(layers) != 2 {
		t.Errorf("the tag holds %d signatures (%v), want ours and the older one", len(layers), err)
	}
	s.verifies(t, s.Keys.Public, p)
}

// What was deleted is called gone, and not failed, nor signed.
func (c sweepCase) imageDeleted() {
	t, s, project := c.t, c.sweeper, c.project
	s.begin(t, project, settings{"backfill": "all"})
	kept := s.pushSigned(t, project+"/app", "v1")
	p := s.pushSigned(t, project+"/app", "v2")
	if err := s.site.Harbor.DeleteArtifact(t.Context(), p.Repository, p.Digest); err != nil {
		t.Fatal(err)
	}
	s.finds(t, project, found{Signed: 1, Gone: 1})
	s.awaitState(t, p, "gone")
	s.finds(t, project, found{Signed: 1})
	// The last one, too: an empty listing is no reason to doubt.
	if err := s.site.Harbor.DeleteArtifact(t.Context(), kept.Repository, kept.Digest); err != nil {
		t.Fatal(err)
	}
	s.finds(t, project, found{Gone: 1})
	s.awaitState(t, kept, "gone")
}

// Where the pull policy is switched on with unsigned images inside, all of them can be pulled in the end, each platform.
func (c sweepCase) pullPolicyInside() {
	t, s, project := c.t, c.sweeper, c.project
	s.begin(t, project, settings{"backfill": "all"})
	ctx := t.Context()
	index, err := harness.NewIndex("linux/amd64", "linux/arm64")
	p := s.pushTo(t, project+"/multi", "v1", index, err)
	untagged := s.pushAside(t, project+"/deeply/nested/app", "")
	if err := s.site.Harbor.SetPullPolicy(ctx, project, true); err != nil {
		t.Fatal(err)
	}
	all := append(p.All(), untagged)
	for _, one := range all {
		err := s.developer.Pull(ctx, one)
		if err == nil || !strings.Contains(err.Error(), "412") && !strings.Contains(err.Error(), "PROJECTPOLICYVIOLATION") {
			t.Errorf("pulling unsigned %s@%s: %v, want a refusal by policy", one.Repository, one.Digest, err)
		}
	}
	s.finds(t, project, found{Requested: len(all)})
	s.awaitSigned(t, p, untagged)
	for _, one := range all {
		if err := s.developer.Pull(ctx, one); err != nil {
			t.Errorf("pulling signed %s@%s: %v", one.Repository, one.Digest, err)
		}
	}
	s.settled(t)
	s.finds(t, project, found{Signed: len(all)})
}

// A rule that locks a .sig tag of somebody else's: a bundle stands in, and the next sweep does not ask for more.
func (c sweepCase) lockedInside() {
	t, s, project := c.t, c.sweeper, c.project
	if both, err := s.site.Harbor.Bundles(t.Context()); err != nil || !both {
		t.Fatalf("this Harbor takes no bundle for a signature (%v): it is before 2.15, and TestOlderHarbor is about those", err)
	}
	p := s.pushAside(t, project+"/app", "v1")
	s.signLegacy(t, otherKeys(t), p)
	unlock := s.lockTags(t, project)
	defer unlock()
	// Rules are remembered for some minutes: this one is there before anybody asks.
	s.begin(t, project, settings{"backfill": "all"})
	s.awaitSigned(t, p)
	s.settled(t)
	if row := s.audit(t.Context(), t, p); row.Format != "bundle" || !strings.Contains(row.Note, checker.SignatureTag(p.Digest)) {
		t.Errorf("the report says %+v, want a bundle, and a note about the tag", row)
	}
	s.verifies(t, s.Keys.Public, p)
	s.finds(t, project, found{Signed: 1})
}

// A digest in two projects has a signature in each; one that was copied is signed for where it is.
func (c sweepCase) copied() {
	t, s, project, second := c.t, c.sweeper, c.project, c.second
	for _, one := range []string{project, second} {
		s.begin(t, one, settings{"backfill": "all"})
	}
	img, err := harness.NewImage(false)
	original := s.pushTo(t, project+"/app", "v1", img, err)
	twin := s.pushTo(t, second+"/app", "v1", img, err)
	s.finds(t, project, found{Requested: 1})
	s.finds(t, second, found{Requested: 1})
	s.awaitSigned(t, original, twin)
	s.settled(t)
	copied := harness.Pushed{Repository: second + "/copied", Digest: original.Digest}
	path := "/api/v2.0/projects/" + second + "/repositories/copied/artifacts?from=" + url.QueryEscape(original.Repository+"@"+original.Digest)
	ask(t, s.site.Harbor, http.MethodPost, path, nil, http.StatusCreated, nil)
	s.finds(t, second, found{Signed: 1, Requested: 1})
	s.awaitSigned(t, copied)
	s.settled(t)
	s.verifies(t, s.Keys.Public, original, twin, copied)
	host := s.site.Harbor.Host + "/"
	for _, p := range []harness.Pushed{original, twin, copied} {
		if got := s.identities(t, p); !slices.Contains(got, host+p.Repository) {
			t.Errorf("the signatures of %s name %q, want its own name among them", p.Repository, got)
		}
	}
	deleted := s.unsign(t, twin)
	s.finds(t, project, found{Signed: 1})
	s.finds(t, second, found{Signed: 1, Requested: 1, Removed: len(deleted)})
}

// An image for whose signature there is no room becomes a dead letter. Once there is room, a sweep that somebody asks for
// has it signed, though those that come by themselves leave it alone.
func TestQuotaRaised(t *testing.T) {
	t.Parallel()
	project := someProjects(1)[0]
	s := newSweeper(t, env.harbor, []string{project})
	p := s.pushAside(t, project+"/app", "v1")
	limit := s.storage(t, project)
	limit(t, 0)
	s.finds(t, project, found{Requested: 1})
	s.judgeDead(t, p, "quota_exceeded", "upper limit of")
	limit(t, -1)
	s.reconfigure(t, s.Signers[0], func(c harness.Config) { harness.Set(c, "2s", "sweep", "full") })
	before := s.sweptSoFar(t, project)
	if sum := s.awaitSwept(t, project, before+2, env.patience); sum.Failed != 1 || sum.Requested != 0 {
		t.Errorf("a sweep that came by itself finds %+v, want the dead letter left alone", sum)
	}
	s.awaitState(t, p, "dead")
	s.reconfigure(t, s.Signers[0], func(c harness.Config) { harness.Set(c, "24h", "sweep", "full") })
	s.finds(t, project, found{Requested: 1})
	s.awaitSigned(t, p)
	s.settled(t)
	s.verifies(t, s.Keys.Public, p)
	s.finds(t, project, found{Signed: 1})
}

// storage gives a function that leaves a project so many bytes beside what it uses now; -1 is for no limit.
func (w *world) storage(t *testing.T, project string) (limit func(t *testing.T, more int)) {
	t.Helper()
	h := w.site.Harbor
	var found struct {
		ID int `json:"project_id"`
	}
	ask(t, h, http.MethodGet, "/api/v2.0/projects/"+project, nil, http.StatusOK, &found)
	var quotas []struct {
		ID   int
		Used struct{ Storage int }
	}
	ask(t, h, http.MethodGet, fmt.Sprintf("/api/v2.0/quotas?reference=project&reference_id=%d", found.ID), nil, http.StatusOK, &quotas)
	if len(quotas) != 1 || quotas[0].Used.Storage == 0 {
		t.Fatalf("the project's quotas are %+v, want one, of which something is used", quotas)
	}
	return func(t *testing.T, more int) {
		t.Helper()
		hard := more
		if more >= 0 {
			hard += quotas[0].Used.Storage
		}
		body := map[string]any{"hard": map[string]int{"storage": hard}}
		ask(t, h, http.MethodPut, fmt.Sprintf("/api/v2.0/quotas/%d", quotas[0].ID), body, http.StatusOK, nil)
	}
}
