package checker

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// SPEC: cosign, specs/SIGNATURE_SPEC.md: the annotations of a legacy signature's layer.
const (
	entryAnnotation       = "dev.sigstore.cosign/bundle"
	stampAnnotation       = "dev.sigstore.cosign/rfc3161timestamp"
	certificateAnnotation = "dev.sigstore.cosign/certificate"
)

// material is what stands beside a signature, as far as it can be read.
type material struct {
	// signature is what timestamps are over.
	signature   []byte
	certificate []byte
	stamps      [][]byte
	// entries gives the log entries that count by the trusted logs and the key that made the signature, and says what is wrong
	// with others.
	entries func(t *trusted, key crypto.PublicKey) ([]Entry, error)
	// unreadable says what cannot be read; nil if all can.
	unreadable error
}

// prove judges what stands beside a valid signature. A keyless one is only valid if that proves a time in its certificate's
// life.
func (c *Checker) prove(s *Signature, m material) {
	if s.Verdict != Valid {
		return
	}
	if m.unreadable != nil {
		s.Unproven = append(s.Unproven, m.unreadable.Error())
	}
	var times []time.Time
	if m.entries != nil {
		entries, err := m.entries(c.trust, c.keyBehind(m.certificate))
		if err != nil {
			s.Unproven = append(s.Unproven, err.Error())
		}
		s.Entries = entries
		for _, e := range entries {
			if !e.At.IsZero() {
				times = append(times, e.At)
			}
		}
	}
	for _, stamp := range m.stamps {
		at, err := c.trust.stamped(stamp, m.signature)
		if err != nil {
			s.Unproven = append(s.Unproven, err.Error())
			continue
		}
		s.Stamped = append(s.Stamped, at)
	}
	if c.identity == nil {
		return
	}
	lived := func(at time.Time) bool { return c.identity.lived(m.certificate, at) }
	if times = append(times, s.Stamped...); !slices.ContainsFunc(times, lived) {
		s.Verdict, s.Detail = Untimely, fmt.Sprintf("proven are the times %v, none of them in the certificate's life", times)
	}
}

// stamped gives the time of a timestamp over a signature.
func (t *trusted) stamped(response, signature []byte) (time.Time, error) {
	errs := []error{errors.New("a timestamp counts for no authority")}
	for _, a := range t.stamps {
		stamp, err := a.Verify(response, signature)
		if err == nil {
			return stamp.Time, nil
		}
		errs = append(errs, err)
	}
	return time.Time{}, errors.Join(errs...)
}

// bundleMaterial reads what a bundle holds beside its signature, as sigstore-go does for verifiers.
func bundleMaterial(content []byte) material {
	var b bundle.Bundle
	if err := b.UnmarshalJSON(content); err != nil {
		return material{unreadable: fmt.Errorf("sigstore-go does not read the bundle: %w", err)}
	}
	var m material
	if envelope := b.GetDsseEnvelope(); len(envelope.GetSignatures()) == 1 {
		m.signature = envelope.GetSignatures()[0].GetSig()
	}
	m.certificate = b.GetVerificationMaterial().GetCertificate().GetRawBytes()
	m.stamps, m.unreadable = b.Timestamps()
	if len(b.GetVerificationMaterial().GetTlogEntries()) > 0 {
		m.entries = func(t *trusted, key crypto.PublicKey) ([]Entry, error) { return bundleEntries(&b, t.with(key)) }
	}
	return m
}

// bundleEntries verifies all entries of a bundle, with the inclusion proof and the checkpoint without which sigstore-go reads none
// of this version.
func bundleEntries(b *bundle.Bundle, t *trusted) ([]Entry, error) {
	all, err := b.TlogEntries()
	if err != nil {
		return nil, fmt.Errorf("sigstore-go does not read the log entries: %w", err)
	}
	var entries []Entry
	logs := make(map[string]bool)
	for _, e := range all {
		id := hex.EncodeToString([]byte(e.LogKeyID()))
		logs[id] = true
		entries = append(entries, Entry{Log: t.names[id], Index: e.LogIndex(), At: e.IntegratedTime()})
	}
	if _, err := verify.VerifyTlogEntry(b, t, len(logs), true); err != nil {
		return nil, fmt.Errorf("sigstore-go refuses the log entry: %w", err)
	}
	for i := range entries {
		if entries[i].At.Unix() <= 0 {
			entries[i].At = time.Time{}
		}
	}
	return entries, nil
}

// legacyMaterial reads what a layer has beside its signature.
func legacyMaterial(l layer, payload []byte) material {
	var m material
	var errs []error
	var err error
	if m.signature, err = base64.StdEncoding.DecodeString(l.Annotations[signatureAnnotation]); err != nil {
		errs = append(errs, fmt.Errorf("reading the signature: %w", err))
	}
	m.certificate = certificatesOf(l)
	if text, there := l.Annotations[stampAnnotation]; there {
		var stamp struct{ SignedRFC3161Timestamp []byte }
		if err := json.Unmarshal([]byte(text), &stamp); err != nil {
			errs = append(errs, fmt.Errorf("reading the timestamp: %w", err))
		} else {
			m.stamps = [][]byte{stamp.SignedRFC3161Timestamp}
		}
	}
	if text, there := l.Annotations[entryAnnotation]; there {
		m.entries = func(t *trusted, key crypto.PublicKey) ([]Entry, error) {
			e, err := t.promised([]byte(text), payload, m.signature, m.certificate, key)
			if err != nil {
				return nil, fmt.Errorf("the log entry of the layer does not count: %w", err)
			}
			return []Entry{e}, nil
		}
	}
	m.unreadable = errors.Join(errs...)
	return m
}

// certificatesOf gives the certificate that a layer names; nil if there is none.
func certificatesOf(l layer) []byte {
	if block, _ := pem.Decode([]byte(l.Annotations[certificateAnnotation])); block != nil {
		return block.Bytes
	}
	return nil
}

// promised checks an entry of Rekor v1 as cosign writes it beside a legacy signature: the log has signed a promise, and what it
// promised to keep is this signature over this payload by this key or certificate.
//
// SPEC: Rekor, signed entry timestamp: the log's signature over the canonical JSON of body, integratedTime, logID, logIndex.
func (t *trusted) promised(text, payload, signature, certificate []byte, key crypto.PublicKey) (Entry, error) {
	var written struct {
		SignedEntryTimestamp []byte `json:"SignedEntryTimestamp"` //nolint:tagliatelle // cosign's
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogID          string `json:"logID"`
			LogIndex       int64  `json:"logIndex"`
		} `json:"Payload"` //nolint:tagliatelle // cosign's
	}
	if err := json.Unmarshal(text, &written); err != nil {
		return Entry{}, fmt.Errorf("reading it: %w", err)
	}
	log, known := t.logs[written.Payload.LogID]
	if !known {
		return Entry{}, fmt.Errorf("nobody trusts the log %.80q", written.Payload.LogID)
	}
	// The fields stand in the order that is signed.
	canonical, err := json.Marshal(written.Payload)
	if err != nil {
		return Entry{}, fmt.Errorf("writing what is signed: %w", err)
	}
	if !verifies(log.PublicKey, canonical, written.SignedEntryTimestamp) {
		return Entry{}, errors.New("the log did not sign the promise")
	}
	if err := speaksOf(written.Payload.Body, payload, signature, certificate, key); err != nil {
		return Entry{}, err
	}
	return Entry{Log: t.names[written.Payload.LogID], Index: written.Payload.LogIndex, At: time.Unix(written.Payload.IntegratedTime, 0)}, nil
}

// speaksOf says whether an entry of Rekor v1, a hashedrekord, is about a signature.
func speaksOf(body, payload, signature, certificate []byte, key crypto.PublicKey) error {
	var entry struct {
		Kind string `json:"kind"`
		Spec struct {
			Data struct {
				Hash struct {
					Algorithm string `json:"algorithm"`
					Value     string `json:"value"`
				} `json:"hash"`
			} `json:"data"`
			Signature struct {
				Content   []byte `json:"content"`
				PublicKey struct {
					Content []byte `json:"content"`
				} `json:"publicKey"`
			} `json:"signature"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(body, &entry); err != nil {
		return fmt.Errorf("reading its body: %w", err)
	}
	want := certificate
	if len(want) == 0 {
		spki, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return fmt.Errorf("writing the key: %w", err)
		}
		want = spki
	}
	hash := entry.Spec.Data.Hash
	block, _ := pem.Decode(entry.Spec.Signature.PublicKey.Content)
	switch {
	case entry.Kind != "hashedrekord":
		return fmt.Errorf("it is of the kind %.32q, want hashedrekord", entry.Kind)
	case hash.Algorithm != "sha256" || "sha256:"+hash.Value != sum(payload):
		return fmt.Errorf("it is about %s:%s, want the payload %s", hash.Algorithm, hash.Value, sum(payload))
	case string(entry.Spec.Signature.Content) != string(signature):
		return errors.New("it is about another signature")
	case block == nil || string(block.Bytes) != string(want):
		return errors.New("it is about another key")
	}
	return nil
}

// proofs checks what is asked for beside the signatures in one format that is wanted.
func (c *Checker) proofs(repository, digest string, format Format, found Evidence) []Violation {
	if !slices.Contains(c.formats, format) || len(found.Valid(format)) == 0 {
		return nil
	}
	// Most verifiers see the tagged manifest alone; of bundles, one that carries all is enough.
	has := func(want func(Signature) bool) bool {
		return slices.ContainsFunc(found.Signatures, func(s Signature) bool {
			return s.Verdict == Valid && s.Format == format && (format == Bundle || s.Manifest == found.Tagged) && want(s)
		})
	}
	logged := func(s Signature) bool { return len(s.Entries) > 0 }
	stamped := func(s Signature) bool { return len(s.Stamped) > 0 }
	var violations []Violation
	asked := c.asked.Log && (format == Bundle || c.trust.promises())
	if asked && !has(logged) {
		violations = append(violations, Violation{NotLogged, repository, digest, "no entry counts for our signature in the format " + string(format)})
	}
	if c.asked.Timestamp && !has(stamped) {
		violations = append(violations, Violation{NotStamped, repository, digest, "no timestamp counts for our signature in the format " + string(format)})
	}
	if asked && c.asked.Timestamp && len(violations) == 0 && !has(func(s Signature) bool { return logged(s) && stamped(s) }) {
		violations = append(violations, Violation{NotStamped, repository, digest, "the logged signature has no timestamp in the format " + string(format)})
	}
	return violations
}

// promises says whether a log is trusted whose entries have a place beside legacy signatures.
func (t *trusted) promises() bool {
	for _, l := range t.logs {
		if l.BaseURL == "https://" {
			return true
		}
	}
	return false
}

// loggedOnce checks that no signature has two entries that count, and that no verifier who asks for an entry meets a bundle without
// one first, where the legacy signature, which it would hide, has its entry.
func loggedOnce(repository, digest string, found Evidence) []Violation {
	var violations []Violation
	type signed struct {
		format Format
		bytes  string
	}
	entries := make(map[signed][]Entry)
	for _, s := range found.Signatures {
		if s.Verdict != Valid {
			continue
		}
		of := signed{s.Format, s.Bytes}
		for _, e := range s.Entries {
			if !slices.ContainsFunc(entries[of], func(o Entry) bool { return o.Log == e.Log && o.Index == e.Index }) {
				entries[of] = append(entries[of], e)
			}
		}
		if len(s.Entries) > 1 || len(entries[of]) > 1 {
			violations = append(violations, Violation{LoggedTwice, repository, digest, fmt.Sprintf("the entries of one signature in the format %s are %v", s.Format, entries[of])})
		}
	}
	loggedLegacy := slices.ContainsFunc(found.Signatures, func(s Signature) bool {
		return s.Verdict == Valid && s.Format == Legacy && s.Manifest == found.Tagged && len(s.Entries) > 0
	})
	for _, s := range found.Valid(Bundle) {
		if loggedLegacy && len(s.Entries) == 0 {
			violations = append(violations, Violation{UnloggedBeside, repository, digest, "the bundle is in " + s.Manifest})
		}
	}
	return violations
}
