// Package sigstore makes and verifies cosign signatures: it holds the keys, writes the legacy format (the manifest under
// the tag sha256-<hex>.sig) and decides, for every part of the program, whether a manifest counts as signed.
//
// It guarantees:
//   - What it signs, cosign v2 and v3 verify with the public key: the payload is byte for byte what cosign writes.
//   - The same key, identity and digest give the same signature bytes, and the same input manifest the same output: a
//     repetition after a crash changes nothing.
//   - "Signed" means that a signature verifies, with a key that is trusted and not revoked, over a payload that names this
//     digest and this identity. Everything else in a signature manifest is ignored, whatever it is.
//   - "Not signed" is only said when everything that could tell otherwise was read: what cannot be read is an error.
//   - Key material is in no error and no value that prints itself.
//
// It assumes that manifests and blobs were read by a client that bounds their size and checks their digests; it checks the
// digests of the payloads that it is given once more.
//
// It does not talk to a registry, a transparency log or a timestamp authority, and knows nothing of policies.
package sigstore
