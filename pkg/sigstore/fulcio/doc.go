// Package fulcio signs without a key of one's own: a certificate authority, Fulcio, certifies for some minutes that a key made
// just now belongs to the identity that a token names.
//
// One certificate serves all signatures until half of its life has passed. It is then replaced behind the signers' backs; none
// of them waits while a usable one is there. The token is read from its file for each certificate, so that a token that is
// replaced regularly, such as Kubernetes' projected ones, is always the one that is there now. The key never leaves the
// process, and is forgotten with its certificate.
//
// It guarantees that no certificate is used or counts unless it leads to the configured roots at the given time, is made for
// signing code, and names the configured issuer and subject and nobody else. The token goes to the configured address alone:
// redirects are not followed. No error holds it.
//
// It asks for no record of a certificate in a certificate transparency log: verifiers in a private deployment do without. It
// does not know when something was signed either. A certificate lives for minutes, so that a signature is worth nothing
// without a timestamp or an entry in a log from its lifetime: that is the business of whoever uses this package.
package fulcio
