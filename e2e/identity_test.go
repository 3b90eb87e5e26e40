//go:build e2e

package e2e_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// onlyFormat signs all projects in one format.
func onlyFormat(format string) func([]string) option {
	return func([]string) option {
		return func(o *harness.Options) {
			o.EditSigner = func(c harness.Config) { harness.Set(c, format, "sign", "format") }
		}
	}
}

// identities are the repositories that the signatures under an image's .sig tag name, in alphabetical order.
func (w *world) identities(t *testing.T, p harness.Pushed) []string {
	t.Helper()
	layers, err := w.legacyLayers(t.Context(), t, p)
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, layer := range layers {
		var payload struct {
			Critical struct {
				Identity struct {
					Reference string `json:"docker-reference"`
				}
			}
		}
		if err := json.Unmarshal(w.blob(t, p.Repository, layer.Digest), &payload); err != nil {
			t.Fatal(err)
		}
		named = append(named, payload.Critical.Identity.Reference)
	}
	slices.Sort(named)
	return named
}

// Signatures name the repository under the host that people pull from, whatever address the signer dials.
func TestPublicHost(t *testing.T) {
	t.Parallel()
	const public = "registry.example.com:8443"
	s := newStage(t, env.harbor, 1, func([]string) option {
		return func(o *harness.Options) {
			o.EditSigner = func(c harness.Config) { harness.Set(c, public, "harbor", "public_host") }
			o.EditReceiver = func(c harness.Config) { harness.Set(c, public, "harbor", "public_host") }
		}
	})
	img, err := harness.NewImage(false)
	p := s.pushTo(t, s.project+"/team/app", "v1", img, err)
	s.awaitSigned(t, p)
	if got, want := s.identities(t, p), []string{public + "/" + p.Repository}; !slices.Equal(got, want) {
		t.Errorf("the signatures name %q, want %q", got, want)
	}
}

// A legacy signature that came along with a copied image names the repository that the image was copied from. It does not
// count: the copy is signed for its own repository, and the report says so.
func TestCopiedImages(t *testing.T) {
	t.Parallel()
	s := newStage(t, env.harbor, 2, onlyFormat("legacy"))
	host := s.site.Harbor.Host
	img, err := harness.NewImage(false)
	original := s.pushTo(t, s.projects[0]+"/app", "v1", img, err)
	s.awaitSigned(t, original)
	s.settled(t)

	byHarbor := harness.Pushed{Repository: s.projects[1] + "/app", Digest: original.Digest}
	byCrane := harness.Pushed{Repository: s.projects[1] + "/crane", Digest: original.Digest, Tag: "v1"}
	t.Run("by Harbor, with its accessories", func(t *testing.T) {
		path := "/api/v2.0/projects/" + s.projects[1] + "/repositories/app/artifacts?from=" + url.QueryEscape(original.Repository+"@"+original.Digest)
		ask(t, s.site.Harbor, http.MethodPost, path, nil, http.StatusCreated, nil)
		s.judgeCopy(t, byHarbor, original)
	})
	t.Run("by crane, the signature first", func(t *testing.T) {
		crane := s.client(t, harness.EnvCrane)
		for _, tag := range []string{checker.SignatureTag(original.Digest), "v1"} {
			from, to := host+"/"+original.Repository+":"+tag, host+"/"+byCrane.Repository+":"+tag
			if _, err := crane.Run(t.Context(), "copy", from, to); err != nil {
				t.Fatal(err)
			}
		}
		s.judgeCopy(t, byCrane, original)
	})
	// The original stays as it was.
	if got, want := s.identities(t, original), []string{host + "/" + original.Repository}; !slices.Equal(got, want) {
		t.Errorf("the original's signatures name %q, want %q", got, want)
	}
}

func (s *stage) judgeCopy(t *testing.T, copied, original harness.Pushed) {
	t.Helper()
	s.awaitSigned(t, copied)
	s.settled(t)
	host := s.site.Harbor.Host + "/"
	want := []string{host + copied.Repository, host + original.Repository}
	slices.Sort(want)
	if got := s.identities(t, copied); !slices.Equal(got, want) {
		t.Errorf("the copy's signatures name %q, want %q", got, want)
	}
	row := s.audit(t.Context(), t, copied)
	if row.How != "made" || len(row.Signatures) != 1 || row.Signatures[0].Format != "legacy" {
		t.Errorf("the report says %+v, want one legacy signature that was made", row)
	}
	if tag := s.digestOfTag(t, copied); len(row.Signatures) > 0 && row.Signatures[0].Digest != tag {
		t.Errorf("the report names the signature manifest %s, but under the tag stands %s", row.Signatures[0].Digest, tag)
	}
	for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
		if err := s.client(t, variable).Verify(t.Context(), s.Keys.Public, s.image(copied)); err != nil {
			t.Error(err)
		}
	}
}

// digestOfTag is the digest of the manifest under an image's .sig tag.
func (w *world) digestOfTag(t *testing.T, p harness.Pushed) string {
	t.Helper()
	digest, err := w.client(t, harness.EnvCrane).Run(t.Context(), "digest", w.site.Harbor.Host+"/"+p.Repository+":"+checker.SignatureTag(p.Digest))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(digest)
}
