//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore/tlog"
)

// realLogs starts both kinds of logs, once for the whole test.
func realLogs(t *testing.T) []*harness.Rekor {
	t.Helper()
	v1, err := harness.StartRekorV1(t.Context(), t.TempDir())
	if err != nil {
		t.Fatalf("starting Rekor v1: %v", err)
	}
	closeLater(t, v1)
	v2, err := harness.StartRekorV2(t.Context(), t.TempDir(), harness.RekorOptions{})
	if err != nil {
		t.Fatalf("starting Rekor v2: %v", err)
	}
	closeLater(t, v2)
	return []*harness.Rekor{v1, v2}
}

func closeLater(t *testing.T, r *harness.Rekor) {
	t.Helper()
	done := env.later(func() { _ = r.Close() })
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("stopping %s: %v", r.Type, err)
		}
		done()
	})
}

// logClient is the service's own client of a real log.
func logClient(t *testing.T, r *harness.Rekor, edit ...func(*tlog.Config)) *tlog.Log {
	t.Helper()
	key, err := os.ReadFile(r.PublicKey)
	if err != nil {
		t.Fatalf("reading the log's key: %v", err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	c := tlog.Config{
		Name: r.Type, Type: policy.LogType(r.Type), URL: r.URL, PublicKey: key, Origin: r.Origin, TilesURL: r.TilesURL, Transport: transport,
	}
	for _, one := range edit {
		one(&c)
	}
	l, err := tlog.New(c)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return l
}

// logged is a blob with a signature that is to be logged. A legacy signature is one over the blob itself, a bundle one over
// a statement about it: so cosign verifies them without a registry.
type logged struct {
	key  crypto.Signer
	blob []byte
	artifact.Signature
}

func newLogged(t *testing.T, kind string, format artifact.Format) logged {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	default:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatalf("making a key: %v", err)
	}
	s := logged{key: key, blob: []byte(rand.Text())}
	sum := sha256.Sum256(s.blob)
	s.Format, s.Payload = format, s.blob
	message := s.blob
	if format == artifact.Bundle {
		const payloadType = "application/vnd.in-toto+json"
		s.Payload = fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"blob","digest":{"sha256":"%s"}}],`+
			`"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`, hex.EncodeToString(sum[:]))
		message = fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(s.Payload), s.Payload)
	}
	var how crypto.SignerOpts = crypto.Hash(0)
	if kind != "Ed25519" {
		sum := sha256.Sum256(message)
		message, how = sum[:], crypto.SHA256
	}
	if s.Bytes, err = key.Sign(rand.Reader, message, how); err != nil {
		t.Fatalf("signing: %v", err)
	}
	if s.PublicKey, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		t.Fatalf("encoding a key: %v", err)
	}
	return s
}

// TestLogClientOnRealLogs puts signatures of every kind of key into real logs, again and again, and lets both cosign programs
// verify what came of it.
func TestLogClientOnRealLogs(t *testing.T) {
	for _, r := range realLogs(t) {
		t.Run(r.Type, func(t *testing.T) {
			l := logClient(t, r)
			if err := l.Probe(t.Context()); err != nil {
				t.Errorf("Probe: %v", err)
			}
			root := trustedRoot(t, r)
			for _, format := range []artifact.Format{artifact.Legacy, artifact.Bundle} {
				for _, kind := range []string{"P-256", "P-384", "RSA", "Ed25519"} {
					t.Run(fmt.Sprintf("%s/%s", format, kind), func(t *testing.T) {
						t.Parallel()
						s := newLogged(t, kind, format)
						e, err := l.Submit(t.Context(), s.Signature)
						if unacceptable := l.Accepts(format, s.PublicKey); unacceptable != nil {
							if fault.Of(err).Reason != fault.Unverifiable {
								t.Errorf("got %v, want what Accepts says: %v", err, unacceptable)
							}
							t.Logf("not taken: %v", unacceptable)
							return
						}
						if err != nil {
							t.Fatalf("Submit: %v", err)
						}
						if err := l.Verify(e, s.Signature); err != nil {
							t.Errorf("Verify: %v", err)
						}
						again, err := l.Submit(t.Context(), s.Signature)
						if err != nil {
							t.Fatalf("Submit again: %v", err)
						}
						if again.Index != e.Index || !bytes.Equal(again.Body, e.Body) || again.IntegratedAt != e.IntegratedAt {
							t.Errorf("got the entry %d of %d, want %d of %d", again.Index, again.IntegratedAt, e.Index, e.IntegratedAt)
						}
						// Both the entry that was made and the one that was found must count everywhere.
						for _, entry := range []artifact.LogEntry{e, again} {
							cosignVerifies(t, r, root, s, entry)
						}
					})
				}
			}
		})
	}
}

// TestLogClientLosesAnswers breaks connections off once the log has taken an entry.
func TestLogClientLosesAnswers(t *testing.T) {
	for _, r := range realLogs(t) {
		t.Run(r.Type, func(t *testing.T) {
			s := newLogged(t, "P-256", artifact.Bundle)
			lossy := logClient(t, r, func(c *tlog.Config) { c.Transport = losing{next: c.Transport} })
			_, err := lossy.Submit(t.Context(), s.Signature)
			if got := fault.Of(err); err == nil || got.Kind != fault.Transient || got.Reason != fault.Unreachable {
				t.Fatalf("got %v, want that the answer was lost", err)
			}
			l := logClient(t, r)
			e := patientSubmit(t, l, s.Signature)

			// The same signature by many at once: one entry.
			other := newLogged(t, "P-256", artifact.Bundle)
			var mu sync.Mutex
			indexes := make(map[int64]int)
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					got := patientSubmit(t, l, other.Signature)
					mu.Lock()
					defer mu.Unlock()
					indexes[got.Index]++
				})
			}
			wg.Wait()
			if len(indexes) != 1 {
				t.Errorf("got the indexes %v, want one entry", indexes)
			}

			// A log that is away, and back.
			if err := r.Stop(); err != nil {
				t.Fatalf("stopping the log: %v", err)
			}
			_, err = l.Submit(t.Context(), newLogged(t, "P-256", artifact.Bundle).Signature)
			if got := fault.Of(err); err == nil || got.Kind != fault.Transient || got.Reason != fault.Unreachable {
				t.Errorf("got %v, want that nobody is there", err)
			}
			if err := r.Start(t.Context()); err != nil {
				t.Fatalf("starting the log: %v", err)
			}
			if again := patientSubmit(t, l, s.Signature); again.Index != e.Index {
				t.Errorf("after a restart the entry is %d, want %d", again.Index, e.Index)
			}
			cosignVerifies(t, r, trustedRoot(t, r), s, e)
		})
	}
}

// TestLogClientRefusesWhatIsWrong holds real logs against another key, and gives them what they refuse.
func TestLogClientRefusesWhatIsWrong(t *testing.T) {
	for _, r := range realLogs(t) {
		t.Run(r.Type, func(t *testing.T) {
			other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatalf("making a key: %v", err)
			}
			der, err := x509.MarshalPKIXPublicKey(other.Public())
			if err != nil {
				t.Fatalf("encoding a key: %v", err)
			}
			wrong := logClient(t, r, func(c *tlog.Config) { c.PublicKey = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}) })
			s := newLogged(t, "P-256", artifact.Bundle)
			for _, err := range []error{wrong.Probe(t.Context()), second(wrong.Submit(t.Context(), s.Signature)), second(wrong.Submit(t.Context(), s.Signature))} {
				if got := fault.Of(err); err == nil || got.Kind != fault.Transient || got.Reason != fault.ProofInvalid {
					t.Errorf("with another log's key: got %v, want transient proof_invalid", err)
				}
			}
			forged := newLogged(t, "P-256", artifact.Bundle).Signature
			forged.Payload = []byte(`{}`)
			err = second(logClient(t, r).Submit(t.Context(), forged))
			if got := fault.Of(err); err == nil || got.Kind != fault.Transient || got.Reason != fault.Rejected {
				t.Errorf("with a signature over something else: got %v, want transient rejected", err)
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }

// patientSubmit does what redelivery does: it tries again as long as the fault is transient.
func patientSubmit(t *testing.T, l *tlog.Log, s artifact.Signature) (e artifact.LogEntry) {
	t.Helper()
	err := harness.Until(t.Context(), env.patience, func(ctx context.Context) (err error) {
		e, err = l.Submit(ctx, s)
		return err
	})
	if err != nil {
		t.Errorf("Submit: %v", err)
		return artifact.LogEntry{}
	}
	if err := l.Verify(e, s); err != nil {
		t.Errorf("Verify: %v", err)
	}
	return e
}

// losing hands requests on and loses the answers.
type losing struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (l losing) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return nil, errors.Join(resp.Body.Close(), errors.New("connection reset by peer"))
}

// trustedRoot is what `cosign trusted-root create` writes for a log.
func trustedRoot(t *testing.T, r *harness.Rekor) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trusted_root.json")
	source := fmt.Sprintf("url=%s,public-key=%s,start-time=2024-01-01T00:00:00Z", r.URL, r.PublicKey)
	if r.Origin != "" {
		source += ",origin=" + r.Origin
	}
	runCosign(t, harness.EnvCosignV3, nil, "trusted-root", "create", "--rekor="+source, "--out", path)
	return path
}

// cosignVerifies lets both programs verify a signature with its entry, and see that they mind it.
func cosignVerifies(t *testing.T, r *harness.Rekor, root string, s logged, e artifact.LogEntry) {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatalf("writing: %v", err)
		}
		return path
	}
	blob := put("blob", s.blob)
	key := put("key.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: s.PublicKey}))
	broken := e
	broken.Index++
	for _, program := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
		for name, entry := range map[string]artifact.LogEntry{"entry.json": e, "broken.json": broken} {
			var args, variables []string
			if s.Format == artifact.Legacy {
				// The form of the annotation on a legacy signature, as cosign keeps it for blobs.
				args = []string{"verify-blob", "--key", key, "--offline", "--bundle", put(name, legacyBlobBundle(t, s, entry))}
				variables = []string{"SIGSTORE_REKOR_PUBLIC_KEY=" + r.PublicKey}
				if program == harness.EnvCosignV3 {
					args = append(args, "--new-bundle-format=false")
				}
			} else {
				args = []string{
					"verify-blob-attestation", "--key", key, "--new-bundle-format", "--trusted-root", root,
					"--type", "https://sigstore.dev/cosign/sign/v1", "--bundle", put(name, protoBlobBundle(t, s, entry)),
				}
			}
			out, err := cosign(t.Context(), t.TempDir(), program, variables, append(args, blob)...)
			switch {
			case name == "entry.json" && err != nil:
				t.Errorf("%s does not verify: %v\n%s", program, err, out)
			case name == "broken.json" && err == nil:
				t.Errorf("%s takes an entry with another index", program)
			}
		}
	}
}

func legacyBlobBundle(t *testing.T, s logged, e artifact.LogEntry) []byte {
	t.Helper()
	raw, err := json.Marshal(map[string]any{
		"base64Signature": s.Bytes,
		"rekorBundle": map[string]any{
			"SignedEntryTimestamp": e.SET,
			"Payload": map[string]any{
				"body": base64.StdEncoding.EncodeToString(e.Body), "integratedTime": e.IntegratedAt,
				"logIndex": e.Index, "logID": hex.EncodeToString(e.LogID),
			},
		},
	})
	if err != nil {
		t.Fatalf("writing a bundle: %v", err)
	}
	return raw
}

func protoBlobBundle(t *testing.T, s logged, e artifact.LogEntry) []byte {
	t.Helper()
	sum := sha256.Sum256(s.PublicKey)
	entry := &protorekor.TransparencyLogEntry{
		LogIndex: e.Index, LogId: &protocommon.LogId{KeyId: e.LogID}, KindVersion: &protorekor.KindVersion{Kind: e.Kind, Version: e.Version},
		IntegratedTime: e.IntegratedAt, CanonicalizedBody: e.Body,
		InclusionProof: &protorekor.InclusionProof{
			LogIndex: e.Proof.Index, TreeSize: e.Proof.TreeSize, RootHash: e.Proof.RootHash, Hashes: e.Proof.Hashes,
			Checkpoint: &protorekor.Checkpoint{Envelope: e.Proof.Checkpoint},
		},
	}
	if e.SET != nil {
		entry.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: e.SET}
	}
	raw, err := protojson.Marshal(&protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_PublicKey{
				PublicKey: &protocommon.PublicKeyIdentifier{Hint: base64.StdEncoding.EncodeToString(sum[:])},
			},
			TlogEntries: []*protorekor.TransparencyLogEntry{entry},
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: s.Payload, PayloadType: "application/vnd.in-toto+json", Signatures: []*protodsse.Signature{{Sig: s.Bytes}},
		}},
	})
	if err != nil {
		t.Fatalf("writing a bundle: %v", err)
	}
	return raw
}

func runCosign(t *testing.T, program string, variables []string, args ...string) {
	t.Helper()
	if out, err := cosign(t.Context(), t.TempDir(), program, variables, args...); err != nil {
		t.Fatalf("running cosign %v: %v\n%s", args, err, out)
	}
}

// cosign runs one of the programs with nothing of the user's own configuration, and nowhere to go: what it needs is on the
// disk.
func cosign(ctx context.Context, home, program string, variables []string, args ...string) ([]byte, error) {
	path := os.Getenv(program)
	if path == "" {
		return nil, fmt.Errorf("%s names no program: run make tools, and call this by make", program)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // a tool of the project
	cmd.Env = append([]string{"HOME=" + home, "TUF_ROOT=" + filepath.Join(home, "tuf"), "HTTPS_PROXY=http://127.0.0.1:9"}, variables...)
	return cmd.CombinedOutput()
}
