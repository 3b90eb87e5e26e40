package inspect

import (
	"cmp"
	"crypto/x509"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/harborseal/harborseal/pkg/artifact"
)

const (
	// maxAnnotations and maxAnnotation bound what is shown of a claim: how many, and how long each name and value, in bytes.
	maxAnnotations = 16
	maxAnnotation  = 200
	// maxName is how much is shown of a name that somebody else has written, in bytes.
	maxName = 600
	// maxNames is how many names of a certificate are shown.
	maxNames = 8
)

// describe says what was read of one signature.
func describe(r Reading, manifest string, claim artifact.Claim, left *budget) Signature {
	s := Signature{
		Format: r.Read.Format, Manifest: manifest, Blob: r.Blob, Verified: r.Why == "", Reason: Reason(r.Why), Detail: explain(r, claim),
		Certificate: certificateOf(r.Read),
	}
	if r.KeyID != "" {
		s.Key = &Key{ID: r.KeyID, Name: r.KeyName, State: r.KeyState}
	}
	if r.Claim.Digest != "" {
		s.Claim = claimOf(r.Claim)
	}
	if e := cmp.Or(r.Proven.Entry, r.Read.Entry); e != nil {
		s.Log = &LogEntry{
			Verified: r.Proven.Entry != nil, Log: e.Log, LogID: hex.EncodeToString(e.LogID[:min(len(e.LogID), maxAnnotation)]), Index: e.Index, Proof: e.Proof != nil,
		}
		if e.IntegratedAt > 0 {
			at := time.Unix(min(e.IntegratedAt, maxUnix), 0).UTC()
			s.Log.IntegratedAt = &at
		}
	}
	if r.Proven.Timestamp != nil {
		at := r.Proven.TimestampedAt.UTC()
		s.Timestamp = &Timestamp{Verified: true, Authority: r.Authority, At: &at}
	} else if r.Read.Timestamp != nil {
		s.Timestamp = &Timestamp{}
	}
	if left != nil {
		s.Documents = documentsOf(r, left)
	}
	return s
}

// maxUnix is the last second that JSON has a form for.
const maxUnix = 253402300799

// explain says for people why a signature does not count.
func explain(r Reading, claim artifact.Claim) string {
	switch r.Why {
	case "":
		return ""
	case "payload_missing":
		return "the registry does not have what was signed under the digest that the manifest names, or it is too long"
	case "payload_malformed":
		return "what was signed cannot be read as a claim about one image"
	case "other_digest":
		return "what was signed is about " + clipped(r.Claim.Digest, maxName) + ": the signature was taken from another image, or changed"
	case "other_repository":
		return "what was signed is about " + clipped(r.Claim.Identity, maxName) + ", not " + claim.Identity
	case "key_revoked":
		return "it verifies with a key that is revoked: what only such a key signed is not signed"
	case "not_verified":
		return "it verifies with none of the keys of the configuration: it is by somebody else, or was changed"
	case "certificate_not_accepted":
		return "its certificate is none of an identity of the configuration, or no log entry or timestamp proves a time at which it was alive"
	default:
		return "it does not count"
	}
}

func claimOf(c artifact.Claim) *Claim {
	said := Claim{Digest: clipped(c.Digest, maxName), Annotations: map[string]string{}}
	registry, repository, _ := strings.Cut(c.Identity, "/")
	said.Registry, said.Repository = clipped(registry, maxName), clipped(repository, maxName)
	for _, name := range slices.Sorted(maps.Keys(c.Annotations)) {
		if len(said.Annotations) == maxAnnotations {
			said.Truncated = true
			break
		}
		short, text := clipped(name, maxAnnotation), clipped(c.Annotations[name], maxAnnotation)
		said.Truncated = said.Truncated || short != name || text != c.Annotations[name]
		said.Annotations[short] = text
	}
	return &said
}

// certificateOf reads the first certificate; nil if there is none that can be read.
func certificateOf(s artifact.Signature) *Certificate {
	if len(s.Certificates) == 0 {
		return nil
	}
	leaf, err := x509.ParseCertificate(s.Certificates[0])
	if err != nil {
		return nil
	}
	c := Certificate{Names: []string{}, Issuer: clipped(leaf.Issuer.String(), maxAnnotation), NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC()}
	names := slices.Concat(leaf.EmailAddresses, leaf.DNSNames)
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	for _, name := range names[:min(len(names), maxNames)] {
		c.Names = append(c.Names, clipped(name, maxAnnotation))
	}
	return &c
}

// clipped cuts a text where it is too long, between characters.
func clipped(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit] + "…"
}
