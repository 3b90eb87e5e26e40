package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/rs/zerolog"

	app "github.com/harborseal/harborseal/pkg/app/receiver"
	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/notary"
	"github.com/harborseal/harborseal/pkg/printable"
)

// errTampered makes the program fail where the ledger does not fit its checkpoints.
var errTampered = errors.New("the ledger does not fit its checkpoints: keep it as it is, and look at what is above")

// ledgerCommand looks after the tamper evidence of the ledger.
func ledgerCommand(ctx context.Context, c *shell.Call) error {
	var f toolFlags
	f.declare(c)
	checkpoints := c.Flags.String("checkpoints", "", "file of checkpoints to compare with, as ledger.checkpoint.file has them")
	out := c.Flags.String("out", "", "file for the new key")
	words, err := c.ParseWords()
	if err != nil {
		return err
	}
	if len(words) != 1 {
		return errors.New("want one of: receiver ledger verify, receiver ledger rebuild, receiver ledger new-key")
	}
	cfg, err := f.load()
	if err != nil {
		return err
	}
	switch words[0] {
	case "verify":
		return verifyLedger(ctx, c, f, cfg, *checkpoints)
	case "rebuild":
		return rebuildView(ctx, c, f, cfg)
	case "new-key":
		return newLedgerKey(c.Stdout, cfg, *out)
	default:
		return fmt.Errorf("unknown command %q: want one of: receiver ledger verify, receiver ledger rebuild, receiver ledger new-key", words[0])
	}
}

// newLedgerKey makes a key file and prints the verifier key. It never replaces a file.
func newLedgerKey(w io.Writer, cfg *config.Receiver, path string) error {
	if path == "" {
		return errors.New("--out is required: the file for the new key, which ledger.checkpoint.key_file names")
	}
	text, err := notary.NewKey()
	if err != nil {
		return err
	}
	key, err := notary.ParseKey(text, notary.KeyName(cfg.Harbor.PublicHost, cfg.Harbor.Name))
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names the file
	if err != nil {
		return fmt.Errorf("writing the ledger key: %w", err)
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("writing the ledger key: %w", err)
	}
	_, err = fmt.Fprintf(w, "key file (ledger.checkpoint.key_file)  %s\nverifier key, for auditors             %s\n", path, key.VerifierKey())
	return err
}

// verifyLedger reads the whole ledger and prints what does not fit.
func verifyLedger(ctx context.Context, c *shell.Call, f toolFlags, cfg *config.Receiver, checkpoints string) error {
	keys, err := ledgerKeys(cfg)
	if err != nil {
		return err
	}
	var known []notary.Known
	skipped := 0
	if checkpoints != "" {
		if known, skipped, err = notary.ReadFile(checkpoints, keys); err != nil {
			return fmt.Errorf("--checkpoints: %w", err)
		}
	}
	client, closing, err := app.Tool(ctx, cfg, f.as, zerolog.Nop())
	if err != nil {
		return err
	}
	defer closing()
	progress := shell.NewProgress(c.Stderr)
	report, err := notary.Verify(ctx, notary.VerifyConfig{
		Source: client, Keys: keys, Known: known,
		Progress: func(seq, last uint64) { progress.Step("event %d of %d", seq, last) },
	})
	progress.Done()
	if err != nil {
		return err
	}
	if skipped > 0 {
		report.Notes = append(report.Notes, fmt.Sprintf("%d lines of %s are no checkpoints of a known key", skipped, checkpoints))
	}
	if err := printVerification(c.Stdout, f.output, report); err != nil {
		return err
	}
	if !report.OK() {
		return errTampered
	}
	return nil
}

// rebuildView has a receiver fill its database anew, and shows how far it is.
func rebuildView(ctx context.Context, c *shell.Call, f toolFlags, cfg *config.Receiver) error {
	progress := shell.NewProgress(c.Stderr)
	status, err := app.Rebuild(ctx, cfg, app.RebuildOptions{User: f.as, Progress: func(s ledger.RebuildStatus) {
		progress.Step("event %d of %d, %.0f events/s; the old report is served meanwhile", s.Position, s.Last, s.EventsPerSecond)
	}})
	progress.Done()
	if err != nil {
		return err
	}
	if f.output == "json" {
		raw, err := json.MarshalIndent(status, "", "  ")
		if err != nil {
			return err
		}
		_, err = c.Stdout.Write(append(printable.JSON(raw), '\n'))
		return err
	}
	_, err = fmt.Fprintf(c.Stdout, "the report was rebuilt from %d events (%.0f events/s), up to event %d\n", status.Events, status.EventsPerSecond, status.Position)
	return err
}

// ledgerKeys are those whose notes count: of the key file, where this program may read it, and those that are named.
func ledgerKeys(cfg *config.Receiver) (*notary.Keys, error) {
	texts := cfg.Ledger.Checkpoint.VerifierKeys
	if path := cfg.Ledger.Checkpoint.KeyFile; path != "" {
		key, err := notary.LoadKey(path, notary.KeyName(cfg.Harbor.PublicHost, cfg.Harbor.Name))
		if err != nil {
			return nil, err
		}
		texts = append([]string{key.VerifierKey()}, texts...)
	}
	if len(texts) == 0 {
		return nil, errors.New("the configuration names no ledger key: set ledger.checkpoint.key_file or verifier_keys")
	}
	return notary.NewKeys(texts...)
}

func printVerification(w io.Writer, output string, r notary.Report) error {
	if output == "json" {
		raw, err := json.MarshalIndent(struct {
			OK bool `json:"ok"`
			notary.Report
		}{r.OK(), r}, "", "  ")
		if err != nil {
			return err
		}
		_, err = w.Write(append(printable.JSON(raw), '\n'))
		return err
	}
	number := func(n uint64) shell.Cell { return shell.Cell{Text: strconv.FormatUint(n, 10)} }
	if len(r.Findings) > 0 {
		table := shell.Table{Header: []string{"FINDING", "EPOCH", "FROM", "TO", "DETAIL"}}
		for _, f := range r.Findings {
			table.Rows = append(table.Rows, []shell.Cell{
				{Text: string(f.Kind), Colour: shell.Red}, number(f.Epoch), number(f.From), number(f.To), {Text: f.Detail},
			})
		}
		if err := table.Write(w, shell.Colours(w)); err != nil {
			return err
		}
	}
	for _, note := range r.Notes {
		if _, err := fmt.Fprintln(w, "note:", shell.OneLine(note)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%d events (%d to %d), %d epochs, %d checkpoints and %d from elsewhere; %d findings; %d events are behind the last checkpoint\n",
		r.Events, r.First, r.Last, len(r.Epochs), r.Checkpoints, r.Outside, len(r.Findings), r.Uncovered)
	return err
}
