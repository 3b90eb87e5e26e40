package api

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/problem"
	"github.com/harborseal/harborseal/pkg/report"
)

const (
	exportPath = "/api/v1/export"
	// busyRetry is when to come again where as many exports are running as may.
	busyRetry = 30 * time.Second
	// exportsEach is how many exports a caller may begin in exportsTime: each is an event that the ledger keeps for a year.
	exportsEach = 60
	exportsTime = 10 * time.Minute
)

// exports makes exports of the report: see package report. It is safe for concurrent use. Its errors are a
// [*ledger.InvalidQueryError], those of package report, faults, or that of the writer. It writes nothing before an error that is no
// fault, and it returns when it is done with the writer.
type exports interface {
	Check(r *report.Request) error
	Export(ctx context.Context, w io.Writer, r report.Request) (report.Result, error)
	Limit() time.Duration
}

// reads records who has read the report. It is safe for concurrent use, and never waits.
type reads interface {
	Read(r report.Reading)
	Exported(r report.Reading, format report.Format, result report.Result)
}

// registerExport adds the export.
func (a *API) registerExport(router gin.IRouter) {
	if a.cfg.Exports == nil {
		return
	}
	exporting := router.Group(exportPath, a.authenticateWithin)
	exporting.GET("", a.getExport)
}

// authenticateWithin is authenticate in the time that a request has which reads: what comes behind it may take longer.
func (a *API) authenticateWithin(c *gin.Context) {
	request := c.Request
	ctx, cancel := context.WithTimeout(request.Context(), a.cfg.Timeout)
	defer cancel()
	c.Request = request.WithContext(ctx)
	a.authenticate(c)
	c.Request = request
}

func (a *API) getExport(c *gin.Context) {
	r := report.Request{Format: report.CSV, Actor: caller(c).Actor(), Address: c.ClientIP()}
	take := filters(&r.Query)
	// The format of an export is that of its file.
	take["signature_format"] = take["format"]
	take["format"], take["proofs"] = text(&r.Format), only("proofs", &r.Proofs)
	err := take.read(c.Request.URL.RawQuery)
	if err == nil {
		err = a.narrowWithin(c, &r.Query)
	}
	if err == nil {
		err = a.cfg.Exports.Check(&r)
	}
	if err != nil {
		a.refuseExport(c, err)
		return
	}
	if again, ok := a.exporting.enter(r.Actor, time.Now()); !ok {
		wait(c, again)
		problem.Abort(c, problem.Document{Status: http.StatusTooManyRequests, Detail: "you have begun as many exports as may be in ten minutes: try again later"})
		return
	}
	r.Parameters = map[string]string{"format": string(r.Format)}
	for name, values := range c.Request.URL.Query() {
		r.Parameters[name] = values[0]
	}
	c.Header("Content-Type", "application/zip")
	c.Header("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{
		"filename": "harborseal-report-" + time.Now().UTC().Format("20060102T150405Z") + ".zip",
	}))
	c.Header("Cache-Control", "no-store")
	c.Header("X-Content-Type-Options", "nosniff")
	out := &paced{w: c.Writer, limit: http.NewResponseController(c.Writer).SetWriteDeadline, now: time.Now}
	result, err := a.cfg.Exports.Export(c.Request.Context(), out, r)
	if !errors.Is(err, report.ErrBusy) {
		a.exported(c, &r, result)
	}
	switch {
	case err == nil:
	case !c.Writer.Written():
		for _, name := range []string{"Content-Type", "Content-Disposition"} {
			c.Writer.Header().Del(name)
		}
		a.refuseExport(c, err)
	default:
		a.logger.Warn().Err(err).Uint64("rows", result.Rows).Str("actor", r.Actor).Msg("export of the report ended before its time")
		// The end of the answer must not look like the end of the export.
		panic(http.ErrAbortHandler)
	}
}

// narrowWithin is narrow in the time that a request has which reads.
func (a *API) narrowWithin(c *gin.Context, q *ledger.Query) error {
	request := c.Request
	ctx, cancel := context.WithTimeout(request.Context(), a.cfg.Timeout)
	defer cancel()
	defer func() { c.Request = request }()
	c.Request = request.WithContext(ctx)
	return a.narrow(c, q)
}

// refuseExport answers for what only exports can meet.
func (a *API) refuseExport(c *gin.Context, err error) {
	switch {
	case errors.Is(err, report.ErrBusy):
		wait(c, busyRetry)
		problem.Abort(c, problem.Document{Status: http.StatusTooManyRequests, Detail: err.Error()})
	case errors.Is(err, report.ErrNoProofs):
		problem.Abort(c, problem.Document{Status: http.StatusConflict, Detail: err.Error()})
	case errors.Is(err, context.DeadlineExceeded):
		problem.Abort(c, problem.Document{
			Status: http.StatusServiceUnavailable, Detail: "the export took longer than " + a.cfg.Exports.Limit().String() + ": ask for less, with project or since",
		})
	default:
		a.refuse(c, err)
	}
}

// exported records an export.
func (a *API) exported(c *gin.Context, r *report.Request, result report.Result) {
	if a.cfg.Reads != nil {
		a.cfg.Reads.Exported(reading(c, r.Query.Project), r.Format, result)
	}
}

// recorded records that the report was read, where it was: the handlers behind it answer with a part of it.
func (a *API) recorded(c *gin.Context) {
	c.Next()
	if a.cfg.Reads != nil && c.Writer.Status() == http.StatusOK {
		a.cfg.Reads.Read(reading(c, c.Query("project")))
	}
}

func reading(c *gin.Context, project string) report.Reading {
	return report.Reading{
		Actor: caller(c).Actor(), Address: c.ClientIP(), Project: project, Path: c.Request.URL.Path, Parameters: c.Request.URL.Query(),
	}
}

// rounds counts what each caller begins in a stretch of time.
type rounds struct {
	each    int
	stretch time.Duration

	mu    sync.Mutex
	until time.Time      // guarded by mu; when the stretch ends
	begun map[string]int // guarded by mu; by caller
}

// enter counts one more, or says when to come again.
func (r *rounds) enter(who string, now time.Time) (again time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !now.Before(r.until) {
		r.until = now.Add(r.stretch)
		clear(r.begun)
	}
	if r.begun[who] >= r.each {
		return r.until.Sub(now), false
	}
	r.begun[who]++
	return 0, true
}
