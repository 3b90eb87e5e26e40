package ledger

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"
)

// A cursor is a version, a digest of the filters that it belongs to, and the place of the last row that was given. It is
// no secret and not signed: whoever makes one up only chooses where a page of an allowed query begins.
const (
	cursorVersion = 1
	cursorDigest  = 12
	cursorSize    = 1 + cursorDigest + 8 + 8
)

// Cursor gives the cursor that asks for the rows after place.
func (f Filter) Cursor(place Place) string {
	b := make([]byte, 0, cursorSize)
	b = append(b, cursorVersion)
	b = append(b, f.digest()...)
	b = binary.BigEndian.AppendUint64(b, uint64(place.FirstSeenAt.UnixMicro())) // two's complement, undone below
	b = binary.BigEndian.AppendUint64(b, place.FirstSeq)
	return base64.RawURLEncoding.EncodeToString(b)
}

func (f Filter) decodeCursor(cursor string) (Place, error) {
	if len(cursor) > 2*cursorSize {
		return Place{}, invalid("cursor", "want the next_cursor of an answer, unchanged")
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	// The decoder passes over line ends and spare bits; what was given has neither.
	if err != nil || len(b) != cursorSize || b[0] != cursorVersion || base64.RawURLEncoding.EncodeToString(b) != cursor {
		return Place{}, invalid("cursor", "want the next_cursor of an answer, unchanged")
	}
	if string(b[1:1+cursorDigest]) != string(f.digest()) {
		return Place{}, invalid("cursor", "belongs to a query with other filters: repeat those, or begin without a cursor")
	}
	micros := int64(binary.BigEndian.Uint64(b[1+cursorDigest:])) //nolint:gosec // two's complement, as it was written
	place := Place{FirstSeenAt: time.UnixMicro(micros).UTC(), FirstSeq: binary.BigEndian.Uint64(b[1+cursorDigest+8:])}
	if place.FirstSeq == 0 || int64(place.FirstSeq) < 0 { //nolint:gosec // the check is the point
		return Place{}, invalid("cursor", "want the next_cursor of an answer, unchanged")
	}
	return place, nil
}

// digest is over what decides which rows belong to the answer. The limit does not: it may change between pages.
func (f Filter) digest() []byte {
	h := sha256.New()
	for _, part := range []string{
		f.Project, f.Repository, f.DigestFrom, f.DigestTo, string(f.State), stamp(f.Since), stamp(f.Until),
	} {
		// No part can contain a line feed: all were checked.
		h.Write([]byte(strings.ReplaceAll(part, "\n", " ") + "\n"))
	}
	return h.Sum(nil)[:cursorDigest]
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}
