package checker

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
)

// SPEC: cosign, specs/SIGNATURE_SPEC.md: the layers' type, the annotation that carries the signature, and the payload.
const (
	payloadType         = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
	critical            = "cosign container image signature"
)

// Verdict is what is to be said of one signature.
type Verdict string

// The verdicts. All but Valid and Foreign are about a signature that our key did make.
const (
	Valid         Verdict = "valid"
	Foreign       Verdict = "foreign"        // the key did not make it over this payload
	Tampered      Verdict = "tampered"       // the payload does not hash to the layer's digest
	WrongDigest   Verdict = "wrong digest"   // made for another manifest
	WrongIdentity Verdict = "wrong identity" // made for another host, project or repository
	Malformed     Verdict = "malformed"      // cannot be read
)

// Signature is one layer of a signature manifest.
type Signature struct {
	// Manifest is the digest of the manifest that carries it, Payload that of the layer.
	Manifest, Payload string
	// Bytes is the signature itself.
	Bytes   string
	Verdict Verdict
	// Detail says what is wrong, for people.
	Detail string
}

// ByOurKey says whether our key made the signature, whatever it says.
func (s Signature) ByOurKey() bool {
	return s.Verdict == Valid || s.Verdict == WrongDigest || s.Verdict == WrongIdentity
}

// ParseKey reads a public key in PEM, of the only kind that is used: ECDSA.
func ParseKey(text []byte) (*ecdsa.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("reading the public key: no PEM block")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("reading the public key: want ECDSA, got %T", parsed)
	}
	return key, nil
}

// KeyID is the SHA-256 of the key's SPKI in hexadecimal digits.
func KeyID(key *ecdsa.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("computing the key's id: %w", err)
	}
	digest := sha256.Sum256(spki)
	return hex.EncodeToString(digest[:]), nil
}

// SignatureTag is where signatures of a digest are found.
func SignatureTag(digest string) string {
	return "sha256-" + digest[len("sha256:"):] + ".sig"
}

type layer struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

// signaturesIn reads and verifies every layer of a signature manifest. A manifest of another form has none.
func (c *Checker) signaturesIn(ctx context.Context, repository, digest string, m Manifest) ([]Signature, error) {
	var manifest struct {
		Layers []layer `json:"layers"`
	}
	if json.Unmarshal(m.Content, &manifest) != nil {
		unreadable := Signature{Manifest: m.Digest, Verdict: Malformed, Detail: "the manifest is no JSON"}
		return []Signature{unreadable}, nil //nolint:nilerr // that it cannot be read is the finding
	}
	var all []Signature
	for _, l := range manifest.Layers {
		if l.MediaType != payloadType {
			continue
		}
		payload, err := c.registry.Blob(ctx, repository, l.Digest)
		if errors.Is(err, ErrNotFound) {
			all = append(all, Signature{Manifest: m.Digest, Payload: l.Digest, Verdict: Malformed, Detail: "the payload is not there"})
			continue
		}
		if err != nil {
			return nil, err
		}
		verdict, detail := c.judge(l, payload, repository, digest)
		all = append(all, Signature{
			Manifest: m.Digest, Payload: l.Digest, Bytes: l.Annotations[signatureAnnotation], Verdict: verdict, Detail: detail,
		})
	}
	return all, nil
}

// judge says what one layer is worth. The key is asked first: what others have put there is not ours to judge.
func (c *Checker) judge(l layer, payload []byte, repository, digest string) (Verdict, string) {
	if got := sum(payload); got != l.Digest {
		return Tampered, "the payload hashes to " + got
	}
	signature, err := base64.StdEncoding.DecodeString(l.Annotations[signatureAnnotation])
	if err != nil || len(signature) == 0 {
		return Malformed, "the annotation " + signatureAnnotation + " is no base64"
	}
	hash := sha256.Sum256(payload)
	if !ecdsa.VerifyASN1(c.key, hash[:], signature) {
		return Foreign, "our key did not make this signature over this payload"
	}
	var claim struct {
		Critical struct {
			Identity struct {
				DockerReference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				DockerManifestDigest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &claim); err != nil || claim.Critical.Type != critical {
		return WrongDigest, "our key signed something that is no image signature"
	}
	if got := claim.Critical.Image.DockerManifestDigest; got != digest {
		return WrongDigest, fmt.Sprintf("signed is %q, want %q", got, digest)
	}
	want := c.host + "/" + repository
	if got := claim.Critical.Identity.DockerReference; got != want {
		return WrongIdentity, fmt.Sprintf("signed is %q, want %q", got, want)
	}
	return Valid, ""
}
