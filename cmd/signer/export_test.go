package main

import (
	"io"

	"github.com/harborseal/harborseal/pkg/app/shell"
	app "github.com/harborseal/harborseal/pkg/app/signer"
)

// NewProgram gives tests what main runs.
func NewProgram() shell.Program { return program() }

// PrintReport gives tests what doctor prints.
func PrintReport(w io.Writer, report app.Report, colours bool) error {
	return printReport(w, report, colours)
}
