package access_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// people are the callers of the tests, by what they are.
func people(t *testing.T) (d door, callers map[string]access.Caller) {
	t.Helper()
	lines := strings.Builder{}
	callers = map[string]access.Caller{"nobody": {}, "forged": {Name: "admin", Kind: access.User, SystemAdmin: true}, "forged grant": {Name: "x", Kind: access.Token}}
	secrets := make(map[string]string)
	for name, fields := range map[string]string{
		"reader": "", "changer": ":change", "team": ":change:team-*|demo", "team reader": ":read:team-*",
	} {
		token, line, err := access.NewToken(strings.ReplaceAll(name, " ", "-"))
		if err != nil {
			t.Fatal(err)
		}
		secrets[name] = token
		lines.WriteString(line + fields + "\n")
	}
	d = open(t, lines.String(), func(cfg *access.Config) {
		cfg.Names = func(context.Context) ([]string, error) { return []string{"team-b", "demo", "team-a", "app"}, nil }
	})
	for name, token := range secrets {
		callers[name] = d.enter(t, bearer(token))
	}
	for name, header := range map[string]http.Header{
		"admin": basic("admin", "a"), "ann": basic("ann", "p"), "dev": basic("dev", "p"), "out": basic("out", "p"),
		"eve": basic("eve", "p"), "robot": basic("robot$demo+ci", "r"),
	} {
		callers[name] = d.enter(t, header)
	}
	return d, callers
}

// TestWhoMayDoWhat is the whole table: r may read, c may read and change, - may not and hears that there is no such project.
func TestWhoMayDoWhat(t *testing.T) {
	d, callers := people(t)
	projects := []string{"demo", "app", "open", "team-a", "none", "", "No Name"}
	for who, want := range map[string]string{
		"nobody":       "- - - - - - -",
		"forged":       "- - - - - - -",
		"forged grant": "- - - - - - -",
		"admin":        "c c c c c c -",
		"eve":          "r r r r r r -", // an auditor, and a developer of app
		"ann":          "c r - - - - -",
		"dev":          "r - r - - - -",
		"out":          "- - - - - - -", // open is public: seeing it in Harbor is no membership
		"robot":        "- - - - - - -",
		"reader":       "r r r r r r -",
		"changer":      "c c c c c c -",
		"team":         "c - - c - - -",
		"team reader":  "- - - r - - -",
	} {
		t.Run(who, func(t *testing.T) {
			for i, may := range strings.Fields(want) {
				project := projects[i]
				read, err := d.Can(t.Context(), callers[who], access.Read, project)
				if err != nil || read != (may != "-") {
					t.Errorf("read %q: %t, %v; want %s", project, read, err, may)
				}
				change, err := d.Can(t.Context(), callers[who], access.Change, project)
				if err != nil || change != (may == "c") {
					t.Errorf("change %q: %t, %v; want %s", project, change, err, may)
				}
				if other, err := d.Can(t.Context(), callers[who], "delete", project); err != nil || other {
					t.Errorf("an unknown action on %q: %t, %v; want false", project, other, err)
				}
				wantErr := map[string]error{"-": access.ErrNotFound, "r": access.ErrForbidden, "c": nil}[may]
				if err := d.Require(t.Context(), callers[who], access.Change, project); !errors.Is(err, wantErr) {
					t.Errorf("Require to change %q: %v, want %v", project, err, wantErr)
				}
				if err := d.Require(t.Context(), callers[who], access.Read, project); (err == nil) != (may != "-") || err != nil && !errors.Is(err, access.ErrNotFound) {
					t.Errorf("Require to read %q: %v, want %s", project, err, may)
				}
			}
		})
	}
}

// TestOutsidersLearnNothing compares a project of others with one that does not exist: the answers, and what was asked for
// them.
func TestOutsidersLearnNothing(t *testing.T) {
	d, callers := people(t)
	for _, who := range []string{"out", "dev", "robot", "team"} {
		for _, action := range []access.Action{access.Read, access.Change} {
			ask := func(project string) (answer string, questions int) {
				before := d.harbor.count("role")
				err := d.Require(t.Context(), callers[who], action, project)
				return err.Error(), d.harbor.count("role") - before
			}
			others, asked := ask("app")
			none, askedToo := ask("nothing")
			if others != none || asked != askedToo {
				t.Errorf("%s, %s: %q after %d questions about a project of others, %q after %d about none; want the same", who, action, others, asked, none, askedToo)
			}
		}
	}
}

func TestEveryRoleReadsAndOneChanges(t *testing.T) {
	for role := artifact.Role(-1); role <= 7; role++ {
		d := open(t, "")
		header := basic("rob", "p")
		d.harbor.set(func(f *fakeHarbor) {
			f.logins[header.Get("Authorization")] = login{account: artifact.Account{Name: "rob"}, roles: map[string]artifact.Role{"demo": role}}
		})
		c := d.enter(t, header)
		read, err := d.Can(t.Context(), c, access.Read, "demo")
		change, err2 := d.Can(t.Context(), c, access.Change, "demo")
		if err := errors.Join(err, err2); err != nil || read != (role > 0) || change != (role == artifact.RoleProjectAdmin) {
			t.Errorf("role %d: read %t, change %t, %v", role, read, change, err)
		}
	}
}

func TestVisible(t *testing.T) {
	d, callers := people(t)
	for who, want := range map[string][]string{
		"nobody": {}, "forged": {}, "forged grant": {}, "out": {}, "robot": {},
		"admin": nil, "eve": nil, "reader": nil, "changer": nil,
		"ann": {"app", "demo"}, "dev": {"demo", "open"}, "team": {"demo", "team-a", "team-b"}, "team reader": {"team-a", "team-b"},
	} {
		for range 2 { // the second time as remembered, which nobody can have changed
			got, all, err := d.Visible(t.Context(), callers[who])
			if err != nil || all != (want == nil) || (got == nil) != (want == nil) || !slices.Equal(got, want) {
				t.Errorf("%s: %#v, all %t, %v; want %#v", who, got, all, err, want)
			}
			for i := range got {
				got[i] = "x"
			}
		}
	}
	if got := d.harbor.count("roles"); got != 3 {
		t.Errorf("Harbor was asked %d times for the projects of three callers, want 3", got)
	}
	for who, c := range callers {
		visible, all, err := d.Visible(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		for _, project := range []string{"demo", "app", "open", "team-a", "none"} {
			may, err := d.Can(t.Context(), c, access.Read, project)
			if err != nil || slices.Contains(visible, project) && !may || may && !all && !slices.Contains(visible, project) && project != "none" {
				t.Errorf("%s: %s may be read %t, %v, but visible are %q", who, project, may, err, visible)
			}
		}
	}
}

func TestVisibleWithoutNames(t *testing.T) {
	token, line, err := access.NewToken("ci")
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range []func(context.Context) ([]string, error){nil, func(context.Context) ([]string, error) {
		return nil, fault.Newf(fault.Transient, fault.StorageUnavailable, "down")
	}} {
		d := open(t, line+":read:b|a|a|team-*", func(cfg *access.Config) { cfg.Names = names })
		got, all, err := d.Visible(t.Context(), d.enter(t, bearer(token)))
		switch {
		case names == nil && (err != nil || all || !slices.Equal(got, []string{"a", "b"})):
			t.Errorf("without names: %q, %t, %v; want a and b", got, all, err)
		case names != nil && (!fault.Is(err, fault.Transient) || got != nil || all):
			t.Errorf("names that fail: %q, %t, %v; want a transient fault", got, all, err)
		}
	}
}

func TestCanPull(t *testing.T) {
	d, callers := people(t)
	for who, want := range map[string]map[string]bool{
		"robot":  {"demo/app": true, "demo/other": false, "app/x": false, "none/x": false, "demo": false, "": false, "demo/": false, "demo/../app": false},
		"dev":    {"demo/app": true, "demo/team/other": true, "app/x": false, "none/x": false},
		"team":   {"team-a/x": true, "app/x": false},
		"admin":  {"app/x": true},
		"nobody": {"demo/app": false, "open/x": false},
		"out":    {"open/x": false},
	} {
		for repository, want := range want {
			for range 2 {
				if got, err := d.CanPull(t.Context(), callers[who], repository); err != nil || got != want {
					t.Errorf("%s, %s: %t, %v; want %t", who, repository, got, err, want)
				}
			}
		}
	}
	if got := d.harbor.count("token"); got != 4 {
		t.Errorf("Harbor's token service was asked %d times, want once for each of four repositories", got)
	}
	d.harbor.set(func(f *fakeHarbor) { f.err = errors.New("away") })
	if _, err := d.CanPull(t.Context(), callers["robot"], "demo/new"); verdict(err) != "away" {
		t.Errorf("Harbor away: %v, want a transient fault", err)
	}
}

// TestMemoriesAreOfOneCaller asks for all callers in any order: nobody gets another's answer.
func TestMemoriesAreOfOneCaller(t *testing.T) {
	d, callers := people(t)
	want := func(who, project string) bool {
		fresh, same := people(t)
		may, err := fresh.Can(t.Context(), same[who], access.Change, project)
		if err != nil {
			t.Fatal(err)
		}
		return may
	}
	table := make(map[string]bool)
	names, projects := []string{"ann", "dev", "out", "eve", "robot", "team", "admin"}, []string{"demo", "app", "open", "none"}
	for _, who := range names {
		for _, project := range projects {
			table[who+" "+project] = want(who, project)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		who, project := rapid.SampledFrom(names).Draw(rt, "who"), rapid.SampledFrom(projects).Draw(rt, "project")
		may, err := d.Can(t.Context(), callers[who], access.Change, project)
		if err != nil || may != table[who+" "+project] {
			rt.Fatalf("%s may change %s: %t, %v; want %t", who, project, may, err, table[who+" "+project])
		}
	})
}

func TestActor(t *testing.T) {
	for want, c := range map[string]access.Caller{
		"ann": {Name: "ann", Kind: access.User}, "robot$x": {Name: "robot$x", Kind: access.Robot}, "token:ann": {Name: "ann", Kind: access.Token},
	} {
		if got := c.Actor(); got != want {
			t.Errorf("Actor of %s %s = %q, want %q", c.Kind, c.Name, got, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]access.Config{
		"Timeout":  {Timeout: -1},
		"auditors": {Auditors: []string{"ann", " "}},
		"such":     {TokensFile: t.TempDir() + "/none"},
	} {
		if _, err := access.New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("New: %v, want an error with %q", err, name)
		}
	}
	a, err := access.New(access.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range []http.Header{nil, basic("admin", "a"), bearer("hs_1"), bearer("x")} {
		if _, err := a.Authenticate(t.Context(), header, here); !errors.Is(err, access.ErrUnauthenticated) {
			t.Errorf("the empty configuration: %v, want ErrUnauthenticated", err)
		}
	}
}
