package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/harborseal/harborseal/pkg/app/shell"
	app "github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// doctor prints what is right and what is wrong. The error says that something has failed: what, stands in the output.
func doctor(ctx context.Context, c *shell.Call) error {
	path := c.Flags.String("config", "", "configuration file")
	project := c.Flags.String("project", "", "look at this project alone, enabled or not")
	pushTest := c.Flags.Bool("push-test", false, "push an image into the project, sign, verify and delete it")
	output := c.Flags.String("o", "table", "table or json")
	if err := c.Parse(); err != nil {
		return err
	}
	switch {
	case *path == "":
		return errors.New("--config is required: config/signer.yaml is an example")
	case *output != "table" && *output != "json":
		return errors.New("-o: want table or json")
	case *pushTest && *project == "":
		return errors.New("--push-test needs --project: where to push")
	}
	if err := checkProject(*project); err != nil {
		return err
	}
	cfg, err := config.LoadSigner(*path, os.Environ())
	if err != nil {
		return err
	}
	progress := shell.NewProgress(c.Stderr)
	report := app.Doctor(ctx, cfg, app.DoctorOptions{Project: *project, PushTest: *pushTest, Progress: progress.Step})
	progress.Done()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("interrupted: %w", err)
	}
	if *output == "json" {
		err = writeJSON(c.Stdout, report)
	} else {
		err = printReport(c.Stdout, report, shell.Colours(c.Stdout))
	}
	switch {
	case err != nil:
		return err
	case report.Summary.Failed == 1:
		return errors.New("1 check has failed")
	case report.Summary.Failed > 1:
		return fmt.Errorf("%d checks have failed", report.Summary.Failed)
	}
	return nil
}

// printReport prints a line for each check and, below, what to do about those that are not well.
func printReport(w io.Writer, report app.Report, colours bool) error {
	table := shell.Table{Header: []string{"CHECK", "SUBJECT", "STATUS", "DETAIL"}}
	for _, c := range report.Checks {
		table.Rows = append(table.Rows, []shell.Cell{{Text: string(c.Name)}, {Text: c.Subject}, statusCell(c.Status), {Text: c.Detail}})
	}
	if err := table.Write(w, colours); err != nil {
		return err
	}
	if err := printFixes(w, report.Checks); err != nil {
		return err
	}
	s := report.Summary
	_, err := fmt.Fprintf(w, "\nok %d, warnings %d, failed %d, skipped %d\n", s.OK, s.Warnings, s.Failed, s.Skipped)
	return err
}

// printFixes prints what to do, of failures first.
func printFixes(w io.Writer, checks []preflight.Check) error {
	begun := false
	for _, c := range append(preflight.Failures(checks), preflight.Warnings(checks)...) {
		if c.Fix == "" {
			continue
		}
		if !begun {
			if _, err := io.WriteString(w, "\nWhat to do:\n"); err != nil {
				return err
			}
			begun = true
		}
		what := string(c.Name)
		if c.Subject != "" {
			what += " (" + c.Subject + ")"
		}
		if _, err := fmt.Fprintf(w, "  %s %s: %s\n", mark(c.Status), shell.OneLine(what), shell.OneLine(c.Fix)); err != nil {
			return err
		}
	}
	return nil
}

func statusCell(s preflight.Status) shell.Cell {
	c := shell.Cell{Text: mark(s) + " " + string(s)}
	switch s {
	case preflight.OK:
		c.Colour = shell.Green
	case preflight.Warning:
		c.Colour = shell.Yellow
	case preflight.Failed:
		c.Colour = shell.Red
	default:
	}
	return c
}

func mark(s preflight.Status) string {
	switch s {
	case preflight.OK:
		return "✓"
	case preflight.Warning:
		return "!"
	case preflight.Failed:
		return "✗"
	default:
		return "-"
	}
}
