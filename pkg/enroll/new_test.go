package enroll_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

func TestWithoutHarbor(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t, func(c *enroll.Config) { c.Harbor, c.As, c.WebhookURL, c.MasterFiles = nil, nil, "", nil })
	if _, err := s.Put(t.Context(), alice, "demo", all(), ""); !errors.Is(err, enroll.ErrNoHarbor) {
		t.Errorf("Put: %v, want ErrNoHarbor", err)
	}
	if v, err := s.Get(t.Context(), "demo"); err != nil || v.Enabled {
		t.Errorf("Get = %+v, %v", v, err)
	}
	mustCheck(t, s)
}

func TestNewSaysAllThatIsWrong(t *testing.T) {
	short := masterFile(t, "short-master-secret")
	_, err := enroll.New(enroll.Config{Harbor: harborOf{newWorld()}, WebhookURL: "seal.example.com", MasterFiles: []string{short}, Interval: -1})
	if err == nil {
		t.Fatal("New of an empty configuration succeeded")
	}
	for _, want := range []string{"no name", "queue and book", "interval", "caller's credentials", "webhook url", short} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "short-master-secret") {
		t.Errorf("error %q holds the secret", err)
	}
}

func TestUnknownPoliciesAreNotNone(t *testing.T) {
	w := newWorld()
	empty := book.New(policy.Terms{})
	s, _ := w.receiver(t, func(c *enroll.Config) { c.Book = empty })
	if _, err := s.Put(t.Context(), alice, "demo", all(), ""); !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("Put before the policies are loaded: %v, want ErrNotLoaded", err)
	}
	if err := s.Check(t.Context(), "demo"); !errors.Is(err, policy.ErrNotLoaded) {
		t.Errorf("Check before the policies are loaded: %v, want ErrNotLoaded", err)
	}
}
