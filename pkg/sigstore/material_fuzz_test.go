package sigstore_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/pubkey"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// FuzzBundleMaterial holds us to sigstore-go: the entry and the timestamp that we give, it must find too. It starts from the
// golden file, because all processes of a fuzzing run must have the same keys.
func FuzzBundleMaterial(f *testing.F) {
	g := readGolden(f)
	_, bundles := g.formats(f)
	document, err := sigstore.NewTrustDocument(g.Sources)
	if err != nil {
		f.Fatal(err)
	}
	key, err := pubkey.Parse([]byte(g.Sources.Keys[0].PublicKey))
	if err != nil {
		f.Fatal(err)
	}
	trusted := material{TrustedMaterial: parseRoot(f, document.TrustedRoot), key: key.Public}
	for _, w := range g.Written {
		raw := []byte(w.Blob)
		f.Add(raw)
		f.Add(bytes.Replace(raw, []byte(`"tlogEntries":[`), []byte(`"tlogEntries":[{},`), 1))
		f.Add(bytes.Replace(raw, []byte(`"integratedTime"`), []byte(`"integratedTime":"1","x"`), 1))
		f.Add(bytes.Replace(raw, []byte(`"inclusionProof"`), []byte(`"inclusion_proof"`), 1))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) == 0 || len(raw) > sigstore.MaxBundle {
			return
		}
		o := carrier(raw)
		in(o, "subject")["digest"] = g.Image.Digest
		got, err := bundles.Verify(t.Context(), manifestFrom(o), artifact.Claim{Digest: g.Image.Digest}, blobs(raw))
		if err != nil {
			t.Fatalf("Verify() = %v, want a signature or none", err)
		}
		for _, s := range got {
			keyless := len(s.Certificates) > 0
			if s.Entry == nil && s.Timestamp == nil && !keyless {
				continue
			}
			if err := goVerifies(t, trusted, raw, g.Image.Digest, s.Entry != nil, s.Timestamp != nil, keyless); err != nil {
				t.Errorf("we find an entry: %v, and a timestamp: %v, and sigstore-go says %v\n%s", s.Entry != nil, s.Timestamp != nil, err, raw)
			}
		}
	})
}

// FuzzLegacyMaterial reads whatever stands beside a signature, and completes it.
func FuzzLegacyMaterial(f *testing.F) {
	g := readGolden(f)
	legacy, _ := g.formats(f)
	full := g.Written[0].Signature
	c := artifact.Claim{Identity: identity, Digest: g.Image.Digest}
	for _, w := range g.Written {
		if w.Signature.Format == artifact.Legacy {
			f.Add([]byte(w.Manifest))
		}
	}
	plain, _, err := legacy.Append(nil, plainly(full))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain.Raw)
	f.Add(bytes.Replace(plain.Raw, []byte(`"annotations":{`), []byte(`"annotations" : { "`+entryNote+`" : "{}" ,`), 1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := artifact.Manifest{Raw: raw}
		got, err := legacy.Verify(t.Context(), m, c, anyKey, blobs(full.Payload))
		if err != nil {
			t.Fatalf("Verify() = %v, want signatures or none", err)
		}
		after, _, err := legacy.Append(&m, full)
		if err != nil {
			return
		}
		if !json.Valid(after.Raw) {
			t.Fatalf("Append() to\n%s\ngives\n%s", raw, after.Raw)
		}
		found, err := legacy.Verify(t.Context(), after, c, anyKey, blobs(full.Payload))
		if err != nil || len(found) < len(got) || !holds(found, full) {
			t.Errorf("after Append, Verify() = %+v, %v, want the logged and stamped signature, and what there was\n%s", found, err, after.Raw)
		}
		again, _, err := legacy.Append(&after, full)
		if err != nil || !bytes.Equal(again.Raw, after.Raw) {
			t.Errorf("appending twice gives\n%s, then\n%s, %v", after.Raw, again.Raw, err)
		}
		merged, err := legacy.Merge(&m, []artifact.Manifest{after})
		if err != nil {
			return
		}
		twice, err := legacy.Merge(&merged, []artifact.Manifest{after})
		if err != nil || !bytes.Equal(twice.Raw, merged.Raw) {
			t.Errorf("merging twice gives\n%s, then\n%s, %v", merged.Raw, twice.Raw, err)
		}
	})
}

// holds says whether a signature is among others with its entry and timestamp.
func holds(all []artifact.Signature, want artifact.Signature) bool {
	for _, s := range all {
		if bytes.Equal(s.Bytes, want.Bytes) && s.Entry != nil && s.Timestamp != nil {
			return true
		}
	}
	return false
}

// A log refuses keys whose entries nobody could verify; what it takes, sigstore-go accepts of every kind of key.
func TestSigstoreGoAcceptsLoggedKeys(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, verifyOnly("p384"), verifyOnly("ed25519"), verifyOnly("rsa"))
	trusted := d.document(t)
	for name, key := range rawKeys() {
		public, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil || loadedKeys()[name] == nil || name == "second" {
			continue
		}
		for _, log := range []virtualLog{d.one, d.two} {
			if err := log.verifier(t).Accepts(artifact.Bundle, public); err != nil {
				t.Logf("%s in %s: %v", name, log.name, err)
				continue
			}
			s := sign(t, name, artifact.Bundle, claim())
			s.Entry = log.entry(t, s, d.within())
			if got := d.verify(t, d.attach(t, s)); len(got) != 1 || got[0].Entry == nil {
				t.Errorf("%s in %s: Verify() = %+v, want the logged signature", name, log.name, got)
			}
			m := material{TrustedMaterial: parseRoot(t, trusted.TrustedRoot), key: key.Public()}
			if err := goVerifies(t, m, d.attach(t, s).pieces[0].Raw, digest, true, false, false); err != nil {
				t.Errorf("%s in %s: sigstore-go refuses it: %v", name, log.name, err)
			}
		}
	}
}
