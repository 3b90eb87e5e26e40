package ledgertest

import (
	"errors"
	"reflect"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
)

// AllUnits gives all digests of a project, by turning pages of so many.
func AllUnits(t TB, view View, project string, limit int) []artifact.Ref {
	t.Helper()
	var refs []artifact.Ref
	for after := ""; ; {
		page, next, err := view.Units(t.Context(), project, after, limit)
		if err != nil || len(page) > limit || next != "" && len(page) != limit || next != "" && next == after {
			t.Fatalf("Units(%s, %q, %d) = %v, %q, %v; want full pages but for the last", project, after, limit, page, next, err)
		}
		refs = append(refs, page...)
		if next == "" {
			return refs
		}
		after = next
	}
}

// testUnits wants each digest once that was there all along, whatever is written while pages are turned.
func testUnits(t TB, view View) {
	basis := Begin(t, view)
	var entries []artifact.Entry
	add := func(kind artifact.Kind, ref artifact.Ref, reason policy.Reason) {
		e := Event(kind, ref)
		e.Reason = string(reason)
		entries = append(entries, artifact.Entry{Seq: uint64(len(entries)) + 1, Event: e})
	}
	var want []string
	for _, repository := range []string{"demo/a", "demo/a-b", "demo/a/b", "demo/a.b", "demo/zz"} {
		for n := range 7 {
			add(artifact.Received, Ref(repository, n), "")
			want = append(want, Ref(repository, n).String())
		}
		add(artifact.Vanished, Ref(repository, 100), "")
		add(artifact.Skipped, Ref(repository, 101), policy.IsAccessory)
		add(artifact.Skipped, Ref(repository, 0), policy.Exempt)
		add(artifact.Skipped, Ref(repository, 1), policy.OwnPush) // whose push it was proves nothing
	}
	// Neighbours in any order of names.
	for _, repository := range []string{"dem/a", "demo-a/a", "demo.a/a", "demo0/a", "demoa/a"} {
		add(artifact.Received, Ref(repository, 1), "")
	}
	Apply(t, view, basis, entries...)
	// By bytes: "demo/a" with its digests comes before "demo/a-b", and so on.
	slices.SortFunc(want, func(a, b string) int {
		return strings.Compare(strings.Replace(a, "@", "\x00", 1), strings.Replace(b, "@", "\x00", 1))
	})
	var got []string
	for after, seq := "", uint64(1000); ; seq++ {
		refs, next, err := view.Units(t.Context(), "demo", after, 3)
		if err != nil {
			t.Fatalf("Units(demo, %q): %v", after, err)
		}
		for _, ref := range refs {
			got = append(got, ref.String())
		}
		if next == "" {
			break
		}
		after = next
		if seq == 1000 { // the last digest of the page goes
			Apply(t, view, basis, artifact.Entry{Seq: seq, Event: Event(artifact.Vanished, refs[2])})
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("Units(demo) = %d: %v, want %d: %v", len(got), got, len(want), want)
	}
	for _, tt := range []struct {
		project, after string
		limit          int
		field          string
	}{
		{"", "", 1, "project"},
		{"de mo", "", 1, "project"},
		{"demo", "", -1, "limit"},
		{"demo", "", ledger.MaxLimit + 1, "limit"},
		{"demo", "x", 1, "after"},
		{"demo", Ref("other/app", 1).String(), 1, "after"},
	} {
		_, _, err := view.Units(t.Context(), tt.project, tt.after, tt.limit)
		if invalid := new(ledger.InvalidQueryError); !errors.As(err, &invalid) || invalid.Field != tt.field {
			t.Errorf("Units(%q, %q, %d): error %v, want one about %s", tt.project, tt.after, tt.limit, err, tt.field)
		}
	}
}

// testSoleKey asks who signed, and what else there is to be lost with a key.
func testSoleKey(t TB, view View) {
	signed := func(n int, keys ...string) artifact.Event {
		e := Event(artifact.Signed, Ref("demo/app", n))
		for _, key := range keys {
			e.Signatures = append(e.Signatures, artifact.Evidence{Format: artifact.Legacy, KeyID: key, Digest: "s"})
		}
		e.KeyID = "k1" // of the first, as the event says once more
		return e
	}
	of := func(kind artifact.Kind, n int) artifact.Event { return Event(kind, Ref("demo/app", n)) }
	Apply(t, view, Begin(t, view), Entries(
		signed(1, "k1"), signed(2, "k1", "k1"), signed(3, "k1", "k2"), signed(4, "k2"),
		signed(5, "k1"), of(artifact.Removed, 5), signed(6, "k1"), of(artifact.Vanished, 6), signed(7, "k1"), of(artifact.Failed, 7),
		signed(8), // of an older program
		signed(9, "k1"), signed(9, "k2", "k1"), signed(10, "k1", "k2"), signed(10, "k1"), of(artifact.Received, 11),
	)...)
	for _, tt := range []struct {
		q    ledger.Query
		want []int
	}{
		{ledger.Query{SignedOnlyBy: "k1"}, []int{1, 2, 7, 8, 10}},
		{ledger.Query{SignedOnlyBy: "k1", Project: "demo"}, []int{1, 2, 7, 8, 10}},
		{ledger.Query{SignedOnlyBy: "k1", Projects: []string{"demo", "other"}}, []int{1, 2, 7, 8, 10}},
		{ledger.Query{SignedOnlyBy: "k1", Projects: []string{"other"}}, nil},
		{ledger.Query{SignedOnlyBy: "k1", State: ledger.Unsigned}, nil},
		{ledger.Query{SignedOnlyBy: "k2"}, []int{4}},
		{ledger.Query{SignedOnlyBy: "k3"}, nil},
	} {
		var got, want []string
		for _, row := range All(t, view, tt.q) {
			got = append(got, row.Digest)
		}
		for _, n := range tt.want {
			want = append(want, Ref("demo/app", n).Digest())
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("Signatures(%+v) = %v, want %v, which are %v", tt.q, got, want, tt.want)
		}
	}
}

func testKnown(t TB, view View) {
	basis := Begin(t, view)
	evidence := []artifact.Evidence{{Format: artifact.Legacy, KeyID: "k", Digest: "s"}, {Format: artifact.Bundle, KeyID: "k", Digest: "b"}}
	swept := Event(artifact.Signed, Ref("demo/app", 1))
	swept.Signatures, swept.Accessories, swept.KeySet = evidence, []string{"s", "b", "foreign"}, "keys"
	gone := Event(artifact.Vanished, Ref("demo/app", 1))
	gone.Reason = "deleted"
	signed := Event(artifact.Signed, Ref("demo/app", 2))
	signed.Signatures = evidence[:1]
	late := signed // a look that nobody wrote down, after one of a sweep
	late.Ref = Ref("demo/app", 3)
	before := swept
	before.Ref = late.Ref
	boundless := swept
	boundless.Ref, boundless.Accessories = Ref("demo/app", 4), slices.Repeat([]string{"x"}, 1000)
	failed := Event(artifact.Failed, signed.Ref)
	failed.Reason = "of no interest once it is signed"
	entries := Entries(swept, gone, failed, signed, before, late, boundless)
	Apply(t, view, basis, entries...)

	var refs []artifact.Ref
	var want []artifact.Known
	add := func(k artifact.Known) { refs, want = append(refs, k.Ref), append(want, k) }
	for n := range 1200 { // more than one statement asks for
		add(artifact.Known{Ref: Ref("demo/none", n)})
		switch n {
		case 2, 700:
			add(artifact.Known{Ref: signed.Ref, State: "signed", Signatures: evidence[:1]})
		case 3:
			add(artifact.Known{
				Ref: swept.Ref, State: "gone", Reason: "deleted", Signatures: evidence, Accessories: swept.Accessories, KeySet: "keys",
			})
		case 4:
			add(artifact.Known{Ref: late.Ref, State: "signed", Signatures: evidence[:1]})
		case 5:
			add(artifact.Known{Ref: boundless.Ref, State: "signed", Signatures: evidence})
		default:
		}
	}
	got, err := view.Known(t.Context(), refs)
	if err != nil || len(got) != len(want) {
		t.Fatalf("Known() = %d, %v; want %d", len(got), err, len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("known of digest %d = %+v, want %+v", i, got[i], want[i])
		}
	}
	if got, err := view.Known(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("Known() of nothing = %v, %v; want nothing", got, err)
	}
}
