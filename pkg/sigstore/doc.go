// Package sigstore makes and verifies cosign signatures: it signs with the keys of a [Keyring], writes the formats in which
// signatures stand beside an image ([Legacy] and [Bundles]), and decides, for every part of the program, what counts as one.
//
// It guarantees:
//   - What it signs, `cosign verify --key` of v2 and v3 and sigstore-go accept, with every kind of key that package keys
//     has. A legacy payload is byte for byte what cosign v2 writes; a bundle and its manifest are what cosign v3 writes,
//     but for the time of creation, which they do not have.
//   - With a key that signs deterministically, the same claim gives the same signature, and the same signature the same
//     manifest: a repetition after a crash changes nothing.
//   - "Signed" means that a signature verifies, with a key that is known and not revoked, over a payload that makes this
//     very claim: the digest, and in the legacy format the repository. Everything else is ignored, whatever it is: garbage,
//     attestations (also those by our own keys), signatures over something else, whatever is beyond the limits.
//   - A payload is read strictly. What has names that it must not have, or speaks of more than this digest, is none:
//     to overlook a signature costs a second one, to count one that other verifiers refuse costs the promise.
//   - "Not signed" is only said when everything that could tell otherwise was read: what cannot be read now is an error.
//   - What stands in a legacy manifest stays, byte for byte; adding a signature and merging manifests lose nobody's.
//
// It assumes that manifests and blobs were read by a client that bounds their size and checks their digests; it checks the
// limits and the digests of the blobs that it is given once more.
//
// Every hash is SHA-256, because that is what `cosign verify --key` checks: for P-384 too, where cosign's own sign command
// takes SHA-384 and makes signatures that its verify command refuses. A program that verifies a P-384 bundle with
// sigstore-go must load the key with SHA-256; the default verifier of sigstore's libraries takes SHA-384. Ed25519 signs the
// message itself; Ed25519ph, which cosign's sign command makes, counts neither there nor here.
//
// It does not talk to a registry, a transparency log or a timestamp authority, does not judge log entries and timestamps,
// and knows nothing of policies.
package sigstore
