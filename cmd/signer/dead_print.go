package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/deadletter"
	"github.com/harborseal/harborseal/pkg/printable"
)

const (
	// maxCell is how much of an error a table shows, in characters, and shortDigest of a digest.
	maxCell     = 60
	shortDigest = len("sha256:") + 12
	// maxStored is how much of a stored request is shown to people, in bytes.
	maxStored = 2048
)

// lettersJSON is what dead list writes for machines, and resultsJSON what dead replay and dead discard do.
type lettersJSON struct {
	DeadLetters []deadletter.View `json:"dead_letters"`
}

type resultsJSON struct {
	Results []resultJSON       `json:"results"`
	Summary deadletter.Summary `json:"summary"`
}

type resultJSON struct {
	ID      uint64             `json:"id"`
	Image   string             `json:"image"`
	Outcome deadletter.Outcome `json:"outcome"`
	Error   string             `json:"error,omitempty"`
}

func lettersDocument(all []artifact.DeadLetter) lettersJSON {
	document := lettersJSON{DeadLetters: make([]deadletter.View, 0, len(all))}
	for _, l := range all {
		document.DeadLetters = append(document.DeadLetters, deadletter.ViewOf(l))
	}
	return document
}

func resultsDocument(results []deadletter.Result, sum deadletter.Summary) resultsJSON {
	document := resultsJSON{Results: make([]resultJSON, 0, len(results)), Summary: sum}
	for _, r := range results {
		one := resultJSON{ID: r.ID, Image: r.Ref.String(), Outcome: r.Outcome}
		if r.Err != nil {
			one.Error = r.Err.Error()
		}
		document.Results = append(document.Results, one)
	}
	return document
}

// writeJSON writes a document in which nothing is a command to the terminal.
func writeJSON(w io.Writer, document any) error {
	raw, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(printable.JSON(raw), '\n'))
	return err
}

func printLetters(w io.Writer, all []artifact.DeadLetter, now time.Time) error {
	if len(all) == 0 {
		_, err := io.WriteString(w, "there are no such dead letters\n")
		return err
	}
	table := shell.Table{Header: []string{"ID", "GIVEN UP", "WAITED", "TRIES", "REASON", "IMAGE", "LAST ERROR"}}
	unreadable, oldest := 0, all[0].LastAt
	for _, l := range all {
		if l.LastAt.Before(oldest) {
			oldest = l.LastAt
		}
		v := deadletter.ViewOf(l)
		image := "(cannot be read)"
		if v.Image() != "" {
			image = v.Repository + "@" + v.Digest[:shortDigest] + "…"
		}
		if !v.Replayable {
			unreadable++
		}
		table.Rows = append(table.Rows, []shell.Cell{
			{Text: strconv.FormatUint(v.ID, 10)},
			{Text: age(now.Sub(v.LastAt)) + " ago"},
			{Text: age(v.LastAt.Sub(v.FirstAt))},
			{Text: strconv.FormatUint(v.Attempts, 10)},
			{Text: v.Reason},
			{Text: image},
			{Text: cut(shell.OneLine(v.LastError), maxCell)},
		})
	}
	if err := table.Write(w, shell.Colours(w)); err != nil {
		return err
	}
	text := fmt.Sprintf("\n%s, the oldest given up %s ago\nmend what they tell of, then: signer dead replay, with their numbers, --project, --reason or --all\n",
		count(len(all), "dead letter"), age(now.Sub(oldest)))
	if unreadable > 0 {
		text += fmt.Sprintf("%d of them cannot be replayed, because the request cannot be read: signer dead show says more\n", unreadable)
	}
	_, err := io.WriteString(w, text)
	return err
}

func printLetter(w io.Writer, l artifact.DeadLetter, now time.Time) error {
	v := deadletter.ViewOf(l)
	rows := [][2]string{
		{"dead letter", strconv.FormatUint(v.ID, 10)},
		{"image", v.Image()},
		{"reason", v.Reason},
		{"last error", v.LastError},
		{"tries", strconv.FormatUint(v.Attempts, 10)},
		{"first asked", when(v.FirstAt, now)},
		{"given up", when(v.LastAt, now)},
		{"asked by", v.Actor},
		{"for", string(v.Origin)},
		{"lane", string(v.Lane)},
		{"correlation id", v.CorrelationID},
	}
	if !v.Replayable {
		stored := strconv.QuoteToASCII(string(v.Stored[:min(len(v.Stored), maxStored)]))
		if len(v.Stored) > maxStored {
			stored += fmt.Sprintf(" … and %d bytes more: -o json has all", len(v.Stored)-maxStored)
		}
		rows = append(rows, [2]string{"stored", stored}, [2]string{"what to do", (&deadletter.UnreadableError{Letter: l}).Error()})
	}
	var b strings.Builder
	for _, row := range rows {
		if text := shell.OneLine(row[1]); text != "" {
			fmt.Fprintf(&b, "%-14s  %s\n", row[0], text)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printResults prints what went wrong, one line each, and the counts of all.
func printResults(w io.Writer, done string, results []deadletter.Result, sum deadletter.Summary) error {
	if len(results) == 0 {
		_, err := io.WriteString(w, "there are no such dead letters\n")
		return err
	}
	var b strings.Builder
	for _, r := range results {
		if r.Err != nil && r.Outcome != deadletter.Left {
			fmt.Fprintf(&b, "%d: %s\n", r.ID, shell.OneLine(r.Err.Error()))
		}
	}
	fmt.Fprintf(&b, "%s %d of %d", done, sum.Done+sum.Waiting, len(results))
	for _, part := range []struct {
		n    int
		text string
	}{
		{sum.Waiting, "%d waited in the queue already"},
		{sum.Gone, "%d not there any more"},
		{sum.Unreadable, "%d cannot be read"},
		{sum.Failed, "%d failed"},
		{sum.Left, "%d not tried: run it again when the queue answers"},
	} {
		if part.n > 0 {
			fmt.Fprintf(&b, "; "+part.text, part.n)
		}
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func when(t, now time.Time) string {
	return t.UTC().Format(time.RFC3339) + ", " + age(now.Sub(t)) + " ago"
}

// age says a time in its two largest units, such as 2d 4h or 3m 10s.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm %ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh %dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd %dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}

// cut shortens a text to a number of characters.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}
