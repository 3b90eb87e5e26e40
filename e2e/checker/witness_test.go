package checker_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/harborseal/harborseal/e2e/checker"
)

const origin = "rekor.example.com"

// proofs are what stands beside the signature of a bundle.
type proofs struct {
	entries []map[string]any
	stamps  [][]byte
	// certificate stands in the place of the key's hint.
	certificate []byte
}

func (p proofs) into(material map[string]any) {
	if p.certificate != nil {
		delete(material, "publicKey")
		material["certificate"] = map[string]any{"rawBytes": p.certificate}
	}
	material["tlogEntries"] = p.entries
	var stamps []any
	for _, s := range p.stamps {
		stamps = append(stamps, map[string]any{"signedTimestamp": s})
	}
	material["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": stamps}
}

// forest is a log of Rekor v1 whose tree has one leaf, whichever is asked for.
type forest struct {
	key *ecdsa.PrivateKey
	id  []byte
}

func newForest(t *testing.T) *forest {
	t.Helper()
	key := newKey(t)
	id, err := checker.KeyID(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	return &forest{key: key, id: raw}
}

func publicPEM(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// promise gives what cosign writes beside a legacy signature.
func (f *forest) promise(t *testing.T, body []byte, index int64) (text string, set []byte) {
	t.Helper()
	payload := map[string]any{"body": body, "integratedTime": time.Now().Unix(), "logID": hex.EncodeToString(f.id), "logIndex": index}
	set = signature(t, rand.Reader, f.key, encode(t, payload)) // a map's keys are sorted
	return string(encode(t, map[string]any{"SignedEntryTimestamp": set, "Payload": payload})), set
}

// record is an entry about a legacy signature.
func record(t *testing.T, payload, signature, verifier []byte) []byte {
	t.Helper()
	return encode(t, map[string]any{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
		"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": digestOf(payload)[len("sha256:"):]}},
		"signature": map[string]any{"content": signature, "publicKey": map[string]any{"content": verifier}},
	}})
}

// entry is one about the signature of a bundle, with its proof.
func (f *forest) entry(t *testing.T, payload, signed, verifier []byte, index int64) map[string]any {
	t.Helper()
	hash := func(content []byte) any {
		return map[string]any{"algorithm": "sha256", "value": digestOf(content)[len("sha256:"):]}
	}
	body := encode(t, map[string]any{"apiVersion": "0.0.1", "kind": "dsse", "spec": map[string]any{
		"envelopeHash": hash([]byte("any")), "payloadHash": hash(payload),
		"signatures": []any{map[string]any{"signature": base64.StdEncoding.EncodeToString(signed), "verifier": verifier}},
	}})
	leaf := sha256.Sum256(append([]byte{0}, body...))
	note := fmt.Sprintf("%s - 1\n1\n%s\n", origin, base64.StdEncoding.EncodeToString(leaf[:]))
	line := base64.StdEncoding.EncodeToString(append(slices.Clone(f.id[:4]), signature(t, rand.Reader, f.key, []byte(note))...))
	entry := map[string]any{
		"logIndex": fmt.Sprint(index), "logId": map[string]any{"keyId": f.id}, "kindVersion": map[string]any{"kind": "dsse", "version": "0.0.1"},
		"canonicalizedBody": body,
		"inclusionProof": map[string]any{
			"logIndex": "0", "treeSize": "1", "rootHash": leaf[:],
			"checkpoint": map[string]any{"envelope": fmt.Sprintf("%s\n— %s %s\n", note, origin, line)},
		},
	}
	text, set := f.promise(t, body, index)
	var promised struct {
		Payload struct{ IntegratedTime int64 }
	}
	if err := json.Unmarshal([]byte(text), &promised); err != nil {
		t.Fatal(err)
	}
	entry["inclusionPromise"], entry["integratedTime"] = map[string]any{"signedEntryTimestamp": set}, fmt.Sprint(promised.Payload.IntegratedTime)
	return entry
}

// mint is an authority for certificates, and what it makes.
type mint struct {
	root, leaf *x509.Certificate
	key        *ecdsa.PrivateKey // of the leaf
}

func newMint(t *testing.T, template *x509.Certificate) *mint {
	t.Helper()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	above, m := newKey(t), &mint{key: newKey(t)}
	m.root = issue(t, authority, authority, above.Public(), above)
	m.leaf = issue(t, template, m.root, m.key.Public(), above)
	return m
}

func issue(t *testing.T, template, above *x509.Certificate, key crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, above, key, by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (m *mint) chain() []byte {
	return append(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.leaf.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.root.Raw})...)
}

// newClock is an authority for timestamps.
func newClock(t *testing.T) *mint {
	t.Helper()
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		t.Fatal(err)
	}
	return newMint(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "stamp"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}},
	})
}

func (m *mint) stamp(t *testing.T, signature []byte, at time.Time) []byte {
	t.Helper()
	hash := sha256.Sum256(signature)
	ts := timestamp.Timestamp{
		HashAlgorithm: crypto.SHA256, HashedMessage: hash[:], Time: at, SerialNumber: big.NewInt(3), Policy: asn1.ObjectIdentifier{1, 2, 3},
		AddTSACertificate: false,
	}
	response, err := ts.CreateResponseWithOpts(m.leaf, m.key, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// witness is a garden whose signatures can have proofs.
type witness struct {
	*garden

	log   *forest
	clock *mint
}

func newWitness(t *testing.T) *witness {
	t.Helper()
	return &witness{garden: newGarden(t), log: newForest(t), clock: newClock(t)}
}

func (w *witness) trust(t *testing.T) checker.Trust {
	t.Helper()
	return checker.Trust{
		Logs: []checker.Log{{Name: "rekor", Key: publicPEM(t, w.log.key)}}, Authorities: [][]byte{w.clock.chain()},
	}
}

func (w *witness) judge(t *testing.T, asked checker.Asked, formats ...checker.Format) *checker.Checker {
	t.Helper()
	c, err := w.wanting(formats...).Trusting(w.trust(t), asked)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// plan is what a planted legacy signature has beside it.
type plan struct {
	claim

	unlogged, stamped bool
	index             int64
	// log and clock are others than those that are trusted; changed changes the body of the entry after the log has signed it,
	// and logged before.
	log             *forest
	clock           *mint
	changed, logged func(body []byte) []byte
	// other makes an entry or timestamp of another signature.
	other bool
}

// planted makes a legacy signature's layer. The same plan gives the same signature.
func (w *witness) planted(t *testing.T, digest string, p plan) mutate.Addendum {
	t.Helper()
	bare := w.layer(t, digest, p.claim)
	payload := contentOf(t, bare)
	signed := signature(t, nil, w.key, payload)
	bare.Annotations["dev.cosignproject.cosign/signature"] = base64.StdEncoding.EncodeToString(signed)
	if p.other {
		signed = signature(t, rand.Reader, w.key, payload)
	}
	if !p.unlogged {
		log := w.log
		if p.log != nil {
			log = p.log
		}
		body := record(t, payload, signed, publicPEM(t, w.key))
		if p.logged != nil {
			body = p.logged(body)
		}
		text, _ := log.promise(t, body, p.index)
		if p.changed != nil {
			text = string(bytes.ReplaceAll([]byte(text), []byte(base64.StdEncoding.EncodeToString(body)), []byte(base64.StdEncoding.EncodeToString(p.changed(body)))))
		}
		bare.Annotations["dev.sigstore.cosign/bundle"] = text
	}
	if p.stamped {
		clock := w.clock
		if p.clock != nil {
			clock = p.clock
		}
		bare.Annotations["dev.sigstore.cosign/rfc3161timestamp"] = string(encode(t, map[string]any{"SignedRFC3161Timestamp": clock.stamp(t, signed, time.Now())}))
	}
	return bare
}

func replacing(pattern, by string) func(body []byte) []byte {
	return func(body []byte) []byte { return regexp.MustCompile(pattern).ReplaceAll(body, []byte(by)) }
}

func contentOf(t *testing.T, l mutate.Addendum) []byte {
	t.Helper()
	reader, err := l.Layer.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	var content bytes.Buffer
	if _, err := content.ReadFrom(reader); err != nil {
		t.Fatal(err)
	}
	return content.Bytes()
}

// logged gives entries of these indexes beside a bundle's signature, and a timestamp if it is asked for.
func (w *witness) logged(log *forest, stamped bool, indexes ...int64) func(t *testing.T, payload, signed []byte) proofs {
	return func(t *testing.T, payload, signed []byte) proofs {
		t.Helper()
		var p proofs
		for _, index := range indexes {
			p.entries = append(p.entries, log.entry(t, payload, signed, publicPEM(t, w.key), index))
		}
		if stamped {
			p.stamps = [][]byte{w.clock.stamp(t, signed, time.Now())}
		}
		return p
	}
}
