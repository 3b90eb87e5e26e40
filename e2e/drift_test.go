//go:build e2e

package e2e_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// newKeeper starts a system that looks at Harbor's settings each second, with one project that is enabled.
func newKeeper(t *testing.T) (m *managed, project string) {
	t.Helper()
	project = someProjects(1)[0]
	m = newManaged(t, env.harbor, []string{project}, func(o *harness.Options) {
		o.EditReceiver = func(c harness.Config) { harness.Set(c, "1s", "drift", "interval") }
	})
	m.enable(t, project, settings{"backfill": "all"})
	return m, project
}

// ours gives our webhook policy of a project with everything that Harbor shows; nil if it is not there.
func (m *managed) ours(t *testing.T, project string) map[string]any {
	t.Helper()
	all := rawWebhooks(t, m.site.Harbor, project)
	at := slices.IndexFunc(all, func(w map[string]any) bool { return w["name"] == "harborseal" })
	if at < 0 {
		return nil
	}
	return all[at]
}

// target gives the first target of a webhook policy.
func target(t *testing.T, webhook map[string]any) map[string]any {
	t.Helper()
	targets, ok := webhook["targets"].([]any)
	if !ok || len(targets) != 1 {
		t.Fatalf("the targets of the webhook are %v, want one", webhook["targets"])
	}
	one, ok := targets[0].(map[string]any)
	if !ok {
		t.Fatalf("the target of the webhook is a %T", targets[0])
	}
	return one
}

// essence is what of a webhook policy decides whether pushes reach us; further events do no harm.
func essence(t *testing.T, webhook map[string]any) string {
	t.Helper()
	to := target(t, webhook)
	events, _ := webhook["event_types"].([]any) // null for none
	return fmt.Sprint(webhook["enabled"], slices.Contains(events, any("PUSH_ARTIFACT")), to["address"], to["auth_header"], to["type"])
}

// What somebody does to our webhook in Harbor is undone, and told. That of somebody else is left alone.
func TestWebhookIsKept(t *testing.T) {
	t.Parallel()
	m, project := newKeeper(t)
	policies := "/api/v2.0/projects/" + project + "/webhook/policies"
	// It has a name that begins with ours, and never fires here.
	ask(t, m.site.Harbor, http.MethodPost, policies, map[string]any{
		"name": "harborseal-of-others", "enabled": true, "event_types": []string{"DELETE_ARTIFACT"},
		"targets": []any{map[string]any{"type": "http", "address": "http://192.0.2.1/hook", "auth_header": "theirs", "payload_format": "Default"}},
	}, http.StatusCreated, nil)
	theirs := func() map[string]any {
		t.Helper()
		all := rawWebhooks(t, m.site.Harbor, project)
		at := slices.IndexFunc(all, func(w map[string]any) bool { return w["name"] == "harborseal-of-others" })
		if at < 0 {
			t.Fatalf("the webhooks are %v, want that of somebody else among them", all)
		}
		return all[at]
	}
	untouched, want := theirs(), essence(t, m.ours(t, project))
	for _, tt := range []struct {
		name, reason string
		change       func(webhook map[string]any)
	}{
		{"deleted", "webhook_missing", nil},
		{"disabled", "webhook_disabled", func(w map[string]any) { w["enabled"] = false }},
		{"of other events", "webhook_changed", func(w map[string]any) { w["event_types"] = []string{"DELETE_ARTIFACT"} }},
		{"with another secret", "webhook_changed", func(w map[string]any) { target(t, w)["auth_header"] = "another" }},
		{"to another address", "webhook_elsewhere", func(w map[string]any) { target(t, w)["address"] = "http://192.0.2.2/elsewhere" }},
		{"deleted again", "webhook_missing", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := m.driftEvents(t, project, tt.reason)
			webhook := m.ours(t, project)
			path := fmt.Sprintf("%s/%v", policies, webhook["id"])
			if tt.change == nil {
				ask(t, m.site.Harbor, http.MethodDelete, path, nil, http.StatusOK, nil)
			} else {
				tt.change(webhook)
				ask(t, m.site.Harbor, http.MethodPut, path, webhook, http.StatusOK, nil)
			}
			m.await(t, func() error {
				webhook := m.ours(t, project)
				if webhook == nil {
					return fmt.Errorf("the webhook is not back")
				}
				// A changed secret that is set back is the same: it is derived.
				if tt.change != nil && essence(t, webhook) != want {
					return fmt.Errorf("the webhook is %s, want %s", essence(t, webhook), want)
				}
				if got := m.driftEvents(t, project, tt.reason); !slices.Equal(got, append(slices.Clone(before), "drifted", "repaired")) {
					return fmt.Errorf("the events for %s are %q, want a drift and its repair behind %q", tt.reason, got, before)
				}
				return nil
			})
			want = essence(t, m.ours(t, project))
		})
	}
	if got := theirs(); !reflect.DeepEqual(got, untouched) {
		t.Errorf("the webhook of somebody else is %v, want it as it was: %v", got, untouched)
	}
	p := m.pushInto(t, project+"/app", "v1")
	m.judgeAll(t)
	if row := m.audit(t.Context(), t, p); row.ReceivedAt == nil {
		t.Error("the push was found by a sweep, want it told by the webhook")
	}
}

// driftEvents are the kinds of the events that a project has for a reason, oldest first.
func (m *managed) driftEvents(t *testing.T, project, reason string) []string {
	t.Helper()
	var kinds []string
	for _, e := range slices.Backward(m.events(t, project)) {
		if e.Reason == reason {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

// problem is something that is wrong with a project in Harbor, as the API says it.
type problem struct{ Reason, Detail string }

// problems are those of a project now.
func (m *managed) problems(t *testing.T, project string) []problem {
	t.Helper()
	answer := must(t, "reading "+project, m.call(t, m.admin, http.MethodGet, "projects/"+project, nil, nil), http.StatusOK)
	return decoded[struct{ Problems []problem }](t, answer).Problems
}

// awaitProblem waits until the API and the receiver's metric say that something is wrong, with all the texts.
func (m *managed) awaitProblem(t *testing.T, project, reason string, texts ...string) {
	t.Helper()
	m.await(t, func() error {
		all := m.problems(t, project)
		at := slices.IndexFunc(all, func(p problem) bool { return p.Reason == reason })
		if at < 0 {
			return fmt.Errorf("the problems are %+v, want %s", all, reason)
		}
		for _, text := range texts {
			if !strings.Contains(all[at].Detail, text) {
				return fmt.Errorf("the problem %s is %q, want it to say %q", reason, all[at].Detail, text)
			}
		}
		metrics, err := m.Metrics(t.Context(), m.Receiver)
		if got := metrics.Sum("harborseal_project_problems", `reason="`+reason+`"`); err == nil && got != 1 {
			err = fmt.Errorf("the metric counts %v projects with the problem %s, want 1", got, reason)
		}
		return err
	})
}

// awaitHealthy waits until nothing is wrong.
func (m *managed) awaitHealthy(t *testing.T, project string) {
	t.Helper()
	m.await(t, func() error {
		if all := m.problems(t, project); len(all) > 0 {
			return fmt.Errorf("the problems are %+v, want none", all)
		}
		return nil
	})
}

// A right that a robot has lost is named, with its account, and forgotten when it is given back.
func TestRightLost(t *testing.T) {
	t.Parallel()
	m, project := newKeeper(t)
	h := m.site.Harbor
	without := func(rights []string, lost string) []string {
		return slices.DeleteFunc(slices.Clone(rights), func(right string) bool { return right == lost })
	}
	for _, tt := range []struct {
		robot  harness.Robot
		rights []string
		lost   string
	}{
		{m.site.Signer, harness.SignerRights(), "repository:push"},
		{m.site.Signer, harness.SignerRights(), "artifact:list"},
		{m.site.Receiver, harness.ReceiverRights(), "notification-policy:update"},
	} {
		t.Run(tt.lost, func(t *testing.T) {
			if err := h.UpdateRobot(t.Context(), tt.robot, without(tt.rights, tt.lost), project); err != nil {
				t.Fatal(err)
			}
			m.awaitProblem(t, project, "right_missing", tt.lost, "the account "+tt.robot.Name+" lacks it")
			if err := h.UpdateRobot(t.Context(), tt.robot, tt.rights, project); err != nil {
				t.Fatal(err)
			}
			m.awaitHealthy(t, project)
			m.await(t, func() error {
				if got := m.driftEvents(t, project, "right_missing"); len(got) == 0 || got[len(got)-1] != "repaired" {
					return fmt.Errorf("the events are %q, want a repair in the end", got)
				}
				return nil
			})
		})
	}
	t.Run("pull policy", func(t *testing.T) {
		// Who may not push may not read what is unsigned where only signed images can be pulled.
		if err := h.SetPullPolicy(t.Context(), project, true); err != nil {
			t.Fatal(err)
		}
		if err := h.UpdateRobot(t.Context(), m.site.Signer, without(harness.SignerRights(), "repository:push"), project); err != nil {
			t.Fatal(err)
		}
		m.awaitProblem(t, project, "pull_policy")
		if err := h.UpdateRobot(t.Context(), m.site.Signer, harness.SignerRights(), project); err != nil {
			t.Fatal(err)
		}
		m.awaitHealthy(t, project)
	})
	m.pushInto(t, project+"/app", "v1")
	m.judgeAll(t)
}

// Harbor's own log tells that its deliveries do not arrive, and that they arrive again.
func TestDeliveriesFail(t *testing.T) {
	t.Parallel()
	m, project := newKeeper(t)
	if err := m.Receiver.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	p := m.pushInto(t, project+"/app", "v1")
	m.await(t, func() error {
		var executions []struct{ Status string }
		path := fmt.Sprintf("/api/v2.0/projects/%s/webhook/policies/%v/executions", project, m.ours(t, project)["id"])
		ask(t, m.site.Harbor, http.MethodGet, path, nil, http.StatusOK, &executions)
		if len(executions) != 1 || executions[0].Status != "Error" {
			return fmt.Errorf("the deliveries are %+v, want one that was given up", executions)
		}
		return nil
	})
	if err := m.StartProgram(t.Context(), m.Receiver); err != nil {
		t.Fatal(err)
	}
	m.awaitProblem(t, project, "webhook_failing", "newest delivery has failed")
	m.sweep(t, project)
	m.awaitSigned(t, p)
	m.pushInto(t, project+"/app", "v2")
	m.awaitHealthy(t, project)
	m.await(t, func() error {
		if got := m.driftEvents(t, project, "webhook_failing"); !slices.Equal(got, []string{"drifted", "repaired"}) {
			return fmt.Errorf("the events are %q, want a drift and its end", got)
		}
		return nil
	})
	m.judgeAll(t)
}
