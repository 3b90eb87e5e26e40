//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// Eight writers put a signature under one tag at the same time, seven of them cosign programs with keys of their own. A
// registry knows no compare-and-swap, so most of the eight are overwritten by another one; after the signer's second look
// all are there.
func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	const others = 7
	s := newStage(t, env.harbor, 1, func(projects []string) option {
		return func(o *harness.Options) {
			onlyFormat("legacy")(projects)(o)
			o.Signers = 2
		}
	})
	keys := make([]harness.Keys, 0, others)
	for range others {
		keys = append(keys, otherKeys(t))
	}
	img, err := harness.NewImage(false)
	var p harness.Pushed
	s.silently(t, func() { p = s.pushTo(t, s.project+"/app", "v1", img, err) })
	cosign := s.client(t, harness.EnvCosignV2)
	var writers sync.WaitGroup
	for _, k := range keys {
		writers.Go(func() {
			if err := withKey(t, cosign, k, "sign", "--yes", "--key", k.Private, "--tlog-upload=false", s.image(p)); err != nil {
				t.Error(err)
			}
		})
	}
	s.tell(t, p)
	overwritten := s.overwriteAfterwards(t, keys[0])
	writers.Wait()
	s.awaitSigned(t, p)

	all := append(slices.Clone(keys), s.Keys)
	s.awaitLayers(t, p, len(all))
	s.awaitLayers(t, overwritten, 2)
	for _, k := range all {
		for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
			if err := s.client(t, variable).Verify(t.Context(), k.Public, s.image(p)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, public := range []string{s.Keys.Public, keys[0].Public} {
		if err := cosign.Verify(t.Context(), public, s.image(overwritten)); err != nil {
			t.Error(err)
		}
	}
	if row := s.audit(t.Context(), t, p); row.State != "signed" {
		t.Errorf("the report says %+v, want it signed", row)
	}
}

// overwriteAfterwards is the slow writer for certain: it reads the tag, we sign, and it writes the tag without ours.
func (s *stage) overwriteAfterwards(t *testing.T, keys harness.Keys) harness.Pushed {
	t.Helper()
	img, err := harness.NewImage(false)
	var p harness.Pushed
	s.silently(t, func() {
		p = s.pushTo(t, s.project+"/overwritten", "v1", img, err)
		s.signLegacy(t, keys, p)
	})
	overwrite := s.remember(t, p)
	s.tell(t, p)
	s.awaitSigned(t, p)
	overwrite()
	if layers, err := s.legacyLayers(t.Context(), t, p); err != nil || len(layers) != 1 {
		t.Fatalf("the tag holds %d signatures, %v, want the one of the slow writer", len(layers), err)
	}
	return p
}

// remember gives a function that puts what stands under the .sig tag now there again.
func (w *world) remember(t *testing.T, p harness.Pushed) (overwrite func()) {
	t.Helper()
	repository, tag := w.repository(t, p.Repository), checker.SignatureTag(p.Digest)
	found, err := remote.Get(repository.Tag(tag), w.reading(t.Context())...)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		w.put(t, p.Repository, tag, json.RawMessage(found.Manifest))
	}
}

// awaitLayers waits until so many signatures stand under the .sig tag.
func (w *world) awaitLayers(t *testing.T, p harness.Pushed, want int) {
	t.Helper()
	w.eventually(t, func(ctx context.Context) error {
		layers, err := w.legacyLayers(ctx, t, p)
		if err == nil && len(layers) != want {
			err = fmt.Errorf("%d signatures stand under the tag of %s, want %d", len(layers), p.Digest, want)
		}
		return err
	})
}

// Signatures that were overwritten while no signer ran are brought back by a sweep, ours as well as those of others.
func TestOverwrittenWhileAway(t *testing.T) {
	t.Parallel()
	s := newStage(t, env.harbor, 1, onlyFormat("legacy"))
	keys := otherKeys(t)
	var ours, theirs harness.Pushed
	s.silently(t, func() {
		img, err := harness.NewImage(false)
		ours = s.pushTo(t, s.project+"/ours", "v1", img, err)
		s.signLegacy(t, keys, ours)
		img, err = harness.NewImage(false)
		theirs = s.pushTo(t, s.project+"/theirs", "v1", img, err)
	})
	overwriteOurs := s.remember(t, ours)
	s.tell(t, ours)
	s.tell(t, theirs)
	s.awaitSigned(t, ours, theirs)
	overwriteTheirs := s.remember(t, theirs)
	s.reconfigure(t, s.Signers[0], func(c harness.Config) {
		overwriteOurs()
		s.signLegacy(t, keys, theirs)
		overwriteTheirs()
		harness.Set(c, "1s", "sweep", "full")
	})
	s.awaitLayers(t, ours, 2)
	s.awaitLayers(t, theirs, 2)
	s.awaitSweeps(t, 2)
	s.settled(t)
	// The same bytes are back: nothing was signed again.
	m, err := s.Metrics(t.Context(), s.Signers[0])
	if got := m.Sum("harborseal_signing_outcomes_total"); err != nil || got != 0 {
		t.Errorf("the signer has handled %v requests (%v), want none", got, err)
	}
}

// A digest that waits in both lanes is in the hands of several signers at the same time. It ends with one signature in
// each format.
func TestBothLanes(t *testing.T) {
	t.Parallel()
	const images = 3
	h := newEmulator(t, "")
	s := newStage(t, h, 1, func(projects []string) option {
		return func(o *harness.Options) {
			onlyFormat("both")(projects)(o)
			o.Signers = 4
			o.Sweep = time.Second
			o.AckWait = time.Minute
		}
	})
	// Every attempt waits between its look for signatures and what it attaches.
	slow := harness.Faults{Method: "POST", PathPrefix: "/v2/" + s.project + "/app/blobs", Latency: "8s"}
	var pushed []harness.Pushed
	s.silently(t, func() {
		for i := range images {
			img, err := harness.NewImage(false)
			pushed = append(pushed, s.pushTo(t, s.project+"/app", fmt.Sprintf("v%d", i), img, err))
		}
		if err := h.SetFaults(t.Context(), slow); err != nil {
			t.Fatal(err)
		}
	})
	for _, p := range pushed {
		s.tell(t, p)
	}
	s.until(t, func(ctx context.Context) error {
		for _, lane := range []string{"live", "bulk"} {
			held := 0.0
			for _, signer := range s.Signers {
				m, err := s.Metrics(ctx, signer)
				if err != nil {
					return err
				}
				held += m.Sum("harborseal_queue_in_flight", `lane="`+lane+`"`)
			}
			if held != images {
				return fmt.Errorf("%v digests are in work in the lane %s, want %d", held, lane, images)
			}
		}
		return nil
	})
	if err := h.SetFaults(t.Context(), harness.Faults{}); err != nil {
		t.Fatal(err)
	}
	s.awaitSigned(t, pushed...)
	s.settled(t)
	for _, p := range pushed {
		s.judgeCarried(t, p, "both")
	}
	made := 0.0
	for _, signer := range s.Signers {
		m, err := s.Metrics(t.Context(), signer)
		if err != nil {
			t.Fatal(err)
		}
		made += m.Sum("harborseal_signing_outcomes_total", `how="made"`)
	}
	if made <= images {
		t.Errorf("signers attached signatures %v times, want more than once for some of %d digests: this test tests nothing", made, images)
	}
}
