// Package inspect says what holds of an image at this moment: which signatures stand in the registry, in which format and by
// which key, what each of them claims, whether it verifies and why not, what proves it beside its key, and whether all that
// is what the project's policy asks for.
//
// Signers answer ([Inspector]), because they have the keys, the logs and the authorities; receivers ask ([Client]), one
// question for each manifest, so that an index with many children is spread over all signers.
//
// It guarantees:
//   - Nothing is said from memory: each answer rests on what was read from the registry for it.
//   - "Verified" is decided by what decides everywhere (package signing's Verifier), over the very bytes that are shown.
//   - An image is verified only if all of its children are, all levels down. What could not be looked at makes it not
//     verified, and the answer not complete: "cannot tell" is not "yes".
//   - An answer fits into one message of the queue. What is cut off says so.
//
// It assumes that whoever asks may: a signer answers any question, and knows no callers. It makes no signature, writes nothing
// into the registry, and asks a signer for at most [Workers] manifests at once, each of which asks the registry for one thing at
// a time.
package inspect
