package tsa_test

import (
	"bytes"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/sigstore/tsa"
)

func TestNotAfter(t *testing.T) {
	s := &server{chain: newChain(t)}
	soon := start.Add(time.Hour)
	s.leaf = issue(t, "stamp", &s.middle, func(c *x509.Certificate) { stamping(true, usageStamping)(c); c.NotAfter = soon })
	if got := newAuthority(t, configOf(s)).NotAfter(); !got.Equal(soon) {
		t.Errorf("with a known leaf NotAfter() = %s, want %s", got, soon)
	}
	cfg := configOf(s)
	cfg.Chain = s.root.pem()
	a := newAuthority(t, cfg)
	if got := a.NotAfter(); !got.Equal(s.root.cert.NotAfter) {
		t.Errorf("before a timestamp NotAfter() = %s, want %s", got, s.root.cert.NotAfter)
	}
	if err := a.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := a.NotAfter(); !got.Equal(soon) {
		t.Errorf("after a timestamp NotAfter() = %s, want that of its certificate, %s", got, soon)
	}
}

func TestNewSaysAllAtOnce(t *testing.T) {
	const secret = "hunter2"
	_, err := tsa.New(tsa.Config{URL: "ftp://user:" + secret + "@tsa", Timeout: -1, UserAgent: "a\nb"})
	if err == nil {
		t.Fatal("New takes it")
	}
	for _, want := range []string{"name", "url", "certificate chain", "transport", "timeout", "user agent"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want %q in it", err, want)
		}
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("New repeats a password: %v", err)
	}
}

func TestChains(t *testing.T) {
	c, other := newChain(t), newChain(t)
	many := issue(t, "self", nil, authority)
	for _, tt := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"empty", nil, "no certificate"},
		{"text", []byte("hello"), "no certificate"},
		{"a key", []byte("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"), "certificates only"},
		{"not DER", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "certificate 1"},
		{"text behind", append(c.pem(), "hello"...), "follows the last"},
		{"the root first", slices.Concat(c.root.pem(), c.middle.pem(), c.leaf.pem()), "not issued by"},
		{"a hole", slices.Concat(c.leaf.pem(), c.root.pem()), "not issued by"},
		{"two chains", slices.Concat(c.pem(), other.pem()), "not issued by"},
		{"a leaf alone", c.leaf.pem(), "no authority"},
		{"many", bytes.Repeat(many.pem(), 11), "10 at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := configOf(&server{chain: c})
			cfg.Chain = tt.content
			if _, err := tsa.New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New: %v, want %q in it", err, tt.want)
			}
		})
	}
}
