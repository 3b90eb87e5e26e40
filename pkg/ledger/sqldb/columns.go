package sqldb

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// The statements of the writer. The order of columns is that of fields.
const (
	unitColumns = "project, repository, digest, state, sole_key, first_seq, first_seen_at, last_seq, " +
		"received_seq, received_at, pushed_at, pusher, last_received_seq, confirmed_seq, confirmed_pushed_at, confirmed_pusher, " +
		"signed_seq, signed_at, verified_seq, verified_at, key_id, format, signature_digest, how, " +
		"signatures_seq, signatures, note, owed, owed_as_of, debts, " +
		"paid_seq, paid_reason, paid_note, paid_signatures_seq, paid_at, paid_signatures, log_owed_since, accessories_seq, accessories, key_set, " +
		"gone_seq, unsigned_seq, other_seq, other, reason, detail, media_type_seq, media_type, policy_revision_seq, policy_revision, attempts"

	selectPosition = "SELECT stream_created, rules, generation, seq FROM view_position WHERE id = 1"
	setGeneration  = "UPDATE view_position SET generation = ? WHERE id = 1"
	selectUnit     = "SELECT id, " + unitColumns + " FROM units WHERE " + isUnit

	eventColumns = "seq, project, kind, at, actor, origin, reason, detail, data"
	// An event is known by its sequence: reading it again changes nothing.
	insertEventText = "INSERT INTO project_events (" + eventColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (seq) DO NOTHING"
)

func insertUnitText() string {
	n := strings.Count(unitColumns, ",")
	return "INSERT INTO units (" + unitColumns + ") VALUES (?" + strings.Repeat(", ?", n) + ") RETURNING id"
}

func updateUnitText() string {
	return "UPDATE units SET " + strings.ReplaceAll(unitColumns, ",", " = ?,") + " = ? WHERE id = ?"
}

// upsertName keeps the lowest and the highest sequence, as ledger.Seen.Merge does. The right-hand sides see the old row.
func upsertName(table string) string {
	lower, higher := "excluded.first_seq < "+table+".first_seq", "excluded.last_seq > "+table+".last_seq"
	keep := func(column, condition string) string {
		return column + " = CASE WHEN " + condition + " THEN excluded." + column + " ELSE " + table + "." + column + " END"
	}
	return "INSERT INTO " + table + " (unit_id, name, first_seq, first_at, last_seq, last_at) VALUES (?, ?, ?, ?, ?, ?) " +
		"ON CONFLICT (unit_id, name) DO UPDATE SET " +
		keep("first_seq", lower) + ", " + keep("first_at", lower) + ", " + keep("last_seq", higher) + ", " + keep("last_at", higher)
}

// unit is a row of units.
type unit struct {
	id     int64
	record ledger.Record
	// These are derived from the record when the row is written; a row that was read has its reference from here.
	project, repository, digest string
	state                       ledger.State
	soleKey                     string
	logOwedSince                time.Time
	// What the row said before the batch; nil and empty for a new row.
	before      *contribution
	keysBefore  []string
	placeBefore ledger.Place
}

// fields gives pointers to what the columns hold, in their order, for reading and for writing.
func (u *unit) fields() []any {
	r := &u.record
	return []any{
		&u.project, &u.repository, &u.digest, &u.state, &u.soleKey, &r.FirstSeq, (*micros)(&r.FirstSeenAt), &r.LastSeq,
		&r.ReceivedSeq, (*micros)(&r.ReceivedAt), (*micros)(&r.PushedAt), &r.Pusher, &r.LastReceivedSeq,
		&r.ConfirmedSeq, (*micros)(&r.ConfirmedPushedAt), &r.ConfirmedPusher,
		&r.SignedSeq, (*micros)(&r.SignedAt), &r.VerifiedSeq, (*micros)(&r.VerifiedAt), &r.KeyID, &r.Format, &r.SignatureDigest, &r.How,
		&r.SignaturesSeq, (*list[artifact.Evidence])(&r.Signatures), &r.Note,
		(*list[artifact.Format])(&r.Owed), &r.OwedAsOf, (*list[ledger.Debt])(&r.Debts),
		&r.PaidSeq, &r.PaidReason, &r.PaidNote, &r.PaidSignaturesSeq, (*micros)(&r.PaidAt), (*list[artifact.Evidence])(&r.PaidSignatures), (*micros)(&u.logOwedSince),
		&r.AccessoriesSeq, (*list[string])(&r.Accessories), &r.KeySet,
		&r.GoneSeq, &r.UnsignedSeq, &r.OtherSeq, &r.Other, &r.Reason, &r.Detail, &r.MediaTypeSeq, &r.MediaType,
		&r.PolicyRevisionSeq, &r.PolicyRevision, &r.Attempts,
	}
}

func newUnit(ref artifact.Ref) *unit {
	return &unit{
		record:  ledger.Record{Ref: ref},
		project: ref.Project(), repository: ref.Repository(), digest: ref.Digest(),
	}
}

// scan reads id and unitColumns.
func (u *unit) scan(row scanner) error {
	if err := row.Scan(append([]any{&u.id}, u.fields()...)...); err != nil {
		return err
	}
	ref, err := artifact.NewRef(u.repository, u.digest)
	if err != nil {
		return fmt.Errorf("reading a row: %w", err)
	}
	u.record.Ref = ref
	return nil
}

// values gives what is written to unitColumns.
func (u *unit) values() []any {
	u.state, u.soleKey, u.logOwedSince = u.record.State(), u.record.SoleKey(), u.record.LogOwedSince()
	return u.fields()
}

// micros is a time as the database keeps it: microseconds since 1970, NULL for the zero time.
type micros time.Time

// Value implements driver.Valuer.
func (m micros) Value() (driver.Value, error) {
	if time.Time(m).IsZero() {
		return nil, nil //nolint:nilnil // NULL is the value
	}
	return time.Time(m).UnixMicro(), nil
}

// Scan implements sql.Scanner.
func (m *micros) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		*m = micros{}
	case int64:
		*m = micros(time.UnixMicro(v).UTC())
	default:
		return fmt.Errorf("a time is of type %T, want an integer", src)
	}
	return nil
}

// list is kept in the database as a list in JSON.
type list[T any] []T

// Value implements driver.Valuer.
func (l list[T]) Value() (driver.Value, error) {
	if len(l) == 0 {
		return "[]", nil
	}
	text, err := json.Marshal([]T(l))
	if err != nil {
		return nil, fmt.Errorf("writing a list: %w", err)
	}
	return string(text), nil
}

// Scan implements sql.Scanner.
func (l *list[T]) Scan(src any) error {
	text, ok := src.(string)
	if !ok {
		return fmt.Errorf("a list is of type %T, want text", src)
	}
	if text == "[]" {
		*l = nil
		return nil
	}
	var read []T
	if err := json.Unmarshal([]byte(text), &read); err != nil {
		return fmt.Errorf("reading a list: %w", err)
	}
	*l = read
	return nil
}

// data is what an event about a project says beyond the other columns, as JSON in the database.
type data struct {
	Repository string                 `json:"repository,omitempty"`
	Digest     string                 `json:"digest,omitempty"`
	Change     *artifact.Change       `json:"change,omitempty"`
	Sweep      *artifact.Sweep        `json:"sweep,omitempty"`
	Outage     *artifact.OutageRecord `json:"outage,omitempty"`
	Key        *artifact.KeyRecord    `json:"key,omitempty"`
	Report     *artifact.ReportRecord `json:"report,omitempty"`
	Epoch      *artifact.EpochRecord  `json:"epoch,omitempty"`
}

// dataOf gives what an event says beyond the other columns.
func dataOf(e ledger.ProjectEvent) data {
	return data{
		Repository: e.Repository, Digest: e.Digest, Change: e.Change, Sweep: e.Sweep, Outage: e.Outage,
		Key: e.Key, Report: e.Report, Epoch: e.Epoch,
	}
}

// into fills in what dataOf has taken.
func (d data) into(e *ledger.ProjectEvent) {
	e.Repository, e.Digest, e.Change, e.Sweep, e.Outage = d.Repository, d.Digest, d.Change, d.Sweep, d.Outage
	e.Key, e.Report, e.Epoch = d.Key, d.Report, d.Epoch
}

// Value implements driver.Valuer.
func (d data) Value() (driver.Value, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("writing an event: %w", err)
	}
	return string(text), nil
}

// Scan implements sql.Scanner.
func (d *data) Scan(src any) error {
	text, ok := src.(string)
	if !ok {
		return fmt.Errorf("the data of an event are of type %T, want text", src)
	}
	var read data
	if err := json.Unmarshal([]byte(text), &read); err != nil {
		return fmt.Errorf("reading an event: %w", err)
	}
	*d = read
	return nil
}
