package checker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// SPEC: cosign, specs/SIGNATURE_SPEC.md: the layers' type, the annotation that carries the signature, and the payload.
const (
	payloadType         = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
	critical            = "cosign container image signature"
)

// Format is a way in which signatures are kept in the registry.
type Format string

// The formats.
const (
	// Legacy signatures are layers of the manifest on the .sig tag.
	Legacy Format = "legacy"
	// Bundle signatures have a manifest each, which refers to what is signed.
	Bundle Format = "bundle"
)

// Formats are all formats.
func Formats() []Format { return []Format{Legacy, Bundle} }

// Verdict is what is to be said of one signature.
type Verdict string

// The verdicts. All but Valid, Foreign and Malformed are about a signature that our key did make.
const (
	Valid         Verdict = "valid"
	Foreign       Verdict = "foreign"        // the key did not make it over this payload
	Tampered      Verdict = "tampered"       // the payload does not hash to the layer's digest
	WrongDigest   Verdict = "wrong digest"   // made for another manifest
	WrongIdentity Verdict = "wrong identity" // made for another host, project or repository
	Attestation   Verdict = "attestation"    // made for a statement that is no image signature
	Untimely      Verdict = "untimely"       // its certificate lived for minutes, and nothing proves that it was made in them
	Malformed     Verdict = "malformed"      // cannot be read, or not as a signature of this manifest
)

// Signature is one layer of a signature manifest, or one bundle.
type Signature struct {
	Format Format
	// Manifest is the digest of the manifest that carries it, Payload that of the layer.
	Manifest, Payload string
	// Bytes is the signature itself.
	Bytes   string
	Verdict Verdict
	// Detail says what is wrong, for people.
	Detail string
	// Entries are the log entries beside it that count, and Stamped are the times of the timestamps that do; both of valid
	// signatures alone, and by what the checker was told to trust.
	Entries []Entry
	Stamped []time.Time
	// Unproven says what is wrong with the entries and timestamps that do not count.
	Unproven []string
}

// ByOurKey says whether our key made the signature, whatever it says.
func (s Signature) ByOurKey() bool {
	switch s.Verdict {
	case Valid, WrongDigest, WrongIdentity, Attestation, Untimely:
		return true
	case Foreign, Tampered, Malformed:
	}
	return false
}

// same says whether two signatures are one. A layer may stand in several manifests, because each that the tag named once is
// kept. Each bundle is one of its own, but for one without an entry beside another one of the same signature with its entry:
// a bundle cannot be changed when its entry is made.
func (s Signature) same(o Signature) bool {
	switch {
	case s.Format != o.Format:
		return false
	case s.Format == Legacy:
		return s.Bytes == o.Bytes && s.Payload == o.Payload
	default:
		return s.Manifest == o.Manifest || s.Bytes == o.Bytes && (len(s.Entries) == 0) != (len(o.Entries) == 0)
	}
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

// signatureManifest is what is read of a manifest that may carry signatures.
type signatureManifest struct {
	ArtifactType string  `json:"artifactType"`
	Layers       []layer `json:"layers"`
	Subject      struct {
		Digest string `json:"digest"`
	} `json:"subject"`
}

// signaturesIn reads and verifies every layer of a signature manifest, and every bundle. A manifest of another form has
// none.
func (c *Checker) signaturesIn(ctx context.Context, repository, digest string, m Manifest) ([]Signature, error) {
	var manifest signatureManifest
	if json.Unmarshal(m.Content, &manifest) != nil {
		unreadable := Signature{Manifest: m.Digest, Verdict: Malformed, Detail: "the manifest is no JSON"}
		return []Signature{unreadable}, nil //nolint:nilerr // that it cannot be read is the finding
	}
	var all []Signature
	for _, l := range manifest.Layers {
		s := Signature{Manifest: m.Digest, Payload: l.Digest}
		switch {
		case l.MediaType == payloadType:
			s.Format = Legacy
		case isBundle(l.MediaType):
			s.Format = Bundle
		default:
			continue
		}
		content, err := c.registry.Blob(ctx, repository, l.Digest)
		switch {
		case errors.Is(err, ErrNotFound):
			s.Verdict, s.Detail = Malformed, "the payload is not there"
		case err != nil:
			return nil, err
		case s.Format == Legacy:
			s.Bytes = l.Annotations[signatureAnnotation]
			s.Verdict, s.Detail = c.judge(l, content, repository, digest)
			c.prove(&s, legacyMaterial(l, content))
		default:
			s.Verdict, s.Detail, s.Bytes = c.judgeBundle(manifest, l, content, digest)
			c.prove(&s, bundleMaterial(content))
		}
		all = append(all, s)
	}
	return all, nil
}

// judge says what one layer is worth. The key is asked first: what others have put there is not ours to judge.
func (c *Checker) judge(l layer, payload []byte, repository, digest string) (verdict Verdict, detail string) {
	if got := sum(payload); got != l.Digest {
		return Tampered, "the payload hashes to " + got
	}
	signature, err := base64.StdEncoding.DecodeString(l.Annotations[signatureAnnotation])
	if err != nil || len(signature) == 0 {
		return Malformed, "the annotation " + signatureAnnotation + " is no base64"
	}
	if !verifies(c.keyBehind(certificatesOf(l)), payload, signature) {
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
