package harbortest

import (
	"bytes"
	"cmp"
	"context"
	"net/http"
	"strings"
)

const apiPrefix = "/api/v2.0/"

// ServeHTTP answers one request: the control surface first, because faults must not reach it, then faults, then Harbor.
func (h *Harbor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.enter() {
		panic(http.ErrAbortHandler) // Closed between the accepted connection and its first request.
	}
	defer h.inFlight.Done()
	if strings.HasPrefix(r.URL.Path, controlPrefix) {
		h.serveControl(w, r)
		return
	}
	route := routeClass(r.URL.Path)
	h.counters.request(r.Method, route)
	answered, cut := h.injectFault(w, r, route)
	if answered {
		h.counters.refused()
		return
	}
	if !cut {
		h.answer(w, r)
		return
	}
	buffer := &bufferedResponse{header: w.Header(), status: http.StatusOK}
	h.answer(buffer, r)
	h.counters.broken()
	sendHalf(w, buffer)
}

// answer answers as Harbor does.
func (h *Harbor) answer(w http.ResponseWriter, r *http.Request) {
	c := &call{h: h, w: w, r: r, requestID: cmp.Or(r.Header.Get("X-Request-Id"), newUUID())}
	w.Header().Set("X-Request-Id", c.requestID)
	w.Header().Set("Set-Cookie", "sid="+strings.ReplaceAll(newUUID(), "-", "")+"; Path=/; HttpOnly")
	c.who = h.identify(r)
	h.log.Debug().Str("method", r.Method).Str("path", r.URL.Path).Str("user", c.who.name).Msg("request")
	switch {
	case strings.HasPrefix(r.URL.Path, apiPrefix):
		c.serveAPI() //nolint:contextcheck // a call carries its request, and that its context
	case r.URL.Path == "/service/token":
		c.serveToken()
	case r.URL.Path == "/v2" || strings.HasPrefix(r.URL.Path, "/v2/"):
		c.serveRegistry() //nolint:contextcheck // as above
	default:
		c.fail(errNotFound("path %s was not found", r.URL.Path))
	}
}

// routeClass names a request's kind, a closed set, for counters.
func routeClass(path string) string {
	switch {
	case path == "/service/token":
		return "token"
	case strings.HasPrefix(path, apiPrefix):
		return "api"
	case !strings.HasPrefix(path, "/v2"):
		return "other"
	}
	switch route, _, _ := splitRegistryPath(path); route {
	case routeManifest:
		return "manifest"
	case routeBlob:
		return "blob"
	case routeUploads, routeUpload:
		return "upload"
	case routeTags:
		return "tags"
	case routeReferrers:
		return "referrers"
	default:
		return "registry"
	}
}

type callKey struct{}

// serveAPI hands the request to the routes of routes.go. The answer is buffered, so that a slow client holds no lock.
func (c *call) serveAPI() {
	out := c.w
	buffer := &bufferedResponse{header: out.Header(), status: http.StatusOK}
	c.w = buffer
	c.h.api.ServeHTTP(buffer, c.r.WithContext(context.WithValue(c.r.Context(), callKey{}, c)))
	c.w = out
	out.WriteHeader(buffer.status)
	c.write(buffer.body.Bytes())
}

// bufferedResponse keeps an answer until it is complete.
type bufferedResponse struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (b *bufferedResponse) Header() http.Header         { return b.header }
func (b *bufferedResponse) WriteHeader(status int)      { b.status = status }
func (b *bufferedResponse) Write(p []byte) (int, error) { return b.body.Write(p) }
