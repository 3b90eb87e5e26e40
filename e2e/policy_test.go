//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// With Harbor's rule that only signed images may be pulled, the signer still reads what is unsigned, and developers pull
// what is signed, each platform of an index included.
func TestPullPolicy(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if err := env.harbor.SetPullPolicy(ctx, w.project, true); err != nil {
		t.Fatal(err)
	}
	img, err := harness.NewImage(false)
	index, indexErr := harness.NewIndex("linux/amd64", "linux/arm64")
	w.lose(t, func() {
		w.push(t, "app", "v1", img, err)
		w.push(t, "multi", "v1", index, indexErr)
	})
	for _, p := range w.pushed {
		err := w.developer.Pull(ctx, p)
		if err == nil || !strings.Contains(err.Error(), "412") && !strings.Contains(err.Error(), "PROJECTPOLICYVIOLATION") {
			t.Errorf("pulling unsigned %s@%s: %v, want a refusal by policy", p.Repository, p.Digest, err)
		}
	}
	// Their webhooks come now.
	if err := w.developer.PutAgain(ctx, w.pushed[0], img); err != nil {
		t.Fatal(err)
	}
	if err := w.developer.PutAgain(ctx, w.pushed[1], index); err != nil {
		t.Fatal(err)
	}
	w.awaitAll(t)
	for _, p := range w.pushed {
		if err := w.developer.Pull(ctx, p); err != nil {
			t.Errorf("pulling signed %s@%s: %v", p.Repository, p.Digest, err)
		}
	}
}

// An index is enough to have its manifests signed, when their own webhooks are lost.
func TestIndexBringsItsChildren(t *testing.T) {
	w := newWorld(t)
	index, err := harness.NewIndex("linux/amd64", "linux/arm64")
	var p harness.Pushed
	w.lose(t, func() { p = w.push(t, "multi", "v1", index, err) })
	w.report(t, p)
	w.awaitAll(t)
	for _, child := range p.Children {
		if row := w.awaitState(t, child, "signed"); row.ReceivedAt != nil || !slices.Equal(row.Parents, []string{p.Digest}) {
			t.Errorf("%s has a webhook of %v and parents %q, want none and its index", child.Digest, row.ReceivedAt, row.Parents)
		}
	}
}

// A robot that lacks a right is no reason to give an image up: once the right is given, the image is signed.
func TestMissingRight(t *testing.T) {
	w := prepareWorld(t)
	ctx := t.Context()
	powerless := slices.DeleteFunc(harness.SignerRights(), func(right string) bool { return right == "repository:push" })
	if err := env.harbor.UpdateRobot(ctx, w.site.Signer, powerless, w.project); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	p := w.pushImage(t, "app", "v1")
	row := w.awaitState(t, p, "failed")
	if row.Reason != "denied" || !strings.Contains(row.Detail, "repository:push") {
		t.Errorf("the reason is %q, %q, want denied, and the right that is missing", row.Reason, row.Detail)
	}
	violations, err := w.checker.NotSigned(ctx, p.Repository, p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	complain(t, violations)
	if err := env.harbor.UpdateRobot(ctx, w.site.Signer, harness.SignerRights(), w.project); err != nil {
		t.Fatal(err)
	}
	w.awaitAll(t)
}

// What can never work is given up, and the report says why: here, somebody has put an index on the .sig tag. The
// other images of the project do not suffer from it.
func TestDeadLetter(t *testing.T) {
	// In the format both, the bundle would be made all the same.
	w := prepareWorld(t, func(o *harness.Options) { o.Format = "legacy" })
	ctx := t.Context()
	img, err := harness.NewImage(false)
	if err != nil {
		t.Fatal(err)
	}
	squatter, err := harness.NewIndex() // of nothing: its manifests would be signed
	if err != nil {
		t.Fatal(err)
	}
	var p harness.Pushed
	w.lose(t, func() {
		if p, err = w.developer.Push(ctx, w.project+"/app", "v1", img); err != nil {
			t.Fatal(err)
		}
		// Harbor lists the squatter as an artifact, whatever its tag is: it is signed itself.
		other, err := w.developer.Push(ctx, w.project+"/app", checker.SignatureTag(p.Digest), squatter)
		if err != nil {
			t.Fatal(err)
		}
		w.pushed = append(w.pushed, other)
	})
	// The first sweep asks for it, and nobody else: the number below is of one request.
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	row := w.awaitState(t, p, "dead")
	if row.Reason != "malformed" || row.Detail == "" {
		t.Errorf("the reason is %q, %q, want malformed, and what happened", row.Reason, row.Detail)
	}
	// The report knows first: the signer counts when the request lies in the dead letters.
	w.until(t, func(ctx context.Context) error {
		m, err := w.Metrics(ctx, w.Signers[0])
		if got := m.Sum("harborseal_signing_failures_total", `outcome="dead"`); err == nil && got != 1 {
			err = fmt.Errorf("%v requests were given up, want 1", got)
		}
		return err
	})
	violations, err := w.checker.NotSigned(ctx, p.Repository, p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	complain(t, violations)
	w.pushImage(t, "other", "v1")
	w.awaitAll(t)
}
