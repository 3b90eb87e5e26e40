package tlog

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// maxBody is the largest body of an entry that is read, and maxCheckpoint the largest signed note, in bytes: witnesses
	// add a line each.
	maxBody       = 256 << 10
	maxCheckpoint = 64 << 10
)

// logKey is what a log signs with.
type logKey struct {
	verifier signature.Verifier
	public   crypto.PublicKey
	// origin is empty with Rekor v1, which signs by the name of its host, whatever that is.
	origin string
	// id is what entries name the log by.
	id []byte
}

// prove says whether an entry is the log's, and has this body.
func (l *Log) prove(e artifact.LogEntry, want body, format artifact.Format) error {
	switch {
	case !bytes.Equal(e.LogID, l.key.id):
		return fmt.Errorf("it is of another log or made with another key: it names %.16x…, and the configured key is %.16x…", e.LogID, l.key.id)
	case e.Kind != want.kind || e.Version != want.version:
		return fmt.Errorf("it is of the kind %.32q in version %.32q, want %s %s", e.Kind, e.Version, want.kind, want.version)
	case len(e.Body) > maxBody || !want.is(e.Body):
		return errors.New("it is about another signature, payload or key")
	}
	if l.kind == policy.RekorV1 {
		return l.proveV1(e, format)
	}
	// SPEC: Rekor v2 promises nothing, and gives no time: what verifiers find in these places they refuse.
	if e.SET != nil || e.IntegratedAt != 0 {
		return errors.New("it has a signed entry timestamp or a time, which Rekor v2 does not give")
	}
	if e.Proof == nil {
		return errors.New("it has no inclusion proof")
	}
	if e.Index != e.Proof.Index {
		return fmt.Errorf("it has the index %d and a proof for the index %d", e.Index, e.Proof.Index)
	}
	return l.proveInclusion(e.Body, *e.Proof)
}

// proveV1 asks for the signed entry timestamp always, and for the inclusion proof where the format has a place for it.
//
// SPEC: sigstore bundle format v0.3: a bundle has an inclusion proof.
func (l *Log) proveV1(e artifact.LogEntry, format artifact.Format) error {
	if err := l.proveTimestamp(e); err != nil {
		return err
	}
	if e.Proof == nil {
		if format == artifact.Legacy {
			return nil
		}
		return errors.New("it has no inclusion proof")
	}
	// The log's index counts the entries of earlier shards too.
	if e.Index < e.Proof.Index {
		return fmt.Errorf("it has the index %d and a proof for the index %d", e.Index, e.Proof.Index)
	}
	return l.proveInclusion(e.Body, *e.Proof)
}

// proveTimestamp checks the signed entry timestamp, by which the log says when it took the entry.
//
// SPEC: Rekor, "Signed Entry Timestamp": a signature over the canonical JSON of the entry without what verifies it.
func (l *Log) proveTimestamp(e artifact.LogEntry) error {
	if len(e.SET) == 0 {
		return errors.New("it has no signed entry timestamp")
	}
	if e.IntegratedAt <= 0 || e.Index < 0 {
		return fmt.Errorf("it has the time %d and the index %d", e.IntegratedAt, e.Index)
	}
	signed, err := json.Marshal(struct {
		Body         []byte `json:"body"`
		IntegratedAt int64  `json:"integratedTime"`
		LogID        string `json:"logID"`
		Index        int64  `json:"logIndex"`
	}{Body: e.Body, IntegratedAt: e.IntegratedAt, LogID: hex.EncodeToString(e.LogID), Index: e.Index})
	if err != nil {
		return fmt.Errorf("writing what the timestamp is over: %w", err)
	}
	sum := sha256.Sum256(signed)
	public, ok := l.key.public.(*ecdsa.PublicKey)
	if !ok || !ecdsa.VerifyASN1(public, sum[:], e.SET) {
		return errors.New("its signed entry timestamp does not verify with the configured key")
	}
	return nil
}

// proveInclusion checks that the body is in the tree that the checkpoint is of.
func (l *Log) proveInclusion(raw []byte, p artifact.InclusionProof) error {
	if p.Index < 0 || p.TreeSize <= p.Index {
		return fmt.Errorf("its inclusion proof is for the index %d in a tree of %d", p.Index, p.TreeSize)
	}
	cp, err := l.openCheckpoint(p.Checkpoint)
	if err != nil {
		return err
	}
	size := uint64(p.TreeSize) //nolint:gosec // it is above the index, which is not negative
	if cp.Size != size || !bytes.Equal(cp.Hash, p.RootHash) {
		return fmt.Errorf("its inclusion proof is for a tree of %d, and the checkpoint for another of %d", p.TreeSize, cp.Size)
	}
	hasher := rfc6962.DefaultHasher
	if err := proof.VerifyInclusion(hasher, uint64(p.Index), cp.Size, hasher.HashLeaf(raw), p.Hashes, cp.Hash); err != nil {
		return errors.New("its inclusion proof does not lead to the checkpoint")
	}
	return nil
}

// openCheckpoint verifies a checkpoint and reads it.
//
// SPEC: C2SP tlog-checkpoint: a signed note; the lines are the origin, the size of the tree and its root in base64.
func (l *Log) openCheckpoint(text string) (log.Checkpoint, error) {
	if len(text) > maxCheckpoint {
		return log.Checkpoint{}, fmt.Errorf("the checkpoint has %d bytes", len(text))
	}
	opened, err := note.Open([]byte(text), l.key)
	if err != nil {
		return log.Checkpoint{}, fmt.Errorf("the checkpoint does not verify with the configured key%s: %w", l.asOrigin(), err)
	}
	var cp log.Checkpoint
	if _, err := cp.Unmarshal([]byte(opened.Text)); err != nil {
		return log.Checkpoint{}, fmt.Errorf("reading the checkpoint: %w", err)
	}
	if len(cp.Hash) != sha256.Size || cp.Size > 1<<62 {
		return log.Checkpoint{}, fmt.Errorf("the checkpoint has a size of %d and a root of %d bytes", cp.Size, len(cp.Hash))
	}
	if !l.names(cp.Origin) {
		return log.Checkpoint{}, fmt.Errorf("the checkpoint is of %.128q%s", cp.Origin, l.asOrigin())
	}
	return cp, nil
}

func (l *Log) asOrigin() string {
	if l.kind == policy.RekorV1 {
		return ""
	}
	return fmt.Sprintf(" and the origin %q", l.key.origin)
}

// names says whether a checkpoint's first line is one that the log writes.
//
// SPEC: Rekor v1: the host, " - " and the number of the tree, by which verifiers know the version; Rekor v2: the origin.
func (l *Log) names(origin string) bool {
	if l.kind == policy.RekorV2 {
		return origin == l.key.origin
	}
	_, tree, ok := strings.Cut(origin, " - ")
	_, err := strconv.ParseUint(tree, 10, 64)
	return ok && err == nil
}

// Verifier implements note.Verifiers for the log's key.
func (k logKey) Verifier(name string, hash uint32) (note.Verifier, error) {
	v, err := rekornote.NewNoteVerifier(name, k.verifier)
	if err != nil || v.KeyHash() != hash || k.origin != "" && name != k.origin {
		return nil, &note.UnknownVerifierError{Name: name, KeyHash: hash}
	}
	return v, nil
}
