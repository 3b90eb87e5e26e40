package backup

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Target is a queue that is to be filled, and that nothing else uses.
type Target interface {
	// Present names the streams that exist.
	Present(ctx context.Context) ([]string, error)
	// Restore makes a stream of a copy. After an error it may be there in part.
	Restore(ctx context.Context, stream string, description json.RawMessage, r io.Reader, progress func(bytes int64)) error
	// Remove removes a stream; there may be none.
	Remove(ctx context.Context, stream string) error
}

// ErrNotEmpty says that the queue has streams: nothing was changed.
var ErrNotEmpty = errors.New("the queue is not empty")

// Check reads a whole backup, compares everything with the manifest, and gives that. streams are those that a backup has. It
// changes nothing, and takes no queue.
func Check(ctx context.Context, by Checker, streams []string, o Options) (Manifest, error) {
	o = o.withDefaults()
	m, err := read(o, streams)
	if err != nil {
		return Manifest{}, fmt.Errorf("reading the backup: %w", err)
	}
	for _, f := range m.Streams {
		o.Progress(f.Stream, "checking", f.Bytes)
		found, err := f.check(ctx, by, o.Dir)
		if err == nil && !found.equal(f.Contents) {
			err = fmt.Errorf("%s holds something else than %s says", f.Name, manifestName)
		}
		if err != nil {
			return Manifest{}, fmt.Errorf("checking the backup: %w", err)
		}
	}
	return m, nil
}

func (c Contents) equal(d Contents) bool {
	return c.Messages == d.Messages && c.FirstSeq == d.FirstSeq && c.LastSeq == d.LastSeq &&
		c.FirstTime.Equal(d.FirstTime) && c.LastTime.Equal(d.LastTime)
}

// Restore fills an empty queue from a backup that [Check] has given. After an error it removes what it has made. A crash leaves
// some streams: the queue is not empty then, and has to be emptied first.
//
// The policies are last: until they are there, no program signs anything.
func Restore(ctx context.Context, target Target, m Manifest, o Options) error {
	o = o.withDefaults()
	present, err := target.Present(ctx)
	if err != nil {
		return fmt.Errorf("restoring: %w", err)
	}
	if len(present) > 0 {
		return fmt.Errorf("restoring: %w: it has the streams %v", ErrNotEmpty, present)
	}
	for i, f := range m.Streams {
		if err := restoreStream(ctx, target, f, o); err != nil {
			return errors.Join(fmt.Errorf("restoring: %w", err), undo(context.WithoutCancel(ctx), target, m.Streams[:i+1]))
		}
	}
	return nil
}

func restoreStream(ctx context.Context, target Target, f File, o Options) error {
	file, err := os.Open(filepath.Join(o.Dir, f.Name))
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it is only read
	return target.Restore(ctx, f.Stream, f.Description, bufio.NewReaderSize(file, 1<<20), func(bytes int64) {
		o.Progress(f.Stream, "restoring", bytes)
	})
}

// undo removes what was restored, the last first.
func undo(ctx context.Context, target Target, files []File) error {
	var errs []error
	for _, f := range slices.Backward(files) {
		if err := target.Remove(ctx, f.Stream); err != nil {
			errs = append(errs, fmt.Errorf("remove it by hand: %w", err))
		}
	}
	return errors.Join(errs...)
}
