package harness_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

func emulated(t *testing.T) (*harness.Harbor, *harbortest.Harbor) {
	t.Helper()
	emulator := harbortest.New(t, harbortest.Config{})
	h, err := harness.NewHarbor(emulator.URL(), "admin", harbortest.DefaultAdminPassword, true)
	if err != nil {
		t.Fatal(err)
	}
	return h, emulator
}

// The emulator refuses keys that it does not know: each of the harness's must mean the same there.
func TestFaultsReachTheEmulator(t *testing.T) {
	t.Parallel()
	h, emulator := emulated(t)
	sent := harness.Faults{
		Method: "PUT", PathPrefix: "/v2/", Route: "manifest", Project: "demo", Latency: "1ms", ManifestPutLatency: "50ms",
		Status: 429, RetryAfter: "3", Count: 5, Rate: 0.1, DropConnections: 0.2, CutAnswers: 0.3, LoseWebhooks: true,
		LoseNextWebhooks: 4, LoseWebhookRate: 0.5, DoubleWebhookRate: 0.6,
	}
	fields := reflect.ValueOf(sent)
	for i := range fields.NumField() {
		if fields.Field(i).IsZero() {
			t.Fatalf("the field %s is not tried", fields.Type().Field(i).Name)
		}
	}
	if err := h.SetFault(t.Context(), "registry slow", sent); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(emulator.CurrentFault("registry slow"))
	if err != nil {
		t.Fatal(err)
	}
	var got harness.Faults
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got != sent {
		t.Errorf("the emulator has %+v, want %+v", got, sent)
	}
	if err := h.SetFault(t.Context(), "registry slow", harness.Faults{}); err != nil {
		t.Fatal(err)
	}
	if got := emulator.CurrentFault("registry slow"); got != (harbortest.Faults{}) {
		t.Errorf("after its end there is %+v, want nothing", got)
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	h, _ := emulated(t)
	for _, project := range []string{"demo", "other"} {
		if err := h.CreateProject(t.Context(), project); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.SetQuota(t.Context(), "demo", 4096); err != nil {
		t.Fatal(err)
	}
	for project, want := range map[string]int64{"demo": 4096, "other": harness.Unlimited} {
		got, err := h.Quota(t.Context(), project)
		if err != nil || got.Limit != want || got.Used != 0 {
			t.Errorf("quota of %s: got %+v, %v, want %d and nothing used", project, got, err, want)
		}
	}
	if err := h.SetQuota(t.Context(), "demo", harness.Unlimited); err != nil {
		t.Fatal(err)
	}
	if got, err := h.Quota(t.Context(), "demo"); err != nil || got.Limit != harness.Unlimited {
		t.Errorf("quota of demo: got %+v, %v, want none", got, err)
	}
	if err := h.SetQuota(t.Context(), "none", 1); err == nil {
		t.Error("quota of no project: got no error, want one")
	}
}
