package notary

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"github.com/transparency-dev/merkle/compact"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// saveBatch is how many leaves are stored at once by who has many to store.
const saveBatch = 16 << 10

// tileID names a tile of one log.
type tileID struct {
	level uint
	index uint64
}

// saver stores what was verified, checkpoint by checkpoint. It belongs to one goroutine.
type saver struct {
	store Store
	// log is what is stored, at its tree, and edge the incomplete tiles of it. waiting are the leaves behind it, up to to.
	log     Log
	at      *tree
	edge    map[tileID]*Tile
	waiting []Leaf
	to      artifact.CheckpointRecord
}

// resume goes on from what is stored of an epoch. The caller has compared it with its note.
func (s *saver) resume(ctx context.Context, log Log) error {
	at, err := treeAt(log.Size, log.LastSeq, log.Frontier)
	if err != nil {
		return err
	}
	s.reset(log, at)
	for level := uint(0); log.Size>>(level*tileHeight) > 0; level++ {
		id := tileID{level, log.Size >> (level * tileHeight) / tileWidth}
		tile, found, err := s.store.LogTile(ctx, log.Epoch, id.level, id.index)
		if err != nil {
			return err
		}
		if found {
			s.edge[id] = &tile
		}
	}
	return nil
}

func (s *saver) reset(log Log, at *tree) {
	s.log, s.at, s.edge = log, at, map[tileID]*Tile{}
	s.waiting, s.to = nil, artifact.CheckpointRecord{}
}

// begin starts a log at a base of which the leaves are not known.
func (s *saver) begin(epoch uint64, base *tree) {
	s.reset(Log{Epoch: epoch, BaseSize: base.size(), BaseSeq: base.lastSeq, BaseFrontier: base.frontier()}, base.clone())
}

// take remembers verified leaves. It is false if they do not follow what is there.
func (s *saver) take(r artifact.CheckpointRecord, from *tree, leaves []Leaf) bool {
	if s.at == nil || r.Epoch != s.log.Epoch || from.size() != s.at.size()+uint64(len(s.waiting)) {
		return false
	}
	s.waiting, s.to = append(s.waiting, leaves...), r
	return true
}

// save stores what waits. A crash before the transaction ends leaves what was there before, which is read from the stream again;
// one behind it loses nothing. An error leaves all waiting, except ErrOtherLog, after which the saver has to resume.
func (s *saver) save(ctx context.Context) error {
	if s.to.Note == "" || s.to.Size == s.log.Size && s.log.Note != "" {
		return nil
	}
	at, changed := s.at.clone(), map[tileID]*Tile{}
	for _, l := range s.waiting {
		index := at.size()
		if err := at.add(l, func(id compact.NodeID, hash []byte) { s.put(changed, id, hash) }); err != nil {
			return err
		}
		s.putSeq(changed, index, l.Seq)
	}
	next := s.log
	next.Size, next.LastSeq, next.Note, next.Frontier = s.to.Size, s.to.LastSeq, s.to.Note, at.frontier()
	tiles := make([]Tile, 0, len(changed))
	for _, tile := range changed {
		tiles = append(tiles, *tile)
	}
	slices.SortFunc(tiles, func(a, b Tile) int { return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.Index, b.Index)) })
	if err := s.store.SaveLog(ctx, s.log, next, tiles); err != nil {
		if errors.Is(err, ErrOtherLog) {
			return s.adopt(ctx)
		}
		return err
	}
	s.log, s.at, s.waiting, s.to = next, at, nil, artifact.CheckpointRecord{}
	maps.Copy(s.edge, changed)
	for id := range s.edge { // Full tiles are not needed any more.
		if id.index < at.size()>>(id.level*tileHeight)/tileWidth {
			delete(s.edge, id)
		}
	}
	return nil
}

// adopt goes on from what somebody else has stored meanwhile. What is stored of fewer leaves than this saver has seen stored is of a
// new database: the error is ErrOtherLog then. What is stored of more is of a ledger that went back: nothing is stored any more.
func (s *saver) adopt(ctx context.Context) error {
	logs, err := s.store.Logs(ctx)
	if err != nil {
		return err
	}
	at, waiting, to := s.at, s.waiting, s.to
	s.at = nil
	i := slices.IndexFunc(logs, func(l Log) bool { return l.Epoch == s.log.Epoch })
	if i < 0 || logs[i].Size < at.size() {
		return ErrOtherLog
	}
	stored := logs[i]
	ahead := stored.Size - at.size()
	if ahead > uint64(len(waiting)) {
		return nil
	}
	next := at.clone()
	for _, l := range waiting[:ahead] {
		if err := next.add(l, nil); err != nil {
			return err
		}
	}
	if !slices.EqualFunc(next.frontier(), stored.Frontier, bytes.Equal) {
		return nil // It is for Verify to say what does not fit.
	}
	if err := s.resume(ctx, stored); err != nil {
		return err
	}
	s.waiting, s.to = slices.Clone(waiting[ahead:]), to
	return nil
}

// tile gives a tile to change: a copy of what is stored of it.
func (s *saver) tile(changed map[tileID]*Tile, id tileID) *Tile {
	tile, found := changed[id]
	if !found {
		tile = &Tile{Level: id.level, Index: id.index}
		if stored, found := s.edge[id]; found {
			tile.Hashes, tile.Seqs = slices.Clone(stored.Hashes), slices.Clone(stored.Seqs)
		}
		changed[id] = tile
	}
	return tile
}

func (s *saver) put(changed map[tileID]*Tile, id compact.NodeID, hash []byte) {
	if id.Level%tileHeight != 0 {
		return
	}
	tile := s.tile(changed, tileID{id.Level / tileHeight, id.Index / tileWidth})
	tile.Hashes = grow(tile.Hashes, int(id.Index%tileWidth+1)*HashSize)
	copy(tile.Hashes[id.Index%tileWidth*HashSize:], hash)
}

func (s *saver) putSeq(changed map[tileID]*Tile, index, seq uint64) {
	tile := s.tile(changed, tileID{0, index / tileWidth})
	tile.Seqs = grow(tile.Seqs, int(index%tileWidth+1)*8)
	binary.BigEndian.PutUint64(tile.Seqs[index%tileWidth*8:], seq)
}

// grow appends zeros up to a length.
func grow(b []byte, length int) []byte {
	if missing := length - len(b); missing > 0 {
		b = append(b, make([]byte, missing)...)
	}
	return b
}

// hash gives a hash of a tile, false where it is not known.
func (t Tile) hash(place uint64) (hash [HashSize]byte, known bool) {
	if end := (place + 1) * HashSize; end <= uint64(len(t.Hashes)) {
		copy(hash[:], t.Hashes[end-HashSize:end])
	}
	return hash, hash != [HashSize]byte{}
}

// leaves gives those that are known of a tile of level 0, with the index of the first.
func (t Tile) leaves() (first uint64, leaves []Leaf) {
	for place := range uint64(min(len(t.Hashes)/HashSize, len(t.Seqs)/8)) {
		seq := binary.BigEndian.Uint64(t.Seqs[place*8:])
		hash, known := t.hash(place)
		switch {
		case seq == 0 || !known:
		case leaves == nil:
			first, leaves = t.Index*tileWidth+place, []Leaf{{seq, hash}}
		default:
			leaves = append(leaves, Leaf{seq, hash})
		}
	}
	return first, leaves
}
