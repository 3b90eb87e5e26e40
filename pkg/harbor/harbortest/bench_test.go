package harbortest_test

import (
	"net/http"
	"testing"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// BenchmarkListing measures one page of a project's listing, as a sweep asks for it, in the content of the scale
// benchmark.
func BenchmarkListing(b *testing.B) {
	h := harbortest.New(b, harbortest.Config{Seed: 1})
	made, err := h.Synthesize(harbortest.SyntheticConfig{
		Projects: 500, Repositories: 20_000, Digests: 1_000_000, Indexes: 0.2, Children: 4, Unsigned: 0.001, Twice: 0.1, Seed: 1,
	})
	if err != nil {
		b.Fatalf("Synthesize: %v", err)
	}
	for name, path := range map[string]string{
		"project":    "/artifacts?page_size=100&page=3&q=base%3D*&sort=push_time&with_accessory=true&with_tag=true",
		"range":      "/artifacts?page_size=100&q=base%3D*%2Cpush_time%3D%5B2026-01-01+00:00:00~%5D&sort=push_time&with_accessory=true",
		"newest":     "/artifacts?page_size=100&q=base%3D*&sort=-push_time",
		"repository": "/repositories/app-001/artifacts?page_size=100&q=base%3D*&with_accessory=true",
	} {
		b.Run(name, func(b *testing.B) {
			for n := 0; b.Loop(); n++ {
				project := made.Projects[n%len(made.Projects)]
				w := &discard{header: make(http.Header)}
				req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "/api/v2.0/projects/"+project+path, nil)
				if err != nil {
					b.Fatal(err)
				}
				req.SetBasicAuth("admin", harbortest.DefaultAdminPassword)
				h.ServeHTTP(w, req)
				if w.status != http.StatusOK {
					b.Fatalf("got status %d, want 200", w.status)
				}
			}
		})
	}
}

// discard is an answer that nobody reads.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
