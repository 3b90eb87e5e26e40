package registry_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/registry"
)

// static is a registry that answers without work of its own, so that a benchmark shows the client's cost.
type static struct {
	token    []byte
	manifest []byte
}

func (s static) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	switch {
	case r.URL.Path == "/v2/":
		header.Set("Www-Authenticate", `Bearer realm="http://`+r.Host+`/service/token",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == "/service/token":
		_, _ = w.Write(s.token)
	case r.Method == http.MethodPost:
		header.Set("Location", r.URL.Path+"1?_state=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D")
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodPut:
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
	case strings.Contains(r.URL.Path, "/referrers/"):
		header.Set("Content-Type", indexType)
		_, _ = io.WriteString(w, `{"schemaVersion":2,"manifests":[]}`)
	default:
		header.Set("Content-Type", manifestType)
		_, _ = w.Write(s.manifest)
	}
}

// benchmark runs the operations against a server in the same process; "bare" is net/http with nothing around it, sending
// the same requests. What an operation costs beyond its bare twin is the client's own doing.
func benchmark(b *testing.B, transport func(testing.TB, http.Handler) (address string, rt http.RoundTripper)) {
	b.Helper()
	payload := blob(`{"critical":"` + string(bytes.Repeat([]byte("x"), 230)) + `"}`)
	m := manifest(blob("{}"), payload)
	handler := static{
		token: fmt.Appendf(nil, `{"token":%q,"expires_in":1800}`, makeToken(username, repository, []string{"pull", "push"}, 1)), manifest: m.Raw,
	}
	address, rt := transport(b, handler)
	c := newClient(b, address, func(cfg *registry.Config) {
		cfg.Transport, cfg.Logger = rt, zerolog.New(io.Discard).Level(zerolog.InfoLevel)
	})
	loop := bare{client: &http.Client{Transport: rt}, address: address + "/v2/" + repository}
	for _, bb := range []struct {
		name string
		run  func() error
	}{
		{"Manifest/client", func() error { _, err := c.Manifest(b.Context(), repository, m.Digest); return err }},
		{"Manifest/bare", func() error { _, err := loop.do(http.MethodGet, loop.address+"/manifests/"+m.Digest, nil); return err }},
		{"PushBlob/client", func() error { return c.PushBlob(b.Context(), repository, payload) }},
		{"PushBlob/bare", func() error {
			location, err := loop.do(http.MethodPost, loop.address+"/blobs/uploads/", nil)
			if err == nil {
				_, err = loop.do(http.MethodPut, address+location+"&digest="+payload.Digest, payload.Raw)
			}
			return err
		}},
		{"PutManifest/client", func() error { return c.PutManifest(b.Context(), repository, "v1", m) }},
		{"PutManifest/bare", func() error { _, err := loop.do(http.MethodPut, loop.address+"/manifests/v1", m.Raw); return err }},
		{"Referrers/client", func() error { _, err := c.Referrers(b.Context(), repository, m.Digest); return err }},
		{"Referrers/bare", func() error { _, err := loop.do(http.MethodGet, loop.address+"/referrers/"+m.Digest, nil); return err }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := bb.run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// bare is net/http alone.
type bare struct {
	client  *http.Client
	address string
}

func (l bare) do(method, address string, body []byte) (location string, err error) {
	req, err := http.NewRequest(method, address, bytes.NewReader(body)) //nolint:noctx // as little as possible
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer token")
	req.Header.Set("Accept", manifestType)
	resp, err := l.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	content, err := io.ReadAll(resp.Body)
	_ = artifact.DigestOf(content)
	return resp.Header.Get("Location"), err
}

// BenchmarkNetwork includes the connection and the server, as a signer meets them.
func BenchmarkNetwork(b *testing.B) {
	benchmark(b, func(tb testing.TB, handler http.Handler) (string, http.RoundTripper) {
		tb.Helper()
		return serve(tb, handler).URL, newTransport(tb)
	})
}

// direct answers without a connection.
type direct struct{ handler http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	d.handler.ServeHTTP(rec, r)
	resp := rec.Result()
	resp.Request = r
	return resp, nil
}

// BenchmarkClient leaves out the connection: what is left is the client, and net/http's part of a request.
func BenchmarkClient(b *testing.B) {
	benchmark(b, func(_ testing.TB, handler http.Handler) (string, http.RoundTripper) {
		return "http://harbor.example.com", direct{handler}
	})
}
