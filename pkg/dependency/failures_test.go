package dependency_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

const host = "rekor.example.test"

// TestRealFailures lets each kind of failure happen on a real connection. What is answered well is among them.
func TestRealFailures(t *testing.T) {
	t.Parallel()
	trusted, stranger := newAuthority(t), newAuthority(t)
	names, mute := startDNS(t), startDNS(t)
	names.Set(host, netip.MustParseAddr("127.0.0.1"))
	mute.Mute(true)
	soon := time.Now().Add(72 * time.Hour)
	ok := answers(http.StatusOK, "application/json", "{}")
	at := func(scheme, address string) string {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		return scheme + "://" + net.JoinHostPort(host, port)
	}
	secure := func(handler http.HandlerFunc) string {
		return at("https", serve(t, trusted.serves(t, host, soon), handler).Listener.Addr().String())
	}
	shows := func(by *authority, name string, until time.Time) string {
		return at("https", serve(t, by.serves(t, name, until), ok).Listener.Addr().String())
	}
	type test struct {
		name   string
		url    string
		cause  dependency.Cause // empty for none
		detail string           // a part of it
		change func(*dependency.Probe)
	}
	call := func(p *dependency.Probe) { p.Call = dependency.Registry(p.URLs[0], p.Transport) }
	callAlone := func(p *dependency.Probe) { call(p); p.URLs = nil }
	tests := []test{
		{"good", secure(ok), "", "", call},
		{"good without TLS", at("http", serve(t, nil, ok).Listener.Addr().String()), "", "", call},
		{"asks for credentials", secure(asks), "", "", call},
		{"a name that is not there", "https://gone.example.test", dependency.DNS, "no such host", nil},
		{"a name that is not there, to a call", "https://gone.example.test", dependency.DNS, "no such host", callAlone},
		{"a name server that says nothing", "https://" + host, dependency.DNS, "", func(p *dependency.Probe) { p.Transport = trusted.transport(t, mute) }},
		{"refused", at("https", unused(t)), dependency.Refused, "refused", nil},
		{"refused, to a call", at("https", unused(t)), dependency.Refused, "refused", callAlone},
		{"accepted and closed", at("http", listen(t, func(context.Context, net.Conn) {})), dependency.Refused, "", nil},
		{"accepted and closed, with TLS", at("https", listen(t, func(context.Context, net.Conn) {})), dependency.Refused, "", nil},
		{"says what is no HTTP", at("http", listen(t, babbles)), dependency.Protocol, "malformed", nil},
		{"hangs in the handshake", at("https", listen(t, silent)), dependency.Timeout, "", nil},
		{"hangs", at("http", listen(t, silent)), dependency.Timeout, "", nil},
		{"answers the look and hangs in the call", secure(func(_ http.ResponseWriter, r *http.Request) { hang(r) }), dependency.Timeout, "", call},
		{"hangs in the answer", secure(half), dependency.Timeout, "", call},
		{"an expired certificate", shows(trusted, host, time.Now().Add(-time.Hour)), dependency.TLS, "renew it", nil},
		{"a certificate for another name", shows(trusted, "other.example.test", soon), dependency.TLS, "other.example.test", nil},
		{"a certificate of a stranger", shows(stranger, host, soon), dependency.TLS, "is not trusted", nil},
		{"a certificate of a stranger, to a call", shows(stranger, host, soon), dependency.TLS, "", callAlone},
		{"no TLS at all", at("https", serve(t, nil, ok).Listener.Addr().String()), dependency.TLS, "", nil},
		{"500", secure(answers(http.StatusInternalServerError, "text/plain", "x")), dependency.Protocol, "500", call},
		{"429", secure(answers(http.StatusTooManyRequests, "text/plain", "x")), dependency.Protocol, "429", call},
		{"HTML", secure(answers(http.StatusOK, "text/html", "<html>")), dependency.Protocol, "not JSON", call},
		{"404", secure(answers(http.StatusNotFound, "text/html", "<html>")), dependency.Protocol, "404", call},
		{"a clock that is ahead", secure(dated(40 * time.Second)), dependency.Skew, "clock", call},
		{"a clock that is behind", secure(dated(-40 * time.Second)), dependency.Skew, "by -", call},
		{"a clock that is nearly right", secure(dated(25 * time.Second)), "", "", call},
		{"plain TCP", at("tcp", listen(t, silent)), "", "", nil},
		{"no TCP", at("tcp", unused(t)), dependency.Refused, "", nil},
		{"no NATS", at("nats", serve(t, nil, ok).Listener.Addr().String()), dependency.Timeout, "", nil},
		{"NATS that talks nonsense", at("nats", listen(t, says("HTTP/1.1 400 Bad Request\r\n"))), dependency.Protocol, "NATS", nil},
		{"NATS", at("nats", listen(t, says("INFO {}\r\n"))), "", "", nil},
		{"NATS without TLS where it is wanted", at("tls", listen(t, says("INFO {}\r\n"))), dependency.Timeout, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := dependency.Probe{Name: "log/rekor", URLs: []string{tt.url}, Transport: trusted.transport(t, names)}
			if tt.change != nil {
				tt.change(&p)
			}
			limit := 10 * time.Second
			if tt.cause == dependency.Timeout || strings.Contains(tt.name, "says nothing") {
				limit = 400 * time.Millisecond
			}
			m := monitor(t, func(c *dependency.Config) { c.Timeout = limit }, p)
			got := m.Look(t.Context())[0]
			if got.Up == nil || *got.Up != (tt.cause == "") || got.Cause != tt.cause || !strings.Contains(got.Detail, tt.detail) {
				t.Errorf("got up %v, cause %q, %q; want cause %q, with %q", got.Up != nil && *got.Up, got.Cause, got.Detail, tt.cause, tt.detail)
			}
		})
	}
}

// babbles reads a request, and answers in another protocol.
func babbles(ctx context.Context, conn net.Conn) {
	_, _ = conn.Read(make([]byte, 1))
	says("SSH-2.0-server\r\n")(ctx, conn)
}

// asks wants credentials.
func asks(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Www-Authenticate", `Bearer realm="x"`)
	w.WriteHeader(http.StatusUnauthorized)
}

// hang answers a look alone.
func hang(r *http.Request) {
	if r.Method != http.MethodHead {
		<-r.Context().Done()
	}
}

// half begins to answer.
func half(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{")
	_ = http.NewResponseController(w).Flush() // a server's can
	hang(r)
}

// dated answers with a date of another clock.
func dated(ahead time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().UTC().Add(ahead).Format(http.TimeFormat))
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	}
}

// says greets and waits.
func says(text string) func(context.Context, net.Conn) {
	return func(ctx context.Context, conn net.Conn) {
		_, _ = io.WriteString(conn, text)
		<-ctx.Done()
	}
}

// TestPooledConnectionsHideNothing has an adapter that is connected when the name goes: its calls go on, and the probe fails.
func TestPooledConnectionsHideNothing(t *testing.T) {
	t.Parallel()
	trusted, names := newAuthority(t), startDNS(t)
	names.Set(host, netip.MustParseAddr("127.0.0.1"))
	server := serve(t, trusted.serves(t, host, time.Now().Add(time.Hour)), answers(http.StatusOK, "application/json", "{}"))
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	transport := trusted.transport(t, names)
	p := dependency.Probe{Name: "log/rekor", URLs: []string{"https://" + host + ":" + port}, Transport: transport}
	p.Call = dependency.Registry(p.URLs[0], transport)
	m := monitor(t, nil, p)
	if got := m.Look(t.Context())[0]; got.Up == nil || !*got.Up {
		t.Fatalf("before: %+v, want it up", got)
	}
	names.Remove(host)
	if err := p.Call(t.Context()); err != nil {
		t.Fatalf("the pooled connection: %v, want it to work still", err)
	}
	if got := m.Look(t.Context())[0]; got.Up == nil || *got.Up || got.Cause != dependency.DNS {
		t.Errorf("after: %+v, want dns", got)
	}
	names.Set(host, netip.MustParseAddr("127.0.0.1"))
	if got := m.Look(t.Context())[0]; got.Up == nil || !*got.Up {
		t.Errorf("when the name is back: %+v, want it up", got)
	}
}

// TestNATS asks real servers: with TLS, and with certificates of clients.
func TestNATS(t *testing.T) {
	t.Parallel()
	trusted, stranger := newAuthority(t), newAuthority(t)
	run := func(change func(*server.Options)) string {
		opts := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true}
		change(opts)
		s, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		if !s.ReadyForConnections(10 * time.Second) {
			t.Fatal("the NATS server does not start")
		}
		return s.Addr().String()
	}
	plain := run(func(*server.Options) {})
	until := time.Now().Add(72 * time.Hour).Truncate(time.Second)
	secure := run(func(o *server.Options) { o.TLS, o.TLSConfig = true, trusted.serves(t, host, until) })
	mutual := run(func(o *server.Options) {
		o.TLS, o.TLSVerify, o.TLSConfig = true, true, trusted.serves(t, host, until)
		o.TLSConfig.ClientAuth, o.TLSConfig.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		o.TLSConfig.ClientCAs.AddCert(trusted.certificate)
		o.TLSConfig.MaxVersion = tls.VersionTLS12 // which tells a client in the handshake
	})
	ca, cert, key := trusted.files(t)
	otherCA, _, _ := stranger.files(t)
	for _, tt := range []struct {
		name, url string
		files     func() (*tls.Config, error)
		cause     dependency.Cause
		until     time.Time
	}{
		{"plain", "nats://" + plain, nil, "", time.Time{}},
		{"plain where TLS is wanted", "tls://" + plain, nil, dependency.TLS, time.Time{}},
		{"plain where files are named", "nats://" + plain, dependency.Files(ca, "", ""), dependency.TLS, time.Time{}},
		{"TLS", "tls://" + secure, dependency.Files(ca, "", ""), "", until},
		{"TLS that the server wants", "nats://" + secure, dependency.Files(ca, "", ""), "", until},
		{"TLS of a stranger", "tls://" + secure, dependency.Files(otherCA, "", ""), dependency.TLS, until},
		{"TLS of nobody who is known", "nats://" + secure, nil, dependency.TLS, until},
		{"a client's certificate", "tls://" + mutual, dependency.Files(ca, cert, key), "", until},
		{"no client's certificate", "tls://" + mutual, dependency.Files(ca, "", ""), dependency.TLS, time.Time{}},
		{"files that are not there", "tls://" + secure, dependency.Files(ca+"x", "", ""), dependency.TLS, time.Time{}},
	} {
		got := monitor(t, nil, dependency.Probe{Name: "queue", URLs: []string{tt.url}, TLS: tt.files}).Look(t.Context())[0]
		if got.Up == nil || *got.Up != (tt.cause == "") || got.Cause != tt.cause || !got.CertificateExpires.Equal(tt.until) {
			t.Errorf("%s: up %t, %+v; want cause %q, until %s", tt.name, got.Up != nil && *got.Up, got, tt.cause, tt.until)
		}
	}
	if dependency.Files("", "", "") != nil {
		t.Error("no files give something, want nil")
	}
}

// TestOneOfSeveralAnswers has a cluster of which one server is away.
func TestOneOfSeveralAnswers(t *testing.T) {
	t.Parallel()
	up := listen(t, says("INFO {}\r\n"))
	m := monitor(t, nil,
		dependency.Probe{Name: "queue", URLs: []string{"nats://" + unused(t), "nats://" + up}},
		dependency.Probe{Name: "other", URLs: []string{"nats://" + unused(t), "nats://" + unused(t)}},
	)
	got := m.Look(t.Context())
	if got[0].Up == nil || !*got[0].Up || got[1].Up == nil || *got[1].Up || got[1].Cause != dependency.Refused {
		t.Errorf("got %+v, want the queue up and the other refused", got)
	}
}

// harborClient gives a client of Harbor's admin, with a secret.
func harborClient(t *testing.T, h *harbortest.Harbor, secret string) *harbor.Client {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := harbor.New(harbor.Config{URL: h.URL(), Username: "admin", SecretFile: file, Transport: &http.Transport{DisableKeepAlives: true}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTokenRights asks a Harbor, which gives a token to everybody.
func TestTokenRights(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	away := errors.New("no policy is known yet")
	for _, tt := range []struct {
		name, secret, project string
		err                   error
		known                 bool
		cause                 dependency.Cause
	}{
		{"the right to push", harbortest.DefaultAdminPassword, "library", nil, true, ""},
		{"a wrong secret", "not-the-secret", "library", nil, true, dependency.Auth},
		{"no project", "not-the-secret", "", nil, false, ""},
		{"projects that are not known", "not-the-secret", "", away, true, dependency.Protocol},
	} {
		c := harborClient(t, h, tt.secret)
		m := monitor(t, nil,
			dependency.Probe{Name: "token_rights", Call: dependency.TokenRights(c.TokenActions, func(context.Context) (string, error) { return tt.project, tt.err })},
			dependency.Probe{Name: "harbor_api", Call: dependency.HarborAPI(c.System)},
		)
		got := m.Look(t.Context())
		if (got[0].Up != nil) != tt.known || tt.known && *got[0].Up != (tt.cause == "") || got[0].Cause != tt.cause {
			t.Errorf("%s: %+v, want known %t, cause %q", tt.name, got[0], tt.known, tt.cause)
		}
		if want := tt.secret == harbortest.DefaultAdminPassword; *got[1].Up != want || !want && got[1].Cause != dependency.Auth {
			t.Errorf("%s: Harbor's API: %+v, want up %t", tt.name, got[1], want)
		}
		if strings.Contains(got[0].Detail+got[1].Detail, tt.secret) {
			t.Errorf("%s: %+v holds the secret", tt.name, got)
		}
	}
}

// TestCauseOf has errors as adapters give them. Real ones are above.
func TestCauseOf(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	name := &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	slow := &net.DNSError{Err: "i/o timeout", Name: host, IsTimeout: true}
	for _, tt := range []struct {
		name string
		err  error
		want dependency.Cause
	}{
		{"a name within a fault", fault.New(fault.Transient, fault.Unreachable, fmt.Errorf("asking: %w", &net.OpError{Op: "dial", Err: name})), dependency.DNS},
		{"a name server that is slow", fault.New(fault.Transient, fault.Timeout, slow), dependency.DNS},
		{"no connection", fault.New(fault.Transient, fault.LogUnavailable, refused), dependency.Refused},
		{"unreachable", fault.Newf(fault.Transient, fault.Unreachable, "somehow"), dependency.Refused},
		{"NATS is away", fault.Newf(fault.Transient, fault.QueueUnavailable, "disconnected"), dependency.Refused},
		{"NATS is slow", fault.Newf(fault.Transient, fault.QueueUnavailable, "asking: %w", context.DeadlineExceeded), dependency.Timeout},
		{"a connection that ends", fmt.Errorf("reading: %w", io.ErrUnexpectedEOF), dependency.Refused},
		{"late", fmt.Errorf("asking: %w", context.DeadlineExceeded), dependency.Timeout},
		{"late by the log", fault.Newf(fault.Transient, fault.Timeout, "no entry"), dependency.Timeout},
		{"unauthorized", fault.Newf(fault.Permanent, fault.Unauthorized, "401"), dependency.Auth},
		{"denied", fault.Newf(fault.Permanent, fault.Denied, "403"), dependency.Auth},
		{"500", fault.Newf(fault.Transient, fault.Unavailable, "500"), dependency.Protocol},
		{"429", fault.Newf(fault.Transient, fault.RateLimited, "429"), dependency.Protocol},
		{"HTML", fault.Newf(fault.Transient, fault.BadAnswer, "HTML"), dependency.Protocol},
		{"a wrong log key", fault.Newf(fault.Transient, fault.ProofInvalid, "not by this key"), dependency.Protocol},
		{"a full queue", fault.Newf(fault.Transient, fault.QueueFull, "full"), dependency.Protocol},
		{"a key that is away", fault.New(fault.Transient, fault.KeyUnavailable, refused), dependency.Refused},
		{"a wrong scheme", fmt.Errorf("asking: %w", http.ErrSchemeMismatch), dependency.TLS},
		{"an alert", &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, dependency.TLS},
		{"clocks", fmt.Errorf("asking: %w", &dependency.SkewError{By: time.Minute}), dependency.Skew},
		{"anything", errors.New("odd"), dependency.Protocol},
	} {
		if got := dependency.CauseOf(tt.err); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
