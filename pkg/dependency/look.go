package dependency

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/harborseal/harborseal/pkg/egress"
)

const (
	// tolerated is by how much the clock of another side may differ.
	tolerated = 30 * time.Second
	// dateGrain is the resolution of a Date header.
	dateGrain = time.Second
	// maxGreeting is how much of a server's greeting is read, in bytes.
	maxGreeting = 64 << 10
	// natsPort is where NATS servers are that are given without a port.
	natsPort = "4222"
)

// sight is what a look at an address has found.
type sight struct {
	// notAfter is when the first certificate of its chain expires; zero without TLS. It is there for one that has expired, too.
	notAfter time.Time
	// skew is by how much its clock is ahead; dated says that it was told.
	skew  time.Duration
	dated bool
}

// look resolves, connects and shakes hands as an adapter does (its trust, its proxy, its dialer), but over a connection of its own.
type look struct {
	url  *url.URL
	base *http.Transport // a clone of the adapter's, which makes no request
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	// trust is asked for each look; nil stands for base's.
	trust func() (*tls.Config, error)
	now   func() time.Time
}

// newLook validates one address of a probe.
func newLook(address string, p Probe, now func() time.Time) (*look, error) {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("want an address such as https://host[:port]") // not what was given: it may hold credentials
	}
	// A transport changes its own configuration at its first request: a clone is safe to read.
	l := &look{
		url: &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}, base: cmp.Or(p.Transport, &http.Transport{}).Clone(), trust: p.TLS, now: now,
	}
	if l.dial = l.base.DialContext; l.dial == nil {
		l.dial = new(egress.Dialer).DialContext
	}
	switch u.Scheme {
	case "http", "https":
	case "nats", "tls":
		l.url.Host = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), natsPort))
	case "tcp":
		if u.Port() == "" {
			return nil, errors.New("an address of scheme tcp: a port is required")
		}
	default:
		return nil, errors.New("want a scheme of http, https, nats, tls, tcp")
	}
	return l, nil
}

// secured gives how TLS is spoken now.
func (l *look) secured() (*tls.Config, error) {
	config := l.base.TLSClientConfig
	if l.trust != nil {
		var err error
		if config, err = l.trust(); err != nil {
			return nil, &stageError{cause: TLS, err: err}
		}
	}
	if config == nil {
		return &tls.Config{MinVersion: tls.VersionTLS12}, nil
	}
	config = config.Clone()
	config.NextProtos = nil // a look speaks HTTP/1.1 alone: one request needs no more
	return config, nil
}

// isHTTP says whether the address takes requests.
func (l *look) isHTTP() bool { return l.url.Scheme == "http" || l.url.Scheme == "https" }

// do has a look. Whatever the other side answers to a request is good: the call that follows judges that. What was found is given
// beside an error, too.
func (l *look) do(ctx context.Context) (sight, error) {
	var (
		s   sight
		err error
	)
	if l.isHTTP() {
		s, err = l.request(ctx)
	} else {
		s, err = l.connect(ctx)
	}
	if refused, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		s.notAfter = earliest(refused.UnverifiedCertificates)
		err = egress.WithCertificate(err, l.url.Hostname())
	}
	if err == nil && s.dated && max(s.skew, -s.skew) > tolerated {
		err = &SkewError{By: s.skew}
	}
	return s, err
}

// request asks for the head of the address, without credentials. ctx must end soon after.
func (l *look) request(ctx context.Context) (sight, error) {
	var at stages
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart:         func(httptrace.DNSStartInfo) { at.set(func(s *stages) { s.resolving = true }) },
		DNSDone:          func(d httptrace.DNSDoneInfo) { at.set(func(s *stages) { s.resolving = d.Err != nil }) },
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) { at.set(func(s *stages) { s.handshake = err }) },
		GotConn:          func(httptrace.GotConnInfo) { at.set(func(s *stages) { s.asking = true }) },

		GotFirstResponseByte: func() { at.set(func(s *stages) { s.asking = false }) },
	})
	req, err := http.NewRequestWithContext(traced, http.MethodHead, l.url.String(), http.NoBody)
	if err != nil {
		return sight{}, err
	}
	req.Header.Set("User-Agent", egress.DefaultUserAgent)
	transport, err := l.once(ctx)
	if err != nil {
		return sight{}, err
	}
	started := l.now()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return sight{}, at.explain(ctx, err)
	}
	_ = resp.Body.Close() // a head has none
	var s sight
	if resp.TLS != nil {
		s.notAfter = firstExpiry(*resp.TLS)
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// The date was cut to a second, and told at some time between the request and the answer.
		ended := l.now()
		s.dated = true
		switch {
		case date.Add(dateGrain).Before(started):
			s.skew = date.Add(dateGrain).Sub(started)
		case date.After(ended):
			s.skew = date.Sub(ended)
		}
	}
	return s, nil
}

// once gives a transport for one request. Nothing of it outlives ctx by more than a moment: a transport of its own accord would go on
// to dial, and to shake hands, for a request that was given up.
func (l *look) once(ctx context.Context) (*http.Transport, error) {
	config, err := l.secured()
	if err != nil {
		return nil, err
	}
	dial := func(dialling context.Context, network, address string) (net.Conn, error) {
		dialling, cancel := context.WithCancel(dialling)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		conn, err := l.dial(dialling, network, address)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		return conn, nil
	}
	return &http.Transport{
		Proxy: l.base.Proxy, ProxyConnectHeader: l.base.ProxyConnectHeader, GetProxyConnectHeader: l.base.GetProxyConnectHeader,
		DialContext: dial, TLSClientConfig: config, DisableKeepAlives: true, MaxResponseHeaderBytes: maxGreeting,
	}, nil
}

// stages are how far a request came. The transport resolves and shakes hands in a goroutine that may outlive the request.
type stages struct {
	mu        sync.Mutex
	resolving bool  // guarded by mu: also when that has failed
	handshake error // guarded by mu
	asking    bool  // guarded by mu: it is connected, and nothing has come yet
}

func (s *stages) set(change func(*stages)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// explain adds to a transport's error where it was: a request that runs out of time does not tell.
func (s *stages) explain(ctx context.Context, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.resolving && ctx.Err() != nil:
		return &stageError{cause: DNS, err: fmt.Errorf("no name server has answered: %w", err)}
	case s.handshake != nil:
		return ofHandshake(ctx, err)
	case s.asking && ctx.Err() == nil && CauseOf(err) == Protocol:
		return &stageError{cause: Refused, err: err} // the errors for a connection that was closed have no type
	default:
		return err
	}
}

// connect opens a connection that is no HTTP, as far as the scheme tells how it begins.
func (l *look) connect(ctx context.Context) (sight, error) {
	conn, err := l.dial(ctx, "tcp", l.url.Host)
	if err != nil {
		return sight{}, err
	}
	defer conn.Close() //nolint:errcheck // nothing was written that could be lost
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if l.url.Scheme == "tcp" {
		return sight{}, nil
	}
	wanted, err := greeting(conn)
	if err != nil {
		return sight{}, cmp.Or(ctx.Err(), err)
	}
	// SPEC: NATS client protocol: TLS begins after the server's INFO. A client that was told to speak it goes without for no server.
	if !wanted && l.url.Scheme != "tls" && l.trust == nil {
		return sight{}, nil
	}
	config, err := l.secured()
	if err != nil {
		return sight{}, err
	}
	config.ServerName = cmp.Or(config.ServerName, l.url.Hostname())
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return sight{}, ofHandshake(ctx, err)
	}
	return sight{notAfter: firstExpiry(secure.ConnectionState())}, nil
}

// ofHandshake marks what went wrong in a handshake, unless it only took too long or the connection broke.
func ofHandshake(ctx context.Context, err error) error {
	if ctx.Err() != nil || causeOfConnection(err) != Protocol {
		return err
	}
	return &stageError{cause: TLS, err: err}
}

// greeting reads what a NATS server says first, and whether it wants TLS.
//
// SPEC: NATS client protocol, INFO: the first line of a server, in JSON; tls_required stands there.
func greeting(conn net.Conn) (wantsTLS bool, err error) {
	line, err := bufio.NewReader(io.LimitReader(conn, maxGreeting)).ReadString('\n') // the server says no more until it is answered
	if err != nil {
		return false, err
	}
	said, ok := strings.CutPrefix(line, "INFO ")
	var info struct {
		TLSRequired bool `json:"tls_required"`
	}
	if !ok || json.Unmarshal([]byte(said), &info) != nil {
		return false, &stageError{cause: Protocol, err: errors.New("its greeting is not that of a NATS server")}
	}
	return info.TLSRequired, nil
}

// firstExpiry gives when the first certificate of the chain that was verified expires.
func firstExpiry(state tls.ConnectionState) time.Time {
	if len(state.VerifiedChains) > 0 {
		return earliest(state.VerifiedChains[0])
	}
	return earliest(state.PeerCertificates)
}

func earliest(chain []*x509.Certificate) time.Time {
	var first time.Time
	for _, c := range chain {
		if first.IsZero() || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	return first
}
