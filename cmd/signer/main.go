// Command signer takes requests from the queue and signs images in Harbor. Run it with --help.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/app/shell"
	app "github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

const usage = `signer signs the images that the receiver was told of.

Usage:
  signer [run] --config FILE       work until SIGTERM
  signer --check-config --config FILE
                                   check the configuration, keys and secrets, and exit
  signer generate-key --password-file FILE [--output-prefix PREFIX]
                                   make an encrypted key pair: PREFIX.key and PREFIX.pub (default: harborseal)
  signer public-key --key FILE [--password-file FILE]
                                   print the public key of a private key in a file
  signer public-key --config FILE --name KEY
                                   print that of a key of the configuration, wherever it is: file, KMS or HSM
  signer key-sources               list where this build can find keys
  signer doctor --config FILE [--project P] [--push-test] [-o json]
                                   check everything that signing needs: the way to Harbor, its account and each right,
                                   the keys with a test signature, the queue, the policies, and what the receiver sees,
                                   of one project or of all that are enabled. It prints what to do about each failure,
                                   and its exit status is 1 if there is one. --push-test signs an image in Harbor.
  signer trust-root --config FILE [--output-dir DIR] [-o json]
                                   write the trusted root and the public keys that verifiers need, and print the
                                   exact cosign command lines
  signer pause --config FILE --reason WHY [--project P]
                                   stop signing at once everywhere, of one project or of all; requests wait
  signer resume --config FILE [--project P] [--reason WHY]
                                   let signing go on
  signer dead list --config FILE [--project P] [--reason R] [-o json]
                                   list the requests that were given up, with why
  signer dead show --config FILE ID [-o json]
                                   all that is known of one
  signer dead replay --config FILE ID... | --project P | --reason R | --all [-o json]
                                   try them again: what was wrong should be mended before
  signer dead discard --config FILE --why WHY ID... | --project P | --reason R | --all [-o json]
                                   take them away for good; who and why stays in the ledger
  signer version

Every key of the configuration has an environment variable: HARBORSEAL_HARBOR_URL for harbor.url.
`

func main() {
	shell.TuneMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := program().Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		_ = shell.PrintError(os.Stderr, "signer", err) // where that fails, nobody is there to be told
		os.Exit(1)
	}
}

func program() shell.Program {
	service := shell.Service[config.Signer]{
		Load:  config.LoadSigner,
		Log:   func(c *config.Signer) config.Log { return c.Log },
		Check: app.Check,
		New: func(ctx context.Context, c *config.Signer, logger zerolog.Logger) (shell.Runner, error) {
			return app.New(ctx, c, logger)
		},
	}
	return shell.Program{Name: "signer", Usage: usage, Commands: map[string]func(context.Context, *shell.Call) error{
		"run":          service.Serve,
		"generate-key": generateKey,
		"public-key":   publicKey,
		"key-sources":  keySources,
		"doctor":       doctor,
		"trust-root":   trustRoot,
		"pause":        pause,
		"resume":       resume,
		"dead":         dead,
	}}
}

func generateKey(_ context.Context, c *shell.Call) error {
	password := c.Flags.String("password-file", "", "file with the password on one line")
	prefix := c.Flags.String("output-prefix", "harborseal", "path of the files without .key and .pub")
	if err := c.Parse(); err != nil {
		return err
	}
	if *password == "" {
		return errors.New("--password-file is required: the private key is kept encrypted")
	}
	key, err := keys.Generate(*prefix, *password)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.Stdout, "private key  %s.key (encrypted, for the signer alone)\npublic key   %s.pub\nkey id       %s\n", *prefix, *prefix, key.ID())
	return err
}

func keySources(_ context.Context, c *shell.Call) error {
	if err := c.Parse(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(c.Stdout, strings.Join(append([]string{"file"}, keys.Providers()...), "\n"))
	return err
}

func publicKey(ctx context.Context, c *shell.Call) error {
	file := c.Flags.String("key", "", "private key")
	password := c.Flags.String("password-file", "", "file with the password on one line; none for PKCS #8, which is not encrypted")
	path := c.Flags.String("config", "", "configuration file")
	name := c.Flags.String("name", "", "name of a key in the configuration")
	if err := c.Parse(); err != nil {
		return err
	}
	var public keys.PublicKey
	var err error
	switch {
	case *file != "" && *path == "" && *name == "":
		public, err = publicKeyOfFile(*file, *password) //nolint:contextcheck // a file answers at once
	case *file == "" && *password == "" && *path != "" && *name != "":
		public, err = publicKeyOfConfig(ctx, *path, *name)
	default:
		err = errors.New("want --key, with --password-file if the key is encrypted, or --config and --name")
	}
	if err != nil {
		return err
	}
	_, err = c.Stdout.Write(public.PEM())
	return err
}

func publicKeyOfFile(path, passwordFile string) (keys.PublicKey, error) {
	key, err := keys.LoadFile(path, passwordFile)
	if err != nil {
		return keys.PublicKey{}, err
	}
	return key.Public(), nil
}

func publicKeyOfConfig(ctx context.Context, path, name string) (keys.PublicKey, error) {
	cfg, err := config.LoadSigner(path, os.Environ())
	if err != nil {
		return keys.PublicKey{}, err
	}
	return app.PublicKey(ctx, cfg, name)
}
