package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/harborseal/harborseal/pkg/app/shell"
	app "github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/deadletter"
)

// dead shows the requests that were given up, and has them tried again or takes them away.
func dead(ctx context.Context, c *shell.Call) error {
	var f deadFlags
	verb, err := f.parse(c)
	if err != nil {
		return err
	}
	switch verb {
	case "list":
		return f.list(ctx, c)
	case "show":
		return f.show(ctx, c)
	case "replay":
		return f.act(ctx, c, "replaying", "replayed", func(letters *deadletter.Service, ids []uint64, progress func(done, of int)) ([]deadletter.Result, error) {
			return letters.ReplayAll(ctx, deadActor(), ids, progress), nil
		})
	default:
		if _, err := deadletter.CheckWhy(f.why); err != nil {
			return fmt.Errorf("--%w", err)
		}
		return f.act(ctx, c, "discarding", "discarded", func(letters *deadletter.Service, ids []uint64, progress func(done, of int)) ([]deadletter.Result, error) {
			return letters.DiscardAll(ctx, deadActor(), ids, f.why, progress)
		})
	}
}

// deadFlags are those that the commands have beside --config and -o, each those that it takes.
type deadFlags struct {
	config, output       string
	project, reason, why string
	all                  bool
	words                []string // without the command
}

// parse reads the command and its flags, in any order, and checks that they belong together.
func (f *deadFlags) parse(c *shell.Call) (verb string, err error) {
	c.Flags.StringVar(&f.config, "config", "", "configuration file")
	c.Flags.StringVar(&f.output, "o", "table", "table or json")
	c.Flags.StringVar(&f.project, "project", "", "those of this project")
	c.Flags.StringVar(&f.reason, "reason", "", "those that were given up for this reason")
	c.Flags.BoolVar(&f.all, "all", false, "every dead letter")
	c.Flags.StringVar(&f.why, "why", "", "why they are discarded")
	words, err := c.ParseWords()
	if err != nil {
		return "", err
	}
	takes := map[string][]string{
		"list": {"project", "reason"}, "show": {}, "replay": {"project", "reason", "all"}, "discard": {"project", "reason", "all", "why"},
	}
	if len(words) == 0 {
		return "", errors.New("want one of dead list, dead show, dead replay, dead discard: run signer --help")
	}
	verb, f.words = words[0], words[1:]
	flags, found := takes[verb]
	if !found {
		return "", fmt.Errorf("unknown command %.64q of dead: want list, show, replay or discard", verb)
	}
	c.Flags.Visit(func(given *flag.Flag) {
		if err == nil && given.Name != "config" && given.Name != "o" && !slices.Contains(flags, given.Name) {
			err = fmt.Errorf("dead %s has no flag --%s: run signer --help", verb, given.Name)
		}
	})
	switch {
	case err != nil:
		return "", err
	case f.config == "":
		return "", errors.New("--config is required: config/signer.yaml is an example")
	case f.output != "table" && f.output != "json":
		return "", errors.New("-o: want table or json")
	}
	return verb, checkProject(f.project)
}

func (f *deadFlags) filter() deadletter.Filter {
	return deadletter.Filter{Project: f.project, Reason: f.reason}
}

// ids gives the numbers of letters among the words, each once, in the order in which they were given.
func (f *deadFlags) ids() ([]uint64, error) {
	var ids []uint64
	for _, word := range f.words {
		id, err := strconv.ParseUint(word, 10, 64)
		if err != nil || id == 0 {
			return nil, fmt.Errorf("%.64q is no number of a dead letter: signer dead list has them in its first column", word)
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// selected checks that the letters are named in one way.
func (f *deadFlags) selected() (ids []uint64, err error) {
	if ids, err = f.ids(); err != nil {
		return nil, err
	}
	filtered := f.project != "" || f.reason != ""
	switch {
	case len(ids) > 0 && (filtered || f.all):
		return nil, errors.New("name the letters either by their numbers, or by --project, --reason or --all")
	case filtered && f.all:
		return nil, errors.New("--all stands for every letter: leave it out, or leave --project and --reason out")
	case len(ids) == 0 && !filtered && !f.all:
		return nil, errors.New("which? Give numbers of dead letters (signer dead list has them), or --project P, --reason R, or --all")
	}
	return ids, nil
}

// withLetters loads the configuration and connects.
func withLetters(ctx context.Context, path string, do func(*deadletter.Service) error) error {
	cfg, err := config.LoadSigner(path, os.Environ())
	if err != nil {
		return err
	}
	letters, closing, err := app.OpenDeadLetters(ctx, cfg)
	if err != nil {
		return err
	}
	defer closing()
	return do(letters)
}

func (f *deadFlags) list(ctx context.Context, c *shell.Call) error {
	if len(f.words) > 0 {
		return fmt.Errorf("unexpected argument %.64q: dead list takes --project and --reason; dead show takes a number", f.words[0])
	}
	return withLetters(ctx, f.config, func(letters *deadletter.Service) error {
		all, err := find(ctx, c, letters, f.filter())
		if err != nil {
			return err
		}
		if f.output == "json" {
			return writeJSON(c.Stdout, lettersDocument(all))
		}
		return printLetters(c.Stdout, all, time.Now())
	})
}

// find gives the letters that a filter takes, and shows how far it has come.
func find(ctx context.Context, c *shell.Call, letters *deadletter.Service, f deadletter.Filter) ([]artifact.DeadLetter, error) {
	progress := shell.NewProgress(c.Stderr)
	defer progress.Done()
	progress.Step("looking for dead letters")
	return letters.All(ctx, f, func(n int) { progress.Step("found %d dead letters", n) })
}

func (f *deadFlags) show(ctx context.Context, c *shell.Call) error {
	ids, err := f.ids()
	if err != nil {
		return err
	}
	if len(ids) != 1 {
		return errors.New("want the number of one dead letter: signer dead list has them in its first column")
	}
	return withLetters(ctx, f.config, func(letters *deadletter.Service) error {
		l, err := letters.Show(ctx, ids[0])
		if err != nil {
			return err
		}
		if f.output == "json" {
			return writeJSON(c.Stdout, deadletter.ViewOf(l))
		}
		return printLetter(c.Stdout, l, time.Now())
	})
}

// act does something with the letters that the flags name: with those that are there when it begins, so that it comes to an end
// however fast new ones are written.
func (f *deadFlags) act(
	ctx context.Context, c *shell.Call, doing, done string,
	do func(letters *deadletter.Service, ids []uint64, progress func(done, of int)) ([]deadletter.Result, error),
) error {
	ids, err := f.selected()
	if err != nil {
		return err
	}
	return withLetters(ctx, f.config, func(letters *deadletter.Service) error {
		if len(ids) == 0 {
			all, err := find(ctx, c, letters, f.filter())
			if err != nil {
				return err
			}
			for _, l := range all {
				ids = append(ids, l.ID)
			}
		}
		progress := shell.NewProgress(c.Stderr)
		results, err := do(letters, ids, func(n, of int) { progress.Step("%s %d of %d", doing, n+1, of) })
		progress.Done()
		if err != nil {
			return err
		}
		sum := deadletter.Sum(results)
		if f.output == "json" {
			err = writeJSON(c.Stdout, resultsDocument(results, sum))
		} else {
			err = printResults(c.Stdout, done, results, sum)
		}
		if err == nil && sum.Done+sum.Waiting+sum.Gone < len(results) {
			err = fmt.Errorf("%d of %d dead letters were not %s", len(results)-sum.Done-sum.Waiting-sum.Gone, len(results), done)
		}
		return err
	})
}

// deadActor names who runs the program. No account of Harbor can pass for it, nor it for one.
func deadActor() deadletter.Actor {
	return deadletter.Actor{Name: "cli:" + shell.OneLine(operator()), From: "cli"}
}
