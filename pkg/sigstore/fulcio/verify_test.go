package fulcio_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore/fulcio"
)

// named gives a template another name.
func named(change func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.URIs = nil; change(c) }
}

func another(c *x509.Certificate) *url.URL {
	other := *c.URIs[0]
	other.Path += "-other"
	return &other
}

// refused are certificates that count for nobody, whoever shows them: a signature's or a fresh one's.
func refused() map[string]func(*x509.Certificate) {
	return map[string]func(*x509.Certificate){
		"another issuer":      func(c *x509.Certificate) { c.ExtraExtensions = issuedBy("https://elsewhere.example.com") },
		"no issuer":           func(c *x509.Certificate) { c.ExtraExtensions = nil },
		"an issuer not DER":   func(c *x509.Certificate) { c.ExtraExtensions[1].Value = []byte(issuer) },
		"another subject":     func(c *x509.Certificate) { c.URIs[0] = another(c) },
		"a second subject":    func(c *x509.Certificate) { c.URIs = append(c.URIs, another(c)) },
		"a second name":       func(c *x509.Certificate) { c.EmailAddresses = []string{"somebody@example.com"} },
		"no subject":          func(c *x509.Certificate) { c.URIs = nil },
		"an email address":    named(func(c *x509.Certificate) { c.EmailAddresses = []string{"somebody@example.com"} }),
		"no usage":            func(c *x509.Certificate) { c.ExtKeyUsage = nil },
		"another usage":       func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"any usage":           func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
		"a key for no signer": func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment },
		"an authority":        func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true },
		"an unknown critical extension": func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		},
	}
}

func TestVerify(t *testing.T) {
	s := newServer(t)
	now := time.Now().Truncate(time.Second)
	i := newIdentity(t, s.config())
	retired, err := fulcio.NewRetired("old", s.config().Roots, s.config().Issuer, s.config().Subject)
	if err != nil {
		t.Fatal(err)
	}
	if retired.KeyID() != i.KeyID() {
		t.Errorf("the id of the retired identity is %s, want %s", retired.KeyID(), i.KeyID())
	}
	if !slices.Equal(retired.ID(), i.ID()) || len(i.ID()) == 0 {
		t.Errorf("the roots are named %x and %x, want the same name", retired.ID(), i.ID())
	}
	if _, err := retired.Sign(t.Context(), nil); fault.Of(err).Reason != fault.KeyUnavailable {
		t.Errorf("the retired identity signs: %v", err)
	}
	leaf := func(change func(*x509.Certificate)) person {
		template := identity(now)
		change(template)
		return issue(t, &s.middle, nil, newKey(t).Public(), template)
	}
	good := leaf(func(*x509.Certificate) {})
	stranger := newAuthority(t, "middle", nil)
	forged := issue(t, &stranger, nil, newKey(t).Public(), identity(now))
	type testCase struct {
		name         string
		certificates [][]byte
		at           time.Time
		want         bool
	}
	tests := []testCase{
		{"the whole chain", ders(good, s.middle, s.root), now, true},
		{"without the root", ders(good, s.middle), now, true},
		{"in another order", ders(good, s.root, s.middle), now, true},
		{"in its last second", ders(good, s.middle), now.Add(life), true},
		{"after its life", ders(good, s.middle), now.Add(life + time.Second), false},
		{"before its life", ders(good, s.middle), now.Add(-time.Second), false},
		{"without the intermediate", ders(good), now, false},
		{"a stranger's with the stranger", ders(forged, stranger), now, false},
		{"a stranger's with the names", ders(forged, s.middle, s.root), now, false},
		{"an authority's first", ders(s.middle, s.root), now, false},
		{"none", nil, now, false},
		{"not DER", [][]byte{[]byte("hello")}, now, false},
		{"something behind", [][]byte{append(slices.Clone(good.cert.Raw), 0), s.middle.cert.Raw}, now, false},
		{"too many", append(ders(good, s.middle), slices.Repeat(ders(s.root), 9)...), now, false},
		{"too long", [][]byte{good.cert.Raw, make([]byte, 33<<10)}, now, false},
	}
	for name, change := range refused() {
		tests = append(tests, testCase{name, ders(leaf(change), s.middle), now, false})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			public, err := i.Verify(tt.certificates, tt.at)
			if (err == nil) != tt.want {
				t.Fatalf("Verify: %v, want success: %t", err, tt.want)
			}
			if tt.want && !slices.Equal(public, good.cert.RawSubjectPublicKeyInfo) {
				t.Errorf("Verify = %x, want the certificate's key", public)
			}
			if err != nil && (public != nil || fault.Of(err).Reason != fault.ProofInvalid) {
				t.Errorf("Verify = %x, %v; want no key and %s", public, err, fault.ProofInvalid)
			}
			if _, err := retired.Verify(tt.certificates, tt.at); (err == nil) != tt.want {
				t.Errorf("Verify of the retired identity: %v, want success: %t", err, tt.want)
			}
		})
	}
}

// A root that knows its intermediate does not need it in the signature.
func TestVerifyWithKnownIntermediate(t *testing.T) {
	s := newServer(t)
	cfg := s.config()
	cfg.Roots = slices.Concat(s.middle.pem(), s.root.pem())
	leaf := issue(t, &s.middle, nil, newKey(t).Public(), identity(time.Now()))
	if _, err := newIdentity(t, cfg).Verify(ders(leaf), time.Now()); err != nil {
		t.Errorf("Verify: %v, want success", err)
	}
}

func TestNames(t *testing.T) {
	other, err := cryptoutils.MarshalOtherNameSAN("somebody!example.com", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		subject string
		change  func(*x509.Certificate)
	}{
		{"somebody@example.com", func(c *x509.Certificate) { c.EmailAddresses = []string{"somebody@example.com"} }},
		{"somebody!example.com", func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, *other) }},
	} {
		s := newServer(t)
		cfg := s.config()
		cfg.Subject = tt.subject
		s.template = named(tt.change)
		i := newIdentity(t, cfg)
		signed := sign(t, i)
		if _, err := i.Verify(signed.Certificates, time.Now()); err != nil {
			t.Errorf("%s: Verify: %v, want success", tt.subject, err)
		}
	}
}

func TestWeakKeys(t *testing.T) {
	s := newServer(t)
	i := newIdentity(t, s.config())
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		public crypto.PublicKey
		want   bool
	}{{"P-224", small.Public(), false}, {"RSA 2048", long.Public(), true}} {
		leaf := issue(t, &s.middle, nil, tt.public, identity(time.Now()))
		if _, err := i.Verify(ders(leaf, s.middle), time.Now()); (err == nil) != tt.want {
			t.Errorf("%s: Verify: %v, want success: %t", tt.name, err, tt.want)
		}
	}
}

// A fresh certificate that is not what was asked for signs nothing.
func TestLies(t *testing.T) {
	lies := map[string]func(*server){
		"another key":     func(s *server) { s.public = func(crypto.PublicKey) crypto.PublicKey { return newKey(t).Public() } },
		"no chain":        func(s *server) { s.chain = func(c []string) []string { return c[:1] } },
		"a stranger":      func(s *server) { s.middle = newAuthority(t, "middle", nil) },
		"already expired": func(s *server) { s.template = func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Second) } },
		"from long before": func(s *server) {
			s.template = func(c *x509.Certificate) { *c = *identity(time.Now().Add(-life - time.Minute)) }
		},
		"from tomorrow": func(s *server) {
			s.template = func(c *x509.Certificate) { *c = *identity(time.Now().AddDate(0, 0, 1)) }
		},
	}
	for name, change := range refused() {
		lies[name] = func(s *server) { s.template = change }
	}
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			lie(s)
			i := newIdentity(t, s.config())
			signed, err := i.Sign(t.Context(), message)
			if err == nil {
				t.Fatal("Sign takes it")
			}
			if got := fault.Of(err); got.Kind != fault.Transient || got.Reason != fault.ProofInvalid {
				t.Errorf("Sign: %v (%s, %s), want a transient %s", err, got.Kind, got.Reason, fault.ProofInvalid)
			}
			if signed.Bytes != nil || !i.NotAfter().IsZero() {
				t.Error("it signs nevertheless")
			}
		})
	}
}

func FuzzVerify(f *testing.F) {
	s := newServer(f)
	i := newIdentity(f, s.config())
	leaf := issue(f, &s.middle, nil, newKey(f).Public(), identity(time.Now()))
	f.Add(leaf.cert.Raw, s.middle.cert.Raw)
	f.Add(leaf.cert.Raw[:100], []byte{})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		public, err := i.Verify([][]byte{first, second}, time.Now())
		if err == nil && !slices.Equal(public, leaf.cert.RawSubjectPublicKeyInfo) {
			t.Errorf("%x, %x verifies", first, second)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	s := newServer(f)
	good, err := json.Marshal(map[string]any{"signedCertificateDetachedSct": map[string]any{
		"chain": map[string]any{"certificates": []string{string(s.middle.pem()), string(s.root.pem())}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(strings.Replace(string(good), "Detached", "Embedded", 1)))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		chain, err := fulcio.ParseAnswer(raw)
		if err == nil && len(chain) == 0 {
			t.Errorf("%q has no certificates and no error", raw)
		}
	})
}
