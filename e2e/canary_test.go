//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// The canary tries the whole way by itself, cleans up, and is in no report. When the log is away it says so, also where images
// are signed without an entry for the time being.
func TestCanary(t *testing.T) {
	for _, logType := range []string{"rekor-v1", "rekor-v2"} {
		t.Run(logType, func(t *testing.T) {
			t.Parallel()
			if logType == "rekor-v2" {
				full(t)
			}
			testCanary(t, logType)
		})
	}
}

func testCanary(t *testing.T, logType string) {
	t.Helper()
	h := ownHarbor(t)
	p := newProofs(t, logType)
	s := newStage(t, h, 1, func([]string) option { return p.asked("off", "optional") })
	project := s.other
	s.sing(t, project)
	labels := []string{`key="image"`, `log="rekor"`}
	err := harness.Until(t.Context(), 2*time.Minute, func(ctx context.Context) error {
		return s.sang(ctx, 2, labels...)
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, s.Tails())
	}
	s.silent(t, project)
	if long() {
		s.singWithoutLog(t, p, project, labels)
	}
	s.noneDead(t)
}

// singWithoutLog takes the log away from a canary that may be signed without an entry for the time being.
func (s *stage) singWithoutLog(t *testing.T, p *proofs, project string, labels []string) {
	t.Helper()
	p.dns.Remove(logName)
	for _, front := range []*harness.Front{p.log, p.tiles} {
		if front == nil {
			continue
		}
		if err := front.Cause(t.Context(), harness.Trouble{}); err != nil { // nobody stays connected
			t.Fatal(err)
		}
	}
	// A trial waits a minute for its entry.
	err := harness.Until(t.Context(), 2*time.Minute, func(ctx context.Context) error {
		metrics, err := s.Metrics(ctx, s.Signers[0])
		if err == nil && metrics.Sum("harborseal_canary_failures_total", append(labels, `step="log"`)...) == 0 {
			err = errors.New("no trial has failed for its log entry")
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, s.Tails())
	}
	metrics, err := s.Metrics(t.Context(), s.Signers[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"push", "webhook", "signature", "cleanup"} {
		if n := metrics.Sum("harborseal_canary_failures_total", `step="`+step+`"`); n > 0 {
			t.Errorf("%v trials have failed at the step %s, want none", n, step)
		}
	}
	p.dns.Set(logName, netip.MustParseAddr("127.0.0.1"))
	sung := metrics.Sum("harborseal_canary_last_success_timestamp_seconds", labels...)
	s.until(t, func(ctx context.Context) error {
		metrics, err := s.Metrics(ctx, s.Signers[0])
		if err == nil && metrics.Sum("harborseal_canary_last_success_timestamp_seconds", labels...) <= sung {
			err = errors.New("no trial has succeeded since the log is back")
		}
		return err
	})
	s.silent(t, project)
}

// sing makes a project the canary, and lets the signer try it with a robot of its own that has the rights of the documentation.
func (s *stage) sing(t *testing.T, project string) {
	t.Helper()
	h, lasting := s.site.Harbor, context.WithoutCancel(t.Context())
	rights := []string{"repository:pull", "repository:push", "artifact:list", "artifact:delete"}
	robot, err := h.CreateRobot(t.Context(), harness.Random("canary-"), rights, project)
	if err != nil {
		t.Fatal(err)
	}
	done := env.later(func() { _ = h.DeleteRobot(lasting, robot.ID) })
	t.Cleanup(func() {
		defer done()
		if err := h.DeleteRobot(lasting, robot.ID); err != nil {
			t.Errorf("cleaning up in Harbor: %v", err)
		}
	})
	s.reconfigure(t, s.Receiver, func(c harness.Config) {
		policy := harness.Config{"projects": []string{project}, "backfill": "all", "canary": true, "transparency": "deferred", "log": "rekor"}
		c["policies"] = append(listOf(t, c, "policies"), policy)
	})
	if _, err := s.AddWebhook(t.Context(), project, "Default"); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(s.dir, "canary.secret")
	if err := os.WriteFile(secret, []byte(robot.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reconfigure(t, s.Signers[0], func(c harness.Config) {
		harness.Set(c, harness.Config{"username": robot.Name, "secret_file": secret, "interval": "10s"}, "canary")
	})
}

// sang says whether so many trials have succeeded, and whether the metrics make sense.
func (s *stage) sang(ctx context.Context, least float64, labels ...string) error {
	metrics, err := s.Metrics(ctx, s.Signers[0])
	if err != nil {
		return err
	}
	const name = "harborseal_canary_push_to_signature_seconds"
	count, sum := metrics.Sum(name+"_count", labels...), metrics.Sum(name+"_sum", labels...)
	succeeded := time.Unix(int64(metrics.Sum("harborseal_canary_last_success_timestamp_seconds", labels...)), 0)
	if count < least || sum <= 0 || sum > count*env.patience.Seconds() || time.Since(succeeded) > time.Minute {
		return fmt.Errorf("%v trials took %v s in all, and one has succeeded at %s; want %v of them", count, sum, succeeded, least)
	}
	return nil
}

// silent judges that a project is in no report, and waits until its images are removed: there are some while a trial runs.
func (s *stage) silent(t *testing.T, project string) {
	t.Helper()
	rows, err := s.Report().Rows(t.Context(), url.Values{"limit": {"500"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if row.Project == project {
			t.Errorf("the report has a row of the canary: %+v", row)
		}
	}
	var listed struct {
		Items []listing `json:"items"`
	}
	s.answered(t.Context(), t, "/api/v1/projects", &listed)
	if at := slices.IndexFunc(listed.Items, func(l listing) bool { return l.Project == project }); at >= 0 && listed.Items[at].Coverage.Population != 0 {
		t.Errorf("the coverage of the canary is %+v, want an empty one", listed.Items[at].Coverage)
	}
	s.until(t, func(ctx context.Context) error {
		left, err := s.site.Harbor.Population(ctx, project)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("the canary has left %+v", left)
		}
		return err
	})
}
