package tlog_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore/tlog"
)

// Whatever is changed in a valid entry, or in the signature that it is held against, makes it invalid.
func TestVerifyRefuses(t *testing.T) {
	flip := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		return b
	}
	entryEdits := map[string]func(*artifact.LogEntry){
		"log id":        func(e *artifact.LogEntry) { e.LogID = flip(e.LogID) },
		"kind":          func(e *artifact.LogEntry) { e.Kind = "rekord" },
		"version":       func(e *artifact.LogEntry) { e.Version = "0.0.3" },
		"body":          func(e *artifact.LogEntry) { e.Body = flip(e.Body) },
		"empty body":    func(e *artifact.LogEntry) { e.Body = nil },
		"huge body":     func(e *artifact.LogEntry) { e.Body = make([]byte, 1<<20) },
		"index":         func(e *artifact.LogEntry) { e.Index++ },
		"time":          func(e *artifact.LogEntry) { e.IntegratedAt++ },
		"promise":       func(e *artifact.LogEntry) { e.SET = append(bytes.Clone(e.SET), 1) },
		"proof's index": func(e *artifact.LogEntry) { e.Proof.Index++ },
		"size":          func(e *artifact.LogEntry) { e.Proof.TreeSize++ },
		"root":          func(e *artifact.LogEntry) { e.Proof.RootHash = flip(e.Proof.RootHash) },
		"hashes":        func(e *artifact.LogEntry) { e.Proof.Hashes[0] = flip(e.Proof.Hashes[0]) },
		"checkpoint":    func(e *artifact.LogEntry) { e.Proof.Checkpoint = strings.Replace(e.Proof.Checkpoint, "301", "302", 1) },
		"no proof":      func(e *artifact.LogEntry) { e.Proof = nil },
	}
	signatureEdits := map[string]func(*artifact.Signature){
		"other signature": func(s *artifact.Signature) { s.Bytes = flip(s.Bytes) },
		"other payload":   func(s *artifact.Signature) { s.Payload = flip(s.Payload) },
		"other key":       func(s *artifact.Signature) { s.PublicKey = spki(t, newSigner(t, "P-256").Public()) },
		"a certificate":   func(s *artifact.Signature) { *s = withCertificate(t, newSigner(t, "P-256"), *s) },
	}
	for _, tt := range []struct {
		kind   policy.LogType
		format artifact.Format
	}{{policy.RekorV1, artifact.Legacy}, {policy.RekorV1, artifact.Bundle}, {policy.RekorV2, artifact.Bundle}} {
		v := newVirtualLog(t, tt.kind, 300)
		l := client(t, v)
		s := sign(t, newSigner(t, "P-256"), tt.format, "a payload")
		good, err := l.Submit(t.Context(), s)
		if err != nil {
			t.Fatalf("Submit: %v", err)
		}
		label := fmt.Sprintf("%s/%s/", tt.kind, tt.format)
		for name, edit := range entryEdits {
			t.Run(label+name, func(t *testing.T) {
				e := deepCopy(t, good)
				edit(&e)
				if name == "no proof" && tt.format == artifact.Legacy {
					if err := l.Verify(e, s); err != nil {
						t.Errorf("Verify: %v: a legacy signature has no place for the proof", err)
					}
					return
				}
				wantFault(t, l.Verify(e, s), fault.Transient, fault.ProofInvalid)
			})
		}
		for name, edit := range signatureEdits {
			t.Run(label+name, func(t *testing.T) {
				changed := s
				edit(&changed)
				wantFault(t, l.Verify(good, changed), fault.Transient, fault.ProofInvalid)
			})
		}
		t.Run(label+"another log of the same type", func(t *testing.T) {
			wantFault(t, client(t, newVirtualLog(t, tt.kind, 0)).Verify(good, s), fault.Transient, fault.ProofInvalid)
		})
		t.Run(label+"the empty entry", func(t *testing.T) {
			wantFault(t, l.Verify(artifact.LogEntry{}, s), fault.Transient, fault.ProofInvalid)
		})
		t.Run(label+"through JSON", func(t *testing.T) {
			if err := l.Verify(deepCopy(t, good), s); err != nil {
				t.Errorf("Verify: %v", err)
			}
		})
	}
}

// deepCopy gives a copy as the queue keeps it.
func deepCopy(t *testing.T, e artifact.LogEntry) artifact.LogEntry {
	t.Helper()
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatalf("writing an entry: %v", err)
	}
	var again artifact.LogEntry
	if err := json.Unmarshal(raw, &again); err != nil {
		t.Fatalf("reading an entry: %v", err)
	}
	return again
}

// Other writers of the same envelope, such as cosign, have other white space in it. Verifiers do not look at its hash.
func TestVerifyOtherEnvelope(t *testing.T) {
	v := newVirtualLog(t, policy.RekorV1, 10)
	var theirs string
	key := newSigner(t, "P-256")
	s := sign(t, key, artifact.Bundle, "a payload")
	theirs = fmt.Sprintf(`{ "payloadType": %q,  "payload": %q, "signatures": [ {"sig": %q} ] }`,
		inTotoType, base64.StdEncoding.EncodeToString(s.Payload), base64.StdEncoding.EncodeToString(s.Bytes))
	proposal, err := json.Marshal(map[string]any{
		"apiVersion": "0.0.1", "kind": "dsse",
		"spec": map[string]any{"proposedContent": map[string]any{"envelope": theirs, "verifiers": [][]byte{inPEM(t, key.Public())}}},
	})
	if err != nil {
		t.Fatalf("writing a proposal: %v", err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, v.server.URL+"/api/v1/log/entries", bytes.NewReader(proposal))
	if err != nil {
		t.Fatalf("making a request: %v", err)
	}
	resp, err := newTransport(t).RoundTrip(req)
	if err != nil {
		t.Fatalf("asking the log: %v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answers map[string]answerV1
	if err := json.NewDecoder(resp.Body).Decode(&answers); err != nil || len(answers) != 1 {
		t.Fatalf("got %d entries (%v), want 1", len(answers), err)
	}
	for _, a := range answers {
		e := entryOf(t, a)
		l := client(t, v)
		if err := l.Verify(e, s); err != nil {
			t.Errorf("Verify: %v", err)
		}
		ours, err := l.Submit(t.Context(), s)
		if err != nil {
			t.Fatalf("Submit: %v", err)
		}
		if bytes.Equal(ours.Body, e.Body) {
			t.Error("their entry and ours have the same body: the test shows nothing")
		}
	}
}

// What stands in the place of the hash of the envelope must be one: cosign refuses the entry otherwise.
func TestVerifyNoHashOfEnvelope(t *testing.T) {
	v := newVirtualLog(t, policy.RekorV1, 0)
	l := client(t, v)
	s := sign(t, newSigner(t, "P-256"), artifact.Bundle, "a payload")
	good, err := l.Submit(t.Context(), s)
	if err != nil {
		t.Fatalf("Submit: %v", err)
	}
	const before = `{"envelopeHash":{"algorithm":"sha256","value":"`
	at := bytes.Index(good.Body, []byte(before)) + len(before)
	for name, hash := range map[string]string{"another": strings.Repeat("ab", 32), "short": "abcd", "no hexadecimal": strings.Repeat("xy", 32), "empty": ""} {
		index, _ := v.add(slices.Concat(good.Body[:at], []byte(hash), good.Body[at+64:]))
		err := l.Verify(entryOf(t, v.answerV1(index)), s)
		if (err == nil) != (name == "another") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func entryOf(t *testing.T, a answerV1) artifact.LogEntry {
	t.Helper()
	decode := func(text string) []byte {
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatalf("decoding: %v", err)
		}
		return raw
	}
	body, err := base64.StdEncoding.DecodeString(a.Body)
	if err != nil {
		t.Fatalf("decoding: %v", err)
	}
	p := a.Verification.InclusionProof
	e := artifact.LogEntry{
		LogID: decode(a.LogID), Kind: "dsse", Version: "0.0.1", Body: body, Index: a.LogIndex, IntegratedAt: a.IntegratedTime,
		SET: a.Verification.SET,
		Proof: &artifact.InclusionProof{
			Index: p.LogIndex, TreeSize: p.TreeSize, RootHash: decode(p.RootHash), Checkpoint: p.Checkpoint,
		},
	}
	for _, one := range p.Hashes {
		e.Proof.Hashes = append(e.Proof.Hashes, decode(one))
	}
	return e
}

// The origin is a part of what is verified: a log of another name with the same key is another log.
func TestOrigin(t *testing.T) {
	v := newVirtualLog(t, policy.RekorV2, 1)
	wrong := client(t, v, func(c *tlog.Config) { c.Origin = "another.example.com" })
	wantFault(t, wrong.Probe(t.Context()), fault.Transient, fault.ProofInvalid)
	byHost := client(t, v, func(c *tlog.Config) { c.Origin = "" })
	if got, want := byHost.Origin(), "127.0.0.1"; got != want {
		t.Errorf("got the origin %q, want the host %q", got, want)
	}
}

// Witnesses add signatures of their own to a checkpoint, which are nobody's business here.
func TestWitnesses(t *testing.T) {
	for _, kind := range []policy.LogType{policy.RekorV1, policy.RekorV2} {
		t.Run(string(kind), func(t *testing.T) {
			v := newVirtualLog(t, kind, 300)
			witness := noteSigner(t, newSigner(t, "P-256"))
			add := func(checkpoint *string) {
				text, signatures, _ := strings.Cut(*checkpoint, "\n\n")
				_, theirs, _ := strings.Cut(signNote(t, witness, text+"\n"), "\n\n")
				theirs = strings.Replace(theirs, "— "+origin, "— witness.example.com", 1)
				*checkpoint = text + "\n\n" + theirs + signatures
			}
			v.lieV1 = func(a *answerV1) { add(&a.Verification.InclusionProof.Checkpoint) }
			v.lieV2 = func(a *protorekor.TransparencyLogEntry) { add(&a.InclusionProof.Checkpoint.Envelope) }
			e, err := client(t, v).Submit(t.Context(), sign(t, newSigner(t, "P-256"), artifact.Bundle, "a payload"))
			if err != nil {
				t.Fatalf("Submit: %v", err)
			}
			if got := strings.Count(e.Proof.Checkpoint, "— "); got != 2 {
				t.Errorf("got a checkpoint with %d signatures, want 2: %s", got, e.Proof.Checkpoint)
			}
		})
	}
}
