//go:build e2e

package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// Everything that keeps a project from being signed is told at once, with what to do, and nothing is changed before it is
// right.
func TestPreChecks(t *testing.T) {
	t.Parallel()
	h := newEmulator(t, "v2.14.1") // its settings are changed, and it takes no bundles
	m := newManaged(t, h, someProjects(1))
	put := func(project string, s settings) (harness.Answer, map[string]check) {
		t.Helper()
		answer := m.call(t, m.admin, http.MethodPut, "projects/"+project, s, nil)
		return answer, checksOf(t, answer)
	}
	powerless := slices.DeleteFunc(harness.SignerRights(), func(right string) bool { return right == "repository:push" })
	if err := h.UpdateRobot(t.Context(), m.site.Signer, powerless, m.project); err != nil {
		t.Fatal(err)
	}
	blind := slices.DeleteFunc(harness.ReceiverRights(), func(right string) bool { return right == "notification-policy:create" })
	m.giveReceiver(t, blind, "quota:list")
	ask(t, h, http.MethodPut, "/api/v2.0/configurations", settings{"notification_enable": false}, http.StatusOK, nil)
	if err := h.SetPullPolicy(t.Context(), m.project, true); err != nil {
		t.Fatal(err)
	}
	m.pushAside(t, m.project+"/app", "v1")
	setQuota := m.quota(t, m.project)
	setQuota(1)

	answer, found := put(m.project, settings{"backfill": "all", "format": "bundle", "key": "none-such"})
	want(t, "enabling where everything is wrong", answer, http.StatusUnprocessableEntity)
	for name, texts := range map[string][]string{
		"right:repository:push":            {m.site.Signer.Name, m.project},
		"right:notification-policy:create": {m.site.Receiver.Name, m.project},
		"pull_policy":                      {m.site.Signer.Name},
		"notifications":                    {"notification_enable"},
		"format":                           {"v2.14.1", "2.15"},
		"key":                              nil,
		"quota":                            {"bytes"},
	} {
		c, there := found[name]
		if !there {
			t.Errorf("%s is not among what is wrong: %s", name, answer.Body)
			continue
		}
		delete(found, name)
		if c.Status != "failed" || c.Fix == "" {
			t.Errorf("%s is %+v, want it failed, with what to do", name, c)
		}
		for _, text := range texts {
			if !strings.Contains(c.Detail+" "+c.Fix, text) {
				t.Errorf("%s says %q, %q, want %q in it", name, c.Detail, c.Fix, text)
			}
		}
	}
	if len(found) > 0 {
		t.Errorf("what is right is among what is wrong: %+v", found)
	}
	if all, err := h.Webhooks(t.Context(), m.project); err != nil || len(all) != 0 {
		t.Errorf("a refused call has left the webhooks %+v, %v", all, err)
	}
	if state, etag := m.get(t, m.project); state.Enabled || etag != "" {
		t.Errorf("a refused call has left the policy %+v", state)
	}

	t.Run("no such project", func(t *testing.T) {
		answer, found := put("no-such-project", settings{"backfill": "all"})
		if answer.Status != http.StatusNotFound {
			want(t, "enabling what is not there", answer, http.StatusUnprocessableEntity)
			if _, there := found["project"]; !there {
				t.Errorf("the answer is %s, want that there is no such project", answer.Body)
			}
		}
	})
	t.Run("proxy cache", func(t *testing.T) {
		if err := m.proxyCache(t, "e2e-cache"); err != nil {
			t.Fatal(err)
		}
		answer, found := put("e2e-cache", settings{"backfill": "all"})
		want(t, "enabling a proxy cache", answer, http.StatusUnprocessableEntity)
		if _, there := found["proxy_cache"]; !there {
			t.Errorf("the answer is %s, want that it is a proxy cache", answer.Body)
		}
	})

	if err := h.UpdateRobot(t.Context(), m.site.Signer, harness.SignerRights(), m.project); err != nil {
		t.Fatal(err)
	}
	m.giveReceiver(t, harness.ReceiverRights(), "quota:list")
	ask(t, h, http.MethodPut, "/api/v2.0/configurations", settings{"notification_enable": true}, http.StatusOK, nil)
	setQuota(-1)
	m.untilTrue(t, func() error { // rights are remembered for as long as a token of the registry lasts
		if answer, _ = put(m.project, settings{"backfill": "none"}); answer.Status >= http.StatusBadRequest {
			return fmt.Errorf("when everything is right, the answer is %d %.300s", answer.Status, answer.Body)
		}
		return nil
	})
	m.pushInto(t, m.project+"/app", "v2")
	m.judgeAll(t)
}

// check is one of the pre-checks.
type check struct {
	Name, Subject, Status, Detail, Fix string
}

func checksOf(t *testing.T, answer harness.Answer) map[string]check {
	t.Helper()
	var document struct {
		Checks []check `json:"checks"`
	}
	if err := answer.Decode(&document); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]check)
	for _, c := range document.Checks {
		found[c.Name] = c
	}
	return found
}

// giveReceiver replaces the rights of the receiver's robot in the project, beside one in the system.
func (m *managed) giveReceiver(t *testing.T, rights []string, system string) {
	t.Helper()
	access := func(rights ...string) []settings {
		var all []settings
		for _, right := range rights {
			resource, action, _ := strings.Cut(right, ":")
			all = append(all, settings{"resource": resource, "action": action})
		}
		return all
	}
	robot := m.site.Receiver
	body := settings{"name": robot.Name, "level": "system", "duration": -1, "permissions": []settings{
		{"kind": "project", "namespace": m.project, "access": access(rights...)}, {"kind": "system", "namespace": "/", "access": access(system)},
	}}
	ask(t, m.site.Harbor, http.MethodPut, "/api/v2.0/robots/"+strconv.Itoa(robot.ID), body, http.StatusOK, nil)
}

// quota finds a project's quota and gives what sets its limit.
func (m *managed) quota(t *testing.T, project string) (setLimit func(bytes int)) {
	t.Helper()
	var found struct {
		ID int `json:"project_id"`
	}
	ask(t, m.site.Harbor, http.MethodGet, "/api/v2.0/projects/"+project, nil, http.StatusOK, &found)
	var quotas []struct{ ID int }
	path := fmt.Sprintf("/api/v2.0/quotas?reference=project&reference_id=%d", found.ID)
	ask(t, m.site.Harbor, http.MethodGet, path, nil, http.StatusOK, &quotas)
	if len(quotas) != 1 {
		t.Fatalf("the project has %d quotas, want one", len(quotas))
	}
	return func(bytes int) {
		t.Helper()
		body := settings{"hard": map[string]int{"storage": bytes}}
		ask(t, m.site.Harbor, http.MethodPut, fmt.Sprintf("/api/v2.0/quotas/%d", quotas[0].ID), body, http.StatusOK, nil)
	}
}

// proxyCache makes a project that mirrors another registry, and lets the robots of the test use it.
func (m *managed) proxyCache(t *testing.T, name string) error {
	t.Helper()
	h := m.site.Harbor
	header := ask(t, h, http.MethodPost, "/api/v2.0/registries", settings{"name": name, "type": "docker-registry", "url": "http://127.0.0.1:1"}, http.StatusCreated, nil)
	location := header.Get("Location")
	id, err := strconv.Atoi(location[strings.LastIndex(location, "/")+1:])
	if err != nil {
		return err
	}
	ask(t, h, http.MethodPost, "/api/v2.0/projects", settings{"project_name": name, "registry_id": id}, http.StatusCreated, nil)
	for _, robot := range []struct {
		harness.Robot
		rights []string
	}{{m.site.Signer, harness.SignerRights()}, {m.site.Receiver, harness.ReceiverRights()}} {
		if err := h.UpdateRobot(t.Context(), robot.Robot, robot.rights, m.project, name); err != nil {
			return errors.Join(errors.New("preparing Harbor"), err)
		}
	}
	return nil
}
