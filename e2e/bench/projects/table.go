package projects

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

const (
	// mostOfServer bounds the memory of each server with the most projects, in bytes, and mostCPU what it uses of a processor
	// while nothing happens.
	mostOfServer = 256 << 20
	mostCPU      = 0.1
)

// largest is the use of the server that uses the most of each.
func (r *Row) largest() Use {
	var most Use
	for _, u := range r.Servers {
		most.RSS, most.CPU = max(most.RSS, u.RSS), max(most.CPU, u.CPU)
	}
	return most
}

// Judge holds it against the targets; without times where they say nothing.
func (r *Result) Judge(quick bool) {
	r.Checks = nil
	for _, row := range r.Rows {
		if row.Projects == 0 {
			continue
		}
		name, use := fmt.Sprintf("%d projects on %s: ", row.Projects, servers(row.Nodes)), row.largest()
		r.Checks.Add(name+"RSS of a server", fmt.Sprintf("at most %d MiB", mostOfServer>>20), use.RSS > 0 && use.RSS <= mostOfServer, "%.0f MiB", mebibytes(use.RSS))
		if !quick {
			r.Checks.Add(name+"idle CPU of a server", fmt.Sprintf("at most %.0f %% of a processor", 100*mostCPU), use.CPU <= mostCPU, "%.1f %%", 100*use.CPU)
		}
	}
}

// Missed says whether a target was missed.
func (r *Result) Missed() bool { return r.Checks.Missed() }

// Print writes the table.
func (r *Result) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "projects\tservers, replicas\tprepared in\tlargest server, MiB\tits idle CPU, %\tall servers, MiB\tidle CPU, %\treceiver, MiB\tidle CPU, %\tsigner, MiB\tidle CPU, %\t")
	for _, row := range r.Rows {
		percent := func(cpu float64) string {
			if row.Idle == 0 {
				return "-"
			}
			return fmt.Sprintf("%.1f", 100*cpu)
		}
		var all Use
		for _, u := range row.Servers {
			all.RSS, all.CPU = all.RSS+u.RSS, all.CPU+u.CPU
		}
		_, _ = fmt.Fprintf(w, "%d\t%d\t%s\t%.0f\t%s\t%.0f\t%s\t%.0f\t%s\t%.0f\t%s\t\n", row.Projects, row.Nodes, row.Prepared.Round(time.Second/10),
			mebibytes(row.largest().RSS), percent(row.largest().CPU), mebibytes(all.RSS), percent(all.CPU), mebibytes(row.Receiver.RSS), percent(row.Receiver.CPU),
			mebibytes(row.Signer.RSS), percent(row.Signer.CPU))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	if _, err := fmt.Fprintln(out, "Each project has a policy of its own and an image that was signed. Memory is what is resident, CPU in parts of one processor, while\n"+
		"nothing happens."); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	return r.Checks.Print(out)
}

func servers(n int) string {
	if n == 1 {
		return "1 server"
	}
	return fmt.Sprintf("%d servers", n)
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }
