//go:build e2e

package e2e_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// sweeper is a system whose projects' webhooks are all lost: nothing but sweeps tells it of a push. Full sweeps come when
// the test asks for them, and recent ones hourly, unless an option says otherwise.
type sweeper struct {
	*managed
	ledger *harness.Ledger
}

// newSweeper starts a system with enabled projects, which all that is pushed from now on is silently pushed into.
func newSweeper(t *testing.T, h *harness.Harbor, projects []string, options ...option) *sweeper {
	t.Helper()
	site, err := harness.NewSite(t.Context(), h, projects...)
	if err != nil {
		t.Fatalf("preparing Harbor: %v", err)
	}
	s := newSweeperOn(t, site, projects, options...)
	for _, project := range projects {
		s.begin(t, project, settings{"backfill": "all"})
	}
	return s
}

// newSweeperOn starts a system for a site that is removed with the test, and enables nothing.
func newSweeperOn(t *testing.T, site *harness.Site, projects []string, options ...option) *sweeper {
	t.Helper()
	rarely := func(o *harness.Options) {
		// A drift check would repair the webhooks.
		o.EditReceiver = func(c harness.Config) { harness.Set(c, "24h", "drift", "interval") }
	}
	s := &sweeper{managed: newManagedOn(t, site, projects, append([]option{rarely}, options...)...)}
	var err error
	if s.ledger, err = s.OpenLedger(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.ledger.Close)
	return s
}

// begin enables a project, waits for the sweep that belongs to it, and has its webhooks lost from then on.
func (s *sweeper) begin(t *testing.T, project string, policy settings) {
	t.Helper()
	before := s.sweptSoFar(t, project)
	s.enable(t, project, policy)
	policies := "/api/v2.0/projects/" + project + "/webhook/policies"
	for _, webhook := range rawWebhooks(t, s.site.Harbor, project) {
		webhook["enabled"] = false
		ask(t, s.site.Harbor, http.MethodPut, fmt.Sprintf("%s/%v", policies, webhook["id"]), webhook, http.StatusOK, nil)
	}
	s.awaitSwept(t, project, before+1, env.patience)
}

// rawWebhooks gives the webhook policies of a project with everything that Harbor shows.
func rawWebhooks(t *testing.T, h *harness.Harbor, project string) []map[string]any {
	t.Helper()
	var all []map[string]any
	ask(t, h, http.MethodGet, "/api/v2.0/projects/"+project+"/webhook/policies?page_size=100", nil, http.StatusOK, &all)
	return all
}

// swept gives the summaries of a project's full sweeps, oldest first.
func (s *sweeper) swept(ctx context.Context, project string) ([]harness.Sweep, error) {
	events, err := s.ledger.Events(ctx, "swept")
	if err != nil {
		return nil, err
	}
	var all []harness.Sweep
	for _, e := range events {
		if e.Project == project && e.Sweep != nil {
			all = append(all, *e.Sweep)
		}
	}
	return all, nil
}

// sweptSoFar is how often a project was swept.
func (s *sweeper) sweptSoFar(t *testing.T, project string) int {
	t.Helper()
	all, err := s.swept(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// awaitSwept waits until a project was swept so many times, and gives the last summary.
func (s *sweeper) awaitSwept(t *testing.T, project string, times int, patience time.Duration) harness.Sweep {
	t.Helper()
	var last harness.Sweep
	err := harness.Until(t.Context(), patience, func(ctx context.Context) error {
		all, err := s.swept(ctx, project)
		if err == nil && len(all) < times {
			err = fmt.Errorf("%s was swept %d times, want %d", project, len(all), times)
		}
		if err == nil {
			last = all[len(all)-1]
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, s.Tails())
	}
	return last
}

// sweepNow asks for a full sweep of a project into which nobody pushes, waits for its end, and compares its summary with
// what Harbor lists.
func (s *sweeper) sweepNow(t *testing.T, project string) harness.Sweep {
	t.Helper()
	before := s.sweptSoFar(t, project)
	s.sweep(t, project)
	sum := s.awaitSwept(t, project, before+1, env.patience)
	s.judgeSummary(t, project, sum)
	return sum
}

// judgeSummary compares a summary with Harbor's own listing.
func (s *sweeper) judgeSummary(t *testing.T, project string, sum harness.Sweep) {
	t.Helper()
	listed, err := s.site.Harbor.Population(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	refs := make([]string, len(listed))
	for i, a := range listed {
		refs[i] = a.Repository + "@" + a.Digest + "\n"
	}
	slices.Sort(refs)
	digest := sha256.Sum256([]byte(strings.Join(refs, "")))
	if sum.Population != len(refs) || sum.HarborCount != len(refs) || sum.Digest != hex.EncodeToString(digest[:]) {
		t.Errorf("the sweep of %s counts %d manifests, %d by Harbor, with the digest %s; want %d with %x",
			project, sum.Population, sum.HarborCount, sum.Digest, len(refs), digest)
	}
	found := sum.Signed + sum.Requested + sum.Pending + sum.Failed + sum.Excluded + sum.Unsigned
	if found != sum.Population {
		t.Errorf("the sweep of %s says what it found of %d manifests, want all %d: %+v", project, found, sum.Population, sum)
	}
}

// found are the numbers of a summary that a test says something about.
type found struct {
	Signed, Requested, Failed, Unsigned, Gone, Removed int
}

// finds sweeps a project and compares what was found.
func (s *sweeper) finds(t *testing.T, project string, want found) {
	t.Helper()
	sum := s.sweepNow(t, project)
	got := found{sum.Signed, sum.Requested, sum.Failed, sum.Unsigned, sum.Gone, sum.Removed}
	if got != want {
		t.Errorf("the sweep of %s finds %+v, want %+v", project, got, want)
	}
}

// pushSigned pushes an image and has it signed.
func (s *sweeper) pushSigned(t *testing.T, repository, tag string) harness.Pushed {
	t.Helper()
	p := s.pushAside(t, repository, tag)
	s.sweepNow(t, strings.SplitN(repository, "/", 2)[0])
	s.awaitSigned(t, p)
	s.settled(t)
	return p
}

// unsign deletes the signatures of an image that the report names, and gives the digests of the manifests that carried them.
func (s *sweeper) unsign(t *testing.T, p harness.Pushed) []string {
	t.Helper()
	var digests []string
	for _, signature := range s.audit(t.Context(), t, p).Signatures {
		digests = append(digests, signature.Digest)
		if err := s.site.Harbor.DeleteArtifact(t.Context(), p.Repository, signature.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if len(digests) == 0 {
		t.Fatalf("the report names no signature of %s@%s", p.Repository, p.Digest)
	}
	slices.Sort(digests)
	return digests
}

// removed gives the digests of the signatures of which the ledger says that they have vanished from an image.
func (s *sweeper) removed(t *testing.T, p harness.Pushed) [][]string {
	t.Helper()
	events, err := s.ledger.Events(t.Context(), "removed")
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for _, e := range events {
		if e.Ref != p.Repository+"@"+p.Digest {
			continue
		}
		var digests []string
		for _, signature := range e.Signatures {
			digests = append(digests, signature.Digest)
		}
		slices.Sort(digests)
		all = append(all, digests)
	}
	return all
}

// signings is how often the ledger says that an image was signed, or found to be.
func (s *sweeper) signings(ctx context.Context, p harness.Pushed) (n int, err error) {
	events, err := s.ledger.Events(ctx, "signed")
	for _, e := range events {
		if e.Ref == p.Repository+"@"+p.Digest {
			n++
		}
	}
	return n, err
}

// awaitSignings waits until the ledger has said so many times that an image was signed, and the report says so too.
func (s *sweeper) awaitSignings(t *testing.T, p harness.Pushed, want int) {
	t.Helper()
	s.until(t, func(ctx context.Context) error {
		got, err := s.signings(ctx, p)
		if err == nil && got < want {
			err = fmt.Errorf("%s@%s was signed %d times, want %d", p.Repository, p.Digest, got, want)
		}
		return err
	})
	s.awaitSigned(t, p)
	s.settled(t)
}

// verifies runs the cosign programs on an image.
func (s *sweeper) verifies(t *testing.T, key string, pushed ...harness.Pushed) {
	t.Helper()
	for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
		if err := s.client(t, variable).Verify(t.Context(), key, s.images(pushed...)...); err != nil {
			t.Error(err)
		}
	}
}

// await is until for a condition that asks with the test's own context.
func (w *world) await(t *testing.T, condition func() error) {
	t.Helper()
	w.until(t, func(context.Context) error { return condition() })
}

// sum adds up what all signers that run say of a metric.
func (w *world) sum(ctx context.Context, name string, labels ...string) (float64, error) {
	sum := 0.0
	for _, signer := range w.Signers {
		if signer.Process == nil || !signer.Process.Running() {
			continue
		}
		m, err := w.Metrics(ctx, signer)
		if err != nil {
			return 0, err
		}
		sum += m.Sum(name, labels...)
	}
	return sum, nil
}

// count is what all signers say of a metric now.
func (w *world) count(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	sum, err := w.sum(t.Context(), name, labels...)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// awaitCount waits until all signers together say so much of a metric.
func (w *world) awaitCount(t *testing.T, want float64, name string, labels ...string) {
	t.Helper()
	w.until(t, func(ctx context.Context) error {
		got, err := w.sum(ctx, name, labels...)
		if err == nil && got < want {
			err = fmt.Errorf("%s %q is %v, want at least %v", name, labels, got, want)
		}
		return err
	})
}
