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
	unitColumns = "project, repository, digest, state, first_seq, first_seen_at, last_seq, " +
		"received_seq, received_at, pushed_at, pusher, last_received_seq, " +
		"signed_seq, signed_at, verified_seq, verified_at, key_id, format, signature_digest, how, " +
		"signatures_seq, signatures, note, " +
		"gone_seq, unsigned_seq, other_seq, other, reason, detail, media_type_seq, media_type, policy_revision_seq, policy_revision, attempts"

	selectPosition = "SELECT stream_created, rules, generation, seq FROM view_position WHERE id = 1"
	updatePosition = "UPDATE view_position SET seq = ? WHERE id = 1 AND seq < ?"
	selectUnit     = "SELECT id, " + unitColumns + " FROM units WHERE repository = ? AND digest = ?"
)

func insertUnit() string {
	n := strings.Count(unitColumns, ",")
	return "INSERT INTO units (" + unitColumns + ") VALUES (?" + strings.Repeat(", ?", n) + ") RETURNING id"
}

func updateUnit() string {
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
	// project, repository, digest and state are derived from the record when the row is written; a row that was read holds
	// its reference here until finish.
	project, repository, digest string
	state                       ledger.State
}

// fields gives pointers to what the columns hold, in their order, for reading and for writing.
func (u *unit) fields() []any {
	r := &u.record
	return []any{
		&u.project, &u.repository, &u.digest, &u.state, &r.FirstSeq, (*micros)(&r.FirstSeenAt), &r.LastSeq,
		&r.ReceivedSeq, (*micros)(&r.ReceivedAt), (*micros)(&r.PushedAt), &r.Pusher, &r.LastReceivedSeq,
		&r.SignedSeq, (*micros)(&r.SignedAt), &r.VerifiedSeq, (*micros)(&r.VerifiedAt), &r.KeyID, &r.Format, &r.SignatureDigest, &r.How,
		&r.SignaturesSeq, (*evidence)(&r.Signatures), &r.Note,
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
func (u *unit) scan(row interface{ Scan(dest ...any) error }) error {
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
	u.state = u.record.State()
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

// evidence is a list of signatures as the database keeps it: a list in JSON.
type evidence []artifact.Evidence

// Value implements driver.Valuer.
func (e evidence) Value() (driver.Value, error) {
	if len(e) == 0 {
		return "[]", nil
	}
	text, err := json.Marshal([]artifact.Evidence(e))
	if err != nil {
		return nil, fmt.Errorf("writing signatures: %w", err)
	}
	return string(text), nil
}

// Scan implements sql.Scanner.
func (e *evidence) Scan(src any) error {
	text, ok := src.(string)
	if !ok {
		return fmt.Errorf("signatures are of type %T, want text", src)
	}
	var list []artifact.Evidence
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return fmt.Errorf("reading signatures: %w", err)
	}
	*e = list
	return nil
}
