package checker

import (
	"encoding/json"
	"fmt"
	"strings"
)

// SPEC: sigstore bundle format v0.3; cosign's BUNDLE_SPEC for the manifest; in-toto attestation framework for the
// statement, whose predicate type tells a signature from an attestation.
const (
	bundlePrefix  = "application/vnd.dev.sigstore.bundle"
	bundleType    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	inTotoType    = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// judgeBundle says what one bundle is worth. As with the other format the key is asked before anything else that a bundle
// says: what others have put there is not ours to judge. A certificate or a log entry beside the signature does not matter:
// what our key has made is ours whatever stands around it.
func (c *Checker) judgeBundle(m signatureManifest, l layer, content []byte, digest string) (verdict Verdict, detail, signed string) {
	if got := sum(content); got != l.Digest {
		return Tampered, "the bundle hashes to " + got, ""
	}
	var bundle struct {
		MediaType string `json:"mediaType"`
		Material  struct {
			Certificate struct {
				Raw []byte `json:"rawBytes"`
			} `json:"certificate"`
		} `json:"verificationMaterial"`
		Envelope struct {
			Payload     []byte `json:"payload"`
			PayloadType string `json:"payloadType"`
			Signatures  []struct {
				Signature []byte `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(content, &bundle); err != nil {
		return Malformed, "the bundle is no JSON", ""
	}
	envelope := bundle.Envelope
	if len(envelope.Signatures) != 1 {
		return Malformed, fmt.Sprintf("the bundle has %d signatures in an envelope, want 1", len(envelope.Signatures)), ""
	}
	signature := envelope.Signatures[0].Signature
	signed = string(signature)
	if !verifies(c.keyBehind(bundle.Material.Certificate.Raw), preAuthenticated(envelope.PayloadType, envelope.Payload), signature) {
		return Foreign, "our key did not make this signature over this envelope", signed
	}
	switch {
	case bundle.MediaType != bundleType || l.MediaType != bundleType || m.ArtifactType != bundleType:
		return Malformed, fmt.Sprintf("types are %q, %q and %q, want a bundle of version 0.3", m.ArtifactType, l.MediaType, bundle.MediaType), signed
	case m.Subject.Digest != digest:
		return Malformed, fmt.Sprintf("the manifest refers to %q, want %q", m.Subject.Digest, digest), signed
	}
	verdict, detail = judgeStatement(envelope.PayloadType, envelope.Payload, digest)
	return verdict, detail, signed
}

// judgeStatement says whether a payload that our key has signed makes a signature of the digest.
func judgeStatement(payloadType string, payload []byte, digest string) (verdict Verdict, detail string) {
	var statement struct {
		Type    string `json:"_type"`
		Subject []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
		PredicateType string `json:"predicateType"`
	}
	if payloadType != inTotoType || json.Unmarshal(payload, &statement) != nil || statement.Type != statementType {
		return Attestation, fmt.Sprintf("our key signed something of type %q that is no in-toto statement", payloadType)
	}
	if statement.PredicateType != signPredicate {
		return Attestation, fmt.Sprintf("our key signed a statement of type %q, want %q", statement.PredicateType, signPredicate)
	}
	if len(statement.Subject) != 1 {
		return WrongDigest, fmt.Sprintf("signed are %d subjects, want 1", len(statement.Subject))
	}
	named := statement.Subject[0].Digest
	if got := "sha256:" + named["sha256"]; got != digest {
		return WrongDigest, fmt.Sprintf("signed is %q, want %q", named, digest)
	}
	return Valid, ""
}

// preAuthenticated is what a signature in an envelope is made over.
//
// SPEC: DSSE protocol, "Signature Definition": PAE(type, body) = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body.
func preAuthenticated(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

func isBundle(mediaType string) bool { return strings.HasPrefix(mediaType, bundlePrefix) }
