package main

import (
	"io"
	"time"

	"github.com/harborseal/harborseal/pkg/app/shell"
	app "github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/deadletter"
)

// NewProgram gives tests what main runs.
func NewProgram() shell.Program { return program() }

// PrintReport gives tests what doctor prints.
func PrintReport(w io.Writer, report app.Report, colours bool) error {
	return printReport(w, report, colours)
}

// PrintLetters gives tests what dead list prints.
func PrintLetters(w io.Writer, all []artifact.DeadLetter, now time.Time) error {
	return printLetters(w, all, now)
}

// PrintLetter gives tests what dead show prints.
func PrintLetter(w io.Writer, l artifact.DeadLetter, now time.Time) error {
	return printLetter(w, l, now)
}

// PrintResults gives tests what dead replay and dead discard print.
func PrintResults(w io.Writer, done string, results []deadletter.Result, sum deadletter.Summary) error {
	return printResults(w, done, results, sum)
}

// WriteJSON gives tests what machines read.
func WriteJSON(w io.Writer, document any) error { return writeJSON(w, document) }

// PrintPause gives tests what pause and resume print.
func PrintPause(w io.Writer, project string, change app.PauseChange) error {
	return printPause(w, project, change)
}

// Age gives tests how times are said.
func Age(d time.Duration) string { return age(d) }
