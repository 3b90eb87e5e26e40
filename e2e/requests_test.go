//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// counted are requests by their kind, as the emulator counts them: tokens, HEADs and refused ones included.
type counted map[string]int

func (c counted) add(more counted) {
	for kind, n := range more {
		c[kind] += n
	}
}

// minus gives what has been added since, without zeros.
func (c counted) minus(before counted) counted {
	diff := maps.Clone(c)
	for kind, n := range before {
		diff[kind] -= n
	}
	maps.DeleteFunc(diff, func(_ string, n int) bool { return n == 0 })
	return diff
}

// The requests of one signature, each of which is one that Harbor has to answer. Where one of these numbers grows, so do
// the hours that a backfill takes.
func TestRequestsOfASignature(t *testing.T) {
	t.Parallel()
	h := newEmulator(t, "")
	s := newStage(t, h, 3, func(projects []string) option {
		each := inEachFormat(projects)
		return func(o *harness.Options) {
			each(o)
			o.Probe = 5 * time.Minute
		}
	})
	s.settled(t)
	// Registry, API, token and queue are probed once at the start; their requests are none of a signature.
	s.awaitCount(t, 4, "harborseal_dependency_up")
	keys := otherKeys(t)
	// What all signatures cost: the image, the look for signatures, the payload, the manifest, and the read-back.
	legacy := counted{"GET manifest": 3, "POST upload": 1, "PUT upload": 1, "PUT manifest": 1}
	bundle := counted{"GET manifest": 1, "GET referrers": 2, "POST upload": 1, "PUT upload": 1, "PUT manifest": 1}
	both := counted{"GET manifest": 3, "GET referrers": 2, "POST upload": 2, "PUT upload": 2, "PUT manifest": 2}
	// The look for what concurrent writers have overwritten, behind the answer: at once, and once more after 30 seconds.
	look := counted{"GET referrers": 1}
	// A repository that this signer has not signed in: the token, and the constant configuration.
	repository := counted{"GET token": 1, "POST upload": 1, "PUT upload": 1}

	total, before := counted{}, s.requests(t.Context(), t)
	for _, tt := range []struct {
		name, format, repository string
		foreign                  func(p harness.Pushed)
		want                     []counted
		// later is the second look.
		later counted
	}{
		// The first request of a process asks what kind of token the registry wants.
		{"bundle cold", "bundle", "app", nil, []counted{bundle, repository, {"GET registry": 1}}, nil},
		{"bundle warm", "bundle", "app", nil, []counted{bundle}, nil},
		{"bundle in another repository", "bundle", "another", nil, []counted{bundle, repository}, nil},
		// The other bundle is read once, the attestation never: the listing says what it is.
		{
			"bundle beside another signature", "bundle", "app", func(p harness.Pushed) { s.signBundle(t, keys, p) },
			[]counted{bundle, {"GET manifest": 1, "GET blob": 1}},
			nil,
		},
		{
			"bundle beside an attestation", "bundle", "app", func(p harness.Pushed) { s.attest(t, harness.EnvCosignV3, keys, p) },
			[]counted{bundle},
			nil,
		},
		{"both cold", "both", "app", nil, []counted{both, repository, look}, look},
		{"both warm", "both", "app", nil, []counted{both, look}, look},
		{"legacy cold", "legacy", "app", nil, []counted{legacy, repository, look}, look},
		{"legacy warm", "legacy", "app", nil, []counted{legacy, look}, look},
		// Two manifests are listed. That of the other signature, which the tag has left, is read once, the tag's in each look. It
		// comes last: its second look is unlike the others.
		{
			"legacy beside another signature", "legacy", "app", func(p harness.Pushed) { s.signLegacy(t, keys, p) },
			// Whether a rule locks a tag that others wrote is asked once for the project, and known for 5 minutes.
			[]counted{legacy, look, {"GET manifest": 2, "GET api": 1}},
			counted{"GET referrers": 1, "GET manifest": 1},
		},
	} {
		want := counted{}
		for _, some := range tt.want {
			want.add(some)
		}
		t.Run(tt.name, func(t *testing.T) {
			start := s.requests(t.Context(), t)
			var p harness.Pushed
			s.silently(t, func() {
				img, err := harness.NewImage(false)
				p = s.pushTo(t, s.projectOf(tt.format)+"/"+tt.repository, "v1", img, err)
				if tt.foreign != nil {
					tt.foreign(p)
				}
			})
			told, looks := s.requests(t.Context(), t), s.looks(t.Context(), t)
			total.add(told.minus(start))
			s.tell(t, p)
			s.awaitSigned(t, p)
			s.until(t, func(ctx context.Context) error {
				got := s.requests(ctx, t).minus(told)
				// Second looks of earlier images may have come meanwhile.
				late := s.looks(ctx, t) - looks
				if carries(tt.format, "legacy") {
					late--
				}
				if late > 0 {
					got = got.minus(counted{"GET referrers": late})
				}
				if !maps.Equal(got, want) {
					return fmt.Errorf("the requests are %v, want %v", got, want)
				}
				return nil
			})
			total.add(want)
			total.add(tt.later)
		})
	}
	// In the end all second looks have come, and nothing else.
	s.eventually(t, func(ctx context.Context) error {
		if got := s.requests(ctx, t).minus(before); !maps.Equal(got, total) {
			return fmt.Errorf("all requests are %v, want %v", got, total)
		}
		return nil
	})
	const perLegacy, legacies = 2, 5 // the images in a format with the .sig tag
	if got, want := s.looks(t.Context(), t), perLegacy*legacies; got != want {
		t.Errorf("the signer has looked %d times for overwritten signatures, want %d", got, want)
	}
}

// requests are those that the emulator has counted so far.
func (s *stage) requests(ctx context.Context, t *testing.T) counted {
	t.Helper()
	stats, err := s.site.Harbor.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return stats.Requests
}

// looks is how often the signer has looked for overwritten signatures.
func (s *stage) looks(ctx context.Context, t *testing.T) int {
	t.Helper()
	m, err := s.Metrics(ctx, s.Signers[0])
	if err != nil {
		t.Fatal(err)
	}
	return int(m.Sum("harborseal_signing_tag_looks_total"))
}

// projectOf is the project that is signed in a format.
func (s *stage) projectOf(format string) string { return s.projects[slices.Index(formats(), format)] }

// signLegacy signs as cosign v2 does, signBundle as v3 does.
func (w *world) signLegacy(t *testing.T, keys harness.Keys, p harness.Pushed) {
	t.Helper()
	if err := withKey(t, w.client(t, harness.EnvCosignV2), keys, "sign", "--yes", "--key", keys.Private, "--tlog-upload=false", w.image(p)); err != nil {
		t.Fatal(err)
	}
}

func (w *world) signBundle(t *testing.T, keys harness.Keys, p harness.Pushed) {
	t.Helper()
	err := withKey(t, w.client(t, harness.EnvCosignV3), keys,
		"sign", "--yes", "--key", keys.Private, "--use-signing-config=false", "--tlog-upload=false", w.image(p))
	if err != nil {
		t.Fatal(err)
	}
}
