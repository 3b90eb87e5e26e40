package tlog

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// payloadType is what the payload of a bundle is to DSSE.
const payloadType = "application/vnd.in-toto+json"

// body is what an entry of a signature must be: the canonical body, which the log hashes into its tree.
//
// SPEC: RFC 8785 (JSON canonicalization): names in order, no white space. The structures below have their fields in this
// order, and no value in them needs an escape.
type body struct {
	kind, version string
	raw           []byte
	// open says that raw has the hash of our own envelope, which verifiers do not look at: other writers of the same
	// envelope have other white space in it.
	open bool
}

// body writes the entry of a signature.
func (l *Log) body(s artifact.Signature) (body, error) {
	v, err := verifierOf(s)
	if err != nil {
		return body{}, fault.New(fault.Permanent, fault.Malformed, err)
	}
	if len(s.Bytes) == 0 {
		return body{}, fault.Newf(fault.Permanent, fault.Malformed, "there is no signature")
	}
	switch {
	case s.Format != artifact.Legacy && s.Format != artifact.Bundle:
		return body{}, fault.Newf(fault.Permanent, fault.Malformed, "a signature of the format %.32q has no entry", string(s.Format))
	case !l.kind.Carries(s.Format):
		return body{}, unverifiable("a %s signature has no place for an entry of %s", s.Format, l.kind)
	case l.kind == policy.RekorV2:
		return hashedrekordV2(s, v)
	case s.Format == artifact.Bundle:
		return dsseV1(s, v, "")
	default:
		return hashedrekordV1(s, v)
	}
}

func unverifiable(format string, args ...any) error {
	return fault.Newf(fault.Transient, fault.Unverifiable, format, args...)
}

// verifier is what a signature verifies with: a public key, or the certificate of a keyless signature.
type verifier struct {
	public      crypto.PublicKey
	der         []byte
	certificate bool
}

func verifierOf(s artifact.Signature) (verifier, error) {
	if len(s.Certificates) > 0 {
		parsed, err := x509.ParseCertificate(s.Certificates[0])
		if err != nil {
			return verifier{}, fmt.Errorf("the signature's certificate: %w", err)
		}
		return verifier{public: parsed.PublicKey, der: parsed.Raw, certificate: true}, nil
	}
	if len(s.PublicKey) == 0 {
		return verifier{}, errors.New("the signature has no public key")
	}
	public, err := x509.ParsePKIXPublicKey(s.PublicKey)
	if err != nil {
		return verifier{}, fmt.Errorf("the signature's public key: %w", err)
	}
	return verifier{public: public, der: s.PublicKey}, nil
}

func (v verifier) pem() []byte {
	block := pem.Block{Type: "PUBLIC KEY", Bytes: v.der}
	if v.certificate {
		block.Type = "CERTIFICATE"
	}
	return pem.EncodeToMemory(&block)
}

// hash is a SHA-256 in an entry of Rekor v1.
type hash struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"value"`
}

func hashOf(content []byte) hash {
	sum := sha256.Sum256(content)
	return hash{Algorithm: "sha256", Value: hex.EncodeToString(sum[:])}
}

type bodyOf[T any] struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       T      `json:"spec"`
}

func newBody[T any](kind, version string, spec T) (body, error) {
	raw, err := json.Marshal(bodyOf[T]{APIVersion: version, Kind: kind, Spec: spec})
	if err != nil {
		return body{}, fmt.Errorf("writing the entry: %w", err)
	}
	return body{kind: kind, version: version, raw: raw}, nil
}

// hashedrekordV1Spec is an entry as it is sent, and as the log keeps it.
type hashedrekordV1Spec struct {
	Data struct {
		Hash hash `json:"hash"`
	} `json:"data"`
	Signature struct {
		Content   []byte `json:"content"`
		PublicKey struct {
			Content []byte `json:"content"`
		} `json:"publicKey"`
	} `json:"signature"`
}

// hashedrekordV1 is the entry of a legacy signature.
//
// SPEC: Rekor, hashedrekord 0.0.1: the log must be able to verify the signature from the hash alone, so it refuses Ed25519;
// and its list of algorithms has P-384 with SHA-384 only.
func hashedrekordV1(s artifact.Signature, v verifier) (body, error) {
	switch public := v.public.(type) {
	case ed25519.PublicKey:
		return body{}, unverifiable("a log of Rekor v1 takes no legacy signature of an Ed25519 key, for which it would need the whole payload")
	case *ecdsa.PublicKey:
		if public.Curve != elliptic.P256() {
			return body{}, unverifiable("a log of Rekor v1 takes no legacy signature of an ECDSA key other than P-256, because it is over SHA-256")
		}
	}
	var spec hashedrekordV1Spec
	spec.Data.Hash = hashOf(s.Payload)
	spec.Signature.Content = s.Bytes
	spec.Signature.PublicKey.Content = v.pem()
	return newBody("hashedrekord", "0.0.1", spec)
}

// dsseV1Spec is an entry as the log keeps it.
type dsseV1Spec struct {
	EnvelopeHash hash              `json:"envelopeHash"`
	PayloadHash  hash              `json:"payloadHash"`
	Signatures   []dsseV1Signature `json:"signatures"`
}

type dsseV1Signature struct {
	Signature string `json:"signature"`
	Verifier  []byte `json:"verifier"`
}

// dsseV1 is the entry of a bundle in Rekor v1. envelopeHash, in hexadecimal, is empty for that of our own envelope.
//
// SPEC: Rekor, dsse 0.0.1.
func dsseV1(s artifact.Signature, v verifier, envelopeHash string) (body, error) {
	own, err := envelope(s)
	if err != nil {
		return body{}, err
	}
	spec := dsseV1Spec{
		EnvelopeHash: hashOf(own),
		PayloadHash:  hashOf(s.Payload),
		Signatures:   []dsseV1Signature{{Signature: base64.StdEncoding.EncodeToString(s.Bytes), Verifier: v.pem()}},
	}
	if envelopeHash != "" {
		spec.EnvelopeHash.Value = envelopeHash
	}
	b, err := newBody("dsse", "0.0.1", spec)
	b.open = true
	return b, err
}

// envelope is the DSSE envelope of a bundle: the same signature always gives the same bytes, and so the same entry.
func envelope(s artifact.Signature) ([]byte, error) {
	type sig struct {
		KeyID string `json:"keyid"`
		Sig   []byte `json:"sig"`
	}
	raw, err := json.Marshal(struct {
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []sig  `json:"signatures"`
	}{Payload: s.Payload, PayloadType: payloadType, Signatures: []sig{{Sig: s.Bytes}}})
	if err != nil {
		return nil, fmt.Errorf("writing the envelope: %w", err)
	}
	return raw, nil
}

// is says whether raw is the body: this very one, or one that differs in nothing but the hash of the envelope.
func (b body) is(raw []byte) bool {
	if bytes.Equal(raw, b.raw) {
		return true
	}
	var theirs bodyOf[dsseV1Spec]
	var ours bodyOf[dsseV1Spec]
	if !b.open || json.Unmarshal(raw, &theirs) != nil || json.Unmarshal(b.raw, &ours) != nil {
		return false
	}
	if sum, err := hex.DecodeString(theirs.Spec.EnvelopeHash.Value); err != nil || len(sum) != sha256.Size {
		return false
	}
	ours.Spec.EnvelopeHash = theirs.Spec.EnvelopeHash
	ours.Spec.EnvelopeHash.Algorithm = "sha256"
	again, err := json.Marshal(ours)
	return err == nil && bytes.Equal(raw, again)
}

// hashedrekordV2Spec is an entry as the log keeps it.
type hashedrekordV2Spec struct {
	Hashedrekord struct {
		Data struct {
			Algorithm string `json:"algorithm"`
			Digest    []byte `json:"digest"`
		} `json:"data"`
		Signature signatureV2 `json:"signature"`
	} `json:"hashedRekordV002"`
}

type signatureV2 struct {
	Content  []byte     `json:"content"`
	Verifier verifierV2 `json:"verifier"`
}

type verifierV2 struct {
	KeyDetails  string    `json:"keyDetails"`
	PublicKey   *rawBytes `json:"publicKey,omitempty"`
	Certificate *rawBytes `json:"x509Certificate,omitempty"`
}

type rawBytes struct {
	RawBytes []byte `json:"rawBytes"`
}

// signedV2 is what an entry of Rekor v2 says of a signature.
//
// SPEC: Rekor v2, hashedrekord 0.0.2. The name of the algorithm is the default one of the key, because verifiers write the
// entry anew from the bundle alone. Our signatures are over SHA-256, so keys whose default is another hash have none.
func signedV2(s artifact.Signature, v verifier) (signatureV2, error) {
	details, err := signature.GetDefaultAlgorithmDetails(v.public, options.WithED25519ph())
	if err != nil {
		return signatureV2{}, unverifiable("a log of Rekor v2 takes no signature of this kind of key: %w", err)
	}
	if details.GetHashType() != crypto.SHA256 {
		return signatureV2{}, unverifiable("a log of Rekor v2 takes signatures over SHA-256 only of ECDSA P-256 and RSA keys")
	}
	signed := signatureV2{Content: s.Bytes, Verifier: verifierV2{KeyDetails: details.GetSignatureAlgorithm().String()}}
	if v.certificate {
		signed.Verifier.Certificate = &rawBytes{RawBytes: v.der}
	} else {
		signed.Verifier.PublicKey = &rawBytes{RawBytes: v.der}
	}
	return signed, nil
}

// digestV2 is the hash of what the signature of a bundle is made over.
//
// SPEC: DSSE protocol, "Signature Definition": PAE(type, body) = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body.
func digestV2(s artifact.Signature) []byte {
	h := sha256.New()
	fmt.Fprintf(h, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(s.Payload)) //nolint:errcheck // a hash takes everything
	h.Write(s.Payload)
	return h.Sum(nil)
}

// hashedrekordV2 is the entry of a bundle in Rekor v2.
func hashedrekordV2(s artifact.Signature, v verifier) (body, error) {
	signed, err := signedV2(s, v)
	if err != nil {
		return body{}, err
	}
	var spec hashedrekordV2Spec
	spec.Hashedrekord.Data.Algorithm = "SHA2_256"
	spec.Hashedrekord.Data.Digest = digestV2(s)
	spec.Hashedrekord.Signature = signed
	return newBody("hashedrekord", "0.0.2", spec)
}
