package sigstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
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

// documentMakes reads a simple signing document by the exact names that it must have, and no others.
//
// SPEC: container-signature(5), "JSON processing and forward compatibility": a consumer rejects a document whose top level or
// critical part has members that it does not know, and refuses what can be read in two ways, such as a member twice.
func documentMakes(body []byte, claim artifact.Claim) bool {
	document, ok := members(body, "critical", "optional")
	if !ok {
		return false
	}
	critical, ok := members(document["critical"], "identity", "image", "type")
	if !ok {
		return false
	}
	identity, isIdentity := members(critical["identity"], "docker-reference")
	image, isImage := members(critical["image"], "docker-manifest-digest")
	return isIdentity && isImage && claim.Identity != "" && claim.Digest != "" &&
		isString(critical["type"], payload.CosignSignatureType) &&
		isString(identity["docker-reference"], claim.Identity) &&
		isString(image["docker-manifest-digest"], claim.Digest)
}

// members gives the members of a JSON object that has exactly these, each once. Go's own reading of structures takes a
// name in any case and the last of several.
func members(raw []byte, names ...string) (map[string]json.RawMessage, bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if expect(d, '{') != nil {
		return nil, false
	}
	found := make(map[string]json.RawMessage, len(names))
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		if _, twice := found[name]; err != nil || !ok || twice || !slices.Contains(names, name) {
			return nil, false
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return nil, false
		}
		found[name] = value
	}
	if expect(d, '}') != nil || len(found) != len(names) {
		return nil, false
	}
	_, err := d.Token()
	return found, errors.Is(err, io.EOF)
}

func isString(raw json.RawMessage, want string) bool {
	var got string
	return json.Unmarshal(raw, &got) == nil && got == want
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
