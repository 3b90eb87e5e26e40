package sigstore_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	"github.com/digitorus/timestamp"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	rekortilespb "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/rekor-tiles/v2/pkg/types/hashedrekord"
	"github.com/sigstore/rekor/pkg/pki"
	"github.com/sigstore/rekor/pkg/types"
	_ "github.com/sigstore/rekor/pkg/types/dsse/v0.0.1"
	_ "github.com/sigstore/rekor/pkg/types/hashedrekord/v0.0.1"
	"github.com/sigstore/sigstore/pkg/signature"
	"golang.org/x/mod/sumdb/note"
	sumdb "golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/fulcio"
	"github.com/harborseal/harborseal/pkg/sigstore/tlog"
	"github.com/harborseal/harborseal/pkg/sigstore/tsa"
)

const (
	logHost = "log.example.com"
	// shard is how many entries earlier shards of the virtual log of Rekor v1 have.
	shard = 1000

	oidcIssuer  = "https://issuer.example.com"
	oidcSubject = "https://kubernetes.io/namespaces/harborseal/serviceaccounts/signer"
)

// nobody answers nothing: what only verifies asks nobody.
type nobody struct{}

func (nobody) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("nobody is to be asked")
}

// virtualLog makes entries as a real log does, with that one's own libraries.
type virtualLog struct {
	name string
	kind policy.LogType
	key  *ecdsa.PrivateKey
}

func newVirtualLog(tb testing.TB, name string, kind policy.LogType) virtualLog {
	tb.Helper()
	return virtualLog{name: name, kind: kind, key: newECDSA(tb)}
}

func newECDSA(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func spki(tb testing.TB, public crypto.PublicKey) []byte {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func publicPEM(tb testing.TB, public crypto.PublicKey) string {
	tb.Helper()
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki(tb, public)}))
}

// verifier is the real client, which verifies the log's entries.
func (v virtualLog) verifier(tb testing.TB) *tlog.Log {
	tb.Helper()
	l, err := tlog.New(tlog.Config{
		Name: v.name, Type: v.kind, URL: "https://" + logHost, PublicKey: []byte(publicPEM(tb, v.key.Public())), Transport: nobody{},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func (v virtualLog) source(tb testing.TB) sigstore.TrustLog {
	tb.Helper()
	return sigstore.TrustLog{Name: v.name, Type: v.kind, URL: "https://" + logHost, PublicKey: publicPEM(tb, v.key.Public())}
}

// hashes are the stored ones of a tree.
type hashes []sumdb.Hash

func (h hashes) ReadHashes(indexes []int64) ([]sumdb.Hash, error) {
	all := make([]sumdb.Hash, len(indexes))
	for i, at := range indexes {
		all[i] = h[at]
	}
	return all, nil
}

// entry is that of a signature, the second one in a tree of three.
func (v virtualLog) entry(tb testing.TB, s artifact.Signature, at time.Time) *artifact.LogEntry {
	tb.Helper()
	e := &artifact.LogEntry{Log: v.name, Index: 1}
	if v.kind == policy.RekorV2 {
		e.Kind, e.Version, e.Body = "hashedrekord", "0.0.2", v.bodyV2(tb, s)
		_, id, err := rekornote.KeyHash(logHost, v.key.Public())
		if err != nil {
			tb.Fatal(err)
		}
		e.LogID = id
	} else {
		e.Kind, e.Version, e.Body = bodyV1(tb, s)
		id := sha256.Sum256(spki(tb, v.key.Public()))
		e.LogID, e.Index, e.IntegratedAt = id[:], 1+shard, at.Unix()
		e.SET = v.promise(tb, *e)
	}
	e.Proof = v.prove(tb, e.Body)
	return e
}

func (v virtualLog) prove(tb testing.TB, leaf []byte) *artifact.InclusionProof {
	tb.Helper()
	var tree hashes
	for i, leaf := range [][]byte{[]byte("somebody's"), leaf, []byte("somebody else's")} {
		stored, err := sumdb.StoredHashes(int64(i), leaf, tree)
		if err != nil {
			tb.Fatal(err)
		}
		tree = append(tree, stored...)
	}
	root, err := sumdb.TreeHash(3, tree)
	if err != nil {
		tb.Fatal(err)
	}
	path, err := sumdb.ProveRecord(3, 1, tree)
	if err != nil {
		tb.Fatal(err)
	}
	first := logHost
	if v.kind == policy.RekorV1 {
		first += " - 4815162342"
	}
	signer, err := signature.LoadDefaultSigner(v.key)
	if err != nil {
		tb.Fatal(err)
	}
	noteSigner, err := rekornote.NewNoteSigner(context.Background(), logHost, signer)
	if err != nil {
		tb.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n3\n%s\n", first, base64.StdEncoding.EncodeToString(root[:]))}, noteSigner)
	if err != nil {
		tb.Fatal(err)
	}
	proof := &artifact.InclusionProof{Index: 1, TreeSize: 3, RootHash: root[:], Checkpoint: string(signed)}
	for _, one := range path {
		proof.Hashes = append(proof.Hashes, one[:])
	}
	return proof
}

// promise is the signed entry timestamp.
func (v virtualLog) promise(tb testing.TB, e artifact.LogEntry) []byte {
	tb.Helper()
	raw, err := jsoncanonicalizer.Transform(mustJSON(tb, map[string]any{
		"body": e.Body, "integratedTime": e.IntegratedAt, "logID": hex.EncodeToString(e.LogID), "logIndex": e.Index,
	}))
	if err != nil {
		tb.Fatal(err)
	}
	sum := sha256.Sum256(raw)
	set, err := ecdsa.SignASN1(rand.Reader, v.key, sum[:])
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// verifierPEM is what a signature verifies with.
func verifierPEM(s artifact.Signature) []byte {
	block := &pem.Block{Type: "PUBLIC KEY", Bytes: s.PublicKey}
	if len(s.Certificates) > 0 {
		block = &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificates[0]}
	}
	return pem.EncodeToMemory(block)
}

func bodyV1(tb testing.TB, s artifact.Signature) (kind, version string, body []byte) {
	tb.Helper()
	props := types.ArtifactProperties{PublicKeyBytes: [][]byte{verifierPEM(s)}, PKIFormat: string(pki.X509)}
	kind, version = "hashedrekord", "0.0.1"
	if s.Format == artifact.Bundle {
		kind = "dsse"
		props.ArtifactBytes = mustJSON(tb, map[string]any{
			"payload": s.Payload, "payloadType": statementType, "signatures": []any{map[string]any{"sig": s.Bytes}},
		})
	} else {
		sum := sha256.Sum256(s.Payload)
		props.ArtifactHash, props.SignatureBytes = hex.EncodeToString(sum[:]), s.Bytes
	}
	proposed, err := types.NewProposedEntry(tb.Context(), kind, version, props)
	if err != nil {
		tb.Fatal(err)
	}
	entry, err := types.CreateVersionedEntry(proposed)
	if err != nil {
		tb.Fatal(err)
	}
	body, err = types.CanonicalizeEntry(tb.Context(), entry)
	if err != nil {
		tb.Fatal(err)
	}
	return kind, version, body
}

func (v virtualLog) bodyV2(tb testing.TB, s artifact.Signature) []byte {
	tb.Helper()
	public, err := x509.ParsePKIXPublicKey(s.PublicKey)
	if err != nil {
		tb.Fatal(err)
	}
	details, err := signature.GetDefaultAlgorithmDetails(public)
	if err != nil {
		tb.Fatal(err)
	}
	verifier := &rekortilespb.Verifier{
		KeyDetails: details.GetSignatureAlgorithm(),
		Verifier:   &rekortilespb.Verifier_PublicKey{PublicKey: &rekortilespb.PublicKey{RawBytes: s.PublicKey}},
	}
	if len(s.Certificates) > 0 {
		verifier.Verifier = &rekortilespb.Verifier_X509Certificate{X509Certificate: &protocommon.X509Certificate{RawBytes: s.Certificates[0]}}
	}
	sum := sha256.Sum256(append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(statementType), statementType, len(s.Payload)), s.Payload...))
	registry, err := signature.NewAlgorithmRegistryConfig([]protocommon.PublicKeyDetails{
		protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256, protocommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_2048_SHA256,
	})
	if err != nil {
		tb.Fatal(err)
	}
	entry, err := hashedrekord.ToLogEntry(&rekortilespb.HashedRekordRequestV002{
		Digest: sum[:], Signature: &rekortilespb.Signature{Content: s.Bytes, Verifier: verifier},
	}, registry)
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := protojson.Marshal(entry)
	if err != nil {
		tb.Fatal(err)
	}
	body, err := jsoncanonicalizer.Transform(raw)
	if err != nil {
		tb.Fatal(err)
	}
	return body
}

// virtualCA is a root, an intermediate authority and the key of the latter.
type virtualCA struct {
	root, intermediate *x509.Certificate
	key                *ecdsa.PrivateKey
}

func newVirtualCA(tb testing.TB, name string, usage x509.ExtKeyUsage) virtualCA {
	tb.Helper()
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"Example"}},
			NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		}
	}
	rootKey := newECDSA(tb)
	root := template(name + " root")
	a := virtualCA{key: newECDSA(tb)}
	a.root = issue(tb, root, root, rootKey.Public(), rootKey)
	intermediate := template(name)
	intermediate.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	a.intermediate = issue(tb, intermediate, a.root, a.key.Public(), rootKey)
	return a
}

func issue(tb testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func chainPEM(certificates ...*x509.Certificate) string {
	var text string
	for _, c := range certificates {
		text += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return text
}

// virtualAuthority makes timestamps.
type virtualAuthority struct {
	virtualCA

	name string
	leaf *x509.Certificate
	own  *ecdsa.PrivateKey
}

func newVirtualAuthority(tb testing.TB, name string) virtualAuthority {
	tb.Helper()
	a := virtualAuthority{virtualCA: newVirtualCA(tb, name, x509.ExtKeyUsageTimeStamping), name: name, own: newECDSA(tb)}
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		tb.Fatal(err)
	}
	a.leaf = issue(tb, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: a.root.NotBefore, NotAfter: a.root.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}},
	}, a.intermediate, a.own.Public(), a.key)
	return a
}

func (a virtualAuthority) stamp(tb testing.TB, message []byte, at time.Time) []byte {
	tb.Helper()
	sum := sha256.Sum256(message)
	response, err := (&timestamp.Timestamp{
		HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Time: at, Policy: asn1.ObjectIdentifier{1, 2, 3}, AddTSACertificate: true,
	}).CreateResponseWithOpts(a.leaf, a.own, crypto.SHA256)
	if err != nil {
		tb.Fatal(err)
	}
	return response
}

func (a virtualAuthority) verifier(tb testing.TB) *tsa.Authority {
	tb.Helper()
	v, err := tsa.New(tsa.Config{Name: a.name, URL: "https://tsa.example.com/api/v1/timestamp", Chain: []byte(a.source().Chain), Transport: nobody{}})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func (a virtualAuthority) source() sigstore.TrustAuthority {
	return sigstore.TrustAuthority{
		Name: a.name, URL: "https://tsa.example.com/api/v1/timestamp", Chain: chainPEM(a.leaf, a.intermediate, a.root),
	}
}

// virtualIdentity is the real one, but for where its certificates come from.
type virtualIdentity struct {
	*fulcio.Identity
	virtualCA

	tb testing.TB
	// name is in the certificates, which live for ten minutes from begins on.
	name   string
	begins time.Time
}

func newVirtualIdentity(tb testing.TB) *virtualIdentity {
	tb.Helper()
	i := &virtualIdentity{
		virtualCA: newVirtualCA(tb, "fulcio", x509.ExtKeyUsageCodeSigning), tb: tb, name: oidcSubject, begins: time.Now().Add(-time.Hour).Truncate(time.Second),
	}
	var err error
	i.Identity, err = fulcio.New(fulcio.Config{
		Name: "keyless", URL: "https://fulcio.example.com", Roots: []byte(chainPEM(i.intermediate, i.root)), TokenFile: "none",
		Issuer: oidcIssuer, Subject: oidcSubject, Transport: nobody{},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

func (i *virtualIdentity) source() sigstore.TrustIdentity {
	return sigstore.TrustIdentity{
		Name: "keyless", State: sigstore.Active, Issuer: oidcIssuer, Subject: oidcSubject, URL: "https://fulcio.example.com",
		Roots: chainPEM(i.intermediate, i.root),
	}
}

// Sign makes a certificate for each signature.
func (i *virtualIdentity) Sign(_ context.Context, message []byte) (artifact.Signature, error) {
	key := newECDSA(i.tb)
	name, err := url.Parse(i.name)
	if err != nil {
		return artifact.Signature{}, err
	}
	issuer, err := asn1.MarshalWithParams(oidcIssuer, "utf8")
	if err != nil {
		return artifact.Signature{}, err
	}
	leaf := issue(i.tb, &x509.Certificate{
		SerialNumber: big.NewInt(3), NotBefore: i.begins, NotAfter: i.begins.Add(10 * time.Minute), URIs: []*url.URL{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		// Fulcio writes the issuer in two ways, and verifiers read one or the other.
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(oidcIssuer)},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: issuer},
		},
	}, i.intermediate, key.Public(), i.key)
	sum := sha256.Sum256(message)
	raw, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	return artifact.Signature{
		Bytes: raw, PublicKey: leaf.RawSubjectPublicKeyInfo, Certificates: [][]byte{leaf.Raw, i.intermediate.Raw, i.root.Raw},
	}, err
}
