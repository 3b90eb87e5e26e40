package dependency_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/egress"
)

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-48 * time.Hour),
		NotAfter: time.Now().Add(1000 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = newKey(t)
	raw, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// serves is a certificate for a name and 127.0.0.1.
func (a *authority) serves(t *testing.T, name string, until time.Time) *tls.Config {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until,
		DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}}
}

// files writes its certificate, and one for a client with its key.
func (a *authority) files(t *testing.T) (ca, cert, key string) {
	t.Helper()
	client := a.serves(t, "client", time.Now().Add(time.Hour)).Certificates[0]
	private, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ca, cert, key = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		ca: {Type: "CERTIFICATE", Bytes: a.certificate.Raw}, cert: {Type: "CERTIFICATE", Bytes: client.Certificate[0]},
		key: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return ca, cert, key
}

// transport trusts the authority, and resolves by a name server.
func (a *authority) transport(t *testing.T, names *harness.DNS) *http.Transport {
	t.Helper()
	dialer := &egress.Dialer{}
	if names != nil {
		var err error
		if dialer, err = egress.NewDialer(egress.Config{Resolver: names.Addr()}); err != nil {
			t.Fatal(err)
		}
	}
	transport, err := egress.NewTransport(dialer, "")
	if err != nil {
		t.Fatal(err)
	}
	transport.Proxy = nil // the machine's
	if a != nil {
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		transport.TLSClientConfig.RootCAs.AddCert(a.certificate)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func startDNS(t *testing.T) *harness.DNS {
	t.Helper()
	names, err := harness.StartDNS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := names.Close(); err != nil {
			t.Errorf("closing the name server: %v", err)
		}
	})
	return names
}

// listen gives a listener whose connections are handled by handle, each in a goroutine, until the test ends.
func listen(t *testing.T, handle func(ctx context.Context, conn net.Conn)) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close() //nolint:errcheck // only a test's
				handle(ctx, conn)
			})
		}
	})
	t.Cleanup(func() { cancel(); _ = l.Close(); running.Wait() })
	return l.Addr().String()
}

// silent accepts and says nothing.
func silent(ctx context.Context, _ net.Conn) { <-ctx.Done() }

// unused is an address at which nobody listens.
func unused(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return l.Addr().String()
}

// serve starts a server, with TLS if there is a configuration.
func serve(t *testing.T, config *tls.Config, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = quiet()
	if config == nil {
		s.Start()
	} else {
		s.TLS = config
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	return s
}

// answers gives a handler of one answer.
func answers(status int, mediaType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// monitor makes one that records nowhere.
func monitor(t *testing.T, change func(*dependency.Config), probes ...dependency.Probe) *dependency.Monitor {
	t.Helper()
	cfg := dependency.Config{
		Program: "signer", Instance: "one", Probes: probes, Logger: zerolog.Nop(),
		Record: func(context.Context, artifact.Event) error { return nil },
	}
	if change != nil {
		change(&cfg)
	}
	m, err := dependency.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
