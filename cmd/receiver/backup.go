package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	app "github.com/harborseal/harborseal/pkg/app/receiver"
	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/backup"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/printable"
)

// toolFlags are what the commands that work on the queue share.
type toolFlags struct {
	config, output string
	as             app.ToolUser
}

func (f *toolFlags) declare(c *shell.Call) {
	c.Flags.StringVar(&f.config, "config", "", "configuration file")
	c.Flags.StringVar(&f.output, "o", "table", "table or json")
	c.Flags.StringVar(&f.as.Name, "nats-user", "", "user of the account that owns the streams; that of the configuration if there is none")
	c.Flags.StringVar(&f.as.PasswordFile, "nats-password-file", "", "file with its password")
	c.Flags.StringVar(&f.as.CertFile, "nats-cert-file", "", "client certificate in PEM, where the servers ask for one")
	c.Flags.StringVar(&f.as.KeyFile, "nats-key-file", "", "its private key")
}

func (f *toolFlags) load() (*config.Receiver, error) {
	switch {
	case f.config == "":
		return nil, errors.New("--config is required: config/receiver.yaml is an example")
	case f.output != "table" && f.output != "json":
		return nil, errors.New("-o: want table or json")
	}
	return config.LoadReceiver(f.config, os.Environ())
}

// makeBackup copies the queue into a folder.
func makeBackup(ctx context.Context, c *shell.Call) error {
	return withBackup(ctx, c, "backup", func(ctx context.Context, cfg *config.Receiver, o app.BackupOptions) (any, string, error) {
		m, err := app.Backup(ctx, cfg, o)
		return backupDocument(m), backupText(o.Dir, m), err
	})
}

// restore fills an empty queue from a backup, or checks the backup alone.
func restore(ctx context.Context, c *shell.Call) error {
	check := c.Flags.Bool("check", false, "check the backup, and change nothing")
	return withBackup(ctx, c, "restore", func(ctx context.Context, cfg *config.Receiver, o app.BackupOptions) (any, string, error) {
		if *check {
			m, err := app.CheckBackup(ctx, cfg, o)
			return backupDocument(m), "the backup is whole\n" + backupText(o.Dir, m), err
		}
		done, err := app.Restore(ctx, cfg, o)
		return struct {
			backupJSON
			app.Restored
		}{backupDocument(done.Manifest), done}, restoredText(done), err
	})
}

// withBackup reads flags and configuration, shows progress, and prints what do gives, unless that is an error.
func withBackup(
	ctx context.Context, c *shell.Call, name string,
	do func(context.Context, *config.Receiver, app.BackupOptions) (document any, text string, err error),
) error {
	var f toolFlags
	f.declare(c)
	words, err := c.ParseWords()
	if err != nil {
		return err
	}
	if len(words) != 1 {
		return fmt.Errorf("want one folder: receiver %s DIR --config FILE", name)
	}
	cfg, err := f.load()
	if err != nil {
		return err
	}
	progress := shell.NewProgress(c.Stderr)
	document, text, err := do(ctx, cfg, app.BackupOptions{
		Dir: words[0], As: f.as, Actor: operator(), Logger: zerolog.Nop(),
		Progress: func(stream, doing string, bytes int64) { progress.Step("%s %s: %d KiB", doing, stream, bytes>>10) },
	})
	progress.Done()
	if err != nil {
		return err
	}
	return f.print(c.Stdout, document, text)
}

func (f *toolFlags) print(w io.Writer, document any, text string) error {
	if f.output != "json" {
		_, err := io.WriteString(w, text)
		return err
	}
	raw, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(printable.JSON(raw), '\n'))
	return err
}

// operator names who runs the program, for the event.
func operator() enroll.Actor {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return enroll.Actor{Name: name + "@" + host, From: "cli"}
}

// backupJSON is what -o json says of a backup.
type backupJSON struct {
	Harbor         string       `json:"harbor"`
	Created        time.Time    `json:"created"`
	Finished       time.Time    `json:"finished"`
	ManifestSHA256 string       `json:"manifest_sha256"`
	Bytes          int64        `json:"bytes"`
	Streams        []streamJSON `json:"streams"`
}

type streamJSON struct {
	Stream   string `json:"stream"`
	Bytes    int64  `json:"bytes"`
	Messages uint64 `json:"messages"`
	FirstSeq uint64 `json:"first_seq"`
	LastSeq  uint64 `json:"last_seq"`
}

func backupDocument(m backup.Manifest) backupJSON {
	d := backupJSON{Harbor: m.Harbor, Created: m.Created, Finished: m.Finished, ManifestSHA256: m.SHA256, Bytes: m.Bytes(), Streams: []streamJSON{}}
	for _, f := range m.Streams {
		d.Streams = append(d.Streams, streamJSON{Stream: f.Stream, Bytes: f.Bytes, Messages: f.Messages, FirstSeq: f.FirstSeq, LastSeq: f.LastSeq})
	}
	return d
}

func backupText(dir string, m backup.Manifest) string {
	var b strings.Builder
	fmt.Fprintf(&b, "backup of Harbor %q in %s\nbegun     %s, took %s\nsize      %d bytes\nmanifest  SHA-256 %s\n", m.Harbor, shell.OneLine(dir),
		m.Created.Format(time.RFC3339), m.Finished.Sub(m.Created).Round(time.Millisecond), m.Bytes(), m.SHA256)
	for _, f := range m.Streams {
		fmt.Fprintf(&b, "%-14s  %d messages, up to %d\n", f.Stream, f.Messages, f.LastSeq)
	}
	return b.String()
}

// restoredText says what is to be done next.
func restoredText(done app.Restored) string {
	text := fmt.Sprintf("restored from the backup of %s\n", done.Manifest.Created.Format(time.RFC3339)) +
		"signing is suspended everywhere; full sweeps are asked for of:\n" + projectLines(done.Swept, done.Globs)
	return text + `what to do next:
  1. start the receivers and the signers
  2. compare the policies with what they should be (GET /api/v1/projects): changes since the backup are lost
  3. let the sweeps end: the report shows what is unsigned (GET /api/v1/coverage)
  4. signer resume --config FILE
`
}

func projectLines(projects []string, globs bool) string {
	text := ""
	for _, name := range projects {
		text += "  " + shell.OneLine(name) + "\n"
	}
	if len(projects) == 0 {
		text = "  none\n"
	}
	if globs {
		text += "  (further projects, which only globs in the policies mean, could not be listed: name them with receiver sweep --project,\n" +
			"  or wait for their next full sweep)\n"
	}
	return text
}
