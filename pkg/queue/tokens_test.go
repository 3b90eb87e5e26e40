package queue_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
)

// projectNames generates valid names of Harbor projects, dots and all.
func projectNames() *rapid.Generator[string] {
	return rapid.StringMatching(`[a-z0-9]{1,20}((\.|_|__|-{1,3})[a-z0-9]{1,10}){0,6}`).
		Filter(func(s string) bool { return artifact.ValidateProject(s) == nil })
}

func refs() *rapid.Generator[artifact.Ref] {
	return rapid.Custom(func(t *rapid.T) artifact.Ref {
		repository := projectNames().Draw(t, "project") + "/" + rapid.SampledFrom([]string{"a", "a/b", "a.b", "a-b"}).Draw(t, "name")
		digest := "sha256:" + rapid.StringMatching(`[0-9a-f]{64}`).Draw(t, "digest")
		r, err := artifact.NewRef(repository, digest)
		if err != nil {
			t.Fatal(err)
		}
		return r
	})
}

func TestTokenRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(projectNames(), rapid.String()).Draw(t, "text")
		token := queue.EncodeToken(text)
		if token == "" || strings.ContainsAny(token, ".*> \t\r\n") {
			t.Fatalf("EncodeToken(%q) = %q is no subject token", text, token)
		}
		got, err := queue.DecodeToken(token)
		if err != nil || got != text {
			t.Fatalf("DecodeToken(%q) = %q, %v; want %q", token, got, err, text)
		}
	})
}

func TestDecodeTokenRefusesOtherSpellings(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"", "MRSW23Y", "mrsw23z", "a", "1", "mrsw23y=", "m.r", "m r"} {
		if got, err := queue.DecodeToken(token); err == nil {
			t.Errorf("DecodeToken(%q) = %q, want an error", token, got)
		}
	}
}

func FuzzDecodeToken(f *testing.F) {
	for _, token := range []string{"-", "mrsw23y", "mrsw23z", "MRSW23Y", "", "a======="} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		text, err := queue.DecodeToken(token)
		if err == nil && queue.EncodeToken(text) != token {
			t.Errorf("EncodeToken(%q) = %q, want %q", text, queue.EncodeToken(text), token)
		}
	})
}

func TestSubjectsTellReferencesApart(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := refs().Draw(t, "a"), refs().Draw(t, "b")
		for name, subject := range map[string]func(artifact.Ref) string{
			"sign":   func(r artifact.Ref) string { return queue.SignSubject("default", artifact.Live, r) },
			"ledger": func(r artifact.Ref) string { return queue.LedgerSubject("default", event(r, artifact.Signed, "e")) },
			"dead":   func(r artifact.Ref) string { return queue.DeadSubject("default", r) },
		} {
			if same := subject(a) == subject(b); same != (a == b) {
				t.Fatalf("%s: same subject is %t for %s and %s", name, same, a, b)
			}
		}
	})
}

// ofProject makes an event about a project, whose id is longer than the subject takes.
func ofProject(project string) artifact.Event {
	return artifact.Event{
		ID: "0123456789abcdef0123456789abcdef.and more", Kind: artifact.PolicyChanged, Project: project,
		Time: time.Unix(1_700_000_000, 0).UTC(), Origin: artifact.OriginAPI, CorrelationID: "c-1",
	}
}

// The subjects are what programs of different versions agree on.
func TestSubjectsStayAsTheyAre(t *testing.T) {
	t.Parallel()
	r := ref(t, "my.project/team/app", 7)
	tests := []struct{ name, got, want string }{
		{"sign", queue.SignSubject("default", artifact.Bulk, r), "sign.v1.default.bulk.3.nv4s44dsn5vgky3u.0769602385461eca844ab2043fc510ba"},
		{"ledger", queue.LedgerSubject("default", event(r, artifact.Received, "e")), "ledger.v1.default.received.nv4s44dsn5vgky3u.0769602385461eca844ab2043fc510ba"},
		{"ledger of a project", queue.LedgerSubject("default", ofProject("my.project")), "ledger.v1.default.policy_changed.nv4s44dsn5vgky3u.0123456789abcdef0123456789abcdef"},
		{"ledger of all", queue.LedgerSubject("default", ofProject("")), "ledger.v1.default.policy_changed.-.0123456789abcdef0123456789abcdef"},
		{"policy", queue.PolicySubject("default", book.State, "my.project"), "$KV.POLICIES.v1.default.state.nv4s44dsn5vgky3u"},
		{"policy of all", queue.PolicySubject("default", book.Pause, ""), "$KV.POLICIES.v1.default.pause.-"},
		{"state", queue.StateSubject("default", "full", "my.project"), "$KV.SWEEPS.v1.default.full.nv4s44dsn5vgky3u"},
		{"dead", queue.DeadSubject("default", r), "dead.v1.default.nv4s44dsn5vgky3u.0769602385461eca844ab2043fc510ba"},
		{"scan", queue.ScanSubject("default", "sweep", "my.project", 42), "scan.v1.default.sweep.nv4s44dsn5vgky3u.42"},
		{"scan of everything", queue.ScanSubject("default", "sweep", "", -1), "scan.v1.default.sweep.-.-1"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, tt.got, tt.want)
		}
	}
}

func TestPartitionsAreAllUsed(t *testing.T) {
	t.Parallel()
	used := map[int]bool{}
	rapid.Check(t, func(t *rapid.T) {
		part := queue.Partition(projectNames().Draw(t, "project"))
		if part < 0 || part >= queue.Partitions {
			t.Fatalf("partition %d, want 0 to %d", part, queue.Partitions-1)
		}
		used[part] = true
	})
	if len(used) < queue.Partitions/2 {
		t.Errorf("only %d partitions are used", len(used))
	}
}

func TestValidateHarbor(t *testing.T) {
	t.Parallel()
	for name, valid := range map[string]bool{
		"default": true, "eu-west_1": true, strings.Repeat("a", 32): true,
		"": false, strings.Repeat("a", 33): false, "a.b": false, "A": false, "a*": false, "a>": false, "a b": false,
	} {
		if err := queue.ValidateHarbor(name); (err == nil) != valid {
			t.Errorf("ValidateHarbor(%q) = %v, want valid: %t", name, err, valid)
		}
	}
}

func FuzzParsePolicySubject(f *testing.F) {
	f.Add("default", "policy", "my.project")
	f.Add("default", "pause", "")
	f.Fuzz(func(t *testing.T, harbor, kind, project string) {
		subject := queue.PolicySubject(harbor, book.Kind(kind), project)
		gotKind, gotProject, err := queue.ParsePolicySubject(subject)
		if strings.ContainsAny(harbor+kind, ".") {
			return // No tokens: nobody can have written them.
		}
		if err != nil || string(gotKind) != kind || gotProject != project {
			t.Errorf("%s became %q, %q, %v; want %q, %q", subject, gotKind, gotProject, err, kind, project)
		}
		if _, _, err := queue.ParsePolicySubject(subject + "="); err == nil {
			t.Errorf("%s= was read", subject)
		}
	})
}

// An event's id becomes a subject token, whatever it is, and two events have two.
func TestLedgerSubjectOfAProject(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := ofProject("demo"), ofProject("demo")
		a.ID, b.ID = rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		one, other := queue.LedgerSubject("default", a), queue.LedgerSubject("default", b)
		last := one[strings.LastIndexByte(one, '.')+1:]
		if len(last) != 32 || strings.Trim(last, "0123456789abcdef") != "" || strings.Count(one, ".") != 5 {
			t.Fatalf("id %q has subject %s", a.ID, one)
		}
		if (one == other) != (a.ID == b.ID) {
			t.Fatalf("ids %q and %q have subjects %s and %s", a.ID, b.ID, one, other)
		}
	})
}
