package queue

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/secretfile"
)

const (
	// requestTimeout bounds every request, whatever its context allows: without a leader there is no answer.
	requestTimeout = 5 * time.Second
	// dialTimeout bounds one attempt to connect.
	dialTimeout = 5 * time.Second
	// closeTimeout bounds how long Close waits for what was sent to reach the server.
	closeTimeout = 5 * time.Second
)

// Client is a connection to JetStream. All methods are safe for concurrent use.
//
// A lost connection is made again for ever. Meanwhile publishes fail at once, and acknowledgements are kept and sent
// later; those that are lost lead to a redelivery.
type Client struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	nats    *nats.Conn
	js      jetstream.JetStream
	closed  chan struct{} // closed when nats.go has let go of the connection

	writes  writeState
	holds   holdMemory
	ways    holdMemory // how often requests gave way since they were held
	handles handles
	id      string // of this client among the members of its groups
	rosters rosters

	mu           sync.Mutex
	reconnected  chan struct{} // guarded by mu; closed and replaced at each reconnect
	disconnected chan struct{} // guarded by mu; closed and replaced when the connection is lost
}

// Connect connects and waits for the first connection until ctx ends: the server may start later than the client. Refused
// credentials and wrong configuration end it at once. It creates nothing in NATS; see [Client.Setup].
//
// Whoever connects must call [Client.Close].
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configuring the queue: %w", err)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("registering the queue's metrics: %w", err)
	}
	c := &Client{
		cfg:         cfg,
		log:         cfg.Logger.With().Str("component", "queue").Logger(),
		metrics:     m,
		closed:      make(chan struct{}),
		reconnected: make(chan struct{}), disconnected: make(chan struct{}),
		id: nuid.Next(),
	}
	opts, err := c.options()
	if err != nil {
		return nil, fmt.Errorf("configuring the queue: %w", err)
	}
	if err := c.dial(ctx, opts); err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	if c.js, err = c.newJetStream(); err != nil {
		c.Close()
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	return c, nil
}

func (c *Client) newJetStream() (jetstream.JetStream, error) {
	timeout := jetstream.WithDefaultTimeout(requestTimeout)
	if c.cfg.Imported {
		return jetstream.NewWithAPIPrefix(c.nats, importedAPI, timeout)
	}
	return jetstream.New(c.nats, timeout)
}

func (c *Client) dial(ctx context.Context, opts nats.Options) error {
	retry := newBackoff()
	for {
		connection, err := opts.Connect()
		if err == nil {
			c.nats = connection
			c.metrics.connected.Set(1)
			return nil
		}
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked) {
			return fault.Newf(fault.Permanent, fault.Unauthorized,
				"the server refuses user %q: compare its password file here with the one of the server (queue.embedded.users of the receiver): %w",
				c.cfg.Username, err)
		}
		if waitErr := retry.wait(ctx); waitErr != nil {
			return fault.New(fault.Transient, fault.QueueUnavailable, errors.Join(err, waitErr))
		}
		c.log.Warn().Err(err).Strs("urls", c.cfg.URLs).Msg("cannot connect to nats, trying again")
	}
}

// options translates the configuration. A list of options that each may fail, hence the loop at its end.
func (c *Client) options() (nats.Options, error) {
	list := []nats.Option{
		nats.Name(c.cfg.Name),
		nats.Timeout(dialTimeout),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(reconnectDelay),
		// An account may be refused while its server's configuration is changed.
		nats.IgnoreAuthErrorAbort(),
		// A half-open connection is noticed after two missed answers.
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DrainTimeout(closeTimeout),
		// In one account, everybody may listen on everybody's default inbox; rights are given by prefix.
		nats.CustomInboxPrefix(c.cfg.InboxPrefix),
		nats.DisconnectErrHandler(c.onDisconnect),
		nats.ReconnectHandler(c.onReconnect),
		nats.ErrorHandler(c.onError),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
	}
	if c.cfg.Server != nil {
		server := c.cfg.Server
		list = append(list, nats.InProcessServer(inProcess{server}), nats.UserInfo(server.user, server.password))
	} else {
		network, err := c.networkOptions()
		if err != nil {
			return nats.Options{}, err
		}
		list = append(list, network...)
	}
	opts := nats.GetDefaultOptions()
	opts.Servers = c.cfg.URLs
	for _, option := range list {
		if err := option(&opts); err != nil {
			return nats.Options{}, err
		}
	}
	return opts, nil
}

func (c *Client) networkOptions() ([]nats.Option, error) {
	var list []nats.Option
	if c.cfg.Username != "" {
		if _, err := secretfile.ReadLine(c.cfg.PasswordFile); err != nil {
			return nil, fmt.Errorf("password file: %w", err)
		}
		list = append(list, nats.UserInfoHandler(func() (string, string) {
			password, err := secretfile.ReadLine(c.cfg.PasswordFile)
			if err != nil {
				c.log.Error().Err(err).Msg("cannot read the password for nats")
			}
			return c.cfg.Username, password
		}))
	}
	if c.cfg.CredentialsFile != "" {
		// nats.go reads the file itself; what is checked here is that nobody else can.
		if _, err := secretfile.Read(c.cfg.CredentialsFile); err != nil {
			return nil, fmt.Errorf("credentials file: %w", err)
		}
		list = append(list, nats.UserCredentials(c.cfg.CredentialsFile))
	}
	if c.cfg.TLS != (ClientTLS{}) {
		list = append(list, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	if c.cfg.TLS.CAFile != "" {
		if _, err := egress.Authorities(c.cfg.TLS.CAFile); err != nil {
			return nil, err
		}
		list = append(list, trust(c.cfg.TLS.CAFile))
	}
	if c.cfg.TLS.CertFile != "" {
		list = append(list, nats.ClientCert(c.cfg.TLS.CertFile, c.cfg.TLS.KeyFile))
	}
	if c.cfg.DialContext != nil {
		// The dialer sees names, not addresses: what is resolved is its decision.
		list = append(list, nats.SetCustomDialer(dialer{c.cfg.DialContext}), nats.SkipHostLookup())
	}
	return list, nil
}

// dialer adapts a DialContext to nats.go, which knows no context.
type dialer struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Dial implements nats.CustomDialer.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	return d.dial(ctx, network, address)
}

// reconnectDelay is the pause after the whole list of servers was tried without success.
func reconnectDelay(attempts int) time.Duration {
	b := newBackoff()
	delay := min(b.first<<min(attempts, 8), b.limit)
	return jitter(delay)
}

func (c *Client) onDisconnect(_ *nats.Conn, err error) {
	c.metrics.connected.Set(0)
	c.mu.Lock()
	close(c.disconnected)
	c.disconnected = make(chan struct{})
	c.mu.Unlock()
	if err != nil { // nil when the client itself closed the connection.
		c.log.Warn().Err(err).Msg("connection to nats lost")
	}
}

func (c *Client) onReconnect(connection *nats.Conn) {
	c.metrics.connected.Set(1)
	c.metrics.reconnects.Inc()
	c.log.Info().Str("server", connection.ConnectedServerName()).Msg("connected to nats again")
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.reconnected)
	c.reconnected = make(chan struct{})
}

// nextReconnect is closed at the next reconnect.
func (c *Client) nextReconnect() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reconnected
}

// nextDisconnect is closed when the connection is lost the next time.
func (c *Client) nextDisconnect() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.disconnected
}

// onError hears of what belongs to no call: a denied right shows here, and as a timeout to whoever asked.
func (c *Client) onError(_ *nats.Conn, subscription *nats.Subscription, err error) {
	event := c.log.Error().Err(err)
	if subscription != nil {
		event = event.Str("subject", subscription.Subject)
	}
	event.Msg("nats reports an error")
}

// Close sends what is still to be sent, at most for some seconds, and closes the connection. What runs until its context
// ends, such as [Client.Consume], must have returned before.
func (c *Client) Close() {
	if err := c.nats.Drain(); err != nil {
		c.nats.Close() // Not connected, or closed already: there is nothing to drain.
	}
	<-c.closed
	c.metrics.connected.Set(0)
}
