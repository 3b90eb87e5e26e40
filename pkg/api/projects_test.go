package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/preflight"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// put puts a value of the bucket into the book.
func put(t *testing.T, b *book.Book, kind book.Kind, project string, revision uint64, value interface{ Encode() ([]byte, error) }) {
	t.Helper()
	raw, err := value.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b.Apply(book.Entry{Kind: kind, Project: project, Value: raw, Revision: revision, At: noon})
}

func document(project string, mode policy.Mode) policy.Document {
	return policy.Document{
		Project: project, ProjectID: 7, Spec: policy.Spec{Mode: mode}, Backfill: policy.Backfill{Choice: "all"}, ChangedBy: "ann", ChangedAt: noon,
	}
}

// swept is the event of a full sweep of demo.
func swept() artifact.Event {
	return artifact.Event{
		ID: "s", Kind: artifact.Swept, Project: "demo", Time: noon, CorrelationID: "c",
		Sweep: &artifact.Sweep{StartedAt: noon.Add(-time.Minute), Population: 3, HarborCount: 3, Signed: 2, Requested: 1, Retired: 2, Digest: "d"},
	}
}

func TestProjects(t *testing.T) {
	view := &ledgertest.Memory{}
	failed := ledgertest.Event(artifact.Failed, ledgertest.Ref("demo/app", 1))
	ledgertest.Apply(t, view, ledgertest.Begin(t, view), ledgertest.Entries(
		failed, ledgertest.Event(artifact.Received, ledgertest.Ref("seen/app", 1)), swept())...)
	d := open(t, view)
	put(t, d.book, book.Policy, "demo", 1, document("demo", policy.ModeObserve))
	put(t, d.book, book.Policy, "other", 2, document("other", policy.ModeSign))
	put(t, d.book, book.State, "other", 3, policy.State{
		Project: "other", SuspendedFor: 8, Problems: []policy.Problem{{Reason: "webhook_missing", Since: noon}, {Reason: "project_replaced", Since: noon}},
	})
	put(t, d.book, book.Pause, "demo", 4, policy.Pause{Paused: true, By: "ann", At: noon})
	d.book.Apply(book.Entry{Kind: book.Policy, Project: "newer", Value: []byte(`{"v":99}`), Revision: 5})

	type row struct {
		Project   string `json:"project"`
		Enabled   bool   `json:"enabled"`
		Mode      string `json:"mode"`
		ManagedBy string `json:"managed_by"`
		Paused    bool   `json:"paused"`
		Suspended bool   `json:"suspended"`
		Problems  int    `json:"problems"`
		Error     string `json:"error"`
		Coverage  struct {
			Population int `json:"population"`
			Failed     int `json:"failed"`
			LastSweep  *struct {
				Retired int `json:"retired"`
			} `json:"last_sweep"`
		} `json:"coverage"`
	}
	list := func(header http.Header) map[string]row {
		t.Helper()
		rec := d.get(t, "/api/v1/projects", header)
		var answer struct {
			Items []row `json:"items"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || rec.Code != http.StatusOK || answer.Items == nil {
			t.Fatalf("GET = %d %s, %v; want items", rec.Code, rec.Body, err)
		}
		rows, names := map[string]row{}, []string{}
		for _, r := range answer.Items {
			rows[r.Project], names = r, append(names, r.Project)
		}
		if !slices.IsSorted(names) || len(names) != len(rows) {
			t.Errorf("projects = %v, want them sorted, each once", names)
		}
		return rows
	}
	all := list(as("root"))
	if len(all) != 4 {
		t.Fatalf("a system admin sees %v, want demo, newer, other and seen", all)
	}
	got := all["demo"]
	if !got.Enabled || got.Mode != "observe" || got.ManagedBy != "api" || !got.Paused || got.Suspended ||
		got.Coverage.Population != 1 || got.Coverage.Failed != 1 || got.Coverage.LastSweep == nil || got.Coverage.LastSweep.Retired != 2 {
		t.Errorf("demo = %+v, want it observed, paused, with one failed digest and its last sweep", got)
	}
	if got := all["other"]; got.Enabled || got.Mode != "sign" || !got.Suspended || got.Problems != 2 || got.Coverage.LastSweep != nil {
		t.Errorf("other = %+v, want it suspended with two problems", got)
	}
	if got := all["seen"]; got.Enabled || got.Mode != "off" || got.ManagedBy != "" || got.Coverage.Population != 1 {
		t.Errorf("seen = %+v, want a project that nobody enabled", got)
	}
	if got := all["newer"]; got.Enabled || got.Error == "" {
		t.Errorf("newer = %+v, want why its policy cannot be read", got)
	}
	if got := list(as("ann")); len(got) != 2 || !got["demo"].Enabled || got["app"].Project != "app" || got["app"].Enabled || got["app"].Mode != "off" {
		t.Errorf("a member of demo and app sees %v, want demo, and app that nobody enabled", got)
	}
	if got := list(as("out")); len(got) != 0 {
		t.Errorf("a member of nothing sees %v", got)
	}
	if got := list(as("robot$ci")); len(got) != 0 {
		t.Errorf("a robot sees %v", got)
	}
}

func TestProjectsAreUnknownBeforeThePoliciesAreLoaded(t *testing.T) {
	d := open(t, &ledgertest.Memory{}, func(cfg *api.Config) { cfg.Policies = book.New(policy.Terms{}) })
	if rec := d.get(t, "/api/v1/projects", as("root")); rec.Code != http.StatusServiceUnavailable {
		t.Errorf("GET = %d %s, want 503", rec.Code, rec.Body)
	}
}

// wholeView is a view with everything in it.
func wholeView() enroll.View {
	from := policy.Globs{Include: []string{"team/**"}, Exclude: []string{"team/x"}}
	return enroll.View{
		Project: "demo", ProjectID: 7, Enabled: true, ManagedBy: policy.ByAPI, ETag: `"api-3"`, Revision: "api-3",
		Policy: &policy.Spec{
			Mode: policy.ModeSign, Repositories: from, Tags: from, Untagged: policy.UntaggedExclude, Format: policy.FormatBoth, Key: "new",
			Annotations: map[string]string{"a": "b"}, Rate: policy.Rate{PerSecond: 0.5, Burst: 3}, MaxInFlight: 2, ResignOnRotation: true,
			Transparency: policy.TransparencyRequired, Log: "rekor", Timestamp: policy.TimestampOptional, Canary: true,
			Restore:    policy.RestoreAlert,
			Exemptions: []policy.Exemption{{Repository: "old/*", Digest: ledgertest.Ref("demo/a", 1).Digest(), Approver: "cto", Reason: "r", Expires: noon}},
		},
		Backfill:  &policy.Backfill{Choice: "since:2026-01-01T00:00:00Z", From: noon},
		Blocks:    []policy.Block{{Digest: ledgertest.Ref("demo/a", 1).Digest(), Reason: "cve", By: "ann", At: noon}},
		ChangedBy: "ann", ChangedAt: noon, SuspendedFor: 8, Paused: &policy.Pause{Version: 1, Paused: true, By: "ann", Reason: "r", At: noon},
		Webhook:   &enroll.WebhookView{Address: "https://seal.example.com/webhooks/harbor/demo", OK: true, SecretVersion: 2, PreviousUntil: noon},
		Problems:  []policy.Problem{{Reason: "right_missing", Detail: "d", Since: noon}},
		CheckedAt: noon,
		Warnings:  []preflight.Check{{Name: preflight.Quota, Subject: "demo", Status: preflight.Warning, Detail: "d", Fix: "f", Unknown: true}},
	}
}

func TestProject(t *testing.T) {
	view := &ledgertest.Memory{}
	ledgertest.Apply(t, view, ledgertest.Begin(t, view), ledgertest.Entries(ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", 1)), swept())...)
	d := open(t, view)
	d.projects.view = wholeView()
	rec := d.get(t, "/api/v1/projects/demo", as("ann"))
	var answer struct {
		enroll.View
		Coverage ledger.Coverage `json:"coverage"`
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || rec.Code != http.StatusOK {
		t.Fatalf("GET = %d %s, %v", rec.Code, rec.Body, err)
	}
	if !reflect.DeepEqual(answer.View, wholeView()) {
		t.Errorf("project = %+v, want %+v", answer.View, wholeView())
	}
	if c := answer.Coverage; c.Population != 1 || c.Pending != 1 || c.LastSweep == nil || c.LastSweep.FinishedAt != noon {
		t.Errorf("coverage = %+v, want one pending digest and the last sweep", c)
	}
	if got := rec.Header().Get("ETag"); got != `"api-3"` {
		t.Errorf("ETag = %q, want that of the policy", got)
	}
	d.projects.view = enroll.View{Project: "demo", Policy: &policy.Spec{Mode: policy.ModeSign, Annotations: map[string]string{}}}
	if rec = d.get(t, "/api/v1/projects/demo", as("ann")); !strings.Contains(rec.Body.String(), `"annotations":{}`) {
		t.Errorf("GET = %s, want that there are no annotations", rec.Body)
	}
	d.projects.view = enroll.View{Project: "demo"}
	rec = d.get(t, "/api/v1/projects/demo", as("ann"))
	if got, there := rec.Header()["Etag"]; rec.Code != http.StatusOK || there {
		t.Errorf("GET of a project that nobody enabled = %d, ETag %q; want 200 and none", rec.Code, got)
	}
}

// TestOutsidersLearnNothing asks about projects of others and about none, in all ways: one answer for all.
func TestOutsidersLearnNothing(t *testing.T) {
	d := open(t, &ledgertest.Memory{})
	put(t, d.book, book.Policy, "secret", 1, document("secret", policy.ModeSign))
	digest := ledgertest.Ref("a/b", 1).Digest()
	ways := []struct{ method, path, body string }{
		{"GET", "", ""},
		{"PUT", "", `{"backfill":"all"}`},
		{"PUT", "", `{`},
		{"DELETE", "", ""},
		{"POST", "/sweep", ""},
		{"POST", "/webhook-secret", ""},
		{"PUT", "/blocks/" + digest, `{"reason":"r"}`},
		{"DELETE", "/blocks/" + digest, ""},
		{"DELETE", "/blocks/x", ""},
		{"GET", "/events", ""},
		{"GET", "/events?limit=x", ""},
		{"GET", "?x=y", ""},
		{"DELETE", "?x=y", ""},
	}
	for _, who := range []string{"ann", "out", "robot$ci"} {
		want := d.get(t, "/api/v1/projects/nothing", as(who)).Body.String()
		for _, way := range ways {
			for _, project := range []string{"secret", "nothing", "NO%20NAME", "%2e%2e"} {
				rec := d.send(t, way.method, "/api/v1/projects/"+project+way.path, as(who), way.body)
				if rec.Code != http.StatusNotFound || rec.Body.String() != want {
					t.Errorf("%s: %s %s%s = %d %s, want 404 %s", who, way.method, project, way.path, rec.Code, rec.Body, want)
				}
			}
		}
	}
	if calls := d.projects.taken(); len(calls) != 0 {
		t.Errorf("package enroll was asked: %v", calls)
	}
}

func TestEvents(t *testing.T) {
	view := &ledgertest.Memory{}
	drift := func(id string) artifact.Event {
		return artifact.Event{ID: id, Kind: artifact.Drifted, Project: "demo", Time: noon, CorrelationID: "c", Reason: "webhook_missing"}
	}
	change := drift("3")
	change.Kind, change.Change = artifact.PolicyChanged, &artifact.Change{Before: json.RawMessage(`{"mode":"off"}`), After: json.RawMessage(`{"mode":"sign"}`), From: "192.0.2.1"}
	other := drift("4")
	other.Project = "app"
	ledgertest.Apply(t, view, ledgertest.Begin(t, view), ledgertest.Entries(drift("1"), drift("2"), change, swept(), other)...)
	d := open(t, view)
	var kinds []string
	for target := "/api/v1/projects/demo/events?limit=2"; target != ""; {
		rec := d.get(t, target, as("ann"))
		var page struct {
			Items      []ledger.ProjectEvent `json:"items"`
			NextCursor string                `json:"next_cursor"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &page); err != nil || rec.Code != http.StatusOK {
			t.Fatalf("GET %s = %d %s, %v", target, rec.Code, rec.Body, err)
		}
		for _, e := range page.Items {
			kinds = append(kinds, string(e.Kind))
		}
		target = ""
		if page.NextCursor != "" {
			target = "/api/v1/projects/demo/events?limit=2&cursor=" + page.NextCursor
		}
	}
	if want := []string{"swept", "policy_changed", "drifted", "drifted"}; !slices.Equal(kinds, want) {
		t.Errorf("events = %v, want %v", kinds, want)
	}
	for _, query := range []string{"cursor=x", "limit=0", "project=app"} {
		rec := d.get(t, "/api/v1/projects/demo/events?"+query, as("ann"))
		if name, _, _ := strings.Cut(query, "="); rec.Code != http.StatusBadRequest || !strings.Contains(rec.Body.String(), `"field":"`+name+`"`) {
			t.Errorf("?%s = %d %s, want 400 that names it", query, rec.Code, rec.Body)
		}
	}
}

// resigned are the answers of the ledger about a change of keys.
type resigned struct {
	left, done int
	err        error
	keys       []string
	since      time.Time
}

func (r *resigned) Resigned(_ context.Context, _ string, keys []string, since time.Time) (left, done int, err error) {
	r.keys, r.since = keys, since
	return r.left, r.done, r.err
}

func TestRotation(t *testing.T) {
	one, oneID := publicKey(t)
	two, _ := publicKey(t)
	three, _ := publicKey(t)
	tests := []struct {
		name       string
		left, done int
		key        string
		resign     bool
		more       []api.Key
		want       string
	}{
		{"half done", 40, 20, "", true, nil, `{"retired":2,"as_of":"2026-01-31T12:00:00Z","resign_on_rotation":true,"left":40,"per_minute":2,"eta_seconds":1200}`},
		{"slow", 1, 3, "new", true, nil, `{"retired":2,"as_of":"2026-01-31T12:00:00Z","resign_on_rotation":true,"left":1,"per_minute":0.3,"eta_seconds":200}`},
		{"done", 0, 0, "", true, nil, `{"retired":2,"as_of":"2026-01-31T12:00:00Z","resign_on_rotation":true,"left":0,"per_minute":0,"eta_seconds":0}`},
		{"nothing is signed", 5, 0, "", true, nil, `{"retired":2,"as_of":"2026-01-31T12:00:00Z","resign_on_rotation":true,"left":5,"per_minute":0,"eta_seconds":null}`},
		{"not asked for", 5, 5, "", false, nil, `{"retired":2,"as_of":"2026-01-31T12:00:00Z","resign_on_rotation":false,"left":null,"per_minute":null,"eta_seconds":null}`},
		{"a key that is not known", 5, 5, "else", true, nil, `{"retired":2,"as_of":"2026-01-31T12:00:00Z","resign_on_rotation":true,"left":null,"per_minute":null,"eta_seconds":null}`},
		{"one of two active keys", 5, 5, "", true, []api.Key{{Name: "third", PEM: three}}, `{"retired":2,"as_of":"2026-01-31T12:00:00Z","resign_on_rotation":true,"left":null,"per_minute":null,"eta_seconds":null}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			view, from := &ledgertest.Memory{}, &resigned{left: tt.left, done: tt.done}
			ledgertest.Apply(t, view, ledgertest.Begin(t, view), ledgertest.Entries(swept())...)
			d := open(t, view, func(cfg *api.Config) {
				cfg.Rotations, cfg.Keys = from, append([]api.Key{{Name: "new", PEM: one}, {Name: "old", State: api.KeyVerifyOnly, PEM: two}}, tt.more...)
			})
			d.projects.view = enroll.View{Project: "demo", Enabled: true, Policy: &policy.Spec{Mode: policy.ModeSign, Key: tt.key, ResignOnRotation: tt.resign}}
			rec := d.get(t, "/api/v1/projects/demo", as("ann"))
			if want := `"rotation":` + tt.want + `}`; !strings.HasSuffix(rec.Body.String(), want) {
				t.Errorf("GET = %d %s, want at its end %s", rec.Code, rec.Body, want)
			}
			if strings.Contains(tt.want, `"left":null`) {
				return
			}
			if ago := time.Since(from.since); !slices.Equal(from.keys, []string{oneID}) || ago < 10*time.Minute || ago > 11*time.Minute {
				t.Errorf("asked for the keys %v since %s, want the active one's and 10 minutes", from.keys, from.since)
			}
		})
	}
	d := open(t, &ledgertest.Memory{}, func(cfg *api.Config) {
		cfg.Rotations, cfg.Keys = &resigned{err: fault.Newf(fault.Transient, fault.StorageUnavailable, "down")}, []api.Key{{PEM: one}}
	})
	d.projects.view = enroll.View{Project: "demo", Enabled: true, Policy: &policy.Spec{ResignOnRotation: true}}
	if rec := d.get(t, "/api/v1/projects/demo", as("ann")); rec.Code != http.StatusServiceUnavailable {
		t.Errorf("GET while the ledger is away = %d %s, want 503", rec.Code, rec.Body)
	}
}

func TestProjectErrors(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		status int
	}{
		{"not loaded", policy.ErrNotLoaded, 503},
		{"queue away", fault.Newf(fault.Transient, fault.QueueUnavailable, "inside"), 503},
		{"cannot be read", fault.New(fault.Permanent, fault.Malformed, errors.New("inside")), 500},
	}
	for _, tt := range tests {
		d := open(t, &ledgertest.Memory{})
		d.projects.err = tt.err
		rec := d.get(t, "/api/v1/projects/demo", as("ann"))
		if rec.Code != tt.status || strings.Contains(rec.Body.String(), "inside") {
			t.Errorf("%s: GET = %d %s, want %d without what is inside", tt.name, rec.Code, rec.Body, tt.status)
		}
	}
}
