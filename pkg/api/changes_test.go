package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/httpserver"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/preflight"
	"github.com/harborseal/harborseal/pkg/problem"
)

// TestChanges sends each change, and looks at what reaches package enroll and at the answer.
func TestChanges(t *testing.T) {
	digest := ledgertest.Ref("demo/app", 1).Digest()
	ann := enroll.Actor{Name: "ann", From: "192.0.2.1", Authorization: as("ann").Get("Authorization")}
	bot := enroll.Actor{Name: "token:bot", From: "192.0.2.1"}
	request := enroll.PutRequest{
		Spec: policy.Spec{Mode: policy.ModeObserve, Repositories: policy.Globs{Include: []string{"team/**"}}, Rate: policy.Rate{PerSecond: 0.5}}, Backfill: "none",
	}
	raw, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, method, path, body string
		header                   http.Header
		status                   int
		want                     call
	}{
		{"enable", "PUT", "", string(raw), as("ann"), 201, call{method: "Put", actor: ann, request: request}},
		{"change", "PUT", "", string(raw), http.Header{"If-Match": {`"api-3"`}}, 200, call{method: "Put", actor: ann, request: request, ifMatch: `"api-3"`}},
		{"one of several", "PUT", "", `{}`, http.Header{"If-Match": {`"api-3"`, `"api-4"`}}, 200, call{method: "Put", actor: ann, ifMatch: `"api-3","api-4"`}},
		{"no annotations", "PUT", "", `{"annotations":{}}`, as("ann"), 201, call{method: "Put", actor: ann, request: enroll.PutRequest{Spec: policy.Spec{Annotations: map[string]string{}}}}},
		{"with a token", "PUT", "", `{}`, with("bot"), 201, call{method: "Put", actor: bot}},
		{"with a charset", "PUT", "", `{}`, http.Header{"Content-Type": {"application/json; charset=utf-8"}}, 201, call{method: "Put", actor: ann}},
		{"from elsewhere, as anybody can claim", "PUT", "", `{}`, http.Header{"X-Forwarded-For": {"203.0.113.9"}}, 201, call{method: "Put", actor: ann}},
		{"disable", "DELETE", "", "", as("ann"), 200, call{method: "Delete", actor: ann}},
		{"disable one version", "DELETE", "", "", http.Header{"If-Match": {`"api-3"`}}, 200, call{method: "Delete", actor: ann, ifMatch: `"api-3"`}},
		{"sweep", "POST", "/sweep", "", as("ann"), 202, call{method: "Sweep", actor: ann}},
		{"rotate", "POST", "/webhook-secret", "", with("bot"), 200, call{method: "Rotate", actor: bot}},
		{"block", "PUT", "/blocks/" + digest, `{"reason":"has a hole"}`, as("ann"), 200, call{method: "Block", actor: ann, digest: digest, reason: "has a hole"}},
		{"unblock", "DELETE", "/blocks/" + digest, "", as("ann"), 200, call{method: "Unblock", actor: ann, digest: digest}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, &ledgertest.Memory{})
			writeTokens(t, d.tokens, "bot:"+hashed("bot")+":change:demo")
			d.projects.view = wholeView()
			header := as("ann")
			maps.Copy(header, tt.header)
			rec := d.send(t, tt.method, "/api/v1/projects/demo"+tt.path, header, tt.body)
			calls := d.projects.taken()
			tt.want.project = "demo"
			if rec.Code != tt.status || len(calls) != 1 || !reflect.DeepEqual(calls[0], tt.want) {
				t.Fatalf("%d %s, asked %+v; want %d and %+v", rec.Code, rec.Body, calls, tt.status, tt.want)
			}
			if tt.status == http.StatusAccepted {
				if want := `{"project":"demo","status":"queued"}`; rec.Body.String() != want {
					t.Errorf("body = %s, want %s", rec.Body, want)
				}
				return
			}
			if got := rec.Header().Get("ETag"); got != `"api-3"` || !strings.Contains(rec.Body.String(), `"coverage":{"population":0`) {
				t.Errorf("ETag %q, %s; want that of the policy, and the coverage", got, rec.Body)
			}
		})
	}
}

func TestWhoMayChange(t *testing.T) {
	d := open(t, &ledgertest.Memory{})
	writeTokens(t, d.tokens, "reads:"+hashed("reads")+"\nelsewhere:"+hashed("elsewhere")+":change:app")
	for _, tt := range []struct {
		name   string
		header http.Header
		status int
	}{
		{"nobody", nil, 401},
		{"wrong password", as("mallory"), 401},
		{"a token that reads", with("reads"), 403},
		{"a token for another project", with("elsewhere"), 404},
		{"no member", as("out"), 404},
		{"a robot", as("robot$ci"), 404},
		{"a system admin", as("root"), 200},
	} {
		rec := d.send(t, "DELETE", "/api/v1/projects/demo", tt.header, "")
		if rec.Code != tt.status {
			t.Errorf("%s: DELETE = %d %s, want %d", tt.name, rec.Code, rec.Body, tt.status)
		}
	}
	// ann is a guest in app.
	if rec := d.send(t, "POST", "/api/v1/projects/app/sweep", as("ann"), ""); rec.Code != http.StatusForbidden {
		t.Errorf("a guest: POST sweep = %d %s, want 403", rec.Code, rec.Body)
	}
	if calls := d.projects.taken(); len(calls) != 1 {
		t.Errorf("package enroll was asked %+v, want the system admin's call alone", calls)
	}
}

// TestPagesOfOthersChangeNothing sends what a browser sends for a page of another origin, with the credentials that it keeps.
func TestPagesOfOthersChangeNothing(t *testing.T) {
	d := open(t, &ledgertest.Memory{})
	for _, header := range []http.Header{{"Sec-Fetch-Site": {"cross-site"}}, {"Origin": {"https://evil.example"}}} {
		header["Authorization"] = as("ann")["Authorization"]
		for _, way := range []string{"POST /sweep", "POST /webhook-secret", "DELETE "} {
			method, path, _ := strings.Cut(way, " ")
			if rec := d.send(t, method, "/api/v1/projects/demo"+path, header, ""); rec.Code != http.StatusForbidden || len(d.projects.taken()) != 0 {
				t.Errorf("%s with %v = %d %s, want 403", way, header, rec.Code, rec.Body)
			}
		}
		if rec := d.get(t, "/api/v1/projects/demo", header); rec.Code != http.StatusOK {
			t.Errorf("GET with %v = %d, want 200", header, rec.Code)
		}
		d.projects.taken()
	}
}

func TestRefusals(t *testing.T) {
	failed := preflight.Check{Name: preflight.Quota, Subject: "demo", Status: preflight.Failed, Detail: "full", Fix: "raise it"}
	unknown := preflight.Check{Name: preflight.Signer, Status: preflight.Failed, Detail: "no answer", Unknown: true}
	stale := fmt.Errorf("storing: %w", fault.New(fault.Transient, fault.ConcurrentWriter, policy.ErrConflict))
	two := errors.Join(&policy.FieldError{Field: "mode", Want: "want one"}, fmt.Errorf("more: %w", &policy.FieldError{Field: "backfill", Want: "want two"}))
	tests := []struct {
		name, ifMatch string
		err           error
		status        int
		says          string
	}{
		{"no ETag", "", enroll.ErrPreconditionRequired, 428, "If-Match"},
		{"stale", `"api-1"`, stale, 412, "read it again"},
		{"overtaken", "", stale, 409, "try again"},
		{"in the file", "", enroll.ErrManagedByConfig, 409, "configuration file"},
		{"no policy", "", enroll.ErrNoPolicy, 409, "enable it first"},
		{"not enabled", "", enroll.ErrNotEnabled, 409, "not enabled"},
		{"too many sweeps", "", &enroll.TooOftenError{RetryAfter: 3 * time.Second}, 429, "too often"},
		{"no Harbor", "", enroll.ErrNoHarbor, 501, "harbor.url"},
		{"one check", "", &enroll.RefusedError{Checks: []preflight.Check{failed, unknown}}, 422, `"checks":[{"name":"quota","subject":"demo","status":"failed","detail":"full","fix":"raise it"},{"name":"signer"`},
		{"cannot be told", "", &enroll.RefusedError{Checks: []preflight.Check{unknown}}, 503, `"checks":[{"name":"signer"`},
		{"a field", "", &policy.FieldError{Field: "backfill", Want: "want none"}, 400, `"field":"backfill"`},
		{"fields", "", two, 400, `"field":"mode","errors":[{"field":"mode","detail":"want one"},{"field":"backfill","detail":"want two"}]`},
		{"Harbor away", "", fault.Newf(fault.Transient, fault.Unreachable, "inside"), 503, "Harbor does not answer"},
		{"queue away", "", fault.Newf(fault.Transient, fault.QueueUnavailable, "inside"), 503, "the queue does not answer"},
		{"Harbor refuses", "", fault.Newf(fault.Permanent, fault.Denied, "lacks notification-policy:create"), 502, "notification-policy:create"},
		{"gone meanwhile", "", fault.Newf(fault.Gone, fault.NotFound, "inside"), 404, "no such project"},
		{"broken", "", fault.Newf(fault.Permanent, fault.Malformed, "inside"), 500, "log of the receiver"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, &ledgertest.Memory{})
			d.projects.err = tt.err
			header := as("ann")
			if tt.ifMatch != "" {
				header.Set("If-Match", tt.ifMatch)
			}
			rec := d.send(t, "PUT", "/api/v1/projects/demo", header, `{}`)
			if body := rec.Body.String(); rec.Code != tt.status || !strings.Contains(body, tt.says) || strings.Contains(body, "inside") {
				t.Errorf("PUT = %d %s, want %d that says %q", rec.Code, body, tt.status, tt.says)
			}
			if got := rec.Header().Get("Retry-After"); (got != "") != (tt.status == 503 || tt.status == 429) || tt.status == 429 && got != "3" {
				t.Errorf("Retry-After = %q with %d", got, rec.Code)
			}
		})
	}
}

func TestBodies(t *testing.T) {
	long := `{"backfill":"` + strings.Repeat("x", 256<<10) + `"}`
	tests := []struct {
		name, body string
		header     http.Header
		status     int
		field      string
	}{
		{"nothing", "", http.Header{"Content-Type": {"application/json"}}, 400, "body"},
		{"no type", "{}", http.Header{"Content-Type": {""}}, 415, ""},
		{"another type", "{}", http.Header{"Content-Type": {"text/plain"}}, 415, ""},
		{"a form", "{}", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, 415, ""},
		{"encoded", "{}", http.Header{"Content-Encoding": {"gzip"}}, 415, ""},
		{"too long", long, nil, 413, ""},
		{"no JSON", "{", nil, 400, "body"},
		{"half an object", `{"mode":"sign"`, nil, 400, "body"},
		{"a list", "[]", nil, 400, "body"},
		{"null", "null", nil, 400, "body"},
		{"two objects", "{}{}", nil, 400, "body"},
		{"something behind it", "{} x", nil, 400, "body"},
		{"unknown field", `{"mod":"sign"}`, nil, 400, "mod"},
		{"field in another case", `{"Mode":"sign"}`, nil, 400, "Mode"},
		{"field without a name", `{"":"sign"}`, nil, 400, ""},
		{"the version is not for clients", `{"v":1}`, nil, 400, "v"},
		{"blocks have a path of their own", `{"blocks":[]}`, nil, 400, "blocks"},
		{"unknown field further down", `{"exemptions":[{"reason":"r"},{"who":"me"}]}`, nil, 400, "exemptions[1].who"},
		{"field twice", `{"mode":"sign","mode":"off"}`, nil, 400, "mode"},
		{"field twice further down", `{"tags":{"include":["a"],"include":[]}}`, nil, 400, "tags.include"},
		{"annotation twice", `{"annotations":{"a":"b","a":"c"}}`, nil, 400, "annotations.a"},
		{"null field", `{"mode":null}`, nil, 400, "mode"},
		{"null in a list", `{"tags":{"include":[null]}}`, nil, 400, "tags.include[0]"},
		{"number for a text", `{"mode":1}`, nil, 400, "mode"},
		{"text for a number", `{"max_in_flight":"1"}`, nil, 400, "max_in_flight"},
		{"fraction for a whole number", `{"max_in_flight":1.5}`, nil, 400, "max_in_flight"},
		{"too large a number", `{"rate":{"per_second":1e999}}`, nil, 400, "rate.per_second"},
		{"text for a truth value", `{"resign_on_rotation":"yes"}`, nil, 400, "resign_on_rotation"},
		{"object for a list", `{"exemptions":{}}`, nil, 400, "exemptions"},
		{"list for an object", `{"tags":["a"]}`, nil, 400, "tags"},
		{"no time", `{"exemptions":[{"expires":"tomorrow"}]}`, nil, 400, "exemptions[0].expires"},
		{"number for a time", `{"exemptions":[{"expires":0}]}`, nil, 400, "exemptions[0].expires"},
		{"parameter", "{}", http.Header{"X-Query": {"dry_run=1"}}, 400, "dry_run"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, &ledgertest.Memory{})
			header, target := as("ann"), "/api/v1/projects/demo"
			maps.Copy(header, tt.header)
			if q := header.Get("X-Query"); q != "" {
				target += "?" + q
			}
			if tt.header.Values("Content-Type") != nil && tt.header.Get("Content-Type") == "" {
				header["Content-Type"] = []string{" "}
			}
			rec := d.send(t, "PUT", target, header, tt.body)
			var doc problem.Document
			if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || rec.Code != tt.status || tt.field != "" && doc.Field != tt.field || doc.Detail == "" {
				t.Errorf("PUT = %d %s, %v; want %d about %q", rec.Code, rec.Body, err, tt.status, tt.field)
			}
			if calls := d.projects.taken(); len(calls) != 0 {
				t.Errorf("package enroll was asked %+v", calls)
			}
		})
	}
	d := open(t, &ledgertest.Memory{})
	for path, want := range map[string]string{"/blocks/sha256:abc": "digest", "/blocks/latest": "digest"} {
		if rec := d.send(t, "DELETE", "/api/v1/projects/demo"+path, as("ann"), ""); rec.Code != 400 || !strings.Contains(rec.Body.String(), `"field":"`+want) {
			t.Errorf("DELETE %s = %d %s, want 400 about %s", path, rec.Code, rec.Body, want)
		}
	}
}

// uncounted is a ledger that cannot count.
type uncounted struct{ ledgertest.Memory }

func (*uncounted) Coverage(context.Context, []string) (map[string]ledger.Coverage, error) {
	return nil, fault.Newf(fault.Transient, fault.StorageUnavailable, "down")
}

// TestADoneChangeIsNoFailure: what is done must not look as if it were not because the ledger is away.
func TestADoneChangeIsNoFailure(t *testing.T) {
	d := open(t, &uncounted{})
	d.projects.view = wholeView()
	rec := d.send(t, "PUT", "/api/v1/projects/demo", as("ann"), `{}`)
	if rec.Code != http.StatusCreated || !strings.Contains(rec.Body.String(), `"coverage":null,"rotation":null`) {
		t.Errorf("PUT = %d %s, want 201 without coverage", rec.Code, rec.Body)
	}
	if rec := d.get(t, "/api/v1/projects/demo", as("ann")); rec.Code != http.StatusServiceUnavailable {
		t.Errorf("GET = %d %s, want 503", rec.Code, rec.Body)
	}
}

func TestChangesEndInTime(t *testing.T) {
	d := open(t, &ledgertest.Memory{}, func(cfg *api.Config) {
		cfg.ChangeTimeout = time.Millisecond
		cfg.Projects = &enrolled{during: func(ctx context.Context) { <-ctx.Done() }, err: context.DeadlineExceeded}
	})
	rec := d.send(t, "DELETE", "/api/v1/projects/demo", as("ann"), "")
	if rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), "longer than 1ms") {
		t.Errorf("a slow change: %d %s, want 503 that tells the limit", rec.Code, rec.Body)
	}
}

// TestChangesMayTakeLongerThanTheServer puts the API behind a server whose limits are shorter than a change takes.
func TestChangesMayTakeLongerThanTheServer(t *testing.T) {
	const limit = 100 * time.Millisecond
	ended := make(chan error, 1)
	d := open(t, &ledgertest.Memory{}, func(cfg *api.Config) {
		cfg.Projects = &enrolled{during: func(ctx context.Context) {
			select {
			case <-ctx.Done():
			case <-time.After(4 * limit):
			}
			ended <- ctx.Err()
		}}
	})
	server, err := httpserver.New(httpserver.Config{
		Name: "public", Listen: "127.0.0.1:0", AllowPlainHTTP: true, Handler: d.handler, Logger: zerolog.Nop(),
		Timeouts: httpserver.Timeouts{ReadHeader: limit, Read: limit, Write: limit},
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Start()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL()+"/api/v1/projects/demo", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = as("ann")
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(req)
	if err != nil {
		t.Errorf("PUT: %v (the change ended with %v)", err, <-ended)
	} else {
		if err := <-ended; err != nil || answer.StatusCode != http.StatusCreated {
			t.Errorf("PUT = %d, and the change ended with %v; want 201 and no error", answer.StatusCode, err)
		}
		if err := answer.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := server.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}
