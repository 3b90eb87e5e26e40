//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// quickFormat is the one format that takes the fewest requests and no second look.
func quickFormat(t *testing.T, h *harness.Harbor) string {
	t.Helper()
	bundles, err := h.Bundles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if bundles {
		return "bundle"
	}
	return "legacy"
}

// ownHarbor is an emulator whose requests nobody else adds to, or the real Harbor.
func ownHarbor(t *testing.T) *harness.Harbor {
	t.Helper()
	if !env.harbor.Emulated {
		return env.harbor
	}
	return newEmulator(t, "")
}

// pushMany pushes many images silently.
func (s *sweeper) pushMany(t *testing.T, repository string, n int) []harness.Pushed {
	t.Helper()
	all, err := s.developer.PushMany(t.Context(), repository, n)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// awaitCovered waits until so many manifests of a project are signed.
func (s *sweeper) awaitCovered(t *testing.T, project string, want int) {
	t.Helper()
	err := harness.Until(t.Context(), env.patience+3*time.Minute, func(ctx context.Context) error {
		answer, err := s.Call(ctx, s.admin, http.MethodGet, "/api/v1/projects/"+project, nil, nil)
		var read struct{ Coverage coverage }
		if err == nil {
			err = answer.Decode(&read)
		}
		if err == nil && read.Coverage.Signed != want {
			err = fmt.Errorf("%d of %d manifests are signed, want %d", read.Coverage.Signed, read.Coverage.Population, want)
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, s.Tails())
	}
}

// A repository with 3,000 images is found by one sweep and signed by all signers. The next sweep reads no signature and
// writes nothing but its summary. One during which the receiver, and the queue with it, goes away ends well when it is back.
func TestManyImages(t *testing.T) {
	t.Parallel()
	const images = 3000
	h, project := ownHarbor(t), someProjects(1)[0]
	s := newSweeper(t, h, []string{project}, func(o *harness.Options) {
		o.Signers, o.AckWait, o.Format, o.Probe = 2, 30*time.Second, quickFormat(t, h), 5*time.Minute
	})
	all := s.pushMany(t, project+"/deeply/nested/app", images)
	// Each request to sign is safe on the disk before the sweep goes on.
	s.sweep(t, project)
	sum := s.awaitSwept(t, project, 2, env.patience+2*time.Minute)
	s.judgeSummary(t, project, sum)
	if sum.Requested != images {
		t.Errorf("the sweep asks for %d images, want all %d", sum.Requested, images)
	}
	s.awaitCovered(t, project, images)
	s.settled(t)
	s.judgeMany(t, all)
	for _, signer := range s.Signers {
		if m, err := s.Metrics(t.Context(), signer); err != nil || m.Sum("harborseal_signing_outcomes_total", `how="made"`) == 0 {
			t.Errorf("%s has signed nothing (%v), want the work shared", signer.Name, err)
		}
	}

	s.testNothingChanged(t, project, images)
	s.testReceiverAwayInSweep(t, project, images)
}

// judgeMany compares the report's rows with what was pushed, and looks at some of the images for themselves.
func (s *sweeper) judgeMany(t *testing.T, all []harness.Pushed) {
	t.Helper()
	rows, err := s.Report().Rows(t.Context(), url.Values{"limit": {"500"}, "state": {"signed"}})
	if err != nil {
		t.Fatal(err)
	}
	signed := make(map[string]bool)
	for _, row := range rows {
		signed[row.Digest] = true
	}
	for i, p := range all {
		if !signed[p.Digest] {
			t.Errorf("the report has no signed row of %s", p.Digest)
		}
		if i%(len(all)/10) != 0 {
			continue
		}
		_, violations, err := s.checker.Signed(t.Context(), p.Repository, p.Digest)
		if err != nil {
			t.Fatal(err)
		}
		complain(t, violations)
	}
}

// testNothingChanged sweeps a project in which everything is signed, and counts what that costs.
func (s *sweeper) testNothingChanged(t *testing.T, project string, images int) {
	t.Helper()
	const perPage = 100
	events, swept := s.ledgerLen(t), s.sweptSoFar(t, project)
	before := s.requestsSoFar(t)
	s.sweep(t, project)
	sum := s.awaitSwept(t, project, swept+1, env.patience)
	asked := s.requestsSoFar(t).minus(before)
	if sum.Signed != images || sum.Verified != 0 {
		t.Errorf("the second sweep finds %d signed and has verified %d, want %d and none", sum.Signed, sum.Verified, images)
	}
	if got := s.ledgerLen(t) - events; got != 1 {
		t.Errorf("the second sweep has written %d events, want its summary alone", got)
	}
	// A listing goes on by push times, in seconds: of hundreds that were pushed in one second some are listed twice.
	if least := images / perPage; sum.Requests < least || sum.Requests > least+least/2 {
		t.Errorf("the second sweep took %d requests, want at most 1.5 times the %d pages", sum.Requests, least)
	}
	if s.site.Harbor.Emulated {
		// Who asks for a sweep is looked up by the receiver.
		const access = 3
		if got := asked["GET api"]; got < sum.Requests || got > sum.Requests+access {
			t.Errorf("Harbor's API was asked %d times, want the %d of the sweep and at most %d more", got, sum.Requests, access)
		}
		delete(asked, "GET api")
		if len(asked) > 0 {
			t.Errorf("the second sweep has asked for %v, want listings alone", asked)
		}
	}
	s.judgeSummary(t, project, sum)
}

// testReceiverAwayInSweep stops the receiver, and the queue in it, in the middle of a sweep.
func (s *sweeper) testReceiverAwayInSweep(t *testing.T, project string, images int) {
	t.Helper()
	// The other signer would wait until this one has shown no sign of life for minutes.
	if err := s.Signers[1].Process.Stop(); err != nil {
		t.Fatal(err)
	}
	s.reconfigure(t, s.Signers[0], func(c harness.Config) {
		harness.Set(c, 20, "sweep", "page_size")
		harness.Set(c, 20, "sweep", "requests_per_second")
	})
	swept := s.sweptSoFar(t, project)
	s.sweep(t, project)
	s.awaitCount(t, 40, "harborseal_sweep_harbor_requests_total")
	if err := s.Receiver.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	s.awaitCount(t, 1, "harborseal_sweeps_total", `kind="full"`, `outcome="paused"`)
	if err := s.StartProgram(t.Context(), s.Receiver); err != nil {
		t.Fatal(err)
	}
	sum := s.awaitSwept(t, project, swept+1, env.patience+2*time.Minute)
	s.judgeSummary(t, project, sum)
	if sum.Signed != images || sum.Verified != 0 {
		t.Errorf("the sweep finds %d signed and has verified %d, want %d and none: no answer is no reason to doubt", sum.Signed, sum.Verified, images)
	}
}

// requestsSoFar is what the emulator has counted; nothing on a real Harbor.
func (w *world) requestsSoFar(t *testing.T) counted {
	t.Helper()
	if !w.site.Harbor.Emulated {
		return counted{}
	}
	stats, err := w.site.Harbor.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stats.Requests
}

// ledgerLen is how many events there are, without those that time and readers alone make.
func (s *sweeper) ledgerLen(t *testing.T) int {
	t.Helper()
	n, err := s.ledger.Len(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"checkpoint", "report_read"} {
		others, err := s.ledger.Events(t.Context(), kind)
		if err != nil {
			t.Fatal(err)
		}
		n -= len(others)
	}
	return n
}

// Full sweeps of several projects are shared by the signers, each done once. A signer that is killed in the middle of a large
// one is followed by another, which goes on where it was; nothing is signed twice.
func TestSweepsAreShared(t *testing.T) {
	t.Parallel()
	const images = 400
	h, projects := ownHarbor(t), someProjects(6)
	s := newSweeper(t, h, projects, func(o *harness.Options) {
		o.Signers, o.Format = 2, quickFormat(t, h)
		o.EditSigner = func(c harness.Config) {
			harness.Set(c, 10, "sweep", "page_size")
			harness.Set(c, 8, "sweep", "requests_per_second")
		}
	})
	// The summary of a sweep is written before it is counted.
	s.awaitCount(t, float64(len(projects)), "harborseal_sweeps_total", `kind="full"`, `outcome="done"`)
	swept := s.each(t, "harborseal_sweeps_total", `kind="full"`, `outcome="done"`)
	s.pushed = s.pushMany(t, projects[0]+"/app", images)
	for _, project := range projects[1:] {
		s.pushInto(t, project+"/app", "v1")
	}
	for _, project := range projects[1:] {
		s.sweep(t, project)
	}
	for _, project := range projects[1:] {
		s.awaitSwept(t, project, 2, env.patience)
	}
	s.awaitCount(t, float64(2*len(projects)-1), "harborseal_sweeps_total", `kind="full"`, `outcome="done"`)
	for i, n := range s.each(t, "harborseal_sweeps_total", `kind="full"`, `outcome="done"`) {
		if n == swept[i] {
			t.Errorf("%s has swept none of %d projects, want the work shared", s.Signers[i].Name, len(projects)-1)
		}
	}
	for _, project := range projects[1:] {
		if got := s.sweptSoFar(t, project); got != 2 {
			t.Errorf("%s was swept %d times, want once when it was enabled and once when it was asked for", project, got)
		}
	}
	s.testSignerKilledInSweep(t, projects[0], images)
}

// each gives what each signer says of a metric.
func (w *world) each(t *testing.T, name string, labels ...string) []float64 {
	t.Helper()
	all := make([]float64, len(w.Signers))
	for i, signer := range w.Signers {
		m, err := w.Metrics(t.Context(), signer)
		if err != nil {
			t.Fatal(err)
		}
		all[i] = m.Sum(name, labels...)
	}
	return all
}

func (s *sweeper) testSignerKilledInSweep(t *testing.T, project string, images int) {
	t.Helper()
	before := s.each(t, "harborseal_sweep_harbor_requests_total")
	s.sweep(t, project)
	// It is the one that asks Harbor for page after page. After ten of them it has saved where it is.
	const begun = 20
	at := -1
	s.await(t, func() error {
		for i, n := range s.each(t, "harborseal_sweep_harbor_requests_total") {
			if n >= before[i]+begun {
				at = i
				return nil
			}
		}
		return fmt.Errorf("no signer is in the middle of the sweep of %s", project)
	})
	killed := s.Signers[at]
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := s.sweptSoFar(t, project); got != 1 {
		t.Fatalf("%s was swept %d times before the signer was killed, want the first time alone", project, got)
	}
	// Another worker takes a sweep over three minutes after its last sign of life.
	const silent = 3 * time.Minute
	sum := s.awaitSwept(t, project, 2, silent+env.patience+time.Minute)
	if sum.Digest != "" {
		t.Errorf("the summary has the digest %s, want none: nobody has seen the whole population", sum.Digest)
	}
	if sum.Population < images {
		t.Errorf("the summary tells of %d manifests, want at least the %d", sum.Population, images)
	}
	if err := s.StartProgram(t.Context(), killed); err != nil {
		t.Fatal(err)
	}
	s.awaitCovered(t, project, images)
	s.settled(t)
	s.judgeMany(t, s.pushed[:images])
}
