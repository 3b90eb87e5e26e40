//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore/fulcio"
	"github.com/harborseal/harborseal/pkg/sigstore/tsa"
)

func realTransport(t *testing.T) *http.Transport {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func realTSA(t *testing.T) (*harness.TSA, tsa.Config) {
	t.Helper()
	a, err := harness.StartTSA(t.Context(), t.TempDir())
	if err != nil {
		t.Fatalf("starting the timestamp authority: %v", err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Errorf("stopping the timestamp authority: %v", err)
		}
	})
	return a, tsa.Config{Name: "real", URL: a.URL, Chain: contentOf(t, a.Chain), Transport: realTransport(t)}
}

func realFulcio(t *testing.T) (*harness.Fulcio, fulcio.Config) {
	t.Helper()
	f, err := harness.StartFulcio(t.Context(), t.TempDir())
	if err != nil {
		t.Fatalf("starting Fulcio: %v", err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("stopping Fulcio: %v", err)
		}
	})
	return f, fulcio.Config{
		Name: "real", URL: f.URL, Roots: contentOf(t, f.Chain), TokenFile: f.TokenFile, Issuer: f.Issuer, Subject: f.Subject,
		Transport: realTransport(t),
	}
}

func contentOf(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path) //nolint:gosec // a file of the harness
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func newTSA(t *testing.T, cfg tsa.Config) *tsa.Authority {
	t.Helper()
	a, err := tsa.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newFulcio(t *testing.T, cfg fulcio.Config) *fulcio.Identity {
	t.Helper()
	i, err := fulcio.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i
}

// wantFault checks why something failed.
func wantFault(t *testing.T, what string, err error, want fault.Reason) {
	t.Helper()
	if err == nil || fault.Of(err).Kind != fault.Transient || fault.Of(err).Reason != want {
		t.Errorf("%s: %v, want a transient %s", what, err, want)
	}
}

func TestRealTSA(t *testing.T) {
	t.Parallel()
	server, cfg := realTSA(t)
	a := newTSA(t, cfg)
	message := []byte("the raw bytes of a signature")
	response, at, err := a.Stamp(t.Context(), message)
	if err != nil {
		t.Fatalf("Stamp: %v", err)
	}
	if off := time.Since(at); off < 0 || off > time.Minute {
		t.Errorf("it is stamped at %s, %s ago", at, off)
	}
	if got, err := a.Verify(response, message); err != nil || !got.Equal(at) {
		t.Errorf("Verify = %s, %v; want %s", got, err, at)
	}
	if _, err := a.Verify(response, []byte("other bytes")); err == nil {
		t.Error("Verify takes the timestamp for other bytes")
	}
	if err := a.Probe(t.Context()); err != nil {
		t.Errorf("Probe: %v", err)
	}

	const workers, each = 16, 25
	began := time.Now()
	var wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() {
			for m := range each {
				text := fmt.Appendf(nil, "signature %d of %d", m, n)
				response, _, err := a.Stamp(t.Context(), text)
				if err == nil {
					_, err = a.Verify(response, text)
				}
				if err != nil {
					t.Errorf("Stamp and Verify: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d timestamps by %d workers in %s", workers*each, workers, time.Since(began).Round(time.Millisecond))

	strangers, _, err := harness.WriteTSAChain(t.TempDir(), "stranger")
	if err != nil {
		t.Fatal(err)
	}
	otherCfg := cfg
	otherCfg.Chain = contentOf(t, strangers)
	_, _, err = newTSA(t, otherCfg).Stamp(t.Context(), message)
	wantFault(t, "with another authority's chain", err, fault.ProofInvalid)
	lost := cfg
	lost.URL = "http://" + server.Address + "/nowhere"
	_, _, err = newTSA(t, lost).Stamp(t.Context(), message)
	wantFault(t, "with another path", err, fault.BadAnswer)

	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	_, _, err = a.Stamp(t.Context(), message)
	wantFault(t, "while it is down", err, fault.Unreachable)
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Stamp(t.Context(), message); err != nil {
		t.Errorf("after a restart Stamp: %v", err)
	}
	if _, err := a.Verify(response, message); err != nil {
		t.Errorf("after a restart the old timestamp does not verify: %v", err)
	}
}

func TestRealFulcio(t *testing.T) {
	t.Parallel()
	server, cfg := realFulcio(t)
	message := []byte("what is signed")
	var mu sync.Mutex
	var ahead time.Duration // guarded by mu
	cfg.Now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(ahead)
	}
	i := newFulcio(t, cfg)
	first, err := i.Sign(t.Context(), message)
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	leaf, err := x509.ParseCertificate(first.Certificates[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(message)
	if public, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(public, sum[:], first.Bytes) {
		t.Error("the signature does not verify with its certificate")
	}
	if len(first.Certificates) != 3 || first.KeyID != artifact.IdentityID(server.Issuer, server.Subject) {
		t.Errorf("there are %d certificates for %s, want 3 for the identity", len(first.Certificates), first.KeyID)
	}
	if public, err := i.Verify(first.Certificates, time.Now()); err != nil || !bytes.Equal(public, first.PublicKey) {
		t.Errorf("Verify: %v, want the certificate's key", err)
	}
	if _, err := i.Verify(first.Certificates, time.Now().Add(time.Hour)); err == nil {
		t.Error("Verify takes a certificate that has expired")
	}
	stranger := cfg
	stranger.Subject += "-other"
	if _, err := newFulcio(t, stranger).Verify(first.Certificates, time.Now()); err == nil {
		t.Error("Verify takes somebody else's certificate")
	}
	if err := i.Probe(t.Context()); err != nil {
		t.Errorf("Probe: %v", err)
	}

	// After half its life the certificate is replaced, behind the back of whoever signs.
	mu.Lock()
	ahead = time.Until(leaf.NotAfter) - leaf.NotAfter.Sub(leaf.NotBefore)/2 + time.Second
	mu.Unlock()
	err = harness.Until(t.Context(), env.patience, func(ctx context.Context) error {
		signed, err := i.Sign(ctx, message)
		if err != nil {
			return err
		}
		if bytes.Equal(signed.Certificates[0], first.Certificates[0]) {
			return errors.New("the certificate is still the first one")
		}
		return nil
	})
	if err != nil {
		t.Errorf("after half its life: %v", err)
	}

	if err := server.WriteToken(-time.Minute); err != nil {
		t.Fatal(err)
	}
	_, err = newFulcio(t, cfg).Sign(t.Context(), message)
	wantFault(t, "with an expired token", err, fault.IdentityMissing)
	forged := strings.Split(string(goodToken(t, server)), ".")
	forged[2] = base64.RawURLEncoding.EncodeToString(make([]byte, 64))
	if err := os.WriteFile(server.TokenFile, []byte(strings.Join(forged, ".")), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = newFulcio(t, cfg).Sign(t.Context(), message)
	wantFault(t, "with a forged token", err, fault.Unauthorized)
	if err == nil || strings.Contains(err.Error(), forged[1]) {
		t.Errorf("the error holds the token: %v", err)
	}

	if err := server.WriteToken(time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	fresh := newFulcio(t, cfg)
	_, err = fresh.Sign(t.Context(), message)
	wantFault(t, "while it is down", err, fault.Unreachable)
	wantFault(t, "Probe while it is down", fresh.Probe(t.Context()), fault.Unreachable)
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Sign(t.Context(), message); err != nil {
		t.Errorf("after a restart Sign: %v", err)
	}
}

// goodToken gives a token that is good.
func goodToken(t *testing.T, f *harness.Fulcio) []byte {
	t.Helper()
	if err := f.WriteToken(time.Hour); err != nil {
		t.Fatal(err)
	}
	return contentOf(t, f.TokenFile)
}

// What the clients make is what both versions of cosign verify: a signature with a timestamp over its raw bytes, by a key
// and by an identity, in a bundle and, which only version 2 can do for files, beside it.
func TestRealTSAAndFulcioWithCosign(t *testing.T) {
	t.Parallel()
	authority, tsaCfg := realTSA(t)
	identity, fulcioCfg := realFulcio(t)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	put := func(name string, content []byte) string {
		t.Helper()
		if err := os.WriteFile(in(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		return in(name)
	}
	message := []byte("what is signed")
	blob, empty := put("blob", message), put("empty", nil)
	stamps := newTSA(t, tsaCfg)
	stamp := func(signature []byte) []byte {
		t.Helper()
		response, _, err := stamps.Stamp(t.Context(), signature)
		if err != nil {
			t.Fatalf("Stamp: %v", err)
		}
		return response
	}

	signed, err := newFulcio(t, fulcioCfg).Sign(t.Context(), message)
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	signed.Timestamp = stamp(signed.Bytes)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(message)
	byKey := artifact.Signature{}
	if byKey.Bytes, err = ecdsa.SignASN1(rand.Reader, key, sum[:]); err != nil {
		t.Fatal(err)
	}
	if byKey.PublicKey, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		t.Fatal(err)
	}
	byKey.Timestamp = stamp(byKey.Bytes)
	public := put("key.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: byKey.PublicKey}))

	who := []string{"--certificate-identity", identity.Subject, "--certificate-oidc-issuer", identity.Issuer, "--insecure-ignore-sct"}
	v2, v3 := realCosign(t, harness.EnvCosignV2), realCosign(t, harness.EnvCosignV3)
	root := in("trusted_root.json")
	if _, err := v3.Run(t.Context(), "trusted-root", "create", "--out", root,
		"--fulcio", "url="+identity.URL+",certificate-chain="+identity.Chain, "--tsa", "url="+authority.URL+",certificate-chain="+authority.Chain); err != nil {
		t.Fatal(err)
	}
	strangers, _, err := harness.WriteTSAChain(dir, "stranger")
	if err != nil {
		t.Fatal(err)
	}
	stranger := in("stranger.json")
	if _, err := v3.Run(t.Context(), "trusted-root", "create", "--out", stranger,
		"--fulcio", "url="+identity.URL+",certificate-chain="+identity.Chain, "--tsa", "url="+authority.URL+",certificate-chain="+strangers); err != nil {
		t.Fatal(err)
	}

	for name, tool := range map[string]*harness.Tool{"v2": v2, "v3": v3} {
		for _, tt := range []struct {
			by   string
			args []string
			s    artifact.Signature
		}{
			{"identity", who, signed},
			{"key", []string{"--key", public}, byKey},
		} {
			bundle := put(name+tt.by+".json", blobBundle(t, sum[:], tt.s))
			args := append([]string{"verify-blob", "--bundle", bundle, "--insecure-ignore-tlog", "--use-signed-timestamps"}, tt.args...)
			if name == "v2" {
				args = append(args, "--new-bundle-format")
			}
			if _, err := tool.Run(t.Context(), append(args, "--trusted-root", root, blob)...); err != nil {
				t.Errorf("%s, by %s, in a bundle: %v", name, tt.by, err)
			}
			if _, err := tool.Run(t.Context(), append(args, "--trusted-root", root, empty)...); err == nil {
				t.Errorf("%s, by %s, in a bundle: other content verifies", name, tt.by)
			}
			if _, err := tool.Run(t.Context(), append(args, "--trusted-root", stranger, blob)...); err == nil {
				t.Errorf("%s, by %s, in a bundle: a timestamp of a stranger verifies", name, tt.by)
			}
		}
	}

	certificate := put("certificate.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed.Certificates[0]}))
	for _, tt := range []struct {
		by   string
		args []string
		s    artifact.Signature
	}{
		{"identity", append([]string{"--certificate", certificate, "--certificate-chain", identity.Chain}, who...), signed},
		{"key", []string{"--key", public}, byKey},
	} {
		beside, err := json.Marshal(map[string][]byte{"SignedRFC3161Timestamp": tt.s.Timestamp})
		if err != nil {
			t.Fatal(err)
		}
		args := append([]string{
			"verify-blob", "--insecure-ignore-tlog", "--signature", put(tt.by+".sig", []byte(base64.StdEncoding.EncodeToString(tt.s.Bytes))),
			"--use-signed-timestamps", "--rfc3161-timestamp", put(tt.by+".tsr", beside),
		}, tt.args...)
		if _, err := v2.Run(t.Context(), append(args, "--timestamp-certificate-chain", authority.Chain, blob)...); err != nil {
			t.Errorf("v2, by %s, beside it: %v", tt.by, err)
		}
		if _, err := v2.Run(t.Context(), append(args, "--timestamp-certificate-chain", strangers, blob)...); err == nil {
			t.Errorf("v2, by %s, beside it: a timestamp of a stranger verifies", tt.by)
		}
	}
}

func realCosign(t *testing.T, variable string) *harness.Tool {
	t.Helper()
	tool, err := harness.NewTool(variable, t.TempDir(), env.harbor, harness.Robot{}, env.proxy.Env())
	if err != nil {
		t.Fatal(err)
	}
	return tool
}

// blobBundle writes a signature of a file as sigstore's bundle.
func blobBundle(t *testing.T, digest []byte, s artifact.Signature) []byte {
	t.Helper()
	material := &protobundle.VerificationMaterial{
		TimestampVerificationData: &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: s.Timestamp}},
		},
	}
	if len(s.Certificates) > 0 {
		material.Content = &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: s.Certificates[0]}}
	} else {
		hint := sha256.Sum256(s.PublicKey)
		material.Content = &protobundle.VerificationMaterial_PublicKey{
			PublicKey: &protocommon.PublicKeyIdentifier{Hint: base64.StdEncoding.EncodeToString(hint[:])},
		}
	}
	raw, err := protojson.Marshal(&protobundle.Bundle{
		MediaType:            "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: material,
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest},
			Signature:     s.Bytes,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
