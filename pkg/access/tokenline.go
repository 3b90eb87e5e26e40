package access

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// The scopes of tokens in their file.
const (
	scopeRead   = "read"
	scopeChange = "change"
)

// parseTokens reads the lines of a file of tokens. An error names the line, never its content: somebody may have written a
// token where its hash belongs.
func parseTokens(content []byte) ([]*grant, error) {
	var grants []*grant
	number := 0
	for line := range bytes.Lines(content) {
		number++
		text := strings.TrimSpace(string(line))
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		g, err := parseToken(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		grants = append(grants, g)
	}
	return grants, nil
}

// parseToken reads name:sha256[:scope[:projects[:expires]]]. The last field may hold colons.
func parseToken(text string) (*grant, error) {
	fields := strings.SplitN(text, ":", 5)
	if len(fields) < 2 || !validTokenName(fields[0]) {
		return nil, fmt.Errorf("want name:sha256, the name with %s", wantName)
	}
	sum, err := hex.DecodeString(fields[1])
	if err != nil || len(sum) != sha256.Size {
		return nil, errors.New("want the SHA-256 of the token after the first colon, in 64 hexadecimal digits")
	}
	g := &grant{name: fields[0], hash: hash(sum), projects: []string{"*"}}
	if len(fields) > 2 {
		switch fields[2] {
		case scopeRead:
		case scopeChange:
			g.change = true
		default:
			return nil, fmt.Errorf("want the scope %s or %s after the second colon", scopeRead, scopeChange)
		}
	}
	if len(fields) > 3 {
		if g.projects, err = parseGlobs(fields[3]); err != nil {
			return nil, err
		}
	}
	if len(fields) > 4 {
		if g.expires, err = parseExpires(fields[4]); err != nil {
			return nil, err
		}
	}
	return g, nil
}

func parseGlobs(text string) ([]string, error) {
	globs := strings.Split(text, "|")
	for _, glob := range globs {
		if _, err := path.Match(glob, "x"); err != nil || glob == "" || strings.ContainsAny(glob, " \t/") {
			return nil, errors.New("want projects after the third colon: names and globs such as team-*, separated by |, or * for all")
		}
	}
	return globs, nil
}

// parseExpires reads a day, which is the last one in UTC on which the token is good, or a time.
func parseExpires(text string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.IsZero() {
		return time.Time{}, errors.New("want the last day, such as 2026-01-31, or a time, such as 2026-01-31T12:00:00Z, after the fourth colon")
	}
	return at, nil
}

func validTokenName(name string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-"
	return name != "" && len(name) <= maxTokenName && strings.Trim(name, allowed) == ""
}
