package tlog_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore/tlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const inTotoType = "application/vnd.in-toto+json"

// signers are the kinds of keys that images are signed with.
func newSigner(tb testing.TB, kind string) crypto.Signer {
	tb.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = errors.New("unknown kind of key")
	}
	if err != nil {
		tb.Fatalf("making a %s key: %v", kind, err)
	}
	return key
}

// sign makes a valid signature over a payload of its own.
func sign(tb testing.TB, key crypto.Signer, format artifact.Format, payload string) artifact.Signature {
	tb.Helper()
	message := []byte(payload)
	if format == artifact.Bundle {
		message = fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(inTotoType), inTotoType, len(payload), payload)
	}
	var opts crypto.SignerOpts = crypto.Hash(0)
	if _, plain := key.(ed25519.PrivateKey); !plain {
		sum := sha256.Sum256(message)
		message, opts = sum[:], crypto.SHA256
	}
	raw, err := key.Sign(rand.Reader, message, opts)
	if err != nil {
		tb.Fatalf("signing: %v", err)
	}
	return artifact.Signature{Format: format, Payload: []byte(payload), Bytes: raw, PublicKey: spki(tb, key.Public())}
}

// withCertificate makes a signature a keyless one.
func withCertificate(tb testing.TB, key crypto.Signer, s artifact.Signature) artifact.Signature {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "somebody"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(10 * time.Minute),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatalf("making a certificate: %v", err)
	}
	s.Certificates = [][]byte{der}
	return s
}

func spki(tb testing.TB, public crypto.PublicKey) []byte {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		tb.Fatalf("encoding a public key: %v", err)
	}
	return der
}

func inPEM(tb testing.TB, public crypto.PublicKey) []byte {
	tb.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki(tb, public)})
}

// newTransport gives each test connections of its own.
func newTransport(tb testing.TB) *http.Transport {
	tb.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	tb.Cleanup(transport.CloseIdleConnections)
	return transport
}

// client gives the client of a log.
func client(tb testing.TB, at *virtualLog, edit ...func(*tlog.Config)) *tlog.Log {
	tb.Helper()
	c := tlog.Config{
		Name: "company", Type: at.kind, URL: at.server.URL, PublicKey: inPEM(tb, at.key.Public()),
		Transport: newTransport(tb), Timeout: 5 * time.Second,
	}
	if at.kind == policy.RekorV2 {
		c.Origin = origin
		c.TilesURL = at.server.URL + "/api/v2"
	}
	for _, one := range edit {
		one(&c)
	}
	l, err := tlog.New(c)
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	return l
}

// wantFault checks the kind and reason of an error, and that it says something.
func wantFault(tb testing.TB, err error, kind fault.Kind, reason fault.Reason) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("got no error, want %s %s", kind, reason)
	}
	if got := fault.Of(err); got.Kind != kind || got.Reason != reason {
		tb.Errorf("got %s %s (%v), want %s %s", got.Kind, got.Reason, err, kind, reason)
	}
}

// sameEntry compares what names an entry: the proof of a later one leads to a later checkpoint.
func sameEntry(tb testing.TB, got, want artifact.LogEntry) {
	tb.Helper()
	if got.Index != want.Index || !bytes.Equal(got.Body, want.Body) || got.IntegratedAt != want.IntegratedAt || got.Log != want.Log {
		tb.Errorf("got the entry %d of %s at %d with the body %s\nwant %d of %s at %d with %s",
			got.Index, got.Log, got.IntegratedAt, got.Body, want.Index, want.Log, want.IntegratedAt, want.Body)
	}
}
