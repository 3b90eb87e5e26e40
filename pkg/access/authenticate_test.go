package access_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/fault"
)

func encoded(s string) http.Header {
	return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(s))}}
}

func TestWhoIsLetIn(t *testing.T) {
	tests := []struct {
		name   string
		mode   string
		header http.Header
		want   string
		caller string // Kind, name, admin, auditor
	}{
		{"nothing", "db_auth", nil, "nothing", ""},
		{"user", "db_auth", basic("ann", "p"), "in", "user ann false false"},
		{"system admin", "db_auth", basic("admin", "a"), "in", "user admin true false"},
		{"auditor", "db_auth", basic("eve", "p"), "in", "user eve false true"},
		{"robot, no admin or auditor whatever is claimed", "db_auth", basic("robot$demo+ci", "r"), "in", "robot robot$demo+ci false false"},
		{"wrong password", "db_auth", basic("ann", "q"), "wrong", ""},
		{"no such account", "db_auth", basic("nobody", "p"), "wrong", ""},
		{"user of OIDC", "oidc_auth", bearer("e.y.J"), "in", "user oidc false false"},
		{"wrong id token", "oidc_auth", bearer("e.y.K"), "wrong", ""},
		{"id token that is none", "oidc_auth", bearer("c.l.i"), "wrong", ""},
		{"id token without OIDC", "db_auth", bearer("e.y.J"), "wrong", ""},
		{"CLI secret", "oidc_auth", basic("cli", "s"), "in", "user cli false true"},
		{"wrong CLI secret", "oidc_auth", basic("cli", "t"), "wrong", ""},
		{"CLI secret that nothing proves", "oidc_auth", basic("lonely", "s"), "wrong", ""},
		{"CLI secret without OIDC", "db_auth", basic("cli", "s"), "wrong", ""},
		{"scheme in another case", "db_auth", http.Header{"Authorization": {"bASIC  " + strings.TrimPrefix(basic("ann", "p").Get("Authorization"), "Basic ")}}, "in", "user ann false false"},
		{"two headers", "db_auth", http.Header{"Authorization": {basic("ann", "p").Get("Authorization"), basic("ann", "p").Get("Authorization")}}, "wrong", ""},
		{"other scheme", "db_auth", http.Header{"Authorization": {"Digest x"}}, "wrong", ""},
		{"scheme alone", "db_auth", http.Header{"Authorization": {"Basic"}}, "wrong", ""},
		{"empty header", "db_auth", http.Header{"Authorization": {""}}, "wrong", ""},
		{"no Base64", "db_auth", http.Header{"Authorization": {"Basic ann:p"}}, "wrong", ""},
		{"no colon", "db_auth", encoded("ann"), "wrong", ""},
		{"no name", "db_auth", encoded(":p"), "wrong", ""},
		{"no password", "db_auth", encoded("ann:"), "wrong", ""},
		{"control character", "db_auth", encoded("ann:p\r\nX: y"), "wrong", ""},
		{"no UTF-8", "db_auth", encoded("ann:\xff"), "wrong", ""},
		{"long", "db_auth", basic("ann", strings.Repeat("p", 20<<10)), "wrong", ""},
		{"empty token", "oidc_auth", bearer(""), "wrong", ""},
		{"two tokens", "oidc_auth", bearer("e.y.J e.y.J"), "wrong", ""},
		{"API token of nobody", "oidc_auth", bearer("hs_0"), "wrong", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, "")
			d.harbor.set(func(f *fakeHarbor) { f.mode = tt.mode })
			c, err := d.Authenticate(t.Context(), tt.header, here)
			if got := verdict(err); got != tt.want {
				t.Fatalf("Authenticate: %s (%v), want %s", got, err, tt.want)
			}
			got := ""
			if err == nil {
				got = fmt.Sprintf("%s %s %t %t", c.Kind, c.Name, c.SystemAdmin, c.Auditor)
			}
			if got != tt.caller {
				t.Errorf("caller %q, want %q", got, tt.caller)
			}
			if d.Harbor(c) != "" != (err == nil) {
				t.Errorf("credentials for Harbor are there: %t, error %v", d.Harbor(c) != "", err)
			}
		})
	}
}

// TestHarborIsNotAsked sends what Harbor need not look at.
func TestHarborIsNotAsked(t *testing.T) {
	d := open(t, "")
	for _, header := range []http.Header{nil, encoded("ann:"), encoded(":p"), bearer("hs_0"), bearer(""), {"Authorization": {"Basic %"}}, basic("ann", strings.Repeat("p", 20<<10)), encoded("ann:p\r\n"), encoded("ann:\xff")} {
		d.try(t, header, here)
	}
	if got := d.harbor.count("account"); got != 0 {
		t.Errorf("Harbor was asked %d times who that is, want 0", got)
	}
	c := d.enter(t, basic("dev", "p"))
	for _, project := range []string{"", "No Name", "a/b"} {
		if may, err := d.Can(t.Context(), c, access.Read, project); may || err != nil {
			t.Errorf("%q: %t, %v; want false", project, may, err)
		}
	}
	if got := d.harbor.count("role"); got != 0 {
		t.Errorf("Harbor was asked %d times for a role, want 0", got)
	}
}

func TestWithoutHarbor(t *testing.T) {
	token, line, err := access.NewToken("ci")
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, line, func(cfg *access.Config) { cfg.Harbor = nil })
	_, err = d.Authenticate(t.Context(), basic("ann", "p"), here)
	if verdict(err) != "wrong" || !strings.Contains(err.Error(), "harbor.url") {
		t.Errorf("Basic: %v, want an ErrUnauthenticated that says what is missing", err)
	}
	if got := d.try(t, bearer("e.y.J"), here); got != "wrong" {
		t.Errorf("id token: %s, want wrong", got)
	}
	c := d.enter(t, bearer(token))
	if may, err := d.Can(t.Context(), c, access.Read, "demo"); !may || err != nil {
		t.Errorf("token: %t, %v; want it to read", may, err)
	}
}

// TestHarborAway: whatever goes wrong with Harbor is transient, is never remembered, and costs no attempt.
func TestHarborAway(t *testing.T) {
	for _, reason := range []error{
		fault.Newf(fault.Transient, fault.Unreachable, "no route"),
		fault.Newf(fault.Transient, fault.RateLimited, "429"),
		fault.Newf(fault.Permanent, fault.ForeignOrigin, "a redirect"),
		fault.Newf(fault.Permanent, fault.Denied, "403"),
		errors.New("no fault"),
	} {
		t.Run(reason.Error(), func(t *testing.T) {
			d := open(t, "")
			c := d.enter(t, basic("dev", "p"))
			d.harbor.set(func(f *fakeHarbor) { f.mode, f.err = "oidc_auth", reason })
			for range 5 {
				for _, header := range []http.Header{basic("ann", "p"), basic("ann", "q"), bearer("e.y.J")} {
					if got := d.try(t, header, here); got != "away" {
						t.Fatalf("Authenticate: %s, want away", got)
					}
				}
			}
			if _, err := d.Can(t.Context(), c, access.Read, "demo"); err == nil && reason.Error() != "403" {
				t.Error("Can: no error while Harbor is away")
			}
			if _, _, err := d.Visible(t.Context(), c); verdict(err) != "away" {
				t.Errorf("Visible: %v, want away", err)
			}
			d.harbor.set(func(f *fakeHarbor) { f.err = nil })
			for _, header := range []http.Header{basic("ann", "p"), bearer("e.y.J")} {
				if got := d.try(t, header, here); got != "in" {
					t.Errorf("once Harbor is back: %s, want in", got)
				}
			}
		})
	}
}

// TestOnlyARefusalIsARefusal: a 403, as a proxy may send it, does not say that a password is wrong.
func TestOnlyARefusalIsARefusal(t *testing.T) {
	d := open(t, "")
	d.try(t, bearer("x.y.z"), here) // so that Harbor's mode is known
	d.harbor.set(func(f *fakeHarbor) { f.fails, f.err = "account", fault.Newf(fault.Permanent, fault.Denied, "403") })
	for range 5 {
		if got := d.try(t, basic("ann", "p"), here); got != "away" {
			t.Fatalf("Authenticate: %s, want away", got)
		}
	}
}

func TestAnswersAreRememberedForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		ask := func() (may bool) {
			t.Helper()
			c := d.enter(t, basic("dev", "p"))
			may, err := d.Can(t.Context(), c, access.Read, "demo")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.Can(t.Context(), c, access.Read, "none"); err != nil {
				t.Fatal(err)
			}
			return may
		}
		ask()
		d.harbor.set(func(f *fakeHarbor) {
			l := f.logins[basic("dev", "p").Get("Authorization")]
			l.roles = nil
			f.logins[basic("dev", "p").Get("Authorization")] = l
		})
		time.Sleep(59 * time.Second)
		if !ask() || d.harbor.count("account") != 1 || d.harbor.count("role") != 2 {
			t.Errorf("within the minute: asked %d times for the account and %d for roles, want 1 and 2", d.harbor.count("account"), d.harbor.count("role"))
		}
		time.Sleep(time.Second)
		if ask() || d.harbor.count("account") != 2 || d.harbor.count("role") != 4 {
			t.Errorf("after it: asked %d times for the account and %d for roles, want 2 and 4", d.harbor.count("account"), d.harbor.count("role"))
		}
	})
}

// TestOneVerification sends one header many times at once, by callers of whom the first goes away.
func TestOneVerification(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		hold := make(chan struct{})
		d.harbor.set(func(f *fakeHarbor) { f.hold = hold })
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		verdicts := make(chan string, 100)
		wg.Go(func() {
			_, err := d.Authenticate(first, basic("ann", "p"), here)
			verdicts <- verdict(err)
		})
		synctest.Wait()
		for i := range 50 {
			wg.Go(func() {
				_, err := d.Authenticate(t.Context(), basic("ann", "p"), fmt.Sprintf("192.0.2.%d", i))
				verdicts <- verdict(err)
			})
		}
		synctest.Wait()
		cancel() // what Harbor computes is of use to the others
		synctest.Wait()
		close(hold)
		wg.Wait()
		close(verdicts)
		for v := range verdicts {
			if v != "in" {
				t.Errorf("got %s, want in", v)
			}
		}
		if got := d.harbor.count("account"); got != 1 {
			t.Errorf("Harbor was asked %d times, want once", got)
		}
	})
}

// TestWaitingEnds: who waits for the answer to another's question can go away.
func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		d.harbor.set(func(f *fakeHarbor) { f.hold = make(chan struct{}) })
		var wg sync.WaitGroup
		wg.Go(func() {
			started := time.Now()
			if got := d.try(t, basic("ann", "p"), here); got != "away" || time.Since(started) != 10*time.Second {
				t.Errorf("asking: %s after %s, want away after 10s", got, time.Since(started))
			}
		})
		synctest.Wait()
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			started := time.Now()
			_, err := d.Authenticate(ctx, basic("ann", "p"), here)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(started) != time.Second {
				t.Errorf("waiting: %v after %s, want its own deadline after 1s", err, time.Since(started))
			}
		})
		wg.Wait()
	})
}

func TestNotTooManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		known := d.enter(t, basic("dev", "p"))
		hold := make(chan struct{})
		d.harbor.set(func(f *fakeHarbor) { f.hold = hold })
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := make(map[string]int)
		for i := range 40 {
			wg.Go(func() {
				v := d.try(t, basic(fmt.Sprintf("u%d", i), "p"), fmt.Sprintf("192.0.2.%d", i%4))
				mu.Lock()
				defer mu.Unlock()
				got[v]++
			})
		}
		synctest.Wait()
		if got["busy"] != 24 || d.harbor.count("account") != 1+16 {
			t.Errorf("%v while %d are with Harbor; want 24 busy and 16 with Harbor", got, d.harbor.count("account")-1)
		}
		if v := d.try(t, basic("dev", "p"), here); v != "in" {
			t.Errorf("who is known: %s, want in", v)
		}
		if may, err := d.Can(t.Context(), known, access.Read, "demo"); !may || err != nil {
			t.Errorf("who is known may read: %t, %v; want true", may, err)
		}
		close(hold)
		wg.Wait()
		if got["wrong"] != 16 {
			t.Errorf("%v, want 16 wrong", got)
		}
	})
}

// TestOneAddressLeavesRoom: one address gets half of what is there.
func TestOneAddressLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "")
		hold := make(chan struct{})
		d.harbor.set(func(f *fakeHarbor) { f.hold = hold })
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() { d.try(t, basic(fmt.Sprintf("u%d", i), "p"), here) })
		}
		synctest.Wait()
		if got := d.harbor.count("account"); got != 8 {
			t.Errorf("one address has %d with Harbor, want 8", got)
		}
		wg.Go(func() {
			if got := d.try(t, basic("ann", "p"), there); got != "in" {
				t.Errorf("another address: %s, want in", got)
			}
		})
		synctest.Wait()
		close(hold)
		wg.Wait()
	})
}

// TestNothingSecretLeaves looks for secrets in errors, in the log, and in callers however they are printed.
func TestNothingSecretLeaves(t *testing.T) {
	const secret = "correct-horse-battery"
	token, line, err := access.NewToken("ci")
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, line, func(cfg *access.Config) { cfg.Logger = cfg.Logger.Level(zerolog.TraceLevel) })
	header := basic("ann", secret)
	d.harbor.set(func(f *fakeHarbor) {
		f.logins[header.Get("Authorization")] = f.logins[basic("ann", "p").Get("Authorization")]
	})
	var said strings.Builder
	for _, c := range []access.Caller{d.enter(t, header), d.enter(t, bearer(token))} {
		fmt.Fprintf(&said, "%v %+v %#v\n", c, c, c)
		logger := zerolog.New(&said)
		logger.Info().Interface("caller", c).Msg("")
	}
	for range 40 {
		for _, h := range []http.Header{basic(secret, "x"), basic("x", secret), bearer(secret), {"Authorization": {secret}}, encoded(secret), bearer(token + "0")} {
			_, err := d.Authenticate(t.Context(), h, here)
			fmt.Fprintf(&said, "%v %+v\n", err, err)
		}
	}
	if !strings.Contains(d.log.String(), "slowed down") {
		t.Errorf("log %q says nothing of delays: the test looks at nothing", d.log)
	}
	for _, s := range []string{secret, token, strings.SplitN(line, ":", 2)[1], strings.TrimPrefix(header.Get("Authorization"), "Basic ")} {
		if strings.Contains(said.String(), s) || strings.Contains(d.log.String(), s) {
			t.Errorf("%q was said:\n%s\n%s", s, said.String(), d.log)
		}
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	d := open(t, "", func(cfg *access.Config) { cfg.Registerer = reg })
	d.try(t, nil, here)
	d.try(t, basic("ann", "p"), here)
	for range 4 {
		d.try(t, basic("ann", "q"), here)
	}
	d.harbor.set(func(f *fakeHarbor) { f.err = errors.New("away") })
	d.try(t, basic("dev", "p"), here)
	d.try(t, bearer("hs_0"), here)
	want := `# HELP harborseal_access_requests_total Requests that were to be authenticated, by what they brought and by what became of it: accepted, refused, throttled, unavailable.
# TYPE harborseal_access_requests_total counter
harborseal_access_requests_total{outcome="accepted",scheme="basic"} 1
harborseal_access_requests_total{outcome="refused",scheme="basic"} 3
harborseal_access_requests_total{outcome="throttled",scheme="basic"} 1
harborseal_access_requests_total{outcome="unavailable",scheme="basic"} 1
harborseal_access_requests_total{outcome="refused",scheme="api_token"} 1
harborseal_access_requests_total{outcome="refused",scheme="none"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if _, err := access.New(access.Config{Registerer: reg}); err == nil {
		t.Error("New with the metrics of another: no error")
	}
}
