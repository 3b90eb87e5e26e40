package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/deadletter"
	"github.com/harborseal/harborseal/pkg/deadletter/deadlettertest"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

func hashed(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// view is what the API asks of the ledger.
type view interface {
	Signatures(ctx context.Context, q ledger.Query) (ledger.Page, error)
	ProjectEvents(ctx context.Context, q ledger.EventQuery) (ledger.EventPage, error)
	Outages(ctx context.Context, q ledger.OutageQuery) (ledger.OutagePage, error)
	Coverage(ctx context.Context, projects []string) (map[string]ledger.Coverage, error)
	Names(ctx context.Context) ([]string, error)
}

// report is a ledger whose report has one answer. It keeps the query that it was asked last.
type report struct {
	ledgertest.Memory
	page ledger.Page
	err  error
	mu   sync.Mutex
	last ledger.Query // guarded by mu
}

func (r *report) Signatures(_ context.Context, q ledger.Query) (ledger.Page, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = q
	if _, err := q.Filter(); err != nil {
		return ledger.Page{}, err
	}
	return r.page, r.err
}

// call is what was asked of package enroll.
type call struct {
	method, project string
	actor           enroll.Actor
	request         enroll.PutRequest
	ifMatch         string
	digest, reason  string
}

// enrolled is package enroll with one answer for everything.
type enrolled struct {
	mu    sync.Mutex
	view  enroll.View // guarded by mu
	err   error       // guarded by mu
	calls []call      // guarded by mu
	// listed are the projects in Harbor, and listErr why they are not known.
	listed  []string
	listErr error
	// during is called in the middle of each call, unless it is nil.
	during func(ctx context.Context)
}

func (e *enrolled) answer(ctx context.Context, c call) (enroll.View, error) {
	if e.during != nil {
		e.during(ctx)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, c)
	v := e.view
	if v.Project == "" {
		v.Project = c.project
	}
	return v, e.err
}

// taken gives the calls since the last time.
func (e *enrolled) taken() []call {
	e.mu.Lock()
	defer e.mu.Unlock()
	calls := e.calls
	e.calls = nil
	return calls
}

func (e *enrolled) Get(ctx context.Context, project string) (enroll.View, error) {
	return e.answer(ctx, call{method: "Get", project: project})
}

func (e *enrolled) Put(ctx context.Context, actor enroll.Actor, project string, req enroll.PutRequest, ifMatch string) (enroll.View, error) {
	return e.answer(ctx, call{method: "Put", actor: actor, project: project, request: req, ifMatch: ifMatch})
}

func (e *enrolled) Delete(ctx context.Context, actor enroll.Actor, project, ifMatch string) (enroll.View, error) {
	return e.answer(ctx, call{method: "Delete", actor: actor, project: project, ifMatch: ifMatch})
}

func (e *enrolled) Sweep(ctx context.Context, actor enroll.Actor, project string) error {
	_, err := e.answer(ctx, call{method: "Sweep", actor: actor, project: project})
	return err
}

func (e *enrolled) Rotate(ctx context.Context, actor enroll.Actor, project string) (enroll.View, error) {
	return e.answer(ctx, call{method: "Rotate", actor: actor, project: project})
}

func (e *enrolled) Block(ctx context.Context, actor enroll.Actor, project, digest, why string) (enroll.View, error) {
	return e.answer(ctx, call{method: "Block", actor: actor, project: project, digest: digest, reason: why})
}

func (e *enrolled) Unblock(ctx context.Context, actor enroll.Actor, project, digest string) (enroll.View, error) {
	return e.answer(ctx, call{method: "Unblock", actor: actor, project: project, digest: digest})
}

func (e *enrolled) Listed(context.Context) ([]string, error) { return e.listed, e.listErr }

// people is a Harbor of accounts. Who is not in it has wrong credentials.
type people struct{ away error }

// account is what an account may do, and what Harbor answers.
type account struct {
	artifact.Account
	roles map[string]artifact.Role
	away  error
}

func (p people) As(authorization string) access.Account {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(authorization, "Basic "))
	name, _, _ := strings.Cut(string(raw), ":")
	a := account{away: p.away}
	switch {
	case err != nil:
	case name == "root":
		a.Account = artifact.Account{Name: name, SystemAdmin: true}
	case name == "ann": // an admin of demo, who may see app
		a.Account, a.roles = artifact.Account{Name: name}, map[string]artifact.Role{"demo": artifact.RoleProjectAdmin, "app": artifact.RoleGuest}
	case name == "out":
		a.Account = artifact.Account{Name: name}
	case name == "robot$ci":
		a.Account = artifact.Account{Name: name, Robot: true}
	}
	return a
}

func (p people) System(context.Context) (artifact.SystemInfo, error) {
	return artifact.SystemInfo{AuthMode: "db_auth"}, p.away
}

func (a account) CurrentAccount(context.Context) (artifact.Account, error) {
	if a.away == nil && a.Name == "" {
		return artifact.Account{}, fault.Newf(fault.Permanent, fault.Unauthorized, "harbor answers 401")
	}
	return a.Account, a.away
}

func (a account) RoleIn(_ context.Context, project string) (artifact.Role, artifact.Project, error) {
	role, found := a.roles[project]
	if !found {
		return 0, artifact.Project{}, fault.Newf(fault.Gone, fault.NotFound, "no project")
	}
	return role, artifact.Project{Name: project}, a.away
}

func (a account) Roles(context.Context) (map[string]artifact.Role, error) { return a.roles, a.away }

func (a account) TokenActions(_ context.Context, repository string, _ []string) ([]string, error) {
	if a.Robot && repository == "demo/app" {
		return []string{"pull"}, a.away
	}
	return nil, a.away
}

func with(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

func as(name string) http.Header {
	return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(name+":secret-of-"+name))}}
}

type door struct {
	handler  http.Handler
	tokens   string // path
	log      *bytes.Buffer
	projects *enrolled
	book     *book.Book
}

// config is one that New takes.
func config(tb testing.TB, from view, tokens string, log io.Writer) api.Config {
	tb.Helper()
	b := book.New(policy.Terms{})
	b.Loaded()
	q := &deadlettertest.Queue{}
	q.Add(deadlettertest.Letter("demo/app", 1))
	return api.Config{
		Ledger: from, Projects: &enrolled{}, Policies: b, DeadLetters: letters(tb, q, b), Access: guard(tb, people{}, tokens, log),
		Registry: "harbor.example.com", Logger: zerolog.New(log), Status: &standing{}, Door: wishing{&standing{}},
		Exports: exporting{err: errBusy}, Coverage: &counting{},
	}
}

func open(t *testing.T, from view, change ...func(*api.Config)) door {
	t.Helper()
	d := door{tokens: filepath.Join(t.TempDir(), "tokens"), log: &bytes.Buffer{}}
	writeTokens(t, d.tokens, "# auditors\n\nann:"+hashed(token)+"\n")
	cfg := config(t, from, d.tokens, d.log)
	for _, f := range change {
		f(&cfg)
	}
	d.projects, _ = cfg.Projects.(*enrolled)
	d.book, _ = cfg.Policies.(*book.Book)
	a, err := api.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	engine := gin.New()
	if err := engine.SetTrustedProxies(nil); err != nil {
		t.Fatal(err)
	}
	a.Register(engine)
	d.handler = engine
	return d
}

// letters are the real ones, over a queue of a test.
func letters(tb testing.TB, q *deadlettertest.Queue, b *book.Book) *deadletter.Service {
	tb.Helper()
	s, err := deadletter.New(deadletter.Config{Queue: q, Policies: b, Logger: zerolog.Nop()})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// guard is the real one.
func guard(tb testing.TB, harbor access.Harbor, tokens string, log io.Writer) *access.Access {
	tb.Helper()
	a, err := access.New(access.Config{Harbor: harbor, TokensFile: tokens, Logger: zerolog.New(log)})
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func writeTokens(tb testing.TB, path, content string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func (d door) get(t *testing.T, target string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	return d.send(t, http.MethodGet, target, header, "")
}

// send makes a request, and holds it and the answer to the served document. A body is JSON unless the header says otherwise.
func (d door) send(t *testing.T, method, target string, header http.Header, body string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	maps.Copy(req.Header, header)
	if body != "" && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	rec := httptest.NewRecorder()
	d.handler.ServeHTTP(rec, req)
	conforms(t, req, body, rec)
	return rec
}
