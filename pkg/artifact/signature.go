package artifact

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// Format is a way in which signatures are written and kept beside their subject.
type Format string

// The formats. They are part of the ledger's vocabulary.
const (
	// Legacy is a simple signing document, kept in the manifest under the tag "sha256-<hex>.sig", as cosign v2 writes it.
	Legacy Format = "legacy"
	// Bundle is an in-toto statement in a sigstore bundle, kept in a manifest that refers to the subject (OCI 1.1), as
	// cosign v3 writes it.
	Bundle Format = "bundle"
)

// Claim is what a signature says about a manifest.
type Claim struct {
	// Identity is the repository as people pull it, with its host and without tag: "harbor.example.com/project/name". A
	// bundle has no place for it.
	Identity string
	// Digest is the manifest's.
	Digest string
	// Annotations stand in the signed payload. A signature counts with whatever annotations it has.
	Annotations map[string]string
}

// Signature is one signature over one payload.
type Signature struct {
	Format Format `json:"format"`
	// KeyID is the lower-case hexadecimal SHA-256 of the key's SubjectPublicKeyInfo in DER.
	KeyID string `json:"key_id"`
	// Payload is what the signature speaks of: the simple signing document, or the in-toto statement.
	Payload []byte `json:"payload"`
	// Bytes is the raw signature, not base64.
	Bytes []byte `json:"signature"`
	// PublicKey is the SubjectPublicKeyInfo in DER of the key that Bytes verify with: that of the certificate in a keyless
	// signature. Whoever reads it from outside checks that it is the key that KeyID names.
	PublicKey []byte `json:"public_key,omitempty"`
	// Certificates are those of a keyless signature, in DER, its own first; nil where a key signed. KeyID is then that of
	// the identity: see [IdentityID].
	Certificates [][]byte `json:"certificates,omitempty"`
	// Timestamp is an RFC 3161 response (TimeStampResp in DER) over Bytes; nil if there is none. In what a verifier gives, it
	// was checked, and TimestampedAt is its time.
	Timestamp     []byte    `json:"timestamp,omitempty"`
	TimestampedAt time.Time `json:"timestamped_at,omitzero"`
	// Entry is the record of the signature in a transparency log; nil if there is none. In what a verifier gives, it was
	// proven.
	Entry *LogEntry `json:"entry,omitempty"`
}

// Logged says whether there is an entry of a transparency log.
func (s Signature) Logged() bool { return s.Entry != nil }

// Evidence is what remains of a signature that was verified in the manifest with this digest.
func (s Signature) Evidence(manifest string) Evidence {
	e := Evidence{Format: s.Format, KeyID: s.KeyID, Digest: manifest}
	if s.Entry != nil {
		e.Log, e.LogIndex = s.Entry.Log, s.Entry.Index
	}
	if s.Timestamp != nil && !s.TimestampedAt.IsZero() {
		e.TimestampedAt = s.TimestampedAt.UTC()
	}
	return e
}

// LogEntry is a record in a transparency log, with what proves it. It has what both formats of signatures can carry.
type LogEntry struct {
	// Log is the configured name of the log that has proven it.
	Log string `json:"log"`
	// LogID is the SHA-256 of the log's SubjectPublicKeyInfo in DER, for Rekor v1, or the id of the checkpoint's key, for v2.
	LogID []byte `json:"log_id"`
	// Kind and Version are those of the body, such as "hashedrekord" and "0.0.1".
	Kind    string `json:"kind"`
	Version string `json:"version"`
	// Body is the canonical body, as the log hashes it.
	Body []byte `json:"body"`
	// Index is the one that the log gives the entry over all its shards.
	Index int64 `json:"index"`
	// IntegratedAt is in seconds since 1970, and SET the signed entry timestamp: 0 and nil with Rekor v2.
	IntegratedAt int64  `json:"integrated_at,omitempty"`
	SET          []byte `json:"set,omitempty"`
	// Proof is nil only where a legacy signature carries none.
	Proof *InclusionProof `json:"proof,omitempty"`
}

// InclusionProof leads from an entry to a signed checkpoint.
type InclusionProof struct {
	// Index is the one within the tree, TreeSize its size, RootHash and Hashes raw SHA-256.
	Index    int64    `json:"index"`
	TreeSize int64    `json:"tree_size"`
	RootHash []byte   `json:"root_hash"`
	Hashes   [][]byte `json:"hashes"`
	// Checkpoint is a signed note.
	Checkpoint string `json:"checkpoint"`
}

// IdentityID is the KeyID of keyless signatures: it stands for who signed (issuer and subject of the certificate), as the
// hash of a public key stands for a key. The parts are length-prefixed.
func IdentityID(issuer, subject string) string {
	h := sha256.New()
	for _, part := range []string{"harborseal keyless identity", issuer, subject} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return hex.EncodeToString(h.Sum(nil))
}
