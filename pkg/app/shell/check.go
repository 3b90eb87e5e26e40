package shell

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/secretfile"
)

// CheckQueue reads what a program reads for each connection to the queue: password, authorities, client certificate.
func CheckQueue(q config.Queue) error {
	_, caErr := egress.Authorities(q.TLS.CAFile)
	return errors.Join(CheckSecret(q.PasswordFile), caErr, CheckPair("queue.tls", q.TLS.CertFile, q.TLS.KeyFile))
}

// CheckSecret reads a secret of one line; none is good.
func CheckSecret(path string) error {
	if path == "" {
		return nil
	}
	_, err := secretfile.ReadLine(path)
	return err
}

// CheckPair reads a certificate with its key; none is good. key is where they stand in the configuration.
func CheckPair(key, certFile, keyFile string) error {
	if certFile == "" {
		return nil
	}
	if _, err := tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}
