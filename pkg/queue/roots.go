package queue

import (
	"crypto/x509"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
)

// trust makes nats.go trust the authorities of the system and those in the file, which is read for each connection.
// nats.RootCAs would trust those in the file alone.
func trust(caFile string) nats.Option {
	return func(opts *nats.Options) error {
		opts.RootCAsCB = func() (*x509.CertPool, error) { return authorities(caFile) }
		return nil
	}
}

// authorities gives those of the system and those in the PEM file.
func authorities(caFile string) (*x509.CertPool, error) {
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
