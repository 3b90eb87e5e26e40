package httpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// TLS names the files of the certificate chain and its key, in PEM.
type TLS struct {
	CertFile string
	KeyFile  string
}

// Timeouts bound what a client can make the server wait for. A zero value takes its default.
type Timeouts struct {
	ReadHeader time.Duration // from the connection's first byte to the end of the header; default 5 s
	Read       time.Duration // to the end of the body; default 10 s
	Write      time.Duration // from the end of the header to the end of the answer; default 30 s
	Idle       time.Duration // between two requests of one connection; default 120 s
}

// Config is what a server needs.
type Config struct {
	// Name tells the listeners of one process apart, such as "public", in logs and metrics. Required.
	Name string
	// Listen is host:port; port 0 takes a free one. Required.
	Listen string
	// TLS is required unless AllowPlainHTTP is set.
	TLS            *TLS
	AllowPlainHTTP bool
	Timeouts       Timeouts
	// MaxHeaderBytes bounds the request line and the header. Default: 16 KiB.
	MaxHeaderBytes int
	// MaxConnections is how many connections are served at once; who comes beyond them is answered with 503, unless one that is
	// idle can give way. As many requests are answered at once, which is of matter for HTTP/2 alone. An address with few
	// connections is let in beyond it, up to 256 in all. Default: 2,048, which take about 150 MiB under a flood.
	MaxConnections int
	// Handler answers; usually an engine of [NewEngine]. Required.
	Handler http.Handler
	Logger  zerolog.Logger
	// Registerer takes the metrics of the connections and of the certificate; nil keeps them unregistered.
	Registerer prometheus.Registerer
}

// Server is one listener and what it serves. Its methods are safe for concurrent use.
type Server struct {
	http     *http.Server
	listener net.Listener
	tls      bool
	logger   zerolog.Logger

	start sync.Once
	done  chan struct{} // closed when serving has ended, or will never begin
	err   error         // why serving ended unasked; written before done is closed, read after
}

// New validates cfg, reads the certificate and binds the listener at once, so that a taken port is an error here and
// [Server.Addr] is known before anything is served. A server that is never started must be stopped all the same.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("listener %q: %w", cfg.Name, err)
	}
	cfg = cfg.withDefaults()
	logger := cfg.Logger.With().Str("listener", cfg.Name).Logger()
	s := &Server{logger: logger, done: make(chan struct{})}
	s.http = &http.Server{
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: streamBuffer, MaxReceiveBufferPerConnection: connectionBuffer,
			WriteByteTimeout: cfg.Timeouts.Write,
		},
		ReadHeaderTimeout: cfg.Timeouts.ReadHeader,
		ReadTimeout:       cfg.Timeouts.Read,
		WriteTimeout:      cfg.Timeouts.Write,
		IdleTimeout:       cfg.Timeouts.Idle,
		MaxHeaderBytes:    cfg.MaxHeaderBytes,
		ErrorLog:          newErrorLog(logger),
	}
	if err := s.open(cfg); err != nil {
		return nil, fmt.Errorf("listener %q: %w", cfg.Name, err)
	}
	return s, nil
}

// open reads the certificate, binds, and registers the metrics, in this order: what fails leaves nothing behind.
func (s *Server) open(cfg Config) (err error) {
	var cert *certificate
	if cfg.TLS != nil {
		if cert, err = newCertificate(*cfg.TLS, s.logger); err != nil {
			return err
		}
		s.tls = true
		s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.get}
	}
	// Binding does not wait, so there is nothing that a caller's context could end.
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", cfg.Listen)
	if err != nil {
		return err
	}
	m, err := newMetrics(cfg.Registerer, cfg.Name, cfg.MaxConnections)
	if err == nil && cert != nil {
		err = cert.register(cfg.Registerer, cfg.Name)
	}
	if err != nil {
		return errors.Join(err, l.Close())
	}
	d := newDoor(l, cfg.MaxConnections, m)
	s.listener, s.http.ConnContext, s.http.ConnState = d, remember, d.observe
	s.http.Handler = &crowd{next: cfg.Handler, places: make(chan struct{}, cfg.MaxConnections+reserved), metrics: m}
	return nil
}

func (c Config) validate() error {
	var errs []error
	if c.Name == "" {
		errs = append(errs, errors.New("the listener has no name"))
	}
	if c.Handler == nil {
		errs = append(errs, errors.New("there is no handler"))
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen %.128q: want host:port: %w", c.Listen, err))
	}
	switch {
	case c.TLS == nil && !c.AllowPlainHTTP:
		errs = append(errs, errors.New("no TLS certificate is configured, and plain HTTP is not allowed: name the certificate and key files, or allow plain HTTP explicitly"))
	case c.TLS != nil && (c.TLS.CertFile == "" || c.TLS.KeyFile == ""):
		errs = append(errs, errors.New("TLS needs both a certificate file and a key file"))
	}
	for _, d := range []time.Duration{c.Timeouts.ReadHeader, c.Timeouts.Read, c.Timeouts.Write, c.Timeouts.Idle} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("timeout %s is negative", d))
		}
	}
	if c.MaxConnections < 0 {
		errs = append(errs, fmt.Errorf("connections %d: want a positive number", c.MaxConnections))
	}
	if c.MaxHeaderBytes < 0 {
		errs = append(errs, fmt.Errorf("largest header %d is negative", c.MaxHeaderBytes))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	for _, t := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&c.Timeouts.ReadHeader, 5 * time.Second},
		{&c.Timeouts.Read, 10 * time.Second},
		{&c.Timeouts.Write, 30 * time.Second},
		{&c.Timeouts.Idle, 120 * time.Second},
	} {
		if *t.value == 0 {
			*t.value = t.fallback
		}
	}
	if c.MaxHeaderBytes == 0 {
		c.MaxHeaderBytes = 16 << 10
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 2048
	}
	return c
}

// Addr is the bound address.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// URL is scheme and bound address, without a path.
func (s *Server) URL() string {
	if s.tls {
		return "https://" + s.Addr().String()
	}
	return "http://" + s.Addr().String()
}

// Start begins to serve and returns at once; the goroutine that it starts is awaited by [Server.Stop]. Starting again, or
// after Stop, does nothing.
func (s *Server) Start() {
	s.start.Do(func() { go s.serve() })
}

func (s *Server) serve() {
	defer close(s.done)
	s.logger.Info().Str("address", s.Addr().String()).Bool("tls", s.tls).Msg("listening")
	var err error
	if s.tls {
		err = s.http.ServeTLS(s.listener, "", "")
	} else {
		err = s.http.Serve(s.listener)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		s.err = fmt.Errorf("serving on %s: %w", s.Addr(), err)
	}
}

// Done is closed when serving has ended; [Server.Err] then says why.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err is nil until Done is closed, and nil after a Stop; otherwise it says why serving ended by itself.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Wait returns when ctx ends, or when serving has ended, and then says why unless it was stopped.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.done:
		return s.err
	}
}

// Stop closes the listener, lets the requests in hand finish, and waits for them until ctx ends; then it cuts them off and
// returns an error. It may be called more than once, and without Start.
func (s *Server) Stop(ctx context.Context) error {
	// A server that was never started will not be any more.
	s.start.Do(func() { close(s.done) })
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("requests were cut off, because they did not finish in time: %w", errors.Join(err, s.http.Close()))
	}
	// Shutdown knows the listener only once it is served.
	if closeErr := s.listener.Close(); closeErr != nil && !errors.Is(closeErr, net.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	<-s.done
	return errors.Join(err, s.err)
}
