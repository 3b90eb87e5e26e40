package sigstore

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// Fetch reads a blob of the subject's repository by its digest.
type Fetch = func(ctx context.Context, digest string) ([]byte, error)

// Legacy is cosign's legacy format: one manifest for each subject, under a tag that is made of the subject's digest, with
// one layer for each signature. It is immutable and safe for concurrent use.
type Legacy struct {
	keys *Keyring
}

// NewLegacy gives the format with the keys whose signatures count.
func NewLegacy(r *Keyring) *Legacy { return &Legacy{keys: r} }

// Tag is the tag under which the signatures of a digest stand: "sha256-<hex>.sig".
func (l *Legacy) Tag(digest string) string {
	return strings.Replace(digest, ":", "-", 1) + ".sig"
}

// Candidate says whether a referrer may be a manifest of this format. Harbor lists one under the type of its configuration,
// which is cosign's and this program's alike; attestations, SBOMs and bundles have other ones.
func (l *Legacy) Candidate(d artifact.Descriptor) bool {
	return d.ArtifactType == "" || d.ArtifactType == configType
}

// Verify gives the signatures in a signature manifest that are valid for the claim: each verifies with a key that is known,
// not revoked and accepted, over a payload that names the claim's digest and identity, with whatever annotations. One with a
// certificate of such an identity counts if the certificate was alive at each time that is proven, of which there is one at
// least. Without any, the manifest does not make the digest signed. Log entries and timestamps come along where they are
// proven; what is not is as if it were not there. One signature may come several times, with different material.
//
// Layers that are something else are ignored, and so is a manifest that cannot be read or is beyond the limits (4 MiB,
// 1,000 layers, 64 KiB a payload). The payloads that this program would write itself, with the claim's annotations and
// without any, are recomputed; the others are fetched, but only if their signature verifies over the digest that the
// manifest names, so that garbage costs no request (Ed25519 signs the payload itself: with such a key each candidate is
// fetched). A failing fetch is an error ("cannot tell" is not "no"), unless another signature counts or the fetch says that
// the payload does not exist or is too large.
func (l *Legacy) Verify(
	ctx context.Context, m artifact.Manifest, claim artifact.Claim, accepts func(keyID string) bool, fetch Fetch,
) ([]artifact.Signature, error) {
	parsed, err := parseManifest(m.Raw)
	if err != nil {
		return nil, nil //nolint:nilerr // an unreadable manifest carries no signature: that is the answer
	}
	known, err := knownDocuments(claim)
	if err != nil {
		return nil, fault.New(fault.Permanent, fault.Malformed, fmt.Errorf("verifying a signature: %w", err))
	}
	var counting []artifact.Signature
	var failed error
	for _, layer := range parsed.Layers {
		f, sum, ok := readLayer(layer)
		if !ok {
			continue
		}
		body := known[layer.Digest]
		if body != nil && int64(len(body)) != layer.Size {
			continue // nobody can read it
		}
		if body == nil {
			if !l.keys.mayVerify(sum, f, accepts) {
				continue
			}
			if body, err = fetchBlob(ctx, layer, fetch); err != nil {
				failed = err
				continue
			}
			if !documentMakes(body, claim) {
				continue
			}
		}
		f.Payload = body
		s, ok := l.keys.byKey(f)
		if !ok {
			s, ok = l.keys.keyless(f.Signature, f.timestamps)
		}
		if ok && accepts(s.KeyID) {
			counting = append(counting, s)
		}
	}
	if len(counting) == 0 && failed != nil {
		return nil, failed
	}
	return counting, nil
}

// knownDocuments are the payloads, by their digest, that need not be fetched.
func knownDocuments(claim artifact.Claim) (map[string][]byte, error) {
	known := make(map[string][]byte, 2)
	plain := claim
	plain.Annotations = nil
	for _, c := range []artifact.Claim{plain, claim} {
		if len(known) == 1 && len(claim.Annotations) == 0 {
			break
		}
		body, err := newPayload(artifact.Legacy, c)
		if err != nil {
			return nil, err
		}
		known[artifact.DigestOf(body)] = body
	}
	return known, nil
}

// readLayer gives the signature of a layer, without its payload, and the SHA-256 of that; false if the layer is none of a
// signature.
func readLayer(layer descriptor) (f found, sum []byte, ok bool) {
	encoded := layer.Annotations[signatureNote]
	if !carriesSignature(layer) || layer.Size > maxPayload || len(encoded) > base64.StdEncoding.EncodedLen(maxSignature) {
		return found{}, nil, false
	}
	f = readNotes(layer.Annotations)
	var err error
	if f.Bytes, err = base64.StdEncoding.DecodeString(encoded); err != nil {
		return found{}, nil, false
	}
	sum, err = hex.DecodeString(strings.TrimPrefix(layer.Digest, "sha256:"))
	return f, sum, err == nil
}

// carriesSignature says whether a layer is a signature by its form, whoever made it.
func carriesSignature(layer descriptor) bool {
	return layer.MediaType == layerType && layer.Annotations[signatureNote] != "" &&
		layer.Size >= 0 && artifact.ValidateDigest(layer.Digest) == nil
}

// fetchBlob gives nothing for a blob that does not exist, is too large or is not what the manifest says.
func fetchBlob(ctx context.Context, layer descriptor, fetch Fetch) ([]byte, error) {
	body, err := fetch(ctx, layer.Digest)
	if err != nil {
		// Gone means the blob here, and must not reach a caller who takes it for the subject.
		if f := fault.Of(err); f.Kind == fault.Gone || f.Reason == fault.TooLarge {
			return nil, nil
		}
		return nil, fmt.Errorf("reading the blob of a signature: %w", err)
	}
	if int64(len(body)) != layer.Size || artifact.DigestOf(body) != layer.Digest {
		return nil, nil
	}
	return body, nil
}
