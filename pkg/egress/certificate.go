package egress

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// maxNames is how many of a certificate's names an error repeats.
const maxNames = 5

// WithCertificate says of a certificate that does not verify which one it is, who issued it, and what to do. Other errors
// stay as they are. The texts of package x509 leave out most of that, and name an authority only where they suspect one.
// The certificate is the other side's word: the caller cleans the text.
func WithCertificate(err error, host string) error {
	refused, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(refused.UnverifiedCertificates) == 0 {
		return err
	}
	leaf := refused.UnverifiedCertificates[0]
	last := refused.UnverifiedCertificates[len(refused.UnverifiedCertificates)-1]
	return fmt.Errorf("the certificate of %s does not verify: %s: %w", host, certificateAdvice(refused.Err, leaf, last, host), err)
}

// certificateAdvice gets the server's own certificate and the last one of the chain that it sent.
func certificateAdvice(err error, leaf, last *x509.Certificate, host string) string {
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, new(x509.HostnameError)):
		return fmt.Sprintf("it is for %s and not for %s: set the URL to a name that it has, or give the server a certificate with this one",
			certificateNames(leaf), host)
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return fmt.Sprintf("the authority %q is not trusted: add its certificate to the configured authorities, or have the server send "+
			"its whole chain", last.Issuer)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("%q, issued by %q, is valid from %s to %s: renew it, or set the clock right", invalid.Cert.Subject, invalid.Cert.Issuer,
			invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	default:
		return fmt.Sprintf("it was issued by %q", leaf.Issuer)
	}
}

// certificateNames lists what a certificate is for.
func certificateNames(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, net.IP.String(ip))
	}
	switch {
	case len(names) == 0:
		return "no host"
	case len(names) > maxNames:
		names = append(names[:maxNames], "others")
	}
	return strings.Join(names, ", ")
}
