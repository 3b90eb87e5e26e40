package fulcio_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/sigstore/fulcio"
)

const (
	issuer  = "https://kubernetes.default.svc"
	subject = "https://kubernetes.io/namespaces/harborseal/serviceaccounts/signer"

	life = 10 * time.Minute
)

// person is a certificate with its key.
type person struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (p person) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
}

// issue makes a certificate for a key; a nil parent stands for itself.
func issue(tb testing.TB, parent *person, key *ecdsa.PrivateKey, public crypto.PublicKey, template *x509.Certificate) person {
	tb.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		tb.Fatal(err)
	}
	template.SerialNumber = serial
	above, signer := template, key
	if parent != nil {
		above, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, above, public, signer)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return person{cert: cert, key: key}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// newAuthority makes the certificate of an authority that lives from before the beginning of time in synctest until long
// after now.
func newAuthority(tb testing.TB, name string, parent *person) person {
	tb.Helper()
	key := newKey(tb)
	return issue(tb, parent, key, key.Public(), &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC),
	})
}

// server answers as Fulcio does. What is set makes it lie. Set it before the first request, or under mu.
type server struct {
	tb           testing.TB
	root, middle person
	tokenFile    string

	mu sync.Mutex
	// template changes a certificate before it is issued.
	template func(*x509.Certificate)
	// public changes the key that is certified.
	public func(crypto.PublicKey) crypto.PublicKey
	// chain changes the chain before it is sent.
	chain func([]string) []string
	// reply stands for the whole answer to a request for a certificate; false goes on as usual.
	reply func(http.ResponseWriter) bool
	// bundle stands for the authorities that it names.
	bundle []string
	// embedded tells where the chain stands in the answer.
	embedded bool
	// tokens are those of all requests for a certificate, and headers those of the last request.
	tokens  []string
	headers http.Header
	probes  int
}

func newServer(tb testing.TB) *server {
	tb.Helper()
	s := &server{tb: tb, root: newAuthority(tb, "root", nil), tokenFile: filepath.Join(tb.TempDir(), "token")}
	s.middle = newAuthority(tb, "middle", &s.root)
	s.writeToken(tokenUntil(time.Date(2150, 1, 1, 0, 0, 0, 0, time.UTC)))
	return s
}

func (s *server) writeToken(content string) {
	s.tb.Helper()
	// As Kubernetes does where a pod does not run as one user.
	if err := os.WriteFile(s.tokenFile, []byte(content), 0o644); err != nil { //nolint:gosec // see above
		s.tb.Fatal(err)
	}
}

// requests counts the requests for a certificate.
func (s *server) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tokens)
}

func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "POST /base/api/v2/signingCert":
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		s.tokens, s.headers = append(s.tokens, token), r.Header.Clone()
		reply := s.reply
		s.mu.Unlock()
		if reply != nil && reply(w) {
			return
		}
		s.certify(w, body)
	case "GET /base/api/v2/trustBundle":
		s.mu.Lock()
		defer s.mu.Unlock()
		s.probes++
		s.headers = r.Header.Clone()
		bundle := s.bundle
		if bundle == nil {
			bundle = []string{string(s.middle.pem()), string(s.root.pem())}
		}
		send(w, map[string]any{"chains": []any{map[string]any{"certificates": bundle}}})
	default:
		refuse(w, http.StatusNotFound, "Not Found")
	}
}

func (s *server) certify(w http.ResponseWriter, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in struct {
		CSR []byte `json:"certificateSigningRequest"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	block, _ := pem.Decode(in.CSR)
	if block == nil {
		refuse(w, http.StatusBadRequest, "The certificate signing request could not be parsed")
		return
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		refuse(w, http.StatusBadRequest, "The signature supplied in the request could not be verified")
		return
	}
	public := csr.PublicKey
	if s.public != nil {
		public = s.public(public)
	}
	template := identity(time.Now())
	if s.template != nil {
		s.template(template)
	}
	leaf := issue(s.tb, &s.middle, nil, public, template)
	chain := []string{string(leaf.pem()), string(s.middle.pem()), string(s.root.pem())}
	if s.chain != nil {
		chain = s.chain(chain)
	}
	where := "signedCertificateDetachedSct"
	if s.embedded {
		where = "signedCertificateEmbeddedSct"
	}
	send(w, map[string]any{where: map[string]any{"chain": map[string]any{"certificates": chain}}})
}

// identity is the certificate of the identity that the tests sign as.
func identity(from time.Time) *x509.Certificate {
	from = from.Truncate(time.Second)
	uri, err := url.Parse(subject)
	if err != nil {
		panic(err)
	}
	return &x509.Certificate{
		NotBefore: from, NotAfter: from.Add(life), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, URIs: []*url.URL{uri}, ExtraExtensions: issuedBy(issuer),
	}
}

// issuedBy are the extensions that name an issuer.
func issuedBy(name string) []pkix.Extension {
	value, err := asn1.MarshalWithParams(name, "utf8")
	if err != nil {
		panic(err)
	}
	return []pkix.Extension{
		{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(name)},
		{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: value},
	}
}

func send(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		panic(err)
	}
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	send(w, map[string]any{"code": 3, "message": message})
}

// tokenUntil is a token that nobody has signed.
func tokenUntil(at time.Time) string { return tokenOf(fmt.Sprintf(`{"sub":"x","exp":%d}`, at.Unix())) }

func tokenOf(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"ES256"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte(rand.Text()))
}

// roundTripper lets a handler answer, and ends with the request's context as a connection does.
type roundTripper struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	answered := make(chan *http.Response, 1)
	go func() {
		w := httptest.NewRecorder()
		t.ServeHTTP(w, r)
		answered <- w.Result()
	}()
	select {
	case resp := <-answered:
		return resp, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// config is a working configuration for the server.
func (s *server) config() fulcio.Config {
	return fulcio.Config{
		Name: "keyless", URL: "https://fulcio.example.com/base/", Roots: s.root.pem(), TokenFile: s.tokenFile,
		Issuer: issuer, Subject: subject, Transport: roundTripper{s},
	}
}

func newIdentity(tb testing.TB, cfg fulcio.Config) *fulcio.Identity {
	tb.Helper()
	i, err := fulcio.New(cfg)
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	tb.Cleanup(i.Close)
	return i
}

// ders are certificates as they stand in a signature.
func ders(of ...person) [][]byte {
	var all [][]byte
	for _, p := range of {
		all = append(all, p.cert.Raw)
	}
	return slices.Clip(all)
}
