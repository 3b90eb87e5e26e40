package report_test

import (
	"encoding/csv"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/report"
)

// formula says whether a spreadsheet could evaluate a cell: it knows nothing of how report escapes. It reads as leniently as the
// most lenient program: passing over blanks and quotation marks, folding compatible characters.
func formula(cell string) bool {
	cell = strings.TrimLeftFunc(cell, func(r rune) bool { return r == '"' || !unicode.IsPrint(r) || unicode.IsSpace(r) || unicode.IsMark(r) })
	if cell == "" {
		return false
	}
	if strings.ContainsRune("\u2212", []rune(cell)[0]) {
		return true
	}
	return strings.ContainsRune("=+-@", []rune(norm.NFKC.String(string([]rune(cell)[0])))[0])
}

// checkLine says what is wrong with a line of CSV, read with each separator that a spreadsheet may take.
func checkLine(t *testing.T, line string, cells int) []string {
	t.Helper()
	if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\r\n") {
		t.Errorf("line = %q, want one end of line, CRLF", line)
	}
	if !utf8.ValidString(line) {
		t.Errorf("line = %q, want UTF-8", line)
	}
	for _, r := range strings.TrimSuffix(line, "\r\n") {
		if !unicode.IsPrint(r) {
			t.Errorf("line = %q, want nothing that does not print: %U", line, r)
		}
	}
	in := csv.NewReader(strings.NewReader(line))
	record, err := in.Read()
	if err != nil || len(record) != cells {
		t.Fatalf("reading %q = %d cells, %v; want %d", line, len(record), err, cells)
	}
	for _, cell := range record {
		if formula(cell) {
			t.Errorf("cell %q in %q would be evaluated", cell, line)
		}
	}
	for _, separator := range []string{";", "|", "\t"} {
		for _, cell := range strings.Split(line, separator)[1:] {
			if formula(cell) {
				t.Errorf("cell %q in %q would be evaluated with the separator %q", cell, line, separator)
			}
		}
	}
	return record
}

// hostile are texts as a pusher or a tag could have them.
func hostile() []string {
	return []string{
		"=1+1", "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u00a0=1", "\u200b=1", "\ufeff=1", "＝1+1", "＋1", "－1", "＠x",
		"﹢1", "₌1", "−1", "⩵", "'=1", "''", "\"=1\"", "\"", "a\"b", "a,b", "a,=1", "x;=1", "x; \"=1", "x|=1", "x\t=1", ";=1", "\x1b[31mred\x1b[0m", "\u202egnp.exe", "\u0085", "\u2028", "\x00", "\x7f",
		"\xff\xfe", "\xed\xa0\x80", "a\\b", "\\u003d1", "\\", "ok", "", " ", "  x  ", "ß日本", "\u0301=1", "\U000e0001=1", "'", "-", "x'=1", "a b", "ﬀ", "﬩1",
	}
}

func TestNeutralise(t *testing.T) {
	t.Parallel()
	for _, text := range hostile() {
		line := report.AppendCells(nil, text, []string{text, text}, "end")
		record := checkLine(t, string(line), 3)
		if got, err := report.Unescape(record[0]); err != nil || got != text {
			t.Errorf("Unescape(%q) = %q, %v; want %q", record[0], got, err, text)
		}
		if text == "" {
			continue
		}
		if got, err := report.UnescapeList(record[1]); err != nil || !slices.Equal(got, []string{text, text}) {
			t.Errorf("UnescapeList(%q) = %q, %v; want %q twice", record[1], got, err, text)
		}
	}
}

func TestNeutraliseWritesThis(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"=1+1":             "'=1+1",
		"＝1":               "'＝1",
		"'tis":             "''tis",
		"\t=1":             `'\u0009=1`,
		"a\\b":             `a\\b`,
		"x;=1":             `x\u003b=1`,
		"x; y":             `"x; y"`,
		"evil\u202e\x1b[m": `evil\u202e\u001b[m`,
		"\xff":             `\xff`,
		"\U000e0001":       `\U000e0001`,
		`say "hi", you`:    `"say ""hi"", you"`,
		"robot$ci":         "robot$ci",
		"1.0.0-rc.1":       "1.0.0-rc.1",
	} {
		if got := strings.TrimSuffix(string(report.AppendCells(nil, text, nil, "")), ",,\r\n"); got != want {
			t.Errorf("cell of %q = %s, want %s", text, got, want)
		}
	}
}

// Every character that becomes the beginning of a formula when it is folded is known.
func TestNeutraliseKnowsAllSigns(t *testing.T) {
	t.Parallel()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if text := string(r) + "1"; formula(text) {
			if cell := string(report.AppendCells(nil, text, nil, "")); formula(cell) {
				t.Errorf("cell of %q (%U) = %q would be evaluated", text, r, cell)
			}
		}
	}
}

func FuzzNeutralise(f *testing.F) {
	for _, text := range hostile() {
		f.Add(text, "x")
		f.Add("x", text)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		record := checkLine(t, string(report.AppendCells(nil, a, []string{b, a}, b)), 3)
		if got, err := report.Unescape(record[0]); err != nil || got != a {
			t.Errorf("Unescape(%q) = %q, %v; want %q", record[0], got, err, a)
		}
		if a != "" && b != "" {
			if got, err := report.UnescapeList(record[1]); err != nil || !slices.Equal(got, []string{b, a}) {
				t.Errorf("UnescapeList(%q) = %q, %v; want %q", record[1], got, err, []string{b, a})
			}
		}
	})
}

func FuzzUnescape(f *testing.F) {
	for _, text := range []string{`'=1`, `\u0009`, `\`, `\u12`, `\U00110000`, `\xff`, `\q`, `\u+123`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, cell string) {
		text, err := report.Unescape(cell)
		if err != nil {
			return
		}
		record := checkLine(t, string(report.AppendCells(nil, text, nil, "")), 3)
		if again, err := report.Unescape(record[0]); err != nil || again != text {
			t.Errorf("Unescape(%q) = %q, %v; want %q", record[0], again, err, text)
		}
	})
}

func TestRoundTripOfMixedTexts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom(hostile())).Draw(t, "parts"), "")
		cell := strings.TrimSuffix(string(report.AppendCells(nil, text, nil, "")), ",,\r\n")
		record, err := csv.NewReader(strings.NewReader(cell + "\r\n")).Read()
		if cell == "" {
			return
		}
		if err != nil {
			t.Fatalf("reading %q: %v", cell, err)
		}
		if got, err := report.Unescape(record[0]); err != nil || got != text || formula(record[0]) {
			t.Fatalf("cell %q gives %q, %v; want %q, and no formula", cell, got, err, text)
		}
	})
}
