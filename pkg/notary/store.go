package notary

import (
	"context"
	"errors"
)

// tileHeight and tileWidth are those of C2SP tlog-tiles: a tile holds 256 hashes of one level, and those of the level above the
// roots of full tiles.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// ErrOtherLog says that the stored log is not the one from which the caller wanted to go on: somebody else has, or the database is a
// new one.
var ErrOtherLog = errors.New("the stored log is another one")

// Log is what is stored of the log of an epoch: its leaves up to a checkpoint.
type Log struct {
	Epoch uint64
	// Size and LastSeq are those of the checkpoint Note, Frontier the hashes of its tree. A Size of 0 without a Note is a log of
	// which nothing is stored.
	Size     uint64
	LastSeq  uint64
	Note     string
	Frontier [][]byte
	// BaseSize leaves are not stored, because their events had expired; BaseFrontier are the hashes of their tree. BaseSeq is the
	// sequence before the first leaf that is stored.
	BaseSize     uint64
	BaseSeq      uint64
	BaseFrontier [][]byte
}

// Tile is a row of hashes of the tree of an epoch, of nodes Index*256 and following of the level 8*Level. Those of nodes that are not
// known are zeros.
type Tile struct {
	Level  uint
	Index  uint64
	Hashes []byte
	// Seqs are the sequences of the leaves, of 8 bytes each, big endian, in tiles of level 0; zeros for those that are not known.
	Seqs []byte
}

// Store keeps the leaves, for proofs and exact findings. It can be emptied at any time: it is filled again from the stream. It is
// safe for concurrent use, and makes one attempt; errors are faults, except [ErrOtherLog].
type Store interface {
	// Logs gives what is stored, by epoch.
	Logs(ctx context.Context) ([]Log, error)
	// SaveLog stores tiles and what the log has become, in one transaction, if it still is at the size of from: 0 for a log that is
	// not stored. Else it changes nothing and returns ErrOtherLog.
	SaveLog(ctx context.Context, from, to Log, tiles []Tile) error
	// LogTile gives a tile, and TileBehind the first tile of leaves that holds one with at least this sequence.
	LogTile(ctx context.Context, epoch uint64, level uint, index uint64) (Tile, bool, error)
	TileBehind(ctx context.Context, epoch, seq uint64) (Tile, bool, error)
}
