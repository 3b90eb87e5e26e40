package queue

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// readSecret reads a password from a file that nobody but its owner may touch. One trailing line end is not part of it.
// The error names the file, never its content.
func readSecret(path string) (string, error) {
	if err := checkPrivate(path); err != nil {
		return "", err
	}
	content, err := os.ReadFile(path) //nolint:gosec // the path comes from the operator's configuration
	if err != nil {
		return "", fmt.Errorf("reading a secret: %w", err)
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if secret == "" {
		return "", fmt.Errorf("reading a secret: %s is empty", path)
	}
	if strings.ContainsAny(secret, "\r\n") {
		return "", fmt.Errorf("reading a secret: %s has more than one line", path)
	}
	return secret, nil
}

// checkPrivate refuses a file that its group or others may read or change.
func checkPrivate(path string) error {
	if path == "" {
		return errors.New("reading a secret: no file is named")
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("reading a secret: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("reading a secret: %s has mode %04o, others may access it: want 0600 or less", path, mode)
	}
	return nil
}
