package checker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/harborseal/harborseal/e2e/checker"
)

const (
	host       = "harbor.example.com"
	repository = "demo/team/app"
)

// garden is an in-memory registry in which anything can be planted.
type garden struct {
	address string
	key     *ecdsa.PrivateKey
	checker *checker.Checker
}

func newGarden(t *testing.T) *garden {
	t.Helper()
	handler := registry.New(registry.WithReferrersSupport(true), registry.Logger(quiet()))
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	key := newKey(t)
	reader := checker.NewRegistry(checker.Access{URL: server.URL})
	return &garden{
		address: strings.TrimPrefix(server.URL, "http://"), key: key, checker: checker.New(reader, host, &key.PublicKey),
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// image pushes an image and gives its digest.
func (g *garden) image(t *testing.T) string {
	t.Helper()
	img, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	return g.push(t, "v1", img)
}

func (g *garden) push(t *testing.T, tag string, img v1.Image) string {
	t.Helper()
	ref, err := name.ParseReference(g.address + "/" + repository + ":" + tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// claim is what a planted signature says; empty fields stand for what is right.
type claim struct {
	key              *ecdsa.PrivateKey
	digest, identity string
	// payload replaces the whole payload.
	payload string
	// signature replaces the signature in the annotation.
	signature string
}

// layer makes a signature's layer.
func (g *garden) layer(t *testing.T, digest string, c claim) mutate.Addendum {
	t.Helper()
	if c.key == nil {
		c.key = g.key
	}
	if c.digest == "" {
		c.digest = digest
	}
	if c.identity == "" {
		c.identity = host + "/" + repository
	}
	if c.payload == "" {
		c.payload = fmt.Sprintf(`{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},`+
			`"type":"cosign container image signature"},"optional":null}`, c.identity, c.digest)
	}
	if c.signature == "" {
		hash := sha256.Sum256([]byte(c.payload))
		raw, err := ecdsa.SignASN1(rand.Reader, c.key, hash[:])
		if err != nil {
			t.Fatal(err)
		}
		c.signature = base64.StdEncoding.EncodeToString(raw)
	}
	return mutate.Addendum{
		Layer:       static.NewLayer([]byte(c.payload), "application/vnd.dev.cosign.simplesigning.v1+json"),
		MediaType:   "application/vnd.dev.cosign.simplesigning.v1+json",
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": c.signature},
	}
}

// sign puts signatures on the .sig tag of a digest and gives the manifest's digest.
func (g *garden) sign(t *testing.T, digest string, layers ...mutate.Addendum) string {
	t.Helper()
	img, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		t.Fatal(err)
	}
	return g.push(t, checker.SignatureTag(digest), img)
}

// refer pushes signatures as a manifest that names the digest as its subject, which the tag does not name.
func (g *garden) refer(t *testing.T, digest string, layers ...mutate.Addendum) {
	t.Helper()
	img, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := v1.NewHash(digest)
	if err != nil {
		t.Fatal(err)
	}
	subject, ok := mutate.Subject(img, v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: hash, Size: 1}).(v1.Image)
	if !ok {
		t.Fatal("an image with a subject is no image")
	}
	own, err := subject.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(g.address + "/" + repository + "@" + own.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, subject); err != nil {
		t.Fatal(err)
	}
}

// tamper is a registry in front of a garden that changes one blob.
func (g *garden) tamper(t *testing.T, blob string) *checker.Checker {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/blobs/"+blob) {
			_, _ = w.Write([]byte("something else"))
			return
		}
		http.Redirect(w, r, "http://"+g.address+r.URL.Path, http.StatusTemporaryRedirect) //nolint:gosec // the registry of this test
	}))
	t.Cleanup(proxy.Close)
	return checker.New(checker.NewRegistry(checker.Access{URL: proxy.URL}), host, &g.key.PublicKey)
}
