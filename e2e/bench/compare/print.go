package compare

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Print writes the table for people.
func (t *Table) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")+"\t") } // Flush tells
	levels := t.levels()
	head := []string{"signatures a second with … in flight:"}
	for _, inFlight := range levels {
		head = append(head, fmt.Sprint(inFlight))
	}
	line(append(head, "to the bare loop's", "requests warm", "cold", "CPU ms", "registry's", "peak MiB", "allocations", "KiB allocated")...)
	for _, r := range t.Rows {
		if len(r.Levels) > 0 {
			line(r.cells(levels)...)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	_, _ = fmt.Fprintf(out, "What follows the rates is for one signature with %d in flight, or with 1 if that was not measured; rates are medians.\n", checkedLevel)
	for _, r := range t.Rows {
		if r.Requests != nil {
			_, _ = fmt.Fprintf(out, "  %s\n    warm: %s\n    cold: %s\n", r.label(), kindsOf(r.Requests.Warm), kindsOf(r.Requests.Cold))
		}
	}
	return t.Checks.Print(out)
}

// levels are all numbers in flight that anybody has.
func (t *Table) levels() []int {
	known := make(map[int]bool)
	for _, r := range t.Rows {
		for _, level := range r.Levels {
			known[level.InFlight] = true
		}
	}
	return slices.Sorted(maps.Keys(known))
}

func (r *Row) cells(levels []int) []string {
	cells := []string{r.label()}
	for _, inFlight := range levels {
		cells = append(cells, cell("%.1f", r.level(inFlight), func(l *Level) float64 { return l.Rate }))
	}
	main := r.level(checkedLevel)
	if main == nil {
		main = &r.Levels[0]
	}
	cells = append(cells, cell("%.3f", main, func(l *Level) float64 { return l.Ratio }))
	if r.Requests == nil {
		cells = append(cells, "-", "-")
	} else {
		cells = append(cells, fmt.Sprintf("%g", total(r.Requests.Warm)), fmt.Sprintf("%g", total(r.Requests.Cold)))
	}
	return append(cells,
		cell("%.3f", main, func(l *Level) float64 { return l.CPU }),
		cell("%.3f", main, func(l *Level) float64 { return l.RegistryCPU }),
		cell("%.1f", main, func(l *Level) float64 { return mebibytes(l.PeakRSS) }),
		cell("%.0f", main, func(l *Level) float64 { return l.Allocations }),
		cell("%.1f", main, func(l *Level) float64 { return l.AllocatedBytes / 1024 }),
	)
}

// cell is a dash where nothing was measured.
func cell(format string, l *Level, of func(*Level) float64) string {
	if l == nil || of(l) == 0 {
		return "-"
	}
	return fmt.Sprintf(format, of(l))
}

// kindsOf writes requests with the most frequent first.
func kindsOf(requests map[string]float64) string {
	kinds := slices.Sorted(maps.Keys(requests))
	slices.SortStableFunc(kinds, func(a, b string) int {
		switch {
		case requests[a] > requests[b]:
			return -1
		case requests[a] < requests[b]:
			return 1
		default:
			return 0
		}
	})
	parts := make([]string, 0, len(kinds))
	for _, kind := range kinds {
		parts = append(parts, fmt.Sprintf("%g %s", requests[kind], kind))
	}
	return strings.Join(parts, ", ")
}
