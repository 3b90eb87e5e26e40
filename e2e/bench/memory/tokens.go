package memory

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

const tokenPath = "/service/token"

// tokens hands out bearer tokens and knows them again. They are JSON web tokens in form, as Harbor's clients read claims
// in them, but what makes one valid is that it was handed out here.
type tokens struct {
	username, secret string

	mu    sync.RWMutex
	given map[string][]string // guarded by mu; repositories by token
}

func newTokens(username, secret string) *tokens {
	return &tokens{username: username, secret: secret, given: make(map[string][]string)}
}

// serve answers a request for a token. Like Harbor it gives everybody one: a wrong password gets one without rights.
func (t *tokens) serve(w http.ResponseWriter, req *http.Request) {
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	claims := struct {
		Subject string   `json:"sub"`
		Access  []access `json:"access"`
		ID      string   `json:"jti"`
	}{Access: []access{}, ID: rand.Text()}
	var repositories []string
	if username, secret, ok := req.BasicAuth(); ok && username == t.username && secret == t.secret {
		claims.Subject = username
		for _, scope := range req.URL.Query()["scope"] {
			kind, rest, _ := strings.Cut(scope, ":")
			at := strings.LastIndex(rest, ":")
			if kind != "repository" || at < 0 {
				continue
			}
			repositories = append(repositories, rest[:at])
			claims.Access = append(claims.Access, access{Type: kind, Name: rest[:at], Actions: strings.Split(rest[at+1:], ",")})
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		fail(w, http.StatusInternalServerError, "UNKNOWN", "the token cannot be written")
		return
	}
	encode := base64.RawURLEncoding.EncodeToString
	token := encode([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + encode(payload) + "." + encode([]byte(claims.ID))
	t.mu.Lock()
	t.given[token] = repositories
	t.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"token":%q,"expires_in":1800}`, token) // the client has gone
}

// allow says whether a request may do what it wants with a repository; none is the greeting, which any token may ask for.
func (t *tokens) allow(req *http.Request, repository string) bool {
	token, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	t.mu.RLock()
	defer t.mu.RUnlock()
	repositories, known := t.given[token]
	return known && (repository == "" || slices.Contains(repositories, repository))
}
