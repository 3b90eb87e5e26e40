package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log" //nolint:depguard // what the server takes
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/registry"
)

// authority makes a certificate authority of this name.
func authority(tb testing.TB, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	tb.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	return issue(tb, template, nil, nil)
}

// issue makes a certificate; a nil parent stands for itself.
func issue(tb testing.TB, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		tb.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		tb.Fatal(err)
	}
	return certificate, key
}

// serveTLS serves a fake registry with a certificate.
func serveTLS(tb testing.TB, f *fake, certificate *x509.Certificate, key *ecdsa.PrivateKey) *httptest.Server {
	tb.Helper()
	server := httptest.NewUnstartedServer(f)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	tb.Cleanup(server.Close)
	return server
}

// trusting makes a transport that trusts one authority alone; nil for none.
func trusting(tb testing.TB, ca *x509.Certificate) *http.Transport {
	tb.Helper()
	transport := newTransport(tb)
	pool := x509.NewCertPool()
	if ca != nil {
		pool.AddCert(ca)
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return transport
}

func local() []net.IP { return []net.IP{net.IPv4(127, 0, 0, 1)} }

// TestCertificateThatDoesNotVerify wants each refusal to name the certificate, its authority, and what to do.
func TestCertificateThatDoesNotVerify(t *testing.T) {
	t.Parallel()
	ca, caKey := authority(t, "The Company's CA")
	other, _ := authority(t, "Another CA")
	past := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name     string
		template *x509.Certificate
		own      bool // issued by itself
		trusted  *x509.Certificate
		want     []string
	}{
		{"good", &x509.Certificate{Subject: pkix.Name{CommonName: "harbor"}, IPAddresses: local()}, false, ca, nil},
		{"unknown authority", &x509.Certificate{Subject: pkix.Name{CommonName: "harbor"}, IPAddresses: local()}, false, other, []string{`the authority "CN=The Company's CA" is not trusted: add its certificate`}},
		{"its own authority", &x509.Certificate{Subject: pkix.Name{CommonName: "harbor"}, IPAddresses: local()}, true, ca, []string{`the authority "CN=harbor" is not trusted`}},
		{"another name", &x509.Certificate{Subject: pkix.Name{CommonName: "harbor"}, DNSNames: []string{"a.example.com", "b.example.com"}}, false, ca, []string{"it is for a.example.com, b.example.com and not for 127.0.0.1"}},
		{"another address", &x509.Certificate{Subject: pkix.Name{CommonName: "harbor"}, IPAddresses: []net.IP{net.IPv4(10, 1, 2, 3)}}, false, ca, []string{"it is for 10.1.2.3 and not for 127.0.0.1"}},
		{"no name", &x509.Certificate{Subject: pkix.Name{CommonName: "harbor"}}, false, ca, []string{"it is for no host and not for 127.0.0.1"}},
		{"many names", &x509.Certificate{DNSNames: []string{"a", "b", "c", "d", "e", "f", "g"}}, false, ca, []string{"it is for a, b, c, d, e, others and"}},
		{"expired", &x509.Certificate{Subject: pkix.Name{CommonName: "harbor"}, IPAddresses: local(), NotBefore: past, NotAfter: past.Add(time.Hour)}, false, ca, []string{`"CN=harbor", issued by "CN=The Company's CA"`, "from 2020-01-02T03:04:05Z to 2020-01-02T04:04:05Z", "renew it"}},
		{"not for servers", &x509.Certificate{Subject: pkix.Name{CommonName: "harbor"}, IPAddresses: local(), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, false, ca, []string{`it was issued by "CN=The Company's CA"`, "incompatible key usage"}},
		{"control characters and a secret", &x509.Certificate{Subject: pkix.Name{CommonName: "\x1b[31m" + secret}, IPAddresses: local()}, true, ca, []string{"is not trusted"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			parent, parentKey := ca, caKey
			if tt.own {
				parent, parentKey = nil, nil
			}
			certificate, key := issue(t, tt.template, parent, parentKey)
			server := serveTLS(t, newFake(), certificate, key)
			err := newClient(t, server.URL, func(cfg *registry.Config) { cfg.Transport = trusting(t, tt.trusted) }).CheckPush(t.Context(), repository)
			if len(tt.want) == 0 {
				// The fake's realm has no TLS: being sent there is beyond the handshake.
				if err == nil || fault.Of(err).Reason != fault.ForeignOrigin {
					t.Errorf("CheckPush() = %v, want an answer", err)
				}
				return
			}
			if got := fault.Of(err); got.Kind != fault.Transient || got.Reason != fault.Unreachable {
				t.Errorf("fault = %s %s (%v), want transient unreachable", got.Kind, got.Reason, got.Err)
			}
			for _, part := range append(tt.want, "the certificate of 127.0.0.1 does not verify") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\x1b") || len(err.Error()) > 700 {
				t.Errorf("error %q, want a short one without control characters and secrets", err)
			}
		})
	}
}

// picking sends the requests that an operation is about over another transport than the others.
type picking struct {
	op         operation
	that, rest http.RoundTripper
}

func (p picking) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.op.meets(r) {
		return p.that.RoundTrip(r)
	}
	return p.rest.RoundTrip(r)
}

// TestCertificateIsCheckedInEveryOperation meets the certificate in the middle of each of them, as after a rotation.
func TestCertificateIsCheckedInEveryOperation(t *testing.T) {
	t.Parallel()
	ca, caKey := authority(t, "The Company's CA")
	for _, op := range operations() {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			certificate, key := issue(t, &x509.Certificate{IPAddresses: local()}, ca, caKey)
			server := serveTLS(t, f, certificate, key)
			f.realm = server.URL + "/service/token"
			c := newClient(t, server.URL, func(cfg *registry.Config) {
				cfg.Transport = picking{op: op, that: trusting(t, nil), rest: trusting(t, ca)}
			})
			err := op.run(t.Context(), c)
			if got := fault.Of(err); got.Kind != fault.Transient || got.Reason != fault.Unreachable {
				t.Errorf("fault = %s %s (%v), want transient unreachable", got.Kind, got.Reason, got.Err)
			}
			if !strings.Contains(err.Error(), `the authority "CN=The Company's CA" is not trusted`) {
				t.Errorf("error %q does not name the authority", err)
			}
		})
	}
}
