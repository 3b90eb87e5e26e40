package checker

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Log is a transparency log whose entries count.
type Log struct {
	// Name is what the report calls it.
	Name string
	// Key is its public key, ECDSA, in PEM.
	Key []byte
	// Origin is the name in the checkpoints of Rekor v2; empty for Rekor v1.
	Origin string
}

// Trust is what log entries and timestamps are verified with. Its zero value trusts none.
type Trust struct {
	Logs []Log
	// Authorities are chains in PEM: the certificate that stamps first, the root last.
	Authorities [][]byte
}

// Asked is what has to stand beside every signature that has a place for it. A legacy signature has none for an entry of
// Rekor v2.
type Asked struct {
	Log, Timestamp bool
}

// Entry is an entry of a log that counts.
type Entry struct {
	// Log is the log's name.
	Log   string
	Index int64
	// At is when the log says that it was made: zero for Rekor v2, which does not say it.
	At time.Time
}

// Identity is who signs with certificates that live for minutes.
type Identity struct {
	Issuer, Subject string
	// Roots are in PEM: certificates that are self-signed are trusted, the others lead to them.
	Roots []byte
}

// Trusting gives a checker that also judges what stands beside signatures.
func (c *Checker) Trusting(t Trust, asked Asked) (*Checker, error) {
	trust, err := newTrusted(t)
	if err != nil {
		return nil, err
	}
	with := *c
	with.trust, with.asked = trust, asked
	return &with, nil
}

// By gives a checker for which our key is whichever a certificate of an identity has. Its signatures count only if a log
// or an authority that is trusted proves that they were made while the certificate was valid.
func (c *Checker) By(i Identity) (*Checker, error) {
	roots, others, err := authorities(i.Roots)
	if err != nil {
		return nil, err
	}
	by := *c
	by.key, by.identity = nil, &identity{Identity: i, roots: roots, others: others}
	return &by, nil
}

// identity is an Identity whose certificates are parsed.
type identity struct {
	Identity

	roots, others *x509.CertPool
}

func authorities(text []byte) (roots, others *x509.CertPool, err error) {
	chain, err := certificates(text)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the roots of an identity: %w", err)
	}
	roots, others = x509.NewCertPool(), x509.NewCertPool()
	for _, c := range chain {
		if bytes.Equal(c.RawIssuer, c.RawSubject) {
			roots.AddCert(c)
		} else {
			others.AddCert(c)
		}
	}
	return roots, others, nil
}

// id is what stands for the identity in the report, where that of a key is the hash of the key: the SHA-256 of what it is, who
// issues and who it is, each after its length in eight bytes.
func (i *identity) id() string {
	h := sha256.New()
	for _, part := range []string{"harborseal keyless identity", i.Issuer, i.Subject} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// key gives the key of a certificate that names the identity; nil for another one. Who made the certificate and when it was
// valid is looked at by lived.
//
// SPEC: Fulcio's certificates: the subject is a URI or an address of mail among the alternative names, and the issuer an extension, a
// UTF8String in its second form.
func (i *identity) key(certificate []byte) crypto.PublicKey {
	c, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil
	}
	named := slices.Contains(c.EmailAddresses, i.Subject)
	for _, u := range c.URIs {
		named = named || u.String() == i.Subject
	}
	for _, e := range c.Extensions {
		var issuer string
		if !e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}) {
			continue
		}
		if rest, err := asn1.UnmarshalWithParams(e.Value, &issuer, "utf8"); err == nil && len(rest) == 0 && issuer == i.Issuer && named {
			return c.PublicKey
		}
	}
	return nil
}

// lived says whether a certificate was valid at a time.
func (i *identity) lived(certificate []byte, at time.Time) bool {
	c, err := x509.ParseCertificate(certificate)
	if err != nil {
		return false
	}
	_, err = c.Verify(x509.VerifyOptions{
		Roots: i.roots, Intermediates: i.others, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	})
	return err == nil
}

// keyBehind is the key that counts as ours for a signature with this certificate, or without one; nil for none.
func (c *Checker) keyBehind(certificate []byte) crypto.PublicKey {
	if c.identity == nil {
		return c.key
	}
	return c.identity.key(certificate)
}

// keyID stands for our key or identity in the report.
func (c *Checker) keyID() (string, error) {
	if c.identity != nil {
		return c.identity.id(), nil
	}
	return KeyID(c.key)
}

// trusted is a Trust as sigstore-go takes it. It is immutable, but for the copies with a key.
type trusted struct {
	root.BaseTrustedMaterial

	logs   map[string]*root.TransparencyLog
	names  map[string]string // by the log's id in hexadecimal digits
	stamps []root.TimestampingAuthority
	// key is the one that a bundle's hint stands for, whatever it says.
	key crypto.PublicKey
}

func newTrusted(t Trust) (*trusted, error) {
	made := &trusted{logs: make(map[string]*root.TransparencyLog), names: make(map[string]string)}
	for _, l := range t.Logs {
		key, err := ParseKey(l.Key)
		if err != nil {
			return nil, fmt.Errorf("log %s: %w", l.Name, err)
		}
		if _, ok := key.(*ecdsa.PublicKey); !ok {
			return nil, fmt.Errorf("log %s: want a key of ECDSA, got %T", l.Name, key)
		}
		// SPEC: Rekor: a log's id is the SHA-256 of its key; so it is in Rekor v2 for a key of this kind.
		id, err := KeyID(key)
		if err != nil {
			return nil, fmt.Errorf("log %s: %w", l.Name, err)
		}
		raw, err := hex.DecodeString(id)
		if err != nil {
			return nil, fmt.Errorf("log %s: %w", l.Name, err)
		}
		made.names[id] = l.Name
		made.logs[id] = &root.TransparencyLog{
			// It is dialled by nobody: the host is what checkpoints are signed by.
			BaseURL: "https://" + l.Origin, ID: raw, HashFunc: crypto.SHA256, PublicKey: key, SignatureHashFunc: crypto.SHA256,
			// Without one it takes no promise.
			ValidityPeriodStart: time.Unix(0, 0),
		}
	}
	for i, text := range t.Authorities {
		chain, err := certificates(text)
		if err == nil && len(chain) < 2 {
			err = errors.New("want the certificate that stamps and its root at least")
		}
		if err != nil {
			return nil, fmt.Errorf("authority %d: %w", i, err)
		}
		made.stamps = append(made.stamps, &root.SigstoreTimestampingAuthority{
			Leaf: chain[0], Intermediates: chain[1 : len(chain)-1], Root: chain[len(chain)-1],
		})
	}
	return made, nil
}

// with gives a copy for signatures by a key; nil for those that come with a certificate.
func (t *trusted) with(key crypto.PublicKey) *trusted {
	return &trusted{logs: t.logs, names: t.names, stamps: t.stamps, key: key}
}

// RekorLogs are the logs by their ids.
func (t *trusted) RekorLogs() map[string]*root.TransparencyLog { return t.logs }

// TimestampingAuthorities are the authorities.
func (t *trusted) TimestampingAuthorities() []root.TimestampingAuthority { return t.stamps }

// PublicKeyVerifier verifies with our key, whatever the hint.
func (t *trusted) PublicKeyVerifier(string) (root.TimeConstrainedVerifier, error) {
	if t.key == nil {
		return nil, errors.New("there is an identity, no key")
	}
	v, err := signature.LoadVerifier(t.key, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("using the key: %w", err)
	}
	return root.NewExpiringKey(v, time.Time{}, time.Time{}), nil
}

func certificates(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading a certificate: %w", err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("there is no certificate in PEM")
	}
	return all, nil
}
