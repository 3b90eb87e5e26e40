package fulcio

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/pubkey"
)

const (
	// maxCertificates is how many a chain may have, and maxCertificate how long each may be, in bytes.
	maxCertificates = 10
	maxCertificate  = 32 << 10
)

// trust is who is believed and what about. It is immutable.
type trust struct {
	roots, intermediates *x509.CertPool
	issuer, subject      string
	// id names the roots.
	id []byte
}

func newTrust(content []byte, issuer, subject string) (trust, error) {
	sum := sha256.Sum256(content)
	t := trust{roots: x509.NewCertPool(), intermediates: x509.NewCertPool(), issuer: issuer, subject: subject, id: sum[:]}
	var problems []error
	if issuer == "" {
		problems = append(problems, errors.New("issuer is required"))
	}
	if subject == "" {
		problems = append(problems, errors.New("subject is required"))
	}
	all, err := parsePEM(content)
	if err != nil {
		problems = append(problems, fmt.Errorf("roots: %w", err))
	}
	trusted := 0
	for _, c := range all {
		switch {
		case !c.IsCA:
			problems = append(problems, fmt.Errorf("roots: %q is the certificate of no authority", c.Subject))
		case bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil:
			t.roots.AddCert(c)
			trusted++
		default:
			t.intermediates.AddCert(c)
		}
	}
	if err == nil && trusted == 0 {
		problems = append(problems, errors.New("roots: none of the certificates is self-signed: add the root that they lead to"))
	}
	return t, errors.Join(problems...)
}

// Verify says whether the certificates, in DER and the signer's own first, are those of this identity at the given time: one
// leads to the configured roots, all that are needed were valid at that time, it is made for signing code, and has the
// configured issuer and the configured subject as its only name. It gives the signer's public key, a SubjectPublicKeyInfo in
// DER. Whether the time is proven is the caller's business. What does not verify is a transient fault, ProofInvalid. It is
// pure.
func (i *Identity) Verify(certificates [][]byte, at time.Time) (publicKeyDER []byte, err error) {
	parsed, err := parseDER(certificates)
	if err == nil {
		parsed, err = i.trust.chain(parsed, at)
	}
	if err != nil {
		return nil, fault.Newf(fault.Transient, fault.ProofInvalid, "verifying a certificate of %s: %w", i.name, clean(err))
	}
	return parsed[0].RawSubjectPublicKeyInfo, nil
}

// chain gives the chain from the first certificate to a root, if it is one of the identity's.
func (t trust) chain(given []*x509.Certificate, at time.Time) ([]*x509.Certificate, error) {
	leaf := given[0]
	if err := t.checkIdentity(leaf); err != nil {
		return nil, err
	}
	intermediates := t.intermediates.Clone()
	for _, c := range given[1:] {
		intermediates.AddCert(c)
	}
	chains, err := nameHandled(leaf).Verify(x509.VerifyOptions{
		CurrentTime: at, Roots: t.roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	})
	if err != nil {
		return nil, fmt.Errorf("the certificate does not lead to the configured roots at %s: %w", at.UTC().Format(time.RFC3339), err)
	}
	return chains[0], nil
}

// checkIdentity looks at all but the chain. A certificate with several names is refused: verifiers differ in which of them
// they look at, and Fulcio gives one.
func (t trust) checkIdentity(leaf *x509.Certificate) error {
	if leaf.IsCA {
		return errors.New("the certificate is that of an authority")
	}
	// Package x509 takes a certificate that names no usage for one that is good for all.
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) {
		return errors.New("the certificate is not made for signing code")
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return errors.New("the certificate is not made for signatures")
	}
	if _, err := pubkey.New(leaf.PublicKey); err != nil {
		return fmt.Errorf("the certificate's key: %w", err)
	}
	if n := len(leaf.URIs) + len(leaf.EmailAddresses) + len(leaf.DNSNames) + len(leaf.IPAddresses); n > 1 {
		return fmt.Errorf("the certificate has %d names, want one", n)
	}
	summary, err := certificate.SummarizeCertificate(leaf)
	if err != nil {
		return fmt.Errorf("reading the certificate's identity: %w", err)
	}
	if summary.Issuer != t.issuer {
		return fmt.Errorf("the certificate's issuer is %.256q, want %q", summary.Issuer, t.issuer)
	}
	if summary.SubjectAlternativeName != t.subject {
		return fmt.Errorf("the certificate's subject is %.256q, want %q", summary.SubjectAlternativeName, t.subject)
	}
	return nil
}

// nameHandled gives the certificate with its name marked as understood. Package x509 does not know the "other name" that
// stands for a user of a private issuer, and refuses it where it is critical; checkIdentity has read it.
func nameHandled(leaf *x509.Certificate) *x509.Certificate {
	copied := *leaf
	copied.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(leaf.UnhandledCriticalExtensions), func(id asn1.ObjectIdentifier) bool {
		return id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17})
	})
	return &copied
}

func parseDER(certificates [][]byte) ([]*x509.Certificate, error) {
	if n := len(certificates); n == 0 || n > maxCertificates {
		return nil, fmt.Errorf("there are %d certificates, want 1 to %d", n, maxCertificates)
	}
	parsed := make([]*x509.Certificate, 0, len(certificates))
	for n, der := range certificates {
		if len(der) > maxCertificate {
			return nil, fmt.Errorf("certificate %d has %d bytes, at most %d are read", n, len(der), maxCertificate)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n, err)
		}
		parsed = append(parsed, c)
	}
	return parsed, nil
}

// parsePEM reads certificates and nothing else.
func parsePEM(content []byte) ([]*x509.Certificate, error) {
	var ders [][]byte
	for rest := content; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 && len(ders) > 0 {
				return nil, errors.New("something follows the last certificate that is none")
			}
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("want certificates only, got a PEM block of type %.64q", block.Type)
		}
		ders = append(ders, block.Bytes)
	}
	if len(ders) == 0 {
		return nil, errors.New("no certificate in PEM form")
	}
	return parseDER(ders)
}
