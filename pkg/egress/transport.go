package egress

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"time"
)

const (
	// Most requests go to one host, Harbor, and a signer works on 32 digests at once by default: that many connections
	// and some more stay open instead of being made anew, and a flood cannot open more than maxPerHost.
	idlePerHost = 64
	maxPerHost  = 128
	maxIdle     = 256
	idleTimeout = 90 * time.Second

	handshakeTimeout = 10 * time.Second
	continueTimeout  = time.Second
	maxHeaderBytes   = 256 << 10
)

// NewTransport makes a transport whose connections are opened by dialer. It trusts the authorities of the system and, if
// caFile is not empty, those in that PEM file, asks for TLS 1.2 or later, speaks HTTP/2 where the other side does, and
// obeys HTTP_PROXY, HTTPS_PROXY and NO_PROXY. It sets no limit on a whole request: that is the client's. The transport
// belongs to the caller, who closes its idle connections in the end.
func NewTransport(dialer *Dialer, caFile string) (*http.Transport, error) {
	roots, err := Authorities(caFile)
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    handshakeTimeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    idlePerHost,
		MaxConnsPerHost:        maxPerHost,
		IdleConnTimeout:        idleTimeout,
		ExpectContinueTimeout:  continueTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}, nil
}

// Authorities gives those of the system and those in the PEM file. Without a file it gives nil, which stands for the
// system's.
func Authorities(caFile string) (*x509.CertPool, error) {
	if caFile == "" {
		return nil, nil //nolint:nilnil // nil is what crypto/tls takes for the system's authorities
	}
	content, err := os.ReadFile(caFile) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("reading the authorities: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading the authorities of the system: %w", err)
	}
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("reading the authorities in %s: no certificate in PEM form", caFile)
	}
	return pool, nil
}
