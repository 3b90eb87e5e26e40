// Package harbor is the adapter for Harbor's REST API: which projects there are and who may do what in them, which manifests
// and immutability rules a project holds, what was pushed, the webhook policies of a project and how their deliveries went, how
// long the own account lives, and which Harbor it is. It deletes one artifact where it is told to, for those that push test images.
//
// Each method makes one attempt and returns a fault; [Client.Bundles], [Client.LockedBy] and [Client.ProjectID] remember
// answers. Credentials go to the configured origin alone: a redirect elsewhere is a permanent fault. No error holds a secret,
// nor a control character, not even where Harbor echoes them. What a listing leaves out, and how, is Harbor's: see
// [Client.Population].
package harbor

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/go-openapi/strfmt"
	harborapi "github.com/goharbor/go-client/pkg/sdk/v2.0/client"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/redact"
	"github.com/harborseal/harborseal/pkg/secretfile"
)

const (
	// DefaultUserAgent is what the client calls itself unless it is told otherwise.
	DefaultUserAgent = egress.DefaultUserAgent

	// maxPageSize is Harbor's: it refuses pages that are larger.
	maxPageSize = 100
)

// Limiter bounds how many requests are made. It is safe for concurrent use.
type Limiter interface {
	// Wait returns nil when the next request may go, or an error when ctx ends before that.
	Wait(ctx context.Context) error
}

// Config is what a Client needs.
type Config struct {
	// URL is Harbor's base URL, such as https://harbor.example.com.
	URL string
	// Username and SecretFile are the robot account. The file is read at New.
	Username   string
	SecretFile string
	// Timeout bounds one request; 0 stands for 30 s.
	Timeout time.Duration
	// PageSize is the number of rows in a page; 0 stands for 100, Harbor's most.
	PageSize int64
	// UserAgent is what the client calls itself; empty stands for [DefaultUserAgent].
	UserAgent string
	// Transport carries the requests and decides what is dialled and trusted. It is required.
	Transport http.RoundTripper
	// Limiter is asked before each request, those of [Client.As] too; nil is for none. The wait counts into Timeout.
	Limiter    Limiter
	Registerer prometheus.Registerer // nil for none
}

// Client talks to one Harbor. It is safe for concurrent use.
type Client struct {
	api       *harborapi.HarborAPI
	base      *url.URL
	transport *transport
	redactor  *redact.Redactor
	timeout   time.Duration
	pageSize  int64
	shared    *shared
	locks     memories[projectLocks]
	ids       memories[projectID]
}

// New validates the configuration and reads the secret; it connects to nothing.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.URL)
	switch {
	case err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" || base.User != nil:
		return nil, fmt.Errorf("harbor: url: want https://host[:port] without credentials")
	case cfg.Username == "":
		return nil, errors.New("harbor: username is required")
	case cfg.PageSize < 0 || cfg.PageSize > maxPageSize:
		return nil, fmt.Errorf("harbor: page size: want 1 to %d", maxPageSize)
	case cfg.Transport == nil:
		return nil, errors.New("harbor: transport is required")
	case strings.ContainsFunc(cfg.UserAgent, unicode.IsControl):
		return nil, errors.New("harbor: user agent: want one without control characters")
	}
	secret, err := secretfile.ReadLine(cfg.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("harbor: secret: %w", err)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.PageSize == 0 {
		cfg.PageSize = maxPageSize
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = DefaultUserAgent
	}
	credentials := base64.StdEncoding.EncodeToString([]byte(cfg.Username + ":" + secret))
	c := &Client{base: base, timeout: cfg.Timeout, pageSize: cfg.PageSize, shared: new(shared)}
	return c.over(&transport{
		next: cfg.Transport, limiter: cfg.Limiter, authorization: "Basic " + credentials, account: "the robot account " + cfg.Username,
		userAgent: cfg.UserAgent, metrics: newMetrics(cfg.Registerer),
	}, redact.New(secret, credentials)), nil
}

// As gives a client of the same Harbor that hands on somebody's Authorization header instead of the configured account; an
// empty one makes requests of nobody. It remembers nothing that this client was told, except Harbor's version, and nothing that
// it is told itself gets here. It costs next to nothing and is thrown away like any value.
func (c *Client) As(authorization string) *Client {
	transport := *c.transport
	transport.authorization, transport.account = authorization, "the account"
	return c.over(&transport, redact.New(secretsOf(authorization)...))
}

// hiding gives a client whose errors keep one more secret, for one call.
func (c *Client) hiding(secret string) *Client {
	transport := *c.transport
	return c.over(&transport, c.redactor.With(secret))
}

// over gives a client without memories, except of what is true for everybody.
func (c *Client) over(t *transport, redactor *redact.Redactor) *Client {
	t.redactor = redactor
	return &Client{
		api:  harborapi.New(harborapi.Config{URL: c.base.JoinPath(harborapi.DefaultBasePath), Transport: t}),
		base: c.base, transport: t, redactor: redactor, timeout: c.timeout, pageSize: c.pageSize, shared: c.shared,
	}
}

// secretsOf are the forms in which the secret of an Authorization header may come back.
//
// SPEC: RFC 7617, section 2: Basic credentials are the Base64 of name, colon and password.
func secretsOf(authorization string) []string {
	_, credentials, _ := strings.Cut(authorization, " ")
	credentials = strings.TrimSpace(credentials)
	secrets := []string{authorization, credentials}
	if plain, err := base64.StdEncoding.DecodeString(credentials); err == nil {
		_, password, _ := strings.Cut(string(plain), ":")
		secrets = append(secrets, string(plain), password)
	}
	return secrets
}

// userOf is the name in Basic credentials; empty if they are others.
func userOf(authorization string) string {
	user, _, _ := (&http.Request{Header: http.Header{"Authorization": {authorization}}}).BasicAuth()
	return user
}

// shared is what is true for whoever asks. All clients of one Harbor have it together.
type shared struct {
	version memory[artifact.SystemInfo]
	// oldUntil is until when it is believed that Harbor has no listing of a whole project, in Unix nanoseconds.
	oldUntil atomic.Int64
}

func (s *shared) listsProjects() bool { return time.Now().UnixNano() >= s.oldUntil.Load() }
func (s *shared) listsNoProjects()    { s.oldUntil.Store(time.Now().Add(versionAge).UnixNano()) }

// checkProject refuses what cannot be a project: a name such as ".." would lead to another path.
func checkProject(name string) error {
	if err := artifact.ValidateProject(name); err != nil {
		return fault.New(fault.Gone, fault.NotFound, err)
	}
	return nil
}

// complete refuses a page with a row that is null: the generated client hands it on as a nil pointer.
func complete[T any](rows []*T) error {
	if slices.Contains(rows, nil) {
		return fault.Newf(fault.Transient, fault.BadAnswer, "a row is null")
	}
	return nil
}

// isName says that a project is given by its name: Harbor takes an all-digit one for an id otherwise.
func isName() *bool {
	yes := true
	return &yes
}

// timeOf is a time of Harbor's, which tells milliseconds.
func timeOf(t strfmt.DateTime) time.Time { return time.Time(t).UTC().Truncate(time.Millisecond) }
