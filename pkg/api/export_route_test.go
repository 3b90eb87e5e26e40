package api_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	exports "github.com/harborseal/harborseal/pkg/report"
)

// errBusy keeps the answers that are compared with the document from being archives.
var errBusy = exports.ErrBusy

// exporting is package report with one answer: text, and then err.
type exporting struct {
	text string
	err  error
	// during is called behind the text, unless it is nil.
	during func(ctx context.Context, w io.Writer) error
	// asked gets each request, unless it is nil.
	asked func(exports.Request)
}

func (e exporting) Check(r *exports.Request) error {
	if r.Format != exports.CSV && r.Format != exports.JSONL {
		return &ledger.InvalidQueryError{Field: "format", Want: "want csv or jsonl"}
	}
	if r.Proofs {
		return exports.ErrNoProofs
	}
	_, err := r.Query.Filter()
	return err
}

func (e exporting) Limit() time.Duration { return time.Minute }

func (e exporting) Export(ctx context.Context, w io.Writer, r exports.Request) (exports.Result, error) {
	if e.asked != nil {
		e.asked(r)
	}
	if e.text != "" {
		if _, err := io.WriteString(w, e.text); err != nil {
			return exports.Result{}, err
		}
	}
	if e.during != nil {
		if err := e.during(ctx, w); err != nil {
			return exports.Result{Rows: 1}, err
		}
	}
	return exports.Result{Rows: 2, SHA256: "ab", Complete: e.err == nil}, e.err
}

// witness keeps what was recorded.
type witness struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

func (w *witness) Read(r exports.Reading) { w.add("read " + r.Actor + " " + r.Path) }

func (w *witness) Exported(r exports.Reading, format exports.Format, result exports.Result) {
	whole := "part"
	if result.Complete {
		whole = "whole"
	}
	w.add(strings.Join([]string{"exported", r.Actor, r.Project, r.Path, r.Parameters.Encode(), string(format), whole}, " "))
}

func (w *witness) add(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, line)
}

func (w *witness) all() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.lines, "\n")
}

func TestExport(t *testing.T) {
	var asked exports.Request
	saw := &witness{}
	server := serveExport(t, exporting{text: "zip", asked: func(r exports.Request) { asked = r }}, saw)
	res := getExport(t, t.Context(), server, "?project=demo&format=jsonl&since=2026-01-31") //nolint:bodyclose // getExport closes it
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || string(body) != "zip" || res.Header.Get("Content-Type") != "application/zip" ||
		!strings.HasPrefix(res.Header.Get("Content-Disposition"), "attachment; filename=harborseal-report-") {
		t.Fatalf("GET export = %d %s, %v, %v", res.StatusCode, body, res.Header, err)
	}
	if asked.Format != exports.JSONL || asked.Query.Project != "demo" || asked.Query.Since.IsZero() || asked.Actor != "ann" || len(asked.Query.Projects) != 2 ||
		asked.Parameters["since"] != "2026-01-31" || asked.Parameters["format"] != "jsonl" {
		t.Errorf("asked for %+v; want ann's two projects", asked)
	}
	if want := "exported ann demo /api/v1/export format=jsonl&project=demo&since=2026-01-31 jsonl whole"; saw.all() != want {
		t.Errorf("recorded %q, want %q", saw.all(), want)
	}
}

func TestExportIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		who, query string
		err        error
		status     int
		again      string
		recorded   bool
	}{
		"nobody":           {"", "", nil, http.StatusUnauthorized, "", false},
		"a bad format":     {"ann", "?format=xlsx", nil, http.StatusBadRequest, "", false},
		"a bad filter":     {"ann", "?digest=x", nil, http.StatusBadRequest, "", false},
		"a cursor":         {"ann", "?cursor=x", nil, http.StatusBadRequest, "", false},
		"no proofs":        {"ann", "?format=jsonl&proofs=true", nil, http.StatusConflict, "", false},
		"a robot for all":  {"robot$ci", "", nil, http.StatusBadRequest, "", false},
		"busy":             {"ann", "", exports.ErrBusy, http.StatusTooManyRequests, "30", false},
		"the ledger away":  {"ann", "", fault.Newf(fault.Transient, fault.Unavailable, "away"), http.StatusServiceUnavailable, "5", true},
		"it took too long": {"ann", "", context.DeadlineExceeded, http.StatusServiceUnavailable, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			saw := &witness{}
			d := open(t, &report{}, func(cfg *api.Config) { cfg.Exports, cfg.Reads = exporting{err: c.err}, saw })
			header := http.Header{}
			if c.who != "" {
				header = as(c.who)
			}
			rec := d.send(t, http.MethodGet, "/api/v1/export"+c.query, header, "")
			if rec.Code != c.status || c.again != "" && rec.Header().Get("Retry-After") != c.again ||
				rec.Header().Get("Content-Type") != "application/problem+json" || rec.Header().Get("Content-Disposition") != "" {
				t.Errorf("GET export = %d %s, %v; want %d, and to come again in %s s", rec.Code, rec.Body, rec.Header(), c.status, c.again)
			}
			if (saw.all() != "") != c.recorded {
				t.Errorf("recorded %q, want something: %t", saw.all(), c.recorded)
			}
		})
	}
}

// serveExport serves the API over a real connection.
func serveExport(t *testing.T, e exporting, saw *witness) *httptest.Server {
	t.Helper()
	cfg := config(t, &report{}, "", io.Discard)
	cfg.Exports, cfg.Reads, cfg.Timeout = e, saw, 50*time.Millisecond
	a, err := api.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	engine := gin.New()
	a.Register(engine)
	server := httptest.NewServer(engine)
	t.Cleanup(server.Close)
	return server
}

func getExport(t *testing.T, ctx context.Context, server *httptest.Server, query string) *http.Response { //nolint:revive // t is first in helpers
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/api/v1/export"+query, http.NoBody)
	if err != nil {
		t.Fatalf("NewRequest: %v", err)
	}
	req.Header = as("ann")
	res, err := server.Client().Do(req)
	if err != nil {
		t.Fatalf("GET export: %v", err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// An export that fails in the middle must not look whole: the connection breaks.
func TestExportThatBreaksOff(t *testing.T) {
	saw := &witness{}
	server := serveExport(t, exporting{text: strings.Repeat("x", 1<<20), err: errors.New("the disk is gone")}, saw)
	body, err := io.ReadAll(getExport(t, t.Context(), server, "").Body) //nolint:bodyclose // getExport closes it
	if err == nil || len(body) == 0 {
		t.Errorf("reading the answer = %d bytes, %v; want an error in the middle", len(body), err)
	}
	if !strings.HasSuffix(saw.all(), "csv part") {
		t.Errorf("recorded %q, want a part", saw.all())
	}
}

// An export takes longer than other requests may, and ends when its client goes.
func TestExportEndsWithItsClient(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	server := serveExport(t, exporting{text: strings.Repeat("x", 1<<20), during: func(ctx context.Context, _ io.Writer) error {
		timer := time.NewTimer(200 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C: // four times as long as others
		case <-ctx.Done():
			ended <- errors.New("ended before the client went")
			return ctx.Err()
		}
		cancel()
		select {
		case <-ctx.Done():
			ended <- nil
		case <-time.After(10 * time.Second):
			ended <- errors.New("goes on without a client")
		}
		return context.Canceled
	}}, &witness{})
	_, _ = io.Copy(io.Discard, getExport(t, ctx, server, "").Body) //nolint:bodyclose // it breaks off; getExport closes it
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Reading the report is recorded, and trying to is not.
func TestReadingIsRecorded(t *testing.T) {
	saw := &witness{}
	d := open(t, &report{page: ledger.Page{Items: []ledger.Row{}}}, func(c *api.Config) { c.Reads = saw })
	d.send(t, http.MethodGet, "/api/v1/signatures?project=demo", as("ann"), "")
	d.send(t, http.MethodGet, "/api/v1/signatures?nonsense=1", as("ann"), "")
	d.send(t, http.MethodGet, "/api/v1/signatures", http.Header{}, "")
	if want := "read ann /api/v1/signatures"; saw.all() != want {
		t.Errorf("recorded %q, want %q", saw.all(), want)
	}
}

// Each export is an event that stays for a year: nobody fills the ledger with them.
func TestExportsAreBounded(t *testing.T) {
	seen := &witness{}
	d := open(t, &report{}, func(cfg *api.Config) { cfg.Exports, cfg.Reads = exporting{text: "PK"}, seen })
	get := func(who string) *httptest.ResponseRecorder {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/export", nil)
		req.Header = as(who)
		rec := httptest.NewRecorder()
		d.handler.ServeHTTP(rec, req)
		return rec
	}
	for n := range 60 {
		if rec := get("ann"); rec.Code != http.StatusOK {
			t.Fatalf("export %d is answered with %d", n+1, rec.Code)
		}
	}
	if rec := get("ann"); rec.Code != http.StatusTooManyRequests || rec.Header().Get("Retry-After") == "" {
		t.Errorf("the 61st is answered with %d %v, want 429 with Retry-After", rec.Code, rec.Header())
	}
	if got := strings.Count(seen.all(), "exported ann"); got != 60 {
		t.Errorf("%d are recorded, want 60", got)
	}
	if rec := get("root"); rec.Code != http.StatusOK {
		t.Errorf("somebody else is answered with %d", rec.Code)
	}
}
