//go:build e2e

package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// buildSigstoreGo builds the verifier on sigstore-go, once.
var buildSigstoreGo = sync.OnceValues(func() (string, error) {
	path := filepath.Join(env.dir, "sigstorego")
	cmd := exec.Command("go", "build", "-o", path, "./sigstorego") //nolint:gosec // a program of the tests
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building sigstorego: %w\n%s", err, out)
	}
	return path, nil
})

// withSigstoreGo verifies images by sigstore-go.
func (w *world) withSigstoreGo(t *testing.T, key, format string, images ...string) error {
	t.Helper()
	path, err := buildSigstoreGo()
	if err != nil {
		t.Fatal(err)
	}
	// The folder of another tool has the credentials.
	dir := filepath.Join(w.dir, harness.Random("sigstore-go-"))
	if _, err := harness.NewTool(harness.EnvCrane, dir, w.site.Harbor, w.site.Developer, nil); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{"-key", key, "-format", format}, images...)...) //nolint:gosec // a program of the tests
	cmd.Env = append(w.offline(), "PATH="+os.Getenv("PATH"), "HOME="+dir, "DOCKER_CONFIG="+dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running sigstorego: %w\n%s", err, out.Bytes())
	}
	if got := strings.Count(out.String(), "verified "); got != len(images) {
		return fmt.Errorf("sigstorego verified %d images, want %d\n%s", got, len(images), out.Bytes())
	}
	return nil
}

// formats are all, in the order of a stage's projects.
func formats() []string { return []string{"legacy", "bundle", "both"} }

// inEachFormat gives the first three projects a format each.
func inEachFormat(projects []string) option {
	return func(o *harness.Options) {
		for i, format := range formats() {
			o.Policies = append(o.Policies, harness.Config{"projects": []string{projects[i]}, "backfill": "all", "format": format})
		}
		// The first policy has texts of its own, the others those of all.
		o.Policies[0]["annotations"] = map[string]string{"com.example.environment": "legacy", "com.example.scope": "pci"}
		o.EditSigner = func(c harness.Config) {
			harness.Set(c, map[string]string{"com.example.environment": "production"}, "sign", "annotations")
		}
	}
}

// carries says in which formats a project's images are signed.
func carries(format, kind string) bool { return format == kind || format == "both" }

// judgeCarried counts the signatures of an image in each format.
func (w *world) judgeCarried(t *testing.T, p harness.Pushed, format string) {
	t.Helper()
	want := map[bool]int{true: 1}
	legacy, err := w.legacyLayers(t.Context(), t, p)
	if err != nil && carries(format, "legacy") {
		t.Errorf("%s: %v", p.Digest, err)
	}
	if got, want := len(legacy), want[carries(format, "legacy")]; got != want {
		t.Errorf("%s has %d signatures under its .sig tag, want %d", p.Digest, got, want)
	}
	if got, want := len(w.signatureBundles(t, p)), want[carries(format, "bundle")]; got != want {
		t.Errorf("%s has %d bundles with a signature, want %d", p.Digest, got, want)
	}
}

// What is signed in each format, index and children, is accepted by every verifier that knows the format, and by none of
// them with another key.
func TestFormats(t *testing.T) {
	t.Parallel()
	s := newStage(t, env.harbor, 3, inEachFormat)
	pushed := make(map[string][]harness.Pushed)
	for i, format := range formats() {
		img, err := harness.NewImage(format == "both") // Docker's media types, too
		pushed[format] = append(pushed[format], s.pushTo(t, s.projects[i]+"/app", "v1", img, err))
		index, err := harness.NewIndex("linux/amd64", "linux/arm64")
		pushed[format] = append(pushed[format], s.pushTo(t, s.projects[i]+"/multi", "v1", index, err))
	}
	for _, format := range formats() {
		s.awaitSigned(t, pushed[format]...)
	}
	s.settled(t)
	other := otherKeys(t)

	t.Run("as a user", func(t *testing.T) {
		t.Parallel()
		testUser(t, s, s.image(pushed["both"][0]))
	})
	for _, format := range formats() {
		images := s.images(pushed[format]...)
		first := images[0]
		t.Run(format, func(t *testing.T) {
			for _, p := range pushed[format] {
				for _, one := range p.All() {
					s.judgeCarried(t, one, format)
				}
				if row := s.audit(t.Context(), t, p); row.Format != format || row.How != "made" || row.Note != "" {
					t.Errorf("the report says %+v, want format %s, made, no note", row, format)
				}
			}
		})
		for _, kind := range []string{"legacy", "bundle"} {
			t.Run(format+" sigstore-go "+kind, func(t *testing.T) {
				t.Parallel()
				if err := s.withSigstoreGo(t, s.Keys.Public, kind, images...); (err == nil) != carries(format, kind) {
					t.Errorf("sigstore-go says %v, want success: %v", err, carries(format, kind))
				}
				if s.withSigstoreGo(t, other.Public, kind, first) == nil {
					t.Error("sigstore-go accepts another key")
				}
			})
		}
		for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
			t.Run(format+" "+variable, func(t *testing.T) {
				t.Parallel()
				cosign := s.client(t, variable)
				if err := cosign.Verify(t.Context(), s.Keys.Public, images...); err != nil {
					t.Error(err)
				}
				if cosign.Verify(t.Context(), other.Public, first) == nil {
					t.Error("cosign accepts another key")
				}
				for text, want := range annotations(format) {
					// cosign v2 says of a bundle that the annotations were verified, and does not look at them.
					want = want || variable == harness.EnvCosignV2 && carries(format, "bundle")
					args := append(cosign.VerifyArgs(s.Keys.Public, first), "-a", text)
					if _, err := cosign.Run(t.Context(), args...); (err == nil) != want {
						t.Errorf("cosign verify -a %s says %v, want success: %v", text, err, want)
					}
				}
			})
		}
	}
}

// A user who may pull verifies as a robot account does; nobody verifies without credentials.
func testUser(t *testing.T, s *stage, image string) {
	t.Helper()
	user := harness.Robot{Name: s.site.Harbor.Username, Secret: s.site.Harbor.Password}
	for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
		if err := s.clientOf(t, variable, user).Verify(t.Context(), s.Keys.Public, image); err != nil {
			t.Errorf("as a user: %v", err)
		}
		if s.clientOf(t, variable, harness.Robot{Name: "nobody", Secret: "none"}).Verify(t.Context(), s.Keys.Public, image) == nil {
			t.Error("the project is private, but a stranger verifies its image")
		}
	}
}

// annotations are texts that a format's project has in its signatures, and others that it has not.
func annotations(format string) map[string]bool {
	if format == "legacy" {
		return map[string]bool{
			"com.example.environment=legacy": true, "com.example.scope=pci": true, "com.example.environment=production": false,
		}
	}
	return map[string]bool{"com.example.environment=production": true, "com.example.environment=test": false, "com.example.scope=pci": false}
}
