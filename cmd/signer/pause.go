package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/harborseal/harborseal/pkg/app/shell"
	app "github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/policy"
)

// pause stops signing everywhere, at once.
func pause(ctx context.Context, c *shell.Call) error { return setPause(ctx, c, true) }

// resume lets it go on.
func resume(ctx context.Context, c *shell.Call) error { return setPause(ctx, c, false) }

func setPause(ctx context.Context, c *shell.Call, paused bool) error {
	path := c.Flags.String("config", "", "configuration file")
	project := c.Flags.String("project", "", "this project alone")
	reason := c.Flags.String("reason", "", "why; required to pause")
	if err := c.Parse(); err != nil {
		return err
	}
	switch {
	case *path == "":
		return errors.New("--config is required: config/signer.yaml is an example")
	case paused && *reason == "":
		return errors.New("--reason is required: whoever finds signing paused has to learn why")
	case *reason != "" && !policy.ValidReason(*reason):
		return fmt.Errorf("--reason: want one line of at most %d bytes", policy.MaxReason)
	}
	if err := checkProject(*project); err != nil {
		return err
	}
	cfg, err := config.LoadSigner(*path, os.Environ())
	if err != nil {
		return err
	}
	actor := enroll.Actor{Name: operator(), From: "cli"}
	change, err := app.SetPause(ctx, cfg, actor, *project, paused, *reason)
	if err != nil {
		return err
	}
	return printPause(c.Stdout, *project, change)
}

func checkProject(name string) error {
	if name == "" {
		return nil
	}
	if err := artifact.ValidateProject(name); err != nil {
		return fmt.Errorf("--project: %w", err)
	}
	return nil
}

// operator names who runs the program, for the event.
func operator() string {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return name + "@" + host
}

// printPause prints what was done, since when it is so, and what stands beside.
func printPause(w io.Writer, project string, change app.PauseChange) error {
	of := "of all projects"
	if project != "" {
		of = "of project " + project
	}
	before, after := change.Before, change.After
	var text string
	switch {
	case after.Paused && before.Paused && change.Changed():
		text = fmt.Sprintf("signing %s was paused already, since %s; it is now %s\n", of, said(before), said(after))
	case after.Paused && before.Paused:
		text = fmt.Sprintf("signing %s was paused already, since %s\n", of, said(after))
	case after.Paused:
		text = fmt.Sprintf("signing %s is paused since %s\nrequests wait, and nothing is lost\n", of, said(after))
	case before.Paused:
		text = fmt.Sprintf("signing %s goes on since %s; it was paused since %s\n", of, at(after), said(before))
	default:
		text = fmt.Sprintf("signing %s was not paused\n", of)
	}
	for _, name := range slices.Sorted(maps.Keys(change.Others)) {
		what := "that of project " + name + " is paused as well"
		if name == "" {
			what = "that of all projects is paused as well"
		}
		text += fmt.Sprintf("%s, since %s\n", what, said(change.Others[name]))
	}
	_, err := io.WriteString(w, text)
	return err
}

func at(p policy.Pause) string { return p.At.UTC().Format(time.RFC3339) }

func said(p policy.Pause) string {
	return shell.OneLine(fmt.Sprintf("%s, by %s: %s", at(p), p.By, p.Reason))
}
