package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	app "github.com/harborseal/harborseal/pkg/app/receiver"
	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// sweepReason is what a pause says if nobody says more.
const sweepReason = "receiver sweep --all: Harbor was restored"

// sweep asks for full sweeps.
func sweep(ctx context.Context, c *shell.Call) error {
	var f toolFlags
	f.declare(c)
	o := app.SweepOptions{Actor: operator(), Logger: zerolog.Nop()}
	c.Flags.BoolVar(&o.All, "all", false, "all projects that are enabled")
	c.Flags.Func("project", "this project; may be repeated", func(name string) error {
		o.Projects = append(o.Projects, name)
		return artifact.ValidateProject(name)
	})
	c.Flags.BoolVar(&o.KeepSigning, "keep-signing", false, "leave signing as it is")
	c.Flags.StringVar(&o.Reason, "reason", sweepReason, "why signing is suspended")
	if err := c.Parse(); err != nil {
		return err
	}
	switch {
	case o.All == (len(o.Projects) > 0):
		return errors.New("want either --all or --project P")
	case o.KeepSigning && !o.All:
		return errors.New("--keep-signing belongs to --all: a sweep of one project suspends nothing")
	case !policy.ValidReason(o.Reason) || len(o.Reason) > policy.MaxReason/2:
		return fmt.Errorf("--reason: want one line of at most %d bytes", policy.MaxReason/2)
	}
	cfg, err := f.load()
	if err != nil {
		return err
	}
	o.As = f.as
	asked, err := app.Sweep(ctx, cfg, o)
	if err != nil {
		return err
	}
	return f.print(c.Stdout, asked, sweepText(asked))
}

func sweepText(asked app.Sweeps) string {
	text := "full sweeps are asked for of:\n" + projectLines(asked.Projects, asked.Globs)
	if asked.Suspended {
		text += "signing is suspended everywhere, and requests wait; when the report is as it should be: signer resume --config FILE\n"
	}
	return text
}
