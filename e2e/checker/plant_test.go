package checker_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
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
	// checker wants the legacy format alone; see wanting.
	checker *checker.Checker
}

func newGarden(t *testing.T) *garden {
	t.Helper()
	handler := registry.New(registry.WithReferrersSupport(true), registry.Logger(quiet()))
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	key := newKey(t)
	g := &garden{address: strings.TrimPrefix(server.URL, "http://"), key: key}
	g.checker = g.wanting(checker.Legacy)
	return g
}

// wanting gives a checker of these formats.
func (g *garden) wanting(formats ...checker.Format) *checker.Checker {
	reader := checker.NewRegistry(checker.Access{URL: "http://" + g.address})
	return checker.New(reader, host, &g.key.PublicKey, formats...)
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
	return g.tagged(t, "v1")
}

func (g *garden) tagged(t *testing.T, tag string) string {
	t.Helper()
	img, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	return g.push(t, tag, img)
}

// indexed pushes an index and gives the digest of its only image.
func (g *garden) indexed(t *testing.T) string {
	t.Helper()
	index, err := random.Index(64, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(g.address + "/" + repository + ":index")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	return manifest.Manifests[0].Digest.String()
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
	key              crypto.Signer
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
		c.signature = base64.StdEncoding.EncodeToString(signature(t, rand.Reader, c.key, []byte(c.payload)))
	}
	return mutate.Addendum{
		Layer:       static.NewLayer([]byte(c.payload), "application/vnd.dev.cosign.simplesigning.v1+json"),
		MediaType:   "application/vnd.dev.cosign.simplesigning.v1+json",
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": c.signature},
	}
}

// signature signs as cosign does: SHA-256, but for Ed25519, which takes the message itself. Without a source of chance the
// same message gets the same signature.
func signature(t *testing.T, chance io.Reader, key crypto.Signer, message []byte) []byte {
	t.Helper()
	hash := sha256.Sum256(message)
	signed, options := hash[:], crypto.SignerOpts(crypto.SHA256)
	if _, pure := key.(ed25519.PrivateKey); pure {
		signed, options = message, crypto.Hash(0)
	}
	raw, err := key.Sign(chance, signed, options)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func digestOf(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

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

// tamper is a registry in front of a garden that changes one blob, with a checker of these formats.
func (g *garden) tamper(t *testing.T, blob string, formats ...checker.Format) *checker.Checker {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/blobs/"+blob) {
			_, _ = w.Write([]byte("something else"))
			return
		}
		http.Redirect(w, r, "http://"+g.address+r.URL.Path, http.StatusTemporaryRedirect) //nolint:gosec // the registry of this test
	}))
	t.Cleanup(proxy.Close)
	return checker.New(checker.NewRegistry(checker.Access{URL: proxy.URL}), host, &g.key.PublicKey, formats...)
}
