package enroll_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/preflight"
)

func TestEnable(t *testing.T) {
	w := newWorld()
	s, b := w.receiver(t)
	v := mustPut(t, s, all(), "")
	if !v.Enabled || v.ManagedBy != policy.ByAPI || v.ProjectID != 7 || v.ETag != `"api-1"` || v.Webhook == nil || !v.Webhook.OK || v.ChangedBy != "alice" {
		t.Errorf("view = %+v, webhook %+v; want it enabled by alice, for project 7, with a webhook", v, v.Webhook)
	}
	hooks := w.hooks()
	if len(hooks) != 1 || hooks[0].Address != origin+"/webhooks/harbor/demo" || !hooks[0].Enabled || !slices.Equal(hooks[0].Events, []string{"PUSH_ARTIFACT"}) {
		t.Errorf("webhooks = %+v, want one of ours", hooks)
	}
	if ok, err := s.Accepts(t.Context(), "demo", hooks[0].AuthHeader); !ok || err != nil {
		t.Errorf("Accepts(the webhook's secret) = %t, %v", ok, err)
	}
	w.wantEvents(t, "after enabling", "policy_changed")
	if e := w.events[0]; e.Actor != "alice" || e.Change.From != "192.0.2.1" || e.Change.Before != nil || !strings.Contains(string(e.Change.After), `"choice":"all"`) || e.PolicyRevision != v.Revision {
		t.Errorf("event = %+v, change %s; want who, when, before, after, from where", e, e.Change.After)
	}
	if len(w.ticks) != 1 || w.ticks[fmt.Sprintf("full demo %d", -w.now.UnixNano())] != 1 {
		t.Errorf("ticks = %v, want one full sweep", w.ticks)
	}
	if p, err := b.Policy(t.Context(), "demo"); err != nil || p.Mode != policy.ModeSign || p.ProjectID != 7 {
		t.Errorf("policy in the book = %+v, %v", p, err)
	}
	raw, err := json.Marshal(v)
	if err != nil || strings.Contains(string(raw), "hs1.") || strings.Contains(string(raw), "Basic") {
		t.Errorf("the view holds a secret: %s, %v", raw, err)
	}
	if text := fmt.Sprintf("%v %+v %#v", alice, alice, alice); strings.Contains(text, "Basic") {
		t.Errorf("an actor prints its credentials: %s", text)
	}
}

func TestPreconditions(t *testing.T) {
	other := func(n int) enroll.PutRequest {
		return enroll.PutRequest{Spec: policy.Spec{Mode: policy.ModeSign, MaxInFlight: n}}
	}
	w := newWorld()
	s, _ := w.receiver(t)
	if _, err := s.Put(t.Context(), alice, "demo", all(), `"api-1"`); !errors.Is(err, policy.ErrConflict) {
		t.Errorf("If-Match where there is no policy: %v, want ErrConflict", err)
	}
	first := mustPut(t, s, all(), "").ETag
	if _, err := s.Put(t.Context(), alice, "demo", all(), ""); !errors.Is(err, enroll.ErrPreconditionRequired) {
		t.Errorf("no If-Match where there is a policy: %v, want ErrPreconditionRequired", err)
	}
	second := mustPut(t, s, other(2), first)
	if second.ETag == first || second.Backfill.Choice != "all" {
		t.Errorf("a change has the ETag %s and the backfill %+v, want another ETag, and the backfill of before", second.ETag, second.Backfill)
	}
	if _, err := s.Put(t.Context(), alice, "demo", other(3), first); !errors.Is(err, policy.ErrConflict) {
		t.Errorf("a stale If-Match: %v, want ErrConflict", err)
	}
	if _, err := s.Put(t.Context(), alice, "demo", other(3), "W/"+second.ETag); !errors.Is(err, policy.ErrConflict) {
		t.Errorf("a weak If-Match: %v, want ErrConflict", err)
	}
	if _, err := s.Delete(t.Context(), alice, "demo", first); !errors.Is(err, policy.ErrConflict) {
		t.Errorf("Delete with a stale If-Match: %v, want ErrConflict", err)
	}
	w.wantEvents(t, "after the refusals", "policy_changed", "policy_changed")
	// The answer was lost: the same actor asks for the same again.
	if again := mustPut(t, s, other(2), first); again.ETag != second.ETag {
		t.Errorf("a repetition has the ETag %s, want %s: nothing was to be changed", again.ETag, second.ETag)
	}
	bob := enroll.Actor{Name: "bob", From: "192.0.2.2", Authorization: "Basic bob"}
	if _, err := s.Put(t.Context(), bob, "demo", other(2), first); !errors.Is(err, policy.ErrConflict) {
		t.Errorf("a repetition by somebody else: %v, want ErrConflict", err)
	}
	mustPut(t, s, other(4), `"x", `+second.ETag)
	mustPut(t, s, other(5), "*")
}

func TestBackfillIsAskedForWhereverSigningBegins(t *testing.T) {
	with := func(mode policy.Mode, backfill string) enroll.PutRequest {
		return enroll.PutRequest{Spec: policy.Spec{Mode: mode}, Backfill: backfill}
	}
	tests := []struct {
		name   string
		before []enroll.PutRequest
		delete bool
		anew   bool
		req    enroll.PutRequest
		want   string // choice, or the field that is wrong
		from   time.Duration
	}{
		{"enabling", nil, false, false, with(policy.ModeSign, ""), "backfill", 0},
		{"observing", nil, false, false, with(policy.ModeObserve, ""), "backfill", 0},
		{"nonsense", nil, false, false, with(policy.ModeSign, "some"), "backfill", 0},
		{"without a mode", nil, false, false, with("", "all"), "all", 0},
		{"since", nil, false, false, with(policy.ModeSign, "since:2026-01-01T00:00:00Z"), "since:2026-01-01T00:00:00Z", 0},
		{"none counts from now", nil, false, false, with(policy.ModeSign, "none"), "none", time.Hour},
		{"after disabling", []enroll.PutRequest{all()}, true, false, with(policy.ModeSign, ""), "backfill", 0},
		{"after disabling, none again counts from now", []enroll.PutRequest{with(policy.ModeSign, "none")}, true, false, with(policy.ModeSign, "none"), "none", time.Hour},
		{"another project under the name", []enroll.PutRequest{all()}, false, true, with(policy.ModeSign, ""), "backfill", 0},
		{"from observing to signing", []enroll.PutRequest{with(policy.ModeObserve, "none")}, false, false, with(policy.ModeSign, ""), "backfill", 0},
		{"from observing to signing, said", []enroll.PutRequest{with(policy.ModeObserve, "all")}, false, false, with(policy.ModeSign, "none"), "none", time.Hour},
		{"a change that names the same", []enroll.PutRequest{with(policy.ModeSign, "none")}, false, false, with(policy.ModeObserve, "none"), "none", 0},
		{"a change that names another", []enroll.PutRequest{with(policy.ModeSign, "none")}, false, false, with(policy.ModeSign, "all"), "all", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			s, _ := w.receiver(t)
			etag := ""
			for _, req := range tt.before {
				etag = mustPut(t, s, req, etag).ETag
			}
			if tt.delete {
				v, err := s.Delete(t.Context(), alice, "demo", etag)
				if err != nil {
					t.Fatal(err)
				}
				etag = v.ETag
			}
			if tt.anew {
				w.projects["demo"] = artifact.Project{ID: 8, Name: "demo"}
			}
			start := w.now
			w.advance(time.Hour)
			v, err := s.Put(t.Context(), alice, "demo", tt.req, etag)
			if tt.want == "backfill" {
				if wrong, ok := errors.AsType[*policy.FieldError](err); !ok || wrong.Field != "backfill" {
					t.Errorf("Put = %v, want the field backfill to be wrong", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if v.Backfill.Choice != tt.want {
				t.Errorf("backfill = %+v, want %s", v.Backfill, tt.want)
			}
			if tt.want == "none" && !v.Backfill.From.Equal(start.Add(tt.from)) {
				t.Errorf("backfill counts from %s, want %s", v.Backfill.From, start.Add(tt.from))
			}
		})
	}
}

func TestEverythingThatIsWrongComesAtOnce(t *testing.T) {
	w := newWorld()
	w.projects["demo"] = artifact.Project{ID: 7, Name: "demo", ProxyCache: true}
	w.missing = []string{"notification-policy:create"}
	w.system.Notifications = false
	w.quota = artifact.Quota{Hard: 10, Used: 10}
	w.signer = func(preflight.Request) ([]preflight.Check, error) {
		return []preflight.Check{
			{Name: preflight.Right("repository:push"), Subject: "demo", Status: preflight.Failed, Detail: "lacks it"},
			{Name: preflight.Immutability, Subject: "demo", Status: preflight.Warning, Detail: "a rule"},
		}, nil
	}
	s, _ := w.receiver(t)
	stranger := enroll.Actor{Name: "eve", From: "192.0.2.3", Authorization: "Basic eve"}
	_, err := s.Put(t.Context(), stranger, "demo", all(), "")
	refused, ok := errors.AsType[*enroll.RefusedError](err)
	if !ok {
		t.Fatalf("Put = %v, want a RefusedError", err)
	}
	var names []string
	for _, c := range refused.Checks {
		names = append(names, string(c.Name))
		if c.Fix == "" && c.Name != preflight.Right("repository:push") {
			t.Errorf("check %s has no fix", c.Name)
		}
	}
	want := []string{"role", "proxy_cache", "right:notification-policy:create", "notifications", "quota", "right:repository:push"}
	if !slices.Equal(names, want) {
		t.Errorf("failed checks = %q, want %q", names, want)
	}
	if refused.Unknown() {
		t.Error("the refusal says that nothing is known to be wrong")
	}
	if len(w.steps) != 0 {
		t.Errorf("steps %q were taken, want none before everything is right", w.steps)
	}
}

func TestWhatCouldNotBeToldRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*world){
		"no signer answers": func(w *world) {
			w.signer = func(preflight.Request) ([]preflight.Check, error) {
				return nil, fault.Newf(fault.Transient, fault.QueueUnavailable, "nobody answers")
			}
		},
		"Harbor is away": func(w *world) { w.away = fault.Newf(fault.Transient, fault.Unreachable, "no route") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			spoil(w)
			s, _ := w.receiver(t)
			_, err := s.Put(t.Context(), alice, "demo", all(), "")
			refused, ok := errors.AsType[*enroll.RefusedError](err)
			if !ok || !refused.Unknown() || len(w.steps) != 0 {
				t.Errorf("Put = %v after the steps %q, want a refusal that knows nothing", err, w.steps)
			}
		})
	}
}

func TestAChangeThatDemandsNothingIsNotRefused(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	etag := mustPut(t, s, all(), "").ETag
	w.quota = artifact.Quota{Hard: 10, Used: 10}
	v := mustPut(t, s, enroll.PutRequest{Spec: policy.Spec{Mode: policy.ModeObserve}}, etag)
	if len(v.Warnings) != 1 || v.Warnings[0].Name != preflight.Quota {
		t.Errorf("warnings = %+v, want the quota", v.Warnings)
	}
	if _, err := s.Put(t.Context(), alice, "demo", all(), v.ETag); err == nil {
		t.Error("signing with a full quota was not refused")
	}
}

func TestATokenHasNoRole(t *testing.T) {
	s, _ := newWorld().receiver(t)
	if _, err := s.Put(t.Context(), enroll.Actor{Name: "token ci", From: "192.0.2.9"}, "demo", all(), ""); err != nil {
		t.Errorf("Put by a token: %v", err)
	}
}

func TestDisable(t *testing.T) {
	w := newWorld()
	w.webhooks["demo"] = []artifact.Webhook{{ID: 1, Name: "slack", Address: "https://chat.example.com", Enabled: true}}
	s, _ := w.receiver(t)
	if v, err := s.Delete(t.Context(), alice, "demo", ""); err != nil || v.Enabled || len(w.steps) != 0 {
		t.Errorf("Delete of what nobody enabled = %+v, %v after %q; want nothing to happen", v, err, w.steps)
	}
	mustPut(t, s, all(), "")
	secret := w.hooks()[1].AuthHeader
	for range 2 {
		v, err := s.Delete(t.Context(), alice, "demo", "")
		if err != nil || v.Enabled || v.Policy.Mode != policy.ModeOff || v.Webhook != nil {
			t.Errorf("Delete = %+v, %v; want it off", v, err)
		}
	}
	if hooks := w.hooks(); len(hooks) != 1 || hooks[0].Name != "slack" || !hooks[0].Enabled {
		t.Errorf("webhooks = %+v, want the other's alone", hooks)
	}
	w.wantEvents(t, "after disabling twice", "policy_changed", "policy_changed")
	if ok, err := s.Accepts(t.Context(), "demo", secret); !ok || err != nil {
		t.Errorf("Accepts(a delivery that was under way) = %t, %v; want it let in, to be answered with not enabled", ok, err)
	}
}

func TestDisableWhileADeliveryIsUnderWay(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	w.stuck = true
	if _, err := s.Delete(t.Context(), alice, "demo", ""); err != nil {
		t.Fatalf("Delete: %v, want it to disable the webhook and leave the rest for later", err)
	}
	if hooks := w.hooks(); len(hooks) != 1 || hooks[0].Enabled {
		t.Errorf("webhooks = %+v, want ours disabled", hooks)
	}
	w.stuck = false
	mustCheck(t, s)
	if hooks := w.hooks(); len(hooks) != 0 || w.stateOf(t).WebhookID != 0 {
		t.Errorf("webhooks = %+v, want none after the next check", hooks)
	}
}

func TestDisableAfterTheProjectWasDeleted(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	delete(w.projects, "demo")
	delete(w.webhooks, "demo")
	if v, err := s.Delete(t.Context(), alice, "demo", ""); err != nil || v.Enabled {
		t.Errorf("Delete = %+v, %v", v, err)
	}
}

func TestTwoAdminsAtOnce(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	etag := mustPut(t, s, all(), "").ETag
	other, _ := w.receiver(t)
	// Both have read the same version before either writes.
	var arrived sync.WaitGroup
	arrived.Add(2)
	var once sync.Map
	w.before = func(step string) {
		if step != "put policy" {
			return
		}
		if n, _ := once.LoadOrStore("n", new(int)); n != nil {
			arrived.Done()
			arrived.Wait()
		}
	}
	errs := make([]error, 2)
	var running sync.WaitGroup
	for i, svc := range []*enroll.Service{s, other} {
		running.Go(func() {
			actor := enroll.Actor{Name: []string{"alice", "bob"}[i], Authorization: []string{"Basic alice", "Basic bob"}[i]}
			_, errs[i] = svc.Put(t.Context(), actor, "demo", enroll.PutRequest{Spec: policy.Spec{Mode: policy.ModeSign, MaxInFlight: i + 1}}, etag)
		})
	}
	running.Wait()
	if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), policy.ErrConflict) {
		t.Errorf("errors = %v, want exactly one ErrConflict", errs)
	}
	w.wantEvents(t, "after one of two", "policy_changed", "policy_changed")
	if hooks := w.hooks(); len(hooks) != 1 {
		t.Errorf("webhooks = %+v, want one", hooks)
	}
}

func TestManagedByConfig(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	declared, err := policy.NewDeclared([]policy.Rule{{Projects: []string{"de*"}, Spec: policy.Spec{Mode: policy.ModeSign, Format: policy.FormatBoth}, Backfill: policy.Backfill{Choice: "all"}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Declare(t.Context(), declared); err != nil {
			t.Fatal(err)
		}
	}
	w.wantEvents(t, "after two starts", "policy_changed")
	if e := w.events[0]; e.Actor != "config" || e.Change.From != "config" || e.Project != "" || e.Origin != artifact.OriginConfig {
		t.Errorf("event = %+v, want it from config", e)
	}
	if _, err := s.Put(t.Context(), alice, "demo", all(), ""); !errors.Is(err, enroll.ErrManagedByConfig) {
		t.Errorf("Put: %v, want ErrManagedByConfig", err)
	}
	if _, err := s.Delete(t.Context(), alice, "demo", ""); !errors.Is(err, enroll.ErrManagedByConfig) {
		t.Errorf("Delete: %v, want ErrManagedByConfig", err)
	}
	if _, err := s.Block(t.Context(), alice, "demo", digestA, "bad"); !errors.Is(err, enroll.ErrManagedByConfig) {
		t.Errorf("Block: %v, want ErrManagedByConfig", err)
	}
	mustCheck(t, s)
	v, err := s.Get(t.Context(), "demo")
	if err != nil || !v.Enabled || v.ManagedBy != policy.ByConfig || v.ETag != "" || v.Policy.Format != policy.FormatBoth || v.ProjectID != 7 || !v.Webhook.OK {
		t.Errorf("Get = %+v, %v; want what the file says, and a webhook", v, err)
	}
	w.wantEvents(t, "after the first check", "policy_changed")
	// It goes by name: a project made anew is signed as well.
	w.projects["demo"], w.webhooks["demo"] = artifact.Project{ID: 9, Name: "demo"}, nil
	mustCheck(t, s)
	if st := w.stateOf(t); st.SuspendedFor != 0 || st.ProjectID != 9 || len(w.hooks()) != 1 {
		t.Errorf("state = %+v with webhooks %+v; want it to follow the name", st, w.hooks())
	}
	w.wantEvents(t, "after the project was made anew", "policy_changed", "drifted project_replaced", "repaired project_replaced")
	// The file no longer names it.
	none, err := policy.NewDeclared(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Declare(t.Context(), none); err != nil {
		t.Fatal(err)
	}
	mustCheck(t, s)
	if hooks := w.hooks(); len(hooks) != 0 {
		t.Errorf("webhooks = %+v, want none after the file has dropped the project", hooks)
	}
}
