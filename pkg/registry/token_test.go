package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/registry"
)

func TestTokenIsKeptForItsRepository(t *testing.T) {
	t.Parallel()
	f := newFake()
	c := newClient(t, serve(t, f).URL, nil)
	for range 3 {
		_, _ = c.Manifest(t.Context(), repository, "v1")
	}
	if n := f.tokenRequests(); n != 1 {
		t.Errorf("%d tokens for three requests to one repository, want 1", n)
	}
	_, _ = c.Manifest(t.Context(), "demo/other", "v1")
	if n := f.tokenRequests(); n != 1 {
		t.Errorf("%d tokens for another repository, want 1", n)
	}
	if err := c.CheckPush(t.Context(), repository); err != nil {
		t.Fatalf("CheckPush: %v", err)
	}
	if n := f.tokenRequests(); n != 1 {
		t.Errorf("%d tokens for a check, want 1: what was true before says nothing", n)
	}
}

func TestRefusedTokenIsReplacedOnce(t *testing.T) {
	t.Parallel()
	f := newFake()
	c := newClient(t, serve(t, f).URL, nil)
	b := blob("{}")
	if err := c.PushBlob(t.Context(), repository, b); err != nil {
		t.Fatal(err)
	}
	f.revokeTokens()
	f.seen()
	if _, err := c.Blob(t.Context(), repository, b.Digest, 100); err != nil {
		t.Errorf("Blob() after the token was revoked = %v", err)
	}
	if seen := strings.Join(f.seen(), ","); strings.Count(seen, "/service/token") != 1 || strings.Count(seen, "/blobs/") != 2 {
		t.Errorf("requests = %s, want the blob twice and one token", seen)
	}
	// The body of a request is sent again too.
	f.revokeTokens()
	if err := c.PutManifest(t.Context(), repository, "v1", manifest(b)); err != nil {
		t.Errorf("PutManifest() after the token was revoked = %v", err)
	}
}

// TestTokenIsRefusedInEveryOperation wants one new token and one repetition of the request, and no more.
func TestTokenIsRefusedInEveryOperation(t *testing.T) {
	t.Parallel()
	for _, op := range operations() {
		if op.asks {
			continue // no token is sent with these
		}
		for _, refusals := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/%d", op.name, refusals), func(t *testing.T) {
				t.Parallel()
				f := newFake()
				c := newClient(t, serve(t, f).URL, nil)
				b := blob("content")
				if err := c.PushBlob(t.Context(), repository, b); err != nil {
					t.Fatal(err)
				}
				if err := c.PutManifest(t.Context(), repository, "v1", manifest(b)); err != nil {
					t.Fatal(err)
				}
				f.seen()
				met := 0
				f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
					if !op.meets(r) {
						return false
					}
					if met++; met > refusals {
						return false
					}
					f.challenge(w, r)
					return true
				}
				err := op.run(t.Context(), c)
				if refusals == 1 && err != nil {
					t.Errorf("refused once: %v, want no error", err)
				}
				if got := fault.Of(errOrNone(err)); refusals == 2 && (got.Kind != fault.Permanent || got.Reason != fault.Unauthorized) {
					t.Errorf("refused twice: fault = %s %s (%v), want permanent unauthorized", got.Kind, got.Reason, err)
				}
				if n := f.tokenRequests(); met != 2 || n != 1 {
					t.Errorf("the request was sent %d times with %d new tokens, want 2 and 1", met, n)
				}
			})
		}
	}
}

// errOrNone makes an error of none, for fault.Of.
func errOrNone(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}

func TestRightsAreCheckedBeforeUse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		rights []string
		secret string
		want   fault.Reason
		says   []string
	}{
		{"wrong secret", []string{"pull", "push"}, "wrong", fault.Unauthorized, []string{"secret", username}},
		{"pull only", []string{"pull"}, secret, fault.Denied, []string{"lacks repository:push on " + repository}},
		{"push only", []string{"push"}, secret, fault.Denied, []string{"lacks repository:pull on"}},
		{"nothing", []string{}, secret, fault.Denied, []string{"repository:pull and repository:push"}},
		{"both", []string{"push", "pull"}, secret, "", nil},
		{"everything", []string{"*"}, secret, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			f.rights = tt.rights
			c := newClient(t, serve(t, f).URL, func(cfg *registry.Config) { cfg.SecretFile = secretFile(t, tt.secret) })
			_, manifestErr := c.Manifest(t.Context(), repository, "v1")
			if tt.want == "" {
				if err := c.CheckPush(t.Context(), repository); err != nil || !fault.Is(manifestErr, fault.Gone) {
					t.Errorf("CheckPush() = %v, Manifest() = %v, want no error and gone", err, manifestErr)
				}
				return
			}
			for _, err := range []error{manifestErr, c.CheckPush(t.Context(), repository)} {
				if got := fault.Of(err); got.Kind != fault.Permanent || got.Reason != tt.want {
					t.Errorf("fault = %s %s (%v), want permanent %s", got.Kind, got.Reason, err, tt.want)
				}
				for _, part := range tt.says {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("error %q does not say %q", err, part)
					}
				}
			}
			for _, request := range f.seen() {
				if strings.Contains(request, repository) {
					t.Errorf("%s was sent with a token that cannot do", request)
				}
			}
		})
	}
}

// The tokens of a real Harbor: for a wrong secret, for a robot that may only pull, and for one that may push.
func TestRecordedTokens(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]fault.Reason{
		"error-401-token": fault.Unauthorized, "token-puller-pull-push": fault.Denied, "token-signer-pull": "",
	} {
		_, body := recorded(t, name)
		f := newFake()
		f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/service/token" {
				_, _ = w.Write([]byte(body))
				return true
			}
			return false
		}
		err := newClient(t, serve(t, f).URL, nil).CheckPush(t.Context(), "demo/pol")
		if want == "" && err != nil || want != "" && (err == nil || fault.Of(err).Reason != want) {
			t.Errorf("%s: CheckPush() = %v, want %q", name, err, want)
		}
	}
}

func TestTokenForAnotherRepository(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/service/token" {
			_, _ = fmt.Fprintf(w, `{"token":%q}`, makeToken(username, "demo/other", []string{"pull", "push"}, 1))
			return true
		}
		return false
	}
	err := newClient(t, serve(t, f).URL, nil).CheckPush(t.Context(), repository)
	if got := fault.Of(err); got.Kind != fault.Permanent || got.Reason != fault.Denied {
		t.Errorf("CheckPush() with rights elsewhere = %v, want permanent denied", err)
	}
}

func TestStrangeTokenServices(t *testing.T) {
	t.Parallel()
	long, err := json.Marshal(map[string]string{"token": strings.Repeat("a", 1<<17)})
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{ //nolint:gosec // none of these is a token
		"no JSON": "<html>", "no token": "{}", "no web token": `{"token":"opaque"}`, "no claims": `{"token":"a.%%%.c"}`,
		"claims are a list": `{"token":"a.W10.c"}`, "too long": string(long),
	} {
		f := newFake()
		f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/service/token" {
				_, _ = w.Write([]byte(body))
				return true
			}
			return false
		}
		got := fault.Of(newClient(t, serve(t, f).URL, nil).CheckPush(t.Context(), repository))
		if got.Kind != fault.Transient || got.Reason != fault.BadAnswer {
			t.Errorf("%s: fault = %s %s (%v), want transient bad_answer", name, got.Kind, got.Reason, got.Err)
		}
	}
	for name, header := range map[string]string{
		"basic": `Basic realm="x"`, "none": "", "no realm": `Bearer service="x"`, "nothing in it": "Bearer",
	} {
		server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Www-Authenticate", header)
			w.WriteHeader(http.StatusUnauthorized)
		}))
		got := fault.Of(newClient(t, server.URL, nil).CheckPush(t.Context(), repository))
		if got.Kind != fault.Permanent || got.Reason != fault.Unauthorized {
			t.Errorf("challenge %s: fault = %s %s (%v), want permanent unauthorized", name, got.Kind, got.Reason, got.Err)
		}
	}
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Www-Authenticate", `Bearer realm="/service/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	if got := fault.Of(newClient(t, server.URL, nil).CheckPush(t.Context(), repository)); got.Reason != fault.BadAnswer {
		t.Errorf("relative realm: fault = %s (%v), want bad_answer", got.Reason, got.Err)
	}
}

func TestRegistryWithoutTokensGetsNoCredentials(t *testing.T) {
	t.Parallel()
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("%s %s carries credentials that nobody asked for", r.Method, r.URL.Path)
		}
		if r.URL.Path != "/v2/" {
			reply(w, http.StatusPreconditionFailed, "PROJECTPOLICYVIOLATION", "no")
		}
	}))
	c := newClient(t, server.URL, nil)
	if err := c.CheckPush(t.Context(), repository); err != nil {
		t.Errorf("CheckPush() = %v", err)
	}
	_, err := c.Manifest(t.Context(), repository, "v1")
	if err == nil || fault.Of(err).Reason != fault.PullPolicy || !strings.Contains(err.Error(), "missing: the bearer token") ||
		strings.Contains(err.Error(), "User-Agent") {
		t.Errorf("Manifest() = %v, want pull_policy that names the missing token alone", err)
	}
}

func TestTokenIsRenewedBeforeItExpires(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		lifetime   int
		good, late time.Duration
	}{
		{lifetime: 1800, good: 1739 * time.Second, late: 1740 * time.Second},
		{lifetime: 60, good: 53 * time.Second, late: 54 * time.Second},
		{lifetime: 0, good: 53 * time.Second, late: 54 * time.Second},
	} {
		f := newFake()
		f.lifetime = tt.lifetime
		onFakeTime(t, f, func(t *testing.T, c *registry.Client) {
			t.Helper()
			_, _ = c.Manifest(t.Context(), repository, "v1")
			f.seen()
			time.Sleep(tt.good)
			_, _ = c.Manifest(t.Context(), repository, "v1")
			if n := f.tokenRequests(); n != 0 {
				t.Errorf("lifetime %d s: renewed after %s", tt.lifetime, tt.good)
			}
			time.Sleep(tt.late - tt.good)
			_, _ = c.Manifest(t.Context(), repository, "v1")
			if n := f.tokenRequests(); n != 1 {
				t.Errorf("lifetime %d s: not renewed after %s", tt.lifetime, tt.late)
			}
		})
	}
}

func TestManyShareOneTokenRequest(t *testing.T) {
	t.Parallel()
	f := newFake()
	var release chan struct{}
	f.intercept = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/service/token" {
			<-release
		}
		return false
	}
	onFakeTime(t, f, func(t *testing.T, c *registry.Client) {
		t.Helper()
		release = make(chan struct{})
		var wg sync.WaitGroup
		errs := make([]error, 50)
		for i := range errs {
			wg.Go(func() { _, errs[i] = c.Manifest(t.Context(), repository, "v1") })
		}
		// One that waits with them gives up: nobody else is disturbed.
		ctx, cancel := context.WithCancel(t.Context())
		var gaveUp error
		wg.Go(func() { _, gaveUp = c.Manifest(ctx, repository, "v1") })
		synctest.Wait()
		if n := f.tokenRequests(); n != 1 {
			t.Errorf("%d requests for a token wait at the token service, want 1", n)
		}
		cancel()
		synctest.Wait()
		close(release)
		wg.Wait()
		for i, err := range errs {
			if !fault.Is(err, fault.Gone) {
				t.Fatalf("request %d = %v, want gone", i, err)
			}
		}
		if !errors.Is(gaveUp, context.Canceled) && !fault.Is(gaveUp, fault.Gone) {
			t.Errorf("the one that gave up = %v", gaveUp)
		}
	})
}

func TestOnesGivingUpIsNotAnothersFailure(t *testing.T) {
	t.Parallel()
	f := newFake()
	var release chan struct{}
	f.intercept = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/service/token" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		return false
	}
	onFakeTime(t, f, func(t *testing.T, c *registry.Client) {
		t.Helper()
		release = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var first, second error
		wg.Go(func() { _, first = c.Manifest(ctx, repository, "v1") })
		synctest.Wait() // the first one asks the token service
		wg.Go(func() { _, second = c.Manifest(t.Context(), repository, "v1") })
		synctest.Wait() // the second one waits for the first
		cancel()
		synctest.Wait()
		close(release)
		wg.Wait()
		if !errors.Is(first, context.Canceled) || !fault.Is(second, fault.Gone) {
			t.Errorf("the one that gave up = %v, the other = %v, want canceled and gone", first, second)
		}
	})
}

func TestTokensAreBounded(t *testing.T) {
	t.Parallel()
	f := newFake()
	c := newClient(t, serve(t, f).URL, nil)
	const many = 1100
	for i := range many {
		_, _ = c.Manifest(t.Context(), fmt.Sprintf("demo/app%d", i), "v1")
	}
	f.seen()
	for i := range many {
		_, _ = c.Manifest(t.Context(), fmt.Sprintf("demo/app%d", i), "v1")
	}
	if n := f.tokenRequests(); n < many-1024 || n == many {
		t.Errorf("%d of %d tokens had to be fetched again, want at least %d and not all", n, many, many-1024)
	}
}
