//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// managed is a system whose receiver has an account in Harbor: projects are enabled with API calls, and nobody makes a
// webhook by hand.
type managed struct {
	*stage
	admin harness.Credentials
}

// newManaged starts a system for projects that exist and that nobody has enabled, on the suite's Harbor or on an emulator of
// its own. Robots have rights in these projects alone.
func newManaged(t *testing.T, h *harness.Harbor, projects []string, options ...option) *managed {
	t.Helper()
	ctx := t.Context()
	site, err := harness.NewSite(ctx, h, projects...)
	if err != nil {
		t.Fatalf("preparing Harbor: %v", err)
	}
	return newManagedOn(t, site, projects, options...)
}

// newManagedOn starts a system for a site that is removed with the test.
func newManagedOn(t *testing.T, site *harness.Site, projects []string, options ...option) *managed {
	t.Helper()
	// The test's own context has ended when it cleans up.
	lasting := context.WithoutCancel(t.Context())
	removed := env.later(func() { _ = site.Remove(lasting) })
	t.Cleanup(func() {
		defer removed()
		if err := site.Remove(lasting); err != nil {
			t.Errorf("cleaning up in Harbor: %v", err)
		}
	})
	dir := filepath.Join(env.dir, strings.ReplaceAll(t.Name(), "/", "_")+"-"+projects[0])
	o := harness.Options{Programs: env.programs, Dir: dir, Site: site, Managed: true, Proxy: env.proxy}
	var err error
	if o.Advertise, err = env.ports.next(); err != nil {
		t.Fatal(err)
	}
	for _, change := range options {
		change(&o)
	}
	w := &world{site: site, developer: site.Harbor.NewDeveloper(site.Developer), project: projects[0], dir: dir}
	if w.System, err = harness.NewSystem(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	stopped := env.later(w.Kill)
	t.Cleanup(func() { w.end(t); stopped() })
	if w.checker, err = w.Checker(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Sweeps were proposed for what is enabled by then: what is enabled from here on is swept because of that alone.
	w.awaitCount(t, 1, "harborseal_sweeps_total", `kind="recent"`)
	return &managed{stage: &stage{world: w, projects: projects}, admin: site.Harbor.Admin()}
}

// someProjects gives names of projects that nobody has.
func someProjects(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = harness.Random("e2e-")
	}
	return names
}

// person makes the account of a person, with a role in each of the projects.
func person(t *testing.T, h *harness.Harbor, role int, projects ...string) harness.User {
	t.Helper()
	u, err := h.CreateUser(t.Context(), harness.Random("e2e-"))
	if err != nil {
		t.Fatal(err)
	}
	lasting := context.WithoutCancel(t.Context())
	done := env.later(func() { _ = h.DeleteUser(lasting, u.ID) })
	t.Cleanup(func() {
		defer done()
		if err := h.DeleteUser(lasting, u.ID); err != nil {
			t.Errorf("cleaning up in Harbor: %v", err)
		}
	})
	for _, project := range projects {
		if err := h.AddMember(t.Context(), project, u, role); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

// settings are the body of a PUT of a project.
type settings map[string]any

// enrolled is what the API says of a project.
type enrolled struct {
	Project      string `json:"project"`
	ProjectID    int64  `json:"project_id"`
	Enabled      bool   `json:"enabled"`
	ManagedBy    string `json:"managed_by"`
	ChangedBy    string `json:"changed_by"`
	SuspendedFor int64  `json:"suspended_for"`
	Policy       struct {
		Mode string `json:"mode"`
	} `json:"policy"`
	Backfill struct {
		Choice string `json:"choice"`
	} `json:"backfill"`
	Blocks []struct {
		Digest string `json:"digest"`
		Reason string `json:"reason"`
		By     string `json:"by"`
	} `json:"blocks"`
	Webhook *struct {
		OK            bool `json:"ok"`
		SecretVersion int  `json:"secret_version"`
	} `json:"webhook"`
	Problems []struct {
		Reason string `json:"reason"`
	} `json:"problems"`
	Paused *json.RawMessage `json:"paused"`
}

// occurrence is an event of a project.
type occurrence struct {
	Project string    `json:"project"`
	Kind    string    `json:"kind"`
	At      time.Time `json:"at"`
	Actor   string    `json:"actor"`
	Origin  string    `json:"origin"`
	Reason  string    `json:"reason"`
	Detail  string    `json:"detail"`
	Change  *struct {
		Before json.RawMessage `json:"before"`
		After  json.RawMessage `json:"after"`
		From   string          `json:"from"`
	} `json:"change"`
}

// call asks the receiver's API. Whatever is refused has to come as a problem document.
func (m *managed) call(t *testing.T, who harness.Credentials, method, path string, body any, header http.Header) harness.Answer {
	t.Helper()
	answer, err := m.Call(t.Context(), who, method, "/api/v1/"+path, body, header)
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.Header.Get("Content-Type"); answer.Status >= http.StatusBadRequest && got != "application/problem+json" {
		t.Errorf("%s %s: the type of answer %d is %q, want a problem document", method, path, answer.Status, got)
	}
	return answer
}

// want complains about an answer that has none of the statuses.
func want(t *testing.T, what string, got harness.Answer, statuses ...int) {
	t.Helper()
	if !slices.Contains(statuses, got.Status) {
		t.Errorf("%s: the answer is %d %.500s, want %d", what, got.Status, got.Body, statuses)
	}
}

// must is want, and gives up.
func must(t *testing.T, what string, got harness.Answer, statuses ...int) harness.Answer {
	t.Helper()
	if !slices.Contains(statuses, got.Status) {
		t.Fatalf("%s: the answer is %d %.500s, want %d", what, got.Status, got.Body, statuses)
	}
	return got
}

func decoded[T any](t *testing.T, answer harness.Answer) (value T) {
	t.Helper()
	if err := answer.Decode(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// get reads a project, and the ETag of its policy.
func (m *managed) get(t *testing.T, project string) (enrolled, string) {
	t.Helper()
	answer := must(t, "reading "+project, m.call(t, m.admin, http.MethodGet, "projects/"+project, nil, nil), http.StatusOK)
	return decoded[enrolled](t, answer), answer.Header.Get("ETag")
}

// ifMatch is the header that names the policy that is to be replaced; nil for none.
func ifMatch(etag string) http.Header {
	if etag == "" {
		return nil
	}
	return http.Header{"If-Match": {etag}}
}

// enable puts the policy of a project in the place of whatever is there, as the administrator.
func (m *managed) enable(t *testing.T, project string, s settings) enrolled {
	t.Helper()
	_, etag := m.get(t, project)
	answer := m.call(t, m.admin, http.MethodPut, "projects/"+project, s, ifMatch(etag))
	return decoded[enrolled](t, must(t, "enabling "+project, answer, http.StatusOK, http.StatusCreated))
}

// sweep asks for a full sweep of a project.
func (m *managed) sweep(t *testing.T, project string) {
	t.Helper()
	must(t, "asking for a sweep", m.call(t, m.admin, http.MethodPost, "projects/"+project+"/sweep", nil, nil), http.StatusAccepted)
}

// events are those of a project that are there now, newest first.
func (m *managed) events(t *testing.T, project string) []occurrence {
	t.Helper()
	answer := must(t, "reading the events", m.call(t, m.admin, http.MethodGet, "projects/"+project+"/events?limit=100", nil, nil), http.StatusOK)
	return decoded[struct {
		Items []occurrence `json:"items"`
	}](t, answer).Items
}

// untilTrue is until for a condition that is asked for with the test's own context.
func (m *managed) untilTrue(t *testing.T, condition func() error) {
	t.Helper()
	m.until(t, func(context.Context) error { return condition() })
}

// awaitEvent waits for an event of a project.
func (m *managed) awaitEvent(t *testing.T, project string, wanted func(occurrence) bool) occurrence {
	t.Helper()
	var found occurrence
	m.untilTrue(t, func() error {
		all := m.events(t, project)
		at := slices.IndexFunc(all, wanted)
		if at < 0 {
			return fmt.Errorf("the event is not among %+v", all)
		}
		found = all[at]
		return nil
	})
	return found
}

// webhook gives the one webhook policy of a project.
func (m *managed) onlyWebhook(t *testing.T, project string) harness.WebhookPolicy {
	t.Helper()
	all, err := m.site.Harbor.Webhooks(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || len(all[0].Targets) != 1 {
		t.Fatalf("the webhooks of %s are %+v, want one with one target", project, all)
	}
	return all[0]
}

// secretOf gives what Harbor sends as its Authorization header.
func (m *managed) secretOf(t *testing.T, project string) string {
	t.Helper()
	return m.onlyWebhook(t, project).Targets[0].AuthHeader
}

// pushInto pushes something that has to be signed into any project.
func (m *managed) pushInto(t *testing.T, repository, tag string) harness.Pushed {
	t.Helper()
	p := m.pushAside(t, repository, tag)
	m.pushed = append(m.pushed, p)
	return p
}

// pushAside pushes an image that must not be signed, or not yet.
func (m *managed) pushAside(t *testing.T, repository, tag string) harness.Pushed {
	t.Helper()
	img, err := harness.NewImage(false)
	return m.pushTo(t, repository, tag, img, err)
}

// awaitReason waits until the report says why something is not signed.
func (m *managed) awaitReason(t *testing.T, p harness.Pushed, state, reason string) {
	t.Helper()
	m.until(t, func(ctx context.Context) error {
		row, err := m.row(ctx, p)
		if err == nil && (row.State != state || row.Reason != reason) {
			err = fmt.Errorf("%s@%s (tag %q) is %q for %q (%s), want %q for %q", p.Repository, p.Digest, p.Tag, row.State, row.Reason, row.Detail, state, reason)
		}
		return err
	})
}

// unsigned judges from the outside that nobody signed what must not be signed.
func (m *managed) unsigned(t *testing.T, pushed ...harness.Pushed) {
	t.Helper()
	for _, p := range pushed {
		for _, one := range p.All() {
			violations, err := m.checker.NotSigned(t.Context(), one.Repository, one.Digest)
			if err != nil {
				t.Fatal(err)
			}
			complain(t, violations)
		}
	}
}

// judgeAll waits until all that was pushed to be signed is, and judges it.
func (m *managed) judgeAll(t *testing.T) {
	t.Helper()
	m.awaitSigned(t, m.pushed...)
	m.settled(t)
	m.judge(t)
}
