// Package keys holds the keys that sign and verify, wherever they live: in a file, in a KMS or in an HSM.
//
// It guarantees:
//   - A key has signed something that verifies before it is handed out. Only one whose public key is pinned is handed out while its
//     KMS or HSM does not answer, cannot serve or refuses the credentials, so that this does not end the start of a program with
//     other keys; it is proven by its first signature instead.
//   - Every signature of a KMS or HSM is verified before it is returned: a key that was rotated or swapped over there is a clear
//     error and never a signature.
//   - Every signature is one that `cosign verify --key` takes: SHA-256 for all curves and ASN.1 DER for ECDSA, SHA-256
//     with PKCS #1 v1.5 for RSA, pure Ed25519. [Open] refuses a key with which its KMS cannot sign so.
//   - Key material, tokens, PINs and passwords are in no error and in no value that prints itself, even where the other
//     side echoes them. They come from files that only their owner may read.
//   - No more than [Source.MaxCalls] calls for each key run at a time, and nobody waits longer than [Source.Timeout] for a
//     place and as long again for an answer. Keys of one KMS or HSM share no limit. Proving a key takes two calls. A call that its library does not abandon
//     keeps its place until it returns, so that what hangs cannot pile up.
//   - A fault is the key's and not the digest's: whatever [Key.Sign] met is transient with the reason key_unavailable,
//     and its text says what an operator has to do. One attempt is made; retrying is the caller's.
//
// # What it dials
//
// hashivault:// and awskms:// are sigstore's providers, and every connection of theirs is one of [Source.Transport]. AWS
// takes it as its HTTP client, for KMS and for whatever its credential chain asks (STS, the metadata services of EC2, ECS
// and EKS). Sigstore's Vault provider takes none: it dials by itself and without a time limit, follows redirects with the
// token in hand, and panics at an empty 404. It is therefore pointed at a Unix socket in a folder that only this process's
// user can enter, where a gateway passes the two requests that it needs on to the configured address.
//
// gcpkms:// and azurekms:// are in builds with their tags alone. They cannot be led this way: they dial by themselves, are
// missing in the record of destinations, and were tried against nothing.
//
// # What it reads from the environment
//
// Vault: nothing that is sent or trusted. The provider looks at VAULT_* and BAO_* all the same when it starts, and does
// not start where one cannot be read (VAULT_CACERT, say). AWS: what [AWSOptions] leaves open is settled by the SDK's own
// variables and files (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE, AWS_CONTAINER_…,
// AWS_REGION and so on). AWS_CA_BUNDLE and AWS_TLS_INSECURE_SKIP_VERIFY are
// refused, because they change whom the transport trusts. PKCS #11 modules read their own (SOFTHSM2_CONF). TMPDIR says
// where the gateway's folder is made.
//
// It does not choose a key, keep its state or watch files: a file's key is read once.
package keys
