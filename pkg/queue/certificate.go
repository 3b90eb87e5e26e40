package queue

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"

	"github.com/rs/zerolog"
)

// certificate gives the pair of the listener, read again for each handshake: handshakes are rare, signers keep their
// connections. It is safe for concurrent use.
type certificate struct {
	certFile, keyFile string
	log               zerolog.Logger

	mu      sync.Mutex
	last    *tls.Certificate // guarded by mu; the last pair that fitted
	failing bool             // guarded by mu; the last try failed: it was said once
}

// get is a tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err == nil {
		c.last, c.failing = &pair, false
		return c.last, nil
	}
	if c.last == nil {
		return nil, err
	}
	if !c.failing {
		c.failing = true
		c.log.Error().Err(err).Msg("certificate of the listener cannot be used, the last good one is served")
	}
	return c.last, nil
}

// load reads the files once, so that a mistake is found at the start.
func (c TLSConfig) load(log zerolog.Logger) (*tls.Config, error) {
	pair := &certificate{certFile: c.CertFile, keyFile: c.KeyFile, log: log.With().Str("component", "nats_server").Logger()}
	if _, err := pair.get(nil); err != nil {
		return nil, fmt.Errorf("certificate of the listener: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.get}
	if c.ClientCAFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(c.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("client CA of the listener: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("client CA of the listener: %s holds no certificate", c.ClientCAFile)
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, nil
}
