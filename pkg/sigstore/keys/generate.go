package keys

import (
	"errors"
	"fmt"
	"os"

	"github.com/sigstore/cosign/v2/pkg/cosign"
)

// Generate makes an ECDSA P-256 key and writes it as cosign does: prefix.key, encrypted with the password in a file
// (mode 0600), and prefix.pub. It never overwrites either: the error wraps [os.ErrExist] then.
//
// A crash in between leaves a private key without its public one, which can be read from it.
func Generate(prefix, passwordFile string) (PublicKey, error) {
	private, public := prefix+".key", prefix+".pub"
	for _, path := range []string{private, public} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			if err == nil {
				err = os.ErrExist
			}
			return PublicKey{}, fmt.Errorf("generating a key: %s: %w", path, err)
		}
	}
	password, err := readPassword(passwordFile)
	if err != nil {
		return PublicKey{}, fmt.Errorf("generating a key: %w", err)
	}
	defer clear(password)
	pair, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return password, nil })
	if err != nil {
		return PublicKey{}, fmt.Errorf("generating a key: %w", err)
	}
	key, err := ParsePublicKey(pair.PublicBytes)
	if err != nil {
		return PublicKey{}, fmt.Errorf("generating a key: %w", err)
	}
	if err := writeNew(private, pair.PrivateBytes, 0o600); err != nil {
		return PublicKey{}, fmt.Errorf("generating a key: %w", err)
	}
	if err := writeNew(public, key.PEM(), 0o644); err != nil {
		// Nothing was signed with the key yet: without it, the same command can be run again.
		return PublicKey{}, fmt.Errorf("generating a key: %w", errors.Join(err, os.Remove(private)))
	}
	return key, nil
}

// writeNew writes a file that must not exist, and leaves none behind if it fails.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode) //nolint:gosec // the operator names the file
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
