// Package printable takes from what this service writes all that is a command to who reads it: a terminal takes some control
// characters for commands, above the first 32 too, and others change the order in which text is shown. What people push, and what
// they are called, may hold any of them.
//
// Nothing is lost: characters that do not print are written as JSON escapes them. It is no protection for what reads text as a
// program, such as a spreadsheet: see package report.
package printable

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"unicode"
	"unicode/utf8"
)

// escape is the character behind which a terminal takes what comes next for a command.
const escape = '\x1b'

// JSON escapes what does not print in an encoded document, which stays the same document. Package encoding/json passes over what
// is above the first 32 characters. Line ends stay, also between documents.
func JSON(raw []byte) []byte { return escaped(raw, '\n') }

// Log gives a writer that does the same to lines of a log, in JSON or for people, and writes each in one Write. It leaves the
// escape character alone: loggers escape the one of a value, and colour lines with it.
func Log(w io.Writer) io.Writer { return logWriter{w} }

type logWriter struct{ w io.Writer }

// Write says that it has written what it was given, however long that became.
func (l logWriter) Write(p []byte) (int, error) {
	if _, err := l.w.Write(escaped(p, '\n', escape)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func escaped(raw []byte, keep ...rune) []byte {
	at := bytes.IndexFunc(raw, func(r rune) bool { return !plain(r) })
	if at < 0 {
		return raw
	}
	out := bytes.NewBuffer(make([]byte, 0, len(raw)+64))
	for len(raw) > 0 {
		r, size := utf8.DecodeRune(raw)
		switch {
		case r == utf8.RuneError && size == 1:
			out.WriteString(`\ufffd`)
		case unicode.IsPrint(r) || slices.Contains(keep, r):
			out.Write(raw[:size])
		case r > 0xFFFF: // JSON has two escapes for it
			r -= 0x10000
			fmt.Fprintf(out, `\u%04x\u%04x`, 0xD800+r>>10, 0xDC00+r&0x3FF)
		default:
			fmt.Fprintf(out, `\u%04x`, r)
		}
		raw = raw[size:]
	}
	return out.Bytes()
}

// plain says what nearly all text consists of.
func plain(r rune) bool { return r >= ' ' && r < 0x7f || r == '\n' }
