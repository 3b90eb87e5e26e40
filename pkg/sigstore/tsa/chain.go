package tsa

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// maxChain is how many certificates a chain may have.
const maxChain = 10

// chain is what an authority is known by.
type chain struct {
	// leaf is the only certificate that may sign; nil if any may that the others lead to.
	leaf          *x509.Certificate
	intermediates []*x509.Certificate
	// root is trusted by configuration, whoever issued it.
	root *x509.Certificate
}

// parseChain reads one chain, in order: the certificate that stamps, where it is there, first, and the trusted one last. It
// is what the authorities hand out, and what a trusted root file has room for.
func parseChain(content []byte) (chain, error) {
	var all []*x509.Certificate
	for rest := content; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 && len(all) > 0 {
				return chain{}, errors.New("something follows the last certificate that is none")
			}
			break
		}
		if block.Type != "CERTIFICATE" {
			return chain{}, fmt.Errorf("want certificates only, got a PEM block of type %.64q", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return chain{}, fmt.Errorf("certificate %d: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
	switch {
	case len(all) == 0:
		return chain{}, errors.New("no certificate in PEM form")
	case len(all) > maxChain:
		return chain{}, fmt.Errorf("%d certificates, want %d at most", len(all), maxChain)
	}
	for i, c := range all[:len(all)-1] {
		if err := c.CheckSignatureFrom(all[i+1]); err != nil {
			return chain{}, fmt.Errorf("%q is not issued by the certificate after it, %q: want one chain, its root last: %w",
				c.Subject, all[i+1].Subject, err)
		}
	}
	found := chain{root: all[len(all)-1]}
	if !found.root.IsCA {
		return chain{}, fmt.Errorf("the last certificate, %q, is that of no authority: add the one that issued it", found.root.Subject)
	}
	found.intermediates = all[:len(all)-1]
	if !all[0].IsCA {
		found.leaf, found.intermediates = all[0], found.intermediates[1:]
	}
	for _, c := range found.intermediates {
		if !c.IsCA {
			return chain{}, fmt.Errorf("%q stands in the middle and is that of no authority", c.Subject)
		}
	}
	return found, nil
}

// notAfter is when the first of the certificates expires.
func (c chain) notAfter() time.Time {
	first := c.root.NotAfter
	for _, other := range c.intermediates {
		first = earlier(first, other.NotAfter)
	}
	if c.leaf != nil {
		first = earlier(first, c.leaf.NotAfter)
	}
	return first
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
