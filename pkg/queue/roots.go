package queue

import (
	"crypto/x509"

	"github.com/nats-io/nats.go"

	"github.com/harborseal/harborseal/pkg/egress"
)

// trust makes nats.go trust the authorities of the system and those in the file, which is read for each connection.
// nats.RootCAs would trust those in the file alone.
func trust(caFile string) nats.Option {
	return func(opts *nats.Options) error {
		opts.RootCAsCB = func() (*x509.CertPool, error) { return egress.Authorities(caFile) }
		return nil
	}
}
