// Command receiver takes Harbor's webhooks, hands them to the queue, and serves the report. Run it with --help.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/access"
	app "github.com/harborseal/harborseal/pkg/app/receiver"
	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/config"
)

const usage = `receiver takes Harbor's webhooks and serves the signed-digest report.

Usage:
  receiver [run] --config FILE     serve until SIGTERM
  receiver --check-config --config FILE
                                   check the configuration and the files that it names, and exit
  receiver new-token --name NAME   make a token for the report's API: prints the token once, and its line for
                                   api.tokens_file
  receiver backup DIR --config FILE [-o json]
                                   copy the queue (ledger, waiting requests, dead letters, policies) into a new folder,
                                   while everything is running
  receiver restore DIR --config FILE [--check] [-o json]
                                   check a backup and fill an empty queue from it; receivers and signers must not run.
                                   Signing is suspended afterwards, and full sweeps are asked for. --check changes nothing.
  receiver sweep --all | --project P --config FILE [--keep-signing] [--reason WHY] [-o json]
                                   ask for full sweeps: after Harbor was restored, of all projects, which suspends signing
                                   until somebody has looked (signer resume)
  receiver ledger new-key --out FILE --config FILE
                                   make a ledger key, and print the verifier key for auditors
  receiver ledger verify --config FILE [--checkpoints FILE] [-o json]
                                   read the whole ledger and compare it with its checkpoints, and with those of a file
  receiver ledger rebuild --config FILE [-o json]
                                   have the running receiver fill its database anew, and serve the old report meanwhile
  backup, restore, sweep and ledger take --nats-user NAME --nats-password-file FILE where the configuration's user has not the
  rights that they need.
  receiver report verify FILE [--key VKEY] [--key-file FILE] [--allow-unsigned] [-o json]
                                   check an export of the report offline: its signature by the ledger key, that it is whole,
                                   and what its rows add up to
  receiver version

Every key of the configuration has an environment variable: HARBORSEAL_HTTP_LISTEN for http.listen.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := program().Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		_ = shell.PrintError(os.Stderr, "receiver", err) // where that fails, nobody is there to be told
		os.Exit(1)
	}
}

func program() shell.Program {
	service := shell.Service[config.Receiver]{
		Load:  config.LoadReceiver,
		Log:   func(c *config.Receiver) config.Log { return c.Log },
		Check: app.Check,
		New: func(ctx context.Context, c *config.Receiver, logger zerolog.Logger) (shell.Runner, error) {
			return app.New(ctx, c, logger)
		},
	}
	return shell.Program{Name: "receiver", Usage: usage, Commands: map[string]func(context.Context, *shell.Call) error{
		"run":       service.Serve,
		"new-token": newToken,
		"report":    reportCommand,
		"backup":    makeBackup,
		"restore":   restore,
		"sweep":     sweep,
		"ledger":    ledgerCommand,
	}}
}

func newToken(_ context.Context, c *shell.Call) error {
	name := c.Flags.String("name", "", "who will use the token")
	if err := c.Parse(); err != nil {
		return err
	}
	token, line, err := access.NewToken(*name)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.Stdout, "token                     %s\nline for api.tokens_file  %s\n", token, line)
	return err
}
