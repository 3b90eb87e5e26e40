package main

import "github.com/harborseal/harborseal/pkg/app/shell"

// NewProgram gives tests what main runs.
func NewProgram() shell.Program { return program() }
