package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Volume is a small file system of its own, in memory, that can be full. It is for one goroutine.
type Volume struct {
	dir string
	// ballast is the file that fills it.
	ballast string
}

// MountVolume mounts a volume of so many bytes on dir, which is made. That takes the rights of root, on Linux.
func MountVolume(ctx context.Context, dir string, size int64) (*Volume, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("mounting a volume: %w", err)
	}
	if err := mountCommand(ctx, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d,mode=0700", size), "harborseal-e2e", dir); err != nil {
		return nil, err
	}
	return &Volume{dir: dir, ballast: filepath.Join(dir, "ballast")}, nil
}

func mountCommand(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput() //nolint:gosec // the arguments are the harness's own
	if err != nil {
		return fmt.Errorf("running %s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// Fill writes a file until nothing fits any more.
func (v *Volume) Fill() error {
	f, err := os.OpenFile(v.ballast, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("filling a volume: %w", err)
	}
	_, err = io.Copy(f, zeros{})
	err = errors.Join(err, f.Close())
	if errors.Is(err, syscall.ENOSPC) {
		return nil
	}
	return fmt.Errorf("filling a volume: %w", err)
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Empty makes room again.
func (v *Volume) Empty() error {
	if err := os.Remove(v.ballast); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("emptying a volume: %w", err)
	}
	return nil
}

// Close unmounts the volume, with all that is on it. Nobody may use it any more.
func (v *Volume) Close() error {
	return mountCommand(context.Background(), "umount", v.dir)
}
