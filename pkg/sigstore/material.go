package sigstore

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// What cosign calls the material beside a legacy signature.
const (
	entryNote       = "dev.sigstore.cosign/bundle"
	timestampNote   = "dev.sigstore.cosign/rfc3161timestamp"
	certificateNote = "dev.sigstore.cosign/certificate"
	chainNote       = "dev.sigstore.cosign/chain"

	pemCertificate = "CERTIFICATE"
	// maxCertificates is how many certificates are read beside a signature.
	maxCertificates = 10
)

// materialNotes are the names under which a legacy signature has its material.
func materialNotes() []string {
	return []string{entryNote, timestampNote, certificateNote, chainNote}
}

// rekorBundle is an entry of Rekor v1 as cosign writes it, in its order.
type rekorBundle struct {
	SignedEntryTimestamp []byte `json:"SignedEntryTimestamp"` //nolint:tagliatelle // cosign's
	Payload              struct {
		Body           []byte `json:"body"`
		IntegratedTime int64  `json:"integratedTime"`
		LogIndex       int64  `json:"logIndex"`
		LogID          string `json:"logID"`
	} `json:"Payload"`
}

type rfc3161Timestamp struct {
	SignedRFC3161Timestamp []byte
}

// notesOf gives what stands beside a legacy signature: its bytes and its material. An entry without a signed entry timestamp,
// which is one of Rekor v2, has no place there.
//
// SPEC: cosign's SIGNATURE_SPEC, "Properties".
func notesOf(s artifact.Signature) (map[string]string, error) {
	notes := map[string]string{signatureNote: base64.StdEncoding.EncodeToString(s.Bytes)}
	if e := s.Entry; e != nil && len(e.SET) > 0 {
		b := rekorBundle{SignedEntryTimestamp: e.SET}
		b.Payload.Body, b.Payload.IntegratedTime = e.Body, e.IntegratedAt
		b.Payload.LogIndex, b.Payload.LogID = e.Index, hex.EncodeToString(e.LogID)
		text, err := encode(b)
		if err != nil {
			return nil, err
		}
		notes[entryNote] = string(text)
	}
	if len(s.Timestamp) > 0 {
		text, err := encode(rfc3161Timestamp{SignedRFC3161Timestamp: s.Timestamp})
		if err != nil {
			return nil, err
		}
		notes[timestampNote] = string(text)
	}
	if len(s.Certificates) > 0 {
		notes[certificateNote] = encodePEM(s.Certificates[:1])
		if len(s.Certificates) > 1 {
			notes[chainNote] = encodePEM(s.Certificates[1:])
		}
	}
	return notes, nil
}

// readNotes gives the material beside a legacy signature as far as it can be read. None of it is verified.
func readNotes(notes map[string]string) (f found) {
	f.Format = artifact.Legacy
	f.Entry = readEntryNote(notes[entryNote])
	if t := readTimestampNote(notes[timestampNote]); t != nil {
		f.timestamps = [][]byte{t}
	}
	if leaf := decodePEM(notes[certificateNote]); len(leaf) == 1 {
		f.Certificates = slices.Concat(leaf, decodePEM(notes[chainNote]))
	}
	return f
}

func readEntryNote(text string) *artifact.LogEntry {
	var b rekorBundle
	if text == "" || json.Unmarshal([]byte(text), &b) != nil || len(b.SignedEntryTimestamp) == 0 {
		return nil
	}
	var body struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
	}
	id, err := hex.DecodeString(b.Payload.LogID)
	if err != nil || json.Unmarshal(b.Payload.Body, &body) != nil {
		return nil
	}
	return &artifact.LogEntry{
		LogID: id, Kind: body.Kind, Version: body.APIVersion, Body: b.Payload.Body,
		Index: b.Payload.LogIndex, IntegratedAt: b.Payload.IntegratedTime, SET: b.SignedEntryTimestamp,
	}
}

func readTimestampNote(text string) []byte {
	var t rfc3161Timestamp
	if text == "" || json.Unmarshal([]byte(text), &t) != nil || len(t.SignedRFC3161Timestamp) == 0 {
		return nil
	}
	return t.SignedRFC3161Timestamp
}

// isMaterial says whether a note under one of the names of material can be read as such.
func isMaterial(name, text string) bool {
	switch name {
	case entryNote:
		return readEntryNote(text) != nil
	case timestampNote:
		return readTimestampNote(text) != nil
	case certificateNote:
		return len(decodePEM(text)) == 1
	case chainNote:
		return len(decodePEM(text)) > 0
	default:
		return false
	}
}

func encodePEM(certificates [][]byte) string {
	var b bytes.Buffer
	for _, der := range certificates {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der}))
	}
	return b.String()
}

// decodePEM gives the certificates in a text that has nothing else, in DER, and none of any other text.
func decodePEM(text string) [][]byte {
	var certificates [][]byte
	rest := []byte(text)
	for len(bytes.TrimSpace(rest)) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != pemCertificate || len(certificates) == maxCertificates {
			return nil
		}
		certificates = append(certificates, block.Bytes)
	}
	return certificates
}
