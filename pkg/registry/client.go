// Package registry is a thin client for the OCI registry of one Harbor: it reads manifests and blobs, lists what refers to
// a manifest, and attaches what signing produces.
//
// It guarantees:
//   - One attempt for each call. Nothing is repeated but a request whose token was refused, once, with a new token; and
//     each error carries its fault kind (package fault). All statuses are judged in one place (faults.go).
//   - "Absent" and "none" are only said when the registry said so in its own words. An answer that cannot be understood,
//     such as a proxy's page, is a transient fault.
//   - Credentials, tokens and content go to the configured origin alone. A token service, a redirect or an upload
//     location elsewhere is a permanent fault; only blobs are read from the object storage as well, if it is configured,
//     without credentials.
//   - What is read is bounded in size, and what is read by digest hashes to it.
//   - No secret, token or header is ever part of an error or a log line, not even where the other side echoes them.
//
// It assumes that TLS, not this package, authenticates the registry: the claims of a token are read to say early and
// clearly which right is missing; its signature is the registry's to check.
//
// It does not retry, follow tags, cache content, or know what a signature is.
package registry

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/redact"
	"github.com/harborseal/harborseal/pkg/secretfile"
)

const (
	// DefaultUserAgent is what the client calls itself unless it is told otherwise.
	DefaultUserAgent = egress.DefaultUserAgent
	// DefaultTimeout bounds one request, its answer's body included.
	DefaultTimeout = 30 * time.Second

	maxRedirects = 5
)

// Config says which registry is talked to, and as whom.
type Config struct {
	// URL is the base address of Harbor, such as "https://harbor.example.com": the only origin that is ever dialled.
	URL string
	// StorageOrigins are where blobs may be redirected to, such as "https://bucket.s3.example.com": the object storage of a
	// Harbor that does not answer for it. They get no credentials.
	StorageOrigins []string
	// Username is the name of the robot account, such as "robot$harborseal".
	Username string
	// SecretFile holds the robot account's secret; a line break at its end is ignored. Only its owner may be able to read it.
	// It is read once.
	SecretFile string
	// UserAgent must contain "cosign" in lower case; empty is [DefaultUserAgent].
	UserAgent string
	// Timeout bounds one request, its answer's body included; 0 is [DefaultTimeout].
	Timeout time.Duration
	// Transport carries the requests and decides what is dialled and trusted. It should keep as many connections open as
	// there are digests in work at a time. It is required.
	Transport http.RoundTripper
	// Logger gets one line for each request at debug level. The zero value is silent.
	Logger zerolog.Logger
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Client talks to one registry. Its methods are safe for concurrent use.
type Client struct {
	base      *url.URL
	origin    origin
	storage   []origin
	username  string
	secret    string
	userAgent string
	timeout   time.Duration
	redactor  *redact.Redactor
	transport http.RoundTripper
	log       zerolog.Logger
	metrics   *metrics
	challenge challengeBox
	tokens    *tokenCache
}

// New validates the configuration, reports all that is wrong with it at once, and reads the secret. It sends nothing.
func New(cfg Config) (*Client, error) {
	c := &Client{username: cfg.Username, userAgent: cfg.UserAgent, timeout: cfg.Timeout, log: cfg.Logger}
	if c.userAgent == "" {
		c.userAgent = DefaultUserAgent
	}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	var errs []error
	collect := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	c.base, err = parseBase(cfg.URL)
	collect(err)
	c.secret, err = readSecret(cfg.SecretFile)
	collect(err)
	for _, raw := range cfg.StorageOrigins {
		storage, err := parseBase(raw)
		if err != nil {
			errs = append(errs, fmt.Errorf("storage origin: %w", err))
			continue
		}
		c.storage = append(c.storage, originOf(storage))
	}
	if cfg.Transport == nil {
		errs = append(errs, errors.New("registry transport is not set"))
	}
	if cfg.Username == "" || strings.ContainsFunc(cfg.Username, func(r rune) bool { return r <= ' ' || r == ':' || r == 0x7f }) {
		errs = append(errs, errors.New("registry user name: want one without colons and blanks, such as robot$harborseal"))
	}
	if !strings.Contains(c.userAgent, "cosign") || strings.ContainsFunc(c.userAgent, unicode.IsControl) {
		errs = append(errs, fmt.Errorf("registry user agent %.64q: it must contain cosign in lower case, or Harbor's pull policy refuses the signer",
			c.userAgent))
	}
	if c.timeout < 0 {
		errs = append(errs, fmt.Errorf("registry timeout %s is negative", c.timeout))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if c.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("registering the registry metrics: %w", err)
	}
	c.origin = originOf(c.base)
	c.tokens = newTokenCache(c.fetchToken)
	c.redactor = redact.New(c.secret, basicCredentials(c.username, c.secret))
	c.transport = cfg.Transport
	return c, nil
}

func parseBase(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		// The error of url.Parse repeats the input, which may hold a password.
		return nil, errors.New("registry URL cannot be read: want https://host or https://host:port")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		return nil, errors.New("registry URL: want https://host or https://host:port")
	case u.User != nil:
		return nil, errors.New("registry URL must not carry credentials: they belong into the secret file")
	case strings.Trim(u.Path, "/") != "", u.RawQuery != "", u.Fragment != "":
		return nil, fmt.Errorf("registry URL: want no path, query or fragment behind %s://%s", u.Scheme, u.Host)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}, nil
}

func readSecret(path string) (string, error) {
	if path == "" {
		return "", errors.New("registry secret file is not set")
	}
	secret, err := secretfile.ReadLine(path)
	if err != nil {
		return "", fmt.Errorf("registry secret file: %w", err)
	}
	return secret, nil
}

// origin is what may get credentials: scheme, host and port.
type origin struct{ scheme, host, port string }

func originOf(u *url.URL) origin {
	o := origin{scheme: strings.ToLower(u.Scheme), host: strings.ToLower(u.Hostname()), port: u.Port()}
	switch {
	case o.port != "":
	case o.scheme == "https":
		o.port = "443"
	case o.scheme == "http":
		o.port = "80"
	}
	return o
}

// String leaves out path and query, which may carry signed secrets of a storage service.
func (o origin) String() string { return o.scheme + "://" + net.JoinHostPort(o.host, o.port) }
