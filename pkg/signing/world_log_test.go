package signing_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// testLogs are transparency logs in memory.
type testLogs struct {
	w     *world
	logs  map[string]*testLog
	order []string
}

// testLog refuses to enter the same signature twice, and gives the entry that is there, as a client of real logs does after
// their 409. What proves an entry is another thing each time, because the tree grows.
type testLog struct {
	w        *world
	name     string
	kind     policy.LogType
	inactive bool
	lies     bool // gives the entry of something else

	mu      sync.Mutex
	entries map[string]int64 // index by body; guarded by mu, as below
	proofs  int
}

// addLog gives the world a log.
func (w *world) addLog(name string, kind policy.LogType) {
	if w.logs == nil {
		w.logs = &testLogs{w: w, logs: map[string]*testLog{}}
	}
	l := &testLog{w: w, name: name, kind: kind, entries: map[string]int64{}}
	w.logs.logs[name] = l
	w.logs.order = append(w.logs.order, name)
}

func (w *world) trust() sigstore.Trust {
	var trust sigstore.Trust
	if w.logs != nil {
		for _, name := range w.logs.order {
			trust.Logs = append(trust.Logs, w.logs.logs[name])
		}
	}
	if w.stamps != nil {
		trust.Timestamps = append(trust.Timestamps, w.stamps)
	}
	return trust
}

func (l *testLogs) Type(name string) (policy.LogType, bool) {
	log, found := l.logs[name]
	if !found || log.inactive {
		return "", false
	}
	return log.kind, true
}

func (l *testLogs) Submit(ctx context.Context, name string, s artifact.Signature) (e artifact.LogEntry, err error) {
	if ctx.Value(asideKey{}) == nil {
		return e, errors.New("a worker's slot waits for a log")
	}
	err = l.w.do(ctx, "log", func() error {
		if e = l.logs[name].enter(s); l.logs[name].lies {
			e.Index++
		}
		return nil
	})
	return e, err
}

func (l *testLog) enter(s artifact.Signature) artifact.LogEntry {
	kind, version, body := l.body(s)
	l.mu.Lock()
	defer l.mu.Unlock()
	index, found := l.entries[string(body)]
	if !found {
		index = int64(len(l.entries))
		l.entries[string(body)] = index
	}
	l.proofs++
	id, root := sha256.Sum256([]byte(l.name)), sha256.Sum256(body)
	e := artifact.LogEntry{
		Log: l.name, LogID: id[:], Kind: kind, Version: version, Body: body, Index: index,
		Proof: &artifact.InclusionProof{
			Index: index, TreeSize: index + int64(l.proofs), RootHash: root[:], Hashes: [][]byte{root[:]},
			Checkpoint: fmt.Sprintf("%s\n%d\n\n- %s\n", l.name, l.proofs, hex.EncodeToString(root[:8])),
		},
	}
	if l.kind == policy.RekorV1 {
		e.IntegratedAt, e.SET = l.w.clock.Unix(), fmt.Appendf(nil, "%s %d %d", l.name, index, l.proofs)
	}
	return e
}

// body is a body as verifiers want to read it.
func (l *testLog) body(s artifact.Signature) (kind, version string, body []byte) {
	type object = map[string]any
	sum := sha256.Sum256(s.Payload)
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: s.PublicKey})
	if len(s.Certificates) > 0 {
		keyPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificates[0]})
	}
	var spec object
	hash := object{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}
	switch kind, version = "hashedrekord", "0.0.1"; {
	case l.kind == policy.RekorV2:
		version = "0.0.2"
		verifier := object{"publicKey": object{"rawBytes": s.PublicKey}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
		spec = object{"hashedRekordV002": object{
			"data": object{"algorithm": "SHA2_256", "digest": sum[:]}, "signature": object{"content": s.Bytes, "verifier": verifier},
		}}
	case s.Format == artifact.Bundle:
		kind = "dsse"
		spec = object{"envelopeHash": hash, "payloadHash": hash, "signatures": []object{{"signature": base64.StdEncoding.EncodeToString(s.Bytes), "verifier": keyPEM}}}
	default:
		spec = object{"data": object{"hash": hash}, "signature": object{"content": s.Bytes, "publicKey": object{"content": keyPEM}}}
	}
	body, err := json.Marshal(object{"apiVersion": version, "kind": kind, "spec": spec})
	if err != nil {
		panic(err)
	}
	return kind, version, body
}

func (l *testLog) Name() string         { return l.name }
func (l *testLog) Type() policy.LogType { return l.kind }

// Verify knows the log by heart.
func (l *testLog) Verify(e artifact.LogEntry, s artifact.Signature) error {
	_, _, body := l.body(s)
	l.mu.Lock()
	defer l.mu.Unlock()
	index, found := l.entries[string(body)]
	switch id := sha256.Sum256([]byte(l.name)); {
	case string(e.LogID) != string(id[:]):
		return errors.New("another log")
	case string(e.Body) != string(body) || !found || index != e.Index:
		return errors.New("not the entry of this signature")
	case l.kind == policy.RekorV1 && !strings.HasPrefix(string(e.SET), fmt.Sprintf("%s %d ", l.name, index)):
		return errors.New("not the log's promise")
	case s.Format == artifact.Bundle && (e.Proof == nil || !strings.HasPrefix(e.Proof.Checkpoint, l.name+"\n")):
		return errors.New("not in the log")
	}
	return nil
}

// testAuthority is a timestamp authority in memory. Each timestamp is another one.
type testAuthority struct {
	w     *world
	count int
	hangs bool // until nobody waits any more
}

// addAuthority gives the world a timestamp authority.
func (w *world) addAuthority() { w.stamps = &testAuthority{w: w} }

func (a *testAuthority) Name() string { return "authority" }

func (a *testAuthority) Stamp(ctx context.Context, s artifact.Signature) (response []byte, at time.Time, err error) {
	if a.hangs {
		<-ctx.Done()
		return nil, at, fault.New(fault.Transient, fault.Timeout, ctx.Err())
	}
	err = a.w.do(ctx, "timestamp", func() error {
		a.count++
		at = a.w.clock.Add(time.Duration(a.count) * time.Second)
		sum := sha256.Sum256(s.Bytes)
		response = fmt.Appendf(nil, "stamp %d %x", at.Unix(), sum)
		return nil
	})
	return response, at, err
}

func (a *testAuthority) Verify(response, message []byte) (time.Time, error) {
	var seconds int64
	var sum string
	if _, err := fmt.Sscanf(string(response), "stamp %d %s", &seconds, &sum); err != nil {
		return time.Time{}, err
	}
	if want := sha256.Sum256(message); sum != hex.EncodeToString(want[:]) {
		return time.Time{}, errors.New("a timestamp of something else")
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// carried is a signature as it stands in the registry, whoever made it.
type carried struct {
	format  artifact.Format
	bytes   string // base64
	logged  bool
	stamped bool
}

// carriers reads all signatures of a repository's only image without any of the code that is tested: those under the tag, and
// all bundles.
func (w *world) carriers(repository string) []carried {
	var all []carried
	for name, m := range w.manifests {
		reference, mine := strings.CutPrefix(name, repository+" ")
		var parsed struct {
			ArtifactType string
			Layers       []struct {
				Digest      string
				Annotations map[string]string
			}
		}
		if !mine || json.Unmarshal(m.Raw, &parsed) != nil {
			continue
		}
		switch {
		case strings.HasSuffix(reference, ".sig"):
			for _, l := range parsed.Layers {
				all = append(all, carried{
					artifact.Legacy, l.Annotations["dev.cosignproject.cosign/signature"],
					l.Annotations["dev.sigstore.cosign/bundle"] != "", l.Annotations["dev.sigstore.cosign/rfc3161timestamp"] != "",
				})
			}
		case parsed.ArtifactType == "application/vnd.dev.sigstore.bundle.v0.3+json" && strings.HasPrefix(reference, "sha256:"):
			var b struct {
				VerificationMaterial struct {
					TlogEntries               []json.RawMessage
					TimestampVerificationData struct{ Rfc3161Timestamps []json.RawMessage }
				}
				DsseEnvelope struct {
					Signatures []struct{ Sig string }
				}
			}
			if json.Unmarshal(w.blobs[repository+" "+parsed.Layers[0].Digest], &b) == nil && len(b.DsseEnvelope.Signatures) == 1 {
				material := b.VerificationMaterial
				all = append(all, carried{
					artifact.Bundle, b.DsseEnvelope.Signatures[0].Sig, len(material.TlogEntries) > 0, len(material.TimestampVerificationData.Rfc3161Timestamps) > 0,
				})
			}
		}
	}
	return all
}

// checkHiding holds the invariant of every moment: no bundle without an entry hides a legacy signature that has one.
func (w *world) checkHiding(repository string) {
	all := w.carriers(repository)
	has := func(format artifact.Format, logged bool) bool {
		return slices.ContainsFunc(all, func(c carried) bool { return c.format == format && c.logged == logged })
	}
	if has(artifact.Legacy, true) && has(artifact.Bundle, false) && !has(artifact.Bundle, true) {
		w.violations = append(w.violations, fmt.Sprintf("after %d operations an unlogged bundle hides a logged legacy signature: %+v", len(w.operations), all))
	}
}
