package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	// streamsDir is where a server keeps its streams within a store, and restoringDir where they are while they are restored.
	streamsDir   = "jetstream"
	restoringDir = ".restoring"
)

// ErrNotEmpty says that a queue holds something: a restore does not touch it.
var ErrNotEmpty = errors.New("the queue is not empty")

// Restoring is a server whose store takes the place of an empty one when everything is in it, in one step: a crash before
// [Restoring.Finish] returns leaves the empty one. Nobody else can start a server on the store meanwhile. It belongs to one
// goroutine.
type Restoring struct {
	// Server is without a listener. Clients have to be closed before Finish and Abort.
	Server *Server

	dir    string
	lock   *lockFile
	closed bool
}

// StartRestoring starts a server beside the empty store of cfg, whose listener it leaves out. What a restore that was interrupted
// left behind is removed. Whoever starts it must call Finish or Abort; after Finish, Abort does nothing.
func StartRestoring(ctx context.Context, cfg ServerConfig) (*Restoring, error) {
	if err := os.MkdirAll(cfg.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("preparing the store: %w", err)
	}
	r := &Restoring{dir: cfg.StoreDir}
	var err error
	if r.lock, err = lockStore(r.dir); err != nil {
		return nil, fmt.Errorf("%w: stop the receiver first", err)
	}
	if err = r.prepare(); err == nil {
		cfg.StoreDir = filepath.Join(r.dir, restoringDir)
		cfg.Listen, cfg.Users, cfg.TLS = "", nil, nil
		cfg.unsynced = true
		r.Server, err = StartServer(ctx, cfg)
	}
	if err != nil {
		return nil, errors.Join(err, r.lock.release())
	}
	return r, nil
}

// prepare refuses a store that has streams.
func (r *Restoring) prepare() error {
	streams, err := filepath.Glob(filepath.Join(r.dir, streamsDir, "*", "streams", "*"))
	if err != nil {
		return err
	}
	if len(streams) > 0 {
		return fmt.Errorf("%w: %s has streams; move %s away, if nothing in it is needed, and repeat this", ErrNotEmpty, r.dir, filepath.Join(r.dir, streamsDir))
	}
	for _, name := range []string{streamsDir, restoringDir} {
		if err := os.RemoveAll(filepath.Join(r.dir, name)); err != nil {
			return fmt.Errorf("preparing the store: %w", err)
		}
	}
	return nil
}

// Finish stops the server, syncs what it has written, and puts it into the place of the empty store.
func (r *Restoring) Finish(ctx context.Context) error {
	from := filepath.Join(r.dir, restoringDir)
	err := r.Server.Shutdown(ctx)
	if err == nil {
		err = syncTree(filepath.Join(from, streamsDir))
	}
	if err == nil {
		// A crash before this leaves an empty store, and one behind it a whole one.
		err = os.Rename(filepath.Join(from, streamsDir), filepath.Join(r.dir, streamsDir))
	}
	if err == nil {
		err = syncFile(r.dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("finishing the restore: %w", err), r.Abort(ctx))
	}
	return r.Abort(ctx)
}

// Abort stops the server, and removes what was restored unless Finish has succeeded.
func (r *Restoring) Abort(ctx context.Context) error {
	if r.closed {
		return nil
	}
	r.closed = true
	err := r.Server.Shutdown(ctx)
	if err == nil {
		err = os.RemoveAll(filepath.Join(r.dir, restoringDir))
	}
	return errors.Join(err, r.lock.release())
}

// syncTree syncs a folder with all that is in it.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncFile(path)
	})
}

func syncFile(path string) error {
	file, err := os.Open(path) //nolint:gosec // within the folder of the operator's configuration
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
