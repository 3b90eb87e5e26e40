package ledger

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// maxChange bounds each side of a change, in bytes of JSON. It holds any policy that a person would write.
const maxChange = 64 << 10

// maxNote bounds a signed note, in bytes: a few lines and a signature, or a few.
const maxNote = 8 << 10

// ProjectEvent is something that happened to a project, or to all, as the API shows it. What somebody did to a dead letter is
// among it, because nothing else of it stays.
type ProjectEvent struct {
	// Seq is the event's sequence in the ledger.
	Seq uint64 `json:"seq"`
	// Project is empty for what concerns all projects.
	Project string        `json:"project"`
	Kind    artifact.Kind `json:"kind"`
	// Repository (the full name) and Digest name the manifest of a dead letter that was replayed or discarded.
	Repository string    `json:"repository,omitempty"`
	Digest     string    `json:"digest,omitempty"`
	At         time.Time `json:"at"` // UTC
	// Actor is who did it, and Origin the part of the program that recorded it.
	Actor  string          `json:"actor"`
	Origin artifact.Origin `json:"origin"`
	// Reason (from a closed set) and Detail (for people) are those of the event.
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	// Change is there if the event changed something, such as a policy. A side longer than 64 KiB, or that is no JSON, is an
	// object whose only member, note, says so.
	Change *artifact.Change `json:"change,omitempty"`
	// Sweep is there if the event sums up a sweep.
	Sweep *artifact.Sweep `json:"sweep,omitempty"`
	// Outage is there if the event tells of a dependency that did not answer, or that answers again.
	Outage *artifact.OutageRecord `json:"outage,omitempty"`
	// Key is there if a key that signs, or is accepted, has changed.
	Key *artifact.KeyRecord `json:"key,omitempty"`
	// Report is there if somebody was shown the report, or exported it.
	Report *artifact.ReportRecord `json:"report,omitempty"`
	// Epoch is there if the event opens an epoch of the ledger's Merkle log.
	Epoch *artifact.EpochRecord `json:"epoch,omitempty"`
}

// ProjectEventOf reads an entry as an event about a project; false if it is none, if it is of a kind that this program does not
// know, if it is a checkpoint (there is one each minute, and they are read from the ledger itself), or if it is about images of the service's own. The same entry always gives the same event: text is cut and made storable, and JSON is brought to one form.
func ProjectEventOf(entry artifact.Entry) (ProjectEvent, bool) {
	e := entry.Event
	if e.Canary || e.Kind == artifact.Checkpointed || !e.Kind.OfProject() && !ofLetter(e.Kind) {
		return ProjectEvent{}, false
	}
	event := ProjectEvent{
		Seq: entry.Seq, Project: clean(e.Project, maxText), Kind: e.Kind, At: instant(e.Time),
		Actor: clean(e.Actor, maxText), Origin: artifact.Origin(clean(string(e.Origin), maxText)),
		Reason: clean(e.Reason, maxText), Detail: clean(e.Detail, maxDetail),
	}
	if !e.Ref.IsZero() {
		event.Project, event.Repository, event.Digest = e.Ref.Project(), e.Ref.Repository(), e.Ref.Digest()
	}
	if c := e.Change; c != nil {
		event.Change = &artifact.Change{Before: bounded(c.Before), After: bounded(c.After), From: clean(c.From, maxText)}
	}
	if e.Sweep != nil {
		sweep := *e.Sweep
		sweep.Digest = clean(sweep.Digest, maxText)
		sweep.StartedAt = shown(sweep.StartedAt)
		event.Sweep = &sweep
	}
	if e.Outage != nil {
		event.Outage = outageRecord(*e.Outage, event.At)
	}
	event.Key, event.Report, event.Epoch = keyRecord(e.Key), reportRecord(e.Report), epochRecord(e.Epoch)
	return event, true
}

// keyRecord, reportRecord and epochRecord make what a program recorded storable; nil for nothing.
func keyRecord(k *artifact.KeyRecord) *artifact.KeyRecord {
	if k == nil {
		return nil
	}
	return &artifact.KeyRecord{ID: clean(k.ID, maxText), Name: clean(k.Name, maxText), Use: clean(k.Use, maxText), State: clean(k.State, maxText)}
}

func reportRecord(r *artifact.ReportRecord) *artifact.ReportRecord {
	if r == nil {
		return nil
	}
	return &artifact.ReportRecord{
		Scope: clean(r.Scope, maxDetail), Format: clean(r.Format, maxText), Rows: min(r.Rows, math.MaxInt64), SHA256: clean(r.SHA256, maxText),
		Complete: r.Complete, Address: clean(r.Address, maxText),
	}
}

func epochRecord(e *artifact.EpochRecord) *artifact.EpochRecord {
	if e == nil {
		return nil
	}
	return &artifact.EpochRecord{
		Epoch: min(e.Epoch, math.MaxInt64), First: min(e.First, math.MaxInt64), Stream: shown(e.Stream),
		Previous: clean(e.Previous, maxNote), Note: clean(e.Note, maxNote),
	}
}

// ofLetter says whether events of a kind tell what somebody did to the dead letter of a manifest.
func ofLetter(k artifact.Kind) bool { return k == artifact.Replayed || k == artifact.Discarded }

// bounded brings JSON to the form that encoding it again does not change; nil for nothing.
func bounded(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return nil
	}
	text, err := json.Marshal(json.RawMessage(strings.ToValidUTF8(string(raw), "\uFFFD")))
	switch {
	case err != nil:
		return leftOut("left out: it is no JSON")
	case string(text) == "null":
		return nil
	case len(text) > maxChange:
		return leftOut(fmt.Sprintf("left out: %d bytes are more than the %d that are kept", len(text), maxChange))
	default:
		return text
	}
}

func leftOut(text string) json.RawMessage { return json.RawMessage(`{"note":"` + text + `"}`) }

// EventQuery asks for events about projects. They come newest first, by sequence: what is written while somebody turns pages
// neither repeats nor hides one that was there at the first page.
type EventQuery struct {
	// Project is a project's exact name: what concerns all projects is not among its events. Empty means all events.
	Project string
	// Limit is the most events of a page; 0 means [DefaultLimit].
	Limit int
	// Cursor is the NextCursor of the page before, of a query for the same project; empty for the first page.
	Cursor string
}

// EventPage is one page of an answer.
type EventPage struct {
	// Items are never nil.
	Items []ProjectEvent
	// NextCursor asks for the next page; empty if this is the last one.
	NextCursor string
}

// EventFilter is a query as stores take it: checked, with everything filled in.
type EventFilter struct {
	Project string
	Limit   int
	// Before is the sequence below which the page begins; 0 for the first page.
	Before uint64
}

// Filter checks the query. The error is an [*InvalidQueryError].
func (q EventQuery) Filter() (EventFilter, error) {
	if q.Project != "" && artifact.ValidateProject(q.Project) != nil {
		return EventFilter{}, invalid("project", wantProject)
	}
	limit, err := pageLimit(q.Limit)
	if err != nil {
		return EventFilter{}, err
	}
	f := EventFilter{Project: q.Project, Limit: limit}
	if q.Cursor != "" {
		if f.Before, err = f.decodeCursor(q.Cursor); err != nil {
			return EventFilter{}, err
		}
	}
	return f, nil
}
