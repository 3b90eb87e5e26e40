package sigstore

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/cosign/v2/pkg/types"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// maxSignature is the longest signature that is looked at, in bytes: RSA with 4096 bits has 512.
const maxSignature = 1024

// Fetch reads a blob of the subject's repository by its digest.
type Fetch = func(ctx context.Context, digest string) ([]byte, error)

// Verify gives the signatures in a signature manifest that count for a digest under an identity: each verifies with a key
// that is trusted and not revoked, over a payload that names both. Without any, the manifest does not make the digest
// signed.
//
// Layers that are something else are ignored, and so is a manifest that cannot be read or is beyond the limits (4 MiB,
// 1,000 layers, 64 KiB a payload). Payloads that this program would write itself are recomputed; the others, such as
// cosign's with annotations, are fetched, but only if their signature verifies over the digest that the manifest names, so
// that garbage costs no request (Ed25519 signs the payload itself: with such a key each candidate is fetched). A failing
// fetch is an error ("cannot tell" is not "no"), unless another signature counts or the fetch says that the payload does
// not exist or is too large.
func (l *Legacy) Verify(ctx context.Context, m artifact.Manifest, identity, digest string, fetch Fetch) ([]artifact.Signature, error) {
	parsed, err := parseManifest(m.Raw)
	if err != nil || len(parsed.Layers) > maxLayers {
		return nil, nil //nolint:nilerr // an unreadable manifest carries no signature: that is the answer
	}
	own, err := newPayload(identity, digest)
	if err != nil {
		return nil, err
	}
	ownDigest := artifact.DigestOf(own)
	var found []artifact.Signature
	var failed error
	for _, layer := range parsed.Layers {
		signature, sum, ok := readLayer(layer)
		if !ok {
			continue
		}
		body := own
		if layer.Digest != ownDigest {
			if !l.worthFetching(sum, signature) {
				continue
			}
			if body, err = fetchPayload(ctx, layer, fetch); err != nil {
				failed = err
				continue
			}
			if !names(body, identity, digest) {
				continue
			}
		}
		for _, key := range l.valid {
			if key.Verifies(body, signature) {
				found = append(found, artifact.Signature{KeyID: key.ID(), Payload: body, Bytes: signature})
				break
			}
		}
	}
	if len(found) == 0 && failed != nil {
		return nil, failed
	}
	return found, nil
}

// readLayer gives the signature of a layer and the SHA-256 of its payload; false if the layer is none of a signature.
func readLayer(layer descriptor) (signature, sum []byte, ok bool) {
	encoded := layer.Annotations[static.SignatureAnnotationKey]
	if layer.MediaType != types.SimpleSigningMediaType || layer.Size < 0 || layer.Size > maxPayload || artifact.ValidateDigest(layer.Digest) != nil ||
		encoded == "" || len(encoded) > base64.StdEncoding.EncodedLen(maxSignature) {
		return nil, nil, false
	}
	signature, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, nil, false
	}
	sum, err = hex.DecodeString(strings.TrimPrefix(layer.Digest, "sha256:"))
	return signature, sum, err == nil
}

// worthFetching says whether the payload with this SHA-256 could be one that a valid key signed.
func (l *Legacy) worthFetching(sum, signature []byte) bool {
	for _, key := range l.valid {
		if key.NeedsPayload() || key.VerifiesHash(sum, signature) {
			return true
		}
	}
	return false
}

// fetchPayload gives no payload for a payload that does not exist or is not what the manifest says: it names nothing.
func fetchPayload(ctx context.Context, layer descriptor, fetch Fetch) ([]byte, error) {
	body, err := fetch(ctx, layer.Digest)
	if err != nil {
		// Gone means the payload here, and must not reach a caller who takes it for the subject.
		if f := fault.Of(err); f.Kind == fault.Gone || f.Reason == fault.TooLarge {
			return nil, nil
		}
		return nil, fmt.Errorf("reading a signature's payload: %w", err)
	}
	if int64(len(body)) != layer.Size || artifact.DigestOf(body) != layer.Digest {
		return nil, nil
	}
	return body, nil
}
