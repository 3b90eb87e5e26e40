package enroll_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/preflight"
)

func TestDriftOfTheWebhookIsRepaired(t *testing.T) {
	for reason, spoil := range map[string]func(w *world){
		"webhook_missing":   func(w *world) { w.webhooks["demo"] = w.webhooks["demo"][:1] },
		"webhook_disabled":  func(w *world) { w.webhooks["demo"][1].Enabled = false },
		"webhook_elsewhere": func(w *world) { w.webhooks["demo"][1].Address = "https://evil.example.com/x" },
		"webhook_changed":   func(w *world) { w.webhooks["demo"][1].Events = []string{"PULL_ARTIFACT"} },
		"webhook_changed " + "secret": func(w *world) {
			w.webhooks["demo"][1].AuthHeader = "Bearer hs1.1." + strings.Repeat("0", 64)
		},
		"webhook_changed format": func(w *world) { w.webhooks["demo"][1].Format = "Slack" },
	} {
		t.Run(reason, func(t *testing.T) {
			reason, _, _ = strings.Cut(reason, " ")
			w := newWorld()
			others := artifact.Webhook{ID: 1, Name: "harborseal", Address: "https://chat.example.com", AuthHeader: "x", Format: "Default"}
			w.webhooks["demo"] = []artifact.Webhook{others}
			s, _ := w.receiver(t)
			mustPut(t, s, all(), "")
			mustCheck(t, s)
			want := w.hooks()
			spoil(w)
			for range 2 {
				mustCheck(t, s)
			}
			got := w.hooks()
			if len(got) != 2 || got[0].ID != 1 || got[0].Address != others.Address || got[0].Enabled {
				t.Fatalf("webhooks = %+v, want the other's as it was and one of ours", got)
			}
			if got[1].Address != want[1].Address || !got[1].Enabled || got[1].AuthHeader != want[1].AuthHeader || !slices.Contains(got[1].Events, "PUSH_ARTIFACT") || got[1].Format != "Default" {
				t.Errorf("our webhook = %+v, want it as %+v", got[1], want[1])
			}
			w.wantEvents(t, "after the repair", "policy_changed", "drifted "+reason, "repaired "+reason)
			if found := w.reasons(t); len(found) != 0 {
				t.Errorf("problems = %q, want none", found)
			}
		})
	}
}

func TestWhatDoesNoHarmStays(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	hook := &w.webhooks["demo"][0]
	hook.Name, hook.Description, hook.Format, hook.SkipCertVerify = "renamed", "by an admin", "CloudEvents", true
	hook.Events, hook.Address = []string{"PULL_ARTIFACT", "PUSH_ARTIFACT"}, hook.Address+"/"
	w.steps = nil
	mustCheck(t, s)
	if slices.Contains(w.steps, "update webhook") || slices.Contains(w.steps, "create webhook") {
		t.Errorf("steps = %q, want the webhook left alone", w.steps)
	}
}

func TestAWebhookOfBeforeIsTakenOver(t *testing.T) {
	w := newWorld()
	w.webhooks["demo"] = []artifact.Webhook{{
		ID: 3, Name: "harborseal", Address: origin + "/webhooks/harbor/demo/", AuthHeader: "Bearer by-hand", Enabled: true, Events: []string{"PUSH_ARTIFACT"},
	}}
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	hooks := w.hooks()
	if len(hooks) != 1 || hooks[0].ID != 3 {
		t.Fatalf("webhooks = %+v, want the one of before", hooks)
	}
	wantAccepts(t, s, "after it was taken over", "demo", hooks[0].AuthHeader, true)
	w.wantEvents(t, "after enabling: nobody has changed anything", "policy_changed")
}

func TestASecondWebhookOfOursGoes(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	second := w.hooks()[0]
	second.ID, second.Name = 200, "harborseal-2"
	byHand := second
	byHand.ID, byHand.Name, byHand.AuthHeader = 201, "harborseal-test", "Bearer by-hand"
	w.webhooks["demo"] = append(w.webhooks["demo"], second, byHand)
	mustCheck(t, s)
	if hooks := w.hooks(); len(hooks) != 2 || hooks[1].ID != 201 {
		t.Errorf("webhooks = %+v, want the second that we made gone, and the one made by hand left", hooks)
	}
}

func TestProblemsBeginAndEnd(t *testing.T) {
	failing := func(name preflight.Name) func(w *world) {
		return func(w *world) {
			w.signer = func(preflight.Request) ([]preflight.Check, error) {
				return []preflight.Check{{Name: name, Subject: "demo", Status: preflight.Failed, Detail: "no"}}, nil
			}
		}
	}
	tests := []struct {
		reason string
		spoil  func(w *world)
	}{
		{"webhook_failing", func(w *world) {
			w.delivered = artifact.Deliveries{Failed: 1, LastFailed: true, LastError: "connection refused"}
		}},
		{"notifications_off", func(w *world) { w.system.Notifications = false }},
		{"proxy_cache", func(w *world) { w.projects["demo"] = artifact.Project{ID: 7, Name: "demo", ProxyCache: true} }},
		{"right_missing", func(w *world) { w.missing = []string{"notification-policy:delete"} }},
		{"right_missing", func(w *world) { w.missing = []string{"notification-policy:list"} }},
		{"right_missing", failing(preflight.Right("repository:push"))},
		{"pull_policy", failing(preflight.PullPolicy)},
		{"key_missing", failing(preflight.Key)},
		{"format_unsupported", failing(preflight.Format)},
		{"unverifiable", failing(preflight.Transparency)},
		{"unverifiable", failing(preflight.Timestamp)},
		{"quota_full", func(w *world) { w.quota = artifact.Quota{Hard: 1, Used: 1} }},
		{"private_address", func(w *world) {
			w.projects["demo"] = artifact.Project{ID: 7, Name: "demo", Metadata: map[string]string{"webhook_allow_private": "false"}}
		}},
		{"project_gone", func(w *world) { delete(w.projects, "demo") }},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			w := newWorld()
			registry := prometheus.NewRegistry()
			private := func(c *enroll.Config) {
				c.ThoroughEvery, c.Registerer = 1, registry
				if tt.reason == "private_address" {
					c.WebhookURL = "http://10.0.0.1:8080"
				}
			}
			s, _ := w.receiver(t, private)
			mustPut(t, s, all(), "")
			mustCheck(t, s)
			fresh := newWorld()
			tt.spoil(w)
			since := w.now
			for range 3 {
				// The error says what could not be done; the problem is noted all the same.
				if err := s.Check(t.Context(), "demo"); err != nil && tt.reason != "right_missing" {
					t.Fatalf("Check: %v", err)
				}
				w.advance(5 * time.Minute)
			}
			if found := w.reasons(t); !slices.Equal(found, []string{tt.reason}) {
				t.Fatalf("problems = %q, want %s", found, tt.reason)
			}
			if p := w.stateOf(t).Problems[0]; !p.Since.Equal(since) || p.Detail == "" {
				t.Errorf("problem = %+v, want it since %s, with a detail", p, since)
			}
			w.wantEvents(t, "while it stands", "policy_changed", "drifted "+tt.reason)
			if n := problems(t, registry, tt.reason); n != 1 {
				t.Errorf("metric of %s = %v, want 1", tt.reason, n)
			}
			w.projects, w.system, w.quota, w.missing, w.delivered, w.signer = fresh.projects, fresh.system, fresh.quota, nil, artifact.Deliveries{}, fresh.signer
			mustCheck(t, s)
			mustCheck(t, s)
			if found := w.reasons(t); len(found) != 0 {
				t.Errorf("problems = %q after it was put right, want none", found)
			}
			w.wantEvents(t, "after it was put right", "policy_changed", "drifted "+tt.reason, "repaired "+tt.reason)
			if n := problems(t, registry, tt.reason); n != 0 {
				t.Errorf("metric of %s = %v, want 0", tt.reason, n)
			}
		})
	}
}

// problems reads the metric.
func problems(t *testing.T, registry *prometheus.Registry, reason string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "harborseal_project_problems" && m.GetLabel()[0].GetValue() == reason {
				return m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no metric of %s", reason)
	return 0
}

func TestMetricIsSilentBeforeThePoliciesAreLoaded(t *testing.T) {
	w := newWorld()
	registry := prometheus.NewRegistry()
	b := book.New(policy.Terms{})
	w.receiver(t, func(c *enroll.Config) { c.Book, c.Registerer = b, registry })
	if n, err := testutil.GatherAndCount(registry); n != 0 || err != nil {
		t.Errorf("%d samples (%v) before the policies are loaded, want none", n, err)
	}
	b.Loaded()
	if n, err := testutil.GatherAndCount(registry); n != 16 || err != nil {
		t.Errorf("%d samples (%v), want one for each of 16 reasons", n, err)
	}
}

func TestNothingIsConcludedWhileHarborIsAway(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t, func(c *enroll.Config) { c.ThoroughEvery = 1 })
	mustPut(t, s, all(), "")
	mustCheck(t, s)
	w.system.Notifications = false
	w.delivered = artifact.Deliveries{LastFailed: true}
	mustCheck(t, s)
	stood := w.reasons(t)
	if len(stood) != 2 {
		t.Fatalf("problems = %q, want two", stood)
	}
	w.system.Notifications, w.delivered = true, artifact.Deliveries{}
	w.away = fault.Newf(fault.Transient, fault.Unavailable, "502")
	if err := s.Check(t.Context(), "demo"); !fault.Is(err, fault.Transient) {
		t.Errorf("Check while Harbor is away: %v, want the fault", err)
	}
	if found := w.reasons(t); !slices.Equal(found, stood) {
		t.Errorf("problems while Harbor is away = %q, want %q as before", found, stood)
	}
	if state := w.stateOf(t); state.SuspendedFor != 0 {
		t.Errorf("state = %+v, want nothing suspended", state)
	}
	w.away = nil
	mustCheck(t, s)
	if found := w.reasons(t); len(found) != 0 {
		t.Errorf("problems when Harbor is back = %q, want none", found)
	}
}

func TestWhatOneSignerSaidStandsUntilOneSaysOtherwise(t *testing.T) {
	w := newWorld()
	well := w.signer
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	for _, step := range []struct {
		name   string
		signer func(preflight.Request) ([]preflight.Check, error)
		want   []string
	}{
		{"a right is missing", func(preflight.Request) ([]preflight.Check, error) {
			return []preflight.Check{{Name: preflight.Right("repository:push"), Subject: "demo", Status: preflight.Failed, Detail: "lacks it"}}, nil
		}, []string{"right_missing"}},
		{"no signer answers", func(preflight.Request) ([]preflight.Check, error) {
			return nil, fault.Newf(fault.Transient, fault.QueueUnavailable, "nobody answers")
		}, []string{"right_missing"}},
		{"Harbor does not answer the signer", func(preflight.Request) ([]preflight.Check, error) {
			return []preflight.Check{{Name: preflight.Rights, Subject: "demo", Status: preflight.Failed, Unknown: true, Detail: "502"}}, nil
		}, []string{"right_missing"}},
		{"it is given", well, nil},
	} {
		w.signer = step.signer
		mustCheck(t, s)
		if found := w.reasons(t); !slices.Equal(found, step.want) {
			t.Errorf("%s: problems = %q, want %q", step.name, found, step.want)
		}
	}
}

func TestAProjectMadeAnewIsSuspended(t *testing.T) {
	w := newWorld()
	s, b := w.receiver(t)
	etag := mustPut(t, s, all(), "").ETag
	w.projects["demo"], w.webhooks["demo"] = artifact.Project{ID: 8, Name: "demo"}, nil
	for range 2 {
		mustCheck(t, s)
	}
	p, err := b.Policy(t.Context(), "demo")
	if err != nil || policy.Admit(p).Reason != policy.Suspended {
		t.Errorf("policy = %+v, %v; want it suspended", p, err)
	}
	if hooks := w.hooks(); len(hooks) != 0 {
		t.Errorf("webhooks = %+v, want none in a project that nobody enabled", hooks)
	}
	w.wantEvents(t, "after two checks", "policy_changed", "drifted project_replaced")
	v, err := s.Get(t.Context(), "demo")
	if err != nil || v.Enabled || v.SuspendedFor != 8 || v.Webhook.OK {
		t.Errorf("Get = %+v, %v; want it suspended for 8", v, err)
	}
	if err := s.Sweep(t.Context(), alice, "demo"); !errors.Is(err, enroll.ErrNotEnabled) {
		t.Errorf("Sweep: %v, want ErrNotEnabled", err)
	}
	if _, err := s.Rotate(t.Context(), alice, "demo"); !errors.Is(err, enroll.ErrNotEnabled) {
		t.Errorf("Rotate: %v, want ErrNotEnabled", err)
	}
	v = mustPut(t, s, enroll.PutRequest{Spec: policy.Spec{Mode: policy.ModeSign}, Backfill: "none"}, etag)
	if !v.Enabled || v.ProjectID != 8 || v.SuspendedFor != 0 || len(v.Problems) != 0 {
		t.Errorf("Put = %+v, want it enabled for 8", v)
	}
	w.wantEvents(t, "after enabling anew", "policy_changed", "drifted project_replaced", "policy_changed", "repaired project_replaced")
}
