package registry_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/registry"
)

// canned is a transport that answers everything but tokens with what a test says: no network, no server.
type canned func(r *http.Request) (status int, header http.Header, body string)

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := &http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header), Request: r}
	var body string
	switch r.URL.Path {
	case "/v2/":
		resp.StatusCode = http.StatusUnauthorized
		resp.Header.Set("Www-Authenticate", `Bearer realm="http://harbor.example.com/service/token",service="s"`)
	case "/service/token":
		body = fmt.Sprintf(`{"token":%q,"expires_in":1800}`, makeToken(username, repository, []string{"pull", "push"}, 1))
	default:
		resp.StatusCode, resp.Header, body = c(r)
	}
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	return resp, nil
}

func cannedClient(tb testing.TB, answer canned) *registry.Client {
	tb.Helper()
	return newClient(tb, "http://harbor.example.com", func(cfg *registry.Config) { cfg.Transport = answer })
}

// listing is an image index of manifests with the given serial numbers.
func listing(serials ...int) string {
	manifests := make([]string, 0, len(serials))
	for _, n := range serials {
		manifests = append(manifests, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"artifactType":"a/t","annotations":{"n":"%d"}}`,
			manifestType, serialDigest(n), n, n))
	}
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, indexType, strings.Join(manifests, ","))
}

func serialDigest(n int) string { return blob(fmt.Sprint(n)).Digest }

func index(links ...string) http.Header {
	return http.Header{"Content-Type": {indexType}, "Link": links}
}

// TestReferrersOfARegistry attaches a manifest and finds it.
func TestReferrersOfARegistry(t *testing.T) {
	t.Parallel()
	f := newFake()
	c := newClient(t, serve(t, f).URL, nil)
	config := blob("{}")
	subject := manifest(config)
	if err := c.PushBlob(t.Context(), repository, config); err != nil {
		t.Fatal(err)
	}
	if err := c.PutManifest(t.Context(), repository, subject.Digest, subject); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Referrers(t.Context(), repository, subject.Digest); err != nil || len(got) != 0 {
		t.Errorf("Referrers() = %v, %v, want none", got, err)
	}
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%[1]q,"artifactType":"a/t","config":{"mediaType":"a/c","size":2,"digest":%[2]q},`+
		`"layers":[],"subject":{"mediaType":%[1]q,"digest":%[3]q,"size":%[4]d},"annotations":{"k":"v"}}`,
		manifestType, config.Digest, subject.Digest, len(subject.Raw))
	referrer := artifact.Manifest{MediaType: manifestType, Digest: artifact.DigestOf(raw), Raw: raw}
	if err := c.PutManifest(t.Context(), repository, referrer.Digest, referrer); err != nil {
		t.Fatal(err)
	}
	f.seen()
	got, err := c.Referrers(t.Context(), repository, subject.Digest)
	if err != nil || len(got) != 1 || got[0].Digest != referrer.Digest || got[0].Size != int64(len(raw)) || got[0].MediaType != manifestType {
		t.Errorf("Referrers() = %+v, %v, want %s", got, err, referrer.Digest)
	}
	if seen := f.seen(); !slices.Equal(seen, []string{"GET /v2/" + repository + "/referrers/" + subject.Digest}) {
		t.Errorf("requests = %v, want the listing alone", seen)
	}
}

// TestRecordedReferrers reads listings of a real Harbor.
func TestRecordedReferrers(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]struct {
		digests      []string
		artifactType string
		annotations  int
	}{
		"v3-default-referrers": {
			[]string{
				"sha256:9314ad5dfc66944646ca350c2ad1b9968eeaaa68398fcdd619ed6d4e81533d41",
				"sha256:9e22ecc081c7bdd03d3d9b7320d20f7735d44ffcfe4aea8802a3358861280dd2",
			}, "application/vnd.dev.sigstore.bundle.v0.3+json", 3,
		},
		"v2-legacy-referrers": {
			[]string{"sha256:bdecb4bec21149327b0d44b806a83de002e802f8c4277668feec64f333f67861"}, "application/vnd.oci.image.config.v1+json", 0,
		},
	} {
		raw, err := os.ReadFile("testdata/" + file + ".json") //nolint:gosec // a file of the test
		if err != nil {
			t.Fatal(err)
		}
		c := cannedClient(t, func(*http.Request) (int, http.Header, string) { return http.StatusOK, index(), string(raw) })
		got, err := c.Referrers(t.Context(), repository, serialDigest(0))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		var digests []string
		for _, d := range got {
			digests = append(digests, d.Digest)
			if d.ArtifactType != want.artifactType || d.MediaType != manifestType || len(d.Annotations) != want.annotations || d.Size < 500 {
				t.Errorf("%s: descriptor %+v, want artifact type %s and %d annotations", file, d, want.artifactType, want.annotations)
			}
		}
		if !slices.Equal(digests, want.digests) {
			t.Errorf("%s: digests %v, want %v", file, digests, want.digests)
		}
	}
}

// TestNoReferrersIsNeverGuessed answers everything that could be taken for an empty listing.
func TestNoReferrersIsNeverGuessed(t *testing.T) {
	t.Parallel()
	asIndex := index()
	for _, tt := range []struct {
		name   string
		header http.Header
		body   string
		none   bool
	}{
		{"none", asIndex, listing(), true},
		{"none, without the optional media type", asIndex, `{"schemaVersion":2,"manifests":[]}`, true},
		{"none, with parameters", http.Header{"Content-Type": {indexType + "; charset=utf-8"}}, listing(), true},
		{"no content type", http.Header{}, listing(), false},
		{"JSON of another type", http.Header{"Content-Type": {"application/json"}}, listing(), false},
		{"a page", http.Header{"Content-Type": {"text/html"}}, "<html>", false},
		{"a page that calls itself an index", asIndex, "<html>", false},
		{"nothing", asIndex, "", false},
		{"null", asIndex, "null", false},
		{"a list", asIndex, "[]", false},
		{"an empty object", asIndex, "{}", false},
		{"null manifests", asIndex, `{"schemaVersion":2,"manifests":null}`, false},
		{"manifests of another form", asIndex, `{"manifests":{}}`, false},
		{"another kind of manifest", asIndex, `{"mediaType":"` + manifestType + `","manifests":[]}`, false},
		{"cut off", asIndex, listing(1)[:100], false},
		{"something behind", asIndex, listing() + "<html>", false},
		{"a row without a digest", asIndex, `{"manifests":[{}]}`, false},
		{"a row that is null", asIndex, `{"manifests":[null]}`, false},
		{"a digest that is none", asIndex, `{"manifests":[{"digest":"sha256:../../x"}]}`, false},
		{"a negative size", asIndex, `{"manifests":[{"digest":"` + serialDigest(1) + `","size":-1}]}`, false},
		{"a link that cannot be read", index("/next"), listing(), false},
		{"a link cut off", index("</next"), listing(), false},
		{"a link to nowhere", index(`<>; rel="next"`), listing(), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := cannedClient(t, func(*http.Request) (int, http.Header, string) { return http.StatusOK, tt.header, tt.body })
			got, err := c.Referrers(t.Context(), repository, serialDigest(0))
			if tt.none {
				if err != nil || len(got) != 0 {
					t.Errorf("Referrers() = %v, %v, want none", got, err)
				}
				return
			}
			if err == nil || !fault.Is(err, fault.Transient) || fault.Of(err).Reason != fault.BadAnswer {
				t.Errorf("Referrers() = %v, %v, want a transient bad_answer", got, err)
			}
		})
	}
}

func TestReferrersPages(t *testing.T) {
	t.Parallel()
	const path = "/v2/" + repository + "/referrers/"
	second := path + serialDigest(0) + "?page=2&last=a%2Fb"
	for _, tt := range []struct {
		name  string
		links []string
		want  fault.Reason // empty: the second page is read
	}{
		{"relative", []string{"<" + second + `>; rel="next"`}, ""},
		{"absolute", []string{"<http://harbor.example.com" + second + `>;rel=next`}, ""},
		{"beside others", []string{`</x>; rel="prev" , <` + second + `>; title="a, b; c"; rel="last next"`}, ""},
		{"in another header", []string{`</x>; rel="first"`, "<" + second + `>; REL=Next`}, ""},
		{"elsewhere", []string{`<https://evil.example.com` + second + `>; rel="next"`}, fault.ForeignOrigin},
		{"another port", []string{`<http://harbor.example.com:81` + second + `>; rel="next"`}, fault.ForeignOrigin},
		{"with credentials", []string{`<http://me:pw@harbor.example.com` + second + `>; rel="next"`}, fault.BadAnswer},
		{"unreadable", []string{`<http://[::1>; rel="next"`}, fault.BadAnswer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := cannedClient(t, func(r *http.Request) (int, http.Header, string) {
				switch r.URL.RequestURI() {
				case path + serialDigest(0):
					return http.StatusOK, index(tt.links...), listing(1, 2)
				case second:
					return http.StatusOK, index(`</x>; rel="prev"`), listing(2, 3)
				default:
					t.Errorf("%s was asked for", r.URL)
					return http.StatusNotFound, nil, ""
				}
			})
			got, err := c.Referrers(t.Context(), repository, serialDigest(0))
			if tt.want != "" {
				if err == nil || fault.Of(err).Reason != tt.want || strings.Contains(err.Error(), "pw@") {
					t.Errorf("Referrers() = %v, %v, want %s", got, err, tt.want)
				}
				return
			}
			var sizes []int64
			for _, d := range got {
				sizes = append(sizes, d.Size)
			}
			if err != nil || !slices.Equal(sizes, []int64{1, 2, 3}) {
				t.Errorf("Referrers() = %v, %v, want 1 and 2 of the first page and 3 of the second", sizes, err)
			}
		})
	}
}

func TestReferrersAreBounded(t *testing.T) {
	t.Parallel()
	large := strings.TrimSuffix(listing(1), "]}") + `],"padding":"` + strings.Repeat("x", 3<<20) + `"}`
	for _, tt := range []struct {
		name string
		// page gives the body of a page, and whether there is one more.
		page  func(n int) (body string, more bool)
		want  bool // too large
		pages int
	}{
		{"many", func(n int) (string, bool) { return serials(n*100, 100), n < 99 }, false, 100},
		{"too many", func(n int) (string, bool) { return serials(n*101, 101), n < 99 }, true, 100},
		{"pages without end", func(int) (string, bool) { return listing(1), true }, true, 100},
		{"pages of nothing", func(int) (string, bool) { return listing(), true }, true, 100},
		{"a page that is too large", func(int) (string, bool) { return strings.Repeat(" ", artifact.MaxManifest) + listing(1), false }, true, 1},
		{"too much in all", func(n int) (string, bool) { return large, n < 2 }, true, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pages := 0
			c := cannedClient(t, func(*http.Request) (int, http.Header, string) {
				body, more := tt.page(pages)
				pages++
				if more {
					return http.StatusOK, index(fmt.Sprintf(`<?page=%d>; rel="next"`, pages)), body
				}
				return http.StatusOK, index(), body
			})
			got, err := c.Referrers(t.Context(), repository, serialDigest(0))
			if tt.want != (err != nil) || err != nil && (!fault.Is(err, fault.Permanent) || fault.Of(err).Reason != fault.TooLarge) {
				t.Errorf("Referrers() = %d, %v, want too large: %t", len(got), err, tt.want)
			}
			if pages != tt.pages {
				t.Errorf("%d pages were read, want %d", pages, tt.pages)
			}
		})
	}
}

func serials(from, count int) string {
	numbers := make([]int, count)
	for i := range numbers {
		numbers[i] = from + i
	}
	return listing(numbers...)
}

// FuzzReferrers gives the parser any answer: what it makes of it are digests or a fault, and nothing is asked of others.
func FuzzReferrers(f *testing.F) {
	f.Add([]byte(listing(1, 2)), indexType, `</v2/x?page=2>; rel="next"`)
	f.Add([]byte(`{"manifests":[{"digest":"sha256:1"}]}`), indexType+"; charset=x", `<//evil.example.com/>; rel=next`)
	f.Add([]byte("{}"), "text/html", `<a>;;rel;="`)
	var asked []string
	var first struct {
		header http.Header
		body   string
	}
	// One client for all: a token is fetched once. The transport answers in the goroutine that asks.
	c := cannedClient(f, func(r *http.Request) (int, http.Header, string) {
		if asked = append(asked, r.URL.Host); len(asked) > 1 {
			return http.StatusOK, index(), listing()
		}
		return http.StatusOK, first.header, first.body
	})
	f.Fuzz(func(t *testing.T, body []byte, contentType, link string) {
		asked = nil
		first.header, first.body = http.Header{"Content-Type": {contentType}, "Link": {link}}, string(body)
		got, err := c.Referrers(t.Context(), repository, serialDigest(0))
		for _, host := range asked {
			if host != "harbor.example.com" {
				t.Errorf("%s was asked", host)
			}
		}
		if err != nil {
			if reason := fault.Of(err).Reason; reason == fault.Unknown || fault.Is(err, fault.Gone) {
				t.Errorf("Referrers() = %v, want a fault other than gone", err)
			}
			return
		}
		if !strings.HasPrefix(strings.ToLower(strings.TrimSpace(contentType)), indexType) {
			t.Errorf("Referrers() = %v of an answer of type %q, want an error", got, contentType)
		}
		for _, d := range got {
			if err := artifact.ValidateDigest(d.Digest); err != nil || d.Size < 0 {
				t.Errorf("Referrers() gives %+v", d)
			}
		}
	})
}
