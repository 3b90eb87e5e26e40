package harbor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// recorded is the body of an answer of a real Harbor.
func recorded(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".json")) //nolint:gosec // a file of the test
	if err != nil {
		t.Fatal(err)
	}
	var recording struct {
		Response struct {
			Body json.RawMessage `json:"body"`
		} `json:"response"`
	}
	if err := json.Unmarshal(raw, &recording); err != nil {
		t.Fatal(err)
	}
	return string(recording.Response.Body)
}

// canned is a transport that answers with what a test says: no network, so that a test can run on fake time.
type canned func(r *http.Request) (status int, body string, err error)

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body, err := c(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json; charset=utf-8"}}, Request: r,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}, nil
}

func cannedClient(tb testing.TB, answer canned, change ...func(*harbor.Config)) *harbor.Client {
	tb.Helper()
	change = append([]func(*harbor.Config){func(cfg *harbor.Config) { cfg.Transport = answer }}, change...)
	return newClient(tb, "http://harbor.example.com", "s3cr3t", change...)
}

func systemInfo(version string) string {
	return fmt.Sprintf(`{"auth_mode":"db_auth","harbor_version":%q}`, version)
}

func TestBundles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, body string
		can        bool
		version    string
	}{
		{"recorded", recorded(t, "systeminfo-admin"), true, "v2.15.2-080b0220"},
		{"the first that can", systemInfo("v2.15.0-1234abcd"), true, "v2.15.0-1234abcd"},
		{"a candidate of it", systemInfo("v2.15.0-rc1-1234abcd"), true, "v2.15.0-rc1-1234abcd"},
		{"the last that cannot", systemInfo("v2.14.99-1234abcd"), false, "v2.14.99-1234abcd"},
		{"numbers are no text", systemInfo("v2.9.1-1234abcd"), false, "v2.9.1-1234abcd"},
		{"an old one", systemInfo("v1.99.0-1234abcd"), false, "v1.99.0-1234abcd"},
		{"a later one", systemInfo("v2.100.0"), true, "v2.100.0"},
		{"the next", systemInfo("v3.0.0-1234abcd"), true, "v3.0.0-1234abcd"},
		{"without its v", systemInfo("2.15.2"), true, "2.15.2"},
		{"dev", systemInfo("dev"), false, "dev"},
		{"a branch", systemInfo("main-1234abcd"), false, "main-1234abcd"},
		{"a fork", systemInfo("corp-v2.15.2"), false, "corp-v2.15.2"},
		{"two numbers", systemInfo("v2.15"), false, "v2.15"},
		{"four numbers", systemInfo("v2.15.0.1"), false, "v2.15.0.1"},
		{"signs", systemInfo("v+2.+15.0"), false, "v+2.+15.0"},
		{"a number beyond all", systemInfo("v2.99999999999999999999.0"), false, "v2.99999999999999999999.0"},
		{"control characters", `{"auth_mode":"db_auth","harbor_version":"v2.15.2\u001b[31m"}`, false, "v2.15.2 [31m"},
		{"the secret", systemInfo("v2.15.2-s3cr3t"), true, "v2.15.2-[secret]"},
		{"long", systemInfo("v" + strings.Repeat("2", 1000)), false, "v" + strings.Repeat("2", 63) + "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := cannedClient(t, func(r *http.Request) (int, string, error) {
				if r.URL.RequestURI() != "/api/v2.0/systeminfo" || r.Header.Get("Authorization") == "" {
					t.Errorf("%s %s with credentials %t, want the system info, with credentials", r.Method, r.URL, r.Header.Get("Authorization") != "")
				}
				return http.StatusOK, tt.body, nil
			})
			if can, version, err := c.Bundles(t.Context()); err != nil || can != tt.can || version != tt.version {
				t.Errorf("Bundles() = %t, %q, %v; want %t, %q", can, version, err, tt.can, tt.version)
			}
		})
	}
}

func TestBundlesOfTheEmulator(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{"": true, "v2.11.0": false, "v2.14.3": false, "v2.15.0": true} {
		h := harbortest.New(t, harbortest.Config{Version: version})
		can, got, err := newClient(t, h.URL(), harbortest.DefaultAdminPassword).Bundles(t.Context())
		if err != nil || can != want || !strings.HasPrefix(got, version) || got == "" {
			t.Errorf("version %q: Bundles() = %t, %q, %v; want %t", version, can, got, err, want)
		}
		_, _, err = newClient(t, h.URL(), "wrong").Bundles(t.Context())
		if err == nil || fault.Of(err).Reason != fault.Unauthorized {
			t.Errorf("version %q, a wrong secret: %v, want unauthorized", version, err)
		}
	}
}

func TestBundlesFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body string
		want fault.Reason
	}{
		"credentials not accepted": {recorded(t, "systeminfo-anonymous"), fault.Unauthorized},
		"an empty version":         {systemInfo(""), fault.Unauthorized},
		"another answer":           {`{"version":"v2.15.2"}`, fault.BadAnswer},
		"null":                     {`null`, fault.BadAnswer},
		"a list":                   {`[]`, fault.BadAnswer},
		"a number":                 {`{"auth_mode":"db_auth","harbor_version":2.15}`, fault.BadAnswer},
	} {
		c := cannedClient(t, func(*http.Request) (int, string, error) { return http.StatusOK, tt.body, nil })
		can, version, err := c.Bundles(t.Context())
		if can || version != "" || err == nil || !fault.Is(err, fault.Transient) || fault.Of(err).Reason != tt.want {
			t.Errorf("%s: Bundles() = %t, %q, %v; want a transient %s", name, can, version, err, tt.want)
		}
	}
}

// TestBundlesIsRemembered walks through the life of an answer, on fake time.
func TestBundlesIsRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked, version, broken := 0, "v2.14.0", true
		c := cannedClient(t, func(*http.Request) (int, string, error) {
			asked++
			if broken {
				return http.StatusServiceUnavailable, "", nil
			}
			return http.StatusOK, systemInfo(version), nil
		})
		check := func(what string, wantAsked int, want string) {
			t.Helper()
			can, got, err := c.Bundles(t.Context())
			if got != want || can != (want == "v2.15.0") || (err == nil) != (want != "") {
				t.Errorf("%s: Bundles() = %t, %q, %v; want %q", what, can, got, err, want)
			}
			if err != nil && fault.Of(err).Reason != fault.Unavailable {
				t.Errorf("%s: %v, want unavailable", what, err)
			}
			if asked != wantAsked {
				t.Errorf("%s: %d requests, want %d", what, asked, wantAsked)
			}
		}
		check("nothing is known", 1, "")
		check("a fault is not remembered", 2, "")
		broken = false
		check("the first answer", 3, "v2.14.0")
		version = "v2.15.0"
		time.Sleep(5*time.Minute - time.Nanosecond)
		check("5 minutes are not over", 3, "v2.14.0")
		time.Sleep(time.Nanosecond)
		check("5 minutes are over", 4, "v2.15.0")
		broken = true
		time.Sleep(5 * time.Minute)
		check("Harbor does not answer", 5, "v2.15.0")
		check("nor is it asked at once again", 5, "v2.15.0")
		time.Sleep(30 * time.Second)
		check("but after a pause", 6, "v2.15.0")
		broken, version = false, "v2.14.1"
		time.Sleep(30 * time.Second)
		check("Harbor answers again", 7, "v2.14.1")
	})
}

// TestManyAskForTheVersionOnce lets one of those who wait give up, and then the one who asks.
func TestManyAskForTheVersionOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		release := make(chan struct{})
		c := cannedClient(t, func(r *http.Request) (int, string, error) {
			asked.Add(1)
			select {
			case <-release:
				return http.StatusOK, systemInfo("v2.15.0"), nil
			case <-r.Context().Done():
				return 0, "", r.Context().Err()
			}
		})
		var wg sync.WaitGroup
		var first, waiting error
		asking, stopAsking := context.WithCancel(t.Context())
		wg.Go(func() { _, _, first = c.Bundles(asking) })
		synctest.Wait()
		impatient, stopWaiting := context.WithCancel(t.Context())
		wg.Go(func() { _, _, waiting = c.Bundles(impatient) })
		var good atomic.Int64
		for range 50 {
			wg.Go(func() {
				if can, _, err := c.Bundles(t.Context()); err == nil && can {
					good.Add(1)
				}
			})
		}
		synctest.Wait()
		if n := asked.Load(); n != 1 {
			t.Errorf("%d requests while all wait, want 1", n)
		}
		stopWaiting()
		synctest.Wait()
		if !errors.Is(waiting, context.Canceled) {
			t.Errorf("the one that gave up waiting = %v, want canceled", waiting)
		}
		stopAsking()
		synctest.Wait()
		if !errors.Is(first, context.Canceled) {
			t.Errorf("the one that gave up asking = %v, want canceled", first)
		}
		if n := asked.Load(); n != 2 {
			t.Errorf("%d requests after the one that asked gave up, want one more", n)
		}
		close(release)
		wg.Wait()
		if n := good.Load(); n != 50 {
			t.Errorf("%d of 50 got the version", n)
		}
		if n := asked.Load(); n != 2 {
			t.Errorf("%d requests in all, want 2", n)
		}
	})
}

// FuzzVersion gives Bundles any version.
func FuzzVersion(f *testing.F) {
	for _, version := range []string{"v2.15.2-080b0220", "dev", "v2.15", "v3.-1.0", "\x00"} {
		f.Add(version)
	}
	f.Fuzz(func(t *testing.T, version string) {
		body, err := json.Marshal(map[string]string{"auth_mode": "db_auth", "harbor_version": version})
		if err != nil {
			t.Skip()
		}
		c := cannedClient(t, func(*http.Request) (int, string, error) { return http.StatusOK, string(body), nil })
		can, got, err := c.Bundles(t.Context())
		if (err != nil) != (version == "") {
			t.Fatalf("Bundles() = %v with the version %q", err, version)
		}
		var major, minor int
		n, scanErr := fmt.Sscanf(strings.TrimPrefix(got, "v"), "%d.%d.", &major, &minor)
		if can && (scanErr != nil || n != 2 || major < 2 || major == 2 && minor < 15) {
			t.Errorf("version %q takes bundles, want not", got)
		}
	})
}
