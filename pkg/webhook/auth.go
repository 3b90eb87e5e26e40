package webhook

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/secretfile"
)

// authenticator compares Authorization headers with the values in the secret files, which count for all projects, and with
// the project's own secrets.
//
// The files are looked at on each use and read again when they changed, so a new secret counts from the next request on.
// With two files configured, the new value is put into one while the other still holds the old one, and no delivery is
// refused meanwhile. Safe for concurrent use.
type authenticator struct {
	own    Secrets // nil if there are none
	logger zerolog.Logger

	mu      sync.Mutex
	secrets []*secret // the entries' fields too are guarded by mu
}

// secret is the content of one file. The value itself is not kept.
type secret struct {
	path string
	hash [sha256.Size]byte
	seen fs.FileInfo // the file just before it was last read with success
	// failing says that the last look failed; hash is the last good one then. It keeps the log to one line for each change.
	failing bool
}

func newAuthenticator(paths []string, own Secrets, logger zerolog.Logger) (*authenticator, error) {
	if len(paths) == 0 && own == nil {
		return nil, errors.New("no webhook secret file is configured: nobody could be let in")
	}
	a := &authenticator{own: own, logger: logger}
	var errs []error
	for _, path := range paths {
		s := &secret{path: path}
		if err := s.refresh(); err != nil {
			errs = append(errs, fmt.Errorf("reading the webhook secret: %w", err))
		}
		a.secrets = append(a.secrets, s)
	}
	return a, errors.Join(errs...)
}

// allows says whether the request carries exactly one Authorization header with one of the values. Hashes of equal length
// are compared, each in constant time and all of them, so that the time tells neither how much of a value was right, nor
// its length, nor which file it matched. What a file holds counts for projects without a secret of their own.
func (a *authenticator) allows(ctx context.Context, project string, header http.Header) (bool, error) {
	values := header.Values("Authorization")
	if len(values) != 1 {
		return false, nil
	}
	got := sha256.Sum256([]byte(values[0]))
	match := 0
	for _, want := range a.hashes() {
		match |= subtle.ConstantTimeCompare(got[:], want[:])
	}
	switch {
	case a.own == nil:
		return match == 1, nil
	case match == 1:
		has, err := a.own.Has(ctx, project)
		return !has && err == nil, err
	default:
		return a.own.Accepts(ctx, project, values[0])
	}
}

// hashes gives the hashes that count now.
func (a *authenticator) hashes() [][sha256.Size]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	hashes := make([][sha256.Size]byte, len(a.secrets))
	for i, s := range a.secrets {
		before := s.hash
		err := s.refresh()
		switch {
		case err != nil && !s.failing:
			a.logger.Error().Err(err).Str("file", s.path).Msg("webhook secret cannot be read, the last good one still counts")
		case err == nil && s.hash != before:
			a.logger.Info().Str("file", s.path).Msg("webhook secret was read again")
		}
		s.failing = err != nil
		hashes[i] = s.hash
	}
	return hashes
}

// refresh reads the file if it is another one than at the last look, or if that look failed. After an error the hash is
// what it was.
func (s *secret) refresh() error {
	info, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	if !s.failing && s.seen != nil && os.SameFile(s.seen, info) && s.seen.ModTime().Equal(info.ModTime()) && s.seen.Size() == info.Size() {
		return nil
	}
	line, err := secretfile.ReadLine(s.path)
	if err != nil {
		return err
	}
	// HTTP takes the white space around a header's value away, so it cannot be part of the secret.
	value := strings.TrimSpace(line)
	if value == "" {
		return fmt.Errorf("%s holds only white space: want the value of an Authorization header", s.path)
	}
	s.hash, s.seen = sha256.Sum256([]byte(value)), info
	return nil
}
