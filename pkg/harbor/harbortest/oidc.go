package harbortest

import (
	"crypto/subtle"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"time"
)

const authModeOIDC = "oidc_auth"

// Login is how a user of a Harbor with OIDC login proves who it is. The emulator has no identity provider: id tokens are
// whatever text is registered here.
type Login struct {
	// Username is made a user of Harbor, as its first login with the browser does, unless it is one.
	Username string `json:"username"`
	// IDToken is accepted as "Authorization: Bearer …" by the REST API, and by nothing else; empty is none.
	IDToken string `json:"id_token,omitempty"`
	// Expires is when the token ends; zero is never.
	Expires time.Time `json:"expires,omitzero"`
	// CLISecret is accepted with basic authentication by the registry, the token service and a few listings; empty is none.
	CLISecret string `json:"cli_secret,omitempty"`
}

var errLogin = errors.New("a login needs a username and an id token or a CLI secret")

// oidcLogin is what a user who came by OIDC has. It is replaced, never changed.
type oidcLogin struct {
	token, secret string
	expires       time.Time
}

// SetLogin registers a login, instead of what the user had before. It has no effect until the configuration's auth_mode
// is oidc_auth (PUT /configurations).
func (h *Harbor) SetLogin(l Login) error {
	if l.Username == "" || l.IDToken == "" && l.CLISecret == "" {
		return errLogin
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.state
	u := s.users[l.Username]
	if u == nil {
		now := storedNow()
		u = &user{
			id: s.next("user"), name: l.Username, email: l.Username + "@example.com", realname: l.Username,
			comment: "Onboarded via OIDC provider", created: now, updated: now,
		}
		s.users[u.name] = u
	}
	u.oidc = &oidcLogin{token: l.IDToken, secret: l.CLISecret, expires: l.Expires}
	return nil
}

// oidcMode tells whether users come by OIDC. The caller holds Harbor.mu.
func (s *state) oidcMode() bool { return s.config["auth_mode"].Value == authModeOIDC }

// byIDToken finds the user of an id token.
//
// SPEC: Harbor, src/server/middleware/security/idtoken.go: in OIDC mode, under /api, for users that were onboarded.
func (h *Harbor) byIDToken(path, raw string) *identity {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if !h.state.oidcMode() || !strings.HasPrefix(path, "/api") {
		return &identity{}
	}
	for _, u := range h.state.users {
		if u.oidc == nil || u.oidc.token == "" || subtle.ConstantTimeCompare([]byte(u.oidc.token), []byte(raw)) != 1 {
			continue
		}
		if u.oidc.expires.IsZero() || time.Now().Before(u.oidc.expires) {
			return &identity{name: u.name, user: u}
		}
	}
	return &identity{}
}

// passwordOf tells which secret a user's basic authentication needs for a request; false is none.
//
// SPEC: Harbor, src/core/auth: in OIDC mode only the built-in administrator has a password. src/server/middleware/security
// oidc_cli: the others have a CLI secret, which opens a list of paths only.
func (s *state) passwordOf(u *user, r *http.Request) (string, bool) {
	switch {
	case !s.oidcMode() || u.id == 1:
		return u.password, u.password != ""
	case u.oidc != nil && u.oidc.secret != "" && opensForCLI(r):
		return u.oidc.secret, true
	default:
		return "", false
	}
}

func opensForCLI(r *http.Request) bool {
	const projects = apiPrefix + "projects"
	path := strings.TrimSuffix(r.URL.Path, "/")
	if path == "/service/token" || strings.HasPrefix(path, "/v2") {
		return true
	}
	switch r.Method {
	case http.MethodPost:
		return path == projects
	case http.MethodGet:
		return path == projects || path == apiPrefix+"systeminfo" ||
			regexp.MustCompile(`^/api/v2\.0/projects/.*/repositories(/.*/artifacts)?$`).MatchString(path)
	case http.MethodDelete:
		return regexp.MustCompile(`^/api/v2\.0/projects/.*/repositories/.*/artifacts/.*/tags/.*$`).MatchString(path)
	default:
		return false
	}
}
