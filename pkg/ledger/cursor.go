package ledger

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"
)

// A cursor is a version, a digest of the filters that it belongs to, and the place of the last item that was given. It is
// no secret and not signed: whoever makes one up only chooses where a page of an allowed query begins.
const (
	cursorVersion = 1
	cursorDigest  = 12
)

// Cursor gives the cursor that asks for the rows after place.
func (f Filter) Cursor(place Place) string {
	return sealCursor(f.digest(), uint64(place.At.UnixMicro()), place.FirstSeq) // two's complement, undone below
}

func (f Filter) decodeCursor(cursor string) (Place, error) {
	numbers, err := openCursor(cursor, f.digest(), 2)
	if err != nil {
		return Place{}, err
	}
	micros := int64(numbers[0]) //nolint:gosec // two's complement, as it was written
	return Place{At: time.UnixMicro(micros).UTC(), FirstSeq: numbers[1]}, nil
}

// digest is over what decides which rows belong to the answer. The limit does not: it may change between pages. Nor do the
// projects that somebody may see, which may change meanwhile: the places of rows stay what they are.
func (f Filter) digest() []byte {
	seen := f.Times[ByFirstSeen]
	parts := []string{f.Project, f.Repository, f.DigestFrom, f.DigestTo, string(f.State), stamp(seen.Since), stamp(seen.Until), f.SignedOnlyBy}
	if f.LogOwed {
		parts = append(parts, "log_owed")
	}
	// What came later counts only where it is set: cursors that were given before it came stay good.
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+"="+value)
		}
	}
	if f.Glob != nil {
		add("glob", f.Glob.String())
	}
	add("tag", f.Tag)
	add("key", f.Key)
	add("format", f.Format)
	add("pusher", f.Pusher)
	add("pusher_source", string(f.PusherSource))
	for _, sort := range []Sort{ByPushed, BySigned} {
		add(sortNames()[sort]+"_since", stamp(f.Times[sort].Since))
		add(sortNames()[sort]+"_until", stamp(f.Times[sort].Until))
	}
	if f.Sort != ByFirstSeen || f.Ascending {
		add("sort", fmt.Sprintf("%s %t", sortNames()[f.Sort], f.Ascending))
	}
	return digestOf(parts...)
}

// Cursor gives the cursor that asks for the events before a sequence.
func (f EventFilter) Cursor(seq uint64) string { return sealCursor(f.digest(), seq) }

func (f EventFilter) decodeCursor(cursor string) (uint64, error) {
	numbers, err := openCursor(cursor, f.digest(), 1)
	if err != nil {
		return 0, err
	}
	return numbers[0], nil
}

func (f EventFilter) digest() []byte { return digestOf("events", f.Project) }

func digestOf(parts ...string) []byte {
	h := sha256.New()
	for _, part := range parts {
		// No part can contain a line feed: all were checked.
		h.Write([]byte(strings.ReplaceAll(part, "\n", " ") + "\n"))
	}
	return h.Sum(nil)[:cursorDigest]
}

// sealCursor writes a cursor. The last number is a sequence.
func sealCursor(digest []byte, numbers ...uint64) string {
	b := append([]byte{cursorVersion}, digest...)
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// openCursor reads as many numbers as sealCursor has written. The last one must be a sequence that a database can hold.
func openCursor(cursor string, digest []byte, count int) ([]uint64, error) {
	errUnknown := invalid("cursor", "want the next_cursor of an answer, unchanged")
	const head = 1 + cursorDigest
	size := head + 8*count
	if len(cursor) != base64.RawURLEncoding.EncodedLen(size) {
		return nil, errUnknown
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	// The decoder passes over line ends and spare bits; what was given has neither.
	if err != nil || len(b) != size || b[0] != cursorVersion || base64.RawURLEncoding.EncodeToString(b) != cursor {
		return nil, errUnknown
	}
	if string(b[1:head]) != string(digest) {
		return nil, invalid("cursor", "belongs to a query with other filters: repeat those, or begin without a cursor")
	}
	numbers := make([]uint64, 0, count)
	for b = b[head:]; len(b) > 0; b = b[8:] {
		numbers = append(numbers, binary.BigEndian.Uint64(b))
	}
	if seq := numbers[count-1]; seq == 0 || seq > math.MaxInt64 {
		return nil, errUnknown
	}
	return numbers, nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}
