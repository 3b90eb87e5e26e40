package api_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/problem"
)

// FuzzQuery sends any query string: the answer is 200, or 400 that names a parameter, and always JSON.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"", "project=demo&repository=team/app&digest=abcdef0&state=signed&since=2026-01-31&until=2026-02-01T00:00:00Z&limit=10",
		"cursor=AQAA", "limit=%", "limit=1&limit=2", "a=1;b=2", "%00=%ff", "since=2026-01-31T12:00:00+01:00", "&&=&", "limit=99999999999999999999",
		"since=0001-01-01", "until=9999-12-31T23:59:59-23:59", "project=%F0%9F%98%80", "digest=sha256:", "log_owed=true", "log_owed=1",
	} {
		f.Add(seed)
	}
	path := f.TempDir() + "/tokens"
	writeTokens(f, path, "ann:"+hashed(token))
	a, err := api.New(config(f, &ledgertest.Memory{}, path, io.Discard))
	if err != nil {
		f.Fatal(err)
	}
	engine := gin.New()
	a.Register(engine)
	f.Fuzz(func(t *testing.T, query string) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/signatures", http.NoBody)
		req.URL = &url.URL{Path: req.URL.Path, RawQuery: query}
		req.Header = with(token)
		rec := httptest.NewRecorder()
		engine.ServeHTTP(rec, req)
		var answer struct {
			problem.Document
			Items *[]any `json:"items"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
			t.Fatalf("?%s: %d %q: %v", query, rec.Code, rec.Body, err)
		}
		refused := rec.Code == http.StatusBadRequest && answer.Detail != ""
		if found := rec.Code == http.StatusOK && answer.Items != nil; !refused && !found {
			t.Fatalf("?%s: %d %s, want 200 with items or 400 with a detail", query, rec.Code, rec.Body)
		}
	})
}

// FuzzBody sends any policy: what is taken is what the document allows and encoding/json reads, and all else is a 4xx that
// says why.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"mode":"sign","backfill":"all"}`, `{"mode":"sign","mode":"off"}`, `{"Mode":"off"}`, `null`, `[]`, `{"a":1}`, `{"tags":{"include":["v*"],"exclude":[]}}`,
		`{"exemptions":[{"repository":"a/**","approver":"x","reason":"y","expires":"2026-12-31T00:00:00Z"}]}`, `{"annotations":{"a":"b","":""}}`,
		`{"rate":{"per_second":1e999,"burst":-1}}`, `{"max_in_flight":1.0}`, `{"mode":"\ud800"}`, `{"transparency":"deferred","log":"rekor","timestamp":"off","canary":false}`, `{}}`, `{"backfill":"since:`, "\xff{}", `{"x` + "\x00" + `":1}`,
	} {
		f.Add([]byte(seed))
	}
	path := f.TempDir() + "/tokens"
	writeTokens(f, path, "bot:"+hashed("bot")+":change")
	cfg := config(f, &ledgertest.Memory{}, path, io.Discard)
	projects := &enrolled{}
	cfg.Projects = projects
	a, err := api.New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	engine := gin.New()
	a.Register(engine)
	f.Fuzz(func(t *testing.T, body []byte) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/api/v1/projects/demo", bytes.NewReader(body))
		req.Header = with("bot")
		req.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		engine.ServeHTTP(rec, req)
		calls := projects.taken()
		if rec.Code != http.StatusCreated {
			var doc problem.Document
			if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || rec.Code != http.StatusBadRequest || doc.Detail == "" || len(calls) != 0 {
				t.Fatalf("%q: %d %s, %v, calls %v; want a problem and no call", body, rec.Code, rec.Body, err, calls)
			}
			return
		}
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.DisallowUnknownFields()
		var want enroll.PutRequest
		if err := decoder.Decode(&want); err != nil || len(calls) != 1 || !reflect.DeepEqual(calls[0].request, want) {
			t.Fatalf("%q was taken as %+v, want %+v, %v", body, calls, want, err)
		}
	})
}
