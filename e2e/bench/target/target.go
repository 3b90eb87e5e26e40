// Package target holds measurements against what they have to be. It decides nothing: who measures says what is met.
package target

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// Check is a target and what was measured. Target and Value are for people.
type Check struct {
	Name   string `json:"name"`
	Target string `json:"target"`
	Value  string `json:"value"`
	OK     bool   `json:"ok"`
}

// Checks are those of one part, in the order in which they are printed.
type Checks []Check

// Add takes one more; the value is formatted.
func (c *Checks) Add(name, target string, ok bool, value string, args ...any) {
	*c = append(*c, Check{Name: name, Target: target, Value: fmt.Sprintf(value, args...), OK: ok})
}

// Missed says whether a target was missed.
func (c Checks) Missed() bool {
	return slices.ContainsFunc(c, func(check Check) bool { return !check.OK })
}

// Print writes them for people; nothing if there are none.
func (c Checks) Print(out io.Writer) error {
	if len(c) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprint(w, "\ncheck\ttarget\tvalue\t\n") // Flush tells
	for _, check := range c {
		verdict := "ok"
		if !check.OK {
			verdict = "MISSED"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", check.Name, check.Target, check.Value, verdict)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the checks: %w", err)
	}
	return nil
}
