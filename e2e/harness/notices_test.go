package harness_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// Harbor's own list tells of each push whether anybody took the webhook, in both formats.
func TestNotices(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"Default", "CloudEvents"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			emulator := harbortest.New(t, harbortest.Config{RetryScale: 1e-6, DeliveryDelayScale: 1e-6})
			h, err := harness.NewHarbor(emulator.URL(), "admin", harbortest.DefaultAdminPassword, true)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.CreateProject(t.Context(), "demo"); err != nil {
				t.Fatal(err)
			}
			d := h.NewDeveloper(harness.Robot{Name: "admin", Secret: harbortest.DefaultAdminPassword})
			receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if bytes.Contains(body, []byte("demo/refused")) {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			}))
			t.Cleanup(receiver.Close)
			hook := harness.Webhook{Name: "w", Project: "demo", Address: receiver.URL, Format: format}
			if err := h.CreateWebhook(t.Context(), &hook); err != nil {
				t.Fatal(err)
			}
			want := make(map[string]bool)
			for _, repository := range []string{"demo/taken", "demo/refused"} {
				img, err := harness.NewImage(false)
				if err != nil {
					t.Fatal(err)
				}
				pushed, err := d.Push(t.Context(), repository, "v1", img)
				if err != nil {
					t.Fatal(err)
				}
				want[repository+"@"+pushed.Digest] = repository == "demo/taken"
			}
			if err := emulator.WaitWebhooks(t.Context()); err != nil {
				t.Fatal(err)
			}
			all, err := h.Notices(t.Context(), "demo")
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range all {
				name := n.Repository + "@" + n.Digest
				delivered, pushed := want[name]
				if !pushed || n.Delivered != delivered || n.Began.IsZero() || n.Ended.Before(n.Began) {
					t.Errorf("got %+v, want pushed %v and delivered %v", n, pushed, delivered)
				}
				delete(want, name)
			}
			if len(want) > 0 {
				t.Errorf("nothing is told of %v", want)
			}
		})
	}
}
