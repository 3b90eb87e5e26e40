package projects_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/projects"
)

// good meets every target, and just so.
func good() *projects.Result {
	least, most := projects.Use{RSS: 30 << 20, CPU: 0.1}, projects.Use{RSS: 256 << 20, CPU: 0.01}
	row := func(n, nodes int, servers ...projects.Use) *projects.Row {
		return &projects.Row{
			Projects: n, Nodes: nodes, Idle: time.Second, Prepared: time.Minute, Servers: servers, Receiver: projects.Use{RSS: 77 << 20, CPU: 0.123},
			Signer: projects.Use{RSS: 88 << 20},
		}
	}
	none := row(0, 1, projects.Use{RSS: 1 << 40})
	none.Idle = 0
	return &projects.Result{Rows: []*projects.Row{none, row(1000, 1, most), row(5000, 3, most, least, least)}}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(*projects.Result)
		quick bool
		want  string // the check that is missed; empty for none
	}{
		"all met":                  {func(*projects.Result) {}, false, ""},
		"one is too large":         {func(r *projects.Result) { r.Rows[1].Servers[0].RSS++ }, true, "1000 projects on 1 server: RSS"},
		"the last one is busy":     {func(r *projects.Result) { r.Rows[2].Servers[2].CPU = 0.11 }, false, "5000 projects on 3 servers: idle CPU"},
		"nothing was measured":     {func(r *projects.Result) { r.Rows[2].Servers = nil }, true, "5000 projects on 3 servers: RSS"},
		"times say nothing yet":    {func(r *projects.Result) { r.Rows[1].Servers[0].CPU = 1 }, true, ""},
		"programs have no target":  {func(r *projects.Result) { r.Rows[1].Signer = projects.Use{RSS: 1 << 40, CPU: 1} }, false, ""},
		"nor has what comes first": {func(r *projects.Result) { r.Rows[0].Servers[0].CPU = 1 }, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := good()
			tt.spoil(r)
			r.Judge(tt.quick)
			var missed []string
			for _, c := range r.Checks {
				if !c.OK {
					missed = append(missed, c.Name)
				}
			}
			switch {
			case r.Missed() != (tt.want != ""):
				t.Errorf("missed: %q, want %q", missed, tt.want)
			case tt.want != "" && (len(missed) != 1 || !strings.Contains(missed[0], tt.want)):
				t.Errorf("missed: %q, want the one with %q", missed, tt.want)
			}
		})
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	r := good()
	r.Rows[1].Servers[0].RSS *= 2
	r.Judge(false)
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1m0s", "512", "316", "10.0", "21.0", "12.3", "77", "88", "MISSED", "  -  "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
	}
}
