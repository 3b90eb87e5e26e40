package ledger

import (
	"math"
	"strings"
	"time"
	"unicode"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Outage is a time in which one program did not reach something that it depends on, as PCI DSS 10.7.3 wants it recorded.
// Several programs, and several of one kind, record what each of them saw.
type Outage struct {
	// Seq is the sequence of its first record in the ledger.
	Seq        uint64 `json:"seq"`
	Dependency string `json:"dependency"`
	Program    string `json:"program"`
	Instance   string `json:"instance"`
	// StartedAt is when the dependency answered last, or when the program started; DetectedAt when the program knew; EndedAt when
	// the dependency answered again, null while no record says so. All are UTC.
	StartedAt  time.Time  `json:"started_at"`
	DetectedAt time.Time  `json:"detected_at"`
	EndedAt    *time.Time `json:"ended_at"`
	// Cause is from a closed set, Detail for people.
	Cause  string `json:"cause"`
	Detail string `json:"detail"`
	// Waiting is how many requests waited in the queue, Deferred how many log entries were owed: at the end of the outage, or when it
	// was detected.
	Waiting  uint64 `json:"waiting"`
	Deferred uint64 `json:"deferred"`

	// LastSeq is the sequence of the record that all but Seq is from. It is for stores.
	LastSeq uint64 `json:"-"`
}

// OutageOf reads an entry as what is known of an outage; false if it tells of none.
func OutageOf(entry artifact.Entry) (Outage, bool) {
	event, ok := ProjectEventOf(entry)
	if !ok || event.Kind != artifact.Outage || event.Outage == nil {
		return Outage{}, false
	}
	o := event.Outage
	return Outage{
		Seq: entry.Seq, LastSeq: entry.Seq, Dependency: o.Dependency, Program: o.Program, Instance: o.Instance,
		StartedAt: o.StartedAt, DetectedAt: o.DetectedAt, EndedAt: o.EndedAt, Cause: o.Cause, Detail: o.Detail,
		Waiting: o.Waiting, Deferred: o.Deferred,
	}, true
}

// Same says whether both are of the same outage: a dependency has to answer before the same program can miss it once more.
func (o Outage) Same(other Outage) bool {
	return o.Dependency == other.Dependency && o.Program == other.Program && o.Instance == other.Instance && o.StartedAt.Equal(other.StartedAt)
}

// Merge gives what both records of one outage say together. One that has an end counts more than one that has none, and the
// later one of two such: the order in which records are merged, and repetitions, change nothing.
func (o Outage) Merge(other Outage) Outage {
	first := min(o.Seq, other.Seq)
	if closed := other.EndedAt != nil; closed == (o.EndedAt != nil) && other.LastSeq > o.LastSeq || closed && o.EndedAt == nil {
		o = other
	}
	o.Seq = first
	return o
}

// outageRecord makes what a program recorded storable. Its times have a resolution of one microsecond; those that no JSON could
// say are that of the event.
func outageRecord(o artifact.OutageRecord, at time.Time) *artifact.OutageRecord {
	clock := func(t time.Time) time.Time {
		if t = instant(t); t.Year() < 1970 || t.Year() > 9999 {
			return at
		}
		return t
	}
	record := artifact.OutageRecord{
		Dependency: clean(o.Dependency, maxText), Program: clean(o.Program, maxText), Instance: clean(o.Instance, maxText),
		StartedAt: clock(o.StartedAt), DetectedAt: clock(o.DetectedAt), Cause: clean(o.Cause, maxText), Detail: clean(o.Detail, maxDetail),
		Waiting: min(o.Waiting, math.MaxInt64), Deferred: min(o.Deferred, math.MaxInt64),
	}
	if o.EndedAt != nil {
		ended := clock(*o.EndedAt)
		record.EndedAt = &ended
	}
	return &record
}

// OutageQuery asks for outages. All filters that are set must hold. They come newest first, by the sequence of their first record:
// what is written while somebody turns pages neither repeats nor hides one that was there at the first page.
type OutageQuery struct {
	// Dependency is its exact name.
	Dependency string
	// Since and Until leave the outages of a period: those that began before Until, and had not ended at Since. The zero time is
	// no bound.
	Since, Until time.Time
	// Limit is the most outages of a page; 0 means [DefaultLimit].
	Limit int
	// Cursor is the NextCursor of the page before, of a query with the same filters; empty for the first page.
	Cursor string
}

// OutagePage is one page of an answer.
type OutagePage struct {
	// Items are never nil.
	Items []Outage
	// NextCursor asks for the next page; empty if this is the last one.
	NextCursor string
}

// OutageFilter is a query as stores take it: checked, with everything filled in.
type OutageFilter struct {
	Dependency   string
	Since, Until time.Time
	Limit        int
	// Before is the sequence below which the page begins; 0 for the first page.
	Before uint64
}

// Filter checks the query. The error is an [*InvalidQueryError].
func (q OutageQuery) Filter() (OutageFilter, error) {
	f := OutageFilter{Dependency: q.Dependency, Since: instant(q.Since), Until: instant(q.Until)}
	if clean(q.Dependency, maxText) != q.Dependency || strings.ContainsFunc(q.Dependency, unicode.IsControl) {
		return OutageFilter{}, invalid("dependency", "want the name of a dependency, as the outages and the metrics show it, such as log/rekor")
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return OutageFilter{}, invalid("until", wantLater)
	}
	var err error
	if f.Limit, err = pageLimit(q.Limit); err != nil {
		return OutageFilter{}, err
	}
	if q.Cursor != "" {
		numbers, err := openCursor(q.Cursor, f.digest(), 1)
		if err != nil {
			return OutageFilter{}, err
		}
		f.Before = numbers[0]
	}
	return f, nil
}

// Matches says whether an outage belongs to the answer, whatever the page.
func (f OutageFilter) Matches(o Outage) bool {
	return (f.Dependency == "" || o.Dependency == f.Dependency) &&
		(f.Until.IsZero() || o.StartedAt.Before(f.Until)) &&
		(f.Since.IsZero() || o.EndedAt == nil || !o.EndedAt.Before(f.Since))
}

// Cursor gives the cursor that asks for the outages before a sequence.
func (f OutageFilter) Cursor(seq uint64) string { return sealCursor(f.digest(), seq) }

func (f OutageFilter) digest() []byte {
	return digestOf("outages", f.Dependency, stamp(f.Since), stamp(f.Until))
}
