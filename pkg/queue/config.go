package queue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Config describes a client. Exactly one of Server and URLs is set.
type Config struct {
	// Harbor names the Harbor whose requests and events these are, as a token of the subjects. Empty is "default".
	Harbor string
	// Server is the embedded server of this process; nothing is sent over the network then, and no credentials are needed.
	Server *Server
	// URLs of the NATS servers, such as "nats://10.0.0.1:4222" or "tls://…". They must not contain credentials.
	URLs []string
	// Username and PasswordFile, or CredentialsFile (a NATS .creds file); the files must not be accessible to others and
	// are read again for each connection.
	Username, PasswordFile string
	CredentialsFile        string
	// TLS of the connection: needed for URLs of the scheme tls, possible for nats. The files are read for each connection.
	TLS ClientTLS
	// InboxPrefix is where this client gets answers, so that its user can be given the right to listen there alone. Empty
	// is "_INBOX_" and the user name if that is a plain token, else something random.
	InboxPrefix string
	// Imported says that the user is one of an account that owns no streams and imports what receivers need, as deploy/nats
	// sets it up: see [Client.Setup]. Methods that only signers need fail there.
	Imported bool
	// Name of the connection, for the server's operator. Empty is "harborseal".
	Name string
	// Replicas of the streams: 1 for a single server, 3 for a cluster. 0 is 1.
	Replicas int
	// AckWait is how long a request stays with a program that no longer tells that it works on it. 0 is 60 seconds.
	AckWait time.Duration
	Limits  Limits
	// DialContext, when set, makes all TCP connections of the client.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	Logger      zerolog.Logger
	// Registerer takes the metrics; nil is allowed. One registerer takes the metrics of one client only.
	Registerer prometheus.Registerer

	retentionEvery time.Duration // for tests; 0 is the constant of that name
}

// ClientTLS names PEM files. The zero value verifies the server by the system's roots where TLS is used.
type ClientTLS struct {
	// CAFile holds authorities that are trusted beside those of the system.
	CAFile string
	// CertFile and KeyFile are the client's certificate.
	CertFile, KeyFile string
}

// Limits of the streams.
type Limits struct {
	// LedgerMaxBytes bounds the ledger on disk; at the limit new events are refused. 0 leaves an existing ledger as it is
	// and gives a new one no limit of its own.
	LedgerMaxBytes int64
	// LedgerMaxAge is how long events are kept. 0 leaves an existing ledger as it is and gives a new one 400 days. Setup
	// never shortens the age of an existing one, whoever created it.
	LedgerMaxAge time.Duration
	// ScanMaxAge is how long a tick is remembered, so that it is not proposed again: at least two slots of the longest
	// interval. 0 leaves an existing stream as it is and gives a new one 48 hours. Setup never shortens an existing age.
	ScanMaxAge time.Duration
}

const (
	defaultAckWait      = 60 * time.Second
	defaultLedgerMaxAge = 400 * 24 * time.Hour
	defaultScanMaxAge   = 48 * time.Hour
	// ledgerDuplicates is how long the ledger remembers event ids.
	ledgerDuplicates = 10 * time.Minute
)

// withDefaults validates the configuration and fills in what is not set, except for the limits: what they are by default
// depends on whether their stream exists. It reports all mistakes at once.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.Harbor == "" {
		c.Harbor = "default"
	}
	errs = append(errs, ValidateHarbor(c.Harbor))
	if (c.Server == nil) == (len(c.URLs) == 0) {
		errs = append(errs, errors.New("want either the embedded server or URLs"))
	}
	for i, address := range c.URLs {
		errs = append(errs, validateURL(i, address))
	}
	if c.Server != nil && (c.Username != "" || c.PasswordFile != "" || c.CredentialsFile != "") {
		errs = append(errs, errors.New("the embedded server needs no credentials"))
	}
	if c.Server != nil && c.Imported {
		errs = append(errs, errors.New("the embedded server has one account, which owns the streams"))
	}
	if (c.Username == "") != (c.PasswordFile == "") {
		errs = append(errs, errors.New("want both a user name and a password file, or none"))
	}
	if c.Username != "" && c.CredentialsFile != "" {
		errs = append(errs, errors.New("want either a user name or a credentials file"))
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		errs = append(errs, errors.New("want both a client certificate and its key, or none"))
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		errs = append(errs, fmt.Errorf("replicas: %d is not between 1 and 5", c.Replicas))
	}
	for name, d := range map[string]time.Duration{
		"ack wait": c.AckWait, "ledger max age": c.Limits.LedgerMaxAge, "scan max age": c.Limits.ScanMaxAge,
	} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s: %s is negative", name, d))
		}
	}
	if c.InboxPrefix == "" {
		c.InboxPrefix = "_INBOX_" + nuid.Next()
		if c.Username != "" && strings.IndexFunc(c.Username, notTokenRune) < 0 {
			c.InboxPrefix = "_INBOX_" + c.Username
		}
	}
	c.Name = orDefault(c.Name, "harborseal")
	c.Replicas = orDefault(c.Replicas, 1)
	c.AckWait = orDefault(c.AckWait, defaultAckWait)
	return c, errors.Join(errs...)
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// validateURL refuses what may hold a secret, and never repeats it.
func validateURL(i int, address string) error {
	parsed, err := url.Parse(address)
	switch {
	case err != nil:
		return fmt.Errorf("URL %d cannot be read", i+1)
	case parsed.User != nil:
		return fmt.Errorf("URL %d contains credentials: name a password file instead", i+1)
	case parsed.Host == "" || parsed.Scheme != "nats" && parsed.Scheme != "tls":
		return fmt.Errorf("URL %d: want nats://host:port or tls://host:port", i+1)
	}
	return nil
}
