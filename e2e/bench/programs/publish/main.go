// Command publish is the yardstick of the receiver: it publishes what a webhook leads to, and does nothing else. For each
// webhook that is one event and, after its acknowledgement, one request, both to streams as the service makes them, of a server
// in its own process that syncs every write before it acknowledges it. Each webhook has subjects of its own, as each digest has.
// Nothing is read, decided, logged or counted: what a receiver costs beyond it is its own doing.
//
// Without -serve it publishes in a loop, so many webhooks at once, and prints what it took as JSON. With -serve it prints its
// address and publishes the next webhook's messages for each HTTP request, whatever that says, until it is told to end: what a
// webhook costs that comes over HTTP.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "publish:", err)
		os.Exit(1) //nolint:forbidigo // this is a main package outside cmd/
	}
}

// options are the flags.
type options struct {
	store              string
	webhooks, inFlight int
	serve              bool
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	var o options
	flags := flag.NewFlagSet("publish", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.store, "store", "", "folder of the streams; it is made")
	flags.IntVar(&o.webhooks, "webhooks", 1000, "webhooks, or the most that are served")
	flags.IntVar(&o.inFlight, "in-flight", 10, "webhooks at once")
	flags.BoolVar(&o.serve, "serve", false, "publish for each HTTP request")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("parsing flags: %w", err)
	}
	if o.store == "" || o.webhooks < 1 || o.inFlight < 1 || flags.NArg() > 0 {
		return fmt.Errorf("parsing flags: want -store, and positive -webhooks and -in-flight")
	}
	p, err := newPublisher(ctx, o)
	if err != nil {
		return err
	}
	defer p.close()
	if o.serve {
		return p.serve(ctx, stdout)
	}
	r, err := p.loop(ctx, o.inFlight)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(stdout).Encode(r); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}
