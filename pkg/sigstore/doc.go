// Package sigstore makes and verifies cosign signatures: it signs with the keys and identities of a [Keyring], writes the
// formats in which signatures stand beside an image ([Legacy] and [Bundles]) with what stands behind them, and decides, for
// every part of the program, what counts as one. A [TrustDocument] tells everybody else how to do the same.
//
// It guarantees:
//   - What it signs, `cosign verify` of v2 and v3 and sigstore-go accept, with every kind of key that package keys has, and
//     with a private deployment's log entries, timestamps and certificates. A legacy payload is byte for byte what cosign v2
//     writes; a bundle and its manifest are what cosign v3 writes, but for the time of creation, which they do not have.
//   - With a key that signs deterministically, the same claim gives the same signature, and the same signature with the same
//     material the same manifest: a repetition after a crash changes nothing.
//   - "Signed" means that a signature verifies, with a key that is known and not revoked, over a payload that makes this
//     very claim: the digest, and in the legacy format the repository. Everything else is ignored, whatever it is: garbage,
//     attestations (also those by our own keys), signatures over something else, whatever is beyond the limits.
//   - "Logged" and "timestamped" mean that an entry or timestamp verifies, by a log or an authority of the [Trust], and is
//     about this very signature. What is not proven is as if it were not there; it never makes a key's signature invalid.
//   - A keyless signature counts only if a log's promise (Rekor v1) or a timestamp proves a time at which its certificate was
//     alive, and none proves another time; the certificate is one of a known identity. Signed certificate timestamps are not
//     asked for.
//   - A payload is read strictly. What has names that it must not have, or speaks of more than this digest, is none:
//     to overlook a signature costs a second one, to count one that other verifiers refuse costs the promise.
//   - "Not signed" is only said when everything that could tell otherwise was read: what cannot be read now is an error.
//   - What stands in a legacy manifest stays, byte for byte; adding a signature and merging manifests lose nobody's. A layer
//     gains material (log entry, timestamp, certificates), and loses or exchanges none.
//   - A trust document's command lines accept what they are for and refuse what lacks what they ask for, without asking the
//     public sigstore anything.
//
// It assumes that manifests and blobs were read by a client that bounds their size and checks their digests; it checks the
// limits and the digests of the blobs that it is given once more. It assumes that the verifiers of its Trust are right.
//
// Every hash is SHA-256, because that is what `cosign verify --key` checks: for P-384 too, where cosign's own sign command
// takes SHA-384 and makes signatures that its verify command refuses. A program that verifies a P-384 bundle with
// sigstore-go must load the key with SHA-256; the default verifier of sigstore's libraries takes SHA-384. Ed25519 signs the
// message itself; Ed25519ph, which cosign's sign command makes, counts neither there nor here. Logs do not take such
// signatures in every format: see [TrustDocument].
//
// A legacy signature has no place for an entry of Rekor v2. Of a bundle with several entries none counts: verifiers refuse it
// for any that is wrong, and this program writes one.
//
// It does not talk to a registry, a transparency log, a timestamp authority or Fulcio, and knows nothing of policies: whether
// a signature needs an entry or a timestamp is decided elsewhere.
package sigstore
