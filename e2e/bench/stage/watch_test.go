package stage_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/quantile"
	"github.com/harborseal/harborseal/e2e/bench/stage"
	"github.com/harborseal/harborseal/pkg/artifact"
)

const repository = "p/app"

func digest(i byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte{i})) }

// see lets a watch see an event as the service writes it.
func see(t *testing.T, w *stage.Watch, kind artifact.Kind, i byte, at time.Time) {
	t.Helper()
	ref, err := artifact.NewRef(repository, digest(i))
	if err != nil {
		t.Fatal(err)
	}
	e := artifact.Event{ID: fmt.Sprint(kind, i), Kind: kind, Ref: ref, Time: at, Origin: artifact.OriginSigner, CorrelationID: "x"}
	if kind == artifact.Signed {
		e.How, e.Format, e.KeyID, e.SignatureDigest = artifact.Made, artifact.Bundle, "key", digest(0)
	}
	data, err := artifact.EncodeEvent(e)
	if err != nil {
		t.Fatal(err)
	}
	w.See(data)
}

func TestWatch(t *testing.T) {
	t.Parallel()
	w, begun := stage.NewWatch(), time.Now()
	at := func(seconds int) time.Time { return begun.Add(time.Duration(seconds) * time.Second) }
	w.Pushed(repository, digest(1), at(0))
	w.Pushed(repository, digest(2), at(1))
	see(t, w, artifact.Received, 1, at(2))
	see(t, w, artifact.Received, 1, at(3)) // pushed once more: the first one counts
	see(t, w, artifact.Signed, 1, at(5))
	see(t, w, artifact.Signed, 1, at(50)) // found
	see(t, w, artifact.Signed, 3, at(6))  // nobody has waited for it
	if got := w.Signed(); got != 2 {
		t.Errorf("%d digests are signed, want 2", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if times, err := w.Times(ctx); err == nil {
		t.Errorf("one push is not signed: got %+v, want an error", times)
	}
	see(t, w, artifact.Signed, 2, at(3))
	times, err := w.Times(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := stage.Times{
		FromPush:    quantile.Spread{Count: 2, P50: 2 * time.Second, P99: 5 * time.Second, Max: 5 * time.Second},
		FromWebhook: quantile.Spread{Count: 1, P50: 3 * time.Second, P99: 3 * time.Second, Max: 3 * time.Second},
	}
	if times != want {
		t.Errorf("got %+v, want %+v", times, want)
	}
	if times, err := w.Times(t.Context()); err == nil || w.Signed() != 0 {
		t.Errorf("after all was forgotten: got %+v, %v; want an error", times, err)
	}
}
