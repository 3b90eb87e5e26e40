package shell_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/config"
)

type settings struct{ path string }

type runner struct{ ran *string }

func (r runner) Run(context.Context) error {
	*r.ran += " ran"
	return nil
}

func TestProgram(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		did    string // what the service did
		stdout string
		stderr string
		err    string
	}{
		{"run is meant", []string{"--config", "f"}, "loaded f ran", "", "", ""},
		{"run", []string{"run", "--config", "f"}, "loaded f ran", "", "", ""},
		{"check", []string{"--check-config", "--config", "f"}, "loaded f checked", "the configuration is good", "", ""},
		{"check of a bad one", []string{"--check-config", "--config", "bad"}, "loaded bad checked", "", "", "is bad"},
		{"no configuration", []string{"run"}, "", "", "", "--config is required: config/prog.yaml"},
		{"configuration that cannot be read", []string{"--config", "none"}, "loaded none", "", "", "no such"},
		{"forgotten flag name", []string{"run", "f"}, "", "", "", `unexpected argument "f"`},
		{"unknown flag", []string{"run", "--nonsense"}, "", "", "the usage", "not defined"},
		{"unknown command", []string{"nonsense"}, "", "", "", `unknown command "nonsense": run prog --help`},
		{"own command", []string{"make", "--what", "tea"}, "", "made tea", "", ""},
		{"words before, between and behind flags", []string{"say", "--to", "ann", "a", "--loud", "b", "c"}, "", "[a b c]true ann", "", ""},
		{"a flag behind words", []string{"say", "a", "--to=bob"}, "", "[a]false bob", "", ""},
		{"no words", []string{"say"}, "", "[]false", "", ""},
		{"what looks like a flag", []string{"say", "--", "-a"}, "", "[-a]false", "", ""},
		{"an unknown flag behind words", []string{"say", "a", "--nonsense"}, "", "", "the usage", "not defined"},
		{"help", []string{"help"}, "", "the usage", "", ""},
		{"help flag", []string{"--help"}, "", "", "the usage", ""},
		{"help flag of a command", []string{"make", "-h"}, "", "", "the usage", ""},
		{"version", []string{"version"}, "", "devel", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var did string
			service := shell.Service[settings]{
				Load: func(path string, _ []string) (*settings, error) {
					did += "loaded " + path
					if path == "none" {
						return nil, errors.New("no such file")
					}
					return &settings{path}, nil
				},
				Log: func(*settings) config.Log { return config.Log{Level: "error"} },
				Check: func(_ context.Context, s *settings) error {
					did += " checked"
					if s.path == "bad" {
						return errors.New("it is bad")
					}
					return nil
				},
				New: func(context.Context, *settings, zerolog.Logger) (shell.Runner, error) { return runner{&did}, nil },
			}
			program := shell.Program{Name: "prog", Usage: "the usage\n", Commands: map[string]func(context.Context, *shell.Call) error{
				"run": service.Serve,
				"say": func(_ context.Context, c *shell.Call) error {
					loud := c.Flags.Bool("loud", false, "")
					to := c.Flags.String("to", "", "")
					words, err := c.ParseWords()
					if err != nil {
						return err
					}
					_, err = fmt.Fprintf(c.Stdout, "%v%t %s", words, *loud, *to)
					return err
				},
				"make": func(_ context.Context, c *shell.Call) error {
					what := c.Flags.String("what", "", "")
					if err := c.Parse(); err != nil {
						return err
					}
					_, err := c.Stdout.Write([]byte("made " + *what))
					return err
				},
			}}
			stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
			if err != nil {
				t.Fatal(err)
			}
			defer stderr.Close() //nolint:errcheck // read below by its name
			var stdout strings.Builder
			err = program.Run(t.Context(), tt.args, &stdout, stderr)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
			written, readErr := os.ReadFile(stderr.Name())
			if readErr != nil {
				t.Fatal(readErr)
			}
			if did != tt.did || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(string(written), tt.stderr) {
				t.Errorf("did %q, wrote %q and %q; want %q, %q and %q", did, stdout.String(), written, tt.did, tt.stdout, tt.stderr)
			}
		})
	}
}
