// Package telemetry makes the logger, the metrics registry and the version that a program starts with.
//
// Everything is handed on by its owner; nothing is kept in this package, and no global setting of zerolog or Prometheus is
// changed. What a part of the program logs or measures is that part's own business.
package telemetry

import (
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/printable"
)

// timeFormat is RFC 3339 with milliseconds that are always there, so that lines sort as text.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// Forms of the log.
const (
	FormatAuto    = "auto"    // console on a terminal, else JSON
	FormatJSON    = "json"    // one object a line
	FormatConsole = "console" // for people; colours on a terminal only
)

// LogConfig says what is logged, and in which form. The zero value logs from info on, in the form that fits.
type LogConfig struct {
	// Level is the least level that is written: trace, debug, info, warn or error. Anything else counts as info.
	Level string
	// Format is one of the forms above. Anything else counts as FormatAuto.
	Format string
}

// NewLogger makes a logger that writes to w, each line in one Write, so that it may be used from many goroutines where w
// may; an os.File may. Times are UTC, with milliseconds. isTerminal says whether w is read by a person. Whatever values hold,
// a line is one line, and nothing in it is a command to a terminal: what does not print is escaped, in all forms.
func NewLogger(w io.Writer, c LogConfig, isTerminal bool) zerolog.Logger {
	level, err := zerolog.ParseLevel(c.Level)
	if err != nil || c.Level == "" {
		level = zerolog.InfoLevel
	}
	w = printable.Log(w)
	if c.Format == FormatConsole || (c.Format != FormatJSON && isTerminal) {
		w = console(w, isTerminal)
	}
	return zerolog.New(w).Level(level).Hook(timestamp{})
}

func console(w io.Writer, colours bool) io.Writer {
	return zerolog.ConsoleWriter{Out: w, NoColor: !colours, TimeFormat: timeFormat, TimeLocation: time.UTC}
}

// timestamp writes the time. zerolog's own hook has its format and its clock in package-level variables.
type timestamp struct{}

// Run implements zerolog.Hook.
func (timestamp) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(zerolog.TimestampFieldName, time.Now().UTC().Format(timeFormat))
}

// IsTerminal says whether a file is a terminal, and so read by a person.
func IsTerminal(f *os.File) bool { return isatty.IsTerminal(f.Fd()) }
