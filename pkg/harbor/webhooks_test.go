package harbor_test

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

func TestRecordedWebhooks(t *testing.T) {
	t.Parallel()
	c := cannedClient(t, func(*http.Request) (int, string, error) { return http.StatusOK, recorded(t, "policies-list"), nil })
	got, err := c.Webhooks(t.Context(), "demo")
	if err != nil || len(got) != 3 {
		t.Fatalf("Webhooks() = %+v, %v; want 3", got, err)
	}
	want := artifact.Webhook{
		ID: 2, Name: "ce", Description: "test", Enabled: true, Events: []string{"PUSH_ARTIFACT"}, Address: "http://127.0.0.1:19000/ce",
		AuthHeader: "Bearer hook-secret-1", Format: "CloudEvents", SkipCertVerify: true,
	}
	if !reflect.DeepEqual(got[1], want) {
		t.Errorf("Webhooks()[1] = %+v, want %+v", got[1], want)
	}
}

// TestWebhooks walks through the life of a webhook policy.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	const project = "2024"
	post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": project})
	c := robotWith(t, h, "receiver", "project", "*", "notification-policy:list", "notification-policy:read", "notification-policy:create",
		"notification-policy:update", "notification-policy:delete")
	hook := artifact.Webhook{
		Name: "harborseal", Description: "signs", Enabled: true, Events: []string{"PUSH_ARTIFACT"}, Address: "https://hook.example.com/v1/" + project,
		AuthHeader: hookSecret, Format: "Default",
	}
	id, err := c.CreateWebhook(t.Context(), project, hook)
	if err != nil || id == 0 {
		t.Fatalf("CreateWebhook() = %d, %v", id, err)
	}
	hook.ID = id
	check := func(what string, want ...artifact.Webhook) {
		t.Helper()
		got, err := c.Webhooks(t.Context(), project)
		if err != nil || len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", what, got, err, want)
		}
	}
	check("made", hook)
	if _, err := c.CreateWebhook(t.Context(), project, hook); !fault.Is(err, fault.Permanent) || fault.Of(err).Reason != fault.Rejected {
		t.Errorf("a name that is taken: %v, want rejected", err)
	}
	hook.Enabled, hook.Address, hook.AuthHeader = false, "https://hook.example.com/v2", "Bearer another"
	if err := c.UpdateWebhook(t.Context(), project, hook); err != nil {
		t.Error(err)
	}
	check("changed", hook)
	if d, err := c.Deliveries(t.Context(), project, id); err != nil || d != (artifact.Deliveries{}) {
		t.Errorf("deliveries %+v, %v; want none", d, err)
	}
	other := hook
	other.ID = id + 1000
	for name, err := range map[string]error{
		"update": c.UpdateWebhook(t.Context(), project, other), "delete": c.DeleteWebhook(t.Context(), project, other.ID),
		"deliveries": second(c.Deliveries(t.Context(), project, other.ID)),
	} {
		if !fault.Is(err, fault.Gone) {
			t.Errorf("%s of another one: %v, want a fault of kind gone", name, err)
		}
	}
	if err := c.DeleteWebhook(t.Context(), project, id); err != nil {
		t.Error(err)
	}
	check("deleted")
	stranger := robot(t, h, "stranger", "repository", "pull")
	if _, err := stranger.CreateWebhook(t.Context(), project, hook); err == nil || fault.Of(err).Reason != fault.Denied {
		t.Errorf("without the right: %v, want denied", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestCreateWebhookBehindAProxy gets no ID that can be read.
func TestCreateWebhookBehindAProxy(t *testing.T) {
	t.Parallel()
	for name, listed := range map[string]bool{"listed": true, "not listed": false} {
		c := cannedClient(t, func(r *http.Request) (int, string, error) {
			switch {
			case r.Method == http.MethodPost:
				return http.StatusCreated, "", nil
			case listed:
				return http.StatusOK, recorded(t, "policies-list"), nil
			default:
				return http.StatusOK, "[]", nil
			}
		})
		id, err := c.CreateWebhook(t.Context(), "demo", artifact.Webhook{Name: "ce"})
		if listed && (err != nil || id != 2) || !listed && (!fault.Is(err, fault.Transient) || fault.Of(err).Reason != fault.BadAnswer) {
			t.Errorf("%s: CreateWebhook() = %d, %v", name, id, err)
		}
	}
}

func TestDeliveries(t *testing.T) {
	t.Parallel()
	const log = "2026-11-22T04:49:15Z [INFO] [/job.go:1]: start\n" +
		"2026-11-22T04:49:15Z [ERROR] [/webhook_job.go:79]: exit webhook job, error: abnormal response code: 500, body: s3cr3t\n"
	failed := artifact.Deliveries{Finished: 1, Failed: 1, LastFailed: true, LastAt: time.Date(2026, 11, 22, 4, 49, 15, 0, time.UTC)}
	with := func(text string) artifact.Deliveries { d := failed; d.LastError = text; return d }
	const recovered = `[{"id":2,"status":"Success","end_time":"2026-11-22T04:49:15Z"},{"id":1,"status":"Error","end_time":"2026-11-22T04:48:15Z"},
		{"id":3,"status":"Stopped","end_time":"2026-11-22T04:47:15Z"},{"id":4,"status":"Running","end_time":"0001-01-01T00:00:00Z"}]`
	for _, tt := range []struct {
		name, executions, tasks, log string
		want                         artifact.Deliveries
	}{
		{
			"failed", recorded(t, "executions-500"), recorded(t, "tasks-500"), log,
			with("2026-11-22T04:49:15Z [ERROR] [/webhook_job.go:79]: exit webhook job, error: abnormal response code: 500, body: [secret]"),
		},
		{"failed, and there is no log", recorded(t, "executions-500"), recorded(t, "tasks-500"), "", with("the delivery failed")},
		{"failed, and there is no task", recorded(t, "executions-500"), "[]", "", with("the delivery failed")},
		{"failed, then delivered", recovered, "", "", artifact.Deliveries{Finished: 3, Failed: 1, LastAt: failed.LastAt}},
		{"delivered", recorded(t, "executions-recover"), "", "", artifact.Deliveries{Finished: 1, LastAt: failed.LastAt}},
		{"never ended", recorded(t, "executions-down"), "", "", artifact.Deliveries{}},
		{"none", "[]", "", "", artifact.Deliveries{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := cannedClient(t, nil, func(cfg *harbor.Config) {
				cfg.Transport = canned(func(r *http.Request) (int, string, error) {
					switch {
					case strings.HasSuffix(r.URL.Path, "/executions"):
						return http.StatusOK, tt.executions, nil
					case strings.HasSuffix(r.URL.Path, "/tasks"):
						return http.StatusOK, tt.tasks, nil
					case tt.log != "":
						return http.StatusOK, tt.log, nil
					default:
						return http.StatusNotFound, "{}", nil
					}
				}).plain("/log")
			})
			if got, err := c.Deliveries(t.Context(), "demo", 40); err != nil || got != tt.want {
				t.Errorf("Deliveries() = %+v, %v;\nwant %+v", got, err, tt.want)
			}
		})
	}
}

// plain makes text of the answers of a path.
func (c canned) plain(path string) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		resp, err := c.RoundTrip(r)
		if err == nil && resp.StatusCode == http.StatusOK && strings.HasSuffix(r.URL.Path, path) {
			resp.Header.Set("Content-Type", "text/plain; charset=utf-8")
		}
		return resp, err
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
