package fulcio

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/redact"
)

// maxAnswer bounds an answer, in bytes: one with a chain of certificates has some thousand.
const maxAnswer = 256 << 10

// SPEC: fulcio.proto, service CA, over HTTP.
const (
	certificatePath = "api/v2/signingCert"
	authoritiesPath = "api/v2/trustBundle"
)

// askCertificate makes the one request and gives the certificates of the answer, the leaf first.
//
// SPEC: fulcio.proto, CreateSigningCertificateRequest: a certificate signing request proves that one has the key; of what it
// says but that, nothing counts.
func (i *Identity) askCertificate(ctx context.Context, key *ecdsa.PrivateKey, token string) ([]*x509.Certificate, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fault.Newf(fault.Transient, fault.KeyUnavailable, "making a signing request: %w", err)
	}
	body, err := json.Marshal(struct {
		CSR []byte `json:"certificateSigningRequest"`
	}{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})})
	if err != nil {
		return nil, fmt.Errorf("making a signing request: %w", err)
	}
	answer, err := i.call(ctx, http.MethodPost, certificatePath, body, token)
	if err != nil {
		return nil, fmt.Errorf("asking for a certificate: %w", err)
	}
	chain, err := parseAnswer(answer)
	if err != nil {
		return nil, fault.Newf(fault.Transient, fault.BadAnswer, "asking for a certificate: %w", clean(err))
	}
	return chain, nil
}

// parseAnswer reads the certificates of an answer. Where the record in a certificate transparency log is kept does not matter
// here.
//
// SPEC: fulcio.proto, SigningCertificate: the leaf first.
func parseAnswer(answer []byte) ([]*x509.Certificate, error) {
	type signed struct {
		Chain chainAnswer `json:"chain"`
	}
	var a struct {
		Embedded signed `json:"signedCertificateEmbeddedSct"`
		Detached signed `json:"signedCertificateDetachedSct"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, errors.New("the answer is not Fulcio's: check the url")
	}
	chain := a.Embedded.Chain
	if len(chain.Certificates) == 0 {
		chain = a.Detached.Chain
	}
	return chain.parse()
}

type chainAnswer struct {
	Certificates []string `json:"certificates"`
}

func (c chainAnswer) parse() ([]*x509.Certificate, error) {
	return parsePEM([]byte(strings.Join(c.Certificates, "\n")))
}

// checkAuthorities asks Fulcio by whom its certificates are issued. One of them has to be known here.
//
// SPEC: fulcio.proto, TrustBundle: the issuing authority first, the root last.
func (i *Identity) checkAuthorities(ctx context.Context) error {
	answer, err := i.call(ctx, http.MethodGet, authoritiesPath, nil, "")
	if err != nil {
		return fmt.Errorf("asking for its authorities: %w", err)
	}
	var a struct {
		Chains []chainAnswer `json:"chains"`
	}
	if err := json.Unmarshal(answer, &a); err != nil || len(a.Chains) == 0 {
		return fault.New(fault.Transient, fault.BadAnswer, errors.New("asking for its authorities: the answer is not Fulcio's: check the url"))
	}
	for _, c := range a.Chains {
		chain, err := c.parse()
		if err != nil {
			return fault.Newf(fault.Transient, fault.BadAnswer, "asking for its authorities: %w", clean(err))
		}
		if i.trust.knows(chain, i.now()) {
			return nil
		}
	}
	return fault.New(fault.Transient, fault.ProofInvalid, errors.New("none of its authorities leads to the configured roots"))
}

// knows says whether an authority leads to the roots.
func (t trust) knows(chain []*x509.Certificate, now time.Time) bool {
	intermediates := t.intermediates.Clone()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		CurrentTime: now, Roots: t.roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil
}

// call makes one request and gives the body of a good answer.
func (i *Identity) call(ctx context.Context, method, path string, body []byte, token string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, i.url.JoinPath(path).String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", i.userAgent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	redactor := redact.New(token)
	resp, err := i.transport.RoundTrip(req) // and not a client, which follows redirects
	if err != nil {
		return nil, connectionFault(err, i.url.Hostname(), redactor)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated:
		return nil, statusFault(resp, answer, i.now(), redactor)
	case err != nil:
		return nil, connectionFault(err, i.url.Hostname(), redactor)
	case len(answer) > maxAnswer:
		return nil, fault.Newf(fault.Transient, fault.BadAnswer, "an answer of more than %d bytes", maxAnswer)
	}
	return answer, nil
}
