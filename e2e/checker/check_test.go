package checker_test

import (
	"io"
	"log" //nolint:depguard // the in-memory registry takes a logger of this kind
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/harborseal/harborseal/e2e/checker"
)

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// rules gives the rules that violations break, without repetition.
func rules(violations []checker.Violation) []checker.Rule {
	var all []checker.Rule
	for _, v := range violations {
		if !slices.Contains(all, v.Rule) {
			all = append(all, v.Rule)
		}
	}
	slices.Sort(all)
	return all
}

func TestSigned(t *testing.T) {
	t.Parallel()
	other := "sha256:" + strings.Repeat("a", 64)
	tests := []struct {
		name string
		// plant changes the registry after an image with this digest was pushed.
		plant func(t *testing.T, g *garden, digest string)
		want  []checker.Rule
	}{
		{"one good signature", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.sign(t, digest, g.layer(t, digest, claim{}))
		}, nil},
		{"one good signature beside one by others", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.sign(t, digest, g.layer(t, digest, claim{key: newKey(t)}), g.layer(t, digest, claim{}))
		}, nil},
		{"the same signature in two manifests", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			own := g.layer(t, digest, claim{})
			g.refer(t, digest, own)
			g.sign(t, digest, g.layer(t, digest, claim{key: newKey(t)}), own)
		}, nil},
		{"nothing", func(*testing.T, *garden, string) {}, []checker.Rule{checker.Unsigned}},
		{"wrong key", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.sign(t, digest, g.layer(t, digest, claim{key: newKey(t)}))
		}, []checker.Rule{checker.Unsigned}},
		{"signature of another payload", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			moved := g.layer(t, digest, claim{digest: other}).Annotations["dev.cosignproject.cosign/signature"]
			g.sign(t, digest, g.layer(t, digest, claim{signature: moved}))
		}, []checker.Rule{checker.Unsigned}},
		{"signature that is no base64", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.sign(t, digest, g.layer(t, digest, claim{signature: "?"}))
		}, []checker.Rule{checker.Unsigned}},
		{"wrong digest", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.sign(t, digest, g.layer(t, digest, claim{digest: other}))
		}, []checker.Rule{checker.BadSignature, checker.Unsigned}},
		{"wrong host", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.sign(t, digest, g.layer(t, digest, claim{identity: "127.0.0.1/" + repository}))
		}, []checker.Rule{checker.BadSignature, checker.Unsigned}},
		{"wrong repository", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.sign(t, digest, g.layer(t, digest, claim{identity: host + "/demo/other"}))
		}, []checker.Rule{checker.BadSignature, checker.Unsigned}},
		{"wrong identity beside a good one", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.sign(t, digest, g.layer(t, digest, claim{}), g.layer(t, digest, claim{identity: host + "/demo/other"}))
		}, []checker.Rule{checker.BadSignature}},
		{"no image signature", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.sign(t, digest, g.layer(t, digest, claim{payload: `{"critical":{"type":"other"}}`}))
		}, []checker.Rule{checker.BadSignature, checker.Unsigned}},
		{"two signatures", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.sign(t, digest, g.layer(t, digest, claim{}), g.layer(t, digest, claim{}))
		}, []checker.Rule{checker.SignedTwice}},
		{"two signatures in two manifests", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.refer(t, digest, g.layer(t, digest, claim{}))
			g.sign(t, digest, g.layer(t, digest, claim{}))
		}, []checker.Rule{checker.SignedTwice}},
		{"signature only in a manifest that the tag has left", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			g.refer(t, digest, g.layer(t, digest, claim{}))
			g.sign(t, digest, g.layer(t, digest, claim{key: newKey(t)}))
		}, []checker.Rule{checker.Unsigned}},
		{"signature that is signed itself", func(t *testing.T, g *garden, digest string) {
			t.Helper()
			signature := g.sign(t, digest, g.layer(t, digest, claim{}))
			g.sign(t, signature, g.layer(t, signature, claim{}))
		}, []checker.Rule{checker.SignedThough}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newGarden(t)
			digest := g.image(t)
			tt.plant(t, g, digest)
			_, violations, err := g.checker.Signed(t.Context(), repository, digest)
			if err != nil {
				t.Fatalf("checking: %v", err)
			}
			if got := rules(violations); !slices.Equal(got, tt.want) {
				t.Errorf("broken rules are %q, want %q: %v", got, tt.want, violations)
			}
		})
	}
}

func TestSignedOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	g := newGarden(t)
	g.image(t)
	_, violations, err := g.checker.Signed(t.Context(), repository, "sha256:"+strings.Repeat("b", 64))
	if err != nil {
		t.Fatalf("checking: %v", err)
	}
	if got := rules(violations); !slices.Equal(got, []checker.Rule{checker.ManifestAbsent}) {
		t.Errorf("broken rules are %q, want %q", got, checker.ManifestAbsent)
	}
}

func TestTamperedPayload(t *testing.T) {
	t.Parallel()
	g := newGarden(t)
	digest := g.image(t)
	layer := g.layer(t, digest, claim{})
	g.sign(t, digest, layer)
	payload, err := layer.Layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	_, violations, err := g.tamper(t, payload.String(), checker.Legacy).Signed(t.Context(), repository, digest)
	if err != nil {
		t.Fatalf("checking: %v", err)
	}
	want := []checker.Rule{checker.Untrustworthy, checker.Unsigned}
	if got := rules(violations); !slices.Equal(got, want) {
		t.Errorf("broken rules are %q, want %q", got, want)
	}
}

func TestNotSigned(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		layers func(t *testing.T, g *garden, digest string) []mutate.Addendum
		want   []checker.Rule
	}{
		{"signed by others", func(t *testing.T, g *garden, digest string) []mutate.Addendum {
			t.Helper()
			return []mutate.Addendum{g.layer(t, digest, claim{key: newKey(t)})}
		}, nil},
		{"signed by us", func(t *testing.T, g *garden, digest string) []mutate.Addendum {
			t.Helper()
			return []mutate.Addendum{g.layer(t, digest, claim{})}
		}, []checker.Rule{checker.SignedThough}},
		{"signed by us for another repository", func(t *testing.T, g *garden, digest string) []mutate.Addendum {
			t.Helper()
			return []mutate.Addendum{g.layer(t, digest, claim{identity: host + "/demo/other"})}
		}, []checker.Rule{checker.BadSignature, checker.SignedThough}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newGarden(t)
			digest := g.image(t)
			if violations, err := g.checker.NotSigned(t.Context(), repository, digest); err != nil || len(violations) > 0 {
				t.Fatalf("before: %v, %v, want nothing", violations, err)
			}
			g.sign(t, digest, tt.layers(t, g, digest)...)
			violations, err := g.checker.NotSigned(t.Context(), repository, digest)
			if err != nil {
				t.Fatalf("checking: %v", err)
			}
			if got := rules(violations); !slices.Equal(got, tt.want) {
				t.Errorf("broken rules are %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRepositoryFindsWhatNobodyAskedFor(t *testing.T) {
	t.Parallel()
	g := newGarden(t)
	wanted, unwanted, foreign := g.image(t), g.image(t), g.image(t)
	g.sign(t, wanted, g.layer(t, wanted, claim{}))
	g.sign(t, unwanted, g.layer(t, unwanted, claim{}))
	g.sign(t, foreign, g.layer(t, foreign, claim{key: newKey(t)}))
	// What no .sig tag speaks of: a tagged image, one of an index, and a signature.
	bundled, child, bundledSignature := g.tagged(t, "bundled"), g.indexed(t), g.sign(t, foreign, g.layer(t, foreign, claim{key: newKey(t)}))
	unexpected := []string{unwanted, bundled, child, bundledSignature}
	for _, digest := range unexpected[1:] {
		g.bundle(t, digest, statement{})
	}
	violations, err := g.checker.Repository(t.Context(), repository, []string{wanted})
	if err != nil {
		t.Fatalf("checking: %v", err)
	}
	var got []string
	for _, v := range violations {
		got = append(got, v.Digest)
		if v.Rule != checker.SignedThough {
			t.Errorf("broken rule is %q, want %q", v.Rule, checker.SignedThough)
		}
	}
	slices.Sort(got)
	slices.Sort(unexpected)
	if !slices.Equal(got, unexpected) {
		t.Errorf("signed though they should not be are %q, want %q", got, unexpected)
	}
	if _, err := checker.NewRegistry(checker.Access{URL: "http://" + g.address}).Tags(t.Context(), "demo/none"); err != nil {
		t.Errorf("tags of no repository: %v, want none", err)
	}
}
