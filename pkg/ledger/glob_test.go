package ledger_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
)

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		glob, prefix string
		yes, no      []string
	}{
		{"demo/*", "demo/", []string{"demo/app", "demo/a.b"}, []string{"demo/team/app", "demo", "xdemo/app", "demo2/app"}},
		{"demo/**", "demo/", []string{"demo/app", "demo/team/app"}, []string{"other/app"}},
		{"**/app", "", []string{"demo/app", "demo/team/app"}, []string{"demo/xapp", "demo/app/x"}},
		{"demo/**/app", "demo/", []string{"demo/app", "demo/a/app", "demo/a/b/app"}, []string{"demo/xapp", "demoapp"}},
		{"d?mo/app", "d", []string{"demo/app", "dumo/app"}, []string{"d/mo/app", "dmo/app"}},
		{"demo/[a-c]pp", "demo/", []string{"demo/app", "demo/cpp"}, []string{"demo/dpp", "demo/-pp"}},
		{"demo/[^a]pp", "demo/", []string{"demo/bpp"}, []string{"demo/app", "demo//pp"}},
		{"demo/{web,api*}", "demo/", []string{"demo/web", "demo/api", "demo/api-2"}, []string{"demo/webx", "demo/ap"}},
		{"demo/a.b*", "demo/a.b", []string{"demo/a.b", "demo/a.bc"}, []string{"demo/axb"}},
	} {
		g, err := ledger.NewGlob(tt.glob)
		if err != nil {
			t.Errorf("NewGlob(%q): %v", tt.glob, err)
			continue
		}
		if g.Prefix() != tt.prefix || g.String() != tt.glob {
			t.Errorf("%q has the prefix %q, want %q", g, g.Prefix(), tt.prefix)
		}
		for _, name := range tt.yes {
			if !g.Matches(name) {
				t.Errorf("%q does not match %q", tt.glob, name)
			}
		}
		for _, name := range tt.no {
			if g.Matches(name) {
				t.Errorf("%q matches %q", tt.glob, name)
			}
		}
	}
	for _, glob := range []string{
		"demo/[", "demo/]", "demo/[]", "demo/[!a]", "demo/[^]", "demo/[a/b]", "demo/[z-a]", "demo/{a", "demo/a}", "demo/{a,{b}}", "demo/*\\", "demo/\\*", "Demo/*", "demo/(*)", "demo/ *",
		"demo/*\n", strings.Repeat("*", 513),
	} {
		if g, err := ledger.NewGlob(glob); err == nil {
			t.Errorf("NewGlob(%q) = %v, want an error", glob, g)
		}
	}
}

// Globs mean what they mean in policies.
func TestGlobIsThatOfPolicies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.SampledFrom([]string{"a", "b", "-", ".", "*", "?", "[ab]", "[^a]", "{a,b}", "{ab,b}"}) // with no * in braces, which the library does not match with nothing
		part := rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(piece, 1, 4).Draw(t, "part"), "") })
		parts := rapid.SliceOfN(rapid.OneOf(part, rapid.Just("**")), 1, 4).Draw(t, "parts")
		glob := strings.Join(parts, "/")
		if strings.Contains(strings.ReplaceAll(glob, "/**/", "//"), "**") {
			t.Skip("** beside something else, or at an end, where versions of the library differ")
		}
		name := rapid.StringMatching(`[ab.-]{1,4}(/[ab.-]{1,4}){0,3}`).Draw(t, "name")
		g, err := ledger.NewGlob(glob)
		if err != nil {
			t.Fatalf("NewGlob(%q): %v", glob, err)
		}
		if got, want := g.Matches(name), (policy.Globs{Include: []string{glob}}).Matches(name); got != want {
			t.Fatalf("%q matches %q: %t, want %t", glob, name, got, want)
		}
	})
}

// A glob that was written to take long does not.
func TestGlobTakesNoTime(t *testing.T) {
	g, err := ledger.NewGlob("demo/" + strings.Repeat("*a", 200) + "*b")
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if g.Matches("demo/" + strings.Repeat("a", 250)) {
		t.Error("it matches")
	}
	if took := time.Since(started); took > time.Second {
		t.Errorf("matching took %s", took)
	}
}

func FuzzGlob(f *testing.F) {
	for _, seed := range []string{"demo/*", "**/{a,b}", "[!a-c]?", "{", "[[]]", "\\*", "demo/**/app"} {
		f.Add(seed, "demo/app")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		g, err := ledger.NewGlob(text)
		if err != nil {
			if invalid := new(ledger.InvalidQueryError); !errors.As(err, &invalid) || invalid.Field != "repository" {
				t.Fatalf("NewGlob(%q): error %v, want one about the repository", text, err)
			}
			return
		}
		if g.Matches(name) && !strings.HasPrefix(name, g.Prefix()) {
			t.Fatalf("%q matches %q, which does not begin with %q", text, name, g.Prefix())
		}
	})
}

// FuzzQuery wants any query to be refused, naming a part of it, or to be one whose cursors lead back to it.
func FuzzQuery(f *testing.F) {
	f.Add("demo", "team/**", "abcdef0", "v1", "signed", "k1", "both", "ann", "webhook", "-signed", int64(1), int64(2), 3, "")
	f.Add("", "*/x", "", "\x00", "", "\xff", "x", "'; --", "none", "first_seen", int64(-1), int64(0), -1, "AQ")
	f.Fuzz(func(t *testing.T, project, repository, digest, tag, state, key, format, pusher, source, sort string, from, to int64, limit int, cursor string) {
		at := func(micros int64) time.Time {
			if micros == 0 {
				return time.Time{}
			}
			return time.UnixMicro(micros)
		}
		q := ledger.Query{
			Project: project, Repository: repository, Digest: digest, Tag: tag, State: ledger.State(state), Key: key, Format: format, Pusher: pusher,
			PusherSource: ledger.PusherSource(source), Sort: sort, PushedSince: at(from), SignedUntil: at(to), Limit: limit, Cursor: cursor,
		}
		filter, err := q.Filter()
		if err != nil {
			if invalid := new(ledger.InvalidQueryError); !errors.As(err, &invalid) || invalid.Field == "" || invalid.Want == "" {
				t.Fatalf("Filter(%+v): error %v, want one that names a part", q, err)
			}
			return
		}
		want := ledger.Place{At: time.UnixMicro(from).UTC(), FirstSeq: 7}
		q.Cursor = filter.Cursor(want)
		if got, err := q.Filter(); err != nil || got.After != want {
			t.Fatalf("Filter(%+v) of its own cursor = %+v, %v; want %+v", q, got.After, err, want)
		}
	})
}
