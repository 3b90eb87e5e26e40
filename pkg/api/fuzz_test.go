package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/problem"
)

// FuzzQuery sends any query string: the answer is 200, or 400 that names a parameter, and always JSON.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"", "project=demo&repository=team/app&digest=abcdef0&state=signed&since=2026-01-31&until=2026-02-01T00:00:00Z&limit=10",
		"cursor=AQAA", "limit=%", "limit=1&limit=2", "a=1;b=2", "%00=%ff", "since=2026-01-31T12:00:00+01:00", "&&=&", "limit=99999999999999999999",
		"since=0001-01-01", "until=9999-12-31T23:59:59-23:59", "project=%F0%9F%98%80", "digest=sha256:",
	} {
		f.Add(seed)
	}
	path := f.TempDir() + "/tokens"
	writeTokens(f, path, "ann:"+hashed(token))
	view := &ledgertest.Memory{}
	a, err := api.New(api.Config{Signatures: view, Access: guard(f, path, io.Discard), Logger: zerolog.Nop()})
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
