package ledger_test

import (
	"cmp"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

// owing is a signed event that says that entries are owed, with what the ledger had reached before the look.
func owing(asOf uint64, formats ...artifact.Format) artifact.Event {
	e := artifact.Event{Kind: artifact.Signed, LogOwed: formats, AsOf: asOf}
	for _, format := range formats {
		e.Signatures = append(e.Signatures, artifact.Evidence{Format: format, KeyID: "k", Digest: "plain"})
	}
	return e
}

// paid is the payment of a debt; without formats, because nothing is owed any more for a reason.
func paid(reason string, formats ...artifact.Format) artifact.Event {
	e := artifact.Event{Kind: artifact.LogPaid, Reason: reason}
	for i, format := range formats {
		e.Signatures = append(e.Signatures, artifact.Evidence{Format: format, KeyID: "k", Digest: "logged", Log: "rekor", LogIndex: int64(i)})
	}
	return e
}

// TestLogState: whatever the order in which the events are read.
func TestLogState(t *testing.T) {
	const legacy, bundle = artifact.Legacy, artifact.Bundle
	signed, found := artifact.Event{Kind: artifact.Signed, Signatures: owing(0, legacy).Signatures}, artifact.Event{Kind: artifact.Signed, Signatures: paid("", legacy).Signatures}
	removed := func(asOf uint64) artifact.Event { return artifact.Event{Kind: artifact.Removed, AsOf: asOf} }
	tests := []struct {
		name   string
		events []artifact.Event
		want   ledger.LogState
		owed   []artifact.Format
		since  int // the event that says so first; 0 for none
		digest string
	}{
		{"no log", []artifact.Event{signed}, ledger.LogNone, nil, 0, "plain"},
		{"logged at once", []artifact.Event{found}, ledger.LogEntered, nil, 0, "logged"},
		{"owed", []artifact.Event{signed, owing(1, legacy)}, ledger.LogOwed, []artifact.Format{legacy}, 2, "plain"},
		{"owed for both", []artifact.Event{owing(0, legacy, bundle)}, ledger.LogOwed, []artifact.Format{legacy, bundle}, 1, "plain"},
		{"paid", []artifact.Event{owing(0, legacy), paid("", legacy)}, ledger.LogEntered, nil, 0, "logged"},
		{"paid before it was recorded as owed", []artifact.Event{owing(0, legacy), paid("", legacy), owing(1, legacy)}, ledger.LogEntered, nil, 0, "logged"},
		{"owed again", []artifact.Event{owing(0, legacy), paid("", legacy), owing(2, legacy)}, ledger.LogOwed, []artifact.Format{legacy}, 3, "plain"},
		{"owed by a program that does not say when it looked", []artifact.Event{paid("", legacy), owing(0, legacy)}, ledger.LogOwed, []artifact.Format{legacy}, 2, "plain"},
		{"claims to have seen the future", []artifact.Event{owing(9, legacy), paid("", legacy)}, ledger.LogEntered, nil, 0, "logged"},
		{"owed for long", []artifact.Event{owing(0, legacy), owing(1, legacy), owing(2, legacy)}, ledger.LogOwed, []artifact.Format{legacy}, 1, "plain"},
		{"owed again for long", []artifact.Event{owing(0, legacy), owing(1, legacy), paid("", legacy), owing(3, legacy), owing(4, legacy)}, ledger.LogOwed, []artifact.Format{legacy}, 4, "plain"},
		{"the payment is between two looks", []artifact.Event{owing(0, legacy), owing(1, legacy), paid("", legacy), owing(2, legacy)}, ledger.LogEntered, nil, 0, "logged"},
		{"found in the log, whoever paid", []artifact.Event{owing(0, legacy), found}, ledger.LogEntered, nil, 0, "logged"},
		{"not owed any more, for a reason", []artifact.Event{owing(0, legacy), paid("locked")}, ledger.LogNone, nil, 0, "plain"},
		{"paid, then found again", []artifact.Event{owing(0, legacy), paid("", legacy), signed}, ledger.LogNone, nil, 0, "plain"},
		{"paid, then nothing is owed, for a reason", []artifact.Event{owing(0, legacy), paid("", legacy), paid("off")}, ledger.LogEntered, nil, 0, "logged"},
		{"removed", []artifact.Event{owing(0, legacy), removed(1)}, ledger.LogNone, nil, 0, "plain"},
		{"removed before it was signed again", []artifact.Event{owing(0, legacy), removed(1), owing(2, legacy)}, ledger.LogOwed, []artifact.Format{legacy}, 1, "plain"},
		{"the payment alone is known", []artifact.Event{paid("", bundle)}, ledger.LogEntered, nil, 0, "logged"},
		{"the payment of what is gone", []artifact.Event{owing(0, legacy), {Kind: artifact.Vanished}, paid("gone")}, ledger.LogNone, nil, 0, "plain"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			entries := ledgertest.Entries(tt.events...)
			for i := range entries {
				entries[i].Event.Time = ledgertest.Epoch().Add(time.Duration(i+1) * time.Second)
			}
			rapid.Check(t, func(rt *rapid.T) {
				r := ledger.Record{Ref: ledgertest.Ref("demo/app", 1)}
				for _, entry := range ledgertest.Shuffled(rt, entries) {
					r.Apply(entry)
				}
				row := r.Row()
				if row.LogState != tt.want || row.LogOwed == nil || !slices.Equal(row.LogOwed, tt.owed) || len(row.Signatures) == 0 || row.Signatures[0].Digest != tt.digest {
					rt.Fatalf("log state = %q, owed %v, signatures %v; want %q, %v and %q", row.LogState, row.LogOwed, row.Signatures, tt.want, tt.owed, tt.digest)
				}
				var want *time.Time
				if tt.since > 0 {
					want = &entries[tt.since-1].Event.Time
				}
				if !reflect.DeepEqual(row.LogOwedSince, want) {
					rt.Fatalf("owed since %v, want %v", row.LogOwedSince, want)
				}
			})
		})
	}
}

// TestDebtIsTheOneOfItsEvents compares the registers with what the set of events says: an entry is owed if the last signed event
// says so and no payment is newer than what that had seen, since the first event that no payment has settled.
func TestDebtIsTheOneOfItsEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type told struct {
			last artifact.Entry // the last signed one
			paid uint64
			owes []ledger.Debt
		}
		history, all := ledgertest.Histories().Draw(t, "history"), map[artifact.Ref]*told{}
		if rapid.Bool().Draw(t, "one digest") {
			history = debtHistory(t)
		}
		for _, entry := range history {
			e := entry.Event
			if e.Canary || e.Kind != artifact.Signed && e.Kind != artifact.LogPaid {
				continue
			}
			if all[e.Ref] == nil {
				all[e.Ref] = &told{}
			}
			of := all[e.Ref]
			if e.Kind == artifact.LogPaid {
				of.paid = entry.Seq
				continue
			}
			of.last = entry
			if len(e.LogOwed) > 0 {
				of.owes = append(of.owes, ledger.Debt{Seq: entry.Seq, AsOf: looked(entry), At: e.Time.Truncate(time.Microsecond)})
			}
		}
		records := map[artifact.Ref]*ledger.Record{}
		for _, entry := range ledgertest.Shuffled(t, history) {
			if ref := entry.Event.Ref; ledger.Projects(entry) {
				if records[ref] == nil {
					records[ref] = &ledger.Record{Ref: ref}
				}
				records[ref].Apply(entry)
			}
		}
		for ref, of := range all {
			owes := len(of.last.Event.LogOwed) > 0 && of.paid <= looked(of.last) && records[ref].State() == ledger.Signed
			if got := records[ref].LogState() == ledger.LogOwed; got != owes {
				t.Fatalf("%s: owed = %t, want %t of %+v", ref, got, owes, of)
			}
			var since time.Time
			slices.SortStableFunc(of.owes, func(a, b ledger.Debt) int { return cmp.Compare(a.AsOf, b.AsOf) })
			for _, debt := range slices.Backward(of.owes) {
				if owes && debt.AsOf >= of.paid {
					since = debt.At
				}
			}
			if got := records[ref].LogOwedSince(); !got.Equal(since) {
				t.Fatalf("%s: owed since %s, want %s of %+v", ref, got, since, of)
			}
		}
	})
}

// debtHistory draws what may happen to one digest and its debt. Looks and records do not follow each other in one order.
func debtHistory(t *rapid.T) []artifact.Entry {
	var events []artifact.Event
	for i := range rapid.IntRange(1, 8).Draw(t, "events") {
		asOf := rapid.Uint64Range(0, uint64(i)+1).Draw(t, "as_of")
		e := rapid.SampledFrom([]artifact.Event{
			owing(asOf, artifact.Legacy),
			owing(asOf, artifact.Legacy),
			owing(asOf, artifact.Bundle),
			{Kind: artifact.Signed},
			paid(""),
			paid("", artifact.Legacy),
			{Kind: artifact.Removed, AsOf: asOf},
		}).Draw(t, "event")
		e.Ref, e.Time = ledgertest.Ref("demo/app", 1), ledgertest.Epoch().Add(time.Duration(i)*time.Second)
		events = append(events, e)
	}
	return ledgertest.Entries(events...)
}

// looked is what an event had seen.
func looked(entry artifact.Entry) uint64 {
	if entry.Event.AsOf == 0 {
		return entry.Seq
	}
	return min(entry.Seq, entry.Event.AsOf)
}

// TestDebtsAreBounded: a digest that is found owing again and again grows no further, and depends on no order.
func TestDebtsAreBounded(t *testing.T) {
	var events []artifact.Event
	for i := range 40 {
		e := owing(uint64(i), artifact.Legacy)
		if i == 20 {
			e = paid("", artifact.Legacy)
		}
		e.Time = ledgertest.Epoch().Add(time.Duration(i) * time.Second)
		events = append(events, e)
	}
	entries := ledgertest.Entries(events...)
	in := func(order []artifact.Entry) ledger.Record {
		r := ledger.Record{Ref: ledgertest.Ref("demo/app", 1)}
		for _, entry := range order {
			r.Apply(entry)
		}
		return r
	}
	want := in(entries)
	if len(want.Debts) > 8 || !want.LogOwedSince().After(events[20].Time) {
		t.Errorf("%d events are kept, owed since %s; want 8, and a time after the payment", len(want.Debts), want.LogOwedSince())
	}
	first := in(entries[:20])
	if got := first.LogOwedSince(); !got.Equal(events[0].Time) {
		t.Errorf("owed since %s before any payment, want the time of the first event, %s", got, events[0].Time)
	}
	rapid.Check(t, func(t *rapid.T) {
		if got := in(ledgertest.Shuffled(t, entries)); !reflect.DeepEqual(got, want) {
			t.Fatalf("record = %+v, want %+v", got, want)
		}
	})
}

// TestPaidRow: a payment changes what the row says about signatures, and says why where it made none.
func TestPaidRow(t *testing.T) {
	at := func(seconds int) time.Time { return ledgertest.Epoch().Add(time.Duration(seconds) * time.Second) }
	first, second := owing(0, artifact.Legacy), paid("locked", artifact.Legacy, artifact.Bundle)
	first.Time, first.KeyID, first.Format, first.SignatureDigest, first.Detail, first.How = at(1), "k", artifact.Legacy, "plain", "made", artifact.Made
	second.Time, second.Detail = at(2), "a bundle stands in"
	second.Signatures[0].TimestampedAt = at(1).In(time.FixedZone("east", 3600))
	r := ledger.Record{Ref: ledgertest.Ref("demo/app", 1)}
	r.Apply(artifact.Entry{Seq: 2, Event: second})
	r.Apply(artifact.Entry{Seq: 1, Event: first})
	got := r.Row()
	for _, c := range []struct {
		field     string
		got, want any
	}{
		{"state", got.State, ledger.Signed},
		{"signed_at", *got.SignedAt, at(1)},
		{"how", got.How, artifact.Made},
		{"verified_at", *got.VerifiedAt, at(2)},
		{"format", got.Format, ledger.Both},
		{"signature_digest", got.SignatureDigest, "logged"},
		{"note", got.Note, "a bundle stands in"},
		{"log_state", got.LogState, ledger.LogEntered},
		{"log_reason", got.LogReason, "locked"},
		{"timestamped_at is UTC", got.Signatures[0].TimestampedAt, at(1)},
		{"log", got.Signatures[1].Log, "rekor"},
		{"log_index", got.Signatures[1].LogIndex, int64(1)},
		{"sole key", r.SoleKey(), "k"},
	} {
		if c.got != c.want {
			t.Errorf("%s = %v, want %v", c.field, c.got, c.want)
		}
	}
	first.AsOf = 1
	r.Apply(artifact.Entry{Seq: 3, Event: first})
	if row := r.Row(); row.LogState != ledger.LogEntered || row.LogReason != "locked" {
		t.Errorf("after an older look that came later, log_state = %q, log_reason = %q; want both as before", row.LogState, row.LogReason)
	}
}
