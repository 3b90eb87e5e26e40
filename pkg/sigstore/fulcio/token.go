package fulcio

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

// maxToken bounds a token, in bytes.
const maxToken = 64 << 10

// token is an OpenID Connect token. Only Fulcio can say whether it is good for something.
type token struct {
	raw     string
	expires time.Time
}

// validToken reads the token. One that is missing or expired is IdentityMissing.
func (i *Identity) validToken() (token, error) {
	t, err := readToken(i.tokenFile)
	if err != nil {
		return token{}, fault.Newf(fault.Transient, fault.IdentityMissing, "reading the identity token: %w", err)
	}
	if now := i.now(); !now.Before(t.expires) {
		return token{}, fault.Newf(fault.Transient, fault.IdentityMissing, "the identity token in %s has expired %s ago: whatever writes it must replace it in time",
			i.tokenFile, now.Sub(t.expires).Round(time.Second))
	}
	return t, nil
}

// readToken reads a token whoever else may read its file: it lives for minutes, and Kubernetes itself writes it with mode 0644
// or 0640 unless all of a pod runs as one user.
//
// SPEC: Kubernetes, Configure Service Accounts for Pods, "ServiceAccount token volume projection".
func readToken(path string) (token, error) {
	f, err := os.Open(path) //nolint:gosec // the path is the operator's configuration
	if err != nil {
		return token{}, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	content, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	switch {
	case err != nil:
		return token{}, fmt.Errorf("reading %s: %w", path, err)
	case len(content) > maxToken:
		return token{}, fmt.Errorf("%s has more than %d bytes: this cannot be a token", path, maxToken)
	}
	t, err := parseToken(strings.TrimSpace(string(content)))
	if err != nil {
		return token{}, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// parseToken reads what the token says of its end. Its errors hold nothing of it.
//
// SPEC: RFC 7519, sections 3 and 4.1.4; RFC 7515, section 7.1.
func parseToken(raw string) (token, error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return token{}, errors.New("want a signed JSON web token, three parts with dots between")
	}
	for _, part := range parts {
		// The decoder passes over line breaks; a header has none.
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); err != nil || part == "" || strings.ContainsAny(part, "\r\n") {
			return token{}, errors.New("want a signed JSON web token: a part of it is not Base64")
		}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return token{}, errors.New("want a signed JSON web token: its claims are not Base64")
	}
	var claims struct {
		Expires *float64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return token{}, errors.New("want a signed JSON web token: its claims cannot be read")
	}
	if claims.Expires == nil || !(*claims.Expires > 0 && *claims.Expires < math.MaxInt32*100) {
		return token{}, errors.New("the token does not say when it expires: the claim exp is missing")
	}
	return token{raw: raw, expires: time.Unix(int64(*claims.Expires), 0).UTC()}, nil
}
