package api

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	maxTokensFile = 1 << 20
	maxTokenName  = 64
	wantName      = "1 to 64 of a-z, A-Z, 0-9 and . _ @ -"
	// settled is how old a change must be for the time of the file to tell it from the next one: file systems count time in
	// steps.
	settled = 2 * time.Second
)

// NewToken makes a random token of 256 bits, and its line for the file of tokens, which holds only a hash. The name says
// who will use the token.
func NewToken(name string) (token, line string, err error) {
	if !validTokenName(name) {
		return "", "", fmt.Errorf("name of a token: want %s", wantName)
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", "", fmt.Errorf("reading random bytes: %w", err)
	}
	token = "hs_" + hex.EncodeToString(raw)
	sum := sha256.Sum256([]byte(token))
	return token, name + ":" + hex.EncodeToString(sum[:]), nil
}

type hash [sha256.Size]byte

// tokens are the hashes of the tokens that are let in.
type tokens struct {
	path   string // empty lets nobody in
	logger zerolog.Logger

	mu       sync.Mutex
	hashes   []hash      // guarded by mu; replaced, never changed
	seen     os.FileInfo // guarded by mu: the file that was tried last; nil if it was missing or may still change unseen
	complain bool        // guarded by mu: whether the next failure to read is logged
}

func newTokens(path string, logger zerolog.Logger) (*tokens, error) {
	if path == "" {
		return &tokens{}, nil
	}
	t := &tokens{path: path, logger: logger, complain: true}
	if _, err := t.load(); err != nil {
		return nil, fmt.Errorf("making the API: reading the file of tokens: %w", err)
	}
	return t, nil
}

// valid says whether the token is one of the file, in a time that tells nothing about the tokens.
func (t *tokens) valid(token string) bool {
	sum := sha256.Sum256([]byte(token))
	found := 0
	for _, known := range t.current() {
		found |= subtle.ConstantTimeCompare(sum[:], known[:])
	}
	return found == 1
}

// current gives the hashes, read again if the file has changed.
func (t *tokens) current() []hash {
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
		t.logger.Info().Str("file", t.path).Int("tokens", len(t.hashes)).Msg("file of API tokens read again")
	default:
	}
	return t.hashes
}

// load reads the file if it is not the one that was read last, and says whether the hashes are others now. The caller
// holds mu, or has the only reference.
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
	hashes, err := parseTokens(content)
	if err != nil {
		return false, err
	}
	changed = !equal(hashes, t.hashes)
	t.hashes = hashes
	return changed, nil
}

func equal(a, b []hash) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
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

// parseTokens reads the lines of a file of tokens. An error names the line, never its content: somebody may have written a
// token where its hash belongs.
func parseTokens(content []byte) ([]hash, error) {
	var hashes []hash
	number := 0
	for line := range bytes.Lines(content) {
		number++
		text := strings.TrimSpace(string(line))
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		name, digest, found := strings.Cut(text, ":")
		if !found || !validTokenName(name) {
			return nil, fmt.Errorf("line %d: want name:sha256, the name with %s", number, wantName)
		}
		sum, err := hex.DecodeString(digest)
		if err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("line %d: want the SHA-256 of the token after the colon, in 64 hexadecimal digits", number)
		}
		hashes = append(hashes, hash(sum))
	}
	return hashes, nil
}

func validTokenName(name string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-"
	return name != "" && len(name) <= maxTokenName && strings.Trim(name, allowed) == ""
}

// bearer gives the token of a request. Two Authorization headers are none: nobody knows which one counts.
func bearer(header http.Header) (token string, found bool) {
	values := header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, token, found := strings.Cut(values[0], " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}
