//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// letter is a dead letter as the API and the command line give it.
type letter struct {
	ID        uint64 `json:"id"`
	Project   string `json:"project"`
	Digest    string `json:"digest"`
	Reason    string `json:"reason"`
	LastError string `json:"last_error"`
	Attempts  int    `json:"attempts"`
}

// What cannot be signed is given up, and people see why, each in their own projects. When the cause is mended it is replayed and
// signed; what nobody wants is discarded, and who and why stays.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	m := newManaged(t, env.harbor, someProjects(2))
	own, other := m.projects[0], m.projects[1]
	admin := person(t, env.harbor, harness.RoleProjectAdmin, own).Credentials()
	developer := person(t, env.harbor, harness.RoleDeveloper, own).Credentials()
	pushed := map[string]harness.Pushed{}
	limits := map[string]func(int){}
	for _, project := range m.projects {
		m.enable(t, project, settings{"backfill": "none"})
		limits[project] = m.quota(t, project)
		m.silently(t, func() { pushed[project] = m.pushInto(t, project+"/app", "v1") })
		limits[project](1) // whatever is pushed from here on is too much
		m.sweep(t, project)
		m.awaitReason(t, pushed[project], "dead", "quota_exceeded")
	}
	byCommand := map[string]letter{}
	m.untilTrue(t, func() error { // the report knows first
		if byCommand = m.letters(t); len(byCommand) != 2 {
			return fmt.Errorf("the dead letters are %+v, want one in each project", byCommand)
		}
		return nil
	})
	for _, project := range m.projects {
		l := byCommand[project]
		if l.Digest != pushed[project].Digest || l.Reason != "quota_exceeded" || l.LastError == "" || l.Attempts != 1 {
			t.Errorf("the dead letter of %s is %+v, want its digest, why and the last error", project, l)
		}
	}
	table, err := m.signer(t, "dead", "list", "--project", own)
	if err != nil || !strings.Contains(table, "quota_exceeded") || !strings.Contains(table, own+"/app@"+pushed[own].Digest[:19]) || strings.Contains(table, other) {
		t.Errorf("dead list of one project: %v\n%s\nwant its letter alone", err, table)
	}
	t.Run("access", func(t *testing.T) { m.lettersOfOthers(t, admin, developer, byCommand[own], byCommand[other]) })

	limits[own](-1)
	path := fmt.Sprintf("dead-letters/%d", byCommand[own].ID)
	must(t, "replaying", m.call(t, admin, http.MethodPost, path+"/replay", nil, nil), http.StatusAccepted)
	m.sweep(t, own) // which finds that it was asked for, or that it is signed
	m.awaitSigned(t, pushed[own])
	want(t, "the letter of what is signed", m.call(t, admin, http.MethodGet, path, nil, nil), http.StatusNotFound)
	replayed := m.awaitEvent(t, own, func(e occurrence) bool { return e.Kind == "replayed" })
	if replayed.Actor != admin.Name {
		t.Errorf("%q has replayed it, want %q", replayed.Actor, admin.Name)
	}

	// Whoever replays before anything is mended has another letter.
	id := fmt.Sprint(byCommand[other].ID)
	m.mustSigner(t, "replayed 1 of 1", "dead", "replay", id)
	m.untilTrue(t, func() error {
		if l, found := m.letters(t)[other]; !found || l.ID <= byCommand[other].ID {
			return fmt.Errorf("the letters are %+v, want another one", l)
		}
		return nil
	})
	if out, err := m.signer(t, "dead", "replay", id); err != nil || !strings.Contains(out, "1 not there any more") {
		t.Errorf("replaying what was replayed: %v\n%s\nwant that it is not there", err, out)
	}
	m.awaitReason(t, pushed[other], "dead", "quota_exceeded")
	if out, err := m.signer(t, "dead", "discard", "--all"); err == nil || !strings.Contains(out, "--why") {
		t.Errorf("discarding without a reason: %v\n%s\nwant that it is refused", err, out)
	}
	m.mustSigner(t, "discarded 1 of 1", "dead", "discard", "--all", "--why", "the project moves to another registry")
	m.mustSigner(t, "there are no such dead letters", "dead", "list")
	discarded := m.awaitEvent(t, other, func(e occurrence) bool { return e.Kind == "discarded" })
	if !strings.HasPrefix(discarded.Actor, "cli:") || discarded.Detail != "the project moves to another registry" || discarded.Reason != "quota_exceeded" ||
		discarded.Change == nil || discarded.Change.From != "cli" || !strings.Contains(string(discarded.Change.Before), pushed[other].Digest) {
		t.Errorf("the event is %+v, want who, why, and what it was", discarded)
	}
	if row := m.audit(t.Context(), t, pushed[other]); row.State != "dead" {
		t.Errorf("the report says %q of what was discarded, want that it was given up", row.State)
	}

	// To discard forbids nothing: what is in Harbor, and wanted, is asked for again.
	limits[other](-1)
	m.sweep(t, other)
	m.awaitSigned(t, pushed[other])
	m.judgeAll(t)
}

// lettersOfOthers has the admin of a project see and touch its own letter alone, and a developer see it.
func (m *managed) lettersOfOthers(t *testing.T, admin, developer harness.Credentials, own, other letter) {
	t.Helper()
	for name, who := range map[string]harness.Credentials{"the admin": admin, "a developer": developer} {
		answer := must(t, name+" lists", m.call(t, who, http.MethodGet, "dead-letters", nil, nil), http.StatusOK)
		listed := decoded[struct {
			Items []letter `json:"items"`
		}](t, answer).Items
		if len(listed) != 1 || listed[0] != own {
			t.Errorf("%s sees %+v, want %+v alone", name, listed, own)
		}
	}
	path := fmt.Sprintf("dead-letters/%d", other.ID)
	why := settings{"why": "it is not mine"}
	want(t, "another's letter", m.call(t, admin, http.MethodGet, path, nil, nil), http.StatusNotFound)
	want(t, "replaying another's letter", m.call(t, admin, http.MethodPost, path+"/replay", nil, nil), http.StatusNotFound)
	want(t, "discarding another's letter", m.call(t, admin, http.MethodDelete, path, why, nil), http.StatusNotFound)
	path = fmt.Sprintf("dead-letters/%d", own.ID)
	want(t, "replaying as a developer", m.call(t, developer, http.MethodPost, path+"/replay", nil, nil), http.StatusForbidden)
	want(t, "discarding as a developer", m.call(t, developer, http.MethodDelete, path, why, nil), http.StatusForbidden)
	want(t, "discarding without a reason", m.call(t, admin, http.MethodDelete, path, settings{"why": ""}, nil), http.StatusBadRequest)
	if n := len(m.letters(t)); n != 2 {
		t.Errorf("there are %d dead letters, want the 2 of before", n)
	}
}

// letters are those that the command line lists, by their projects.
func (m *managed) letters(t *testing.T) map[string]letter {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), env.programs.Signer, //nolint:gosec // the program under test
		"dead", "list", "-o", "json", "--config", filepath.Join(m.dir, m.Signers[0].Name+".yaml"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + m.dir}
	out, err := cmd.Output() // without what the program says beside
	if err != nil {
		t.Fatalf("signer dead list: %v", err)
	}
	var document struct {
		DeadLetters []letter `json:"dead_letters"`
	}
	if err := json.Unmarshal(out, &document); err != nil {
		t.Fatalf("signer dead list writes %s: %v", out, err)
	}
	found := map[string]letter{}
	for _, l := range document.DeadLetters {
		found[l.Project] = l
	}
	return found
}
