//go:build e2e

package e2e_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// rotating is a system in the middle of a change of keys: one project has what the old key signed signed anew, another one
// does not.
type rotating struct {
	*sweeper
	eager, patient string
	old, next      harness.Keys
	oldID, nextID  string
	// images are one of each project, which the old key has signed.
	anew, kept harness.Pushed
}

// A key is followed by another one. Where the policy says so, everything gets a signature of the new key beside that of the
// old one; elsewhere that happens when the old key is revoked. The report names what only the old key has signed.
func TestResignOnRotation(t *testing.T) {
	t.Parallel()
	projects := someProjects(2)
	s := newSweeper(t, env.harbor, projects)
	r := &rotating{sweeper: s, eager: projects[0], patient: projects[1], old: s.Keys, next: otherKeys(t)}
	r.oldID, r.nextID = keyID(t, r.old.Public), keyID(t, r.next.Public)
	r.begin(t, r.eager, settings{"backfill": "all", "resign_on_rotation": true})
	index, err := harness.NewIndex("linux/amd64")
	r.anew = r.pushTo(t, r.eager+"/app", "v1", index, err)
	r.finds(t, r.eager, found{Requested: len(r.anew.All())})
	r.kept = r.pushSigned(t, r.patient+"/app", "v1")
	r.awaitSigned(t, r.anew)
	r.settled(t)

	r.testKeyFollows(t)
	r.testKeyRevoked(t)
}

// testKeyFollows makes the next key active beside the old one, which only verifies from now on.
func (r *rotating) testKeyFollows(t *testing.T) {
	t.Helper()
	both := len(r.anew.All())
	r.soleKey(t, r.oldID, append(r.anew.All(), r.kept)...)
	r.reconfigure(t, r.Signers[0], func(c harness.Config) {
		harness.Set(c, []harness.Config{activeKey("next", r.next), otherKey("image", "verify-only", r.old)}, "keys")
	})
	if sum := r.sweepNow(t, r.eager); sum.Requested != both || sum.Retired != both || sum.Removed != 0 {
		t.Errorf("the sweep asks for %d manifests, and finds %d by retired keys and %d removed, want %d, %d and none",
			sum.Requested, sum.Retired, sum.Removed, both, both)
	}
	for _, p := range r.anew.All() {
		r.awaitSignings(t, p, 2)
	}
	r.verifies(t, r.old.Public, r.anew)
	r.verifies(t, r.next.Public, r.anew)
	if sum := r.sweepNow(t, r.eager); sum.Signed != both || sum.Requested != 0 || sum.Retired != 0 {
		t.Errorf("the sweep behind it finds %+v, want all %d signed, and none by a retired key alone", sum, both)
	}
	if sum := r.sweepNow(t, r.patient); sum.Signed != 1 || sum.Requested != 0 || sum.Retired != 1 {
		t.Errorf("the sweep of the patient project finds %+v, want its image signed, by a retired key", sum)
	}
	r.soleKey(t, r.oldID, r.kept)
	r.soleKey(t, r.nextID)
	if err := r.client(t, harness.EnvCosignV3).Verify(t.Context(), r.next.Public, r.image(r.kept)); err == nil {
		t.Error("the next key has signed the image of the patient project, want it left alone")
	}
}

// testKeyRevoked takes the old key's word away.
func (r *rotating) testKeyRevoked(t *testing.T) {
	t.Helper()
	r.reconfigure(t, r.Signers[0], func(c harness.Config) {
		harness.Set(c, []harness.Config{activeKey("next", r.next), otherKey("image", "revoked", r.old)}, "keys")
	})
	if sum := r.sweepNow(t, r.patient); sum.Requested != 1 || sum.Removed != 0 {
		t.Errorf("the sweep asks for %d manifests, and finds %d removed, want the one and none", sum.Requested, sum.Removed)
	}
	r.awaitSignings(t, r.kept, 2)
	r.judgeKey(t, r.kept, r.nextID)
	r.verifies(t, r.next.Public, r.kept)
	if sum := r.sweepNow(t, r.eager); sum.Signed != len(r.anew.All()) || sum.Requested != 0 {
		t.Errorf("the sweep of the eager project finds %+v, want all signed", sum)
	}
	r.soleKey(t, r.oldID)
}

// soleKey waits until the report names exactly these as signed by one key alone.
func (r *rotating) soleKey(t *testing.T, id string, want ...harness.Pushed) {
	t.Helper()
	name := func(repository, digest string) string { return repository + "@" + digest }
	var names []string
	for _, p := range want {
		names = append(names, name(p.Repository, p.Digest))
	}
	slices.Sort(names)
	rows, err := r.Report().Rows(t.Context(), url.Values{"signed_only_by": {id}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range rows {
		got = append(got, name(row.Repository, row.Digest))
	}
	slices.Sort(got)
	if !slices.Equal(got, names) {
		t.Errorf("signed only by %.8s are, says the report,\n%s\nwant\n%s", id, strings.Join(got, "\n"), strings.Join(names, "\n"))
	}
}
