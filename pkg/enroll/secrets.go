package enroll

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/harborseal/harborseal/pkg/secretfile"
)

const (
	// minMaster is the least length of a master secret, in bytes: every admin of a project can read its webhook's secret and
	// could guess a short master from it.
	minMaster = 32
	// scheme stands before the version and the hexadecimal HMAC of a webhook's secret.
	scheme = "Bearer hs1."
	// maxVersion keeps a version to a few digits.
	maxVersion = 1_000_000
)

// master is a secret from which those of the webhooks are derived.
type master []byte

// readMasters reads one master from each file.
func readMasters(paths []string) ([]master, error) {
	masters := make([]master, 0, len(paths))
	var errs []error
	for _, path := range paths {
		line, err := secretfile.ReadLine(path)
		if err == nil && len(line) < minMaster {
			err = fmt.Errorf("%s has less than %d bytes: make one with openssl rand -hex 32", path, minMaster)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("reading the master secret of webhooks: %w", err))
			continue
		}
		masters = append(masters, master(line))
	}
	return masters, errors.Join(errs...)
}

func (m master) mac(harbor string, projectID int64, version int) []byte {
	h := hmac.New(sha256.New, m)
	_, _ = fmt.Fprintf(h, "harborseal webhook\x00%s\x00%d\x00%d", harbor, projectID, version) // a hash takes everything
	return h.Sum(nil)
}

// authorization gives the value of the Authorization header that Harbor has to send. It differs between projects, because
// Harbor shows it to every admin of one, and says nothing about any other.
func (m master) authorization(harbor string, projectID int64, version int) string {
	return scheme + strconv.Itoa(version) + "." + hex.EncodeToString(m.mac(harbor, projectID, version))
}

// parseAuthorization takes a value apart. Whoever does not know the form is turned away before anything is computed.
func parseAuthorization(value string) (version int, mac []byte, ok bool) {
	rest, found := strings.CutPrefix(value, scheme)
	number, digits, separated := strings.Cut(rest, ".")
	if !found || !separated || len(digits) != 2*sha256.Size {
		return 0, nil, false
	}
	version, err := strconv.Atoi(number)
	if err != nil || version < 1 || version > maxVersion || strconv.Itoa(version) != number {
		return 0, nil, false
	}
	mac, err = hex.DecodeString(digits)
	return version, mac, err == nil
}

// version gives the version of a value that one of the masters made for the project. The work is the same whether one of them
// did or not.
func (s *Service) version(value string, projectID int64) (version int, ok bool) {
	version, got, ok := parseAuthorization(value)
	if !ok {
		return 0, false
	}
	match := 0
	for _, m := range s.masters {
		match |= subtle.ConstantTimeCompare(m.mac(s.cfg.HarborName, projectID, version), got)
	}
	return version, match == 1
}

// Accepts implements the secrets of package webhook: whether the value is the project's secret, of the version that counts,
// of the one before it while a rotation lasts, or of the next one, which nobody but this service can know: a receiver may
// learn of a rotation after Harbor. The work for an unknown project is that for one that is known.
func (s *Service) Accepts(_ context.Context, project, authorization string) (bool, error) {
	if _, _, ok := parseAuthorization(authorization); !ok {
		return false, nil
	}
	state, _, err := s.cfg.Book.State(project)
	if err != nil {
		return false, err
	}
	version, ok := s.version(authorization, state.ProjectID)
	current := state.SecretVersion
	counts := current != 0 && (version == current || version == current+1 ||
		version == state.PreviousVersion && s.cfg.Now().Before(state.PreviousUntil))
	return ok && counts, nil
}

// Has implements webhook.Secrets.
func (s *Service) Has(_ context.Context, project string) (bool, error) {
	state, _, err := s.cfg.Book.State(project)
	return state.SecretVersion != 0, err
}
