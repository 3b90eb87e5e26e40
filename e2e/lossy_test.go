//go:build e2e

package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// A registry that has stored a manifest, and whose answer was lost, with the signer or without it: the next attempt finds what is
// there.
func TestRegistryAnswersLostBesideLog(t *testing.T) {
	for _, logType := range []string{"rekor-v1", "rekor-v2"} {
		t.Run(logType, func(t *testing.T) {
			if logType == "rekor-v2" {
				full(t)
			}
			lossy := newLossy(t)
			m := newMortal(t, logType, func(o *harness.Options) { lossy.before(t, o) })
			for _, a := range m.asks {
				for nth := 1; nth <= a.puts(logType); nth++ {
					for _, killed := range []bool{false, true} {
						t.Run(fmt.Sprintf("%s put %d killed %v", a, nth, killed), func(t *testing.T) {
							m.start(t)
							lost := lossy.lose(nth)
							p := m.pushFor(t, a)
							select {
							case <-lost:
							case <-time.After(env.patience):
								t.Fatalf("no answer was lost\n%s", m.Tails())
							}
							if killed {
								if err := m.signer.Process.Kill(); err != nil {
									t.Fatal(err)
								}
								m.left(t, a, p)
								m.start(t)
							}
							m.judgeEnd(t, a, p)
						})
					}
				}
			}
		})
	}
}

// puts is how many manifests are put for an image.
func (a asking) puts(logType string) int {
	switch {
	case a.transparency == "required":
		return len(a.formats())
	case a.format == "both" && logType == "rekor-v1":
		return 3 // the legacy signature, the bundle, and the legacy signature with its entry
	}
	return 2 // without an entry and with it; or the legacy signature, and then the bundle
}

// lossy stands before Harbor for the signers, and loses an answer.
type lossy struct {
	server *httptest.Server
	// origin is Harbor's own.
	origin string

	mu   sync.Mutex
	nth  int           // the manifest whose answer is lost; none for 0. Guarded by mu.
	lost chan struct{} // closed when it is; guarded by mu
}

func newLossy(t *testing.T) *lossy {
	t.Helper()
	l := &lossy{}
	l.server = httptest.NewUnstartedServer(nil)
	t.Cleanup(l.server.Close)
	return l
}

// before puts it before the Harbor of a system.
func (l *lossy) before(t *testing.T, o *harness.Options) {
	t.Helper()
	l.origin = o.Site.Harbor.URL
	to, err := url.Parse(l.origin)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = to.Host },
		ModifyResponse: l.answer,
	}
	l.server.Config.Handler = proxy
	l.server.Start()
	o.Also = append(o.Also, l.server.Listener.Addr().String())
	edit(o, func(c harness.Config) { harness.Set(c, l.server.URL, "harbor", "url") })
}

// lose loses the answer to the nth manifest from now on; lost is closed then.
func (l *lossy) lose(nth int) (lost <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nth, l.lost = nth, make(chan struct{})
	return l.lost
}

func (l *lossy) answer(resp *http.Response) error {
	// Harbor names itself where it asks for a token, and where an upload goes on.
	for _, header := range []string{"Location", "Www-Authenticate"} {
		if value := resp.Header.Get(header); value != "" {
			resp.Header.Set(header, strings.ReplaceAll(value, l.origin, l.server.URL))
		}
	}
	if resp.Request.Method != http.MethodPut || !strings.Contains(resp.Request.URL.Path, "/manifests/") || resp.StatusCode != http.StatusCreated {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nth--; l.nth != 0 {
		return nil
	}
	close(l.lost)
	panic(http.ErrAbortHandler)
}
