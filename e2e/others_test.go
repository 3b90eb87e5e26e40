//go:build e2e

package e2e_test

import (
	"os"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// sign signs a manifest with a key of one's own choice, in one format: as cosign v2 does, or as v3.
func (w *world) sign(t *testing.T, format checker.Format, keys harness.Keys, p harness.Pushed) {
	t.Helper()
	password, err := os.ReadFile(keys.Password)
	if err != nil {
		t.Fatal(err)
	}
	variable, args := harness.EnvCosignV2, []string{"sign", "--key", keys.Private, "--tlog-upload=false", "--yes"}
	if format == checker.Bundle {
		variable, args = harness.EnvCosignV3, append(args, "--use-signing-config=false")
	}
	secret := []string{"COSIGN_PASSWORD=" + strings.TrimSpace(string(password))}
	if _, err = w.tool(t, variable).RunWith(t.Context(), secret, append(args, name(p))...); err != nil {
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

// startFor starts the system when all is prepared, because its first sweep comes at once, and lets Harbor report a push.
func (w *world) startFor(t *testing.T, p harness.Pushed, img v1.Image) {
	t.Helper()
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.developer.PutAgain(t.Context(), p, img); err != nil {
		t.Fatal(err)
	}
	w.awaitAll(t)
}

// Signatures that others make stay, whoever comes first. Where there are bundles, the cosign programs look at nothing else:
// so others are found in each format in which everybody signs.
func TestSignaturesOfOthersStay(t *testing.T) {
	for _, tt := range []struct {
		name    string
		first   bool
		formats []checker.Format
		format  string
	}{
		{"others sign first", true, checker.Formats(), "both"},
		{"others sign later", false, checker.Formats(), "both"},
		{"others sign first, on the tag", true, []checker.Format{checker.Legacy}, "legacy"},
		{"others sign later, on the tag", false, []checker.Format{checker.Legacy}, "legacy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := prepareWorld(t, func(o *harness.Options) { o.Format = tt.format })
			keys := otherKeys(t)
			others := func(p harness.Pushed) {
				for _, format := range tt.formats {
					w.sign(t, format, keys, p)
				}
			}
			var p harness.Pushed
			if tt.first {
				img, err := harness.NewImage(false)
				w.lose(t, func() {
					p = w.push(t, "app", "v1", img, err)
					others(p)
				})
				w.startFor(t, p, img)
			} else {
				if err := w.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				p = w.pushImage(t, "app", "v1")
				w.awaitAll(t)
				others(p)
			}
			w.idle(t)
			evidence, violations, err := w.checker.Signed(t.Context(), p.Repository, p.Digest)
			if err != nil {
				t.Fatal(err)
			}
			complain(t, violations)
			if got := len(evidence.Foreign()); got != len(tt.formats) {
				t.Errorf("%d signatures of others are left, want %d", got, len(tt.formats))
			}
			for _, key := range []string{keys.Public, w.Keys.Public} {
				for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
					if err := w.tool(t, variable).Verify(t.Context(), key, name(p)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// What an image carries by our key already is found, and only what is missing is added.
func TestSignedAlready(t *testing.T) {
	for _, tt := range []struct {
		name    string
		formats []checker.Format
		how     string
	}{
		{"in both formats", checker.Formats(), "found"},
		{"on the tag", []checker.Format{checker.Legacy}, "made"},
		{"in a bundle", []checker.Format{checker.Bundle}, "made"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := prepareWorld(t, func(o *harness.Options) { o.Format = "both" })
			img, err := harness.NewImage(false)
			var p harness.Pushed
			w.lose(t, func() {
				p = w.push(t, "app", "v1", img, err)
				for _, format := range tt.formats {
					w.sign(t, format, w.Keys, p)
				}
			})
			w.startFor(t, p, img)
			if row := w.awaitState(t, p, "signed"); row.How != tt.how {
				t.Errorf("the report says that the signature was %q, want %q", row.How, tt.how)
			}
		})
	}
}
