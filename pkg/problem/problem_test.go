package problem_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/problem"
)

func TestWrite(t *testing.T) {
	tests := []struct {
		name string
		in   problem.Document
		want problem.Document
	}{
		{
			"status alone",
			problem.Document{Status: http.StatusNotFound},
			problem.Document{Type: "about:blank", Title: "Not Found", Status: 404},
		},
		{
			"everything is kept",
			problem.Document{
				Type: "/p/x", Title: "X", Status: 400, Detail: "no", Instance: "/i", Field: "limit",
				Errors: []problem.FieldError{{Field: "limit", Detail: "no"}}, Checks: []string{"quota"},
			},
			problem.Document{
				Type: "/p/x", Title: "X", Status: 400, Detail: "no", Instance: "/i", Field: "limit",
				Errors: []problem.FieldError{{Field: "limit", Detail: "no"}}, Checks: []any{"quota"},
			},
		},
		{
			"no status is the server's mistake",
			problem.Document{Detail: "what"},
			problem.Document{Type: "about:blank", Title: "Internal Server Error", Status: 500, Detail: "what"},
		},
		{
			"a success is no problem",
			problem.Document{Status: 204},
			problem.Document{Type: "about:blank", Title: "Internal Server Error", Status: 500},
		},
		{
			"hostile text",
			problem.Document{Status: 400, Detail: "a\x00\x1b[31m\r\n</script>\"\u2028"},
			problem.Document{Type: "about:blank", Title: "Bad Request", Status: 400, Detail: "a\x00\x1b[31m\r\n</script>\"\u2028"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			rec.Header().Set("Retry-After", "5")
			problem.Write(rec, tt.in)
			check(t, rec, tt.want)
			if got := rec.Header().Get("Retry-After"); got != "5" {
				t.Errorf("Retry-After = %q, want the caller's 5", got)
			}
		})
	}
}

func TestAbortEndsTheChain(t *testing.T) {
	rec := httptest.NewRecorder()
	gin.SetMode(gin.ReleaseMode)
	c := gin.CreateTestContextOnly(rec, gin.New())
	problem.Abort(c, problem.Document{Status: http.StatusForbidden})
	if !c.IsAborted() {
		t.Error("IsAborted() = false after Abort, want true")
	}
	check(t, rec, problem.Document{Type: "about:blank", Title: "Forbidden", Status: 403})
}

func check(t *testing.T, rec *httptest.ResponseRecorder, want problem.Document) {
	t.Helper()
	if rec.Code != want.Status {
		t.Errorf("status = %d, want %d", rec.Code, want.Status)
	}
	if got := rec.Header().Get("Content-Type"); got != problem.ContentType {
		t.Errorf("Content-Type = %q, want %q", got, problem.ContentType)
	}
	var got problem.Document
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatalf("body %q is no JSON: %v", rec.Body.String(), err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("document = %+v, want %+v", got, want)
	}
}
