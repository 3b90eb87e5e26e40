package report

import (
	"strconv"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// Columns are the columns of report.csv, in their order. A column is added at the end, never renamed or moved.
//
// Lists (parents, tags, key_ids, formats, logs, log_indexes, timestamps, signature_digests, log_owed) have a single space between
// their texts; those of signatures have one for each signature, in the same order. Where a signature has no entry in a log or no
// timestamp, its place holds "none".
func Columns() []string {
	return []string{
		"registry", "project", "repository", "digest", "media_type", "tags", "tags_total", "parents", "parents_total",
		"state", "reason", "detail", "pusher", "pusher_source", "pushed_at", "first_seen_at", "received_at", "signed_at", "verified_at",
		"how", "key_ids", "formats", "signature_digests", "logs", "log_indexes", "timestamps", "note",
		"log_state", "log_owed", "log_owed_since", "log_reason", "attempts", "policy_revision", "ledger_seq",
	}
}

// none stands where a signature has no entry in a log, or no timestamp.
const none = "none"

// appendHeader appends the first line of report.csv.
func appendHeader(b []byte) []byte {
	return append(append(b, strings.Join(Columns(), ",")...), "\r\n"...)
}

// appendCSV appends a row as a line.
//
// SPEC: RFC 4180: fields between commas, those with a comma or a quotation mark within quotation marks, lines ended by CRLF. No
// field of ours holds an end of line, so that a line is a row.
func appendCSV(b []byte, registry string, r *ledger.Row) []byte {
	b = appendCell(b, registry)
	b = appendCell(append(b, ','), r.Project)
	b = appendCell(append(b, ','), r.Repository)
	b = appendCell(append(b, ','), r.Digest)
	b = appendCell(append(b, ','), r.MediaType)
	b = appendList(append(b, ','), r.Tags)
	b = strconv.AppendInt(append(b, ','), int64(r.TagsTotal), 10)
	b = appendList(append(b, ','), r.Parents)
	b = strconv.AppendInt(append(b, ','), int64(r.ParentsTotal), 10)
	b = appendCell(append(b, ','), string(r.State))
	b = appendCell(append(b, ','), r.Reason)
	b = appendCell(append(b, ','), r.Detail)
	b = appendCell(append(b, ','), r.Pusher)
	b = appendCell(append(b, ','), string(r.PusherSource))
	b = appendTime(append(b, ','), r.PushedAt)
	b = appendTime(append(b, ','), &r.FirstSeenAt)
	b = appendTime(append(b, ','), r.ReceivedAt)
	b = appendTime(append(b, ','), r.SignedAt)
	b = appendTime(append(b, ','), r.VerifiedAt)
	b = appendCell(append(b, ','), string(r.How))
	b = appendSignatures(append(b, ','), r.Signatures)
	b = appendCell(append(b, ','), r.Note)
	b = appendCell(append(b, ','), string(r.LogState))
	b = appendList(append(b, ','), r.LogOwed)
	b = appendTime(append(b, ','), r.LogOwedSince)
	b = appendCell(append(b, ','), r.LogReason)
	b = strconv.AppendUint(append(b, ','), r.Attempts, 10)
	b = appendCell(append(b, ','), r.PolicyRevision)
	b = strconv.AppendUint(append(b, ','), r.LedgerSeq, 10)
	return append(b, "\r\n"...)
}

// appendSignatures appends the cells of the evidence, from key_ids to timestamps.
func appendSignatures(b []byte, all []artifact.Evidence) []byte {
	b = each(b, all, func(b []byte, e *artifact.Evidence) []byte { return appendText(b, e.KeyID, true) })
	b = each(append(b, ','), all, func(b []byte, e *artifact.Evidence) []byte { return appendText(b, string(e.Format), true) })
	b = each(append(b, ','), all, func(b []byte, e *artifact.Evidence) []byte { return appendText(b, e.Digest, true) })
	b = each(append(b, ','), all, func(b []byte, e *artifact.Evidence) []byte {
		if e.Log == "" {
			return append(b, none...)
		}
		return appendText(b, e.Log, true)
	})
	b = each(append(b, ','), all, func(b []byte, e *artifact.Evidence) []byte {
		if e.Log == "" {
			return append(b, none...)
		}
		return strconv.AppendUint(b, uint64(max(e.LogIndex, 0)), 10)
	})
	return each(append(b, ','), all, func(b []byte, e *artifact.Evidence) []byte {
		if e.TimestampedAt.IsZero() {
			return append(b, none...)
		}
		return appendInstant(b, e.TimestampedAt)
	})
}

// each appends a cell with a text for each signature.
func each(b []byte, all []artifact.Evidence, one func([]byte, *artifact.Evidence) []byte) []byte {
	from := len(b)
	for i := range all {
		if i > 0 {
			b = append(b, ' ')
		}
		b = one(b, &all[i])
	}
	return quote(b, from)
}

func appendCell(b []byte, s string) []byte {
	if plain(s) {
		return append(b, s...)
	}
	from := len(b)
	return quote(appendText(b, s, false), from)
}

func appendList[T ~string](b []byte, texts []T) []byte {
	from := len(b)
	for i, text := range texts {
		if i > 0 {
			b = append(b, ' ')
		}
		b = appendText(b, string(text), true)
	}
	return quote(b, from)
}

// quote puts the cell that begins at from within quotation marks, if it needs them.
func quote(b []byte, from int) []byte {
	marks, needed := 0, false
	for i, c := range b[from:] {
		switch {
		case c == '"':
			marks++
		case c == ',' || c == ';' || c == ' ' && (i == 0 || from+i == len(b)-1):
			needed = true
		}
	}
	if marks == 0 && !needed {
		return b
	}
	length := len(b)
	for range marks + 2 {
		b = append(b, '"')
	}
	// From behind, so that nothing is written over before it was moved.
	to := len(b) - 2
	for i := length - 1; i >= from; i-- {
		b[to] = b[i]
		to--
		if b[i] == '"' {
			b[to] = '"'
			to--
		}
	}
	b[from] = '"'
	return b
}

func appendTime(b []byte, t *time.Time) []byte {
	if t == nil || t.IsZero() {
		return b
	}
	return appendInstant(b, *t)
}

// appendInstant appends a time of RFC 3339 in UTC, to the microsecond that the ledger counts in. It is all that takes time in a row,
// so it is done by hand.
func appendInstant(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	}
	hour, minute, second := t.Clock()
	b = append(appendDigits(b, year, 4), '-')
	b = append(appendDigits(b, int(month), 2), '-')
	b = append(appendDigits(b, day, 2), 'T')
	b = append(appendDigits(b, hour, 2), ':')
	b = append(appendDigits(b, minute, 2), ':')
	b = append(appendDigits(b, second, 2), '.')
	return append(appendDigits(b, t.Nanosecond()/1000, 6), 'Z')
}

// appendDigits appends a number with so many digits.
func appendDigits(b []byte, n, digits int) []byte {
	const zeros = "000000"
	b = append(b, zeros[:digits]...)
	for i := len(b) - 1; n > 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}
