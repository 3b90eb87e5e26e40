//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
)

// What waits when its project is disabled is not signed, and does not wait for ever.
func TestDisabledWhileWaiting(t *testing.T) {
	t.Parallel()
	m := newManaged(t, env.harbor, someProjects(2))
	left, stays := m.projects[0], m.projects[1]
	for _, project := range m.projects {
		m.enable(t, project, settings{"mode": "sign", "backfill": "all"})
	}
	for _, s := range m.Signers {
		if err := s.Process.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	const pushes = 12
	var waiting []string
	for i := range pushes {
		waiting = append(waiting, m.pushAside(t, left+"/app", fmt.Sprintf("v%d", i)).Digest)
	}
	m.pushInto(t, stays+"/app", "v1")
	m.awaitRequests(t, pushes+1)
	must(t, "disabling", m.call(t, m.admin, http.MethodDelete, "projects/"+left, nil, nil), http.StatusOK)
	for _, s := range m.Signers {
		if err := m.StartProgram(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	m.judgeAll(t)
	m.awaitRequests(t, 0)
	rows, err := m.Report().Rows(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	skipped := map[string]string{}
	for _, row := range rows {
		if row.State == "skipped" {
			skipped[row.Digest] = row.Reason
		}
	}
	for _, digest := range waiting {
		if got := skipped[digest]; got != "project_not_enabled" {
			t.Errorf("%s is skipped because of %q, want project_not_enabled", digest, got)
		}
	}
}

// awaitRequests waits until the receiver's metrics say that so many requests are not done.
func (m *managed) awaitRequests(t *testing.T, want int) {
	t.Helper()
	m.until(t, func(ctx context.Context) error {
		metrics, err := m.Metrics(ctx, m.Receiver)
		if got := int(metrics.Sum("harborseal_queue_requests")); err == nil && got != want {
			err = fmt.Errorf("%d requests are not done, want %d", got, want)
		}
		return err
	})
}
