package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/printable"
	"github.com/harborseal/harborseal/pkg/report"
)

// maxKeyFile bounds a file of verifier keys, and maxKeys how many of them are given.
const (
	maxKeyFile = 64 << 10
	maxKeys    = 64
)

// errNotVerified is the end of a verification that has found something wrong: what, is printed.
var errNotVerified = errors.New("the export does not verify")

// reportCommand is the subcommand "report".
func reportCommand(_ context.Context, c *shell.Call) error {
	var keys []string
	c.Flags.Func("key", "verifier key of the ledger, as receiver ledger new-key printed it; may be repeated", func(key string) error {
		keys = append(keys, key)
		return nil
	})
	keyFile := c.Flags.String("key-file", "", "file of verifier keys, one a line")
	unsigned := c.Flags.Bool("allow-unsigned", false, "pass an export that nobody vouches for: not signed, or checked without a key that you gave")
	output := c.Flags.String("o", "text", "text or json")
	words, err := c.ParseWords()
	switch {
	case err != nil:
		return err
	case len(words) != 2 || words[0] != "verify":
		return errors.New("want receiver report verify FILE: run receiver --help")
	case *output != "text" && *output != "json":
		return errors.New("-o: want text or json")
	}
	if *keyFile != "" {
		more, err := readKeys(*keyFile)
		if err != nil {
			return err
		}
		keys = append(keys, more...)
	}
	if len(keys) > maxKeys {
		return fmt.Errorf("more than %d keys are given", maxKeys)
	}
	v, err := verifyFile(words[1], report.VerifyOptions{Keys: keys, AllowUnsigned: *unsigned})
	if err != nil {
		return err
	}
	if *output == "json" {
		err = writeVerificationJSON(c.Stdout, v)
	} else {
		err = writeVerification(c.Stdout, v)
	}
	if err == nil && !v.OK {
		err = errNotVerified
	}
	return err
}

func verifyFile(path string, options report.VerifyOptions) (report.Verification, error) {
	file, err := os.Open(path) //nolint:gosec // the caller names the file
	if err != nil {
		return report.Verification{}, fmt.Errorf("opening the export: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	info, err := file.Stat()
	switch {
	case err != nil:
		return report.Verification{}, fmt.Errorf("opening the export: %w", err)
	case !info.Mode().IsRegular():
		return report.Verification{}, errors.New("opening the export: want a file")
	}
	return report.Verify(file, info.Size(), options)
}

// readKeys reads verifier keys: one a line, with empty lines and those that begin with # between them.
func readKeys(path string) ([]string, error) {
	file, err := os.Open(path) //nolint:gosec // the caller names the file
	if err != nil {
		return nil, fmt.Errorf("reading the verifier keys: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	raw, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the verifier keys: %w", err)
	case len(raw) > maxKeyFile:
		return nil, fmt.Errorf("%s is no file of verifier keys", path)
	}
	var keys []string
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			keys = append(keys, line)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("there is no verifier key in %s", path)
	}
	return keys, nil
}

func writeVerificationJSON(w io.Writer, v report.Verification) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(printable.JSON(raw), '\n'))
	return err
}

// writeVerification prints what the export is, what of it holds, and what it says is not signed.
func writeVerification(w io.Writer, v report.Verification) error {
	table := shell.Table{Header: []string{"CHECK", "RESULT", "DETAIL"}}
	for _, c := range v.Checks {
		table.Rows = append(table.Rows, []shell.Cell{{Text: c.Name}, {Text: c.Result, Colour: colourOf(c.Result)}, {Text: c.Detail}})
	}
	if err := table.Write(w, shell.Colours(w)); err != nil {
		return err
	}
	if v.OK && v.Manifest != nil {
		if err := writeManifest(w, v.Manifest); err != nil {
			return err
		}
	}
	last := "\nthe export verifies\n"
	switch {
	case !v.OK:
		last = "\nthe export does NOT verify: trust nothing in it\n"
	case !v.Trusted:
		last = "\nthe file is whole, and NOBODY vouches for it: see the warnings\n"
	}
	_, err := io.WriteString(w, last)
	return err
}

func writeManifest(w io.Writer, m *report.Manifest) error {
	text := func(n uint64) string { return strconv.FormatUint(n, 10) }
	table := shell.Table{Header: []string{"", ""}}
	for _, row := range [][2]string{
		{"registry", m.Registry + " (" + m.Harbor + ")"},
		{"made", m.GeneratedAt.Format("2006-01-02T15:04:05Z") + " for " + m.Scope.AskedBy},
		{"exceptions", fmt.Sprintf("%d unsigned, %d failed, %d given up, %d blocked, %d exempted",
			m.Exceptions.Unsigned, m.Exceptions.Failed, m.Exceptions.Dead, m.Exceptions.Blocked, m.Exceptions.Exempted)},
		{"population", text(m.Totals.Population)},
		{"signed", text(m.Totals.States["signed"])},
		{"rows", text(m.Totals.Rows)},
		{"ledger sequence", text(m.AsOf.Sequence)},
	} {
		table.Rows = append(table.Rows, []shell.Cell{{Text: row[0]}, {Text: row[1]}})
	}
	return table.Write(w, shell.Colours(w))
}

func colourOf(result string) shell.Colour {
	switch result {
	case report.CheckOK:
		return shell.Green
	case report.CheckWarning:
		return shell.Yellow
	case report.CheckFailed:
		return shell.Red
	default:
		return shell.Plain
	}
}
