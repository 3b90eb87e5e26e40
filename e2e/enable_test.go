//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// One call enables a project: its webhook stands in Harbor, with a secret of its own, and the next push is signed. Names may
// be of digits alone or have dots, and repositories may be nested.
func TestEnable(t *testing.T) {
	t.Parallel()
	names := []string{
		harness.Random("e2e-"), strconv.FormatInt(time.Now().UnixNano(), 10), harness.Random("e2e.") + ".v1_x",
	}
	m := newManaged(t, env.harbor, names)
	for _, project := range names {
		state := m.enable(t, project, settings{"mode": "sign", "backfill": "all"})
		if !state.Enabled || state.Project != project || state.ProjectID == 0 || state.ManagedBy != "api" || state.ChangedBy != m.admin.Name ||
			state.Webhook == nil || !state.Webhook.OK || state.Backfill.Choice != "all" {
			t.Errorf("the answer to enabling %s is %+v, want it enabled by %s, with a webhook", project, state, m.admin.Name)
		}
		webhook := m.onlyWebhook(t, project)
		if got := webhook.Targets[0].Address; got != m.WebhookAddress(project) || !webhook.Enabled || len(webhook.Events) != 1 || webhook.Events[0] != "PUSH_ARTIFACT" {
			t.Errorf("the webhook of %s is %+v, want one for pushes to %s", project, webhook, m.WebhookAddress(project))
		}
		m.pushInto(t, project+"/app", "v1")
		m.pushInto(t, project+"/team/backend/api", "v1")
	}
	m.judgeAll(t)
	for _, p := range m.pushed {
		if row := m.audit(t.Context(), t, p); row.ReceivedAt == nil {
			t.Errorf("%s@%s was not reported by the webhook", p.Repository, p.Digest)
		}
	}
	t.Run("secrets", func(t *testing.T) { testSecretsOfProjects(t, m) })
	t.Run("conditions", func(t *testing.T) { testConditions(t, m, names[1]) })
	t.Run("disable", func(t *testing.T) { testDisable(t, m, names[2]) })
}

// A project's secret opens that project's path alone, and nothing opens all of them.
func testSecretsOfProjects(t *testing.T, m *managed) {
	t.Helper()
	push := func(project, secret string) int {
		body := delivery(project, "app", "sha256:"+strings.Repeat("ab", 32), "v1")
		status, _ := m.post(t, project, secret, jsonType, body)
		return status
	}
	one, other := m.projects[0], m.projects[1]
	secret := m.secretOf(t, one)
	if !strings.HasPrefix(secret, "Bearer ") || secret == m.secretOf(t, other) {
		t.Errorf("two projects have the same secret, or none")
	}
	body := delivery(one, "app", "sha256:"+strings.Repeat("ab", 32), "v1")
	if status, answer := m.post(t, one, secret, jsonType, strings.ReplaceAll(body, "PUSH_ARTIFACT", "PULL_ARTIFACT")); status != http.StatusAccepted {
		t.Errorf("the answer to a project's own secret is %d %v, want 202", status, answer)
	}
	for name, tt := range map[string]struct{ project, secret string }{
		"another project's secret":       {other, secret},
		"the secret for all projects":    {one, m.WebhookAuth},
		"a project that is not enabled":  {one + "-x", secret},
		"another version of the secret":  {one, strings.Replace(secret, "hs1.1.", "hs1.2.", 1)},
		"the secret without its version": {one, "Bearer " + secret[strings.LastIndex(secret, ".")+1:]},
	} {
		if got := push(tt.project, tt.secret); got != http.StatusUnauthorized {
			t.Errorf("%s: the answer is %d, want 401", name, got)
		}
	}
}

// A change names the version that it replaces.
func testConditions(t *testing.T, m *managed, project string) {
	t.Helper()
	put := func(s settings, etag string) harness.Answer {
		return m.call(t, m.admin, http.MethodPut, "projects/"+project, s, ifMatch(etag))
	}
	_, etag := m.get(t, project)
	if etag == "" {
		t.Fatal("a project that is enabled has no ETag")
	}
	want(t, "a change without If-Match", put(settings{"mode": "observe"}, ""), http.StatusPreconditionRequired)
	changed := must(t, "a change", put(settings{"mode": "sign", "max_in_flight": 3}, etag), http.StatusOK)
	if got := changed.Header.Get("ETag"); got == etag || got == "" {
		t.Errorf("after a change the ETag is %q, want another one than %q", got, etag)
	}
	want(t, "a change with a stale If-Match", put(settings{"mode": "observe"}, etag), http.StatusPreconditionFailed)
	if state, _ := m.get(t, project); state.Policy.Mode != "sign" || state.Backfill.Choice != "all" {
		t.Errorf("after refused changes the policy is %+v, backfill %+v; want what it was", state.Policy, state.Backfill)
	}
	_, etag = m.get(t, project)
	answer := put(settings{"mode": "no", "repositories": settings{"include": []string{"["}}}, etag)
	want(t, "a policy that makes no sense", answer, http.StatusBadRequest, http.StatusUnprocessableEntity)
	for _, field := range []string{"mode", "repositories.include"} {
		if !strings.Contains(string(answer.Body), field) {
			t.Errorf("the answer to a policy with two mistakes is %s, want it to name %s", answer.Body, field)
		}
	}
	want(t, "an unknown key", put(settings{"mode": "sign", "modes": "x"}, etag), http.StatusBadRequest, http.StatusUnprocessableEntity)
}

// Disabling removes the webhook and can be repeated. Whoever enables again has to say what becomes of what was pushed before.
func testDisable(t *testing.T, m *managed, project string) {
	t.Helper()
	secret := m.secretOf(t, project)
	for range 2 {
		want(t, "disabling", m.call(t, m.admin, http.MethodDelete, "projects/"+project, nil, nil), http.StatusOK, http.StatusNoContent)
	}
	// Harbor keeps a webhook while a delivery is under way: the next check removes it.
	if all, err := m.site.Harbor.Webhooks(t.Context(), project); err != nil || len(all) != 0 {
		t.Errorf("after disabling, the webhooks are %+v, %v; want none", all, err)
	}
	state, etag := m.get(t, project)
	if state.Enabled || state.Policy.Mode != "off" {
		t.Errorf("after disabling, the project is %+v, want it off", state)
	}
	p := m.pushAside(t, project+"/app", "off")
	_, repository, _ := strings.Cut(p.Repository, "/")
	status, answer := m.post(t, project, secret, jsonType, delivery(project, repository, p.Digest, p.Tag))
	if status == http.StatusAccepted && answer["reason"] != "project_not_enabled" || status != http.StatusAccepted && status != http.StatusUnauthorized {
		t.Errorf("a delivery that comes late is answered with %d %v, want that the project is not enabled", status, answer)
	}
	put := func(s settings) harness.Answer {
		return m.call(t, m.admin, http.MethodPut, "projects/"+project, s, ifMatch(etag))
	}
	refused := put(settings{"mode": "sign"})
	want(t, "enabling again without a word about the backfill", refused, http.StatusBadRequest, http.StatusUnprocessableEntity)
	if !strings.Contains(string(refused.Body), "backfill") {
		t.Errorf("the answer is %s, want it to name backfill", refused.Body)
	}
	want(t, "enabling again without If-Match", m.call(t, m.admin, http.MethodPut, "projects/"+project, settings{"backfill": "none"}, nil), http.StatusPreconditionRequired)
	must(t, "enabling again", put(settings{"backfill": "none"}), http.StatusOK)
	m.pushInto(t, project+"/app", "on")
	m.awaitReason(t, p, "skipped", "not_backfilled")
	m.judgeAll(t)
	m.unsigned(t, p)
}

// What was pushed before a project was enabled is signed, all of it, what came since a time, or nothing, as it was said.
func TestBackfill(t *testing.T) {
	t.Parallel()
	h := env.harbor
	m := newManaged(t, h, someProjects(3))
	all, since, none := m.projects[0], m.projects[1], m.projects[2]
	var first, second, olds []harness.Pushed
	pushTo := func(repository string) []harness.Pushed {
		var pushed []harness.Pushed
		for _, project := range []string{all, since, none} {
			index, err := harness.NewIndex("linux/amd64")
			pushed = append(pushed, m.pushTo(t, project+"/"+repository, "v1", index, err), m.pushAside(t, project+"/"+repository, "app"))
		}
		return pushed
	}
	first = pushTo("before")
	var cut time.Time
	for _, p := range first {
		for _, one := range p.All() {
			at, err := h.PushedAt(t.Context(), one)
			if err != nil {
				t.Fatal(err)
			}
			if at.After(cut) {
				cut = at
			}
		}
	}
	cut = cut.Truncate(time.Second).Add(time.Second)
	m.awaitClock(t, cut.Add(time.Second))
	second = pushTo("after")

	refused := m.call(t, m.admin, http.MethodPut, "projects/"+all, settings{"mode": "sign"}, nil)
	want(t, "enabling without a word about the backfill", refused, http.StatusBadRequest, http.StatusUnprocessableEntity)
	if webhooks, err := h.Webhooks(t.Context(), all); err != nil || len(webhooks) != 0 {
		t.Errorf("a refused call has left webhooks %+v, %v", webhooks, err)
	}
	for _, choice := range []string{"some", "since:", "since:yesterday", "ALL"} {
		answer := m.call(t, m.admin, http.MethodPut, "projects/"+all, settings{"mode": "sign", "backfill": choice}, nil)
		want(t, "backfill "+choice, answer, http.StatusBadRequest, http.StatusUnprocessableEntity)
	}
	// The last push is not from the moment from which on "none" counts.
	m.awaitClock(t, time.Now().Add(time.Second))
	m.enable(t, all, settings{"mode": "sign", "backfill": "all"})
	m.enable(t, since, settings{"mode": "sign", "backfill": "since:" + cut.UTC().Format(time.RFC3339)})
	m.enable(t, none, settings{"mode": "sign", "backfill": "none"})
	for i, p := range append(first, second...) {
		project, _, _ := strings.Cut(p.Repository, "/")
		if project == all || project == since && i >= len(first) {
			m.pushed = append(m.pushed, p.All()...)
		} else {
			olds = append(olds, p.All()...)
		}
	}
	for _, project := range m.projects {
		m.pushInto(t, project+"/new", "v1")
	}
	for _, p := range olds {
		m.awaitReason(t, p, "skipped", "not_backfilled")
	}
	m.judgeAll(t)
	// A second look changes nothing.
	for _, project := range m.projects {
		m.sweep(t, project)
	}
	m.awaitSweeps(t, 2*len(m.projects))
	m.judgeAll(t)
	m.unsigned(t, olds...)
	m.coverage(t, none, func(c coverage) error { return c.is(1+len(olds)*2/3, 1, len(olds)*2/3) })
	m.coverage(t, since, func(c coverage) error { return c.is(1+len(olds)*2/3, 1+len(olds)/3, len(olds)/3) })
}

// awaitClock waits until Harbor's clock has reached a time.
func (m *managed) awaitClock(t *testing.T, at time.Time) {
	t.Helper()
	m.until(t, func(ctx context.Context) error {
		now, err := m.site.Harbor.Now(ctx)
		if err == nil && now.Before(at) {
			err = fmt.Errorf("Harbor's clock says %s, want %s", now, at)
		}
		return err
	})
}

// In the mode observe the report says what would be signed, and nothing is. Switching to sign signs it.
func TestObserve(t *testing.T) {
	t.Parallel()
	m := newManaged(t, env.harbor, someProjects(1))
	index, err := harness.NewIndex("linux/amd64")
	old := m.pushTo(t, m.project+"/multi", "v1", index, err)
	want(t, "observing without a word about the backfill",
		m.call(t, m.admin, http.MethodPut, "projects/"+m.project, settings{"mode": "observe"}, nil), http.StatusBadRequest, http.StatusUnprocessableEntity)
	state := m.enable(t, m.project, settings{"mode": "observe", "backfill": "all", "tags": settings{"exclude": []string{"*-dev"}}})
	if !state.Enabled || state.Policy.Mode != "observe" || state.Webhook == nil || !state.Webhook.OK {
		t.Errorf("the answer to observing is %+v, want it enabled in the mode observe, with a webhook", state)
	}
	fresh := m.pushAside(t, m.project+"/app", "v1")
	excluded := m.pushAside(t, m.project+"/app", "v1-dev")
	m.awaitReason(t, excluded, "skipped", "tag_excluded")
	for _, p := range append(old.All(), fresh) {
		m.awaitReason(t, p, "unsigned", "observed")
	}
	m.settled(t)
	m.unsigned(t, old, fresh, excluded)
	m.coverage(t, m.project, func(c coverage) error {
		if c.Unsigned != 4 || c.Signed != 0 || c.Excluded != 1 {
			return fmt.Errorf("the coverage is %+v, want 4 unsigned, 1 excluded and 0 signed", c)
		}
		return nil
	})
	// What was said for looking is not said for signing.
	_, etag := m.get(t, m.project)
	want(t, "signing what was observed without a word about the backfill",
		m.call(t, m.admin, http.MethodPut, "projects/"+m.project, settings{"mode": "sign"}, ifMatch(etag)), http.StatusBadRequest, http.StatusUnprocessableEntity)
	m.enable(t, m.project, settings{"mode": "sign", "backfill": "all", "tags": settings{"exclude": []string{"*-dev"}}})
	m.pushed = append(old.All(), fresh)
	m.judgeAll(t)
	m.unsigned(t, excluded)
}

// coverage is how far a project is signed.
type coverage struct {
	Population int `json:"population"`
	Signed     int `json:"signed"`
	Pending    int `json:"pending"`
	Failed     int `json:"failed"`
	Excluded   int `json:"excluded"`
	Blocked    int `json:"blocked"`
	Unsigned   int `json:"unsigned"`
	LastSweep  *struct {
		Population  int `json:"population"`
		HarborCount int `json:"harbor_count"`
	} `json:"last_sweep"`
}

func (c coverage) is(population, signed, excluded int) error {
	if c.Population != population || c.Signed != signed || c.Excluded != excluded {
		return fmt.Errorf("the coverage is %+v, want a population of %d, %d signed and %d excluded", c, population, signed, excluded)
	}
	return nil
}

// coverage waits until the list of projects says how far one is signed.
func (m *managed) coverage(t *testing.T, project string, judge func(coverage) error) {
	t.Helper()
	m.untilTrue(t, func() error {
		for _, p := range m.listed(t, m.admin) {
			if p.Project == project {
				return judge(p.Coverage)
			}
		}
		return fmt.Errorf("%s is not in the list of projects", project)
	})
}

// listing is a project in the list.
type listing struct {
	Project  string   `json:"project"`
	Enabled  bool     `json:"enabled"`
	Coverage coverage `json:"coverage"`
}

// listed gives the projects that somebody may see.
func (m *managed) listed(t *testing.T, who harness.Credentials) []listing {
	t.Helper()
	answer := must(t, "listing the projects", m.call(t, who, http.MethodGet, "projects", nil, nil), http.StatusOK)
	return decoded[struct {
		Items []listing `json:"items"`
	}](t, answer).Items
}
