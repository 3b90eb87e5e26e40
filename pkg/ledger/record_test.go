package ledger_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
)

func TestState(t *testing.T) {
	const (
		received = artifact.Received
		signed   = artifact.Signed
		skipped  = artifact.Skipped
		gone     = artifact.Vanished
		failed   = artifact.Failed
		dead     = artifact.Dead
		// An attempt that looked for a signature and found none.
		none    = ", no signature"
		because = ", because "
		// Skipped for a reason that is a state.
		observed     = skipped + because + artifact.Kind(policy.Observed)
		barred       = skipped + because + artifact.Kind(policy.Blocked)
		failedLooked = failed + none
		deadLooked   = dead + none
		paid         = artifact.LogPaid
		names        = ", with a signature"
	)
	tests := []struct {
		name  string
		kinds []artifact.Kind
		want  ledger.State
	}{
		{"pushed", []artifact.Kind{received}, ledger.Pending},
		{"child of an index", []artifact.Kind{artifact.Queued}, ledger.Pending},
		{"signed child of another index", []artifact.Kind{signed, artifact.Queued}, ledger.Signed},
		{"signed", []artifact.Kind{received, signed}, ledger.Signed},
		{"found by a sweep alone", []artifact.Kind{signed}, ledger.Signed},
		{"pushed again", []artifact.Kind{received, signed, received}, ledger.Signed},
		{"a later failure does not undo a signature", []artifact.Kind{received, signed, failed}, ledger.Signed},
		{"a later attempt found no signature", []artifact.Kind{received, signed, failedLooked}, ledger.Failed},
		{"found no signature and gave up", []artifact.Kind{received, signed, deadLooked}, ledger.Dead},
		{"found none, then failed before it could look", []artifact.Kind{signed, deadLooked, failed}, ledger.Failed},
		{"found none, then pushed again", []artifact.Kind{signed, deadLooked, received}, ledger.Pending},
		{"found none, then signed again", []artifact.Kind{signed, failedLooked, signed}, ledger.Signed},
		{"found none before it was signed", []artifact.Kind{received, failedLooked, signed, failed}, ledger.Signed},
		{"only failures can find none", []artifact.Kind{signed, received + none, skipped + none}, ledger.Signed},
		{"failed once, then signed", []artifact.Kind{received, failed, signed}, ledger.Signed},
		{"failed", []artifact.Kind{received, failed}, ledger.Failed},
		{"failed, then given up", []artifact.Kind{received, failed, dead}, ledger.Dead},
		{"given up, then pushed again", []artifact.Kind{received, dead, received}, ledger.Pending},
		{"given up, then replayed", []artifact.Kind{received, dead, artifact.Replayed}, ledger.Pending},
		{"replayed and given up again", []artifact.Kind{received, dead, artifact.Replayed, dead}, ledger.Dead},
		{"replayed and signed", []artifact.Kind{received, dead, artifact.Replayed, signed}, ledger.Signed},
		{"signed meanwhile, then replayed", []artifact.Kind{received, dead, signed, artifact.Replayed}, ledger.Signed},
		{"given up, then discarded", []artifact.Kind{received, dead, artifact.Discarded}, ledger.Dead},
		{"blocked, then its dead letter was discarded", []artifact.Kind{dead, artifact.Blocked, artifact.Discarded}, ledger.Blocked},
		{"a discarded dead letter alone", []artifact.Kind{artifact.Discarded, artifact.Unreadable}, ""},
		{"skipped", []artifact.Kind{received, skipped}, ledger.Skipped},
		{"deleted", []artifact.Kind{received, signed, gone}, ledger.Gone},
		{"deleted and pushed again", []artifact.Kind{received, signed, gone, received}, ledger.Pending},
		{"deleted and signed again", []artifact.Kind{received, signed, gone, received, signed}, ledger.Signed},
		{"deleted and failed again", []artifact.Kind{signed, gone, received, failed}, ledger.Failed},
		{"signature removed", []artifact.Kind{received, signed, artifact.Removed}, ledger.Unsigned},
		{"removed and made again", []artifact.Kind{signed, artifact.Removed, signed}, ledger.Signed},
		{"removed, then asked for again", []artifact.Kind{signed, artifact.Removed, artifact.Queued}, ledger.Pending},
		{"removed, then deleted", []artifact.Kind{signed, artifact.Removed, gone}, ledger.Gone},
		{"blocked", []artifact.Kind{received, artifact.Blocked}, ledger.Blocked},
		{"blocked although signed", []artifact.Kind{received, signed, artifact.Blocked}, ledger.Blocked},
		{"blocked, then pushed again", []artifact.Kind{signed, artifact.Blocked, received}, ledger.Pending},
		{"blocked, then signed", []artifact.Kind{signed, artifact.Blocked, signed}, ledger.Signed},
		{"observed", []artifact.Kind{received, observed}, ledger.Unsigned},
		{"observed although signed before", []artifact.Kind{signed, observed}, ledger.Unsigned},
		{"observed, then signed", []artifact.Kind{observed, signed}, ledger.Signed},
		{"skipped because it is blocked", []artifact.Kind{signed, barred}, ledger.Blocked},
		{"unblocked, then skipped for another reason", []artifact.Kind{signed, barred, skipped}, ledger.Skipped},
		{"skipped for another reason", []artifact.Kind{signed, skipped}, ledger.Signed},
		{"a payment that names no signature says nothing of them", []artifact.Kind{received, paid}, ledger.Pending},
		{"a payment has verified", []artifact.Kind{received, paid + names}, ledger.Signed},
		{"paid, then no signature was found", []artifact.Kind{signed, paid + names, failedLooked}, ledger.Failed},
		{"paid alone", []artifact.Kind{paid + names}, ledger.Signed},
		{"nothing is owed, and nothing else is known", []artifact.Kind{paid}, ledger.Pending},
		{"of a project", []artifact.Kind{artifact.Swept, artifact.Paused}, ""},
		{"of the future alone", []artifact.Kind{"of_the_future"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := ledger.Record{Ref: ledgertest.Ref("demo/app", 1)}
			for i, kind := range tt.kinds {
				plain, naming := strings.CutSuffix(string(kind), names)
				plain, lacking := strings.CutSuffix(plain, none)
				plain, reason, _ := strings.Cut(plain, because)
				e := ledgertest.Event(artifact.Kind(plain), r.Ref)
				e.Unsigned, e.Reason = lacking, reason
				if naming {
					e.Signatures = []artifact.Evidence{{Format: artifact.Legacy, KeyID: "k", Digest: "s"}}
				}
				r.Apply(artifact.Entry{Seq: uint64(i) + 1, Event: e})
			}
			if got := r.State(); got != tt.want {
				t.Errorf("State() after %v = %q, want %q", tt.kinds, got, tt.want)
			}
		})
	}
}

// TestAsOf: an attempt that found no signature undoes those that were recorded before it looked, in whatever order the events
// are read.
func TestAsOf(t *testing.T) {
	none := func(kind artifact.Kind, asOf uint64) artifact.Event {
		return artifact.Event{Kind: kind, Unsigned: true, AsOf: asOf}
	}
	removed := func(asOf uint64) artifact.Event { return artifact.Event{Kind: artifact.Removed, AsOf: asOf} }
	skip := func(reason policy.Reason, asOf uint64) artifact.Event {
		return artifact.Event{Kind: artifact.Skipped, Reason: string(reason), AsOf: asOf}
	}
	signed, received := artifact.Event{Kind: artifact.Signed}, artifact.Event{Kind: artifact.Received}
	tests := []struct {
		name   string
		events []artifact.Event
		want   ledger.State
	}{
		{"looked before it was signed", []artifact.Event{received, signed, none(artifact.Failed, 1)}, ledger.Signed},
		{"gave up, but looked before it was signed", []artifact.Event{received, signed, none(artifact.Dead, 1)}, ledger.Signed},
		{"looked when it was signed", []artifact.Event{received, signed, none(artifact.Failed, 2)}, ledger.Failed},
		{"looked after something else", []artifact.Event{signed, received, none(artifact.Dead, 2)}, ledger.Dead},
		{"of an older program", []artifact.Event{received, signed, none(artifact.Failed, 0)}, ledger.Failed},
		{"claims to have seen the future", []artifact.Event{none(artifact.Failed, 9), signed}, ledger.Signed},
		{"the last signature counts", []artifact.Event{signed, signed, none(artifact.Failed, 1)}, ledger.Signed},
		{"the highest look counts", []artifact.Event{received, signed, none(artifact.Failed, 2), none(artifact.Failed, 1)}, ledger.Failed},
		{"signed again", []artifact.Event{signed, none(artifact.Failed, 1), signed}, ledger.Signed},
		{"says nothing about signatures", []artifact.Event{signed, {Kind: artifact.Failed, AsOf: 1}}, ledger.Signed},
		{"removed before it was signed again", []artifact.Event{signed, signed, removed(1)}, ledger.Signed},
		{"removed after all", []artifact.Event{signed, signed, removed(2)}, ledger.Unsigned},
		{"removed, by a program that does not say when", []artifact.Event{signed, signed, removed(0)}, ledger.Unsigned},
		{"removed, claims to have seen the future", []artifact.Event{removed(9), signed}, ledger.Signed},
		{"observed before it was signed", []artifact.Event{received, signed, skip(policy.Observed, 1)}, ledger.Signed},
		{"observed after it was signed", []artifact.Event{received, signed, skip(policy.Observed, 2)}, ledger.Unsigned},
		{"blocked, whenever it was looked at", []artifact.Event{received, signed, skip(policy.Blocked, 1)}, ledger.Blocked},
		{"blocked by an event, whenever it was looked at", []artifact.Event{received, signed, {Kind: artifact.Blocked, AsOf: 1}}, ledger.Blocked},
		{"gone before it was pushed and signed again", []artifact.Event{signed, received, signed, {Kind: artifact.Vanished, AsOf: 1}}, ledger.Signed},
		{"gone after all", []artifact.Event{signed, received, signed, {Kind: artifact.Vanished, AsOf: 3}}, ledger.Gone},
		{"gone, whatever was looked for", []artifact.Event{signed, {Kind: artifact.Vanished}, none(artifact.Failed, 1)}, ledger.Failed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				r := ledger.Record{Ref: ledgertest.Ref("demo/app", 1)}
				for _, entry := range ledgertest.Shuffled(rt, ledgertest.Entries(tt.events...)) {
					r.Apply(entry)
				}
				if got := r.State(); got != tt.want {
					rt.Fatalf("State() = %q, want %q", got, tt.want)
				}
			})
		})
	}
}

// TestStateIsTheOneOfAnOrderedReading compares the registers with the plain reading of a history from its beginning.
func TestStateIsTheOneOfAnOrderedReading(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := ledgertest.Histories().Draw(t, "history")
		want := map[artifact.Ref]ledger.State{}
		signedAt := map[artifact.Ref]uint64{}
		for _, entry := range history {
			ref, reason := entry.Event.Ref, policy.Reason(entry.Event.Reason)
			if entry.Event.Canary {
				continue
			}
			verified := entry.Event.Kind == artifact.LogPaid && len(entry.Event.Signatures) > 0
			if entry.Event.Kind == artifact.Confirmed || entry.Event.Kind == artifact.LogPaid && !verified {
				if want[ref] == "" {
					want[ref] = ledger.Pending
				}
				continue
			}
			skipped := entry.Event.Kind == artifact.Skipped
			if entry.Event.Kind == artifact.Blocked || skipped && reason == policy.Blocked {
				want[ref] = ledger.Blocked
				continue
			}
			if entry.Event.Kind == artifact.Signed || verified {
				signedAt[ref] = entry.Seq
			}
			looked := entry.Event.AsOf == 0 || entry.Event.AsOf >= signedAt[ref] // after the last signature
			vanished := entry.Event.Kind == artifact.Vanished
			lacks := entry.Event.Unsigned || vanished || entry.Event.Kind == artifact.Removed || skipped && reason == policy.Observed
			if want[ref] == ledger.Signed && (!lacks || !looked) {
				continue
			}
			switch entry.Event.Kind {
			case artifact.Removed:
				want[ref] = ledger.Unsigned
			case artifact.Vanished:
				want[ref] = ledger.Gone
			case artifact.Received, artifact.Queued, artifact.Replayed:
				want[ref] = ledger.Pending
			case artifact.Signed, artifact.LogPaid:
				want[ref] = ledger.Signed
			case artifact.Skipped:
				want[ref] = ledger.Skipped
				if reason == policy.Observed {
					want[ref] = ledger.Unsigned
				}
			case artifact.Failed, artifact.Dead:
				want[ref] = ledger.State(entry.Event.Kind)
			default:
			}
		}
		got := map[artifact.Ref]ledger.State{}
		records := map[artifact.Ref]*ledger.Record{}
		for _, entry := range ledgertest.Shuffled(t, history) {
			if !ledger.Projects(entry) {
				continue
			}
			ref := entry.Event.Ref
			if records[ref] == nil {
				records[ref] = &ledger.Record{Ref: ref}
			}
			records[ref].Apply(entry)
			got[ref] = records[ref].State()
		}
		for ref, state := range want {
			if got[ref] != state {
				t.Fatalf("state of %s = %q, want %q", ref, got[ref], state)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d digests, want %d", len(got), len(want))
		}
	})
}

func TestRow(t *testing.T) {
	ref := ledgertest.Ref("demo/team/app", 1)
	at := func(seconds int) time.Time { return ledgertest.Epoch().Add(time.Duration(seconds) * time.Second) }
	pushed := at(0).In(time.FixedZone("east", 3600))
	parent := ledgertest.Ref("demo/team/app", 2).Digest()
	events := []artifact.Event{
		{Kind: artifact.Received, Ref: ref, Time: at(1), Tag: "v1", Pusher: "ann", PushedAt: &pushed},
		{Kind: artifact.Failed, Ref: ref, Time: at(2), Reason: "timeout", Detail: "no answer", Attempts: 1, MediaType: "a/b", PolicyRevision: "r1"},
		{Kind: artifact.Signed, Ref: ref, Time: at(3), How: artifact.Made, KeyID: "k1", Format: "legacy", SignatureDigest: "s1", Attempts: 2, PolicyRevision: "r2"},
		{Kind: artifact.Received, Ref: ref, Time: at(4), Tag: "v2", Pusher: "bob"},
		{
			Kind: artifact.Signed, Ref: ref, Time: at(5), How: artifact.Found, KeyID: "k2", Format: "bundle", SignatureDigest: "s2", Attempts: 1, Parent: parent,
			Detail: "the tag is locked", Signatures: []artifact.Evidence{{Format: "bundle", KeyID: "k2", Digest: "s2"}},
		},
		{Kind: artifact.Failed, Ref: ref, Time: at(6), Reason: "timeout", Detail: "no answer"},
	}
	r := ledger.Record{Ref: ref}
	entries := ledgertest.Entries(events...)
	slices.Reverse(entries)
	for _, entry := range entries {
		r.Apply(entry)
	}
	got := r.Row()
	checks := []struct {
		field     string
		got, want any
	}{
		{"project", got.Project, "demo"},
		{"repository", got.Repository, "demo/team/app"},
		{"digest", got.Digest, ref.Digest()},
		{"media_type", got.MediaType, "a/b"},
		{"pusher is the first", got.Pusher, "ann"},
		{"pushed_at is UTC", *got.PushedAt, at(0)},
		{"first_seen_at", got.FirstSeenAt, at(1)},
		{"received_at is the first", *got.ReceivedAt, at(1)},
		{"signed_at is the first", *got.SignedAt, at(3)},
		{"verified_at is the last", *got.VerifiedAt, at(5)},
		{"state", got.State, ledger.Signed},
		{"reason of an earlier failure", got.Reason, ""},
		{"detail of an earlier failure", got.Detail, ""},
		{"key_id is the last", got.KeyID, "k2"},
		{"format is the last", got.Format, "bundle"},
		{"signature_digest is the last", got.SignatureDigest, "s2"},
		{"how is the first", got.How, artifact.Made},
		{"attempts are the most", got.Attempts, uint64(2)},
		{"policy_revision is the last that was named", got.PolicyRevision, "r2"},
		{"ledger_seq", got.LedgerSeq, uint64(6)},
		{"note is that of the last signed event", got.Note, "the tag is locked"},
	}
	for _, c := range checks {
		if c.got != c.want {
			t.Errorf("%s = %v, want %v", c.field, c.got, c.want)
		}
	}
	if want := []string{"v2", "v1"}; !slices.Equal(got.Tags, want) {
		t.Errorf("tags = %v, want %v", got.Tags, want)
	}
	if want := []artifact.Evidence{{Format: "bundle", KeyID: "k2", Digest: "s2"}}; !slices.Equal(got.Signatures, want) {
		t.Errorf("signatures = %v, want those of the last signed event, %v", got.Signatures, want)
	}
	if want := []string{parent}; !slices.Equal(got.Parents, want) {
		t.Errorf("parents = %v, want %v", got.Parents, want)
	}
}

func TestSignatures(t *testing.T) {
	legacy := artifact.Evidence{Format: artifact.Legacy, KeyID: "k1", Digest: "s1"}
	bundle := artifact.Evidence{Format: artifact.Bundle, KeyID: "k1", Digest: "s2"}
	old := artifact.Event{Format: artifact.Legacy, KeyID: "k1", SignatureDigest: "s1"}
	of := func(all ...artifact.Evidence) artifact.Event {
		return artifact.Event{Format: all[0].Format, KeyID: all[0].KeyID, SignatureDigest: all[0].Digest, Signatures: all}
	}
	hostile := artifact.Evidence{Format: "\xff", KeyID: "\x00", Digest: strings.Repeat("x", 1000)}
	tests := []struct {
		name   string
		events []artifact.Event
		want   []artifact.Evidence
		format string
	}{
		{"none", nil, []artifact.Evidence{}, ""},
		{"of an older program", []artifact.Event{old}, []artifact.Evidence{legacy}, "legacy"},
		{"that says nothing", []artifact.Event{{}}, []artifact.Evidence{}, ""},
		{"one", []artifact.Event{of(bundle)}, []artifact.Evidence{bundle}, "bundle"},
		{"both formats", []artifact.Event{of(legacy, bundle)}, []artifact.Evidence{legacy, bundle}, "both"},
		{"two of one format", []artifact.Event{of(bundle, bundle)}, []artifact.Evidence{bundle, bundle}, "bundle"},
		{"the last event counts", []artifact.Event{of(legacy, bundle), old}, []artifact.Evidence{legacy}, "legacy"},
		{"too many", []artifact.Event{of(slices.Repeat([]artifact.Evidence{legacy}, 17)...)}, slices.Repeat([]artifact.Evidence{legacy}, 16), "legacy"},
		{
			"text that nobody should trust",
			[]artifact.Event{of(hostile)},
			[]artifact.Evidence{{Format: "\uFFFD", KeyID: "\uFFFD", Digest: strings.Repeat("x", 512)}},
			"\uFFFD",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := ledger.Record{Ref: ledgertest.Ref("demo/app", 1)}
			for i, e := range tt.events {
				e.Kind, e.Ref = artifact.Signed, r.Ref
				r.Apply(artifact.Entry{Seq: uint64(i) + 1, Event: e})
			}
			got := r.Row()
			if got.Signatures == nil || !slices.Equal(got.Signatures, tt.want) || got.Format != tt.format {
				t.Errorf("signatures = %#v of format %q, want %v of format %q", got.Signatures, got.Format, tt.want, tt.format)
			}
		})
	}
}
