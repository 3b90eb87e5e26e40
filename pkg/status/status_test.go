package status_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/status"
)

// expect compares what matters of an answer.
func expect(t *testing.T, got status.Answer, outcome status.Outcome, reason string) {
	t.Helper()
	if got.Outcome != outcome || got.Reason != reason {
		t.Fatalf("answer %+v, want %s %q", got, outcome, reason)
	}
	if outcome == status.Refused && got.WhatToDo == "" {
		t.Errorf("answer %+v says not what to do", got)
	}
}

// TestOnlyWhatIsInTheRegistryIsSigned follows a signature that comes, goes, and comes again.
func TestOnlyWhatIsInTheRegistryIsSigned(t *testing.T) {
	w := newWorld(t)
	r := w.push(t, "v1", image(t))
	evidence := w.sign(t, r)
	w.happens(t, w.event(artifact.Received, r), w.signed(r, imageType, evidence))

	got := w.ask(t, repository+":v1")
	expect(t, got, status.Signed, "")
	if got.Digest != r.Digest() || got.Image != host+"/"+repository+":v1" || len(got.Signatures) != 1 || got.CheckedAt == nil || !got.CheckedAt.Equal(w.clock.Now()) {
		t.Errorf("answer %+v, want the digest, one signature, and when it was seen", got)
	}

	before := w.harbor.Stats().Requests["HEAD manifest"]
	w.remove(t, ref(t, evidence.Digest))
	w.clock.pass(9 * time.Second)
	expect(t, w.ask(t, repository+"@"+r.Digest()), status.Signed, "")
	w.clock.pass(2 * time.Second)
	expect(t, w.ask(t, repository+"@"+r.Digest()), status.Pending, status.SignatureMissing)
	if got := w.harbor.Stats().Requests["HEAD manifest"] - before; got != 1 {
		t.Errorf("the registry was asked %d times, want once after 10 s", got)
	}
	if w.door.count() != 1 {
		t.Errorf("it was asked for %d times, want once", w.door.count())
	}
	w.ask(t, repository+"@"+r.Digest())
	if w.door.count() != 1 {
		t.Errorf("it was asked for %d times within 10 s, want once", w.door.count())
	}

	w.clock.pass(time.Second)
	w.happens(t, w.signed(r, imageType, w.sign(t, r)))
	expect(t, w.ask(t, repository+"@"+r.Digest()), status.Pending, status.SignatureMissing)
	w.clock.pass(3 * time.Second) // nobody waited, so that the event was not listened to: absence is forgotten after 2 s
	expect(t, w.ask(t, repository+"@"+r.Digest()), status.Signed, "")
}

func TestWhatHarborDoesNotHave(t *testing.T) {
	w := newWorld(t)
	r := w.push(t, "v1", image(t))
	expect(t, w.ask(t, repository+":v2"), status.Missing, "")
	expect(t, w.ask(t, repository+"@"+digest), status.Missing, "")
	expect(t, w.ask(t, "demo/none:v1"), status.Missing, "")
	if w.door.count() != 0 {
		t.Errorf("what is not there was asked for: %v", w.door.asked)
	}

	// What was gone and is there again is asked for; what is signed by the ledger and gone from Harbor is not signed.
	w.happens(t, w.event(artifact.Vanished, r))
	expect(t, w.ask(t, repository+":v1"), status.Pending, status.Asked)
	evidence := w.sign(t, r)
	w.happens(t, w.signed(r, imageType, evidence))
	w.remove(t, r)
	w.clock.pass(11 * time.Second)
	expect(t, w.ask(t, repository+"@"+r.Digest()), status.Missing, "")
}

func TestWhatNobodyAskedForIsAskedFor(t *testing.T) {
	w := newWorld(t)
	r := w.push(t, "v1", image(t))
	got := w.ask(t, repository+":v1")
	expect(t, got, status.Pending, status.Asked)
	if got.State != "pending" || got.Digest != r.Digest() {
		t.Errorf("answer %+v, want pending, and the digest", got)
	}
	if want := r.String() + " v1 ci"; w.door.count() != 1 || w.door.asked[0] != want {
		t.Errorf("asked for %v, want %q", w.door.asked, want)
	}
	w.clock.pass(time.Minute)
	w.door.reason = policy.IsAccessory
	expect(t, w.ask(t, repository+"@"+r.Digest()), status.Refused, string(policy.IsAccessory))
	if want := r.String() + "  ci"; w.door.asked[1] != want {
		t.Errorf("asked for %q, want no tag for who names a digest", w.door.asked[1])
	}
}

// TestStates goes through what the ledger can say of a digest that is there and not signed.
func TestStates(t *testing.T) {
	with := func(reason, detail string) func(*artifact.Event) {
		return func(e *artifact.Event) { e.Reason, e.Detail = reason, detail }
	}
	old := func(e *artifact.Event) { e.PolicyRevision = "api-2" }
	for _, tt := range []struct {
		name    string
		kind    artifact.Kind
		change  []func(*artifact.Event)
		policy  func(p *policy.Policy)
		outcome status.Outcome
		reason  string
		says    string
		asked   int
	}{
		{"received", artifact.Received, nil, nil, status.Pending, status.Queued, "", 0},
		{"failed", artifact.Failed, []func(*artifact.Event){with("unavailable", "harbor answers 502")}, nil, status.Pending, status.Retrying, "unavailable: harbor answers 502", 0},
		{"paused", artifact.Received, nil, func(p *policy.Policy) { p.Pause = &policy.Pause{Paused: true, By: "ann", Reason: "upgrade"} }, status.Pending, status.SigningPaused, "by ann", 0},
		{"dead", artifact.Dead, []func(*artifact.Event){with("quota_exceeded", "the project is full")}, nil, status.Refused, "quota_exceeded", "the project is full", 0},
		{"dead of an older policy", artifact.Dead, []func(*artifact.Event){with("too_old", ""), old}, nil, status.Refused, "too_old", "", 0},
		{"skipped", artifact.Skipped, []func(*artifact.Event){with("tag_excluded", "")}, nil, status.Refused, "tag_excluded", "", 0},
		{"skipped by an older policy", artifact.Skipped, []func(*artifact.Event){with("tag_excluded", ""), old}, nil, status.Pending, status.Asked, "", 1},
		{"removed", artifact.Removed, nil, nil, status.Pending, status.Asked, "", 1},
		{"observed", artifact.Skipped, []func(*artifact.Event){with("observed", "")}, func(p *policy.Policy) { p.Mode = policy.ModeObserve }, status.Refused, "observed", "", 0},
		{"observed before", artifact.Skipped, []func(*artifact.Event){with("observed", "")}, nil, status.Pending, status.Asked, "", 1},
		{"policy off", artifact.Received, nil, func(p *policy.Policy) { p.Mode = policy.ModeOff }, status.Refused, "project_not_enabled", "", 0},
		{"policy suspended", artifact.Received, nil, func(p *policy.Policy) { p.SuspendedFor = 7 }, status.Refused, "project_suspended", "", 0},
		{"blocked", artifact.Blocked, nil, func(p *policy.Policy) { p.Blocks = []policy.Block{{Digest: digest, By: "eve", Reason: "cve"}} }, status.Refused, "blocked", "by eve: cve", 0},
		{"blocked no more", artifact.Blocked, nil, nil, status.Pending, status.Asked, "", 1},
		{
			"exempt", artifact.Skipped,
			[]func(*artifact.Event){with("exempt", "")},
			func(p *policy.Policy) { p.Exemptions = []policy.Exemption{exemption(time.Hour)} }, status.Refused, "exempt", "exempted by eve", 0,
		},
		{
			"exempt no more", artifact.Skipped,
			[]func(*artifact.Event){with("exempt", "")},
			func(p *policy.Policy) { p.Exemptions = []policy.Exemption{exemption(-time.Hour)} }, status.Pending, status.Asked, "", 1,
		},
		{"gone", artifact.Vanished, nil, nil, status.Pending, status.Asked, "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			registry := &counted{}
			w := newWorld(t, func(c *status.Config) { c.Registry = registry })
			w.happens(t, w.event(tt.kind, ref(t, digest), tt.change...))
			if tt.policy != nil {
				w.book.set(tt.policy)
			}
			got := w.ask(t, repository+"@"+digest)
			expect(t, got, tt.outcome, tt.reason)
			if !strings.Contains(got.Detail, tt.says) || w.door.count() != tt.asked {
				t.Errorf("answer %+v, asked for %d times; want a detail with %q, %d times", got, w.door.count(), tt.says, tt.asked)
			}
			if tt.kind != artifact.Vanished && registry.count() != 0 {
				t.Errorf("Harbor was asked %d times, want never", registry.count())
			}
		})
	}
}

// TestWithoutHarborNothingIsSigned: Harbor or the view being away is an error, whatever the ledger says.
func TestWithoutHarborNothingIsSigned(t *testing.T) {
	w := newWorld(t)
	r := w.push(t, "v1", image(t))
	w.happens(t, w.signed(r, imageType, w.sign(t, r)))
	w.harbor.SetFaults(harbortest.Faults{Status: 502, Rate: 1})
	for _, reference := range []string{repository + ":v1", repository + "@" + r.Digest()} {
		got, err := w.Ask(t.Context(), w.question(t, reference, 0))
		if !fault.Is(err, fault.Transient) || got.Outcome == status.Signed {
			t.Errorf("%s with Harbor away: %+v, %v; want a transient fault", reference, got, err)
		}
	}
	w.harbor.SetFaults(harbortest.Faults{})
	expect(t, w.ask(t, repository+":v1"), status.Signed, "")
	w.view.fail(fault.Newf(fault.Transient, fault.StorageUnavailable, "away"))
	if got, err := w.Ask(t.Context(), w.question(t, repository+":v1", 0)); !fault.Is(err, fault.Transient) {
		t.Errorf("with the view away: %+v, %v; want a transient fault", got, err)
	}
	w.view.fail(nil)
	w.book.err = policy.ErrNotLoaded
	w.happens(t, w.event(artifact.Removed, r))
	if got, err := w.Ask(t.Context(), w.question(t, repository+":v1", 0)); !fault.Is(err, fault.Transient) {
		t.Errorf("without policies: %+v, %v; want a transient fault", got, err)
	}
}

// TestIndexes: an index is signed when everything below it is.
func TestIndexes(t *testing.T) {
	w := newWorld(t)
	index, err := random.Index(64, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	r := w.push(t, "multi", index)
	first, second := ref(t, manifest.Manifests[0].Digest.String()), ref(t, manifest.Manifests[1].Digest.String())
	about := repository + "@" + r.Digest()

	w.happens(t, w.signed(r, indexType, w.sign(t, r)))
	got := w.ask(t, about)
	expect(t, got, status.Pending, status.Children)
	if got.Children == nil || got.Children.Total != 2 || got.Children.Signed != 0 || len(got.Children.Unsigned) != 2 {
		t.Errorf("children %+v, want none of 2", got.Children)
	}
	if w.door.count() != 1 {
		t.Errorf("asked for %v, want the index once: nobody is at work on its children", w.door.asked)
	}

	evidence := w.sign(t, first)
	w.happens(t, w.signed(first, imageType, evidence), w.event(artifact.Dead, second, func(e *artifact.Event) { e.Reason = "too_old" }))
	got = w.ask(t, about)
	expect(t, got, status.Refused, status.ChildRefused)
	if got.Children.Signed != 1 || got.Children.Unsigned[0] != (status.Child{Digest: second.Digest(), State: "dead", Reason: "too_old"}) {
		t.Errorf("children %+v, want one of 2, and the dead one", got.Children)
	}

	w.happens(t, w.signed(second, imageType, w.sign(t, second)))
	got = w.ask(t, about)
	expect(t, got, status.Signed, "")
	if got.Children.Signed != 2 || len(got.Children.Unsigned) != 0 {
		t.Errorf("children %+v, want 2 of 2", got.Children)
	}

	w.remove(t, ref(t, evidence.Digest))
	w.clock.pass(11 * time.Second)
	got = w.ask(t, about)
	expect(t, got, status.Pending, status.Children)
	if got.Children.Unsigned[0].Reason != status.SignatureMissing {
		t.Errorf("children %+v, want the signature of the first to be missing", got.Children)
	}
}

// TestNestedIndexes has an index of an index, and one that names itself, which no registry has.
func TestNestedIndexes(t *testing.T) {
	other, leaf := digestOf("b"), digestOf("c")
	registry := &counted{children: map[string][]string{digest: {other}, other: {leaf, digest}}}
	w := newWorld(t, func(c *status.Config) { c.Registry = registry })
	evidence := artifact.Evidence{Format: artifact.Legacy, KeyID: "key", Digest: digestOf("d")}
	w.happens(t, w.signed(ref(t, digest), indexType, evidence), w.signed(ref(t, other), indexType, evidence), w.event(artifact.Queued, ref(t, leaf)))
	got := w.ask(t, repository+"@"+digest)
	expect(t, got, status.Pending, status.Children)
	if got.Children.Total != 2 || got.Children.Signed != 1 || got.Children.Unsigned[0].Digest != leaf {
		t.Errorf("children %+v, want 1 of 2: the leaf is missing", got.Children)
	}
	w.happens(t, w.signed(ref(t, leaf), imageType, evidence))
	expect(t, w.ask(t, repository+"@"+digest), status.Signed, "")

	calls := registry.count()
	w.ask(t, repository+"@"+digest)
	if got := registry.count() - calls; got != 0 {
		t.Errorf("Harbor was asked %d times more within 10 s, want never", got)
	}
}

// TestWideIndexes: an index beyond every limit is no endless work.
func TestWideIndexes(t *testing.T) {
	chain := map[string][]string{}
	for i := range 10 {
		chain[digestOf(string("0123456789"[i]))] = []string{digestOf(string("123456789a"[i]))}
	}
	root := digestOf("0")
	w := newWorld(t, func(c *status.Config) { c.Registry = &counted{children: chain} })
	w.happens(t, w.signed(ref(t, root), indexType, artifact.Evidence{Digest: digest}))
	_, err := w.Ask(t.Context(), w.question(t, repository+"@"+root, 0))
	if fault.Of(errors.Join(err)).Reason != fault.TooManyChildren {
		t.Errorf("Ask = %v, want too many children", err)
	}
}

// TestPlaces: what the queue says completes what the ledger says.
func TestPlaces(t *testing.T) {
	var lane artifact.Lane
	var place status.Place
	var away error
	w := newWorld(t, func(c *status.Config) {
		c.Registry = &counted{}
		c.Place = func(_ context.Context, _ artifact.Ref) (artifact.Lane, status.Place, error) { return lane, place, away }
	})
	w.happens(t, w.event(artifact.Received, ref(t, digest)))
	ask := func() status.Answer { return w.ask(t, repository+"@"+digest) }
	expect(t, ask(), status.Pending, status.Recording)
	lane, place = artifact.Bulk, status.Place{AheadEstimate: 7}
	got := ask()
	expect(t, got, status.Pending, status.Queued)
	if got.Lane != artifact.Bulk || got.Place == nil || got.Place.AheadEstimate != 7 {
		t.Errorf("answer %+v, want 7 before it in the lane bulk", got)
	}
	place.HandedOut = true
	expect(t, ask(), status.Pending, status.InWork)
	away = errors.New("away")
	if got := ask(); got.Reason != status.Queued || got.Place != nil {
		t.Errorf("answer %+v without the queue, want it without a place", got)
	}
}

func exemption(ends time.Duration) policy.Exemption {
	return policy.Exemption{
		Approver: "eve", Reason: "legacy", Expires: ledgertest.Epoch().Add(ends),
	}
}
