//go:build e2e

package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// door is something that somebody may want of a project.
type door struct {
	method, path string
	body         any
	changes      bool
}

func doors() []door {
	digest := "/blocks/sha256:" + strings.Repeat("ab", 32)
	return []door{
		{http.MethodGet, "", nil, false},
		{http.MethodGet, "/events", nil, false},
		{http.MethodPut, "", settings{"mode": "sign", "backfill": "all"}, true},
		{http.MethodPost, "/sweep", nil, true},
		{http.MethodPost, "/webhook-secret", nil, true},
		{http.MethodPut, digest, settings{"reason": "no"}, true},
		{http.MethodDelete, digest, nil, true},
		{http.MethodDelete, "", nil, true},
	}
}

// Who may do what in a project is what Harbor says: admins of the project change, members read, and all others learn nothing.
func TestAccess(t *testing.T) {
	t.Parallel()
	h := env.harbor
	names := someProjects(2)
	site, err := harness.NewSite(t.Context(), h, names...)
	if err != nil {
		t.Fatalf("preparing Harbor: %v", err)
	}
	own, other := names[0], names[1]
	admin := person(t, h, harness.RoleProjectAdmin, own)
	members := []harness.User{person(t, h, harness.RoleDeveloper, own), person(t, h, harness.RoleLimitedGuest, own)}
	auditor, nobody := person(t, h, harness.RoleDeveloper), person(t, h, harness.RoleDeveloper)
	tokens := map[string]string{"reads": "read:" + own, "changes": "change:" + own, "globs": "read:" + own + "*|no-*", "old": "change:*:2020-01-01"}
	m := newManagedOn(t, site, names, func(o *harness.Options) {
		o.EditReceiver = func(c harness.Config) {
			harness.Set(c, []string{auditor.Name}, "api", "auditors")
			harness.Set(c, tokensFile(t, o.Dir, tokens), "api", "tokens_file")
		}
	})
	for _, project := range names {
		m.enable(t, project, settings{"backfill": "none"})
		m.awaitSigned(t, m.pushInto(t, project+"/app", "v1"))
	}
	token := func(name string) harness.Credentials { return harness.Credentials{Token: tokenOf(name)} }
	tests := []struct {
		name    string
		who     harness.Credentials
		project string
		// reads and changes are the statuses of what reads and of what changes; 0 stands for success.
		reads, changes int
	}{
		{"an admin at home", admin.Credentials(), own, 0, 0},
		{"an admin at another's door", admin.Credentials(), other, 404, 404},
		{"a developer", members[0].Credentials(), own, 0, 403},
		{"a limited guest", members[1].Credentials(), own, 0, 403},
		{"a developer at another's door", members[0].Credentials(), other, 404, 404},
		{"somebody without a role", nobody.Credentials(), own, 404, 404},
		{"an auditor", auditor.Credentials(), other, 0, 403},
		{"the system's admin", m.admin, other, 0, 0},
		{"a robot", site.Developer.Credentials(), own, 404, 404},
		{"the signer's robot", site.Signer.Credentials(), own, 404, 404},
		{"a token that reads", token("reads"), own, 0, 403},
		{"a token that reads, at another's door", token("reads"), other, 404, 404},
		{"a token that changes", token("changes"), own, 0, 0},
		{"a token that changes, at another's door", token("changes"), other, 404, 404},
		{"a token for globs", token("globs"), own, 0, 403},
		{"a token that has expired", token("old"), own, 401, 401},
		{"a token that nobody gave", token("invented"), own, 401, 401},
		{"nobody", harness.Credentials{}, own, 401, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { m.tryDoors(t, tt.who, tt.project, tt.reads, tt.changes) })
	}
	t.Run("lists", func(t *testing.T) {
		for _, tt := range []struct {
			name string
			who  harness.Credentials
			want []string
			// all is whether they see as well what is in Harbor beside: public projects of others, which nobody enabled here.
			all bool
		}{
			{"the admin of one", admin.Credentials(), []string{own}, false},
			{"a guest", members[1].Credentials(), []string{own}, false},
			{"somebody without a role", nobody.Credentials(), nil, false},
			{"an auditor", auditor.Credentials(), names, true},
			{"the system's admin", m.admin, names, true},
			{"a robot", site.Developer.Credentials(), nil, false},
			{"a token", token("reads"), []string{own}, false},
			{"a token for globs", token("globs"), []string{own}, false},
		} {
			var got []string
			for _, p := range m.listed(t, tt.who) {
				if tt.all && !p.Enabled && !slices.Contains(tt.want, p.Project) {
					continue
				}
				got = append(got, p.Project)
			}
			want := slices.Sorted(slices.Values(tt.want))
			if !slices.Equal(got, want) {
				t.Errorf("%s sees the projects %q, want %q", tt.name, got, want)
			}
		}
	})
	t.Run("report", func(t *testing.T) { testReportOfOthers(t, m, admin, own, other) })
	m.judgeAll(t)
}

// tryDoors knocks at all doors of a project. What is refused because somebody must not know of the project is refused in the
// same words as what is not there.
func (m *managed) tryDoors(t *testing.T, who harness.Credentials, project string, reads, changes int) {
	t.Helper()
	for _, d := range doors() {
		wanted := reads
		if d.changes {
			wanted = changes
		}
		header := http.Header{}
		if d.method == http.MethodPut && d.path == "" {
			_, etag := m.get(t, project)
			header = ifMatch(etag)
		}
		what := d.method + " " + d.path
		got := m.call(t, who, d.method, "projects/"+project+d.path, d.body, header)
		if wanted == 0 {
			if got.Status >= http.StatusBadRequest {
				t.Errorf("%s: the answer is %d %.300s, want success", what, got.Status, got.Body)
			}
			continue
		}
		want(t, what, got, wanted)
		switch wanted {
		case http.StatusNotFound:
			absent := m.call(t, who, d.method, "projects/"+harness.Random("e2e-")+d.path, d.body, header)
			if absent.Status != got.Status || string(absent.Body) != string(got.Body) {
				t.Errorf("%s: the answer %s differs from that for a project that does not exist: %d %s", what, got.Body, absent.Status, absent.Body)
			}
		case http.StatusUnauthorized:
			if challenges := got.Header.Values("WWW-Authenticate"); len(challenges) == 0 {
				t.Errorf("%s: a 401 does not say how to log in", what)
			}
		}
	}
	// What somebody who may change has done is undone.
	if changes == 0 {
		m.enable(t, project, settings{"mode": "sign", "backfill": "none"})
	}
}

// testReportOfOthers looks whether the report shows what belongs to the caller's projects alone, and to a robot what it pulls.
func testReportOfOthers(t *testing.T, m *managed, admin harness.User, own, other string) {
	t.Helper()
	report := func(who harness.Credentials, query string) harness.Answer {
		return m.call(t, who, http.MethodGet, "signatures?"+query, nil, nil)
	}
	type rows struct {
		Items []struct {
			Project string `json:"project"`
		} `json:"items"`
	}
	for _, tt := range []struct {
		name  string
		who   harness.Credentials
		query string
		want  int
	}{
		{"an admin of one, all", admin.Credentials(), "", 1},
		{"an admin of one, another's", admin.Credentials(), "project=" + other, 0},
		{"the system's admin", m.admin, "", 2},
		{"a robot, what it pulls", m.site.Developer.Credentials(), "repository=" + own + "/app", 1},
	} {
		answer := report(tt.who, tt.query)
		want(t, tt.name, answer, http.StatusOK)
		if got := decoded[rows](t, answer).Items; len(got) != tt.want {
			t.Errorf("%s: the report has %d rows, want %d: %s", tt.name, len(got), tt.want, answer.Body)
		}
	}
	stranger, err := m.site.Harbor.CreateRobot(t.Context(), harness.Random("stranger-"), harness.DeveloperRights(), other)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.site.Harbor.DeleteRobot(t.Context(), stranger.ID); err != nil {
			t.Error(err)
		}
	}()
	want(t, "a robot, what it does not pull", report(stranger.Credentials(), "repository="+own+"/app"), http.StatusNotFound)
	want(t, "a robot, everything", report(stranger.Credentials(), ""), http.StatusBadRequest)
	want(t, "nobody", report(harness.Credentials{}, ""), http.StatusUnauthorized)
}

// tokenOf gives the API token of a name. It is a secret of this test run alone.
func tokenOf(name string) string {
	sum := sha256.Sum256([]byte(env.dir + name))
	return "hs_" + hex.EncodeToString(sum[:])
}

// tokensFile writes the file of tokens with the scopes of each.
func tokensFile(t *testing.T, dir string, scopes map[string]string) string {
	t.Helper()
	var lines strings.Builder
	for name, scope := range scopes {
		sum := sha256.Sum256([]byte(tokenOf(name)))
		fmt.Fprintf(&lines, "%s:%s:%s\n", name, hex.EncodeToString(sum[:]), scope)
	}
	old, err := os.ReadFile(filepath.Join(dir, "api.tokens")) //nolint:gosec // a file of the test
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "more.tokens")
	if err := os.WriteFile(path, append(old, lines.String()...), 0o600); err != nil { //nolint:gosec // a file of the test
		t.Fatal(err)
	}
	return path
}

// Who guesses passwords is slowed down at that account, and nobody else is.
func TestGuessesAreSlowedDown(t *testing.T) {
	t.Parallel()
	m := newManaged(t, env.harbor, someProjects(1))
	victim, other := person(t, env.harbor, harness.RoleProjectAdmin, m.project), person(t, env.harbor, harness.RoleProjectAdmin, m.project)
	read := func(who harness.Credentials) harness.Answer {
		return m.call(t, who, http.MethodGet, "projects/"+m.project, nil, nil)
	}
	guess := func(i int) harness.Answer {
		return read(harness.Credentials{Name: victim.Name, Secret: "guess-" + strconv.Itoa(i)})
	}
	slow := guess(0)
	want(t, "a wrong password", slow, http.StatusUnauthorized)
	if len(slow.Header.Values("WWW-Authenticate")) == 0 {
		t.Error("a 401 does not say how to log in")
	}
	for i := 1; i < 8 && slow.Status == http.StatusUnauthorized; i++ {
		slow = guess(i)
	}
	must(t, "one guess after the other", slow, http.StatusTooManyRequests)
	seconds, err := strconv.Atoi(slow.Header.Get("Retry-After"))
	if err != nil || seconds < 1 {
		t.Errorf("the answer says to try again after %q seconds, want a number", slow.Header.Get("Retry-After"))
	}
	want(t, "another account", read(other.Credentials()), http.StatusOK)
	// Not even the right password tells whether the guess was right, until the time is over.
	want(t, "the right password too early", read(victim.Credentials()), http.StatusTooManyRequests)
	m.untilTrue(t, func() error {
		if answer := read(victim.Credentials()); answer.Status != http.StatusOK {
			return fmt.Errorf("the right password is answered with %d", answer.Status)
		}
		return nil
	})
}

// Where Harbor logs people in by OIDC, an id token opens the API as a password does elsewhere.
func TestIDTokens(t *testing.T) {
	t.Parallel()
	h := newEmulator(t, "") // its mode is changed, and it needs no identity provider
	m := newManaged(t, h, someProjects(2))
	admin := person(t, h, harness.RoleProjectAdmin, m.project)
	ask(t, h, http.MethodPut, "/api/v2.0/configurations", settings{"auth_mode": "oidc_auth"}, http.StatusOK, nil)
	login := map[string]string{"username": admin.Name, "id_token": "eyJ." + harness.Random("token-") + ".sig"}
	ask(t, h, http.MethodPut, "/_emulator/login", login, http.StatusOK, nil)
	who := harness.Credentials{Token: login["id_token"]}
	put := func(who harness.Credentials, project string) harness.Answer {
		return m.call(t, who, http.MethodPut, "projects/"+project, settings{"backfill": "none"}, nil)
	}
	want(t, "enabling another's project with an id token", put(who, m.projects[1]), http.StatusNotFound)
	want(t, "enabling with another id token", put(harness.Credentials{Token: login["id_token"] + "x"}, m.project), http.StatusUnauthorized)
	want(t, "enabling with the password of before", put(admin.Credentials(), m.project), http.StatusUnauthorized)
	state := decoded[enrolled](t, must(t, "enabling with an id token", put(who, m.project), http.StatusCreated))
	if !state.Enabled || state.ChangedBy != admin.Name {
		t.Errorf("the project is %+v, want it enabled by %s", state, admin.Name)
	}
	m.pushInto(t, m.project+"/app", "v1")
	m.judgeAll(t)
}
