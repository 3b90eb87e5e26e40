package sigstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/sigstore/pkg/signature/payload"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/harborseal/harborseal/pkg/artifact"
)

const (
	// maxPayload is the largest payload that is signed or read, in bytes. Ours have some 300; annotations make them longer.
	maxPayload = 64 << 10
	// payloadType is what the payload of a bundle is to DSSE.
	payloadType = "application/vnd.in-toto+json"
	// signPredicate makes a statement a signature. Whatever else a key may have stated, an attestation is none.
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// newPayload writes what is signed in a format.
func newPayload(format artifact.Format, claim artifact.Claim) ([]byte, error) {
	if err := artifact.ValidateDigest(claim.Digest); err != nil {
		return nil, err
	}
	switch format {
	case artifact.Legacy:
		if host, repository, _ := strings.Cut(claim.Identity, "/"); host == "" || repository == "" {
			return nil, fmt.Errorf("identity %.128q: want host/project/name", claim.Identity)
		}
		return newDocument(claim)
	case artifact.Bundle:
		return newStatement(claim)
	default:
		return nil, fmt.Errorf("format %.32q is not one of legacy, bundle", string(format))
	}
}

// makes says whether a payload of a format makes a claim, with whatever annotations.
func makes(format artifact.Format, body []byte, claim artifact.Claim) bool {
	switch format {
	case artifact.Legacy:
		return documentMakes(body, claim)
	case artifact.Bundle:
		return statementMakes(body, claim)
	default:
		return false
	}
}

// signedBytes are what the signature of a payload is made over.
//
// SPEC: DSSE protocol, "Signature Definition": PAE(type, body) = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body.
func signedBytes(format artifact.Format, body []byte) []byte {
	if format != artifact.Bundle {
		return body
	}
	return append(fmt.Appendf(make([]byte, 0, len(body)+64), "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(body)), body...)
}

// newDocument writes a simple signing document, byte for byte as cosign does.
//
// SPEC: cosign's SIGNATURE_SPEC, "Payload": simple signing with the type "cosign container image signature".
func newDocument(claim artifact.Claim) ([]byte, error) {
	var optional map[string]any // null if there are no annotations
	for name, value := range claim.Annotations {
		if optional == nil {
			optional = make(map[string]any, len(claim.Annotations))
		}
		optional[name] = value
	}
	body, err := json.Marshal(payload.SimpleContainerImage{
		Critical: payload.Critical{
			Identity: payload.Identity{DockerReference: claim.Identity},
			Image:    payload.Image{DockerManifestDigest: claim.Digest},
			Type:     payload.CosignSignatureType,
		},
		Optional: optional,
	})
	if err != nil {
		return nil, fmt.Errorf("writing the payload: %w", err)
	}
	return body, nil
}

// documentMakes reads a simple signing document by the exact names that it must have, and no others: Go takes a field's
// name in any case, and what else might be said there is not for a reader to pass over.
//
// SPEC: containers/image, signature-protocols and atomic-signature: a recipient rejects a signature whose critical part has members that
// it does not know.
func documentMakes(body []byte, claim artifact.Claim) bool {
	var document, critical map[string]json.RawMessage
	var identity, image map[string]string
	var kind string
	if json.Unmarshal(body, &document) != nil || len(document) > 2 || json.Unmarshal(document["critical"], &critical) != nil {
		return false
	}
	if _, optional := document["optional"]; !optional && len(document) == 2 {
		return false
	}
	if len(critical) != 3 || json.Unmarshal(critical["identity"], &identity) != nil ||
		json.Unmarshal(critical["image"], &image) != nil || json.Unmarshal(critical["type"], &kind) != nil {
		return false
	}
	return kind == payload.CosignSignatureType &&
		len(identity) == 1 && identity["docker-reference"] == claim.Identity && claim.Identity != "" &&
		len(image) == 1 && image["docker-manifest-digest"] == claim.Digest && claim.Digest != ""
}

// statement is an in-toto statement as cosign v3 writes it, in its order. The library's own writer puts white space in at
// random.
type statement struct {
	Type          string             `json:"_type"`
	Subject       []statementSubject `json:"subject"`
	PredicateType string             `json:"predicateType"`
	Predicate     struct{}           `json:"predicate"`
}

type statementSubject struct {
	Digest      map[string]string `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

// newStatement writes an in-toto statement.
//
// SPEC: in-toto attestation framework, Statement v1; the type of the predicate and its being empty are cosign's.
func newStatement(claim artifact.Claim) ([]byte, error) {
	annotations := claim.Annotations
	if annotations == nil {
		annotations = map[string]string{}
	}
	return encode(statement{
		Type: intoto.StatementTypeUri,
		Subject: []statementSubject{{
			Digest:      map[string]string{"sha256": strings.TrimPrefix(claim.Digest, "sha256:")},
			Annotations: annotations,
		}},
		PredicateType: signPredicate,
	})
}

// statementMakes reads a statement as strictly as it can be read. It must be of the type by which cosign signs and speak of
// this digest alone: cosign counts one with several subjects for each of them, but nothing that is meant to sign images
// writes such a thing, and not to count it costs one more signature at the worst. As the type defines no content of the
// predicate, there must be none.
func statementMakes(body []byte, claim artifact.Claim) bool {
	var s intoto.Statement
	if protojson.Unmarshal(body, &s) != nil || s.GetType() != intoto.StatementTypeUri || s.GetPredicateType() != signPredicate ||
		len(s.GetPredicate().GetFields()) != 0 || len(s.GetSubject()) != 1 {
		return false
	}
	digests := s.GetSubject()[0].GetDigest()
	return len(digests) == 1 && digests["sha256"] != "" && "sha256:"+digests["sha256"] == claim.Digest
}

// encode is json.Marshal without the escapes that only HTML needs.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("writing JSON: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
