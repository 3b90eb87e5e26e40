// Package registry is a thin client for the OCI registry of one Harbor: it reads manifests and blobs, and attaches what
// signing produces.
//
// It guarantees:
//   - One attempt for each call. Nothing is repeated but a request whose token was refused, once, with a new token; and
//     each error carries its fault kind (package fault). All statuses are judged in one place (faults.go).
//   - "Absent" is only said when the registry said so in its own words. An answer that cannot be understood, such as a
//     proxy's 404 page, is a transient fault.
//   - Credentials, tokens and content go to the configured origin alone. A token service, a redirect or an upload
//     location elsewhere is a permanent fault.
//   - What is read is bounded in size, and what is read by digest hashes to it.
//   - No secret, token or header is ever part of an error or a log line, not even where the other side echoes them.
//
// It assumes that TLS, not this package, authenticates the registry: the claims of a token are read to say early and
// clearly which right is missing; its signature is the registry's to check.
//
// It does not retry, follow tags, cache content, or know what a signature is.
package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/net/http/httpproxy"
)

const (
	// DefaultUserAgent is what the client calls itself unless it is told otherwise.
	DefaultUserAgent = "harborseal (cosign-compatible)"
	// DefaultTimeout bounds one request, its answer's body included.
	DefaultTimeout = 30 * time.Second

	maxSecretFile = 64 << 10
	maxRedirects  = 5
	// idleConnections is how many connections are kept open; a signer works on some dozens of digests at a time.
	idleConnections = 64
)

// Config says which registry is talked to, and as whom.
type Config struct {
	// URL is the base address of Harbor, such as "https://harbor.example.com": the only origin that is ever dialled.
	URL string
	// Username is the name of the robot account, such as "robot$harborseal".
	Username string
	// SecretFile holds the robot account's secret; a line break at its end is ignored. Others must not be able to read it.
	// It is read once.
	SecretFile string
	// CAFile holds PEM certificates that are trusted besides the system's; empty for none.
	CAFile string
	// UserAgent must contain "cosign" in lower case; empty is [DefaultUserAgent].
	UserAgent string
	// Timeout bounds one request, its answer's body included; 0 is [DefaultTimeout].
	Timeout time.Duration
	// DialContext opens connections; nil is the network.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// Logger gets one line for each request at debug level. The zero value is silent.
	Logger zerolog.Logger
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Client talks to one registry. Its methods are safe for concurrent use.
type Client struct {
	base      *url.URL
	origin    origin
	username  string
	secret    string
	userAgent string
	timeout   time.Duration
	transport *http.Transport
	http      *http.Client
	log       zerolog.Logger
	metrics   *metrics
	challenge challengeBox
	tokens    *tokenCache
}

// New validates the configuration, reports all that is wrong with it at once, and reads the secret. It sends nothing.
// Proxies are taken from the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY).
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
	roots, err := readRoots(cfg.CAFile)
	collect(err)
	if cfg.Username == "" || strings.ContainsFunc(cfg.Username, func(r rune) bool { return r <= ' ' || r == ':' || r == 0x7f }) {
		errs = append(errs, errors.New("registry user name: want one without colons and blanks, such as robot$harborseal"))
	}
	if !strings.Contains(c.userAgent, "cosign") || strings.ContainsFunc(c.userAgent, isControl) {
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
	c.transport = newTransport(cfg.DialContext, roots, c.timeout)
	c.http = &http.Client{Transport: c.transport, CheckRedirect: c.checkRedirect}
	return c, nil
}

// Close closes the connections that are idle. The client can still be used.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

func newTransport(dial func(ctx context.Context, network, addr string) (net.Conn, error), roots *x509.CertPool, timeout time.Duration) *http.Transport {
	if dial == nil {
		dial = (&net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}).DialContext
	}
	proxy := httpproxy.FromEnvironment().ProxyFunc()
	return &http.Transport{
		Proxy:               func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
		DialContext:         dial,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout: timeout,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        idleConnections,
		MaxIdleConnsPerHost: idleConnections,
		IdleConnTimeout:     90 * time.Second,
		// Digests are those of the bytes on the wire, and a small compressed answer must not become a huge one.
		DisableCompression: true,
	}
}

// checkRedirect follows reads within the origin alone. Any other redirect is handed to the caller as the answer, which
// the table of statuses turns into a fault.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	if via[0].Method != http.MethodGet || len(via) > maxRedirects || originOf(req.URL) != c.origin {
		return http.ErrUseLastResponse
	}
	return nil
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

// readSecret never puts content into an error.
func readSecret(path string) (string, error) {
	if path == "" {
		return "", errors.New("registry secret file is not set")
	}
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return "", fmt.Errorf("opening the registry secret: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the registry secret: %w", err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("registry secret %s is not a file", path)
	case info.Mode().Perm()&0o007 != 0:
		return "", fmt.Errorf("registry secret %s may be used by everybody (mode %04o): run chmod 600 %s", path, info.Mode().Perm(), path)
	case info.Size() > maxSecretFile:
		return "", fmt.Errorf("registry secret %s has %d bytes: is it the right file?", path, info.Size())
	}
	content, err := os.ReadFile(path) //nolint:gosec // as above
	if err != nil {
		return "", fmt.Errorf("reading the registry secret: %w", err)
	}
	secret := strings.TrimRight(string(content), "\r\n")
	if secret == "" || strings.ContainsFunc(secret, isControl) {
		return "", fmt.Errorf("registry secret %s is empty or has more than one line", path)
	}
	return secret, nil
}

// readRoots gives nil, the system's roots, for no file.
func readRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // the meaning that tls.Config gives to nil
	}
	pem, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("reading the registry CA file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading the system's certificates: %w", err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("registry CA file %s holds no PEM certificate", path)
	}
	return roots, nil
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

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
