package report

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text in report.csv is escaped so that it can be read back:
//
//   - a backslash is written \\;
//   - what does not print (control characters, those that change the direction of text or take no room, spaces other than the
//     common one) is written \uXXXX, above U+FFFF \UXXXXXXXX, and a byte that is no UTF-8 \xXX;
//   - a semicolon or bar behind which a spreadsheet could see a formula, if it took that for the end of a cell, is written \u003b or
//     \u007c;
//   - a text that a spreadsheet could take for a formula, and one that begins with an apostrophe, gets an apostrophe in front.
//
// SPEC: OWASP, CSV Injection: cells that begin with =, +, -, @, a tab or a carriage return, or full-width forms of these, are
// formulas, also behind a separator that is not ours.

const hexDigits = "0123456789abcdef"

// appendText appends a text as it stands in a cell, without the cell's quotation marks. Within a list of texts, spaces are escaped
// too.
func appendText(b []byte, s string, inList bool) []byte {
	if plain(s) {
		return append(b, s...)
	}
	if evaluates(s) || s[0] == '\'' {
		b = append(b, '\'')
	}
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			switch {
			case c == '\\':
				b = append(b, '\\', '\\')
			case c < ' ' || c == 0x7f || c == ' ' && inList || (c == ';' || c == '|') && evaluates(s[i+1:]):
				b = appendRune(b, rune(c))
			default:
				b = append(b, c)
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, '\\', 'x', hexDigits[s[i]>>4], hexDigits[s[i]&15])
		case !unicode.IsPrint(r):
			b = appendRune(b, r)
		default:
			b = append(b, s[i:i+size]...)
		}
		i += size
	}
	return b
}

// plain says whether a text is written as it is: the common case, told quickly.
func plain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c == '/', c == ':', c == '.', c == '_':
		case c == '-' && i > 0:
		default:
			return false
		}
	}
	return true
}

// appendRune appends the escape of a character.
func appendRune(b []byte, r rune) []byte {
	digits := 4
	if r > 0xFFFF {
		b = append(b, '\\', 'U')
		digits = 8
	} else {
		b = append(b, '\\', 'u')
	}
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		b = append(b, hexDigits[r>>shift&15])
	}
	return b
}

// evaluates says whether a spreadsheet could take a text for a formula: it begins with one of the signs, behind what a
// spreadsheet may pass over.
func evaluates(s string) bool {
	for _, r := range s {
		switch {
		case starts(r):
			return true
		case r == '"' || r == '\'' || !unicode.IsPrint(r) || unicode.IsSpace(r) || unicode.IsMark(r):
		default:
			return false
		}
	}
	return false
}

// starts says whether a formula can begin with a character. Beside the four signs these are all that a compatibility decomposition
// turns into one of them first, and the mathematical minus.
func starts(r rune) bool {
	switch r {
	case '=', '+', '-', '@',
		0x207A, 0x207B, 0x207C, 0x208A, 0x208B, 0x208C, // superscript and subscript
		0x2212,         // minus
		0x2A75, 0x2A76, // two and three signs of equality
		0xFB29,                         // Hebrew plus
		0xFE62, 0xFE63, 0xFE66, 0xFE6B, // small forms
		0xFF0B, 0xFF0D, 0xFF1D, 0xFF20: // full-width forms
		return true
	default:
		return false
	}
}

var errEscape = errors.New("not written as this report writes texts")

// Unescape gives the text of a cell of report.csv as it was. Of a cell with a list, the texts stand between single spaces, and each
// is escaped by itself: see [UnescapeList].
func Unescape(cell string) (string, error) {
	cell = strings.TrimPrefix(cell, "'")
	if !strings.Contains(cell, `\`) {
		return cell, nil
	}
	b := make([]byte, 0, len(cell))
	for i := 0; i < len(cell); {
		if cell[i] != '\\' {
			b = append(b, cell[i])
			i++
			continue
		}
		if i+1 == len(cell) {
			return "", errEscape
		}
		digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[cell[i+1]]
		switch {
		case cell[i+1] == '\\':
			b = append(b, '\\')
		case digits == 0 || i+2+digits > len(cell):
			return "", errEscape
		default:
			n, err := strconv.ParseUint(cell[i+2:i+2+digits], 16, 32)
			if err != nil || n > unicode.MaxRune {
				return "", fmt.Errorf("%w: %.12q", errEscape, cell[i:])
			}
			if digits == 2 {
				b = append(b, byte(n)) //nolint:gosec // of two digits
			} else {
				b = utf8.AppendRune(b, rune(n))
			}
		}
		i += 2 + digits
	}
	return string(b), nil
}

// UnescapeList gives the texts of a cell with a list.
func UnescapeList(cell string) ([]string, error) {
	if cell == "" {
		return []string{}, nil
	}
	texts := strings.Split(cell, " ")
	for i, text := range texts {
		var err error
		if texts[i], err = Unescape(text); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// appendPrintable appends JSON in which all that does not print is escaped: package encoding/json leaves what is above the first
// 32 characters. Within JSON such characters are in texts alone.
func appendPrintable(b, raw []byte) []byte {
	from := 0
	for i := 0; i < len(raw); {
		if raw[i] >= ' ' && raw[i] < 0x7f {
			i++
			continue
		}
		r, size := utf8.DecodeRune(raw[i:])
		if unicode.IsPrint(r) {
			i += size
			continue
		}
		b = append(b, raw[from:i]...)
		if r > 0xFFFF { // JSON has two escapes for it
			b = appendRune(b, 0xD800+(r-0x10000)>>10)
			r = 0xDC00 + (r-0x10000)&0x3FF
		}
		b = appendRune(b, r)
		i += size
		from = i
	}
	return append(b, raw[from:]...)
}
