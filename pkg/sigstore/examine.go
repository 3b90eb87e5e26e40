package sigstore

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"maps"

	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Why a signature does not count, from a closed set. They are told in this order: the first that is true.
const (
	// PayloadMissing: the registry does not have what was signed, or has something else or too much under its digest.
	PayloadMissing = "payload_missing"
	// PayloadMalformed: what was signed cannot be read as a claim about an image.
	PayloadMalformed = "payload_malformed"
	// OtherDigest and OtherRepository: the claim is about something else.
	OtherDigest     = "other_digest"
	OtherRepository = "other_repository"
	// KeyRevoked: it verifies, with a key or an identity that is revoked.
	KeyRevoked = "key_revoked"
	// NotVerified: it verifies with no key that is known. It is by somebody else, or it was changed.
	NotVerified = "not_verified"
	// CertificateNotAccepted: it is by a certificate that is none of a known identity, or of which no time is proven at which it
	// was alive.
	CertificateNotAccepted = "certificate_not_accepted"
)

// Reading is one signature as it stands in a manifest, whatever it is worth.
type Reading struct {
	// Read is the signature as it was read. Nothing of it is verified, and it has neither a KeyID nor a PublicKey.
	Read artifact.Signature
	// Blob is the digest of the blob that holds the payload, or the bundle; Document is the bundle as it was read; Notes are the
	// annotations of a legacy signature.
	Blob     string
	Document []byte
	Notes    map[string]string
	// Claim is what the payload says, as far as it can be read. Annotations that are no texts are JSON.
	Claim artifact.Claim
	// Why is empty if the signature counts: exactly then Verify gives it as well.
	Why string
	// KeyID, KeyName and KeyState are those of the key that it verifies with, also where the claim is another one or the key is
	// revoked; empty if there is none.
	KeyID, KeyName, KeyState string
	// Proven is the signature with log entry and timestamp as far as they verify, and Authority the name of who made the
	// timestamp; zero if the signature does not verify with a key that counts.
	Proven    artifact.Signature
	Authority string
}

// Examine reads all signatures in a manifest, at most so many, and says of each whether it counts for the claim and why not.
// What has not the form of a signature is passed over. more says that there are others. Each payload is fetched, and a failing
// fetch is an error, unless it says that the payload does not exist or is too large. A manifest that cannot be read has none.
func (l *Legacy) Examine(ctx context.Context, m artifact.Manifest, claim artifact.Claim, limit int, fetch Fetch) (all []Reading, more bool, err error) {
	parsed, err := parseManifest(m.Raw)
	if err != nil {
		return nil, false, nil //nolint:nilerr // an unreadable manifest carries no signature: that is the answer
	}
	for _, layer := range parsed.Layers {
		f, _, ok := readLayer(layer)
		if !ok {
			continue
		}
		if len(all) == limit {
			return all, true, nil
		}
		if f.Payload, err = fetchBlob(ctx, layer, fetch); err != nil {
			return nil, false, err
		}
		reading := l.keys.examine(f, claim)
		reading.Blob, reading.Notes = layer.Digest, maps.Clone(layer.Annotations)
		all = append(all, reading)
	}
	return all, false, nil
}

// Examine reads the signature in a bundle's manifest and says whether it counts for the claim and why not; false if the manifest
// is no bundle about the claim's digest, or holds an attestation. A failing fetch is an error, unless it says that the bundle
// does not exist or is too large.
func (b *Bundles) Examine(ctx context.Context, m artifact.Manifest, claim artifact.Claim, fetch Fetch) (reading Reading, ok bool, err error) {
	layer, ok := bundleLayer(m, claim.Digest)
	if !ok {
		return Reading{}, false, nil
	}
	raw, err := fetchBlob(ctx, layer, fetch)
	if err != nil {
		return Reading{}, false, err
	}
	f, ok := readBundle(raw)
	switch {
	case raw == nil:
		reading.Why = PayloadMissing
	case !ok:
		reading.Why = PayloadMalformed
	case isAttestation(f.Payload):
		return Reading{}, false, nil
	default:
		reading = b.keys.examine(f, claim)
	}
	reading.Read.Format, reading.Blob, reading.Document = artifact.Bundle, layer.Digest, raw
	return reading, true, nil
}

// examine says what a signature is worth, by the same means as Verify.
func (r *Keyring) examine(f found, claim artifact.Claim) Reading {
	reading := Reading{Read: f.Signature}
	if len(f.timestamps) > 0 {
		reading.Read.Timestamp = f.timestamps[0]
	}
	if f.Payload == nil {
		reading.Why = PayloadMissing
		return reading
	}
	s, verified := r.counting(f)
	if verified {
		reading.Proven, reading.Authority = s, r.trust.authorityOf(s)
		reading.KeyID = s.KeyID
	} else {
		reading.KeyID = r.revokedID(f)
	}
	reading.KeyName, reading.KeyState = r.described(reading.KeyID)
	said, readable := claimOf(f.Format, f.Payload)
	reading.Claim = said
	switch {
	case makes(f.Format, f.Payload, claim):
	case !readable:
		reading.Why = PayloadMalformed
	case said.Digest != claim.Digest:
		reading.Why = OtherDigest
	case f.Format == artifact.Legacy && said.Identity != claim.Identity:
		reading.Why = OtherRepository
	default: // it has more than it must have
		reading.Why = PayloadMalformed
	}
	switch {
	case reading.Why != "" || verified:
	case reading.KeyID != "":
		reading.Why = KeyRevoked
	case len(f.Certificates) > 0:
		reading.Why = CertificateNotAccepted
	default:
		reading.Why = NotVerified
	}
	return reading
}

// counting completes a signature that verifies with a key or an identity that counts, as each format does.
func (r *Keyring) counting(f found) (artifact.Signature, bool) {
	if f.Format == artifact.Legacy || len(f.Certificates) == 0 {
		if s, ok := r.byKey(f); ok {
			return s, true
		}
	}
	return r.keyless(f.Signature, f.timestamps)
}

// revokedID gives the id of the revoked key or identity with which a signature verifies; empty if there is none. When the
// certificate was alive does not matter then.
func (r *Keyring) revokedID(f found) string {
	signed := signedBytes(f.Format, f.Payload)
	for _, name := range r.names {
		k := r.named[name]
		if k.State != Revoked {
			continue
		}
		if k.Identity == nil {
			if k.Public.Verifies(signed, f.Bytes) {
				return k.id()
			}
			continue
		}
		if len(f.Certificates) == 0 {
			continue
		}
		if leaf, err := x509.ParseCertificate(f.Certificates[0]); err == nil {
			if _, err := k.Identity.Verify(f.Certificates, leaf.NotBefore); err == nil {
				return k.id()
			}
		}
	}
	return ""
}

func (r *Keyring) described(keyID string) (name, state string) {
	for _, name := range r.names {
		if k := r.named[name]; keyID != "" && k.id() == keyID {
			return name, string(k.State)
		}
	}
	return "", ""
}

// Named gives the name of the key that has this name or this id, whatever its state; false if there is none.
func (r *Keyring) Named(nameOrID string) (string, bool) {
	if _, known := r.named[nameOrID]; known {
		return nameOrID, true
	}
	name, _ := r.described(nameOrID)
	return name, name != ""
}

// authorityOf names who made the timestamp of a signature that was proven; empty if there is none.
func (t Trust) authorityOf(s artifact.Signature) string {
	for _, a := range t.Timestamps {
		if s.Timestamp == nil {
			break
		}
		if _, err := a.Verify(s.Timestamp, s.Bytes); err == nil {
			return a.Name()
		}
	}
	return ""
}

// claimOf reads what a payload says, for people: it is not as strict as what decides.
func claimOf(format artifact.Format, body []byte) (artifact.Claim, bool) {
	if format == artifact.Legacy {
		return documentClaim(body)
	}
	var s intoto.Statement
	if protojson.Unmarshal(body, &s) != nil || len(s.GetSubject()) == 0 {
		return artifact.Claim{}, false
	}
	subject := s.GetSubject()[0]
	claim := artifact.Claim{Digest: "sha256:" + subject.GetDigest()["sha256"]}
	for name, value := range subject.GetAnnotations().GetFields() {
		raw, err := json.Marshal(value.AsInterface())
		if err != nil {
			continue
		}
		claim.Annotations = noted(claim.Annotations, name, raw)
	}
	return claim, artifact.ValidateDigest(claim.Digest) == nil
}

func documentClaim(body []byte) (artifact.Claim, bool) {
	var d struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
		Optional map[string]json.RawMessage `json:"optional"`
	}
	if json.Unmarshal(body, &d) != nil {
		return artifact.Claim{}, false
	}
	claim := artifact.Claim{Identity: d.Critical.Identity.Reference, Digest: d.Critical.Image.Digest}
	for name, raw := range d.Optional {
		claim.Annotations = noted(claim.Annotations, name, raw)
	}
	return claim, artifact.ValidateDigest(claim.Digest) == nil
}

func noted(notes map[string]string, name string, raw json.RawMessage) map[string]string {
	if notes == nil {
		notes = map[string]string{}
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		text = string(raw)
	}
	notes[name] = text
	return notes
}

// isAttestation says whether a statement is of another type than that by which cosign signs.
func isAttestation(body []byte) bool {
	var s struct {
		PredicateType string `json:"predicateType"`
	}
	return json.Unmarshal(body, &s) == nil && s.PredicateType != "" && s.PredicateType != signPredicate
}
