package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	maxTokens       = 1024
	maxTokenAnswer  = 64 << 10
	maxRenewalSlack = time.Minute
	// defaultLifetime is the lifetime of a token whose service names none.
	//
	// SPEC: Distribution's token authentication specification, "Token response fields": expires_in is 60 if left out.
	defaultLifetime = time.Minute
)

// challenge is what the registry asks for. The zero value asks for nothing.
type challenge struct {
	realm   *url.URL
	service string
}

// challengeBox keeps what the registry asked for last.
type challengeBox struct {
	mu    sync.Mutex
	known bool      // guarded by mu
	value challenge // guarded by mu
}

func (b *challengeBox) load() (challenge, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.value, b.known
}

func (b *challengeBox) store(value challenge) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.value, b.known = value, true
}

// learn reads the challenge of a 401. It reports whether there is one that a new token can answer.
func (c *Client) learn(header http.Header) (bool, error) {
	params, ok := parseBearer(header.Values("Www-Authenticate"))
	if !ok {
		return false, nil
	}
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Host == "" {
		return false, fault.New(fault.Transient, fault.BadAnswer, errors.New("the registry names a token service that cannot be read"))
	}
	if originOf(realm) != c.origin {
		return false, c.foreign(opToken, realm)
	}
	realm.User = nil
	c.challenge.store(challenge{realm: realm, service: params["service"]})
	return true, nil
}

// ask gives the registry's challenge, and asks for it once in the client's life.
//
// SPEC: OCI distribution specification, "Determining Support": GET /v2/ answers 200, or 401 with the challenge.
func (c *Client) ask(ctx context.Context) (challenge, error) {
	if known, ok := c.challenge.load(); ok {
		return known, nil
	}
	r := call{op: opPing, method: http.MethodGet, url: c.base.JoinPath("/v2/"), want: http.StatusOK, limit: maxErrorBody}
	a, err := c.send(ctx, r, "")
	if err != nil {
		return challenge{}, err
	}
	if a.status == http.StatusUnauthorized {
		found, err := c.learn(a.header)
		if err != nil {
			return challenge{}, fmt.Errorf("%s: %w", r.what(), err)
		}
		if !found {
			return challenge{}, fault.Newf(fault.Permanent, fault.Unauthorized, "%s: the registry offers no bearer tokens: is it a Harbor?", r.what())
		}
		known, _ := c.challenge.load()
		return known, nil
	}
	if err := c.check(r, a); err != nil {
		return challenge{}, err
	}
	c.challenge.store(challenge{})
	return challenge{}, nil
}

// fetchToken gets a token for pulling from and pushing to a repository; an empty one where the registry wants none.
//
// Harbor's token service answers 200 to a wrong secret too, with a token that carries no rights: what the token claims is
// therefore read before it is used.
func (c *Client) fetchToken(ctx context.Context, repository string) (string, time.Duration, error) {
	asked, err := c.ask(ctx)
	if err != nil || asked.realm == nil {
		return "", defaultLifetime, err
	}
	u := *asked.realm
	query := u.Query()
	query.Set("service", asked.service)
	query.Set("scope", "repository:"+repository+":pull,push")
	u.RawQuery = query.Encode()
	r := call{op: opToken, method: http.MethodGet, url: &u, repository: repository, want: http.StatusOK, limit: maxTokenAnswer}
	a, err := c.send(ctx, r, "Basic "+basicCredentials(c.username, c.secret))
	if err != nil {
		return "", 0, err
	}
	if err := c.check(r, a); err != nil {
		return "", 0, err
	}
	token, lifetime, err := readToken(a.body)
	if err != nil {
		return "", 0, fault.Newf(fault.Transient, fault.BadAnswer, "%s: %w", r.what(), err)
	}
	held, err := readClaims(token)
	if err != nil {
		return "", 0, fault.Newf(fault.Transient, fault.BadAnswer, "%s: %w", r.what(), err)
	}
	if err := c.checkRights(held, repository); err != nil {
		return "", 0, err
	}
	return token, lifetime, nil
}

// readToken reads the answer of a token service. Its errors say nothing of the content.
func readToken(body []byte) (string, time.Duration, error) {
	var t struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if json.Unmarshal(body, &t) != nil {
		return "", 0, errors.New("the token service's answer cannot be read")
	}
	token := t.Token
	if token == "" {
		token = t.AccessToken
	}
	if token == "" {
		return "", 0, errors.New("the token service's answer has no token")
	}
	lifetime := defaultLifetime
	if t.ExpiresIn > 0 {
		lifetime = time.Duration(min(t.ExpiresIn, int64(24*time.Hour/time.Second))) * time.Second
	}
	return token, lifetime, nil
}

// claims is what a Harbor token says of itself.
type claims struct {
	Subject string `json:"sub"`
	Access  []struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	} `json:"access"`
}

// readClaims reads a JSON web token without checking its signature, which is the registry's business. Its errors say
// nothing of the content.
func readClaims(token string) (claims, error) {
	var held claims
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims{}, errors.New("the token is no JSON web token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &held) != nil {
		return claims{}, errors.New("the token's claims cannot be read")
	}
	return held, nil
}

// checkRights says what is missing for attaching a signature. Pulling alone is not enough to read either: Harbor's pull
// policy lets a signer through only if it may push.
func (c *Client) checkRights(held claims, repository string) error {
	if held.Subject == "" {
		return fault.Newf(fault.Permanent, fault.Unauthorized,
			"Harbor gave a token for nobody: the name or the secret of the robot account %s is wrong, or the account is disabled or expired", c.username)
	}
	var missing []string
	for _, action := range []string{"pull", "push"} {
		if !held.allow(repository, action) {
			missing = append(missing, "repository:"+action)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fault.Newf(fault.Permanent, fault.Denied, "the robot account %s lacks %s on %s: add it to the account's permissions for this "+
		"project, if the project still exists", c.username, strings.Join(missing, " and "), repository)
}

func (h claims) allow(repository, action string) bool {
	for _, access := range h.Access {
		if access.Type == "repository" && access.Name == repository &&
			(slices.Contains(access.Actions, action) || slices.Contains(access.Actions, "*")) {
			return true
		}
	}
	return false
}

// parseBearer finds the parameters of the first Bearer challenge.
//
// SPEC: RFC 9110, section 11.2: scheme, then name=token or name="quoted string" separated by commas.
func parseBearer(values []string) (map[string]string, bool) {
	for _, value := range values {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(value), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			continue
		}
		params := make(map[string]string)
		for rest = strings.TrimLeft(rest, " ,"); rest != ""; rest = strings.TrimLeft(rest, " ,") {
			name, tail, found := strings.Cut(rest, "=")
			if !found {
				break
			}
			var v string
			v, rest = parseValue(tail, ",")
			params[strings.ToLower(strings.TrimSpace(name))] = v
		}
		return params, params["realm"] != ""
	}
	return nil, false
}

// parseValue reads a token, which ends before one of the separators, or a quoted string, and gives what follows it.
func parseValue(s, separators string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, separators)
		if end < 0 {
			end = len(s)
		}
		return strings.TrimSpace(s[:end]), s[end:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}
