package notary

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// HashSize is the length of a hash in bytes.
const HashSize = 32

// leafDomain separates the ledger's leaves from those of other logs.
const leafDomain = "harborseal/ledger/v1\n"

// Leaf is an event in the log.
type Leaf struct {
	Seq  uint64
	Hash [HashSize]byte
}

// LeafData is what is hashed of an event: where it stands, under which subject, and what it says.
func LeafData(seq uint64, subject string, data []byte) []byte {
	b := make([]byte, 0, len(leafDomain)+len(subject)+len(data)+22)
	b = append(b, leafDomain...)
	b = strconv.AppendUint(b, seq, 10)
	b = append(b, '\n')
	b = append(b, subject...)
	b = append(b, '\n')
	return append(b, data...)
}

// LeafHash is the hash of an event.
//
// SPEC: RFC 6962, section 2.1: a leaf is hashed with a zero byte in front of it, so that none can pass for a node.
func LeafHash(seq uint64, subject string, data []byte) (hash [HashSize]byte) {
	copy(hash[:], rfc6962.DefaultHasher.HashLeaf(LeafData(seq, subject, data)))
	return hash
}

func leafOf(e artifact.Entry) Leaf { return Leaf{e.Seq, LeafHash(e.Seq, e.Subject, e.Data)} }

// tree is the right border of a Merkle tree: all that is needed to append to it. It belongs to one goroutine.
type tree struct {
	border  *compact.Range
	lastSeq uint64 // of the last leaf; in an empty tree that before the first
}

func newRange(size uint64, frontier [][]byte) (*compact.Range, error) {
	factory := &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	return factory.NewRange(0, size, slices.Clone(frontier))
}

func emptyTree(lastSeq uint64) *tree {
	factory := &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	return &tree{border: factory.NewEmptyRange(0), lastSeq: lastSeq}
}

// treeAt goes on from a frontier, which the caller has compared with a signed root.
func treeAt(size, lastSeq uint64, frontier [][]byte) (*tree, error) {
	for _, hash := range frontier {
		if len(hash) != HashSize {
			return nil, fmt.Errorf("a hash of %d bytes in the frontier", len(hash))
		}
	}
	border, err := newRange(size, frontier)
	if err != nil {
		return nil, err
	}
	return &tree{border: border, lastSeq: lastSeq}, nil
}

func (t *tree) size() uint64       { return t.border.End() }
func (t *tree) frontier() [][]byte { return slices.Clone(t.border.Hashes()) }

func (t *tree) clone() *tree {
	copied, err := treeAt(t.size(), t.lastSeq, t.border.Hashes())
	if err != nil {
		panic("notary: a tree does not fit itself: " + err.Error())
	}
	return copied
}

// add appends a leaf. visit may be nil; it is told all nodes that became complete.
func (t *tree) add(l Leaf, visit compact.VisitFn) error {
	t.lastSeq = l.Seq
	return t.border.Append(l.Hash[:], visit)
}

func (t *tree) root() ([HashSize]byte, error) {
	var root [HashSize]byte
	if t.size() == 0 {
		copy(root[:], rfc6962.DefaultHasher.EmptyRoot())
		return root, nil
	}
	hash, err := t.border.GetRootHash(nil)
	copy(root[:], hash)
	return root, err
}
