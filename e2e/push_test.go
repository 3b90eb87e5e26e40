//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// Every kind of push that Harbor knows ends with one signature for each manifest, and nothing else is signed.
func TestPush(t *testing.T) {
	w := newWorld(t, func(o *harness.Options) { o.Signers = 2 })
	ctx := t.Context()

	img, err := harness.NewImage(true)
	first := w.push(t, "app", "v1", img, err)
	w.push(t, "app", "stable", img, nil)
	if err := w.developer.PutAgain(ctx, first, img); err != nil {
		t.Fatal(err)
	}
	w.pushImage(t, "app", "moved")
	moved := w.pushImage(t, "app", "moved")
	index, err := harness.NewIndex("linux/amd64", "linux/arm64")
	multi := w.push(t, "multi", "v1", index, err)
	w.pushImage(t, "team/backend/api", "v1")
	untagged := w.pushImage(t, "untagged", "")
	chart, err := harness.NewChart()
	w.push(t, "charts/web", "1.2.3", chart, err)
	w.awaitAll(t)

	t.Run("report", func(t *testing.T) {
		row := w.awaitState(t, first, "signed")
		slices.Sort(row.Tags)
		if want := []string{"stable", "v1"}; !slices.Equal(row.Tags, want) {
			t.Errorf("tags are %q, want %q", row.Tags, want)
		}
		if row.Project != w.project || row.Pusher != w.site.Developer.Name {
			t.Errorf("project is %q and pusher %q, want %q and %q", row.Project, row.Pusher, w.project, w.site.Developer.Name)
		}
		if row.PushedAt == nil || row.ReceivedAt == nil || row.SignedAt == nil || time.Since(*row.PushedAt) > 10*time.Minute {
			t.Errorf("times are pushed %v, received %v, signed %v, want all of them, and just now", row.PushedAt, row.ReceivedAt, row.SignedAt)
		}
		if row := w.awaitState(t, untagged, "signed"); len(row.Tags) > 0 {
			t.Errorf("an untagged image has tags %q", row.Tags)
		}
		if row := w.awaitState(t, moved, "signed"); !slices.Equal(row.Tags, []string{"moved"}) {
			t.Errorf("tags of what a tag moved to are %q, want moved", row.Tags)
		}
		for _, child := range multi.Children {
			if row := w.awaitState(t, child, "signed"); !slices.Equal(row.Parents, []string{multi.Digest}) {
				t.Errorf("parents of %s are %q, want %q", child.Digest, row.Parents, multi.Digest)
			}
		}
	})
	// Where there are bundles, cosign looks at nothing else, unless version 3 is told to.
	for _, tt := range []struct {
		name, variable string
		options        []string
	}{
		{"cosign v2", harness.EnvCosignV2, nil},
		{"cosign v3", harness.EnvCosignV3, nil},
		{"cosign v3 on the tag", harness.EnvCosignV3, []string{harness.LegacyOnly}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			images := make([]string, 0, len(w.pushed))
			for _, p := range w.pushed {
				images = append(images, name(p))
			}
			cosign := w.tool(t, tt.variable)
			if _, err := cosign.Run(t.Context(), append(cosign.VerifyArgs(w.Keys.Public, images...), tt.options...)...); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("another key", func(t *testing.T) {
		other, err := harness.GenerateKeys(t.Context(), env.programs, t.TempDir(), "other")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.tool(t, harness.EnvCosignV2).Verify(t.Context(), other.Public, name(first)); err == nil {
			t.Error("cosign verifies with a key that signed nothing")
		}
	})
}

// A client of others, which knows nothing of this project, pushes as ever, and cosign's own listing finds the signature.
func TestOtherClients(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	crane := w.tool(t, harness.EnvCrane)
	layer := filepath.Join(t.TempDir(), "layer.tar")
	if err := os.WriteFile(layer, make([]byte, 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	image := env.harbor.Host + "/" + w.project + "/tools/app:v1"
	if _, err := crane.Run(ctx, "append", "--new_layer", layer, "--new_tag", image); err != nil {
		t.Fatal(err)
	}
	digest, err := crane.Run(ctx, "digest", image)
	if err != nil {
		t.Fatal(err)
	}
	w.pushed = append(w.pushed, harness.Pushed{Repository: w.project + "/tools/app", Digest: strings.TrimSpace(digest), Tag: "v1"})
	w.awaitAll(t)
	signature, err := w.tool(t, harness.EnvCosignV2).Run(ctx, "triangulate", image)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := crane.Run(ctx, "manifest", strings.TrimSpace(signature)); err != nil {
		t.Errorf("cosign looks for the signature where there is none: %v", err)
	}
}

// What nobody enabled stays as it is.
func TestNotEnabled(t *testing.T) {
	w := newWorld(t, func(o *harness.Options) { o.Enabled = []string{"another-project"} })
	p := w.pushImage(t, "app", "v1")
	w.until(t, func(ctx context.Context) error {
		m, err := w.Metrics(ctx, w.Receiver)
		if err == nil && m.Sum("harborseal_webhook_requests_total", `outcome="ignored"`) < 1 {
			err = errors.New("the receiver has ignored nothing")
		}
		return err
	})
	violations, err := w.checker.NotSigned(t.Context(), p.Repository, p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	complain(t, violations)
	row, err := w.row(t.Context(), p)
	if err != nil || row.State == "signed" {
		t.Errorf("the report says %q, %v, want nothing that is signed", row.State, err)
	}
}

// Projects may be enabled by a glob, and Harbor may speak CloudEvents.
func TestGlobAndCloudEvents(t *testing.T) {
	w := newWorld(t, func(o *harness.Options) { o.Enabled = []string{"e2e-*"} })
	w.webhook.Format = "CloudEvents"
	if err := env.harbor.UpdateWebhook(t.Context(), w.webhook); err != nil {
		t.Fatal(err)
	}
	p := w.pushImage(t, "app", "v1")
	untagged := w.pushImage(t, "app", "")
	w.awaitAll(t)
	if row := w.awaitState(t, p, "signed"); !slices.Equal(row.Tags, []string{"v1"}) || row.Pusher != w.site.Developer.Name {
		t.Errorf("tags are %q and pusher %q, want v1 and %q", row.Tags, row.Pusher, w.site.Developer.Name)
	}
	if row := w.awaitState(t, untagged, "signed"); len(row.Tags) > 0 {
		t.Errorf("an untagged image has tags %q", row.Tags)
	}
}

// An attestation that a pipeline attaches is an accessory: it is not signed.
func TestAccessoriesAreNotSigned(t *testing.T) {
	w := newWorld(t)
	p := w.pushImage(t, "app", "v1")
	w.awaitAll(t)
	img, err := harness.NewImage(false)
	if err != nil {
		t.Fatal(err)
	}
	accessory, err := harness.NewAccessory(img, p)
	if err != nil {
		t.Fatal(err)
	}
	attached, err := w.developer.Push(t.Context(), p.Repository, "", accessory)
	if err != nil {
		t.Fatal(err)
	}
	row := w.awaitState(t, attached, "skipped")
	if row.Reason != "accessory" {
		t.Errorf("the reason is %q, want accessory", row.Reason)
	}
	w.idle(t)
	violations, err := w.checker.NotSigned(t.Context(), p.Repository, attached.Digest)
	if err != nil {
		t.Fatal(err)
	}
	complain(t, violations)
	w.judge(t)
}
