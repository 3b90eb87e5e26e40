package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/harborseal/harborseal/pkg/app/shell"
	app "github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// trustRoot writes what verifiers need into a folder, and prints how to verify with it.
func trustRoot(ctx context.Context, c *shell.Call) error {
	path := c.Flags.String("config", "", "configuration file")
	dir := c.Flags.String("output-dir", "trust", "folder for the files; it is made")
	output := c.Flags.String("o", "text", "text or json; json writes no files")
	if err := c.Parse(); err != nil {
		return err
	}
	switch {
	case *path == "":
		return errors.New("--config is required: config/signer.yaml is an example")
	case *output != "text" && *output != "json":
		return errors.New("-o: want text or json")
	}
	cfg, err := config.LoadSigner(*path, os.Environ())
	if err != nil {
		return err
	}
	document, err := app.Trust(ctx, cfg)
	if err != nil {
		return err
	}
	if *output == "json" {
		return writeJSON(c.Stdout, document)
	}
	if err := writeTrust(c.Stdout, *dir, document); err != nil {
		return err
	}
	return printCommands(c.Stdout, document)
}

// writeTrust writes the trusted root and the public keys. All of it may be public.
func writeTrust(w io.Writer, dir string, document sigstore.TrustDocument) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // for everybody to read
		return fmt.Errorf("making the folder: %w", err)
	}
	files, err := document.Files()
	if err != nil {
		return err
	}
	for _, file := range files {
		target := filepath.Join(dir, file.Name)
		if err := os.WriteFile(target, file.Content, 0o644); err != nil { //nolint:gosec // as above
			return fmt.Errorf("writing what verifiers need: %w", err)
		}
		if _, err := fmt.Fprintln(w, "wrote", target); err != nil {
			return err
		}
	}
	return nil
}

func printCommands(w io.Writer, document sigstore.TrustDocument) error {
	if _, err := fmt.Fprintf(w, "\nIn that folder, an image is verified with:\n"); err != nil {
		return err
	}
	for _, command := range document.Commands {
		if _, err := fmt.Fprintf(w, "\n  # %s\n  %s\n", command.Title, command.Line); err != nil {
			return err
		}
	}
	return nil
}
