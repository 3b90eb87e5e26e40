package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	tokenPrefix   = "hs_"
	maxTokensFile = 1 << 20
	maxTokenName  = 64
	wantName      = "1 to 64 of a-z, A-Z, 0-9 and . _ @ -"
	// settled is how old a change must be for the time of the file to tell it from the next one: file systems count time in
	// steps.
	settled = 2 * time.Second
	// warnBefore is how long before its time a token is warned about, and warnEvery how often.
	warnBefore = 14 * 24 * time.Hour
	warnEvery  = 24 * time.Hour
)

// NewToken makes a random token of 256 bits, and its line for the file of tokens, which holds only a hash. The name says
// who will use the token. The line lets it read everything, for ever: fields may be added to it, see [New].
func NewToken(name string) (token, line string, err error) {
	if !validTokenName(name) {
		return "", "", fmt.Errorf("name of a token: want %s", wantName)
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", "", fmt.Errorf("reading random bytes: %w", err)
	}
	token = tokenPrefix + hex.EncodeToString(raw)
	sum := sha256.Sum256([]byte(token))
	return token, name + ":" + hex.EncodeToString(sum[:]), nil
}

type hash [sha256.Size]byte

// tokens are the tokens that are let in.
type tokens struct {
	path   string // empty lets nobody in
	logger zerolog.Logger

	mu       sync.Mutex
	grants   []*grant    // guarded by mu; replaced, never changed
	seen     os.FileInfo // guarded by mu: the file that was tried last; nil if it was missing or may still change unseen
	complain bool        // guarded by mu: whether the next failure to read is logged
	warned   time.Time   // guarded by mu: when the tokens that end soon were logged last
}

func newTokens(path string, logger zerolog.Logger) (*tokens, error) {
	if path == "" {
		return &tokens{}, nil
	}
	t := &tokens{path: path, logger: logger, complain: true}
	if _, err := t.load(); err != nil {
		return nil, fmt.Errorf("reading the file of tokens: %w", err)
	}
	t.warn(time.Now())
	return t, nil
}

// find gives what the token allows, in a time that tells nothing about the tokens; nil if it is none of the file. Of several
// lines with one hash the first counts whose time has not come. The error says that the time of all has come, and wraps
// ErrUnauthenticated.
func (t *tokens) find(token string) (*grant, error) {
	sum := sha256.Sum256([]byte(token))
	now := time.Now()
	var matching []*grant
	for _, g := range t.current(now) {
		if subtle.ConstantTimeCompare(sum[:], g.hash[:]) == 1 {
			matching = append(matching, g)
		}
	}
	if len(matching) == 0 {
		return nil, nil //nolint:nilnil // not to be found is no error: the bearer may be an id token
	}
	if at := slices.IndexFunc(matching, func(g *grant) bool { return !g.expired(now) }); at >= 0 {
		return matching[at], nil
	}
	last := matching[len(matching)-1]
	return nil, fmt.Errorf("%w: the token %s has expired at %s: ask for another one", ErrUnauthenticated, last.name, last.expires.UTC().Format(time.RFC3339))
}

// current gives the grants, read again if the file has changed.
func (t *tokens) current(now time.Time) []*grant {
	if t.path == "" {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	changed, err := t.load()
	switch {
	case err != nil && t.complain:
		// Better the tokens of before than none: a slip of an editor must not lock the auditors out.
		t.complain = false
		t.logger.Error().Err(err).Str("file", t.path).Msg("file of API tokens cannot be read; the tokens of before stay valid")
	case err == nil && changed:
		t.complain = true
		t.logger.Info().Str("file", t.path).Int("tokens", len(t.grants)).Msg("file of API tokens read again")
	default:
	}
	if changed || now.Sub(t.warned) >= warnEvery {
		t.warn(now)
	}
	return t.grants
}

// warn logs the tokens that end soon or have ended. The caller holds mu, or has the only reference.
func (t *tokens) warn(now time.Time) {
	t.warned = now
	for _, g := range t.grants {
		switch {
		case g.expires.IsZero() || now.Before(g.expires.Add(-warnBefore)):
		case g.expired(now):
			t.logger.Warn().Str("token", g.name).Time("expires_at", g.expires).Msg("API token has expired: take its line out of the file, or replace it")
		default:
			t.logger.Warn().Str("token", g.name).Time("expires_at", g.expires).Msg("API token expires soon: replace it")
		}
	}
}

// load reads the file if it is not the one that was read last, and says whether the grants are others now. The caller holds
// mu, or has the only reference.
func (t *tokens) load() (changed bool, err error) {
	info, err := os.Stat(t.path)
	if err != nil {
		t.seen = nil
		return false, err
	}
	if t.seen != nil && os.SameFile(info, t.seen) && info.Size() == t.seen.Size() && info.ModTime().Equal(t.seen.ModTime()) {
		return false, nil
	}
	t.seen = nil
	content, err := readAtMost(t.path, maxTokensFile)
	if err != nil {
		return false, err
	}
	if time.Since(info.ModTime()) > settled {
		t.seen = info
	}
	grants, err := parseTokens(content)
	if err != nil {
		return false, err
	}
	changed = !slices.EqualFunc(grants, t.grants, same)
	t.grants = grants
	return changed, nil
}

func same(a, b *grant) bool {
	return a.name == b.name && a.hash == b.hash && a.change == b.change && slices.Equal(a.projects, b.projects) && a.expires.Equal(b.expires)
}

func readAtMost(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // the path is the operator's
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	content, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("the file has more than %d bytes", limit)
	}
	return content, nil
}
