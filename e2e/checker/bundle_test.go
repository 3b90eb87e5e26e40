package checker_test

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/harborseal/harborseal/e2e/checker"
)

const (
	bundleType    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// statement is what a planted bundle says; empty fields stand for what is right.
type statement struct {
	key crypto.Signer
	// digest is what the statement speaks of, subject what the manifest refers to.
	digest, subject string
	predicate       string
	// payload replaces the whole statement.
	payload, payloadType string
	// moved replaces the signature by one over the bare statement, without its type.
	moved bool
	// signatures is how many the envelope has.
	signatures int
	bundleType string
	// more is a second subject of the statement.
	more string
	// tag is one for the manifest.
	tag string
	// note makes a manifest that differs from others with the same bundle.
	note string
	// beside are the log entries and timestamps beside a signature; nil for none.
	beside func(t *testing.T, payload, signature []byte) proofs
}

// bundle pushes a bundle as cosign v3 does and gives the digests of its manifest and of itself.
func (g *garden) bundle(t *testing.T, digest string, s statement) (manifest, content string) {
	t.Helper()
	s = s.complete(g, digest)
	signed := s.payload
	if !s.moved {
		signed = fmt.Sprintf("DSSEv1 %d %s %d %s", len(s.payloadType), s.payloadType, len(s.payload), s.payload)
	}
	signatures := make([]map[string]string, s.signatures)
	for i := range signatures {
		signatures[i] = map[string]string{"sig": base64.StdEncoding.EncodeToString(signature(t, nil, s.key, []byte(signed)))}
	}
	material := map[string]any{"publicKey": map[string]string{"hint": "any"}}
	if s.beside != nil {
		s.beside(t, []byte(s.payload), signature(t, nil, s.key, []byte(signed))).into(material)
	}
	raw := encode(t, map[string]any{
		"mediaType":            s.bundleType,
		"verificationMaterial": material,
		"dsseEnvelope": map[string]any{
			"payload": base64.StdEncoding.EncodeToString([]byte(s.payload)), "payloadType": s.payloadType, "signatures": signatures,
		},
	})
	config, layer := g.upload(t, []byte("{}")), g.upload(t, raw)
	m := encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": string(types.OCIManifestSchema1), "artifactType": s.bundleType,
		"config":      map[string]any{"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
		"layers":      []any{map[string]any{"mediaType": s.bundleType, "digest": layer, "size": len(raw)}},
		"subject":     map[string]any{"mediaType": string(types.OCIManifestSchema1), "digest": s.subject, "size": 1},
		"annotations": map[string]string{"note": s.note},
	})
	target := "@" + digestOf(m)
	if s.tag != "" {
		target = ":" + s.tag
	}
	ref, err := name.ParseReference(g.address + "/" + repository + target)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Put(ref, rawManifest(m)); err != nil {
		t.Fatal(err)
	}
	return digestOf(m), layer
}

func (s statement) complete(g *garden, digest string) statement {
	if s.key == nil {
		s.key = g.key
	}
	if s.digest == "" {
		s.digest = digest
	}
	if s.subject == "" {
		s.subject = digest
	}
	if s.predicate == "" {
		s.predicate = signPredicate
	}
	if s.payload == "" {
		s.payload = fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}%s],"predicateType":%q,"predicate":{}}`,
			strings.TrimPrefix(s.digest, "sha256:"), s.more, s.predicate)
	}
	if s.payloadType == "" {
		s.payloadType = "application/vnd.in-toto+json"
	}
	if s.signatures == 0 {
		s.signatures = 1
	}
	if s.bundleType == "" {
		s.bundleType = bundleType
	}
	return s
}

// upload puts a blob into the repository and gives its digest.
func (g *garden) upload(t *testing.T, content []byte) string {
	t.Helper()
	repo, err := name.NewRepository(g.address + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteLayer(repo, static.NewLayer(content, "")); err != nil {
		t.Fatal(err)
	}
	return digestOf(content)
}

// rawManifest is a manifest as it is.
type rawManifest []byte

func (m rawManifest) RawManifest() ([]byte, error)        { return m, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func encode(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSignedByBundles(t *testing.T) {
	t.Parallel()
	other := "sha256:" + strings.Repeat("a", 64)
	both, bundles := checker.Formats(), []checker.Format{checker.Bundle}
	plant := func(all ...statement) func(t *testing.T, g *garden, digest string) {
		return func(t *testing.T, g *garden, digest string) {
			t.Helper()
			for _, s := range all {
				g.bundle(t, digest, s)
			}
		}
	}
	withLegacy := func(all ...statement) func(t *testing.T, g *garden, digest string) {
		return func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.sign(t, digest, g.layer(t, digest, claim{}))
			plant(all...)(t, g, digest)
		}
	}
	foreign := newKey(t)
	tests := []struct {
		name    string
		formats []checker.Format
		// plant changes the registry after an image with this digest was pushed.
		plant func(t *testing.T, g *garden, digest string)
		want  []checker.Rule
		// found is in which formats our key has signed.
		found []checker.Format
	}{
		{"one of each", both, withLegacy(statement{}), nil, both},
		{"one of each beside those of others", both, withLegacy(statement{key: foreign}, statement{}, statement{key: foreign, note: "2"}), nil, both},
		{"one beside an attestation by others", bundles, plant(statement{}, statement{key: foreign, predicate: "https://slsa.dev/provenance/v1"}), nil, bundles},
		{"legacy alone", both, withLegacy(), []checker.Rule{checker.Unsigned}, []checker.Format{checker.Legacy}},
		{"bundle alone", both, plant(statement{}), []checker.Rule{checker.Unsigned}, bundles},
		{"nothing", bundles, plant(), []checker.Rule{checker.Unsigned}, nil},
		{"legacy though bundles are wanted", bundles, withLegacy(statement{}), []checker.Rule{checker.SignedThough}, both},
		{"bundle though legacy is wanted", []checker.Format{checker.Legacy}, withLegacy(statement{}), []checker.Rule{checker.SignedThough}, both},
		{"two bundles", both, withLegacy(statement{}, statement{note: "2"}), []checker.Rule{checker.SignedTwice}, both},
		{"wrong key", bundles, plant(statement{key: foreign}), []checker.Rule{checker.Unsigned}, nil},
		{"attestation by our key", bundles, plant(statement{predicate: "https://slsa.dev/provenance/v1"}), []checker.Rule{checker.BadSignature, checker.Unsigned}, nil},
		{"attestation by our key beside a signature", bundles, plant(statement{}, statement{predicate: "https://slsa.dev/provenance/v1"}), []checker.Rule{checker.BadSignature}, bundles},
		{"statement about another digest", bundles, plant(statement{digest: other}), []checker.Rule{checker.BadSignature, checker.Unsigned}, nil},
		{"statement about two digests", bundles, plant(statement{more: `,{"digest":{"sha256":"aa"}}`}), []checker.Rule{checker.BadSignature, checker.Unsigned}, nil},
		{"no statement", bundles, plant(statement{payload: "rubbish"}), []checker.Rule{checker.BadSignature, checker.Unsigned}, nil},
		{"payload of another type", bundles, plant(statement{payloadType: "text/plain"}), []checker.Rule{checker.BadSignature, checker.Unsigned}, nil},
		{"signature without the type of the payload", bundles, plant(statement{moved: true}), []checker.Rule{checker.Unsigned}, nil},
		{"two signatures in one envelope", bundles, plant(statement{signatures: 2}), []checker.Rule{checker.Unsigned}, nil},
		{"bundle of another version", bundles, plant(statement{bundleType: "application/vnd.dev.sigstore.bundle.v0.1+json"}), []checker.Rule{checker.Unsigned}, nil},
		{"bundle that refers to another manifest", bundles, plant(statement{subject: other}), []checker.Rule{checker.Unsigned}, nil},
		{"bundle for another manifest on the .sig tag", bundles, func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.bundle(t, digest, statement{subject: other, tag: checker.SignatureTag(digest)})
		}, []checker.Rule{checker.Unsigned}, nil},
		{"bundle that is signed by a bundle", bundles, func(t *testing.T, g *garden, digest string) {
			t.Helper()
			manifest, _ := g.bundle(t, digest, statement{})
			g.bundle(t, manifest, statement{})
		}, []checker.Rule{checker.SignedThough}, bundles},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newGarden(t)
			digest := g.image(t)
			tt.plant(t, g, digest)
			found, violations, err := g.wanting(tt.formats...).Signed(t.Context(), repository, digest)
			if err != nil {
				t.Fatalf("checking: %v", err)
			}
			if got := rules(violations); !slices.Equal(got, tt.want) {
				t.Errorf("broken rules are %q, want %q: %v", got, tt.want, violations)
			}
			if got := found.Formats(); !slices.Equal(got, tt.found) {
				t.Errorf("our key has signed in the formats %q, want %q", got, tt.found)
			}
		})
	}
}

func TestTamperedBundle(t *testing.T) {
	t.Parallel()
	g := newGarden(t)
	digest := g.image(t)
	_, content := g.bundle(t, digest, statement{})
	_, violations, err := g.tamper(t, content, checker.Bundle).Signed(t.Context(), repository, digest)
	if err != nil {
		t.Fatalf("checking: %v", err)
	}
	want := []checker.Rule{checker.Untrustworthy, checker.Unsigned}
	if got := rules(violations); !slices.Equal(got, want) {
		t.Errorf("broken rules are %q, want %q", got, want)
	}
}

func TestNotSignedByBundles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		s    statement
		want []checker.Rule
	}{
		{"by others", statement{key: newKey(t)}, nil},
		{"by us", statement{}, []checker.Rule{checker.SignedThough}},
		{"attested by us", statement{predicate: "https://spdx.dev/Document"}, []checker.Rule{checker.BadSignature, checker.SignedThough}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newGarden(t)
			digest := g.image(t)
			g.bundle(t, digest, tt.s)
			violations, err := g.checker.NotSigned(t.Context(), repository, digest)
			if err != nil {
				t.Fatalf("checking: %v", err)
			}
			if got := rules(violations); !slices.Equal(got, tt.want) {
				t.Errorf("broken rules are %q, want %q: %v", got, tt.want, violations)
			}
		})
	}
}

func TestOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name            string
		layers, bundles int
		want            int
	}{
		{"nothing", 0, 0, 0},
		{"one of each", 1, 1, 0},
		{"two layers", 2, 1, 1},
		{"two bundles", 0, 2, 1},
		{"two of each", 2, 2, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newGarden(t)
			digest := g.image(t)
			layers := []mutate.Addendum{g.layer(t, digest, claim{key: newKey(t)})}
			for range tt.layers {
				layers = append(layers, g.layer(t, digest, claim{}))
			}
			g.sign(t, digest, layers...)
			for i := range tt.bundles {
				g.bundle(t, digest, statement{note: strconv.Itoa(i)})
			}
			violations, err := g.checker.Once(t.Context(), repository, digest)
			if err != nil {
				t.Fatalf("checking: %v", err)
			}
			if len(violations) != tt.want || tt.want > 0 && violations[0].Rule != checker.SignedTwice {
				t.Errorf("violations are %v, want %d", violations, tt.want)
			}
		})
	}
	g := newGarden(t)
	if violations, err := g.checker.Once(t.Context(), repository, "sha256:"+strings.Repeat("b", 64)); err != nil || len(violations) > 0 {
		t.Errorf("of what is not there: got %v, %v, want nothing", violations, err)
	}
}
