// Package tlog speaks to transparency logs: Rekor v1 and Rekor v2. It puts signatures into them and decides what counts as
// an entry.
//
// It guarantees:
//   - An entry that it gives, or finds valid, was made by the configured log and is about this very signature: the canonical
//     body is written anew from the signature, its payload and its key or certificate, and compared byte for byte. What
//     proves the entry is verified against the log's key: the signed entry timestamp of Rekor v1, the inclusion proof, and
//     the checkpoint that it leads to.
//   - One call of [Log.Submit] makes one POST. A log that has the entry already answers 409: then that entry is read, from
//     Rekor v1 by its name, from the tiles of Rekor v2, and proven like any other. So a repetition after a lost answer
//     gives the same entry.
//   - The entries are those that cosign v2 and v3 and sigstore-go verify: hashedrekord 0.0.1 (legacy) and dsse 0.0.1
//     (bundle) with Rekor v1, hashedrekord 0.0.2 with Rekor v2.
//   - Every failure is a fault. Only a log's own refusal of an entry, in its own words, is permanent: whatever else is
//     wrong (a proxy's page, a wrong key, a frozen log) an operator mends, and no signature is given up for it.
//   - Answers are bounded, redirects are not followed, and nothing that an answer names is dialled.
//
// It assumes that the signature itself was verified, and that the transport given to it limits and dials as it should. It
// does not retry, does not limit how many wait, and does not follow the log's growth: that two checkpoints are consistent is
// for monitors to see.
package tlog
