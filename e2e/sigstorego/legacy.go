package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// oldBundleType is the version that takes an entry with the log's promise alone, which is all that stands beside a legacy
// signature.
const oldBundleType = "application/vnd.dev.sigstore.bundle+json;version=0.1"

// legacy looks for one layer of the .sig tag. sigstore-go knows nothing of that format, but verifies a signature over the
// payload; that the payload names the image is looked for here.
func (v *verifier) legacy(subject name.Digest, digest v1.Hash, options []remote.Option) error {
	img, err := remote.Image(subject.Context().Tag(strings.Replace(digest.String(), ":", "-", 1)+".sig"), options...)
	if err != nil {
		return fmt.Errorf("asking for the .sig tag: %w", err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		return fmt.Errorf("reading the .sig tag: %w", err)
	}
	refused := []error{errors.New("no signature under the .sig tag verifies")}
	for _, layer := range manifest.Layers {
		if string(layer.MediaType) != payloadType {
			continue
		}
		payload, err := blob(subject.Context().Digest(layer.Digest.String()), options)
		if err == nil {
			err = v.payload(payload, layer.Annotations, digest)
		}
		if err == nil {
			return nil
		}
		refused = append(refused, fmt.Errorf("%s: %w", layer.Digest, err))
	}
	return errors.Join(refused...)
}

func (v *verifier) payload(payload []byte, notes map[string]string, digest v1.Hash) error {
	b, err := asBundle(payload, notes)
	if err != nil {
		return err
	}
	if _, err := v.sigstore.Verify(b, verify.NewPolicy(verify.WithArtifact(bytes.NewReader(payload)), v.by)); err != nil {
		return fmt.Errorf("sigstore-go refuses the signature: %w", err)
	}
	var claim struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &claim); err != nil {
		return fmt.Errorf("reading a payload: %w", err)
	}
	if claim.Critical.Type != "cosign container image signature" || claim.Critical.Image.Digest != digest.String() {
		return fmt.Errorf("the signature is over %q", claim.Critical.Image.Digest)
	}
	return nil
}

// asBundle makes a bundle of a legacy signature and of what stands beside it.
func asBundle(payload []byte, notes map[string]string) (*bundle.Bundle, error) {
	signed, err := base64.StdEncoding.DecodeString(notes[signatureAnnotation])
	if err != nil {
		return nil, fmt.Errorf("reading a signature: %w", err)
	}
	sum := sha256.Sum256(payload)
	material := &protobundle.VerificationMaterial{
		Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}},
	}
	if block, _ := pem.Decode([]byte(notes[certificateAnnotation])); block != nil {
		material.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: &protocommon.X509CertificateChain{
			Certificates: []*protocommon.X509Certificate{{RawBytes: block.Bytes}},
		}}
	}
	if text, there := notes[entryAnnotation]; there {
		entry, err := readEntry([]byte(text))
		if err != nil {
			return nil, err
		}
		material.TlogEntries = []*protorekor.TransparencyLogEntry{entry}
	}
	if text, there := notes[timestampAnnotation]; there {
		var stamp struct{ SignedRFC3161Timestamp []byte }
		if err := json.Unmarshal([]byte(text), &stamp); err != nil {
			return nil, fmt.Errorf("reading a timestamp: %w", err)
		}
		material.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp.SignedRFC3161Timestamp}},
		}
	}
	b, err := bundle.NewBundle(&protobundle.Bundle{
		MediaType:            oldBundleType,
		VerificationMaterial: material,
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]},
			Signature:     signed,
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("reading a signature: %w", err)
	}
	return b, nil
}

// readEntry reads an entry of Rekor v1 as cosign writes it beside a legacy signature.
func readEntry(text []byte) (*protorekor.TransparencyLogEntry, error) {
	var written struct {
		SignedEntryTimestamp []byte `json:"SignedEntryTimestamp"` //nolint:tagliatelle // cosign's
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		} `json:"Payload"` //nolint:tagliatelle // cosign's
	}
	var body struct {
		Kind    string `json:"kind"`
		Version string `json:"apiVersion"`
	}
	if err := errors.Join(json.Unmarshal(text, &written), json.Unmarshal(written.Payload.Body, &body)); err != nil {
		return nil, fmt.Errorf("reading a log entry: %w", err)
	}
	id, err := hex.DecodeString(written.Payload.LogID)
	if err != nil {
		return nil, fmt.Errorf("reading a log entry: %w", err)
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: written.Payload.LogIndex, LogId: &protocommon.LogId{KeyId: id}, IntegratedTime: written.Payload.IntegratedTime,
		KindVersion:       &protorekor.KindVersion{Kind: body.Kind, Version: body.Version},
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: written.SignedEntryTimestamp},
		CanonicalizedBody: written.Payload.Body,
	}, nil
}
