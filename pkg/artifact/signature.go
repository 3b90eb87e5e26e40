package artifact

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
}
