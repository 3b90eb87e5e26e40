package fulcio

import (
	"crypto/x509"
	"time"
)

// TokenExpiry reads a token's end.
func TokenExpiry(raw string) (time.Time, error) {
	t, err := parseToken(raw)
	return t.expires, err
}

// ParseAnswer reads the certificates of an answer.
func ParseAnswer(answer []byte) ([]*x509.Certificate, error) { return parseAnswer(answer) }
