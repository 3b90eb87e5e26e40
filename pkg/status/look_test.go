package status_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/status"
)

// shelf holds manifests by repository and reference.
type shelf struct {
	manifests map[string]artifact.Manifest
	err       error
}

func (s shelf) Manifest(_ context.Context, repository, reference string) (artifact.Manifest, error) {
	m, found := s.manifests[repository+" "+reference]
	switch {
	case s.err != nil:
		return artifact.Manifest{}, s.err
	case !found:
		return artifact.Manifest{}, fault.Newf(fault.Gone, fault.NotFound, "not there")
	}
	return m, nil
}

// asks is a receiver that asks the signer of a shelf.
func asks(s shelf) status.Asking {
	answer := status.AnswerLook(s)
	return status.Asking{Ask: func(ctx context.Context, topic string, question []byte) ([]byte, error) {
		if topic != status.LookTopic {
			return nil, errors.New("another topic")
		}
		return answer(ctx, question)
	}}
}

func manifest(raw string) artifact.Manifest {
	return artifact.Manifest{MediaType: indexType, Digest: artifact.DigestOf([]byte(raw)), Raw: []byte(raw)}
}

func TestLooking(t *testing.T) {
	index := manifest(`{"schemaVersion":2,"manifests":[{"digest":"` + digest + `"}]}`)
	strange := manifest(`no manifest`)
	s := shelf{manifests: map[string]artifact.Manifest{
		repository + " v1": index, repository + " " + index.Digest: index, repository + " odd": strange,
	}}
	a := asks(s)
	for _, reference := range []string{"v1", index.Digest} {
		got, err := a.Resolve(t.Context(), repository, reference)
		if err != nil || got.Ref != ref(t, index.Digest) || len(got.Children) != 1 || got.Children[0] != digest {
			t.Errorf("Resolve(%s) = %+v, %v; want the index with its child", reference, got, err)
		}
	}
	if got, err := a.Resolve(t.Context(), repository, "odd"); err != nil || got.Ref.Digest() != strange.Digest {
		t.Errorf("what cannot be read: %+v, %v; want that it is there", got, err)
	}
	if _, err := a.Resolve(t.Context(), repository, "v2"); !fault.Is(err, fault.Gone) {
		t.Errorf("what is not there: %v, want gone", err)
	}
	for of, want := range map[string]bool{index.Digest: true, digest: false} {
		if got, err := a.Answers(t.Context(), ref(t, of)); err != nil || got != want {
			t.Errorf("Answers(%s) = %t, %v; want %t", of, got, err, want)
		}
	}
	away := asks(shelf{err: fault.Newf(fault.Transient, fault.Timeout, "away")})
	if got, err := away.Answers(t.Context(), ref(t, digest)); got || !fault.Is(err, fault.Transient) {
		t.Errorf("a signer that cannot read: %t, %v; want a transient fault", got, err)
	}
}

// TestLookingBelievesNothing: neither side takes what the other makes up.
func TestLookingBelievesNothing(t *testing.T) {
	answer := status.AnswerLook(shelf{})
	for _, question := range []string{
		"", "[]", "{}", `{"repository":"demo/app"}`, `{"repository":"demo/../app","reference":"v1"}`, `{"repository":"demo/app","reference":"../v1"}`,
		`{"repository":"` + strings.Repeat("a", 2000) + `/b","reference":"v1"}`,
	} {
		if got, err := answer(t.Context(), []byte(question)); !fault.Is(err, fault.Permanent) {
			t.Errorf("question %.40q: %s, %v; want a permanent fault", question, got, err)
		}
	}
	for _, raw := range []string{"", "null,", `{"digest":"sha256:0"}`, `{"digest":7}`} {
		a := status.Asking{Ask: func(context.Context, string, []byte) ([]byte, error) { return []byte(raw), nil }}
		if got, err := a.Resolve(t.Context(), repository, "v1"); !fault.Is(err, fault.Transient) {
			t.Errorf("answer %q: %+v, %v; want a transient fault", raw, got, err)
		}
	}
	other := status.Asking{Ask: func(context.Context, string, []byte) ([]byte, error) {
		return []byte(`{"digest":"` + digest + `"}`), nil
	}}
	if got, err := other.Answers(t.Context(), ref(t, digestOf("b"))); got || !fault.Is(err, fault.Transient) {
		t.Errorf("an answer about another manifest: %t, %v; want a transient fault", got, err)
	}
}
