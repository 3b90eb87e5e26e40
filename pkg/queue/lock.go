package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// errStoreLocked is what a second process gets that wants to run on a store.
var errStoreLocked = errors.New("exactly one receiver may run on a store, and another one holds it")

// lockFile is an advisory lock on a store. The kernel releases it when the process ends, however it ends.
type lockFile struct{ file *os.File }

func lockStore(dir string) (*lockFile, error) {
	path := filepath.Join(dir, "lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the path comes from the operator's configuration
	if err != nil {
		return nil, fmt.Errorf("locking the store: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close() // The error that matters is that of the lock.
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errStoreLocked
		}
		return nil, fmt.Errorf("locking the store %s: %w", dir, err)
	}
	return &lockFile{file: file}, nil
}

// release gives the lock up. The file stays: removing it would let two processes hold locks on two files of one name.
func (l *lockFile) release() error { return l.file.Close() }
