package inspect

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"unicode/utf8"

	"github.com/harborseal/harborseal/pkg/artifact"
)

const (
	// maxDocument is the longest document that an answer holds, and maxDocuments what all of them may take together, in bytes of
	// JSON: the queue takes messages of 1 MiB, and the rest of an answer has its place.
	maxDocument  = 256 << 10
	maxDocuments = 512 << 10
	maxHashes    = 64
)

// budget is what documents may take still. It belongs to one answer.
type budget struct{ left int }

func newBudget() *budget { return &budget{left: maxDocuments} }

// take says whether so much is left, and takes it.
func (b *budget) take(size int) bool {
	if size > maxDocument || size > b.left {
		return false
	}
	b.left -= size
	return true
}

// document gives the bytes as they are where they are text, else in base64; nil for none.
func (b *budget) document(mediaType string, raw []byte) *Document {
	if len(raw) == 0 {
		return nil
	}
	sum := sha256.Sum256(raw)
	d := Document{MediaType: mediaType, Encoding: "utf-8", Data: string(raw), Size: len(raw), SHA256: hex.EncodeToString(sum[:])}
	if len(raw) > maxDocument {
		d.Data, d.Truncated = "", true
		return &d
	}
	if !isText(raw) {
		d.Encoding, d.Data = "base64", base64.StdEncoding.EncodeToString(raw)
	}
	encoded, err := json.Marshal(d.Data)
	if err != nil || !b.take(len(encoded)) {
		d.Data, d.Truncated = "", true
	}
	return &d
}

// isText says whether JSON gives back the very bytes.
func isText(raw []byte) bool {
	for _, c := range raw {
		if c < ' ' && c != '\n' && c != '\t' && c != '\r' {
			return false
		}
	}
	return utf8.Valid(raw)
}

// documentsOf gives the documents of a signature: what proves it as it was read, verified or not.
func documentsOf(r Reading, left *budget) *Documents {
	const binary = "application/octet-stream"
	s := r.Read
	payloadType := "application/vnd.dev.cosign.simplesigning.v1+json"
	if s.Format == artifact.Bundle {
		payloadType = "application/vnd.in-toto+json"
	}
	d := Documents{
		Payload: left.document(payloadType, s.Payload), Signature: left.document(binary, s.Bytes),
		Timestamp: left.document("application/timestamp-reply", s.Timestamp),
		Bundle:    left.document("application/vnd.dev.sigstore.bundle.v0.3+json", r.Document),
	}
	var chain []byte
	for _, der := range s.Certificates {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	d.Certificates = left.document("application/x-pem-file", chain)
	if e := s.Entry; e != nil {
		d.LogEntry, d.InclusionProof = left.document("application/json", e.Body), proofOf(e.Proof, left)
	}
	d.RekorBundle = left.document("application/json", []byte(r.Notes["dev.sigstore.cosign/bundle"]))
	d.Annotations = notesOf(r.Notes, left)
	return &d
}

// proofOf is nil where there is no proof, or one that cannot be.
func proofOf(p *artifact.InclusionProof, left *budget) *Proof {
	if p == nil || len(p.Hashes) > maxHashes || !left.take(len(p.Checkpoint)+len(p.RootHash)+maxHashes*2*sha256.Size) {
		return nil
	}
	proof := Proof{Index: p.Index, TreeSize: p.TreeSize, RootHash: hex.EncodeToString(p.RootHash), Hashes: []string{}, Checkpoint: p.Checkpoint}
	for _, hash := range p.Hashes {
		if len(hash) != sha256.Size {
			return nil
		}
		proof.Hashes = append(proof.Hashes, hex.EncodeToString(hash))
	}
	return &proof
}

// notesOf gives the annotations of a legacy signature but for those that stand elsewhere; nil where they are too long.
func notesOf(notes map[string]string, left *budget) map[string]string {
	short := make(map[string]string, len(notes))
	for name, text := range notes {
		switch name {
		case "dev.sigstore.cosign/bundle", "dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain", "dev.sigstore.cosign/rfc3161timestamp":
		default:
			short[name] = text
		}
	}
	encoded, err := json.Marshal(short)
	if err != nil || len(short) == 0 || !left.take(len(encoded)) {
		return nil
	}
	return short
}
