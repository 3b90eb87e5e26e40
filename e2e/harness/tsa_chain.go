package harness

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"slices"
	"time"
)

// issued is a chain of certificates, the leaf first, and the leaf's key.
type issued struct {
	certificates []*x509.Certificate
	key          crypto.PrivateKey
}

// issueChain issues certificates to each other, the root first.
func issueChain(templates ...*x509.Certificate) (issued, error) {
	var made issued
	var above *x509.Certificate
	var signer *ecdsa.PrivateKey
	for _, template := range templates {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return issued{}, fmt.Errorf("issuing a certificate: %w", err)
		}
		if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
			return issued{}, fmt.Errorf("issuing a certificate: %w", err)
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
		if above == nil {
			above, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, above, key.Public(), signer)
		if err != nil {
			return issued{}, fmt.Errorf("issuing a certificate: %w", err)
		}
		if above, err = x509.ParseCertificate(der); err != nil {
			return issued{}, fmt.Errorf("issuing a certificate: %w", err)
		}
		signer = key
		made.certificates = append(made.certificates, above)
	}
	slices.Reverse(made.certificates)
	made.key = signer
	return made, nil
}

// authorityTemplate is one for issueChain.
func authorityTemplate(name string, usages ...x509.ExtKeyUsage) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name, Organization: []string{"harborseal tests"}}, BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: usages,
	}
}

// write puts the chain and the leaf's key into PEM files.
func (i issued) write(chain, key string) error {
	var certificates []byte
	for _, c := range i.certificates {
		certificates = append(certificates, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		return fmt.Errorf("writing a key: %w", err)
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for path, content := range map[string][]byte{chain: certificates, key: secret} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("writing a chain: %w", err)
		}
	}
	return nil
}
