package shell

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/harborseal/harborseal/pkg/telemetry"
)

// Colour is how a cell looks on a terminal. What it says is said in words as well.
type Colour string

// The colours, as terminals are told them.
const (
	Plain  Colour = ""
	Green  Colour = "\x1b[32m"
	Yellow Colour = "\x1b[33m"
	Red    Colour = "\x1b[31m"

	reset = "\x1b[0m"
	// gap stands between two columns.
	gap = "  "
)

// Cell is a text of a table, and its colour.
type Cell struct {
	Text   string
	Colour Colour
}

// Table is a list of rows, each on one line, in aligned columns.
type Table struct {
	Header []string
	Rows   [][]Cell
}

// Write writes the table. What would break a line, or be a command to the terminal, is replaced; the last column has no
// blanks behind it.
func (t Table) Write(w io.Writer, colours bool) error {
	rows := make([][]Cell, 0, len(t.Rows)+1)
	header := make([]Cell, len(t.Header))
	for i, text := range t.Header {
		header[i] = Cell{Text: text}
	}
	rows = append(rows, header)
	for _, row := range t.Rows {
		clean := make([]Cell, len(row))
		for i, c := range row {
			clean[i] = Cell{Text: OneLine(c.Text), Colour: c.Colour}
		}
		rows = append(rows, clean)
	}
	widths := make([]int, len(t.Header))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.Text))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		writeRow(&b, row, widths, colours)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeRow(b *strings.Builder, row []Cell, widths []int, colours bool) {
	last := len(row) - 1
	for last > 0 && row[last].Text == "" {
		last--
	}
	for i, c := range row[:last+1] {
		text := c.Text
		if i < last {
			text += strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.Text)) + gap
		}
		if colours && c.Colour != Plain {
			text = string(c.Colour) + c.Text + reset + strings.TrimPrefix(text, c.Text)
		}
		b.WriteString(text)
	}
	b.WriteByte('\n')
}

// OneLine gives a text without line ends and without what a terminal would take for a command.
func OneLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	for i, line := range lines {
		lines[i] = strings.TrimSpace(strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return ' '
			}
			return r
		}, line))
	}
	return strings.Join(lines, "; ")
}

// PrintError prints what a program ends with. It may have several lines, and may repeat what others have said: nothing in it is a
// command to the terminal.
func PrintError(w io.Writer, program string, err error) error {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = OneLine(line)
	}
	_, err = fmt.Fprintf(w, "%s: %s\n", program, strings.Join(lines, "\n"))
	return err
}

// Colours says whether what is written to w is seen on a terminal that shows colours: there are none in files and pipes,
// nor where NO_COLOR is set or the terminal is a dumb one.
func Colours(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && telemetry.IsTerminal(f)
}

// Progress shows on a terminal what is being done, in one line that it writes over; elsewhere it shows nothing. The zero value
// shows nothing. It belongs to one goroutine.
type Progress struct {
	w io.Writer // nil to show nothing
}

// NewProgress shows progress on f if that is a terminal.
func NewProgress(f *os.File) Progress {
	if f == nil || os.Getenv("TERM") == "dumb" || !telemetry.IsTerminal(f) {
		return Progress{}
	}
	return Progress{w: f}
}

// eraseLine goes to the beginning of the line and erases it.
const eraseLine = "\r\x1b[K"

// Step shows what is being done now.
func (p Progress) Step(format string, args ...any) {
	if p.w != nil {
		_, _ = io.WriteString(p.w, eraseLine+OneLine(fmt.Sprintf(format, args...))+" …") // it is for the eye alone
	}
}

// Done removes the line. What comes next is written where it stood.
func (p Progress) Done() {
	if p.w != nil {
		_, _ = io.WriteString(p.w, eraseLine) // as above
	}
}
