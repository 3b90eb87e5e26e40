package harbortest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	tokenIssuer   = "harbor-token-issuer"
	tokenAudience = "harbor-registry"
	tokenLife     = 1800 * time.Second
	tokenKeyBits  = 1024
)

// tokenService signs and checks registry tokens. It is safe for concurrent use.
type tokenService struct {
	key    *rsa.PrivateKey
	header string
}

func newTokenService() (*tokenService, error) {
	// The token protects nothing that matters; a small key keeps Start quick.
	key, err := rsa.GenerateKey(rand.Reader, tokenKeyBits)
	if err != nil {
		return nil, fmt.Errorf("generating the token key: %w", err)
	}
	sum := sha256.Sum256(key.N.Bytes())
	header, err := json.Marshal(map[string]string{"alg": "RS256", "kid": fmt.Sprintf("%X", sum[:6]), "typ": "JWT"})
	if err != nil {
		return nil, fmt.Errorf("encoding the token header: %w", err)
	}
	return &tokenService{key: key, header: base64.RawURLEncoding.EncodeToString(header)}, nil
}

// tokenAccess is what a token allows on one resource.
type tokenAccess struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

type tokenClaims struct {
	Issuer    string        `json:"iss"`
	Subject   string        `json:"sub,omitempty"`
	Audience  string        `json:"aud"`
	Expires   int64         `json:"exp"`
	NotBefore int64         `json:"nbf"`
	IssuedAt  int64         `json:"iat"`
	ID        string        `json:"jti"`
	Access    []tokenAccess `json:"access"`
}

func (t *tokenClaims) allows(kind, name, action string) bool {
	return slices.ContainsFunc(t.Access, func(a tokenAccess) bool {
		return a.Type == kind && a.Name == name && (slices.Contains(a.Actions, action) || slices.Contains(a.Actions, "*"))
	})
}

func (s *tokenService) sign(claims *tokenClaims) (string, error) {
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding the claims: %w", err)
	}
	signed := s.header + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, s.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("signing the token: %w", err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

var errToken = errors.New("not a token of this service")

func (s *tokenService) verify(raw string) (*tokenClaims, error) {
	signed, encoded, found := cutLast(raw, ".")
	header, body, two := strings.Cut(signed, ".")
	if !found || !two || header != s.header {
		return nil, errToken
	}
	signature, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errToken
	}
	sum := sha256.Sum256([]byte(signed))
	if err := rsa.VerifyPKCS1v15(&s.key.PublicKey, crypto.SHA256, sum[:], signature); err != nil {
		return nil, errToken
	}
	claims := new(tokenClaims)
	decoded, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return nil, errToken
	}
	if err := json.Unmarshal(decoded, claims); err != nil {
		return nil, errToken
	}
	if time.Now().Unix() >= claims.Expires {
		return nil, errToken
	}
	return claims, nil
}

// cutLast slices s around the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	if at := strings.LastIndex(s, sep); at >= 0 {
		return s[:at], s[at+len(sep):], true
	}
	return s, "", false
}

// serveToken answers the token service. It is generous: wrong credentials and missing rights give a token, too, only
// one that allows nothing.
func (c *call) serveToken() {
	if c.r.Method != http.MethodGet {
		http.Error(c.w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	if service := c.r.URL.Query().Get("service"); service != tokenAudience {
		c.fail(errBadRequest("unable to handle service: %s", service))
		return
	}
	now := storedNow()
	claims := &tokenClaims{
		Issuer: tokenIssuer, Subject: c.who.name, Audience: tokenAudience, IssuedAt: now.Unix(), NotBefore: now.Unix(),
		Expires: now.Add(tokenLife).Unix(), ID: newSecret(16), Access: []tokenAccess{},
	}
	for _, scopes := range c.r.URL.Query()["scope"] {
		for scope := range strings.FieldsSeq(scopes) {
			if a, ok := c.grant(scope); ok {
				claims.Access = append(claims.Access, a)
			}
		}
	}
	signed, err := c.h.tokens.sign(claims)
	if err != nil {
		c.fail(err)
		return
	}
	body, err := json.Marshal(struct { //nolint:gosec // handing out tokens is what a token service does
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
		IssuedAt    string `json:"issued_at"`
	}{signed, "", int(tokenLife.Seconds()), now.Format(time.RFC3339)})
	if err != nil {
		c.fail(fmt.Errorf("encoding the token: %w", err))
		return
	}
	c.w.Header().Set("Content-Type", "application/json; charset=utf-8")
	c.write(body)
}

// grant turns a scope, as repository:demo/app:pull, into what the caller may do there: all of it, not only what the
// scope asks for.
func (c *call) grant(scope string) (tokenAccess, bool) {
	kind, rest, ok := strings.Cut(scope, ":")
	name, _, found := cutLast(rest, ":")
	if !ok || !found {
		return tokenAccess{}, false
	}
	out := tokenAccess{Type: kind, Name: name, Actions: []string{}}
	c.h.mu.RLock()
	defer c.h.mu.RUnlock()
	switch kind {
	case "repository":
		projectName, _, _ := strings.Cut(name, "/")
		p := c.h.state.projects[projectName]
		if p == nil {
			return out, true
		}
		for _, action := range []string{"pull", "push", "delete"} {
			if c.who.can(p, "repository", action) {
				out.Actions = append(out.Actions, action)
			}
		}
	case "registry":
		if c.who.canSystem("catalog", "read") {
			out.Actions = append(out.Actions, "*")
		}
	}
	return out, true
}
