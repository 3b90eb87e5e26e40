package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/problem"
)

// refusing is an access that answers with errors.
type refusing struct {
	*access.Access
	authenticate, visible, require error
}

func (r refusing) Authenticate(context.Context, http.Header, string) (access.Caller, error) {
	return access.Caller{}, r.authenticate
}

func (refusing) Harbor(access.Caller) string { return "" }

func (r refusing) Require(context.Context, access.Caller, access.Action, string) error {
	return r.require
}

func (r refusing) Visible(context.Context, access.Caller) ([]string, bool, error) {
	return []string{}, false, r.visible
}

func TestAccessErrors(t *testing.T) {
	away := fault.New(fault.Transient, fault.Unreachable, errors.New("inside"))
	tests := []struct {
		name   string
		access refusing
		status int
		header string
		want   []string
	}{
		{"no credentials", refusing{authenticate: access.ErrNoCredentials}, 401, "WWW-Authenticate", []string{`Bearer realm="harborseal"`, `Basic realm="harborseal", charset="UTF-8"`}},
		{"wrong credentials", refusing{authenticate: access.ErrUnauthenticated}, 401, "WWW-Authenticate", []string{`Bearer realm="harborseal", error="invalid_token"`, `Basic realm="harborseal", charset="UTF-8"`}},
		{"throttled", refusing{authenticate: &access.ThrottledError{RetryAfter: 1001 * time.Millisecond}}, 429, "Retry-After", []string{"2"}},
		{"busy when asked for the projects", refusing{visible: &access.ThrottledError{RetryAfter: time.Second, Busy: true}}, 429, "Retry-After", []string{"1"}},
		{"Harbor away", refusing{authenticate: away}, 503, "Retry-After", []string{"5"}},
		{"Harbor away when asked for the projects", refusing{visible: away}, 503, "Retry-After", []string{"5"}},
		{"not found", refusing{visible: access.ErrNotFound}, 404, "Retry-After", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, &report{}, func(cfg *api.Config) { cfg.Access = tt.access })
			rec := d.get(t, "/api/v1/signatures", nil)
			var doc problem.Document
			if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || rec.Code != tt.status || doc.Detail == "" {
				t.Fatalf("GET = %d %s, %v; want %d and a problem with a detail", rec.Code, rec.Body, err, tt.status)
			}
			if got := rec.Header().Values(tt.header); !slices.Equal(got, tt.want) {
				t.Errorf("%s = %q, want %q", tt.header, got, tt.want)
			}
			if strings.Contains(rec.Body.String(), "inside") {
				t.Errorf("answer %s tells what is inside", rec.Body)
			}
		})
	}
}

// TestTokensSeeTheirProjects asks as tokens of some projects, and of none that is known: a list that is nil would mean all.
func TestTokensSeeTheirProjects(t *testing.T) {
	from := &report{page: ledger.Page{Items: []ledger.Row{}}}
	d := open(t, from)
	writeTokens(t, d.tokens, "some:"+hashed("some")+":read:demo|app\nnone:"+hashed("none")+":read:team-*\nall:"+hashed("all"))
	for token, want := range map[string][]string{"some": {"app", "demo"}, "none": {}, "all": nil} {
		rec := d.get(t, "/api/v1/signatures", with(token))
		from.mu.Lock()
		got := from.last.Projects
		from.mu.Unlock()
		if rec.Code != http.StatusOK || !slices.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("token %s: %d, asked for the projects %#v, want %#v", token, rec.Code, got, want)
		}
	}
}

// TestRobotsAskAboutWhatTheyMayPull asks as a robot that may pull demo/app.
func TestRobotsAskAboutWhatTheyMayPull(t *testing.T) {
	for query, want := range map[string]int{
		"repository=demo/app": 200, "project=demo&repository=app": 200, "repository=demo/app&state=signed": 200,
		"": 400, "project=demo": 400, "repository=app": 400, "repository=demo/other": 404, "repository=app/demo/app": 404, "project=app&repository=demo/app": 404,
	} {
		from := &report{page: ledger.Page{Items: []ledger.Row{}}}
		rec := open(t, from).get(t, "/api/v1/signatures?"+query, as("robot$ci"))
		f, err := from.last.Filter()
		if rec.Code != want || want == 200 && (f.Repository != "demo/app" || err != nil) || want != 200 && f.Repository != "" {
			t.Errorf("?%s = %d %s, asked for %q; want %d", query, rec.Code, rec.Body, f.Repository, want)
		}
	}
}

// TestNothingSecretLeaves looks for tokens and their hashes in all logs and answers.
func TestNothingSecretLeaves(t *testing.T) {
	const wrong = "fedcba9876543210fedcba9876543210"
	d := open(t, &report{err: fault.Newf(fault.Transient, fault.StorageUnavailable, "down")}, func(cfg *api.Config) {
		cfg.Logger = cfg.Logger.Level(zerolog.TraceLevel)
	})
	var answers strings.Builder
	for _, header := range []http.Header{with(token), with(wrong), {"Authorization": {wrong}}, {"Authorization": {"Bearer " + token, wrong}}} {
		for _, target := range []string{"/api/v1/signatures", "/api/v1/signatures?limit=x", "/api/v1/keys"} {
			rec := d.get(t, target, header)
			answers.WriteString(rec.Body.String())
			if err := rec.Header().Write(&answers); err != nil {
				t.Fatal(err)
			}
		}
	}
	writeTokens(t, d.tokens, "ann:"+hashed(token)+"\n"+token)
	d.get(t, "/api/v1/signatures", with(token))
	if d.log.Len() == 0 {
		t.Error("nothing was logged: the test looks at nothing")
	}
	for _, secret := range []string{token, wrong, hashed(token), hashed(wrong)} {
		if strings.Contains(answers.String(), secret) || strings.Contains(d.log.String(), secret) {
			t.Errorf("%q is in an answer or in the log:\n%s\n%s", secret, answers.String(), d.log)
		}
	}
}
