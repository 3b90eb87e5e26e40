package inspect_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/inspect"
)

func newClient(t *testing.T, signers inspect.Asker) *inspect.Client {
	t.Helper()
	c, err := inspect.NewClient(signers)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func verify(t *testing.T, signers inspect.Asker, q inspect.Question) inspect.Result {
	t.Helper()
	r, err := newClient(t, signers).Verify(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestClientVerifiesIndexes(t *testing.T) {
	tests := []struct {
		name string
		// prepare gets an index of two images, one of which stands in a further index as well: all of them are signed.
		prepare            func(t *testing.T, w *world, all []artifact.Ref)
		verified, complete bool
		problem            string // of the last manifest that has one
	}{
		{"all signed", func(t *testing.T, _ *world, _ []artifact.Ref) { t.Helper() }, true, true, ""},
		{"a child is gone", func(t *testing.T, w *world, all []artifact.Ref) { t.Helper(); delete(w.manifests, all[1].Digest()) }, false, true, "not_in_registry"},
		{"a child is not signed", func(t *testing.T, w *world, all []artifact.Ref) {
			t.Helper()
			delete(w.manifests, w.formats.legacy.Tag(all[0].Digest()))
		}, false, true, "missing_signature"},
		{"the inner index is not signed", func(t *testing.T, w *world, all []artifact.Ref) {
			t.Helper()
			delete(w.manifests, w.formats.legacy.Tag(all[2].Digest()))
		}, false, true, "missing_signature"},
		{"the index itself is not signed", func(t *testing.T, w *world, all []artifact.Ref) {
			t.Helper()
			delete(w.manifests, w.formats.legacy.Tag(all[3].Digest()))
		}, false, true, "missing_signature"},
		{"a child cannot be read", func(t *testing.T, w *world, all []artifact.Ref) {
			t.Helper()
			w.fail = func(what string) error {
				if what == all[1].Digest() {
					return fault.Newf(fault.Transient, fault.Unavailable, "the registry is away")
				}
				return nil
			}
		}, false, false, "not_looked_at"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			one, two := w.image(t, 1), w.image(t, 2)
			inner := w.index(t, two)
			outer := w.index(t, one, two, inner)
			all := []artifact.Ref{one, two, inner, outer}
			for _, ref := range all {
				w.signBoth(t, ref, made{key: "one"})
			}
			tt.prepare(t, w, all)
			r := verify(t, w, inspect.Of(outer))
			problem := ""
			depths := ""
			for _, m := range r.Manifests {
				depths += fmt.Sprint(m.Depth)
				for _, p := range m.Problems {
					problem = string(p.Reason)
				}
			}
			if r.Verified != tt.verified || r.Complete != tt.complete || problem != tt.problem {
				t.Errorf("verified %t, complete %t because of %q; want %t, %t, %q", r.Verified, r.Complete, problem, tt.verified, tt.complete, tt.problem)
			}
			if depths != "0111" || r.Manifests[0].Digest != outer.Digest() {
				t.Errorf("manifests of depths %s, want the index and each of the three below it once", depths)
			}
		})
	}
}

// chain answers with indexes that each name one more, without end, or with one that names very many.
type chain struct{ width int }

func (c chain) Ask(_ context.Context, _ string, request []byte) ([]byte, error) {
	digest := string(request[strings.Index(string(request), "sha256:"):][:71])
	var next []string
	for n := range c.width {
		next = append(next, fmt.Sprintf("%q", artifact.DigestOf([]byte(fmt.Sprint(digest, n)))))
	}
	return fmt.Appendf(nil, `{"repository":"demo/app","digest":%q,"verified":true,"children":[%s],"children_total":%d}`, digest, strings.Join(next, ","), c.width), nil
}

func TestClientIsBounded(t *testing.T) {
	ref, err := artifact.NewRef("demo/app", artifact.DigestOf(nil))
	if err != nil {
		t.Fatal(err)
	}
	for width, want := range map[int]int{1: 4, 100: 1001} {
		if r := verify(t, chain{width}, inspect.Of(ref)); r.Verified || r.Complete || len(r.Manifests) != want {
			t.Errorf("indexes of %d without end: verified %t, complete %t, %d manifests; want %d, and neither", width, r.Verified, r.Complete, len(r.Manifests), want)
		}
	}
}

// answers is a signer that always says the same.
type answers struct {
	raw []byte
	err error

	mu    sync.Mutex
	asked int // guarded by mu
}

func (a *answers) Ask(context.Context, string, []byte) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	return a.raw, a.err
}

func TestClientErrors(t *testing.T) {
	away := fault.Newf(fault.Transient, fault.QueueUnavailable, "nobody answers")
	for name, tt := range map[string]struct {
		signers *answers
		kind    fault.Kind
	}{
		"nobody answers":          {&answers{err: away}, fault.Transient},
		"there is no such image":  {&answers{err: fault.Newf(fault.Gone, fault.NotFound, "gone")}, fault.Gone},
		"no JSON":                 {&answers{raw: []byte("x")}, fault.Transient},
		"about nothing":           {&answers{raw: []byte("{}")}, fault.Transient},
		"about another manifest":  {&answers{raw: []byte(`{"repository":"demo/app","digest":"` + artifact.DigestOf(nil) + `","verified":true}`)}, fault.Transient},
		"about another image":     {&answers{raw: []byte(`{"repository":"demo/other","digest":"` + artifact.DigestOf([]byte("x")) + `","verified":true}`)}, fault.Transient},
		"with a child that is no": {&answers{raw: []byte(`{"repository":"demo/app","digest":"` + artifact.DigestOf([]byte("x")) + `","verified":true,"children":["x"]}`)}, fault.Transient},
	} {
		_, err := newClient(t, tt.signers).Verify(t.Context(), inspect.Question{Repository: "demo/app", Reference: artifact.DigestOf([]byte("x"))})
		if err == nil || fault.Of(err).Kind != tt.kind {
			t.Errorf("%s: %v, want %s", name, err, tt.kind)
		}
	}
	silent := &answers{}
	if _, err := newClient(t, silent).Verify(t.Context(), inspect.Question{Repository: "demo", Reference: "v1"}); err == nil || silent.asked > 0 {
		t.Errorf("a question that is none: %v, asked %d times", err, silent.asked)
	}
}

// Evidence is that of the manifest alone.
func TestClientEvidence(t *testing.T) {
	w := newWorld(t)
	ref := w.image(t, 1)
	w.signBoth(t, ref, made{key: "one"})
	r, err := newClient(t, w).Evidence(t.Context(), ref)
	if err != nil || !r.Verified || len(r.Signatures) != 2 || r.Signatures[0].Documents == nil {
		t.Errorf("Evidence = %+v, %v", r, err)
	}
}

// What a signer says is the word of another program.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"repository":"demo/app","digest":"` + artifact.DigestOf(nil) + `","verified":true,"children":["` + artifact.DigestOf(nil) + `"],"children_total":3}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		q := inspect.Question{Repository: "demo/app", Reference: artifact.DigestOf(nil)}
		r, err := newClient(t, &answers{raw: raw}).Verify(t.Context(), q)
		if err == nil && (len(r.Manifests) == 0 || r.Manifests[0].Digest != q.Reference || r.Verified && !r.Complete) {
			t.Errorf("%q is taken for %+v", raw, r)
		}
	})
}
