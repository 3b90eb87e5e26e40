package access_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	here  = "192.0.2.1"
	there = "198.51.100.7:4711"
)

func basic(name, secret string) http.Header {
	return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+secret))}}
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// login is an account of the fake, and what it may do.
type login struct {
	account artifact.Account
	// cli says that the credentials are an OIDC user's CLI secret.
	cli   bool
	roles map[string]artifact.Role
	pulls []string
}

// fakeHarbor is a Harbor of accounts in a map. It is safe for concurrent use.
type fakeHarbor struct {
	mu     sync.Mutex
	mode   string           // guarded by mu
	logins map[string]login // guarded by mu; by header
	public []string         // guarded by mu
	// pullOnly says that nobody may push. Guarded by mu.
	pullOnly bool
	err      error             // guarded by mu: what questions get
	fails    string            // guarded by mu: the only question that gets err; empty for all
	asked    map[string]int    // guarded by mu
	hold     chan struct{}     // guarded by mu: questions who somebody is wait for it, unless it is nil
	held     chan struct{}     // guarded by mu: gets one for each that waits
	slow     chan struct{}     // guarded by mu: questions about the roles of out wait for it, unless it is nil
	as       map[string]string // guarded by mu: headers that were handed on
}

func newHarbor() *fakeHarbor {
	f := &fakeHarbor{mode: "db_auth", asked: make(map[string]int), as: make(map[string]string), public: []string{"open"}, held: make(chan struct{}, 1000)}
	f.logins = map[string]login{
		basic("admin", "a").Get("Authorization"): {account: artifact.Account{Name: "admin", SystemAdmin: true}},
		basic("ann", "p").Get("Authorization"): {
			account: artifact.Account{Name: "ann"}, roles: map[string]artifact.Role{"demo": artifact.RoleProjectAdmin, "app": artifact.RoleLimitedGuest},
		},
		basic("dev", "p").Get("Authorization"): {
			account: artifact.Account{Name: "dev"}, roles: map[string]artifact.Role{"demo": artifact.RoleMaintainer, "open": artifact.RoleGuest},
		},
		basic("out", "p").Get("Authorization"): {account: artifact.Account{Name: "out"}},
		basic("eve", "p").Get("Authorization"): {account: artifact.Account{Name: "eve"}, roles: map[string]artifact.Role{"app": artifact.RoleDeveloper}},
		basic("robot$demo+ci", "r").Get("Authorization"): {
			account: artifact.Account{Name: "robot$demo+ci", Robot: true, SystemAdmin: true}, pulls: []string{"demo/app"},
			roles: map[string]artifact.Role{"demo": artifact.RoleProjectAdmin},
		},
		basic("cli", "s").Get("Authorization"): {
			account: artifact.Account{Name: "cli"}, cli: true, roles: map[string]artifact.Role{"demo": artifact.RoleProjectAdmin},
		},
		basic("lonely", "s").Get("Authorization"): {account: artifact.Account{Name: "lonely"}, cli: true},
		bearer("c.l.i").Get("Authorization"):      {account: artifact.Account{Name: "cli"}, cli: true, roles: map[string]artifact.Role{"demo": artifact.RoleGuest}},
		bearer("e.y.J").Get("Authorization"):      {account: artifact.Account{Name: "oidc"}, roles: map[string]artifact.Role{"demo": artifact.RoleGuest}},
	}
	return f
}

func (f *fakeHarbor) set(change func(*fakeHarbor)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeHarbor) count(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[what]
}

func (f *fakeHarbor) ask(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[what]++
	if f.fails != "" && f.fails != what {
		return nil
	}
	return f.err
}

func (f *fakeHarbor) System(context.Context) (artifact.SystemInfo, error) {
	err := f.ask("system")
	f.mu.Lock()
	defer f.mu.Unlock()
	return artifact.SystemInfo{AuthMode: f.mode}, err
}

func (f *fakeHarbor) As(authorization string) access.Account {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.as[authorization] = authorization
	return &fakeAccount{f: f, header: authorization}
}

type fakeAccount struct {
	f      *fakeHarbor
	header string
}

func (a *fakeAccount) login() login {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	return a.f.logins[a.header]
}

func (a *fakeAccount) CurrentAccount(ctx context.Context) (artifact.Account, error) {
	a.f.mu.Lock()
	hold := a.f.hold
	a.f.mu.Unlock()
	if err := a.f.ask("account"); err != nil {
		return artifact.Account{}, err
	}
	if hold != nil {
		a.f.held <- struct{}{}
		select {
		case <-hold:
		case <-ctx.Done():
			return artifact.Account{}, ctx.Err()
		}
	}
	l := a.login()
	if l.account.Name == "" || l.cli {
		return artifact.Account{}, fault.Newf(fault.Permanent, fault.Unauthorized, "harbor answers 401")
	}
	return l.account, nil
}

func (a *fakeAccount) RoleIn(_ context.Context, project string) (artifact.Role, artifact.Project, error) {
	if err := a.f.ask("role"); err != nil {
		return artifact.RoleNone, artifact.Project{}, err
	}
	l := a.login()
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	if slow := a.f.slow; slow != nil && l.account.Name == "out" {
		a.f.mu.Unlock()
		<-slow
		a.f.mu.Lock()
	}
	role := l.roles[project]
	if role == artifact.RoleNone && !slices.Contains(a.f.public, project) {
		return artifact.RoleNone, artifact.Project{}, fault.Newf(fault.Gone, fault.NotFound, "no such project")
	}
	return role, artifact.Project{Name: project}, nil
}

func (a *fakeAccount) Roles(context.Context) (map[string]artifact.Role, error) {
	if err := a.f.ask("roles"); err != nil {
		return nil, err
	}
	roles := map[string]artifact.Role{"open": artifact.RoleNone} // as a listing shows a public one
	maps.Copy(roles, a.login().roles)
	return roles, nil
}

func (a *fakeAccount) TokenActions(_ context.Context, repository string, _ []string) ([]string, error) {
	if err := a.f.ask("token"); err != nil {
		return nil, err
	}
	if !slices.Contains(a.login().pulls, repository) {
		return nil, nil
	}
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	if a.f.pullOnly {
		return []string{"pull"}, nil
	}
	return []string{"pull", "push"}, nil
}

// door is an Access in front of a fake, and its log.
type door struct {
	*access.Access
	harbor *fakeHarbor
	tokens string
	log    *bytes.Buffer
}

// open makes one; lines are those of its file of tokens.
func open(t *testing.T, lines string, change ...func(*access.Config)) door {
	t.Helper()
	d := door{harbor: newHarbor(), tokens: filepath.Join(t.TempDir(), "tokens"), log: &bytes.Buffer{}}
	write(t, d.tokens, lines)
	cfg := access.Config{Harbor: d.harbor, TokensFile: d.tokens, Auditors: []string{"eve", "cli", "robot$demo+ci"}, Logger: zerolog.New(d.log)}
	for _, f := range change {
		f(&cfg)
	}
	a, err := access.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	d.Access = a
	return d
}

func write(tb testing.TB, path, content string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// enter authenticates who must be let in.
func (d door) enter(t *testing.T, header http.Header) access.Caller {
	t.Helper()
	c, err := d.Authenticate(t.Context(), header, here)
	if err != nil {
		t.Fatalf("Authenticate: %v", err)
	}
	return c
}

// verdict names what came of an attempt.
func verdict(err error) string {
	var slow *access.ThrottledError
	switch {
	case err == nil:
		return "in"
	case errors.As(err, &slow) && slow.Busy:
		return "busy"
	case errors.As(err, &slow):
		return "slow " + slow.RetryAfter.String()
	case errors.Is(err, access.ErrNoCredentials):
		return "nothing"
	case errors.Is(err, access.ErrUnauthenticated):
		return "wrong"
	case fault.Is(err, fault.Transient):
		return "away"
	default:
		return err.Error()
	}
}

func (d door) try(t *testing.T, header http.Header, from string) string {
	t.Helper()
	_, err := d.Authenticate(t.Context(), header, from)
	return verdict(err)
}
