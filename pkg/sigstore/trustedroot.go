package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrust "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/rekor-tiles/v2/pkg/note"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/pubkey"
)

const trustedRootType = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"

// newTrustedRoot writes the trusted root file, without white space. The error names all that cannot be read.
//
// SPEC: sigstore's trusted root, version 0.1. Each key and chain is valid from the beginning of what it is, because when a log
// or an authority was set up is nowhere configured; certificates say for themselves when they are valid.
func newTrustedRoot(from TrustSources) (json.RawMessage, error) {
	root := &prototrust.TrustedRoot{MediaType: trustedRootType}
	var errs []error
	for _, l := range from.Logs {
		log, err := trustedLog(l)
		if err != nil {
			errs = append(errs, fmt.Errorf("log %.64q: %w", l.Name, err))
		}
		root.Tlogs = append(root.Tlogs, log)
	}
	for _, a := range from.Authorities {
		chain := decodePEM(a.Chain)
		authority, err := trustedChain(a.URL, chain)
		if err != nil {
			errs = append(errs, fmt.Errorf("timestamp authority %.64q: %w", a.Name, err))
		}
		root.TimestampAuthorities = append(root.TimestampAuthorities, authority)
	}
	for _, i := range from.Identities {
		authorities, err := trustedIssuers(i)
		if err != nil {
			errs = append(errs, fmt.Errorf("identity %.64q: %w", i.Name, err))
		}
		for _, a := range authorities {
			if !slices.ContainsFunc(root.CertificateAuthorities, func(have *prototrust.CertificateAuthority) bool { return have.String() == a.String() }) {
				root.CertificateAuthorities = append(root.CertificateAuthorities, a)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	raw, err := protojson.Marshal(root)
	if err != nil {
		return nil, fmt.Errorf("writing the trusted root: %w", err)
	}
	// The library puts white space in at random.
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		return nil, fmt.Errorf("writing the trusted root: %w", err)
	}
	return compact.Bytes(), nil
}

// trustedLog writes a log.
//
// SPEC: C2SP signed-note and Rekor v2: the log's id is that of the key by which it signs its checkpoints, which covers its name;
// that of Rekor v1 is the SHA-256 of its public key.
func trustedLog(l TrustLog) (*prototrust.TransparencyLogInstance, error) {
	key, err := pubkey.Parse([]byte(l.PublicKey))
	if err != nil {
		return nil, err
	}
	details, err := detailsOf(key.Public)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public)
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	address, err := url.Parse(l.URL)
	if err != nil || address.Hostname() == "" {
		return nil, fmt.Errorf("url %.256q: want one with a host", l.URL)
	}
	sum := sha256.Sum256(der)
	id, base := sum[:], l.URL
	if l.Type == policy.RekorV2 {
		origin := l.Origin
		if origin == "" {
			origin = address.Hostname()
		}
		// Verifiers take the name from the host here, and dial nothing.
		base = "https://" + origin
		if named, err := url.Parse(base); err != nil || named.Hostname() != origin {
			return nil, fmt.Errorf("origin %.256q: verifiers take none but a host's name", origin)
		}
		if _, id, err = note.KeyHash(origin, key.Public); err != nil {
			return nil, fmt.Errorf("origin %.256q: %w", origin, err)
		}
	}
	return &prototrust.TransparencyLogInstance{
		BaseUrl:       base,
		HashAlgorithm: protocommon.HashAlgorithm_SHA2_256,
		PublicKey: &protocommon.PublicKey{
			RawBytes: der, KeyDetails: details, ValidFor: &protocommon.TimeRange{Start: &timestamppb.Timestamp{}},
		},
		LogId: &protocommon.LogId{KeyId: id},
	}, nil
}

func detailsOf(public crypto.PublicKey) (protocommon.PublicKeyDetails, error) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256, nil
		case elliptic.P384():
			return protocommon.PublicKeyDetails_PKIX_ECDSA_P384_SHA_384, nil
		}
	case *rsa.PublicKey:
		switch key.N.BitLen() {
		case 2048:
			return protocommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_2048_SHA256, nil
		case 3072:
			return protocommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_3072_SHA256, nil
		case 4096:
			return protocommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_4096_SHA256, nil
		}
	case ed25519.PublicKey:
		return protocommon.PublicKeyDetails_PKIX_ED25519, nil
	}
	return 0, errors.New("a trusted root has no place for this kind of public key")
}

// trustedChain writes an authority by its certificates, the root last.
func trustedChain(address string, chain [][]byte) (*prototrust.CertificateAuthority, error) {
	if len(chain) == 0 {
		return nil, errors.New("certificates: want one to ten in PEM and nothing else")
	}
	var root *x509.Certificate
	written := make([]*protocommon.X509Certificate, len(chain))
	for i, der := range chain {
		var err error
		if root, err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("certificates[%d]: %w", i, err)
		}
		written[i] = &protocommon.X509Certificate{RawBytes: der}
	}
	subject := &protocommon.DistinguishedName{CommonName: root.Subject.CommonName}
	if len(root.Subject.Organization) > 0 {
		subject.Organization = root.Subject.Organization[0]
	}
	return &prototrust.CertificateAuthority{
		Uri:       address,
		Subject:   subject,
		CertChain: &protocommon.X509CertificateChain{Certificates: written},
		ValidFor:  &protocommon.TimeRange{Start: timestamppb.New(root.NotBefore)},
	}, nil
}

// trustedIssuers gives an authority for each root of an identity, with the intermediate certificates that lead to it.
func trustedIssuers(i TrustIdentity) ([]*prototrust.CertificateAuthority, error) {
	var roots, others []*x509.Certificate
	pool := x509.NewCertPool()
	for n, der := range decodePEM(i.Roots) {
		c, err := x509.ParseCertificate(der)
		switch {
		case err != nil:
			return nil, fmt.Errorf("roots[%d]: %w", n, err)
		case bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil:
			roots = append(roots, c)
		default:
			others = append(others, c)
			pool.AddCert(c)
		}
	}
	if len(roots) == 0 {
		return nil, errors.New("roots: want certificates in PEM and nothing else, one of them self-signed")
	}
	var authorities []*prototrust.CertificateAuthority
	for _, root := range roots {
		trusted := x509.NewCertPool()
		trusted.AddCert(root)
		var chain [][]byte
		for _, c := range others {
			_, err := c.Verify(x509.VerifyOptions{
				Roots: trusted, Intermediates: pool, CurrentTime: c.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
			})
			if err == nil {
				chain = append(chain, c.Raw)
			}
		}
		authority, err := trustedChain(i.URL, append(chain, root.Raw))
		if err != nil {
			return nil, err
		}
		authorities = append(authorities, authority)
	}
	return authorities, nil
}
