//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// The policy of a project says by repository and tag what is signed: whatever is not says why in the report.
func TestScope(t *testing.T) {
	t.Parallel()
	m := newManaged(t, env.harbor, someProjects(1))
	scope := settings{
		"mode": "sign", "backfill": "all", "untagged": "exclude",
		"repositories": settings{"include": []string{"apps/**"}, "exclude": []string{"apps/scratch/**"}},
		"tags":         settings{"include": []string{"v*", "latest"}, "exclude": []string{"*-dev"}},
	}
	m.enable(t, m.project, scope)
	sign := func(repository, tag string) harness.Pushed { return m.pushImage(t, repository, tag) }
	aside := func(repository, tag string) harness.Pushed { return m.pushAside(t, m.project+"/"+repository, tag) }
	sign("apps/web", "v1")
	sign("apps/team/deep/web", "latest")
	index, err := harness.NewIndex("linux/amd64", "linux/arm64")
	m.push(t, "apps/multi", "v1", index, err)
	index, err = harness.NewIndex("linux/amd64")
	nightly := m.pushTo(t, m.project+"/apps/multi", "nightly", index, err)
	img, err := harness.NewImage(false)
	both := m.push(t, "apps/web", "other", img, err)
	m.push(t, "apps/web", "v2", img, nil)
	out := []struct {
		pushed harness.Pushed
		reason string
	}{
		{aside("apps/web", "nightly"), "tag_out_of_scope"},
		{aside("apps/web", "v1-dev"), "tag_excluded"},
		{aside("apps/scratch/web", "v1"), "repository_out_of_scope"},
		{aside("web", "v1"), "repository_out_of_scope"},
		{aside("apps/web", ""), "untagged"},
		{nightly, "tag_out_of_scope"},
		{nightly.Children[0], "untagged"},
	}
	moved := sign("apps/moved", "v1")
	m.awaitSigned(t, both, moved)
	sign("apps/moved", "v1")
	m.awaitSigned(t, m.pushed...)
	m.sweep(t, m.project)
	for _, tt := range out {
		m.awaitReason(t, tt.pushed, "skipped", tt.reason)
	}
	m.judgeAll(t)
	for _, tt := range out {
		m.unsigned(t, tt.pushed)
	}
	// What has lost its tag was signed before, and stays in scope: when its signature vanishes, it gets another one.
	for _, signature := range m.audit(t.Context(), t, moved).Signatures {
		if err := env.harbor.DeleteArtifact(t.Context(), moved.Repository, signature.Digest); err != nil {
			t.Fatal(err)
		}
	}
	m.sweep(t, m.project)
	m.until(t, func(ctx context.Context) error {
		_, violations, err := m.checker.Signed(ctx, moved.Repository, moved.Digest)
		if err == nil && len(violations) > 0 {
			err = fmt.Errorf("%v", violations)
		}
		return err
	})
	m.judgeAll(t)
	m.coverage(t, m.project, func(c coverage) error { return c.is(len(m.pushed)+len(out)+1, len(m.pushed), len(out)+1) })
}

// An exemption keeps an image from being signed until it expires, and a block for as long as it stands.
func TestExemptionsAndBlocks(t *testing.T) {
	t.Parallel()
	m := newManaged(t, env.harbor, someProjects(1))
	exempt := m.pushAside(t, m.project+"/legacy/app", "v1")
	exemption := settings{"repository": "legacy/**", "approver": "j.doe", "reason": "until it is replaced"}
	until := func(expires time.Time) settings {
		exemption["expires"] = expires.UTC().Format(time.RFC3339Nano)
		return settings{"mode": "sign", "backfill": "all", "exemptions": []settings{exemption}}
	}
	m.enable(t, m.project, until(time.Now().Add(time.Hour)))
	m.awaitReason(t, exempt, "skipped", "exempt")
	if row := m.audit(t.Context(), t, exempt); !strings.Contains(row.Detail, "j.doe") || !strings.Contains(row.Detail, "until it is replaced") {
		t.Errorf("the report's detail is %q, want who exempted it, and why", row.Detail)
	}

	img, err := harness.NewImage(false)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	block := "projects/" + m.project + "/blocks/" + digest.String()
	want(t, "a block without a reason", m.call(t, m.admin, http.MethodPut, block, settings{"reason": " "}, nil), http.StatusBadRequest, http.StatusUnprocessableEntity)
	want(t, "a block of no digest", m.call(t, m.admin, http.MethodPut, "projects/"+m.project+"/blocks/latest", settings{"reason": "no"}, nil), http.StatusBadRequest, http.StatusUnprocessableEntity)
	for range 2 { // it is safe to repeat
		answer := must(t, "a block", m.call(t, m.admin, http.MethodPut, block, settings{"reason": "holds a virus"}, nil), http.StatusOK, http.StatusCreated)
		state := decoded[enrolled](t, answer)
		if len(state.Blocks) != 1 || state.Blocks[0].Digest != digest.String() || state.Blocks[0].By != m.admin.Name || state.Blocks[0].Reason != "holds a virus" {
			t.Errorf("the blocks are %+v, want one by %s with its reason", state.Blocks, m.admin.Name)
		}
	}
	blocked := m.pushTo(t, m.project+"/app", "v1", img, nil)
	m.awaitState(t, blocked, "blocked")
	if row := m.audit(t.Context(), t, blocked); !strings.Contains(row.Detail, "holds a virus") || !strings.Contains(row.Detail, m.admin.Name) {
		t.Errorf("the report's detail is %q, want who blocked it, and why", row.Detail)
	}
	m.settled(t)
	m.unsigned(t, exempt, blocked)
	m.coverage(t, m.project, func(c coverage) error {
		if c.Blocked != 1 || c.Excluded != 1 {
			return errors.New("want one digest that is blocked, and one that is excluded")
		}
		return nil
	})

	for range 2 {
		must(t, "lifting a block", m.call(t, m.admin, http.MethodDelete, block, nil, nil), http.StatusOK, http.StatusNoContent)
	}
	expires := time.Now().Add(2 * time.Second)
	m.enable(t, m.project, until(expires))
	m.pushed = append(m.pushed, exempt, blocked)
	m.awaitState(t, blocked, "signed")
	m.untilTrue(t, func() error {
		if time.Now().Before(expires) {
			return errors.New("the exemption has not expired")
		}
		return nil
	})
	m.sweep(t, m.project)
	m.judgeAll(t)
}

// What the configuration file declares is shown and not changed, also for projects that are made later.
func TestDeclaredPolicies(t *testing.T) {
	t.Parallel()
	names := someProjects(2)
	prefix := harness.Random("e2e-") + "-"
	names = append(names, prefix+"later")
	site, err := harness.NewSite(t.Context(), env.harbor)
	if err != nil {
		t.Fatalf("preparing Harbor: %v", err)
	}
	for _, project := range names[:2] {
		if err := site.AddProject(t.Context(), project); err != nil {
			t.Error(err)
		}
	}
	m := newManagedOn(t, site, names, func(o *harness.Options) {
		o.Enabled = []string{names[0], prefix + "*"}
		o.EditReceiver = func(c harness.Config) { harness.Set(c, "2s", "drift", "interval") }
	})
	declared, free := names[0], names[1]
	if err := site.AddProject(t.Context(), names[2]); err != nil {
		t.Fatal(err)
	}
	for _, project := range []string{declared, names[2]} {
		m.until(t, func(ctx context.Context) error {
			all, err := env.harbor.Webhooks(ctx, project)
			if err == nil && len(all) != 1 {
				err = errors.New("the receiver has made no webhook for " + project)
			}
			return err
		})
		m.pushInto(t, project+"/app", "v1")
	}
	state, etag := m.get(t, declared)
	if !state.Enabled || state.ManagedBy != "config" || etag != "" {
		t.Errorf("the project is %+v with ETag %q, want it managed by the configuration", state, etag)
	}
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, tt := range []struct {
		method, path string
		body         any
	}{
		{http.MethodPut, "", settings{"mode": "off"}},
		{http.MethodPut, "", settings{"mode": "sign", "backfill": "none"}},
		{http.MethodDelete, "", nil},
		{http.MethodPut, "/blocks/" + digest, settings{"reason": "no"}},
		{http.MethodDelete, "/blocks/" + digest, nil},
	} {
		answer := m.call(t, m.admin, tt.method, "projects/"+declared+tt.path, tt.body, ifMatch(`"x"`))
		want(t, tt.method+" "+tt.path+" of a declared policy", answer, http.StatusConflict)
		if !strings.Contains(string(answer.Body), "configuration") {
			t.Errorf("the answer is %s, want it to say where the policy is changed", answer.Body)
		}
	}
	m.enable(t, free, settings{"backfill": "none"})
	m.pushInto(t, free+"/app", "v1")
	m.judgeAll(t)
}

// A project that was deleted and made anew under its name is another one: nothing in it is signed until somebody says so.
func TestProjectMadeAnew(t *testing.T) {
	t.Parallel()
	h := env.harbor
	site, err := harness.NewSite(t.Context(), h)
	if err != nil {
		t.Fatalf("preparing Harbor: %v", err)
	}
	names := someProjects(1)
	if err := site.AddProject(t.Context(), names[0]); err != nil {
		t.Error(err)
	}
	// At first nobody looks whether Harbor has drifted: the signer has to find out by itself.
	m := newManagedOn(t, site, names, func(o *harness.Options) {
		o.EditReceiver = func(c harness.Config) { harness.Set(c, "24h", "drift", "interval") }
	})
	before := m.enable(t, m.project, settings{"backfill": "all"})
	m.awaitSigned(t, m.pushAside(t, m.project+"/app", "v1"))
	secret := m.secretOf(t, m.project)
	if err := h.DeleteProject(t.Context(), m.project); err != nil {
		t.Fatal(err)
	}
	if err := h.CreateProject(t.Context(), m.project); err != nil {
		t.Fatal(err)
	}
	p := m.pushAside(t, m.project+"/app", "v1")
	m.sweep(t, m.project)
	m.awaitSweepsSaid(t, "suspended", 1)
	m.settled(t)
	m.unsigned(t, p)

	m.reconfigure(t, m.Receiver, func(c harness.Config) { harness.Set(c, "1s", "drift", "interval") })
	var state enrolled
	var etag string
	m.untilTrue(t, func() error {
		if state, etag = m.get(t, m.project); state.SuspendedFor == 0 {
			return errors.New("the project is not suspended")
		}
		return nil
	})
	if state.SuspendedFor == before.ProjectID || state.ProjectID != before.ProjectID || state.Enabled {
		t.Errorf("the project is %+v, want it suspended, and not enabled: it was that of id %d", state, before.ProjectID)
	}
	m.awaitEvent(t, m.project, func(e occurrence) bool { return e.Kind == "drifted" && e.Reason == "project_replaced" })
	_, repository, _ := strings.Cut(p.Repository, "/")
	status, answer := m.post(t, m.project, secret, jsonType, delivery(m.project, repository, p.Digest, p.Tag))
	if status != http.StatusAccepted && status != http.StatusUnauthorized || status == http.StatusAccepted && answer["reason"] != "project_suspended" {
		t.Errorf("a delivery for the project of before is answered with %d %v, want that it is suspended", status, answer)
	}
	want(t, "a sweep of a suspended project", m.call(t, m.admin, http.MethodPost, "projects/"+m.project+"/sweep", nil, nil), http.StatusConflict)
	m.settled(t)
	m.unsigned(t, p)

	put := func(s settings) (answer harness.Answer) {
		m.untilTrue(t, func() error {
			// The signers have lost their queue with the receiver, and nothing can be told before they are back.
			if answer = m.call(t, m.admin, http.MethodPut, "projects/"+m.project, s, ifMatch(etag)); answer.Status == http.StatusServiceUnavailable {
				return errors.New("no signer is there")
			}
			return nil
		})
		return answer
	}
	refused := put(settings{"mode": "sign"})
	want(t, "enabling the other project without a word about the backfill", refused, http.StatusBadRequest, http.StatusUnprocessableEntity)
	after := decoded[enrolled](t, must(t, "enabling the other project", put(settings{"mode": "sign", "backfill": "all"}), http.StatusOK))
	if !after.Enabled || after.SuspendedFor != 0 || after.ProjectID != state.SuspendedFor {
		t.Errorf("after enabling, the project is %+v, want it enabled for the id %d", after, state.SuspendedFor)
	}
	if m.secretOf(t, m.project) == secret {
		t.Error("the other project's webhook has the secret of the one before")
	}
	m.awaitEvent(t, m.project, func(e occurrence) bool { return e.Kind == "repaired" && e.Reason == "project_replaced" })
	m.pushed = append(m.pushed, p)
	m.pushInto(t, m.project+"/app", "v2")
	m.judgeAll(t)
}

// awaitSweepsSaid waits until the signers have counted so many sweeps of an outcome.
func (m *managed) awaitSweepsSaid(t *testing.T, outcome string, want int) {
	t.Helper()
	m.until(t, func(ctx context.Context) error {
		metrics, err := m.Metrics(ctx, m.Signers[0])
		if got := metrics.Sum("harborseal_sweeps_total", `outcome="`+outcome+`"`); err == nil && int(got) < want {
			err = errors.New("no sweep has ended with " + outcome)
		}
		return err
	})
}

// Every change of a policy is an event: who, when, before, after, and from where.
func TestChangesAreEvents(t *testing.T) {
	t.Parallel()
	m := newManaged(t, env.harbor, someProjects(1))
	admin := person(t, env.harbor, harness.RoleProjectAdmin, m.project)
	began := time.Now().Add(-time.Minute)
	m.enable(t, m.project, settings{"mode": "observe", "backfill": "all"})
	_, etag := m.get(t, m.project)
	must(t, "a change by the project's admin",
		m.call(t, admin.Credentials(), http.MethodPut, "projects/"+m.project, settings{"mode": "sign", "backfill": "all", "restore": "alert"}, ifMatch(etag)), http.StatusOK)
	must(t, "disabling", m.call(t, admin.Credentials(), http.MethodDelete, "projects/"+m.project, nil, nil), http.StatusOK)
	changed := func() []occurrence {
		return slices.DeleteFunc(m.events(t, m.project), func(e occurrence) bool { return e.Kind != "policy_changed" })
	}
	m.untilTrue(t, func() error {
		if got := changed(); len(got) != 3 {
			return errors.New("want three changes in the events")
		}
		return nil
	})
	modes := func(raw json.RawMessage) string {
		var p struct {
			Mode string `json:"mode"`
		}
		if len(raw) == 0 {
			return ""
		}
		if err := json.Unmarshal(raw, &p); err != nil {
			t.Error(err)
		}
		return p.Mode
	}
	wanted := []struct{ actor, before, after string }{
		{admin.Name, "sign", "off"}, {admin.Name, "observe", "sign"}, {m.admin.Name, "", "observe"},
	}
	for i, e := range changed() {
		if e.Change == nil {
			t.Errorf("event %d has no change", i)
			continue
		}
		if got := [...]string{e.Actor, modes(e.Change.Before), modes(e.Change.After)}; got != [...]string{wanted[i].actor, wanted[i].before, wanted[i].after} {
			t.Errorf("event %d says %q, want %q", i, got, wanted[i])
		}
		if e.Change.From == "" || e.At.Before(began) || e.At.After(time.Now().Add(time.Minute)) || e.Project != m.project || e.Origin != "api" {
			t.Errorf("event %d is %+v from %q, want where from, and when", i, e, e.Change.From)
		}
	}
	raw := m.call(t, m.admin, http.MethodGet, "projects/"+m.project+"/events", nil, nil).Body
	for _, secret := range []string{admin.Password, m.admin.Secret, "hs1."} {
		if strings.Contains(string(raw), secret) {
			t.Error("the events hold a secret")
		}
	}
}

// A webhook's secret is replaced while images are pushed, and no delivery is refused.
func TestWebhookSecretIsReplaced(t *testing.T) {
	t.Parallel()
	m := newManaged(t, env.harbor, someProjects(1))
	m.enable(t, m.project, settings{"backfill": "none"})
	old := m.secretOf(t, m.project)
	for i := range 12 {
		if i == 6 {
			answer := must(t, "replacing the secret", m.call(t, m.admin, http.MethodPost, "projects/"+m.project+"/webhook-secret", nil, nil), http.StatusOK)
			if state := decoded[enrolled](t, answer); state.Webhook == nil || state.Webhook.SecretVersion != 2 || !state.Webhook.OK {
				t.Errorf("the answer is %s, want the second version of the secret", answer.Body)
			}
			if strings.Contains(string(answer.Body), "hs1.") {
				t.Error("the answer holds the secret")
			}
		}
		m.pushInto(t, m.project+"/app", "")
	}
	fresh := m.secretOf(t, m.project)
	if fresh == old {
		t.Error("Harbor has the secret of before")
	}
	m.judgeAll(t)
	for _, p := range m.pushed {
		if row := m.audit(t.Context(), t, p); row.ReceivedAt == nil {
			t.Errorf("%s was not reported by the webhook", p.Digest)
		}
	}
	metrics, err := m.Metrics(t.Context(), m.Receiver)
	if err != nil {
		t.Fatal(err)
	}
	if got := metrics.Sum("harborseal_webhook_requests_total", `outcome="unauthorized"`); got != 0 {
		t.Errorf("%v deliveries were refused, want none", got)
	}
	// A second call within the hour finishes the first one, and drops nothing.
	must(t, "replacing the secret again", m.call(t, m.admin, http.MethodPost, "projects/"+m.project+"/webhook-secret", nil, nil), http.StatusOK)
	if got := m.secretOf(t, m.project); got != fresh {
		t.Error("the secret was replaced twice, so that deliveries with the first one would be refused")
	}
	m.awaitEvent(t, m.project, func(e occurrence) bool {
		return e.Kind == "policy_changed" && e.Change != nil && strings.Contains(string(e.Change.After), "webhook_secret")
	})
}
