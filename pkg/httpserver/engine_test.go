package httpserver_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/httpserver"
	"github.com/harborseal/harborseal/pkg/problem"
)

type engine struct {
	*gin.Engine
	log      *output
	registry *prometheus.Registry
}

func newEngine(t *testing.T, trustedProxies ...string) engine {
	t.Helper()
	e := engine{log: &output{}, registry: prometheus.NewRegistry()}
	var err error
	e.Engine, err = httpserver.NewEngine(zerolog.New(e.log), e.registry, trustedProxies)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (e engine) do(t *testing.T, method, target string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, http.NoBody)
	maps.Copy(r.Header, header)
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, r)
	return rec
}

func (e engine) wantPanics(t *testing.T, want int) {
	t.Helper()
	expected := fmt.Sprintf("# HELP harborseal_http_panics_total Panics of HTTP handlers, answered with 500.\n"+
		"# TYPE harborseal_http_panics_total counter\nharborseal_http_panics_total %d\n", want)
	if err := testutil.GatherAndCompare(e.registry, strings.NewReader(expected), "harborseal_http_panics_total"); err != nil {
		t.Error(err)
	}
}

func wantProblem(t *testing.T, rec *httptest.ResponseRecorder, status int, detail string) {
	t.Helper()
	var got problem.Document
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || rec.Header().Get("Content-Type") != problem.ContentType {
		t.Fatalf("answer %q is no problem document: %v", rec.Body, err)
	}
	if rec.Code != status || got.Status != status || !strings.Contains(got.Detail, detail) {
		t.Errorf("status %d, problem %+v; want %d with %q", rec.Code, got, status, detail)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	e := newEngine(t)
	e.POST("/hook", func(c *gin.Context) { c.Status(http.StatusAccepted) })
	wantProblem(t, e.do(t, http.MethodGet, "/nothing", nil), http.StatusNotFound, "nothing at this address")
	rec := e.do(t, http.MethodGet, "/hook", nil)
	wantProblem(t, rec, http.StatusMethodNotAllowed, "POST")
	if got := rec.Header().Get("Allow"); got != "POST" {
		t.Errorf("Allow = %q, want POST", got)
	}
	// No redirect: Harbor would follow it with a GET and lose the body.
	for _, target := range []string{"/hook/", "/HOOK", "//hook"} {
		wantProblem(t, e.do(t, http.MethodPost, target, nil), http.StatusNotFound, "")
	}
}

func TestAPanicIsAnsweredCountedAndLoggedWithoutHeaders(t *testing.T) {
	e := newEngine(t)
	e.GET("/panic/:what", func(*gin.Context) { panic("boom") })
	rec := e.do(t, http.MethodGet, "/panic/x?token=query-secret", http.Header{"Authorization": {"Bearer header-secret"}})
	wantProblem(t, rec, http.StatusInternalServerError, rec.Header().Get("X-Request-Id"))
	e.wantPanics(t, 1)
	log := e.log.String()
	for _, want := range []string{`"panic":"boom"`, "engine_test.go", rec.Header().Get("X-Request-Id"), `"route":"/panic/:what"`} {
		if !strings.Contains(log, want) {
			t.Errorf("log has no %s:\n%s", want, log)
		}
	}
	for _, secret := range []string{"header-secret", "query-secret"} {
		if strings.Contains(log, secret) || strings.Contains(rec.Body.String(), secret) {
			t.Errorf("%s is in log or answer:\n%s\n%s", secret, log, rec.Body)
		}
	}
}

func TestAPanicAfterTheHeaderBreaksTheConnection(t *testing.T) {
	e := newEngine(t)
	e.GET("/half", func(c *gin.Context) {
		c.String(http.StatusOK, "half")
		panic("boom")
	})
	e.GET("/abort", func(*gin.Context) { panic(http.ErrAbortHandler) })
	for _, tt := range []struct {
		target string
		panics int
	}{{"/half", 1}, {"/abort", 1}} {
		func() {
			defer func() {
				if err, ok := recover().(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
					t.Errorf("GET %s: panic is %v, want http.ErrAbortHandler, which breaks the connection", tt.target, err)
				}
			}()
			e.do(t, http.MethodGet, tt.target, nil)
		}()
		e.wantPanics(t, tt.panics)
	}
}

func TestRequestIDsAreOurs(t *testing.T) {
	e := newEngine(t)
	var seen []string
	e.GET("/", func(c *gin.Context) { seen = append(seen, httpserver.RequestID(c)) })
	for range 2 {
		rec := e.do(t, http.MethodGet, "/", http.Header{"X-Request-Id": {"forged"}})
		seen = append(seen, rec.Header().Get("X-Request-Id"))
	}
	if seen[0] == "" || seen[0] != seen[1] || seen[2] != seen[3] || seen[0] == seen[2] || slices.Contains(seen, "forged") {
		t.Errorf("ids in handler, answer, handler, answer = %q; want two different ones, each twice", seen)
	}
}

func TestTrustedProxies(t *testing.T) {
	// httptest's requests come from 192.0.2.1.
	for _, tt := range []struct {
		name    string
		proxies []string
		want    string
	}{
		{"none", nil, "192.0.2.1"},
		{"another", []string{"10.0.0.0/8"}, "192.0.2.1"},
		{"this one", []string{"192.0.2.0/24"}, "203.0.113.9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEngine(t, tt.proxies...)
			var got string
			e.GET("/", func(c *gin.Context) { got = c.ClientIP() })
			e.do(t, http.MethodGet, "/", http.Header{"X-Forwarded-For": {"203.0.113.9"}})
			if got != tt.want {
				t.Errorf("client = %s, want %s", got, tt.want)
			}
		})
	}
	if _, err := httpserver.NewEngine(zerolog.Nop(), nil, []string{"proxy.example"}); err == nil {
		t.Error("NewEngine() took a name for an address, want an error")
	}
}

func TestEnginesShareARegisterer(t *testing.T) {
	first := newEngine(t)
	second, err := httpserver.NewEngine(zerolog.Nop(), first.registry, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []engine{first, {Engine: second}} {
		e.GET("/", func(*gin.Context) { panic("boom") })
		e.do(t, http.MethodGet, "/", nil)
	}
	first.wantPanics(t, 2)
}

func TestGinWritesNothing(t *testing.T) {
	var written bytes.Buffer
	mode, out, errOut := gin.Mode(), gin.DefaultWriter, gin.DefaultErrorWriter
	gin.DefaultWriter, gin.DefaultErrorWriter = &written, &written
	gin.SetMode(gin.DebugMode)
	t.Cleanup(func() { gin.SetMode(mode); gin.DefaultWriter, gin.DefaultErrorWriter = out, errOut })
	e := newEngine(t)
	e.GET("/", func(*gin.Context) { panic("boom") })
	e.do(t, http.MethodGet, "/", nil)
	e.do(t, http.MethodGet, "/nothing", nil)
	if written.Len() != 0 {
		t.Errorf("Gin wrote %q, want nothing", written.String())
	}
}
