package shell_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/app/shell"
)

func TestTable(t *testing.T) {
	table := shell.Table{Header: []string{"A", "LONG", "LAST"}, Rows: [][]shell.Cell{
		{{Text: "größe"}, {Text: "x", Colour: shell.Green}, {Text: "end"}},
		{{Text: "b"}, {Text: "longer", Colour: shell.Red}, {}},
		{{}, {}, {Text: "two\nlines"}},
	}}
	for _, c := range []struct {
		name    string
		colours bool
		want    string
	}{
		{"plain", false, "A      LONG    LAST\ngröße  x       end\nb      longer\n               two; lines\n"},
		{"colours", true, "A      LONG    LAST\ngröße  \x1b[32mx\x1b[0m       end\nb      \x1b[31mlonger\x1b[0m\n               two; lines\n"},
	} {
		var b strings.Builder
		if err := table.Write(&b, c.colours); err != nil {
			t.Fatal(err)
		}
		if b.String() != c.want {
			t.Errorf("%s: got %q, want %q", c.name, b.String(), c.want)
		}
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a", "a\nb": "a; b", "a\r\n\n  b \n": "a; b", "a\x1b[31m": "a [31m", "a\x00b\tc": "a b c", "größe ✓": "größe ✓",
	} {
		if got := shell.OneLine(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestTableKeepsItsLines feeds it what others may write: each row is one line, and nothing is a command to a terminal.
func TestTableKeepsItsLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		table := shell.Table{Header: []string{"A", "B"}}
		for range rapid.IntRange(0, 5).Draw(t, "rows") {
			table.Rows = append(table.Rows, []shell.Cell{{Text: text.Draw(t, "a"), Colour: shell.Red}, {Text: text.Draw(t, "b")}})
		}
		var b strings.Builder
		if err := table.Write(&b, false); err != nil {
			t.Fatal(err)
		}
		if got, want := strings.Count(b.String(), "\n"), len(table.Rows)+1; got != want {
			t.Errorf("got %d lines, want %d: %q", got, want, b.String())
		}
		if strings.ContainsFunc(strings.ReplaceAll(b.String(), "\n", ""), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("got %q, want nothing that does not print", b.String())
		}
	})
}

// TestNothingForFiles has files and pipes get neither colours nor progress.
func TestNothingForFiles(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read below by its name
	if shell.Colours(f) || shell.Colours(&strings.Builder{}) {
		t.Error("got colours for a file or a buffer, want none")
	}
	for _, p := range []shell.Progress{shell.NewProgress(f), shell.NewProgress(nil), {}} {
		p.Step("step %d", 1)
		p.Done()
	}
	written, err := os.ReadFile(f.Name())
	if err != nil || len(written) != 0 {
		t.Errorf("got %q and %v, want nothing", written, err)
	}
}
