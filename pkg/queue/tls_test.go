package queue_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// authority is a certificate authority whose files lie in one folder.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	file        string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.file, _ = a.issue(t, template)
	return a
}

// issue signs a certificate and writes it and its key into files. The first one is the authority's own.
func (a *authority) issue(t *testing.T, template *x509.Certificate) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate == nil {
		a.key = key
		if a.certificate, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// leaf is a certificate for the loopback address, for both ends.
func leaf() *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: "leaf"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	trusted, other := newAuthority(t), newAuthority(t)
	serverCfg, clientCfg := network(t)
	serverCfg.TLS = &queue.TLSConfig{ClientCAFile: trusted.file}
	serverCfg.TLS.CertFile, serverCfg.TLS.KeyFile = trusted.issue(t, leaf())
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"tls://" + server.Addr()}
	clientCfg.TLS.CAFile = trusted.file
	clientCfg.TLS.CertFile, clientCfg.TLS.KeyFile = trusted.issue(t, leaf())

	client := queuetest.Connect(t, clientCfg)
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Live))
	// This process needs no certificate.
	queuetest.NewClient(t, server)

	wrongRoots, anonymous, foreign := clientCfg, clientCfg, clientCfg
	wrongRoots.TLS.CAFile = other.file
	anonymous.TLS.CertFile, anonymous.TLS.KeyFile = "", ""
	foreign.TLS.CertFile, foreign.TLS.KeyFile = other.issue(t, leaf())
	for name, cfg := range map[string]queue.Config{
		"server of another authority": wrongRoots, "no client certificate": anonymous, "client of another authority": foreign,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		client, err := queue.Connect(ctx, cfg)
		cancel()
		if err == nil {
			client.Close()
			t.Errorf("%s: connected", name)
			continue
		}
		wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	}
}

// The two files of a certificate are never replaced at the same instant, and not always by something that fits.
func TestServerKeepsTheLastGoodCertificate(t *testing.T) {
	t.Parallel()
	trusted := newAuthority(t)
	var log logBuffer
	serverCfg, clientCfg := network(t)
	serverCfg.Logger = newLogger(&log)
	serverCfg.TLS = &queue.TLSConfig{}
	serverCfg.TLS.CertFile, serverCfg.TLS.KeyFile = trusted.issue(t, leaf())
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs, clientCfg.TLS.CAFile = []string{"tls://" + server.Addr()}, trusted.file
	served := func() *big.Int {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		client, err := queue.Connect(ctx, clientCfg)
		if err != nil {
			t.Fatalf("connecting: %v", err)
		}
		defer client.Close()
		return client.ServerCertificate().SerialNumber
	}
	const message = "the last good one is served"
	first := served()
	newCert, newKey := trusted.issue(t, leaf())
	replace(t, newCert, serverCfg.TLS.CertFile)
	for range 2 {
		if got := served(); got.Cmp(first) != 0 {
			t.Errorf("certificate %d while the files do not fit, want the last good one, %d", got, first)
		}
	}
	if got := strings.Count(log.String(), message); got != 1 {
		t.Errorf("said %d times that the certificate cannot be used, want once", got)
	}
	replace(t, newKey, serverCfg.TLS.KeyFile)
	second := served()
	if second.Cmp(first) == 0 {
		t.Errorf("certificate %d after both files were replaced, want the new one", second)
	}
	if err := os.Remove(serverCfg.TLS.KeyFile); err != nil {
		t.Fatal(err)
	}
	if got := served(); got.Cmp(second) != 0 {
		t.Errorf("certificate %d without a key, want the last good one, %d", got, second)
	}
	if got := strings.Count(log.String(), message); got != 2 {
		t.Errorf("said %d times that the certificate cannot be used, want once for each time that it broke", got)
	}
}

// replace gives a file the content of another one.
func replace(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from) //nolint:gosec // a file of this test
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o600); err != nil { //nolint:gosec // a file of this test
		t.Fatal(err)
	}
}

// The authorities of the system are read once in a process, so that this runs in one of its own.
func TestSystemAuthoritiesStayTrusted(t *testing.T) {
	const child = "HARBORSEAL_TEST_OWN_PROCESS"
	if os.Getenv(child) == "" {
		t.Parallel()
		//nolint:gosec // this very program
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSystemAuthoritiesStayTrusted$", "-test.v")
		again.Env = append(os.Environ(), child+"=1")
		output, err := again.CombinedOutput()
		if err != nil || !strings.Contains(string(output), "--- PASS") {
			t.Errorf("in a process of its own: %v\n%s", err, output)
		}
		return
	}
	system, private := newAuthority(t), newAuthority(t)
	t.Setenv("SSL_CERT_FILE", system.file)
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	for name, issuer := range map[string]*authority{"system": system, "file": private} {
		serverCfg, clientCfg := network(t)
		serverCfg.TLS = &queue.TLSConfig{}
		serverCfg.TLS.CertFile, serverCfg.TLS.KeyFile = issuer.issue(t, leaf())
		server := queuetest.StartServer(t, serverCfg)
		clientCfg.URLs, clientCfg.TLS.CAFile = []string{"tls://" + server.Addr()}, private.file
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		client, err := queue.Connect(ctx, clientCfg)
		cancel()
		if err != nil {
			t.Errorf("server with a certificate of an authority of the %s: %v", name, err)
			continue
		}
		client.Close()
	}
}
