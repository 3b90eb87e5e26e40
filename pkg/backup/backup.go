// Package backup copies the queue into a folder, and fills an empty queue from it: the ledger, the requests that wait, the log
// entries that are owed, the dead letters, the policies, and the signatures and sweeps in work.
//
// It guarantees:
//   - A backup is whole if its manifest is there: it is written last, when everything else is on the disk and was read back. What
//     was interrupted has none.
//   - A restore reads and checks every file before it changes anything. Sequences, times and bytes are those of the queue that was
//     copied, so that the ledger's checkpoints hold.
//   - After a restore and the full sweeps that follow it, nothing is lost of what the queue held when the backup began.
//
// It assumes that nobody else writes into the folder. The files are for their owner alone: they name repositories, pushers and
// policies, but hold no secret, because none is kept in the queue. What a program reads from files (keys, passwords, the master
// secrets of webhooks, the configuration) is no part of a backup, and neither is the report's database, which is made anew from
// the ledger.
//
// It does not encrypt, does not sign and does not carry files away: whoever can change the manifest can change all. The ledger's
// own signed checkpoints, in their second place, tell then.
package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Source is a queue that is at work. Methods make one attempt.
type Source interface {
	// Streams names what is copied, in this order.
	Streams() []string
	// Snapshot writes a consistent copy of a stream to w while it goes on, and gives JSON that describes it. After an error what
	// was written is useless.
	Snapshot(ctx context.Context, stream string, w io.Writer, progress func(bytes int64)) (description json.RawMessage, err error)
	Checker
}

// Checker reads copies.
type Checker interface {
	// Check reads a copy to its end and says what it holds; the error says in what it is damaged, or that it is of a newer program.
	Check(stream string, description json.RawMessage, r io.Reader) (Contents, error)
}

// Contents is what a copy of a stream holds. Sequences are 0 and times zero without a message.
type Contents struct {
	Messages  uint64    `json:"messages"`
	FirstSeq  uint64    `json:"first_seq"`
	LastSeq   uint64    `json:"last_seq"`
	FirstTime time.Time `json:"first_time,omitzero"`
	LastTime  time.Time `json:"last_time,omitzero"`
}

// Options are what a backup is made with. Dir and Harbor are required.
type Options struct {
	// Dir is empty, or made.
	Dir string
	// Harbor is the name of the Harbor in the queue.
	Harbor string
	// Version is that of the program.
	Version string
	// Progress is told what is being done; nil is allowed.
	Progress func(stream, doing string, bytes int64)
	// Now is the clock; nil is that of the machine.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Progress == nil {
		o.Progress = func(string, string, int64) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Make copies the queue into the folder, and gives the manifest that it has written. What it has made is removed after an error.
//
// A crash leaves files without a manifest, which [Check] and [Make] refuse.
func Make(ctx context.Context, source Source, o Options) (Manifest, error) {
	o = o.withDefaults()
	if err := prepare(o.Dir); err != nil {
		return Manifest{}, err
	}
	m := Manifest{Format: Format, Harbor: o.Harbor, Version: o.Version, Created: o.Now().UTC()}
	err := m.fill(ctx, source, o)
	if err == nil {
		m.Finished = o.Now().UTC()
		m.SHA256, err = m.write(o.Dir)
	}
	if err != nil {
		return Manifest{}, errors.Join(fmt.Errorf("making a backup: %w", err), clean(o.Dir, source.Streams()))
	}
	return m, nil
}

// prepare makes the folder, or takes an empty one.
func prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the folder of the backup: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("looking into the folder of the backup: %w", err)
	}
	if len(entries) == 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, manifestName)); err == nil {
		return fmt.Errorf("%s holds a backup: name a new folder for each", dir)
	}
	return fmt.Errorf("%s is not empty: name a new folder (what holds *%s and no %s is a backup that was interrupted, and of no use)", dir, suffix, manifestName)
}

// clean removes what an attempt has made, so that it can be repeated.
func clean(dir string, streams []string) error {
	var errs []error
	for _, name := range append([]string{manifestName, manifestName + ".tmp"}, fileNames(streams)...) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func fileNames(streams []string) []string {
	names := make([]string, len(streams))
	for i, stream := range streams {
		names[i] = stream + suffix
	}
	return names
}

func (m *Manifest) fill(ctx context.Context, source Source, o Options) error {
	for _, stream := range source.Streams() {
		f, err := copyStream(ctx, source, stream, o)
		if err != nil {
			return err
		}
		// It is read back: what a full or failing disk kept is what counts.
		o.Progress(stream, "checking", f.Bytes)
		if f.Contents, err = f.check(ctx, source, o.Dir); err != nil {
			return err
		}
		m.Streams = append(m.Streams, f)
	}
	return nil
}

func copyStream(ctx context.Context, source Source, stream string, o Options) (File, error) {
	f := File{Stream: stream, Name: stream + suffix}
	file, err := os.OpenFile(filepath.Join(o.Dir, f.Name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return File{}, err
	}
	sum := &counted{w: file, hash: sha256.New()}
	f.Description, err = source.Snapshot(ctx, stream, sum, func(bytes int64) { o.Progress(stream, "copying", bytes) })
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return File{}, err
	}
	f.Bytes, f.SHA256 = sum.bytes, sum.sum()
	return f, nil
}

// counted hashes and counts what is written or read through it.
type counted struct {
	w     io.Writer
	r     io.Reader
	hash  hash.Hash
	bytes int64
}

// Write implements io.Writer.
func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.add(p[:n])
	return n, err
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.add(p[:n])
	return n, err
}

func (c *counted) add(p []byte) {
	_, _ = c.hash.Write(p) // a hash takes everything
	c.bytes += int64(len(p))
}

func (c *counted) sum() string { return hex.EncodeToString(c.hash.Sum(nil)) }
