package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
)

const (
	defaultTimeout = 10 * time.Second
	// maxAtOnce bounds how many credentials are verified at the same time, and how many questions about rights are asked.
	maxAtOnce = 16
)

// Harbor is where accounts and roles are. It is safe for concurrent use, makes one attempt, and its errors are faults that
// hold no secrets.
type Harbor interface {
	// As gives Harbor as the holder of an Authorization header sees it. It connects to nothing.
	As(authorization string) Account
	// System says how Harbor logs people in, whoever asks.
	System(ctx context.Context) (artifact.SystemInfo, error)
}

// Account is Harbor as an account sees it. Wrong credentials make nobody of it, which only CurrentAccount says.
type Account interface {
	// CurrentAccount says who this is. A fault Unauthorized means nobody, or an OIDC user with the CLI secret.
	CurrentAccount(ctx context.Context) (artifact.Account, error)
	// RoleIn gives the account's role in a project: RoleNone in a public one of others. A fault Gone means that there is no
	// such project, or that the account may not see it.
	RoleIn(ctx context.Context, project string) (artifact.Role, artifact.Project, error)
	// Roles gives the account's role in each project in which it has one.
	Roles(ctx context.Context) (map[string]artifact.Role, error)
	// TokenActions gives what Harbor's token service lets the account do with a repository.
	TokenActions(ctx context.Context, repository string, want []string) ([]string, error)
}

// Config is what Access needs. All of it may be left out: then nobody is let in.
type Config struct {
	// Harbor is nil where none is configured: then API tokens alone are taken.
	Harbor Harbor
	// TokensFile is the path of the file of tokens: see [New]. Without one there are no API tokens.
	TokensFile string
	// Auditors are the names of Harbor accounts that may read everything. Robots and API tokens cannot be auditors.
	Auditors []string
	// Names gives the projects that this service knows, for API tokens that name projects by globs. nil means none.
	Names func(context.Context) ([]string, error)
	// Timeout bounds the questions to Harbor about one request; 0 means 10 s.
	Timeout    time.Duration
	Logger     zerolog.Logger
	Registerer prometheus.Registerer // nil for none
}

// Access decides. It is safe for concurrent use.
type Access struct {
	harbor   Harbor
	tokens   *tokens
	auditors []string
	names    func(context.Context) ([]string, error)
	timeout  time.Duration
	logger   zerolog.Logger
	metrics  *metrics

	keys     keys
	throttle *throttle
	// strangers are those whose credentials are being verified, and callers those who were let in: guesses do not keep the
	// latter out, nor does one of them the others.
	strangers gate
	callers   *queue

	accounts *memory[artifact.Account]
	roles    *memory[artifact.Role]
	visible  *memory[[]string] // never changed
	// tokenRights are what the token service grants.
	tokenRights *memory[bool]
	modes       *memory[string]
}

// New checks the configuration and reads the tokens. It connects to nothing.
//
// The file of tokens has one line for each:
//
//	name:sha256[:scope[:projects[:expires]]]
//
// name is for people, sha256 the SHA-256 of the token in hexadecimal. scope is read (the default) or change. projects are
// names and globs in the syntax of path.Match, separated by |; * (the default) stands for all. expires is the last day on
// which the token is good, in UTC, or a time as in RFC 3339; without it the token is good for ever. Empty lines and lines
// that begin with # are passed over. Several lines may have the same name, so that a token can be replaced without a gap. A
// token must be random, with at least 128 bits, because it is hashed only once; so made, the file holds no secret and may
// be readable by others. [NewToken] makes one, and so does:
//
//	token=hs_$(openssl rand -hex 32); echo "ci:$(printf %s "$token" | sha256sum | cut -d' ' -f1):read:team-*:2027-01-31" >> tokens
//
// The file is read again when it has changed. What cannot be read then is logged, and the tokens before it stay valid.
// Tokens that end within 14 days are logged once a day, as long as API tokens are used.
func New(cfg Config) (*Access, error) {
	switch {
	case cfg.Timeout < 0:
		return nil, errors.New("access: Timeout is negative")
	case slices.ContainsFunc(cfg.Auditors, func(name string) bool { return name == "" || strings.TrimSpace(name) != name }):
		return nil, errors.New("access: auditors: want names of Harbor accounts, without blanks around them")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	tokens, err := newTokens(cfg.TokensFile, cfg.Logger)
	if err != nil {
		return nil, fmt.Errorf("access: %w", err)
	}
	keys, err := newKeys()
	if err != nil {
		return nil, fmt.Errorf("access: %w", err)
	}
	metrics, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("access: %w", err)
	}
	return &Access{
		harbor: cfg.Harbor, tokens: tokens, auditors: slices.Clone(cfg.Auditors), names: cfg.Names, timeout: cfg.Timeout,
		logger: cfg.Logger, metrics: metrics,
		keys: keys, throttle: newThrottle(), strangers: make(gate, maxAtOnce), callers: newQueue(),
		accounts: newMemory[artifact.Account](), roles: newMemory[artifact.Role](), visible: newMemory[[]string](),
		tokenRights: newMemory[bool](), modes: newMemory[string](),
	}, nil
}

// Harbor gives the Authorization header by which Harbor knows the caller, for questions to it in the caller's name. It is
// empty for API tokens. It is a secret: it goes to the configured Harbor alone, and nothing keeps it beyond the request.
func (a *Access) Harbor(c Caller) (authorization string) {
	if c.credentials == nil {
		return ""
	}
	return c.credentials.authorization
}
