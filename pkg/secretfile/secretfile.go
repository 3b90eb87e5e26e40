// Package secretfile reads secrets from files, the only place where this project takes them from.
//
// It guarantees that a secret which others on the machine may read is refused, and that no error holds a part of one.
package secretfile

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// maxSize is far above any password, token or key file, in bytes.
const maxSize = 64 << 10

// Read gives the content of the file, which only its owner may be able to read.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the path is the operator's configuration
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others (mode %04o): run chmod 600 %s", path, mode, path)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", path, err)
	case len(content) > maxSize:
		return nil, fmt.Errorf("%s has more than %d bytes: this cannot be a secret", path, maxSize)
	}
	return content, nil
}

// ReadLine gives the secret on the only line of the file, without its line end. An empty one is an error.
func ReadLine(path string) (string, error) {
	content, err := Read(path)
	if err != nil {
		return "", err
	}
	line := bytes.TrimRight(content, "\r\n")
	switch {
	case len(line) == 0:
		return "", fmt.Errorf("%s is empty: want a secret on one line", path)
	case bytes.ContainsAny(line, "\r\n\x00"):
		return "", fmt.Errorf("%s has more than one line: want a secret on one line", path)
	}
	return string(line), nil
}
