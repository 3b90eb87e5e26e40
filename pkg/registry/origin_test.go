package registry_test

import (
	"bytes"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/registry"
)

// TestForeignOrigin sends the client elsewhere in every way that a registry can. Nothing may arrive there.
func TestForeignOrigin(t *testing.T) {
	t.Parallel()
	redirect := func(status int) func(string) func(http.ResponseWriter, *http.Request) {
		return func(thief string) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", thief+r.URL.RequestURI())
				w.WriteHeader(status)
			}
		}
	}
	challenge := func(thief string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Www-Authenticate", `Bearer realm="`+thief+`/service/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	location := func(thief string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", thief+"/v2/x/blobs/uploads/1?_state=hidden")
			w.WriteHeader(http.StatusAccepted)
		}
	}
	type trap struct {
		name string
		make func(thief string) func(http.ResponseWriter, *http.Request)
	}
	for _, op := range operations() {
		traps := []trap{{"301", redirect(301)}, {"302", redirect(302)}, {"303", redirect(303)}, {"307", redirect(307)}, {"308", redirect(308)}}
		if op.name != "token" { // the token service has no other
			traps = append(traps, trap{"realm", challenge})
		}
		if op.name == "upload, start" {
			traps = append(traps, trap{"location", location})
		}
		for _, trap := range traps {
			t.Run(op.name+"/"+trap.name, func(t *testing.T) {
				t.Parallel()
				var stolen atomic.Int64
				thief := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Add(1) }))
				f := newFake()
				f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
					if op.meets(r) {
						trap.make(thief.URL)(w, r)
						return true
					}
					return false
				}
				err := op.run(t.Context(), newClient(t, serve(t, f).URL, nil))
				if got := fault.Of(err); got.Kind != fault.Permanent || got.Reason != fault.ForeignOrigin {
					t.Errorf("fault = %s %s (%v), want permanent foreign_origin", got.Kind, got.Reason, err)
				}
				if !strings.Contains(err.Error(), thief.URL) || strings.Contains(err.Error(), "hidden") {
					t.Errorf("error %q: want the origin %s in it, and no query", err, thief.URL)
				}
				if n := stolen.Load(); n != 0 {
					t.Errorf("%d requests went to a foreign origin", n)
				}
			})
		}
	}
}

func TestUploadLocations(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		location func(host string) string
		want     fault.Reason
	}{
		{"absolute", func(host string) string { return "http://" + host + "/up/1?_state=a%2Fb==&x" }, ""},
		{"relative", func(string) string { return "/up/1?_state=a%2Fb==&x" }, ""},
		{"none", func(string) string { return "" }, fault.BadAnswer},
		{"unreadable", func(string) string { return "http://[::1" }, fault.BadAnswer},
		{"with credentials", func(host string) string { return "http://me:pw@" + host + "/up/1" }, fault.BadAnswer},
		{"another scheme", func(host string) string { return "https://" + host + "/up/1" }, fault.ForeignOrigin},
		{"another port", func(string) string { return "http://127.0.0.1:1/up/1" }, fault.ForeignOrigin},
		{"no host", func(string) string { return "file:///etc/passwd" }, fault.ForeignOrigin},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := blob("content")
			var query atomic.Value
			f := newFake()
			f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.Method == http.MethodPost:
					w.Header().Set("Location", tt.location(r.Host))
					w.WriteHeader(http.StatusAccepted)
				case r.URL.Path == "/up/1":
					query.Store(r.URL.RawQuery)
					w.WriteHeader(http.StatusCreated)
				default:
					return false
				}
				return true
			}
			err := newClient(t, serve(t, f).URL, nil).PushBlob(t.Context(), repository, b)
			if tt.want != "" {
				if err == nil || fault.Of(err).Reason != tt.want {
					t.Errorf("PushBlob() = %v, want %s", err, tt.want)
				}
				return
			}
			want := "_state=a%2Fb==&x&digest=" + strings.ReplaceAll(b.Digest, ":", "%3A")
			if err != nil || query.Load() != want {
				t.Errorf("PushBlob() = %v with the query %v, want %s", err, query.Load(), want)
			}
		})
	}
}

func TestRedirectWithinTheOrigin(t *testing.T) {
	t.Parallel()
	b := blob("content")
	f := newFake()
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.Contains(r.URL.Path, "/loop"), strings.Contains(r.URL.Path, "/manifests/"):
			http.Redirect(w, r, "/loop", http.StatusTemporaryRedirect)
		case strings.Contains(r.URL.Path, "/blobs/"):
			http.Redirect(w, r, "/storage/1", http.StatusTemporaryRedirect)
		case r.URL.Path == "/storage/1" && strings.HasPrefix(r.Header.Get("Authorization"), "Bearer "):
			_, _ = w.Write(b.Raw)
		default:
			return false
		}
		return true
	}
	c := newClient(t, serve(t, f).URL, nil)
	if got, err := c.Blob(t.Context(), repository, b.Digest, 100); err != nil || !bytes.Equal(got, b.Raw) {
		t.Errorf("Blob() = %q, %v, want %q", got, err, b.Raw)
	}
	if _, err := c.Manifest(t.Context(), repository, "v1"); err == nil || fault.Of(err).Reason != fault.BadAnswer {
		t.Errorf("Manifest() in a loop of redirects = %v, want bad_answer", err)
	}
}

// TestStorageOrigin: blobs are read from the object storage that the configuration names, without credentials, and must hash
// to their digest there as well. Nothing else goes there.
func TestStorageOrigin(t *testing.T) {
	t.Parallel()
	b := blob("content")
	content := string(b.Raw)
	var mu sync.Mutex
	var seen []string
	storage := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
		_, _ = w.Write([]byte(content))
	}))
	f := newFake()
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/v2/"+repository) {
			return false
		}
		http.Redirect(w, r, storage.URL+"/bucket?signature=hidden", http.StatusTemporaryRedirect)
		return true
	}
	c := newClient(t, serve(t, f).URL, func(cfg *registry.Config) { cfg.StorageOrigins = []string{storage.URL} })
	if got, err := c.Blob(t.Context(), repository, b.Digest, 100); err != nil || !bytes.Equal(got, b.Raw) {
		t.Fatalf("Blob() = %q, %v, want %q", got, err, b.Raw)
	}
	if want := "GET /bucket "; len(seen) != 1 || seen[0] != want {
		t.Errorf("the storage was asked %q, want %q without credentials", seen, want)
	}
	content = "something else"
	if _, err := c.Blob(t.Context(), repository, b.Digest, 100); fault.Of(err).Reason != fault.DigestMismatch {
		t.Errorf("Blob() of other content = %v, want %s", err, fault.DigestMismatch)
	}
	if _, err := c.Manifest(t.Context(), repository, "v1"); fault.Of(err).Reason != fault.ForeignOrigin || strings.Contains(err.Error(), "hidden") {
		t.Errorf("Manifest() = %v, want %s without the query", err, fault.ForeignOrigin)
	}
	if err := c.PushBlob(t.Context(), repository, b); fault.Of(err).Reason != fault.ForeignOrigin {
		t.Errorf("PushBlob() = %v, want %s", err, fault.ForeignOrigin)
	}
	if len(seen) != 2 {
		t.Errorf("the storage was asked %q, want blobs alone", seen)
	}
}
