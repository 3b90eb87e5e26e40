// Command sigstorego verifies images with sigstore-go and the public keys of a deployment that has no transparency log and
// no timestamps. It is an example for whoever builds a verifier on that library, and what the end-to-end tests verify
// with beside the cosign programs.
//
// It guarantees that what it accepts carries a signature over exactly the digest that the registry gave out, in the
// format that was asked for, by the given key. It uses nothing of the packages that make the signatures. It assumes a key
// that sigstore-go can verify with. It does not look at the repository's name in a legacy signature, as cosign does not,
// and does not follow an index to its children.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sigstorego:", err)
		os.Exit(1) //nolint:forbidigo // this is a main package outside cmd/
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("sigstorego", flag.ContinueOnError)
	flags.SetOutput(stderr)
	keyFile := flags.String("key", "", "file with the public key in PEM")
	format := flags.String("format", formatBundle, "format of the signature: bundle or legacy")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("parsing flags: %w", err)
	}
	if *keyFile == "" || flags.NArg() == 0 {
		return errors.New("usage: sigstorego -key FILE [-format bundle|legacy] IMAGE…")
	}
	pem, err := os.ReadFile(*keyFile)
	if err != nil {
		return fmt.Errorf("reading the key: %w", err)
	}
	v, err := newVerifier(pem)
	if err != nil {
		return err
	}
	for _, image := range flags.Args() {
		digest, err := v.verify(ctx, image, *format)
		if err != nil {
			return fmt.Errorf("%s: %w", image, err)
		}
		if _, err := fmt.Fprintf(stdout, "verified %s %s\n", image, digest); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
	}
	return nil
}
