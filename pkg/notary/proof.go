package notary

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// ErrNoProof says that no stored checkpoint covers an event: it is too new, too old, or there is none of this sequence.
var ErrNoProof = errors.New("no checkpoint covers the event")

// Proof shows that an event is in the ledger that a checkpoint covers.
type Proof struct {
	Seq   uint64 `json:"seq"`
	Epoch uint64 `json:"epoch"`
	// Index is the place of the event in the log, from 0, and Size the number of events that the checkpoint covers.
	Index uint64 `json:"index"`
	Size  uint64 `json:"size"`
	// LeafHash is that of the event, Hashes are those of the way to the root, from below.
	//
	// SPEC: RFC 6962, section 2.1.1: the audit path.
	LeafHash []byte   `json:"leaf_hash"`
	Hashes   [][]byte `json:"hashes"`
	// Checkpoint is the signed note.
	Checkpoint string `json:"checkpoint"`
}

// VerifyProof checks a proof with nothing but the keys. That the event has the hash is for the caller to check, by [LeafHash].
func VerifyProof(keys *Keys, p Proof) error {
	c, err := OpenCheckpoint(keys, p.Checkpoint)
	if err != nil {
		return err
	}
	if c.Epoch != p.Epoch || c.Size != p.Size {
		return errors.New("the checkpoint is of another log or size than the proof")
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, p.Index, p.Size, p.LeafHash, p.Hashes, c.Root[:]); err != nil {
		return fmt.Errorf("the event is not in the log: %w", err)
	}
	return nil
}

// Prover makes proofs from what is stored. It is safe for concurrent use.
type Prover struct {
	keys  *Keys
	store Store
}

// NewProver makes one. Both are required.
func NewProver(keys *Keys, store Store) (*Prover, error) {
	if keys == nil || store == nil {
		return nil, errors.New("making a prover: keys and a store are required")
	}
	return &Prover{keys, store}, nil
}

// Proof proves that the event of a sequence is in the ledger. It is verified before it is handed out. The error is [ErrNoProof], or
// that of the store.
func (p *Prover) Proof(ctx context.Context, seq uint64) (Proof, error) {
	logs, err := p.store.Logs(ctx)
	if err != nil {
		return Proof{}, fmt.Errorf("proving event %d: %w", seq, err)
	}
	for _, log := range slices.Backward(logs) { // An event of two epochs is proved by the newer one.
		if seq <= log.BaseSeq || seq > log.LastSeq {
			continue
		}
		made, found, err := p.prove(ctx, log, seq)
		if err != nil {
			return Proof{}, fmt.Errorf("proving event %d: %w", seq, err)
		}
		if found {
			return made, nil
		}
	}
	return Proof{}, fmt.Errorf("proving event %d: %w", seq, ErrNoProof)
}

func (p *Prover) prove(ctx context.Context, log Log, seq uint64) (Proof, bool, error) {
	tile, found, err := p.store.TileBehind(ctx, log.Epoch, seq)
	if err != nil || !found {
		return Proof{}, false, err
	}
	made := Proof{Seq: seq, Epoch: log.Epoch, Size: log.Size, Checkpoint: log.Note}
	first, leaves := tile.leaves()
	for i, l := range leaves {
		if l.Seq == seq {
			made.Index, made.LeafHash = first+uint64(i), l.Hash[:]
		}
	}
	if made.LeafHash == nil || made.Index >= log.Size {
		return Proof{}, false, nil
	}
	nodes, err := proof.Inclusion(made.Index, log.Size)
	if err != nil {
		return Proof{}, false, err
	}
	r := newNodeReader(p.store, log)
	hashes := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		if hashes[i], err = r.node(ctx, id); err != nil {
			return Proof{}, false, err
		}
	}
	if made.Hashes, err = nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren); err != nil {
		return Proof{}, false, err
	}
	return made, true, VerifyProof(p.keys, made)
}

// nodeReader reads nodes of one log. It remembers tiles, and belongs to one request.
type nodeReader struct {
	store Store
	epoch uint64
	base  map[compact.NodeID][]byte
	tiles map[tileID]Tile
}

func newNodeReader(store Store, log Log) *nodeReader {
	r := &nodeReader{store: store, epoch: log.Epoch, base: map[compact.NodeID][]byte{}, tiles: map[tileID]Tile{}}
	for i, id := range compact.RangeNodes(0, log.BaseSize, nil) {
		if i < len(log.BaseFrontier) {
			r.base[id] = log.BaseFrontier[i]
		}
	}
	return r
}

// node gives the hash of a complete subtree: from the base, from a tile, or from those of its children.
func (r *nodeReader) node(ctx context.Context, id compact.NodeID) ([]byte, error) {
	if hash, found := r.base[id]; found {
		return hash, nil
	}
	if id.Level%tileHeight == 0 {
		at := tileID{id.Level / tileHeight, id.Index / tileWidth}
		tile, read := r.tiles[at]
		if !read {
			var err error
			if tile, _, err = r.store.LogTile(ctx, r.epoch, at.level, at.index); err != nil {
				return nil, err
			}
			r.tiles[at] = tile
		}
		if hash, known := tile.hash(id.Index % tileWidth); known {
			return hash[:], nil
		}
		if id.Level == 0 {
			return nil, fmt.Errorf("leaf %d is not stored", id.Index)
		}
	}
	left, err := r.node(ctx, compact.NewNodeID(id.Level-1, 2*id.Index))
	if err != nil {
		return nil, err
	}
	right, err := r.node(ctx, compact.NewNodeID(id.Level-1, 2*id.Index+1))
	if err != nil {
		return nil, err
	}
	return rfc6962.DefaultHasher.HashChildren(left, right), nil
}
