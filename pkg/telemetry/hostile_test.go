package telemetry_test

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/telemetry"
)

// TestHostileTextInLogs: whatever a tag, a pusher or an error of a registry says, a line is a line, and nothing in it is a command to
// a terminal but the logger's own colours.
func TestHostileTextInLogs(t *testing.T) {
	colours := regexp.MustCompile("\x1b\\[[0-9;]*m")
	for _, tt := range []struct {
		format   string
		terminal bool
	}{{telemetry.FormatJSON, false}, {telemetry.FormatConsole, false}, {telemetry.FormatConsole, true}} {
		for _, text := range append(ledgertest.HostileTexts(), "\u009b31m", "\x7f", "\u2066x\u2069", "a\x1b[0m\nINF forged line") {
			var out bytes.Buffer
			logger := telemetry.NewLogger(&out, telemetry.LogConfig{Format: tt.format}, tt.terminal)
			logger.Error().Err(errors.New(text)).Str("tag", text).Strs("tags", []string{text, text}).Bytes("body", []byte(text)).
				Interface("panic", map[string]string{text: text}).AnErr("cause", errors.New(text)).Msg("constant")
			line, more, _ := strings.Cut(out.String(), "\n")
			if more != "" {
				t.Errorf("%s, %.40q: more than one line: %q", tt.format, text, out.String())
			}
			if tt.terminal {
				// The hostile texts have such sequences too, and so would give themselves away by their number.
				line = colours.ReplaceAllString(line, "")
			}
			if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%s, terminal %t, %.40q: line %q has what does not print", tt.format, tt.terminal, text, line)
			}
			if tt.terminal && strings.Count(out.String(), "\x1b[") != len(colours.FindAllString(out.String(), -1)) {
				t.Errorf("%s, %.40q: line %q has a command that is no colour", tt.format, text, out.String())
			}
		}
	}
	// A colour of a value's own is not let through either.
	var out bytes.Buffer
	logger := telemetry.NewLogger(&out, telemetry.LogConfig{Format: telemetry.FormatConsole}, true)
	logger.Info().Str("tag", "\x1b[31mred").Strs("tags", []string{"\x1b[31mred"}).Interface("any", []any{"\x1b[31mred"}).Msg("constant")
	if strings.Contains(out.String(), "\x1b[31mred") {
		t.Errorf("line %q takes over the colour of a value", out.String())
	}
}
