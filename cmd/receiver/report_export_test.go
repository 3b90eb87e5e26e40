package main

import "github.com/harborseal/harborseal/pkg/app/shell"

// ReportProgram gives tests the subcommand "report".
func ReportProgram() shell.Program { return program() }
