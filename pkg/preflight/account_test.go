package preflight_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// CurrentAccount implements preflight.AccountHarbor.
func (a account) CurrentAccount(context.Context) (artifact.Account, error) { return a.account, a.err }

// System implements preflight.AccountHarbor.
func (a account) System(context.Context) (artifact.SystemInfo, error) {
	return artifact.SystemInfo{Notifications: true}, nil
}

type account struct {
	account artifact.Account
	err     error
}

// newTLSServer serves with a certificate that is its own authority, valid until then, and gives that authority.
func newTLSServer(t *testing.T, until time.Time) (*httptest.Server, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, pool
}

// byName gives the check of a name.
func byName(t *testing.T, checks []preflight.Check, name preflight.Name) preflight.Check {
	t.Helper()
	i := slices.IndexFunc(checks, func(c preflight.Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("got %+v, want a check %s", checks, name)
	}
	return checks[i]
}

func TestCertificate(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name   string
		left   time.Duration
		host   string // in place of the name in the certificate
		trust  bool
		status preflight.Status
		detail string
	}{
		{"good", 100*day + time.Hour, "localhost", true, preflight.OK, "valid for 100 more days"},
		{"ends soon", 13 * day, "localhost", true, preflight.Warning, "more days"},
		{"has ended", -time.Minute, "localhost", true, preflight.Failed, "does not verify"},
		{"of another host", 100 * day, "127.0.0.1", true, preflight.Failed, "for localhost"},
		{"unknown authority", 100 * day, "localhost", false, preflight.Failed, "does not verify"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, pool := newTLSServer(t, time.Now().Add(c.left))
			if !c.trust {
				pool = x509.NewCertPool()
			}
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
			defer transport.CloseIdleConnections()
			_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "https://"), ":")
			got := byName(t, preflight.ForAccount{
				Harbor: account{}, URL: "https://" + c.host + ":" + port, Account: "robot$r", Program: "test", Transport: transport,
			}.Check(t.Context()), preflight.TLS)
			if got.Status != c.status || !strings.Contains(got.Detail, c.detail) {
				t.Errorf("got %s %q, want %s with %q", got.Status, got.Detail, c.status, c.detail)
			}
			if want := c.host + ":" + port + " from the test"; got.Subject != want {
				t.Errorf("got subject %q, want %q", got.Subject, want)
			}
			if (got.Fix == "") != (c.status == preflight.OK) {
				t.Errorf("got fix %q with status %s", got.Fix, got.Status)
			}
		})
	}
}

func TestNoCertificate(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	address := server.URL
	check := func() preflight.Check {
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		return byName(t, preflight.ForAccount{Harbor: account{}, URL: address, Transport: transport}.Check(t.Context()), preflight.TLS)
	}
	if got := check(); got.Status != preflight.Warning || !strings.Contains(got.Detail, "without TLS") {
		t.Errorf("plain HTTP: got %s %q, want a warning", got.Status, got.Detail)
	}
	server.Close()
	if got := check(); got.Status != preflight.Failed || !strings.Contains(got.Detail, "no connection") {
		t.Errorf("nobody there: got %s %q, want failed", got.Status, got.Detail)
	}
}

func TestAccount(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	robot := account{account: artifact.Account{Name: "robot$r", Robot: true}}
	denied := fault.Newf(fault.Permanent, fault.Denied, "no right")
	away := fault.Newf(fault.Transient, fault.Unavailable, "Harbor answers 503")
	for _, c := range []struct {
		name    string
		harbor  account
		expires time.Time
		failing error // of the expiry
		lookup  error
		check   preflight.Name
		status  preflight.Status
		detail  string
	}{
		{"resolves", robot, now, nil, nil, preflight.DNS, preflight.OK, "192.0.2.1, 192.0.2.2"},
		{"does not resolve", robot, now, nil, errors.New("no such host"), preflight.DNS, preflight.Failed, "no such host"},
		{"robot", robot, now, nil, nil, preflight.Login, preflight.OK, "robot account"},
		{"user", account{account: artifact.Account{Name: "admin"}}, now, nil, nil, preflight.Login, preflight.Warning, "a user's account"},
		{"refused", account{err: fault.Newf(fault.Permanent, fault.Unauthorized, "401")}, now, nil, nil, preflight.Login, preflight.Failed, "does not accept"},
		{"away", account{err: away}, now, nil, nil, preflight.Login, preflight.Failed, "could not be told"},
		{"never expires", robot, time.Time{}, nil, nil, preflight.CredentialExpiry, preflight.OK, "never"},
		{"expires late", robot, now.AddDate(0, 0, 30), nil, nil, preflight.CredentialExpiry, preflight.OK, "in 30 days, on 2026-01-31"},
		{"expires soon", robot, now.AddDate(0, 0, 13), nil, nil, preflight.CredentialExpiry, preflight.Warning, "in 13 days"},
		{"has expired", robot, now, nil, nil, preflight.CredentialExpiry, preflight.Failed, "expired on 2026-01-01"},
		{"may not know", robot, now, denied, nil, preflight.CredentialExpiry, preflight.Skipped, "robot:list"},
		{"cannot be told", robot, now, away, nil, preflight.CredentialExpiry, preflight.Skipped, "503"},
	} {
		t.Run(c.name, func(t *testing.T) {
			transport := &http.Transport{}
			got := byName(t, preflight.ForAccount{
				Harbor: c.harbor, URL: "http://127.0.0.1:1", Account: "robot$r", Transport: transport,
				Lookup: func(context.Context, string) ([]string, error) { return []string{"192.0.2.1", "192.0.2.2"}, c.lookup },
				Expiry: func(context.Context) (time.Time, error) { return c.expires, c.failing },
				Now:    func() time.Time { return now },
			}.Check(t.Context()), c.check)
			if got.Status != c.status || !strings.Contains(got.Detail, c.detail) {
				t.Errorf("got %s %q, want %s with %q", got.Status, got.Detail, c.status, c.detail)
			}
			if needs := c.status == preflight.Failed || c.status == preflight.Warning; needs != (got.Fix != "") {
				t.Errorf("got fix %q with status %s", got.Fix, got.Status)
			}
		})
	}
}

func TestProxyIsResolvedInPlaceOfHarbor(t *testing.T) {
	var asked string
	transport := &http.Transport{Proxy: func(*http.Request) (*url.URL, error) { return url.Parse("http://proxy.example.com:3128") }}
	got := byName(t, preflight.ForAccount{
		Harbor: account{}, URL: "http://127.0.0.1:1", Transport: transport,
		Lookup: func(_ context.Context, host string) ([]string, error) {
			asked = host
			return []string{"192.0.2.1"}, nil
		},
	}.Check(t.Context()), preflight.DNS)
	if asked != "proxy.example.com" || got.Subject != asked || got.Status != preflight.OK {
		t.Errorf("asked for %q and got %+v, want the proxy", asked, got)
	}
}

func TestAddress(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	if got := preflight.CheckAddress(t.Context(), transport, server.URL); got.Status != preflight.OK {
		t.Errorf("got %+v, want ok", got)
	}
	server.Close()
	if got := preflight.CheckAddress(t.Context(), transport, server.URL); got.Status != preflight.Warning || got.Fix == "" {
		t.Errorf("got %+v, want a warning", got)
	}
}
