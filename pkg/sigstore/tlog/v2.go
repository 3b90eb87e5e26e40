package tlog

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// indexHeader is where Rekor v2 says under which index it has an entry already.
const indexHeader = "X-Log-Index"

func (l *Log) submitV2(ctx context.Context, s artifact.Signature) (artifact.LogEntry, error) {
	want, err := l.body(s)
	if err != nil {
		return artifact.LogEntry{}, err
	}
	request, err := proposalV2(s)
	if err != nil {
		return artifact.LogEntry{}, err
	}
	a, err := l.ask(ctx, opSubmit, http.MethodPost, l.endpoint("api/v2/log/entries"), request, maxAnswer)
	if err != nil {
		return artifact.LogEntry{}, err
	}
	var e artifact.LogEntry
	switch a.status {
	case http.StatusCreated, http.StatusOK:
		e, err = l.readV2(a.body)
	case http.StatusConflict:
		e, err = l.existingV2(ctx, a, want)
	default:
		err = l.statusFault(a)
	}
	if err != nil {
		return artifact.LogEntry{}, err
	}
	if err := l.prove(e, want, s.Format); err != nil {
		return artifact.LogEntry{}, fault.Newf(fault.Transient, fault.ProofInvalid, "the entry does not verify: %w", err)
	}
	return e, nil
}

// proposalV2 is what is sent.
//
// SPEC: Rekor v2, CreateEntryRequest with a HashedRekordRequestV002.
func proposalV2(s artifact.Signature) ([]byte, error) {
	v, err := verifierOf(s)
	if err != nil {
		return nil, err
	}
	signed, err := signedV2(s, v)
	if err != nil {
		return nil, err
	}
	var proposal struct {
		Request struct {
			Digest    []byte      `json:"digest"`
			Signature signatureV2 `json:"signature"`
		} `json:"hashedRekordRequestV002"`
	}
	proposal.Request.Digest, proposal.Request.Signature = digestV2(s), signed
	raw, err := json.Marshal(proposal)
	if err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	return raw, nil
}

// readV2 reads an answer. Nothing in it is proven yet. What a TransparencyLogEntry says of a time or a promise is kept, so
// that it is refused.
//
// SPEC: sigstore's protobuf-specs, TransparencyLogEntry in the JSON of protobuf.
func (l *Log) readV2(raw []byte) (artifact.LogEntry, error) {
	var from protorekor.TransparencyLogEntry
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, &from); err != nil {
		return artifact.LogEntry{}, badAnswer("reading the entry: %w", err)
	}
	e := artifact.LogEntry{
		Log: l.name, LogID: from.GetLogId().GetKeyId(),
		Kind: from.GetKindVersion().GetKind(), Version: from.GetKindVersion().GetVersion(),
		Body: from.GetCanonicalizedBody(), Index: from.GetLogIndex(), IntegratedAt: from.GetIntegratedTime(),
	}
	if set := from.GetInclusionPromise().GetSignedEntryTimestamp(); len(set) > 0 {
		e.SET = set
	}
	if p := from.GetInclusionProof(); p != nil {
		e.Proof = &artifact.InclusionProof{
			Index: p.GetLogIndex(), TreeSize: p.GetTreeSize(), RootHash: p.GetRootHash(), Hashes: p.GetHashes(),
			Checkpoint: p.GetCheckpoint().GetEnvelope(),
		}
	}
	return e, nil
}

// existingV2 rebuilds the entry that the log has already from what it publishes: it never answers with it again.
//
// SPEC: Rekor v2: 409 with the index in a header, and as the last word of the message.
func (l *Log) existingV2(ctx context.Context, conflict answer, want body) (artifact.LogEntry, error) {
	index, err := conflictIndex(conflict)
	if err != nil {
		return artifact.LogEntry{}, err
	}
	e, err := l.rebuild(ctx, index, want)
	if err != nil {
		return artifact.LogEntry{}, fmt.Errorf("rebuilding the entry %d, which it has already: %w", index, err)
	}
	return e, nil
}

func conflictIndex(a answer) (int64, error) {
	for _, text := range []string{a.header.Get(indexHeader), lastWord(a)} {
		if index, err := strconv.ParseInt(text, 10, 64); err == nil && index >= 0 {
			return index, nil
		}
	}
	return 0, fault.Newf(fault.Transient, fault.BadAnswer, "it has the entry already, and does not say under which index")
}

func lastWord(a answer) string {
	said, own := a.said()
	if _, words, ok := strings.Cut(said, " with index "); own && ok {
		return strings.Trim(words, " .")
	}
	return ""
}

// probeV2 asks the server that takes entries whether it serves, and reads the newest checkpoint: tiles may be served by another.
//
// SPEC: rekor-tiles, GET /healthz: {"status":"SERVING"}, by grpc-gateway.
func (l *Log) probeV2(ctx context.Context) error {
	raw, err := l.get(ctx, opInfo, l.endpoint("healthz"), maxAnswer)
	if err != nil {
		return err
	}
	var health struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(raw, &health); err != nil {
		return badAnswer("reading its health: %w", err)
	}
	if health.Status != "SERVING" {
		return badAnswer("its health is %.32q", health.Status)
	}
	_, _, err = l.newest(ctx)
	return err
}

// rebuild makes the entry from the checkpoint and the tiles. If its body is not the wanted one, the log mixes entries up.
func (l *Log) rebuild(ctx context.Context, index int64, want body) (artifact.LogEntry, error) {
	text, tree, err := l.newest(ctx)
	if err != nil {
		return artifact.LogEntry{}, err
	}
	if tree.N <= index {
		return artifact.LogEntry{}, fault.After(soon, fault.LogUnavailable,
			fmt.Errorf("the newest checkpoint is for a tree of %d: the entry is not published yet", tree.N))
	}
	raw, err := l.entryAt(ctx, index, tree.N)
	if err != nil {
		return artifact.LogEntry{}, err
	}
	if !want.is(raw) {
		return artifact.LogEntry{}, fault.Newf(fault.Transient, fault.ProofInvalid, "what it has there is about another signature, payload or key")
	}
	hashes, err := l.pathTo(ctx, index, tree)
	if err != nil {
		return artifact.LogEntry{}, err
	}
	return artifact.LogEntry{
		Log: l.name, LogID: slices.Clone(l.key.id), Kind: want.kind, Version: want.version, Body: raw, Index: index,
		Proof: &artifact.InclusionProof{Index: index, TreeSize: tree.N, RootHash: tree.Hash[:], Hashes: hashes, Checkpoint: text},
	}, nil
}
