package telemetry_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/telemetry"
)

func TestJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1500 * time.Millisecond) // the clock of the bubble begins at midnight, UTC, 2000-01-01
		for _, c := range []struct {
			name     string
			config   telemetry.LogConfig
			terminal bool
		}{
			{"zero", telemetry.LogConfig{}, false},
			{"auto, no terminal", telemetry.LogConfig{Format: telemetry.FormatAuto}, false},
			{"json on a terminal", telemetry.LogConfig{Format: telemetry.FormatJSON}, true},
		} {
			var out bytes.Buffer
			logger := telemetry.NewLogger(&out, c.config, c.terminal)
			logger.Info().Str("digest", "sha256:0").Msg("signed")
			logger.Debug().Msg("not written")
			want := `{"level":"info","digest":"sha256:0","time":"2000-01-01T00:00:01.500Z","message":"signed"}` + "\n"
			if out.String() != want {
				t.Errorf("%s: got %s, want %s", c.name, out.String(), want)
			}
		}
	})
}

// elsewhere moves the test away from UTC.
func elsewhere(t *testing.T) {
	t.Helper()
	local := time.Local
	t.Cleanup(func() { time.Local = local })
	time.Local = time.FixedZone("Tokyo", 9*60*60)
}

func TestTimesAreUTC(t *testing.T) {
	elsewhere(t)
	var out bytes.Buffer
	before := time.Now().Truncate(time.Millisecond)
	logger := telemetry.NewLogger(&out, telemetry.LogConfig{}, false)
	logger.Info().Msg("x")
	var line struct{ Time string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	got, err := time.Parse(time.RFC3339Nano, line.Time)
	if err != nil || got.Before(before) || got.After(time.Now()) || !strings.HasSuffix(line.Time, "Z") {
		t.Errorf("got %q (%v), want now, in UTC", line.Time, err)
	}
}

func TestConsole(t *testing.T) {
	elsewhere(t)
	for _, c := range []struct {
		name              string
		format            string
		terminal, colours bool
	}{
		{"console on a terminal", telemetry.FormatConsole, true, true},
		{"console into a file", telemetry.FormatConsole, false, false},
		{"auto on a terminal", telemetry.FormatAuto, true, true},
	} {
		var out bytes.Buffer
		logger := telemetry.NewLogger(&out, telemetry.LogConfig{Format: c.format}, c.terminal)
		logger.Warn().Str("project", "shop").Msg("late")
		got := out.String()
		if coloured := strings.Contains(got, "\x1b["); coloured != c.colours {
			t.Errorf("%s: got colours %v in %q, want %v", c.name, coloured, got, c.colours)
		}
		hour := time.Now().UTC().Format("2006-01-02T15")
		plain := regexp.MustCompile(`\x1b\[\d+m`).ReplaceAllString(got, "")
		if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WRN late project=shop\n$`).MatchString(plain) {
			t.Errorf("%s: got %q", c.name, plain)
		}
		if !strings.HasPrefix(plain, hour) && !strings.HasPrefix(plain, time.Now().UTC().Format("2006-01-02T15")) {
			t.Errorf("%s: got %q, want a time of the hour %s in UTC", c.name, plain, hour)
		}
	}
}

func TestLevels(t *testing.T) {
	for level, want := range map[string]zerolog.Level{
		"trace": zerolog.TraceLevel, "debug": zerolog.DebugLevel, "info": zerolog.InfoLevel, "warn": zerolog.WarnLevel,
		"error": zerolog.ErrorLevel, "": zerolog.InfoLevel, "loud": zerolog.InfoLevel,
	} {
		if got := telemetry.NewLogger(&bytes.Buffer{}, telemetry.LogConfig{Level: level}, false).GetLevel(); got != want {
			t.Errorf("%q: got %v, want %v", level, got, want)
		}
	}
}

func TestAFileIsNoTerminal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if telemetry.IsTerminal(f) {
		t.Error("a file: got true, want false")
	}
}

func TestRegistry(t *testing.T) {
	r := telemetry.NewRegistry()
	for _, name := range []string{"go_goroutines", "process_start_time_seconds", "harborseal_build_info"} {
		if n, err := testutil.GatherAndCount(r, name); n != 1 || err != nil {
			t.Errorf("%s: got %d (%v), want 1", name, n, err)
		}
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "harborseal_build_info" {
			continue
		}
		labels := make(map[string]string)
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if labels["version"] != telemetry.Version() || !strings.HasPrefix(labels["go_version"], "go1.") || len(labels) != 2 {
			t.Errorf("labels: got %v, want version %q and go_version", labels, telemetry.Version())
		}
	}
	if problems, err := testutil.GatherAndLint(r, "harborseal_build_info"); err != nil || len(problems) > 0 {
		t.Errorf("lint: got %v (%v), want nothing", problems, err)
	}
	if second := telemetry.NewRegistry(); second == r {
		t.Error("two programs in one process share a registry")
	}
}
