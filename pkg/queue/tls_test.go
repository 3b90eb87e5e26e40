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
	"path/filepath"
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

func TestTLS(t *testing.T) {
	t.Parallel()
	trusted, other := newAuthority(t), newAuthority(t)
	leaf := func() *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: "leaf"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
	}
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
