// Package tsa is the adapter for RFC 3161 timestamp authorities: it has signatures stamped, and says when they were.
//
// What is stamped is the same for both formats: the raw bytes of the signature, not Base64 and not an envelope, hashed with
// SHA-256. What is kept is the whole answer, the TimeStampResp in DER, and not the token in it alone. A legacy signature has
// it in the annotation "dev.sigstore.cosign/rfc3161timestamp", as {"SignedRFC3161Timestamp": Base64}; a bundle in
// verificationMaterial.timestampVerificationData.rfc3161Timestamps[].signedTimestamp.
//
// It guarantees that no timestamp counts unless it verifies: granted, its imprint is that of the message, its signature is by
// a certificate that is made for stamping alone (an extended key usage of timestamping and nothing else, critical) and that
// leads to the configured ones at the stamped time. A fresh one has the nonce of its request too, and a time that is
// plausible by the local clock. Each call makes one request, follows no redirect and reads a bounded answer.
//
// It does not ask for revocation, and it cannot know when a message came to be, only that it was there at the stamped time.
package tsa
