package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

// wire carries questions to the functions that answer them.
type wire map[string]func(context.Context, []byte) ([]byte, error)

func (w wire) Ask(ctx context.Context, topic string, question []byte) ([]byte, error) {
	return w[topic](ctx, question)
}

func TestMemoryOverTheWire(t *testing.T) {
	w := newWorld()
	var refs []artifact.Ref
	for i := range 250 {
		ref := refOf(t, fmt.Sprint(i))
		w.tellSigned(t, ref, activeKey, fmt.Sprint(i))
		refs = append(refs, ref)
	}
	remote, err := reconcile.NewRemoteMemory(wire{
		reconcile.TopicKnown: reconcile.AnswerKnown(w), reconcile.TopicUnits: reconcile.AnswerUnits(w),
	})
	if err != nil {
		t.Fatal(err)
	}
	want, err := w.Known(t.Context(), refs[:100])
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Known(t.Context(), refs[:100])
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) || len(got) != 100 || len(got[0].Signatures) != 1 {
		t.Errorf("Known: %v and %v, want what the ledger says", got, err)
	}
	if _, err := remote.Known(t.Context(), refs[:101]); fault.Of(err).Reason != fault.TooLarge {
		t.Errorf("Known of 101: %v, want %s", err, fault.TooLarge)
	}
	var all []artifact.Ref
	for after, pages := "", 0; ; pages++ {
		page, next, err := remote.Units(t.Context(), "demo", after, 1000)
		if err != nil || pages > 10 {
			t.Fatalf("Units: %v after %d pages", err, pages)
		}
		all = append(all, page...)
		if after = next; next == "" {
			break
		}
	}
	slices.SortFunc(refs, func(a, b artifact.Ref) int { return slices.Compare([]byte(a.String()), []byte(b.String())) })
	if !slices.Equal(all, refs) {
		t.Errorf("Units gives %d digests, want all %d, sorted", len(all), len(refs))
	}
}

func TestAnswersThatDoNotFit(t *testing.T) {
	a, b := refOf(t, "a"), refOf(t, "b")
	for name, answer := range map[string]string{
		"nothing":       `{}`,
		"too few":       fmt.Sprintf(`{"known":[{"ref":%q}]}`, a),
		"another order": fmt.Sprintf(`{"known":[{"ref":%q},{"ref":%q}]}`, b, a),
		"no JSON":       `<html>`,
	} {
		remote, err := reconcile.NewRemoteMemory(wire{reconcile.TopicKnown: func(context.Context, []byte) ([]byte, error) { return []byte(answer), nil }})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := remote.Known(t.Context(), []artifact.Ref{a, b}); !fault.Is(err, fault.Transient) {
			t.Errorf("%s: %v, want a transient fault", name, err)
		}
	}
	away := errors.New("nobody there")
	remote, err := reconcile.NewRemoteMemory(wire{
		reconcile.TopicKnown: func(context.Context, []byte) ([]byte, error) { return nil, away },
		reconcile.TopicUnits: func(context.Context, []byte) ([]byte, error) { return []byte(`{"next":"x"}`), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Known(t.Context(), []artifact.Ref{a}); !errors.Is(err, away) {
		t.Errorf("Known: %v, want %v", err, away)
	}
	if _, _, err := remote.Units(t.Context(), "demo", "x", 1); err == nil {
		t.Error("Units goes round in circles")
	}
}

func FuzzQuestions(f *testing.F) {
	f.Add([]byte(`{"refs":["demo/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]}`))
	f.Add([]byte(`{"refs":[""]}`))
	f.Add([]byte(`{"project":"demo","after":"x","limit":5}`))
	f.Add([]byte(`{"project":"../x","limit":-1}`))
	w := newWorld()
	f.Fuzz(func(t *testing.T, question []byte) {
		for _, answer := range []func(context.Context, []byte) ([]byte, error){reconcile.AnswerKnown(w), reconcile.AnswerUnits(w)} {
			if data, err := answer(t.Context(), question); err == nil && len(data) == 0 {
				t.Errorf("%s is answered by nothing", question)
			}
		}
	})
}
