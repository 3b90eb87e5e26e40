package tlog_test

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"strings"
	"testing"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// A log that lies is believed in nothing, and no signature is given up for it.
func TestLiesV1(t *testing.T) {
	other := newSigner(t, "P-256")
	var v *virtualLog
	for name, lie := range map[string]func(*answerV1){
		"promise by another key": func(a *answerV1) { a.Verification.SET = signSET(t, other, *a) },
		"no promise":             func(a *answerV1) { a.Verification.SET = nil },
		"garbage as a promise":   func(a *answerV1) { a.Verification.SET = []byte("promise") },
		"another time":           func(a *answerV1) { a.IntegratedTime++ },
		"no time": func(a *answerV1) {
			a.IntegratedTime = 0
			a.Verification.SET = signSET(t, v.key, *a)
		},
		"another index": func(a *answerV1) { a.LogIndex++ },
		"an index before the proof's": func(a *answerV1) {
			a.LogIndex = a.Verification.InclusionProof.LogIndex - 1
			a.Verification.SET = signSET(t, v.key, *a)
		},
		"another log": func(a *answerV1) {
			a.LogID = strings.Repeat("00", 32)
			a.Verification.SET = signSET(t, v.key, *a)
		},
		"another body, promised": func(a *answerV1) {
			a.Body = base64.StdEncoding.EncodeToString(v.leaves[0])
			a.Verification.SET = signSET(t, v.key, *a)
		},
		"no proof":           func(a *answerV1) { a.Verification.InclusionProof = nil },
		"a shorter proof":    func(a *answerV1) { a.Verification.InclusionProof.Hashes = a.Verification.InclusionProof.Hashes[1:] },
		"a proof of another": func(a *answerV1) { a.Verification.InclusionProof.LogIndex-- },
		"another hash":       func(a *answerV1) { a.Verification.InclusionProof.Hashes[0] = strings.Repeat("ab", 32) },
		"another root":       func(a *answerV1) { a.Verification.InclusionProof.RootHash = strings.Repeat("ab", 32) },
		"another tree size":  func(a *answerV1) { a.Verification.InclusionProof.TreeSize++ },
		"no checkpoint":      func(a *answerV1) { a.Verification.InclusionProof.Checkpoint = "" },
		"a stale checkpoint": func(a *answerV1) { a.Verification.InclusionProof.Checkpoint, _ = v.checkpoint(100) },
		"an unsigned one":    func(a *answerV1) { cutSignatures(&a.Verification.InclusionProof.Checkpoint) },
		"one by another key": func(a *answerV1) { resign(t, &a.Verification.InclusionProof.Checkpoint, other, nil) },
		"one of no numbered tree": func(a *answerV1) {
			resign(t, &a.Verification.InclusionProof.Checkpoint, v.key, func(text string) string { return strings.Replace(text, " - ", "/", 1) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			v = newVirtualLog(t, policy.RekorV1, 300)
			v.lieV1 = lie
			for _, format := range []artifact.Format{artifact.Legacy, artifact.Bundle} {
				s := sign(t, newSigner(t, "P-256"), format, "a payload")
				l := client(t, v)
				for _, way := range []string{"made", "found"} {
					e, err := l.Submit(t.Context(), s)
					wantFault(t, err, fault.Transient, fault.ProofInvalid)
					if e.Body != nil {
						t.Errorf("%s: got an entry beside the error", way)
					}
				}
			}
		})
	}
}

func TestLiesV2(t *testing.T) {
	other := newSigner(t, "P-256")
	var v *virtualLog
	for name, lie := range map[string]func(*protorekor.TransparencyLogEntry){
		"another body": func(a *protorekor.TransparencyLogEntry) { a.CanonicalizedBody = v.leaves[0] },
		"a longer body": func(a *protorekor.TransparencyLogEntry) {
			a.CanonicalizedBody = append(bytes.Clone(a.CanonicalizedBody), ' ')
		},
		"no body":            func(a *protorekor.TransparencyLogEntry) { a.CanonicalizedBody = nil },
		"another kind":       func(a *protorekor.TransparencyLogEntry) { a.KindVersion.Kind = "dsse" },
		"another version":    func(a *protorekor.TransparencyLogEntry) { a.KindVersion.Version = "0.0.1" },
		"no kind":            func(a *protorekor.TransparencyLogEntry) { a.KindVersion = nil },
		"another log":        func(a *protorekor.TransparencyLogEntry) { a.LogId.KeyId = bytes.Repeat([]byte{1}, 32) },
		"no log":             func(a *protorekor.TransparencyLogEntry) { a.LogId = nil },
		"another index":      func(a *protorekor.TransparencyLogEntry) { a.LogIndex++ },
		"a negative index":   func(a *protorekor.TransparencyLogEntry) { a.LogIndex, a.InclusionProof.LogIndex = -1, -1 },
		"an index too large": func(a *protorekor.TransparencyLogEntry) { a.LogIndex, a.InclusionProof.LogIndex = 5000, 5000 },
		"a time":             func(a *protorekor.TransparencyLogEntry) { a.IntegratedTime = 1 },
		"a promise": func(a *protorekor.TransparencyLogEntry) {
			a.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: []byte("promise")}
		},
		"no proof":           func(a *protorekor.TransparencyLogEntry) { a.InclusionProof = nil },
		"a proof of another": func(a *protorekor.TransparencyLogEntry) { a.InclusionProof.LogIndex-- },
		"a shorter proof":    func(a *protorekor.TransparencyLogEntry) { a.InclusionProof.Hashes = a.InclusionProof.Hashes[1:] },
		"a longer proof": func(a *protorekor.TransparencyLogEntry) {
			a.InclusionProof.Hashes = append(a.InclusionProof.Hashes, a.InclusionProof.Hashes[0])
		},
		"an endless proof":  func(a *protorekor.TransparencyLogEntry) { a.InclusionProof.Hashes = make([][]byte, 65) },
		"another root":      func(a *protorekor.TransparencyLogEntry) { a.InclusionProof.RootHash = bytes.Repeat([]byte{1}, 32) },
		"another tree size": func(a *protorekor.TransparencyLogEntry) { a.InclusionProof.TreeSize++ },
		"no checkpoint":     func(a *protorekor.TransparencyLogEntry) { a.InclusionProof.Checkpoint = nil },
		"a stale checkpoint": func(a *protorekor.TransparencyLogEntry) {
			a.InclusionProof.Checkpoint.Envelope, _ = v.checkpoint(100)
		},
		"an unsigned one": func(a *protorekor.TransparencyLogEntry) { cutSignatures(&a.InclusionProof.Checkpoint.Envelope) },
		"one by another key": func(a *protorekor.TransparencyLogEntry) {
			resign(t, &a.InclusionProof.Checkpoint.Envelope, other, nil)
		},
		"one signed by another name": func(a *protorekor.TransparencyLogEntry) {
			resign(t, &a.InclusionProof.Checkpoint.Envelope, v.key, nil)
			a.InclusionProof.Checkpoint.Envelope = strings.Replace(a.InclusionProof.Checkpoint.Envelope, "— "+origin, "— other.example.com", 1)
		},
		"one of another origin": func(a *protorekor.TransparencyLogEntry) {
			resign(t, &a.InclusionProof.Checkpoint.Envelope, v.key, func(text string) string { return "other" + text })
		},
	} {
		t.Run(name, func(t *testing.T) {
			v = newVirtualLog(t, policy.RekorV2, 300)
			v.lieV2 = lie
			s := sign(t, newSigner(t, "P-256"), artifact.Bundle, "a payload")
			e, err := client(t, v).Submit(t.Context(), s)
			wantFault(t, err, fault.Transient, fault.ProofInvalid)
			if e.Body != nil {
				t.Error("got an entry beside the error")
			}
			// What it has published is true: there the entry is found.
			if _, err := client(t, v).Submit(t.Context(), s); err != nil {
				t.Errorf("Submit again: %v", err)
			}
		})
	}
}

func cutSignatures(checkpoint *string) {
	text, _, _ := strings.Cut(*checkpoint, "\n\n")
	*checkpoint = text + "\n\n"
}

// resign signs the text of a checkpoint, changed, with a key.
func resign(t *testing.T, checkpoint *string, key crypto.Signer, edit func(string) string) {
	t.Helper()
	text, _, _ := strings.Cut(*checkpoint, "\n\n")
	if text += "\n"; edit != nil {
		text = edit(text)
	}
	*checkpoint = signNote(t, noteSigner(t, key), text)
}
