package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/problem"
)

// missed is the record of an outage.
func missed(dependency string, minute int, ended bool) artifact.Event {
	e := ledgertest.ProjectEvent(artifact.Outage, "")
	started := noon.Add(time.Duration(minute) * time.Minute)
	e.Outage = &artifact.OutageRecord{
		Dependency: dependency, Program: "signer", Instance: "s1", StartedAt: started, DetectedAt: started.Add(20 * time.Second),
		Cause: "dns", Detail: "no such host", Waiting: 1, Deferred: 2,
	}
	if ended {
		at := started.Add(time.Minute)
		e.Outage.EndedAt = &at
	}
	return e
}

func TestOutages(t *testing.T) {
	view := &ledgertest.Memory{}
	ledgertest.Apply(t, view, ledgertest.Begin(t, view), ledgertest.Entries(
		missed("log/rekor", 0, false), missed("registry", 10, false), missed("log/rekor", 0, true), missed("log/rekor", 20, false))...)
	d := open(t, view)
	rec := d.get(t, "/api/v1/outages?dependency=log/rekor&until=2026-01-31T12:20:00Z", as("root"))
	want := `{"items":[{"seq":1,"dependency":"log/rekor","program":"signer","instance":"s1","started_at":"2026-01-31T12:00:00Z",` +
		`"detected_at":"2026-01-31T12:00:20Z","ended_at":"2026-01-31T12:01:00Z","cause":"dns","detail":"no such host","waiting":1,"deferred":2}],"next_cursor":""}`
	if got := rec.Body.String(); rec.Code != http.StatusOK || got != want {
		t.Errorf("GET = %d\n%s, want\n%s", rec.Code, got, want)
	}
	for _, tt := range []struct {
		query string
		want  []string
	}{
		{"", []string{"20m0s", "10m0s", "0s"}},
		{"&since=2026-01-31T12:01:01Z", []string{"20m0s", "10m0s"}},
		{"&since=2026-02-01", []string{"20m0s", "10m0s"}}, // they go on
		{"&until=2026-01-31", nil},
	} {
		var got []string
		for target := "/api/v1/outages?limit=1" + tt.query; target != ""; {
			rec := d.get(t, target, with(token))
			var page struct {
				Items      []ledger.Outage `json:"items"`
				NextCursor string          `json:"next_cursor"`
			}
			if err := json.Unmarshal(rec.Body.Bytes(), &page); err != nil || rec.Code != http.StatusOK {
				t.Fatalf("GET %s = %d %s, %v", target, rec.Code, rec.Body, err)
			}
			for _, o := range page.Items {
				got = append(got, o.StartedAt.Sub(noon).String())
			}
			target = ""
			if page.NextCursor != "" {
				target = "/api/v1/outages?limit=1" + tt.query + "&cursor=" + page.NextCursor
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("?%s: outages after %v, want %v", tt.query, got, tt.want)
		}
	}
	for _, query := range []string{"cursor=x", "limit=0", "since=x", "until=x", "dependency=%0a", "project=app"} {
		rec := d.get(t, "/api/v1/outages?"+query, as("root"))
		if name, _, _ := strings.Cut(query, "="); rec.Code != http.StatusBadRequest || !strings.Contains(rec.Body.String(), `"field":"`+name+`"`) {
			t.Errorf("?%s = %d %s, want 400 that names it", query, rec.Code, rec.Body)
		}
	}
	for _, who := range []string{"ann", "out", "robot$ci"} {
		if rec := d.get(t, "/api/v1/outages", as(who)); rec.Code != http.StatusForbidden || strings.Contains(rec.Body.String(), "rekor") {
			t.Errorf("%s: GET = %d %s, want 403", who, rec.Code, rec.Body)
		}
	}
	if rec := d.get(t, "/api/v1/outages", nil); rec.Code != http.StatusUnauthorized {
		t.Errorf("nobody: GET = %d %s, want 401", rec.Code, rec.Body)
	}
	// They are among what happened to all, as they were recorded.
	rec = d.get(t, "/api/v1/events?limit=1", as("root"))
	if !strings.Contains(rec.Body.String(), `"kind":"outage"`) || !strings.Contains(rec.Body.String(), `"cause":"dns"`) {
		t.Errorf("GET /events = %d %s, want the last record of an outage", rec.Code, rec.Body)
	}
}

func TestTrust(t *testing.T) {
	const document = `{"trusted_root":{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"},` +
		`"keys":[],"identities":[],"logs":[],"authorities":[],"commands":[]}`
	tests := []struct {
		name, answer string
		err          error
		status       int
		after, says  string
	}{
		{"a signer answers", document, nil, 200, "", document},
		{"no signer answers", "", fault.Newf(fault.Transient, fault.QueueUnavailable, "inside"), 503, "5", "no signer has answered"},
		{"a signer cannot tell yet", "", &fault.Error{Kind: fault.Transient, Reason: fault.Unavailable, RetryAfter: time.Minute, Err: context.DeadlineExceeded}, 503, "60", "no signer has answered"},
		{"a signer refuses", "", fault.Newf(fault.Permanent, fault.Malformed, "inside"), 500, "", "log of the receiver"},
		{"a list", `[]`, nil, 500, "", "log of the receiver"},
		{"null", `null`, nil, 500, "", "log of the receiver"},
		{"no JSON", `{"trusted_root":`, nil, 500, "", "log of the receiver"},
		{"nothing", ``, nil, 500, "", "log of the receiver"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, &ledgertest.Memory{}, func(cfg *api.Config) {
				cfg.Trust = func(context.Context) ([]byte, error) { return []byte(tt.answer), tt.err }
			})
			for _, who := range []http.Header{as("root"), as("ann"), as("out"), as("robot$ci"), with(token)} {
				rec := d.get(t, "/api/v1/trust", who)
				if rec.Code != tt.status || !strings.Contains(rec.Body.String(), tt.says) || strings.Contains(rec.Body.String(), "inside") || rec.Header().Get("Retry-After") != tt.after {
					t.Errorf("GET = %d %s, Retry-After %q; want %d with %q, and %q", rec.Code, rec.Body, rec.Header().Get("Retry-After"), tt.status, tt.says, tt.after)
				}
				if tt.status == http.StatusOK && (rec.Header().Get("Cache-Control") != "no-store" || rec.Body.String() != document) {
					t.Errorf("GET = %v %s, want the signer's own words, not to be kept", rec.Header(), rec.Body)
				}
			}
			if rec := d.get(t, "/api/v1/trust", nil); rec.Code != http.StatusUnauthorized {
				t.Errorf("nobody: GET = %d %s, want 401", rec.Code, rec.Body)
			}
		})
	}
	d := open(t, &ledgertest.Memory{})
	rec := d.get(t, "/api/v1/trust", as("ann"))
	var doc problem.Document
	if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
		t.Errorf("without anybody to ask: GET = %d %s, %v; want 503", rec.Code, rec.Body, err)
	}
}

func TestTrustEndsInTime(t *testing.T) {
	d := open(t, &ledgertest.Memory{}, func(cfg *api.Config) {
		cfg.Timeout = time.Millisecond
		cfg.Trust = func(ctx context.Context) ([]byte, error) {
			<-ctx.Done()
			return nil, fault.New(fault.Transient, fault.QueueUnavailable, ctx.Err())
		}
	})
	if rec := d.get(t, "/api/v1/trust", as("ann")); rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
		t.Errorf("GET = %d %s, want 503", rec.Code, rec.Body)
	}
}

// TestOwedRow pins the names and forms of what a row says about transparency logs.
func TestOwedRow(t *testing.T) {
	view := &ledgertest.Memory{}
	owing := ledgertest.Event(artifact.Signed, ledgertest.Ref("demo/app", 1))
	owing.Signatures = []artifact.Evidence{{Format: artifact.Legacy, KeyID: "k1", Digest: "s1", TimestampedAt: noon}}
	owing.LogOwed = []artifact.Format{artifact.Legacy, artifact.Bundle}
	logged := ledgertest.Event(artifact.Signed, ledgertest.Ref("demo/app", 2))
	logged.Signatures = []artifact.Evidence{{Format: artifact.Bundle, KeyID: "k1", Digest: "s1", Log: "rekor", LogIndex: 42}}
	ledgertest.Apply(t, view, ledgertest.Begin(t, view), ledgertest.Entries(owing, logged)...)
	d := open(t, view)
	for target, want := range map[string]string{
		"/api/v1/signatures?log_owed=true": `"signatures":[{"format":"legacy","key_id":"k1","digest":"s1","timestamped_at":"2026-01-31T12:00:00Z"}],"key_id":"","format":"","signature_digest":"","how":"","note":"",` +
			`"log_state":"owed","log_owed":["legacy","bundle"],"log_owed_since":"2026-01-31T12:00:00Z","log_reason":"",`,
		"/api/v1/signatures?digest=" + ledgertest.Ref("demo/app", 2).Digest(): `"signatures":[{"format":"bundle","key_id":"k1","digest":"s1","log":"rekor","log_index":42}],"key_id":"","format":"","signature_digest":"","how":"","note":"",` +
			`"log_state":"logged","log_owed":[],"log_owed_since":null,"log_reason":"",`,
		"/api/v1/projects/demo": `"log_debt":1,"oldest_log_debt_at":"2026-01-31T12:00:00Z",`,
	} {
		rec := d.get(t, target, as("root"))
		if !strings.Contains(rec.Body.String(), want) || strings.Count(rec.Body.String(), `"ledger_seq"`) > 1 {
			t.Errorf("GET %s = %d %s, want in it %s", target, rec.Code, rec.Body, want)
		}
	}
}

// TestTransparencyOfPolicies sends what a policy may ask of logs and authorities, and what it may not.
func TestTransparencyOfPolicies(t *testing.T) {
	d := open(t, &ledgertest.Memory{})
	rec := d.send(t, http.MethodPut, "/api/v1/projects/demo", as("ann"),
		`{"backfill":"all","transparency":"deferred","log":"rekor","timestamp":"required","canary":true}`)
	calls := d.projects.taken()
	if rec.Code != http.StatusCreated || len(calls) != 1 {
		t.Fatalf("PUT = %d %s, calls %+v; want 201 and one call", rec.Code, rec.Body, calls)
	}
	got := calls[0].request.Spec
	if got.Transparency != policy.TransparencyDeferred || got.Log != "rekor" || got.Timestamp != policy.TimestampRequired || !got.Canary {
		t.Errorf("policy = %+v, want what was sent", got)
	}
	for field, body := range map[string]string{
		"transparency": `{"transparency":1}`, "log": `{"log":["rekor"]}`, "timestamp": `{"timestamp":null}`, "canary": `{"canary":"yes"}`,
		"Transparency": `{"Transparency":"off"}`,
	} {
		rec := d.send(t, http.MethodPut, "/api/v1/projects/demo", as("ann"), body)
		var doc problem.Document
		if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || rec.Code != http.StatusBadRequest || doc.Field != field {
			t.Errorf("PUT %s = %d %s, %v; want 400 about %s", body, rec.Code, rec.Body, err, field)
		}
	}
	// Package enroll has the whole policy checked; the answer has all that is wrong.
	d.projects.err = policy.Spec{Mode: policy.ModeSign, Transparency: "x", Timestamp: "y", Log: "a\nb"}.Validate()
	rec = d.send(t, http.MethodPut, "/api/v1/projects/demo", as("ann"), `{"backfill":"all","transparency":"deferred"}`)
	var doc problem.Document
	if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || rec.Code != http.StatusBadRequest || len(doc.Errors) != 3 {
		t.Fatalf("PUT = %d %s, %v; want 400 with three errors", rec.Code, rec.Body, err)
	}
	for i, field := range []string{"log", "timestamp", "transparency"} {
		if doc.Errors[i].Field != field || doc.Errors[i].Detail == "" {
			t.Errorf("errors[%d] = %+v, want one about %s", i, doc.Errors[i], field)
		}
	}
}
