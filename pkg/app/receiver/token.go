package receiver

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
)

// NewToken makes a random token of 256 bits for the report's API, and its line for the file of tokens, which holds only
// a hash.
func NewToken(name string) (token, line string, err error) {
	if !regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`).MatchString(name) {
		return "", "", fmt.Errorf("--name: want 1 to 64 letters, digits and . _ @ - that say who will use the token")
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", "", fmt.Errorf("reading random bytes: %w", err)
	}
	token = "hs_" + hex.EncodeToString(raw)
	sum := sha256.Sum256([]byte(token))
	return token, name + ":" + hex.EncodeToString(sum[:]), nil
}
