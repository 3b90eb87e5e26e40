package enroll_test

import (
	"slices"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
)

// Whoever looks sees all that the drift check would repair, and no webhook of anybody else.
func TestJudgeWebhook(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	foreign := artifact.Webhook{ID: 1, Name: "chat", Enabled: true, Address: "https://chat.example.com", Format: "Default"}
	hook := w.hooks()[0]
	for _, tt := range []struct {
		name   string
		change func(h *artifact.Webhook)
		want   []string
	}{
		{"all is well", func(*artifact.Webhook) {}, nil},
		{"what does no harm", func(h *artifact.Webhook) { h.Name, h.Events = "x", append([]string{"DELETE_ARTIFACT"}, h.Events...) }, nil},
		{
			"everything is wrong", func(h *artifact.Webhook) {
				h.Enabled, h.Events, h.Address, h.AuthHeader, h.Format = false, nil, "https://elsewhere.example.com", "Bearer guessed", "?"
			},
			[]string{
				"the webhook points elsewhere than to " + origin + "/webhooks/harbor/demo", "the webhook is disabled in Harbor",
				"the webhook does not tell of pushes", "the webhook has a payload format that is not understood", "the webhook has another secret",
			},
		},
	} {
		changed := hook
		tt.change(&changed)
		own, wrong := s.JudgeWebhook(t.Context(), "demo", []artifact.Webhook{foreign, changed})
		if own.ID != hook.ID || !slices.Equal(wrong, tt.want) {
			t.Errorf("%s: got %d and %q, want %d and %q", tt.name, own.ID, wrong, hook.ID, tt.want)
		}
	}
	own, wrong := s.JudgeWebhook(t.Context(), "demo", []artifact.Webhook{foreign})
	if want := []string{"Harbor has no webhook of this service in the project"}; own.ID != 0 || !slices.Equal(wrong, want) {
		t.Errorf("somebody else's alone: got %d and %q, want %q", own.ID, wrong, want)
	}
	lonely, _ := w.receiver(t, func(c *enroll.Config) { c.Harbor, c.MasterFiles = nil, nil })
	if own, wrong := lonely.JudgeWebhook(t.Context(), "demo", []artifact.Webhook{hook}); own.ID != 0 || !slices.Equal(wrong, []string{enroll.ErrNoHarbor.Error()}) {
		t.Errorf("without an account: got %d and %q, want %q", own.ID, wrong, enroll.ErrNoHarbor)
	}
}
