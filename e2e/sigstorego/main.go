// Command sigstorego verifies images with sigstore-go and the public keys, or keyless identities, of a private deployment. It is
// an example for whoever builds a verifier on that library, and what the end-to-end tests verify with beside the cosign
// programs.
//
// It guarantees that what it accepts carries a signature over exactly the digest that the registry gave out, in the
// format that was asked for, by the given key or identity; and, if they are asked for, with an entry of a transparency log and
// a timestamp by those of the trusted root. It asks neither a log nor the public sigstore. It uses nothing of the packages that
// make the signatures. It assumes a key that sigstore-go can verify with. It does not look at the repository's name in a legacy
// signature, as cosign does not, at no certificate transparency, and does not follow an index to its children.
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
	var o options
	flags.StringVar(&o.key, "key", "", "file with the public key in PEM")
	flags.StringVar(&o.identity, "identity", "", "subject of a keyless identity, in place of a key")
	flags.StringVar(&o.issuer, "issuer", "", "issuer of the identity's token")
	flags.StringVar(&o.root, "trusted-root", "", "file with the trusted root")
	flags.BoolVar(&o.log, "log", false, "ask for an entry of a transparency log")
	flags.BoolVar(&o.timestamp, "timestamp", false, "ask for a timestamp")
	format := flags.String("format", formatBundle, "format of the signature: bundle or legacy")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("parsing flags: %w", err)
	}
	if (o.key == "") == (o.identity == "") || (o.identity == "") != (o.issuer == "") || flags.NArg() == 0 {
		return errors.New("usage: sigstorego {-key FILE | -identity SUBJECT -issuer ISSUER} [-trusted-root FILE] [-log] [-timestamp] [-format bundle|legacy] IMAGE…")
	}
	v, err := newVerifier(o)
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
