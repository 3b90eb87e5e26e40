package access

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxHeader is above what any id token needs, in bytes; Harbor's own limit is lower where a proxy stands in front of it.
const maxHeader = 16 << 10

// credentials are those of one request. Nothing keeps them beyond it.
type credentials struct {
	// authorization is the header in one form, whatever the caller's spelling.
	authorization string
	// account is the name in Basic credentials; empty for a bearer.
	account string
	// token is a bearer's: an API token or an id token.
	token string
}

// parseCredentials reads the Authorization header. Two of them are none: nobody knows which one counts. The error wraps
// ErrUnauthenticated and repeats nothing of the header.
func parseCredentials(header http.Header) (*credentials, error) {
	values := header.Values("Authorization")
	switch {
	case len(values) == 0:
		return nil, ErrNoCredentials
	case len(values) > 1:
		return nil, unreadable("there is more than one header Authorization")
	case len(values[0]) > maxHeader:
		return nil, unreadable("the header Authorization is too long")
	}
	scheme, rest, _ := strings.Cut(values[0], " ")
	rest = strings.TrimSpace(rest)
	switch {
	case strings.EqualFold(scheme, "Basic"):
		return parseBasic(rest)
	case strings.EqualFold(scheme, "Bearer"):
		return parseBearer(rest)
	default:
		return nil, unreadable("want Authorization: Basic or Authorization: Bearer")
	}
}

// SPEC: RFC 7617, section 2. The user-id holds no colon, and neither it nor the password holds control characters.
func parseBasic(encoded string) (*credentials, error) {
	decoded, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, unreadable("the Basic credentials are not in Base64")
	}
	account, secret, found := strings.Cut(string(decoded), ":")
	switch {
	case !found || account == "":
		return nil, unreadable("the Basic credentials want name:password")
	case secret == "":
		// A directory behind Harbor may take an empty password for an anonymous login, which always succeeds.
		return nil, unreadable("the Basic credentials have no password")
	case !utf8.Valid(decoded) || strings.ContainsFunc(string(decoded), unicode.IsControl):
		return nil, unreadable("the Basic credentials hold control characters or are not in UTF-8")
	}
	return &credentials{authorization: "Basic " + base64.StdEncoding.EncodeToString(decoded), account: account}, nil
}

func parseBearer(token string) (*credentials, error) {
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, unreadable("want one token after Bearer")
	}
	return &credentials{authorization: "Bearer " + token, token: token}, nil
}

func unreadable(why string) error { return fmt.Errorf("%w: %s", ErrUnauthenticated, why) }

// key stands for something secret or long in a memory.
type key [sha256.Size]byte

// keys makes them, under a key of this process alone: what a memory holds is of no use to who reads it.
type keys struct{ secret []byte }

func newKeys() (keys, error) {
	k := keys{secret: make([]byte, sha256.Size)}
	if _, err := rand.Read(k.secret); err != nil {
		return keys{}, fmt.Errorf("reading random bytes: %w", err)
	}
	return k, nil
}

// of gives the key of some parts. Parts are length-prefixed: ("a", "bc") and ("ab", "c") differ.
func (k keys) of(parts ...string) key {
	mac := hmac.New(sha256.New, k.secret)
	for _, part := range parts {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		mac.Write(length[:])
		mac.Write([]byte(part))
	}
	return key(mac.Sum(nil))
}
