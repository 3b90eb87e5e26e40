// Package checker judges from the outside whether images are signed as they should be: it reads the registry over the OCI
// distribution API, as any client with credentials does, and verifies with nothing but a public key.
//
// It guarantees that what it finds was read from the registry and hashed, and that a signature counts only if it holds over
// a payload that names the digest and, where the format has a place for it, the repository. It reports each broken rule as
// a [Violation]; an error means that it could not look, never that all is well.
//
// [Chaos] judges a whole run in which things were broken on purpose, by what was done, what the ledger tells and what the
// registry holds.
//
// It shares no code with the programs that it judges: it imports nothing below pkg/, and a test proves it. A mistake there
// must not be repeated here. Entries and timestamps in bundles, and the timestamps of legacy signatures, are verified by
// sigstore-go, as verifiers do; the log's promise beside a legacy signature, and who stands in a certificate, by code of its own.
//
// It knows signatures on the `.sig` tag and on manifests of that form that the referrers API lists, and sigstore bundles
// (v0.3) that the referrers API lists; keys and keyless identities; entries of Rekor v1 and v2 and timestamps by logs and
// authorities that it is told to trust. It looks at no certificate transparency. A log entry or a timestamp beside a
// signature of ours that does not count is a violation: what nobody can verify should not be there.
package checker
