//go:build e2e

package e2e_test

import (
	"os"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// sign signs a manifest with cosign and a key of one's own choice.
func (w *world) sign(t *testing.T, keys harness.Keys, p harness.Pushed) {
	t.Helper()
	password, err := os.ReadFile(keys.Password)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.tool(t, harness.EnvCosignV2).RunWith(t.Context(), []string{"COSIGN_PASSWORD=" + strings.TrimSpace(string(password))},
		"sign", "--key", keys.Private, "--tlog-upload=false", "--yes", name(p))
	if err != nil {
		t.Fatal(err)
	}
}

func otherKeys(t *testing.T) harness.Keys {
	t.Helper()
	keys, err := harness.GenerateKeys(t.Context(), env.programs, t.TempDir(), "other")
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Signatures that others put on the .sig tag stay, whoever comes first.
func TestSignaturesOfOthersStay(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first bool
	}{{"others sign first", true}, {"others sign later", false}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			keys := otherKeys(t)
			var p harness.Pushed
			if tt.first {
				img, err := harness.NewImage(false)
				w.lose(t, func() {
					p = w.push(t, "app", "v1", img, err)
					w.sign(t, keys, p)
				})
				if err := w.developer.PutAgain(t.Context(), p, img); err != nil {
					t.Fatal(err)
				}
				w.awaitAll(t)
			} else {
				p = w.pushImage(t, "app", "v1")
				w.awaitAll(t)
				w.sign(t, keys, p)
			}
			w.idle(t)
			evidence, violations, err := w.checker.Signed(t.Context(), p.Repository, p.Digest)
			if err != nil {
				t.Fatal(err)
			}
			complain(t, violations)
			if got := len(evidence.Foreign()); got != 1 {
				t.Errorf("%d signatures of others are left, want 1", got)
			}
			for _, key := range []string{keys.Public, w.Keys.Public} {
				if err := w.tool(t, harness.EnvCosignV2).Verify(t.Context(), key, name(p)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// An image that carries a signature by our key already is found, and not signed again.
func TestSignedAlready(t *testing.T) {
	w := newWorld(t)
	img, err := harness.NewImage(false)
	var p harness.Pushed
	w.lose(t, func() {
		p = w.push(t, "app", "v1", img, err)
		w.sign(t, w.Keys, p)
	})
	if err := w.developer.PutAgain(t.Context(), p, img); err != nil {
		t.Fatal(err)
	}
	w.awaitAll(t)
	if row := w.awaitState(t, p, "signed"); row.How != "found" {
		t.Errorf("the report says that the signature was %q, want found", row.How)
	}
}
