package tlog

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// soon is when an entry that the log has, but has not sequenced yet, is there: Trillian sequences every 100 ms or so,
	// Rekor v2 publishes a checkpoint every few seconds.
	soon = 2 * time.Second
)

// entryV1 is an entry as Rekor v1 answers it.
//
// SPEC: Rekor's openapi.yaml, LogEntry: an object with one member, whose name is the entry's.
type entryV1 struct {
	Body         []byte `json:"body"`
	IntegratedAt int64  `json:"integratedTime"`
	LogID        string `json:"logID"`
	Index        int64  `json:"logIndex"`
	Verification struct {
		SET   []byte `json:"signedEntryTimestamp"`
		Proof *struct {
			Checkpoint string   `json:"checkpoint"`
			Hashes     []string `json:"hashes"`
			Index      int64    `json:"logIndex"`
			RootHash   string   `json:"rootHash"`
			TreeSize   int64    `json:"treeSize"`
		} `json:"inclusionProof"`
	} `json:"verification"`
}

func (l *Log) submitV1(ctx context.Context, s artifact.Signature) (artifact.LogEntry, error) {
	want, err := l.body(s)
	if err != nil {
		return artifact.LogEntry{}, err
	}
	request, err := proposalV1(s, want)
	if err != nil {
		return artifact.LogEntry{}, err
	}
	a, err := l.ask(ctx, opSubmit, http.MethodPost, l.endpoint("api/v1/log/entries"), request, maxAnswer)
	if err != nil {
		return artifact.LogEntry{}, err
	}
	switch a.status {
	case http.StatusCreated:
	case http.StatusConflict:
		if a, err = l.existingV1(ctx, a); err != nil {
			return artifact.LogEntry{}, err
		}
	default:
		return artifact.LogEntry{}, l.statusFault(a)
	}
	e, err := l.readV1(a.body, want)
	if err != nil {
		return artifact.LogEntry{}, err
	}
	// A legacy signature has no place for the proof; that the log gives one is asked all the same.
	if err := l.prove(e, want, artifact.Bundle); err != nil {
		return artifact.LogEntry{}, fault.Newf(fault.Transient, fault.ProofInvalid, "the entry does not verify: %w", err)
	}
	return e, nil
}

// proposalV1 is what is sent: of a bundle the whole envelope, which the log verifies and keeps the hash of.
func proposalV1(s artifact.Signature, want body) ([]byte, error) {
	if s.Format == artifact.Legacy {
		return want.raw, nil
	}
	v, err := verifierOf(s)
	if err != nil {
		return nil, err
	}
	content, err := envelope(s)
	if err != nil {
		return nil, err
	}
	var spec struct {
		Proposed struct {
			Envelope  string   `json:"envelope"`
			Verifiers [][]byte `json:"verifiers"`
		} `json:"proposedContent"`
	}
	spec.Proposed.Envelope, spec.Proposed.Verifiers = string(content), [][]byte{v.pem()}
	proposal, err := newBody(want.kind, want.version, spec)
	return proposal.raw, err
}

// existingV1 reads the entry that the log has already. Its name is taken from the answer, its address never.
//
// SPEC: Rekor's openapi.yaml, createLogEntry: 409 with the entry's address in Location.
func (l *Log) existingV1(ctx context.Context, conflict answer) (answer, error) {
	id := path.Base(conflict.header.Get("Location"))
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 32 && len(raw) != 40 {
		return answer{}, fault.Newf(fault.Transient, fault.BadAnswer, "it has the entry already, and does not say under which name")
	}
	a, err := l.ask(ctx, opEntry, http.MethodGet, l.endpoint("api/v1/log/entries", id), nil, maxAnswer)
	switch {
	case err != nil:
		return answer{}, fmt.Errorf("reading the entry that it has already: %w", err)
	case a.status == http.StatusNotFound:
		return answer{}, fault.After(soon, fault.LogUnavailable, fmt.Errorf("it has the entry already, but has not sequenced it yet"))
	case a.status != http.StatusOK:
		return answer{}, fmt.Errorf("reading the entry that it has already: %w", l.statusFault(a))
	}
	return a, nil
}

// readV1 reads an answer. Nothing in it is proven yet.
func (l *Log) readV1(raw []byte, want body) (artifact.LogEntry, error) {
	var entries map[string]entryV1
	if err := json.Unmarshal(raw, &entries); err != nil {
		return artifact.LogEntry{}, badAnswer("reading the entry: %w", err)
	}
	if len(entries) != 1 {
		return artifact.LogEntry{}, badAnswer("it answers with %d entries, want 1", len(entries))
	}
	for _, from := range entries {
		return l.convertV1(from, want)
	}
	return artifact.LogEntry{}, nil
}

func (l *Log) convertV1(from entryV1, want body) (artifact.LogEntry, error) {
	id, err := hex.DecodeString(from.LogID)
	if err != nil {
		return artifact.LogEntry{}, badAnswer("reading the log's id: %w", err)
	}
	e := artifact.LogEntry{
		Log: l.name, LogID: id, Kind: want.kind, Version: want.version, Body: from.Body,
		Index: from.Index, IntegratedAt: from.IntegratedAt, SET: from.Verification.SET,
	}
	p := from.Verification.Proof
	if p == nil {
		return e, nil
	}
	e.Proof = &artifact.InclusionProof{Index: p.Index, TreeSize: p.TreeSize, Checkpoint: p.Checkpoint, Hashes: make([][]byte, len(p.Hashes))}
	if e.Proof.RootHash, err = hex.DecodeString(p.RootHash); err != nil {
		return artifact.LogEntry{}, badAnswer("reading the root of the tree: %w", err)
	}
	for i, one := range p.Hashes {
		if e.Proof.Hashes[i], err = hex.DecodeString(one); err != nil {
			return artifact.LogEntry{}, badAnswer("reading the inclusion proof: %w", err)
		}
	}
	return e, nil
}

// probeV1 asks for the signed tree head.
//
// SPEC: Rekor's openapi.yaml, getLogInfo.
func (l *Log) probeV1(ctx context.Context) error {
	raw, err := l.get(ctx, opInfo, l.endpoint("api/v1/log"), maxAnswer)
	if err != nil {
		return err
	}
	var info struct {
		SignedTreeHead string `json:"signedTreeHead"`
	}
	if err := json.Unmarshal(raw, &info); err != nil {
		return badAnswer("reading its state: %w", err)
	}
	if strings.TrimSpace(info.SignedTreeHead) == "" {
		return badAnswer("it gives no signed tree head")
	}
	if _, err := l.openCheckpoint(info.SignedTreeHead); err != nil {
		return fault.New(fault.Transient, fault.ProofInvalid, err)
	}
	return nil
}
