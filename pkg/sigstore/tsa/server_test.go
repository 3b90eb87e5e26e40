package tsa_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"github.com/harborseal/harborseal/pkg/sigstore/tsa"
)

// start is when the tests play: within the lives of all certificates, and now, because the library that makes the answers
// puts that into them too.
var start = time.Now().UTC().Truncate(time.Second)

// person is a certificate with its key.
type person struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (p person) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
}

// issue makes a certificate; a nil issuer stands for itself.
func issue(tb testing.TB, name string, issuer *person, change func(*x509.Certificate)) person {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(1, 0, 0), BasicConstraintsValid: true,
	}
	change(template)
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return person{cert: cert, key: key}
}

func authority(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }

// stamping makes a template that of a timestamp authority, with the given usages.
func stamping(critical bool, usages ...asn1.ObjectIdentifier) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.KeyUsage = x509.KeyUsageDigitalSignature
		value, err := asn1.Marshal(usages)
		if err != nil {
			panic(err)
		}
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: critical, Value: value})
	}
}

var (
	usageStamping = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
	usageCode     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}
	usageUnknown  = asn1.ObjectIdentifier{1, 2, 3, 4, 5}
)

// chain is a whole timestamp authority.
type chain struct{ root, middle, leaf person }

func newChain(tb testing.TB) chain {
	tb.Helper()
	root := issue(tb, "root", nil, authority)
	middle := issue(tb, "middle", &root, authority)
	return chain{root: root, middle: middle, leaf: issue(tb, "stamp", &middle, stamping(true, usageStamping))}
}

func (c chain) pem() []byte { return slices.Concat(c.leaf.pem(), c.middle.pem(), c.root.pem()) }

// server answers as an authority does. What is set makes it lie.
type server struct {
	chain
	// stamp changes what is stamped before it is signed.
	stamp func(*timestamp.Timestamp)
	// answer changes the answer.
	answer func([]byte) []byte
	// reply stands for the whole answer, after the request was read.
	reply func(http.ResponseWriter)
	// requests counts.
	requests int
	// last is the last request.
	last *timestamp.Request
	// header is that of the last request.
	header http.Header
	status int
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests++
	s.header = r.Header.Clone()
	body, err := io.ReadAll(r.Body)
	if err == nil {
		s.last, err = timestamp.ParseRequest(body)
	}
	if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/timestamp-query" {
		http.Error(w, "want a timestamp query", http.StatusBadRequest)
		return
	}
	if s.reply != nil {
		s.reply(w)
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	if s.status != 0 {
		w.WriteHeader(s.status)
	}
	_, _ = w.Write(s.respond(s.last)) //nolint:gosec // no browser reads it
}

// respond makes the answer to a request.
func (s *server) respond(request *timestamp.Request) []byte {
	made := &timestamp.Timestamp{
		HashAlgorithm: request.HashAlgorithm, HashedMessage: request.HashedMessage, Time: start, Nonce: request.Nonce,
		Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2}, AddTSACertificate: request.Certificates,
		Certificates: []*x509.Certificate{s.middle.cert},
	}
	if s.stamp != nil {
		s.stamp(made)
	}
	response, err := made.CreateResponseWithOpts(s.leaf.cert, s.leaf.key, crypto.SHA256)
	if err != nil {
		panic(err)
	}
	if s.answer != nil {
		response = s.answer(response)
	}
	return response
}

// roundTripper lets a handler answer in the same goroutine.
type roundTripper struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	t.ServeHTTP(w, r)
	return w.Result(), nil
}

// configOf is a working configuration for a server, whose clock stands still.
func configOf(s *server) tsa.Config {
	return tsa.Config{
		Name: "main", URL: "https://tsa.example.com/api/v1/timestamp", Chain: s.pem(),
		Transport: roundTripper{s}, Now: func() time.Time { return start },
	}
}

func newAuthority(tb testing.TB, cfg tsa.Config) *tsa.Authority {
	tb.Helper()
	a, err := tsa.New(cfg)
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	return a
}

// refusal is an answer in the protocol's words.
func refusal(tb testing.TB, status timestamp.Status, info timestamp.FailureInfo) []byte {
	tb.Helper()
	raw, err := timestamp.CreateErrorResponse(status, info)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// replaced changes one occurrence.
func replaced(tb testing.TB, in, from, to []byte) []byte {
	tb.Helper()
	if !bytes.Contains(in, from) {
		tb.Fatalf("%x is not in %x", from, in)
	}
	return bytes.Replace(in, from, to, 1)
}

// generalized is how a time stands in a timestamp.
func generalized(at time.Time) []byte { return []byte(at.Format("20060102150405Z")) }
