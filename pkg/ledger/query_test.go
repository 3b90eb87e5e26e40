package ledger_test

import (
	"encoding/base64"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

func TestFilter(t *testing.T) {
	digest := ledgertest.Ref("demo/app", 1).Digest()
	at := ledgertest.Epoch()
	tests := []struct {
		name string
		q    ledger.Query
		want ledger.Filter
	}{
		{"nothing", ledger.Query{}, ledger.Filter{Limit: 100}},
		{"full repository", ledger.Query{Repository: "demo/app"}, ledger.Filter{Repository: "demo/app", Limit: 100}},
		{"repository below the project", ledger.Query{Project: "demo", Repository: "app"}, ledger.Filter{Project: "demo", Repository: "demo/app", Limit: 100}},
		{"full repository and project", ledger.Query{Project: "demo", Repository: "demo/app"}, ledger.Filter{Project: "demo", Repository: "demo/app", Limit: 100}},
		{"nested repository below the project", ledger.Query{Project: "demo", Repository: "team/app"}, ledger.Filter{Project: "demo", Repository: "demo/team/app", Limit: 100}},
		{"whole digest", ledger.Query{Digest: digest}, ledger.Filter{DigestFrom: digest, Limit: 100}},
		{"whole digest without algorithm", ledger.Query{Digest: digest[7:]}, ledger.Filter{DigestFrom: digest, Limit: 100}},
		{"digest prefix", ledger.Query{Digest: "abcdef0"}, ledger.Filter{DigestFrom: "sha256:abcdef0", DigestTo: "sha256:abcdef0g", Limit: 100}},
		{"times in microseconds", ledger.Query{Since: at.Add(1999), Until: at.Add(time.Hour)}, ledger.Filter{Times: [3]ledger.Range{{Since: at.Add(1000), Until: at.Add(time.Hour)}}, Limit: 100}},
		{"some projects", ledger.Query{Projects: []string{"b", "a", "b"}}, ledger.Filter{Projects: []string{"a", "b"}, Limit: 100}},
		{"no project", ledger.Query{Projects: []string{}}, ledger.Filter{Projects: []string{}, Limit: 100}},
		{"signed only by a key", ledger.Query{SignedOnlyBy: "k"}, ledger.Filter{SignedOnlyBy: "k", Limit: 100}},
		{"owes an entry", ledger.Query{LogOwed: true}, ledger.Filter{LogOwed: true, Limit: 100}},
		{"what the rows have", ledger.Query{Tag: "v1", Key: "k", Format: "both", Pusher: "ann", PusherSource: ledger.PusherNone}, ledger.Filter{
			Tag: "v1", Key: "k", Format: "both", Pusher: "ann", PusherSource: ledger.PusherNone, Limit: 100,
		}},
		{"oldest first", ledger.Query{Sort: "first_seen"}, ledger.Filter{Ascending: true, Limit: 100}},
		{"by signature", ledger.Query{Sort: "-signed", State: ledger.Unsigned}, ledger.Filter{Sort: ledger.BySigned, State: ledger.Unsigned, Limit: 100}},
		{"by what is bounded", ledger.Query{PushedUntil: at}, ledger.Filter{
			Sort: ledger.ByPushed, Times: [3]ledger.Range{ledger.ByPushed: {Until: at}}, Limit: 100,
		}},
		{"by one of what is bounded", ledger.Query{PushedUntil: at, SignedSince: at, Sort: "signed"}, ledger.Filter{
			Sort: ledger.BySigned, Ascending: true, Times: [3]ledger.Range{ledger.ByPushed: {Until: at}, ledger.BySigned: {Since: at}}, Limit: 100,
		}},
		{"largest limit", ledger.Query{Limit: 1000}, ledger.Filter{Limit: 1000}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.q.Filter()
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Filter(%+v) = %+v, %v; want %+v", tt.q, got, err, tt.want)
			}
		})
	}
}

func TestFilterRefuses(t *testing.T) {
	at := ledgertest.Epoch()
	other, err := ledger.Query{State: ledger.Signed}.Filter()
	if err != nil {
		t.Fatal(err)
	}
	cursor := other.Cursor(ledger.Place{At: at, FirstSeq: 1})
	tests := []struct {
		name  string
		q     ledger.Query
		field string
	}{
		{"project", ledger.Query{Project: "De mo"}, "project"},
		{"one of the projects", ledger.Query{Projects: []string{"demo", "demo*"}}, "projects"},
		{"key id of control characters", ledger.Query{SignedOnlyBy: "k\n"}, "signed_only_by"},
		{"key id that is no text", ledger.Query{SignedOnlyBy: "\xff"}, "signed_only_by"},
		{"long key id", ledger.Query{SignedOnlyBy: strings.Repeat("k", 513)}, "signed_only_by"},
		{"glob", ledger.Query{Project: "demo*"}, "project"},
		{"glob that does not end", ledger.Query{Repository: "demo/[a"}, "repository"},
		{"glob below what is no project", ledger.Query{Repository: "-demo/*"}, "repository"},
		{"tag of control characters", ledger.Query{Tag: "v\n1"}, "tag"},
		{"key", ledger.Query{Key: "\x00"}, "key"},
		{"format", ledger.Query{Format: "LEGACY"}, "format"},
		{"pusher", ledger.Query{Pusher: "\xff"}, "pusher"},
		{"source", ledger.Query{PusherSource: "harbor"}, "pusher_source"},
		{"no push between", ledger.Query{PushedSince: at, PushedUntil: at}, "pushed_until"},
		{"no signature between", ledger.Query{SignedSince: at, SignedUntil: at.Add(-1)}, "signed_until"},
		{"sort", ledger.Query{Sort: "digest"}, "sort"},
		{"sort by what is not bounded", ledger.Query{PushedSince: at, Sort: "first_seen"}, "sort"},
		{"sort of what is never signed", ledger.Query{State: ledger.Pending, Sort: "-signed"}, "sort"},
		{"cursor of another order", ledger.Query{State: ledger.Signed, Sort: "first_seen", Cursor: cursor}, "cursor"},
		{"cursor of another sort", ledger.Query{State: ledger.Signed, Sort: "-pushed", Cursor: cursor}, "cursor"},
		{"cursor of another tag", ledger.Query{State: ledger.Signed, Tag: "v1", Cursor: cursor}, "cursor"},
		{"cursor of another glob", ledger.Query{State: ledger.Signed, Repository: "*/app", Cursor: cursor}, "cursor"},
		{"cursor of other pushes", ledger.Query{State: ledger.Signed, Since: at, PushedSince: at, Sort: "-first_seen", Cursor: cursor}, "cursor"},
		{"repository without project", ledger.Query{Repository: "app"}, "repository"},
		{"repository of slashes", ledger.Query{Repository: "demo//app"}, "repository"},
		{"short digest", ledger.Query{Digest: "abcdef"}, "digest"},
		{"long digest", ledger.Query{Digest: strings.Repeat("a", 65)}, "digest"},
		{"digest in upper case", ledger.Query{Digest: "ABCDEF0"}, "digest"},
		{"digest with a wildcard", ledger.Query{Digest: "abcdef%"}, "digest"},
		{"other algorithm", ledger.Query{Digest: "sha512:abcdef0"}, "digest"},
		{"state", ledger.Query{State: "SIGNED"}, "state"},
		{"no time between", ledger.Query{Since: at, Until: at}, "until"},
		{"negative limit", ledger.Query{Limit: -1}, "limit"},
		{"limit", ledger.Query{Limit: 1001}, "limit"},
		{"cursor", ledger.Query{Cursor: "x"}, "cursor"},
		{"long cursor", ledger.Query{Cursor: strings.Repeat("A", 1<<20)}, "cursor"},
		{"cursor of another version", ledger.Query{State: ledger.Signed, Cursor: "Ag" + cursor[2:]}, "cursor"},
		{"cursor of other filters", ledger.Query{Cursor: cursor}, "cursor"},
		{"cursor of another key", ledger.Query{State: ledger.Signed, SignedOnlyBy: "k", Cursor: cursor}, "cursor"},
		{"cursor of what owes nothing", ledger.Query{State: ledger.Signed, LogOwed: true, Cursor: cursor}, "cursor"},
		{"cursor of events", ledger.Query{Cursor: ledger.EventFilter{}.Cursor(1)}, "cursor"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.q.Filter()
			if invalid := new(ledger.InvalidQueryError); !errors.As(err, &invalid) || invalid.Field != tt.field {
				t.Errorf("Filter(%+v): error %v, want one about %s", tt.q, err, tt.field)
			}
		})
	}
}

func TestCursor(t *testing.T) {
	f, err := ledger.Query{Project: "demo"}.Filter()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []ledger.Place{
		{At: ledgertest.Epoch().Add(123456 * time.Microsecond), FirstSeq: 1},
		{At: time.Date(1901, 1, 1, 0, 0, 0, 1000, time.UTC), FirstSeq: 1<<63 - 1},
	} {
		got, err := ledger.Query{Project: "demo", Limit: 7, Cursor: f.Cursor(want)}.Filter()
		if err != nil || got.After != want {
			t.Errorf("after = %+v, %v; want %+v", got.After, err, want)
		}
	}
}

func FuzzCursor(f *testing.F) {
	filter, err := ledger.Query{}.Filter()
	if err != nil {
		f.Fatal(err)
	}
	cursor := filter.Cursor(ledger.Place{At: ledgertest.Epoch(), FirstSeq: 1})
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		f.Fatal(err)
	}
	raw[len(raw)-8] = 0xff                                           // a sequence beyond what a database holds
	twin := cursor[:len(cursor)-1] + string(cursor[len(cursor)-1]+1) // the same bytes, were the last bits not looked at
	for _, seed := range []string{cursor, twin, base64.RawURLEncoding.EncodeToString(raw), cursor + "=", cursor[:9] + "\r\n" + cursor[9:], cursor[1:], ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		got, err := ledger.Query{Cursor: cursor}.Filter()
		if invalid := new(ledger.InvalidQueryError); err != nil && (!errors.As(err, &invalid) || invalid.Field != "cursor") {
			t.Fatalf("error %v, want one about the cursor", err)
		}
		if got.After.FirstSeq > math.MaxInt64 {
			t.Fatalf("cursor %q reads as sequence %d, beyond what a database holds", cursor, got.After.FirstSeq)
		}
		if err == nil && cursor != "" && got.Cursor(got.After) != cursor {
			t.Fatalf("cursor %q reads as %+v, which is %q", cursor, got.After, got.Cursor(got.After))
		}
	})
}
