package ledgertest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Epoch is when the histories of this package begin.
func Epoch() time.Time { return time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC) }

// Ref gives the n-th digest of a repository. The digests of neighbours share no prefix.
func Ref(repository string, n int) artifact.Ref {
	ref, err := artifact.NewRef(repository, artifact.DigestOf(fmt.Append(nil, n)))
	if err != nil {
		panic(err) // a test names a repository that is none
	}
	return ref
}

// Event gives an event of a kind at Epoch, with what every event has.
func Event(kind artifact.Kind, ref artifact.Ref) artifact.Event {
	return artifact.Event{
		Version: artifact.Version, ID: artifact.EventID(kind, ref), Kind: kind, Ref: ref, Time: Epoch(),
		Origin: artifact.OriginSigner, CorrelationID: "c",
	}
}

// Entries numbers events from 1.
func Entries(events ...artifact.Event) []artifact.Entry {
	entries := make([]artifact.Entry, len(events))
	for i, e := range events {
		entries[i] = artifact.Entry{Seq: uint64(i) + 1, Event: e}
	}
	return entries
}

// Repositories are those that histories are about. Two have the same name below their projects, and one repeats the name
// of its project.
func Repositories() []string {
	return []string{"demo/app", "demo/team/app", "other/app", "demo/demo/app", "de.mo/app"}
}

// ProjectEvent gives an event of a kind about a project at Epoch; an empty project stands for all.
func ProjectEvent(kind artifact.Kind, project string) artifact.Event {
	e := Event(kind, artifact.Ref{})
	e.ID, e.Project = artifact.EventID(kind, artifact.Ref{}, project), project
	return e
}

// Histories draws what may stand in a stream: all kinds, entries that cannot be read, kinds of the future, images of the service's
// own, times that do not follow the sequence, few digests and projects so that events meet, and text that nobody should trust.
func Histories() *rapid.Generator[[]artifact.Entry] {
	return rapid.Custom(func(t *rapid.T) []artifact.Entry {
		seq := uint64(0)
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) artifact.Entry {
			seq += rapid.Uint64Range(1, 3).Draw(t, "gap") // a stream may lack sequences
			entry := artifact.Entry{Seq: seq}
			if rapid.IntRange(0, 9).Draw(t, "readable") > 0 {
				entry.Event = anyEvent(t, seq)
			}
			return entry
		}), 0, 40).Draw(t, "history")
	})
}

func anyEvent(t *rapid.T, seq uint64) artifact.Event {
	if rapid.IntRange(0, 4).Draw(t, "of a project") == 0 {
		return projectEvent(t)
	}
	return event(t, seq)
}

func event(t *rapid.T, seq uint64) artifact.Event {
	kinds := []artifact.Kind{
		artifact.Received, artifact.Received, artifact.Confirmed, artifact.Confirmed, artifact.Queued, artifact.Signed, artifact.Signed, artifact.Skipped,
		artifact.Vanished, artifact.Failed, artifact.Dead, artifact.Removed, artifact.Blocked, artifact.LogPaid, artifact.LogPaid,
		artifact.Replayed, artifact.Discarded, "of_the_future",
	}
	repository := rapid.SampledFrom(Repositories()).Draw(t, "repository")
	e := Event(rapid.SampledFrom(kinds).Draw(t, "kind"), Ref(repository, rapid.IntRange(0, 3).Draw(t, "digest")))
	e.Time = e.Time.Add(time.Duration(rapid.Int64Range(-5e9, 5e9).Draw(t, "time")))
	e.MediaType = rapid.SampledFrom([]string{"", "a/b", "c/d"}).Draw(t, "media_type")
	e.PolicyRevision = rapid.SampledFrom([]string{"", "r1", "r2"}).Draw(t, "policy_revision")
	e.Attempts = rapid.SampledFrom([]uint64{0, 1, 2, 1 << 63}).Draw(t, "attempts")
	e.Reason = rapid.SampledFrom([]string{"", "timeout", "denied"}).Draw(t, "reason")
	e.Detail = text(t, "detail")
	e.Canary = rapid.IntRange(0, 19).Draw(t, "canary") == 0
	if rapid.Bool().Draw(t, "child") {
		e.Parent = Ref(repository, rapid.IntRange(100, 102).Draw(t, "parent")).Digest()
	}
	switch e.Kind {
	case artifact.Replayed, artifact.Discarded:
		e.Actor, e.Change = text(t, "actor"), &artifact.Change{Before: json.RawMessage(`{"id": 7}`), From: text(t, "from")}
	case artifact.Received, artifact.Confirmed:
		e.Tag, e.Pusher = text(t, "tag"), text(t, "pusher")
		if rapid.Bool().Draw(t, "dated") {
			pushed := time.Unix(rapid.Int64Range(-1e9, 4e9).Draw(t, "pushed_at"), 0)
			e.PushedAt = &pushed
		}
	case artifact.Signed:
		signed(t, &e, seq)
	case artifact.LogPaid:
		e.Reason = rapid.SampledFrom([]string{"", "locked", "gone"}).Draw(t, "reason of the payment")
		e.Signatures = rapid.SliceOfN(rapid.Custom(evidence), 0, 2).Draw(t, "signatures of the payment")
	case artifact.Skipped:
		e.Reason = string(rapid.SampledFrom([]policy.Reason{
			policy.IsAccessory, policy.OwnPush, policy.Observed, policy.Blocked, policy.Exempt, policy.NotEnabled, "of_the_future",
		}).Draw(t, "reason of the policy"))
		e.AsOf = rapid.Uint64Range(0, seq+2).Draw(t, "as_of")
	case artifact.Failed, artifact.Dead, artifact.Removed, artifact.Blocked, artifact.Vanished:
		e.Unsigned = rapid.Bool().Draw(t, "unsigned")
		if rapid.Bool().Draw(t, "says as of when") {
			e.AsOf = rapid.Uint64Range(0, seq+2).Draw(t, "as_of") // a writer may claim what it cannot have seen
		}
	default:
	}
	return e
}

// signed draws what a signed event says.
func signed(t *rapid.T, e *artifact.Event, seq uint64) {
	e.How = rapid.SampledFrom([]artifact.How{artifact.Made, artifact.Found}).Draw(t, "how")
	e.KeyID = rapid.SampledFrom([]string{"k1", "k2"}).Draw(t, "key_id")
	e.Format, e.SignatureDigest = artifact.Legacy, rapid.SampledFrom([]string{"s1", "s2"}).Draw(t, "signature_digest")
	if rapid.Bool().Draw(t, "of a newer program") {
		e.Signatures = []artifact.Evidence{evidence(t)}
		e.Signatures[0].Format, e.Signatures[0].KeyID, e.Signatures[0].Digest = e.Format, e.KeyID, e.SignatureDigest
		if rapid.Bool().Draw(t, "both formats") {
			key := rapid.SampledFrom([]string{e.KeyID, "k3"}).Draw(t, "key_id of the bundle")
			e.Signatures = append(e.Signatures, artifact.Evidence{Format: artifact.Bundle, KeyID: key, Digest: text(t, "bundle")})
		}
	}
	if rapid.Bool().Draw(t, "verified by a sweep") {
		e.KeySet = text(t, "key_set")
		e.Accessories = rapid.SliceOfN(rapid.SampledFrom([]string{"s1", "s2", "\x00"}), 0, 3).Draw(t, "accessories")
	}
	if rapid.IntRange(0, 2).Draw(t, "owes") == 0 {
		return
	}
	e.LogOwed = rapid.SliceOfN(rapid.SampledFrom([]artifact.Format{artifact.Legacy, artifact.Bundle}), 1, 2).Draw(t, "log_owed")
	if rapid.IntRange(0, 3).Draw(t, "says as of when") > 0 {
		e.AsOf = rapid.Uint64Range(max(seq, 9)-8, seq+2).Draw(t, "as_of of the debt")
	}
}

// evidence draws a signature with what proves it.
func evidence(t *rapid.T) artifact.Evidence {
	s := artifact.Evidence{
		Format: rapid.SampledFrom([]artifact.Format{artifact.Legacy, artifact.Bundle}).Draw(t, "format"),
		KeyID:  rapid.SampledFrom([]string{"k1", "k3"}).Draw(t, "key_id"), Digest: text(t, "digest"),
	}
	if rapid.Bool().Draw(t, "logged") {
		s.Log, s.LogIndex = text(t, "log"), rapid.Int64().Draw(t, "log_index")
	}
	if rapid.Bool().Draw(t, "timestamped") {
		s.TimestampedAt = time.Unix(rapid.Int64Range(-1e11, 1e12).Draw(t, "timestamped_at"), 1)
	}
	return s
}

func projectEvent(t *rapid.T) artifact.Event {
	kinds := append([]artifact.Kind{artifact.Swept, artifact.Outage, artifact.Outage, artifact.Checkpointed, "project_of_the_future"}, ProjectKinds()...)
	e := ProjectEvent(rapid.SampledFrom(kinds).Draw(t, "kind"), rapid.SampledFrom([]string{"demo", "other", "de.mo", "quiet", ""}).Draw(t, "project"))
	e.Time = e.Time.Add(time.Duration(rapid.Int64Range(-5e9, 5e9).Draw(t, "time")))
	e.Canary = rapid.IntRange(0, 19).Draw(t, "canary") == 0
	e.Actor, e.Reason, e.Detail = text(t, "actor"), rapid.SampledFrom([]string{"", "webhook_missing"}).Draw(t, "reason"), text(t, "detail")
	switch e.Kind {
	case artifact.PolicyChanged, artifact.Paused, artifact.Resumed:
		side := rapid.SampledFrom([]string{"", "null", "{}", ` { "mode" : "sign<" } `, `"` + "\xff\u2028" + `"`, "{", "\"" + strings.Repeat("&", 1<<15) + "\""})
		e.Change = &artifact.Change{
			Before: json.RawMessage(side.Draw(t, "before")), After: json.RawMessage(side.Draw(t, "after")), From: text(t, "from"),
		}
	case artifact.Swept:
		e.Sweep = &artifact.Sweep{
			StartedAt:  e.Time.Add(-time.Nanosecond).In(time.FixedZone("east", 3600)),
			Population: rapid.IntRange(0, 9).Draw(t, "population"), Digest: text(t, "digest of the population"),
		}
	case artifact.Outage:
		e.Outage = outageRecord(t)
	case artifact.KeyAdded, artifact.KeyRetired, artifact.KeyRevoked:
		e.Key = &artifact.KeyRecord{ID: text(t, "id of the key"), Name: text(t, "name of the key"), Use: "image", State: text(t, "state of the key")}
	case artifact.ReportRead, artifact.ReportExported:
		e.Report = &artifact.ReportRecord{Scope: text(t, "scope"), Format: text(t, "format"), Rows: rapid.Uint64().Draw(t, "rows"), Address: text(t, "address")}
	case artifact.EpochOpened:
		e.Epoch = &artifact.EpochRecord{
			Epoch: rapid.Uint64().Draw(t, "epoch"), First: 1, Stream: e.Time.In(time.FixedZone("east", 3600)), Previous: text(t, "previous"), Note: text(t, "note"),
		}
	default:
	}
	return e
}

// outageRecord draws one of few outages, so that their records meet.
func outageRecord(t *rapid.T) *artifact.OutageRecord {
	started := Epoch().Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "started_at")) * time.Minute)
	o := &artifact.OutageRecord{
		Dependency: rapid.SampledFrom([]string{"log/rekor", "harbor_api", HostileTexts()[0]}).Draw(t, "dependency"),
		Program:    rapid.SampledFrom([]string{"receiver", "signer"}).Draw(t, "program"), Instance: "i",
		StartedAt: started, DetectedAt: started.Add(15 * time.Second), Cause: text(t, "cause"), Detail: text(t, "detail of the outage"),
		Waiting: rapid.Uint64().Draw(t, "waiting"), Deferred: rapid.Uint64Range(0, 9).Draw(t, "deferred"),
	}
	if rapid.Bool().Draw(t, "ended") {
		ended := started.Add(time.Duration(rapid.Int64Range(1, 5e9).Draw(t, "ended_at")) + time.Minute)
		o.EndedAt = &ended
	}
	return o
}

// ProjectKinds are the kinds of events about projects that are shown.
func ProjectKinds() []artifact.Kind {
	return []artifact.Kind{
		artifact.PolicyChanged, artifact.Swept, artifact.Drifted, artifact.Repaired, artifact.Paused, artifact.Resumed,
		artifact.Outage, artifact.Unreadable, artifact.KeyAdded, artifact.KeyRetired, artifact.KeyRevoked, artifact.ReportRead,
		artifact.ReportExported, artifact.EpochOpened, artifact.Tampered, artifact.RetentionShortened, artifact.BackupMade, artifact.Restored,
	}
}

func text(t *rapid.T, label string) string {
	return rapid.SampledFrom(append(HostileTexts(), "", "v1", "v2", "latest")).Draw(t, label)
}

// HostileTexts are what a tag or a pusher may be if somebody means harm.
func HostileTexts() []string {
	return []string{
		"=HYPERLINK(\"http://x\")", "+1+1", "-1", "@SUM(A1)", "\x00nul\x00", "\x1b[31mred\x1b[0m", "a\r\nb\tc", "</script><script>alert(1)</script>",
		"'; DROP TABLE units; --", "\xff\xfe", "\u202etxt.exe", "\u2028", "%00%0a", "{{.}}", "x" + strings.Repeat("é", 5000),
	}
}

// Shuffled draws the same history as something less orderly delivers it: in another order, parts repeated.
func Shuffled(t *rapid.T, history []artifact.Entry) []artifact.Entry {
	if len(history) == 0 {
		return nil
	}
	again := rapid.SliceOfN(rapid.SampledFrom(history), 0, len(history)).Draw(t, "repeated")
	return rapid.Permutation(slices.Concat(history, again)).Draw(t, "order")
}

// Batches draws a division of a history.
func Batches(t *rapid.T, history []artifact.Entry) [][]artifact.Entry {
	var batches [][]artifact.Entry
	for len(history) > 0 {
		n := rapid.IntRange(1, len(history)).Draw(t, "batch")
		batches, history = append(batches, history[:n]), history[n:]
	}
	return batches
}
