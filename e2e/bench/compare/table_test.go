package compare_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/bench/compare"
)

// good is a table of an engine that meets every target, and just so.
func good() *compare.Table {
	return &compare.Table{
		Rows: []*compare.Row{{
			Signer: "engine", Format: "legacy",
			Levels: []compare.Level{{InFlight: 1, Rate: 900, Ratio: 0.5, CPU: 9}, {InFlight: 32, Rate: 1800, Ratio: 0.9, CPU: 1}},
			Requests: &compare.Requests{
				Warm: map[string]float64{"manifest GET": 3, "manifest PUT": 1, "upload POST": 1, "upload PUT": 1},
				Cold: map[string]float64{"manifest GET": 3, "manifest PUT": 1, "upload POST": 2, "upload PUT": 2, "token": 1},
			},
		}, {
			Signer: "engine", Format: "bundle", Levels: []compare.Level{{InFlight: 32, Rate: 1, Ratio: 0.1, CPU: 9}},
			Requests: &compare.Requests{Warm: map[string]float64{"manifest GET": 7}},
		}},
		Memory: &compare.Memory{FirstSignatures: 1000, First: 20 << 20, Signatures: 50_000, Last: 28 << 20},
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	engine := func(table *compare.Table) *compare.Row { return table.Rows[0] }
	for name, tt := range map[string]struct {
		spoil func(*compare.Table)
		timed bool
		want  string // the check that is missed
	}{
		"all met":               {func(*compare.Table) {}, true, ""},
		"one request more":      {func(t *compare.Table) { engine(t).Requests.Warm["manifest HEAD"] = 1 }, true, "warm"},
		"one for a hundred":     {func(t *compare.Table) { engine(t).Requests.Warm["ping"] = 0.01 }, true, "warm"},
		"a request less":        {func(t *compare.Table) { engine(t).Requests.Warm["manifest GET"] = 2 }, true, "warm"},
		"a token while warm":    {func(t *compare.Table) { engine(t).Requests.Warm["token"] = 1 }, true, "warm"},
		"one more while cold":   {func(t *compare.Table) { engine(t).Requests.Cold["manifest PUT"] = 2 }, true, "first in a repository"},
		"one more for a bundle": {func(t *compare.Table) { t.Rows[1].Requests.Warm["token"] = 1 }, true, "bundle"},
		"too slow":              {func(t *compare.Table) { engine(t).Levels[1].Ratio = 0.899 }, true, "rate"},
		"too much CPU":          {func(t *compare.Table) { engine(t).Levels[1].CPU = 1.001 }, true, "CPU"},
		"grows":                 {func(t *compare.Table) { t.Memory.Last++ }, true, "RSS"},
		"slow, not timed":       {func(t *compare.Table) { engine(t).Levels[1].Ratio = 0.1 }, false, ""},
		"a large one may grow by a tenth": {func(t *compare.Table) {
			t.Memory.First, t.Memory.Last = 100<<20, 110<<20
		}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := good()
			tt.spoil(table)
			table.Judge(tt.timed)
			var missed []string
			for _, c := range table.Checks {
				if !c.OK {
					missed = append(missed, c.Name)
				}
			}
			if table.Missed() != (tt.want != "") || tt.want != "" && (len(missed) != 1 || !strings.Contains(missed[0], tt.want)) {
				t.Errorf("missed %q, want %q", missed, tt.want)
			}
			if want := map[bool]int{true: 6, false: 3}[tt.timed]; len(table.Checks) != want {
				t.Errorf("%d checks, want %d", len(table.Checks), want)
			}
		})
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	table := good()
	table.Rows = append(table.Rows, &compare.Row{Signer: "cosign program", Format: "legacy", Levels: []compare.Level{{InFlight: 1, Rate: 2.5, Ratio: 0.002, CPU: 300}}})
	table.Rows[0].Levels[1].Ratio = 0.5
	table.Judge(true)
	var out bytes.Buffer
	if err := table.Print(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for _, want := range [][]string{
		{"in flight", "1", "32"},
		{"engine, legacy", "900.0", "1800.0", "0.500", "6", "9", "1.000"},
		{"cosign program, legacy", "2.5", "-", "0.002", "-", "300.000"},
		{"warm: 3 manifest GET, 1 manifest PUT"},
		{"cold: 3 manifest GET, 2 upload POST"},
		{"rate", "at least 0.90", "0.500", "MISSED"},
		{"CPU", "at most 1 ms", "1.000 ms", "ok"},
	} {
		if !contains(lines, want) {
			t.Errorf("no line has %q in this order:\n%s", want, out.String())
		}
	}
}

// contains says whether a line has all parts in their order.
func contains(lines, parts []string) bool {
	for _, line := range lines {
		rest, found := line, true
		for _, part := range parts {
			var here bool
			if _, rest, here = strings.Cut(rest, part); !here {
				found = false
				break
			}
		}
		if found {
			return true
		}
	}
	return false
}
