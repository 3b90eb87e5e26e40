package inspect

import (
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Reason is why something does not hold, from a closed set. Those of signatures are package sigstore's.
type Reason string

// The reasons of a manifest.
const (
	// MissingSignature: in a format that is asked for, no signature is enough.
	MissingSignature Reason = "missing_signature"
	// UnsupportedFormat: this Harbor does not take a format that is asked for.
	UnsupportedFormat Reason = "unsupported_format"
	// Unverifiable: what is asked for cannot be had from the logs and authorities of the configuration.
	Unverifiable Reason = "unverifiable"
	// UnknownKey: the configuration has no key of the name or the id that was asked for.
	UnknownKey Reason = "unknown_key"
	// Gone: an index names the manifest, and it is not in the registry.
	Gone Reason = "not_in_registry"
	// Unreadable: what stands in the registry is no manifest that can be signed.
	Unreadable Reason = "unreadable_manifest"
	// TooMuch: more stands beside the manifest than is read for one question.
	TooMuch Reason = "too_much"
	// NotLooked: there was no time, or no answer, to look at it.
	NotLooked Reason = "not_looked_at"
)

// Problem is one reason with what it means here, for people.
type Problem struct {
	Reason Reason `json:"reason"`
	Detail string `json:"detail"`
}

// Report is what holds of one manifest.
type Report struct {
	Repository string `json:"repository"`
	Digest     string `json:"digest"`
	MediaType  string `json:"media_type"`
	// Depth is 0 for what was asked for, and one more for each index on the way to it.
	Depth int `json:"depth"`
	// Verified says that nothing is missing of what is asked for. It is about this manifest alone. Problems, never nil, say why
	// not.
	Verified bool      `json:"verified"`
	Problems []Problem `json:"problems"`
	// Asked is what the verdict rests on; null if that could not be told.
	Asked *Asked `json:"asked"`
	// Missing are the formats in which no signature is enough, Owed those in which a log entry may come later and has not.
	Missing []artifact.Format `json:"missing"`
	Owed    []artifact.Format `json:"log_owed"`
	// LockedBy is the immutability rule because of which a bundle stands in for a legacy signature; empty if none does.
	LockedBy string `json:"locked_by"`
	// Signatures are all that were found, whatever they are worth; MoreSignatures says that there are others, which were not
	// read. They are never nil.
	Signatures     []Signature `json:"signatures"`
	MoreSignatures bool        `json:"more_signatures"`
	// Children are the digests that an index names, never nil; ChildrenTotal counts also those that are not listed.
	Children      []string  `json:"children"`
	ChildrenTotal int       `json:"children_total"`
	CheckedAt     time.Time `json:"checked_at"`
}

// Asked is what was asked of the signatures: by the policy in force, but for what the question named.
type Asked struct {
	// Enabled says whether the project is signed or observed at all: where it is not, the rest is what a new policy would begin
	// with.
	Enabled        bool                `json:"enabled"`
	Mode           policy.Mode         `json:"mode"`
	PolicyRevision string              `json:"policy_revision"`
	Formats        []artifact.Format   `json:"formats"`
	Key            string              `json:"key"`
	ActiveKeyOnly  bool                `json:"active_key_only"`
	Transparency   policy.Transparency `json:"transparency"`
	Log            string              `json:"log"`
	Timestamp      policy.Timestamp    `json:"timestamp"`
}

// Signature is one signature that stands in the registry.
type Signature struct {
	Format artifact.Format `json:"format"`
	// Manifest carries it, and Blob is its payload, or the bundle.
	Manifest string `json:"manifest"`
	Blob     string `json:"blob"`
	// Verified says that it verifies with a key that is known and not revoked, over a claim about this image. Reason and Detail
	// say why not.
	Verified bool   `json:"verified"`
	Reason   Reason `json:"reason"`
	Detail   string `json:"detail"`
	// Key is the one that it verifies with; null if that is none that is known. It is there for a revoked one, too.
	Key *Key `json:"key"`
	// Claim is what it says; null if that cannot be read.
	Claim *Claim `json:"claim"`
	// Log and Timestamp are what proves it beside its key; null if it has none. Certificate is that of a keyless one.
	Log         *LogEntry    `json:"log"`
	Timestamp   *Timestamp   `json:"timestamp"`
	Certificate *Certificate `json:"certificate"`
	// Documents are there in evidence alone.
	Documents *Documents `json:"documents,omitempty"`
}

// Key is a key or an identity of the configuration. State is active, verify-only or revoked.
type Key struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	State string `json:"state"`
}

// Claim is what a payload says. Registry and Repository are empty in a bundle, which has no place for them. Annotations are cut
// where they are long or many, which Truncated says.
type Claim struct {
	Registry    string            `json:"registry"`
	Repository  string            `json:"repository"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
	Truncated   bool              `json:"truncated"`
}

// LogEntry is a signature's entry in a transparency log. Without Verified it is what the signature's writer says.
type LogEntry struct {
	Verified bool `json:"verified"`
	// Log is the name of the log that has proven it; empty if none has.
	Log   string `json:"log"`
	LogID string `json:"log_id"` // hexadecimal
	Index int64  `json:"index"`
	// IntegratedAt is null where the log does not say it, as Rekor v2.
	IntegratedAt *time.Time `json:"integrated_at"`
	Proof        bool       `json:"inclusion_proof"`
}

// Timestamp is an RFC 3161 timestamp. Authority and At are empty and null unless it is verified.
type Timestamp struct {
	Verified  bool       `json:"verified"`
	Authority string     `json:"authority"`
	At        *time.Time `json:"at"`
}

// Certificate is the first of a keyless signature. Only Key of the signature says whether it is believed.
type Certificate struct {
	Names     []string  `json:"names"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Documents are the very bytes. Those that a signature does not have are null.
type Documents struct {
	Payload     *Document         `json:"payload"`
	Signature   *Document         `json:"signature"`
	Annotations map[string]string `json:"annotations"`
	// Certificates are in PEM, its own first.
	Certificates *Document `json:"certificates"`
	// LogEntry is the canonical body as the log has hashed it, RekorBundle what stands beside a legacy signature.
	LogEntry       *Document `json:"log_entry"`
	RekorBundle    *Document `json:"rekor_bundle"`
	InclusionProof *Proof    `json:"inclusion_proof"`
	// Timestamp is a TimeStampResp in DER.
	Timestamp *Document `json:"timestamp"`
	// Bundle is the sigstore bundle.
	Bundle *Document `json:"bundle"`
}

// Document is one document. Encoding is "utf-8" or "base64". Where Truncated, it was too long for the answer and Data is empty:
// the registry has it under the digest of the blob or of the manifest.
type Document struct {
	MediaType string `json:"media_type"`
	Encoding  string `json:"encoding"`
	Data      string `json:"data"`
	Size      int    `json:"size"`
	SHA256    string `json:"sha256"` // hexadecimal, of the decoded data
	Truncated bool   `json:"truncated"`
}

// Proof leads from a log entry to a signed checkpoint. Hashes are hexadecimal.
type Proof struct {
	Index      int64    `json:"index"`
	TreeSize   int64    `json:"tree_size"`
	RootHash   string   `json:"root_hash"`
	Hashes     []string `json:"hashes"`
	Checkpoint string   `json:"checkpoint"`
}
