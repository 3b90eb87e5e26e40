package enroll_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// wantAccepts asks with the value of an Authorization header.
func wantAccepts(t *testing.T, s *enroll.Service, when, project, value string, want bool) {
	t.Helper()
	if got, err := s.Accepts(t.Context(), project, value); got != want || err != nil {
		t.Errorf("%s: Accepts(%s, %.20q…) = %t, %v; want %t", when, project, value, got, err, want)
	}
}

func TestASecretIsItsProjectsOwn(t *testing.T) {
	w := newWorld()
	w.projects["other"] = artifact.Project{ID: 8, Name: "other"}
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	if _, err := s.Put(t.Context(), alice, "other", all(), ""); err != nil {
		t.Fatal(err)
	}
	value := w.hooks()[0].AuthHeader
	wantAccepts(t, s, "its own door", "demo", value, true)
	for _, project := range []string{"other", "unknown", ""} {
		wantAccepts(t, s, "another's door", project, value, false)
	}
	for name, wrong := range map[string]string{
		"empty": "", "no scheme": strings.TrimPrefix(value, "Bearer "), "another scheme": strings.Replace(value, "hs1", "hs2", 1),
		"another version": strings.Replace(value, "hs1.1.", "hs1.3.", 1), "the next version with this MAC": strings.Replace(value, "hs1.1.", "hs1.2.", 1),
		"leading zero": strings.Replace(value, "hs1.1.", "hs1.01.", 1), "plus": strings.Replace(value, "hs1.1.", "hs1.+1.", 1),
		"cut": value[:len(value)-1], "longer": value + "0", "not hexadecimal": value[:len(value)-1] + "g", "last digit": flip(value),
		"huge version": strings.Replace(value, "hs1.1.", "hs1.99999999999999999999.", 1),
	} {
		wantAccepts(t, s, name, "demo", wrong, false)
	}
}

func flip(value string) string {
	last := byte('0')
	if value[len(value)-1] == '0' {
		last = '1'
	}
	return value[:len(value)-1] + string(last)
}

// The secret is part of the contract between versions of this program: it must not change under a running Harbor.
func TestTheFormOfASecret(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	const want = "Bearer hs1.1.f6516356f081962b93f77492b3244aa8a8c5d5db9af628b56c6e9fb21b1d41c2"
	if got := w.hooks()[0].AuthHeader; got != want {
		t.Errorf("secret = %s, want %s", got, want)
	}
}

func TestUnloadedPoliciesRefuseNobody(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	later, _ := w.receiver(t, func(c *enroll.Config) { c.Book = book.New(policy.Terms{}) })
	if ok, err := later.Accepts(t.Context(), "demo", w.hooks()[0].AuthHeader); ok || !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("Accepts before the policies are loaded = %t, %v; want ErrNotLoaded", ok, err)
	}
	wantAccepts(t, later, "a stranger who does not know the form", "demo", "Bearer x", false)
}

func TestRotationWithoutAGap(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	first := w.hooks()[0].AuthHeader
	// At each step of the rotation, what Harbor has counts at every receiver, also at one that learns late.
	late := book.New(policy.Terms{})
	w.mu.Lock()
	for _, history := range w.entries {
		for _, e := range history {
			late.Apply(e)
		}
	}
	w.mu.Unlock()
	late.Loaded()
	behind, _ := w.receiver(t, func(c *enroll.Config) { c.Book = late })
	w.books = w.books[:1] // late is not told any more
	w.before = func(step string) {
		has := w.hooks()[0].AuthHeader
		wantAccepts(t, s, "before "+step, "demo", has, true)
		wantAccepts(t, behind, "behind, before "+step, "demo", has, true)
	}
	v, err := s.Rotate(t.Context(), alice, "demo")
	if err != nil {
		t.Fatal(err)
	}
	w.before = nil
	second := w.hooks()[0].AuthHeader
	if second == first || v.Webhook.SecretVersion != 2 || !v.Webhook.PreviousUntil.Equal(w.now.Add(time.Hour)) {
		t.Errorf("view = %+v, want version 2 and the old one for another hour", v.Webhook)
	}
	wantAccepts(t, s, "after the rotation", "demo", first, true)
	wantAccepts(t, s, "after the rotation", "demo", second, true)
	wantAccepts(t, behind, "behind, after the rotation", "demo", second, true)
	w.advance(59 * time.Minute)
	if v, err := s.Rotate(t.Context(), alice, "demo"); err != nil || v.Webhook.SecretVersion != 2 {
		t.Errorf("a repetition within the hour = %+v, %v; want it to begin no other rotation", v.Webhook, err)
	}
	wantAccepts(t, s, "within the hour", "demo", first, true)
	w.advance(2 * time.Minute)
	wantAccepts(t, s, "after the hour", "demo", first, false)
	wantAccepts(t, s, "after the hour", "demo", second, true)
	if v, err := s.Rotate(t.Context(), alice, "demo"); err != nil || v.Webhook.SecretVersion != 3 {
		t.Errorf("the next rotation = %+v, %v; want version 3", v.Webhook, err)
	}
	w.wantEvents(t, "after two rotations", "policy_changed", "policy_changed", "policy_changed")
}

func TestTheOldSecretCountsWhileHarborCannotBeTold(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	first := w.hooks()[0].AuthHeader
	w.before = func(step string) {
		if step == "update webhook" {
			w.mu.Lock()
			w.broken = &breakage{at: len(w.steps)}
			w.mu.Unlock()
		}
	}
	if _, err := s.Rotate(t.Context(), alice, "demo"); !errors.Is(err, errBroken) {
		t.Fatalf("Rotate = %v, want the breakage", err)
	}
	w.before, w.broken = nil, nil
	w.advance(3 * time.Hour)
	wantAccepts(t, s, "3 hours later, when Harbor has the old one still", "demo", first, true)
	mustCheck(t, s)
	if w.hooks()[0].AuthHeader == first {
		t.Error("the check did not tell Harbor the new secret")
	}
	w.wantEvents(t, "after the check: nobody has changed anything", "policy_changed", "policy_changed")
	w.advance(61 * time.Minute)
	wantAccepts(t, s, "an hour after Harbor was told", "demo", first, false)
}

func TestMastersTurnWithoutAGap(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	old := w.hooks()[0].AuthHeader
	both := []string{masterFile(t, strings.Repeat("n", 40)), masterFile(t, masterText)}
	s, _ = w.receiver(t, func(c *enroll.Config) { c.MasterFiles = both })
	wantAccepts(t, s, "made by the second master", "demo", old, true)
	mustCheck(t, s)
	renewed := w.hooks()[0].AuthHeader
	if renewed == old {
		t.Error("the check left the secret of the old master in Harbor")
	}
	wantAccepts(t, s, "made by the first master", "demo", renewed, true)
	w.wantEvents(t, "after the turn", "policy_changed")
}

// A stranger's attempts must cost little, and the same for every project.
func TestStrangersCostTheSame(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	cost := func(project, value string) float64 {
		return testing.AllocsPerRun(100, func() {
			if ok, err := s.Accepts(t.Context(), project, value); ok || err != nil {
				t.Errorf("Accepts = %t, %v; want false", ok, err)
			}
		})
	}
	guess := flip(w.hooks()[0].AuthHeader)
	known, unknown := cost("demo", guess), cost("unknown", guess)
	// The race detector has sync.Pool forget some of what it keeps, so that one more or less says nothing.
	if math.Abs(known-unknown) > 1 || known > 30 {
		t.Errorf("a wrong secret costs %v allocations where the project is known and %v where not, want the same and at most 30", known, unknown)
	}
	if got := cost("demo", "Bearer "+strings.Repeat("x", 4000)); got > 5 {
		t.Errorf("a value of another form costs %v allocations, want next to none", got)
	}
}

func FuzzAccepts(f *testing.F) {
	f.Add("Bearer hs1.1." + strings.Repeat("0", 64))
	f.Add(fmt.Sprintf("Bearer hs1.%d.%s", 1<<62, strings.Repeat("f", 64)))
	f.Add("Bearer hs1..")
	w := newWorld()
	b := book.New(policy.Terms{})
	b.Loaded()
	s, err := enroll.New(enroll.Config{HarborName: "main", Queue: w, Book: b})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if ok, err := s.Accepts(t.Context(), "demo", value); ok || err != nil {
			t.Errorf("Accepts(%q) = %t, %v", value, ok, err)
		}
	})
}
