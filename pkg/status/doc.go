// Package status answers the question of a pipeline: is this image signed yet?
//
// It guarantees that
//   - an image is called signed only if the ledger says so, and the manifests that carry the recorded signatures were seen in the
//     registry at most 10 s ago, and all of this holds for each manifest below an index as well;
//   - an image that Harbor has and the ledger does not know is asked for, by the same door as a push;
//   - who waits is woken by the ledger and asks nobody meanwhile: what wakes a thousand at once reads their rows in one statement
//     for each 500, and the registry is asked nothing about what a signer has verified within those 10 s;
//   - however many ask about one digest, one question is on its way to Harbor, and at most 16 about all;
//   - who waits is bounded in number, in all and for each caller, and is answered at once when the program stops.
//
// It assumes that the caller's right to ask about the repository was checked before: what is remembered here is for all. It
// assumes that the clocks of signers and receivers differ by less than a few seconds, because a signer's verification counts for 10 s
// by its own clock; an event that claims to be of the future counts as one of now.
//
// A tag is looked up at Harbor once, when the question comes in, and never remembered: who waits, waits for the digest that it
// named then, which the answer names. A reference with both a tag and a digest is about the digest, as for docker; its tag has to be
// one, and is not looked up. One with neither is about the tag latest.
//
// It does not verify a signature itself: the ledger holds what signers have verified.
package status
