package tlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// tileHeight and tileWidth are those of every tile of hashes, and an entry bundle has as many entries.
	//
	// SPEC: C2SP tlog-tiles, "Merkle Tree" and "Log Entries".
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	maxTile    = tileWidth * tlog.HashSize
	// maxBundle bounds an entry bundle: entries have up to 64 KiB by their length field, ours 1 KiB.
	maxBundle = 8 << 20
)

// newest reads and verifies the newest checkpoint.
func (l *Log) newest(ctx context.Context) (text string, tree tlog.Tree, err error) {
	raw, err := l.get(ctx, opCheckpoint, l.tiles.JoinPath("checkpoint"), maxCheckpoint)
	if err != nil {
		return "", tlog.Tree{}, fmt.Errorf("reading the checkpoint: %w", err)
	}
	cp, err := l.openCheckpoint(string(raw))
	if err != nil {
		return "", tlog.Tree{}, fault.New(fault.Transient, fault.ProofInvalid, err)
	}
	tree.N = int64(cp.Size) //nolint:gosec // openCheckpoint bounds it
	copy(tree.Hash[:], cp.Hash)
	return string(raw), tree, nil
}

// entryAt reads the entry at an index in a tree of a size. It is proven by [Log.pathTo].
func (l *Log) entryAt(ctx context.Context, index, size int64) ([]byte, error) {
	bundle := index / tileWidth
	raw, _, err := l.readTile(ctx, "entries", bundle, width(bundle, size), maxBundle)
	if err != nil {
		return nil, fmt.Errorf("reading the entries: %w", err)
	}
	entry, err := entryIn(raw, int(index%tileWidth))
	if err != nil {
		return nil, badAnswer("reading the entries: %w", err)
	}
	return entry, nil
}

// width is how many of the 256 entries or hashes of a tile there are in a tree of this many.
func width(tile, size int64) int { return int(min(size-tile*tileWidth, tileWidth)) }

// entryIn gives the entry at a place of a bundle.
//
// SPEC: C2SP tlog-tiles, "Log Entries": each entry is preceded by its length, two bytes, big-endian.
func entryIn(bundle []byte, place int) ([]byte, error) {
	for i := 0; ; i++ {
		if len(bundle) < 2 {
			return nil, fmt.Errorf("there are %d, want more than %d", i, place)
		}
		length := int(binary.BigEndian.Uint16(bundle))
		if bundle = bundle[2:]; len(bundle) < length {
			return nil, errors.New("one is cut off")
		}
		if i == place {
			return bundle[:length:length], nil
		}
		bundle = bundle[length:]
	}
}

// pathTo reads the hashes that lead from the entry at an index to the root of the tree. The tiles that it is read from are
// checked against the root.
func (l *Log) pathTo(ctx context.Context, index int64, tree tlog.Tree) ([][]byte, error) {
	path, err := tlog.ProveRecord(tree.N, index, tlog.TileHashReader(tree, tileReader{read: func(t tlog.Tile) ([]byte, error) {
		raw, whole, err := l.readTile(ctx, fmt.Sprint(t.L), t.N, t.W, maxTile)
		if err == nil && whole && len(raw) == maxTile {
			raw = raw[:t.W*tlog.HashSize]
		}
		return raw, err
	}}))
	if err != nil {
		if _, known := errors.AsType[*fault.Error](err); known || ctx.Err() != nil {
			return nil, fmt.Errorf("reading the tree: %w", err)
		}
		return nil, fault.Newf(fault.Transient, fault.ProofInvalid, "the tiles do not lead to the checkpoint: %w", err)
	}
	hashes := make([][]byte, len(path))
	for i, one := range path {
		hashes[i] = one[:]
	}
	return hashes, nil
}

// readTile reads one tile. A partial one may be gone once the full one is there.
//
// SPEC: C2SP tlog-tiles, "Partial Tiles".
func (l *Log) readTile(ctx context.Context, level string, tile int64, width int, limit int64) (raw []byte, whole bool, err error) {
	full := l.tiles.JoinPath("tile", level, groups(tile))
	if width == tileWidth {
		raw, err = l.get(ctx, opTile, full, limit)
		return raw, true, err
	}
	a, err := l.ask(ctx, opTile, http.MethodGet, partial(full, width), nil, limit)
	switch {
	case err != nil:
		return nil, false, err
	case a.status == http.StatusNotFound:
		raw, err = l.get(ctx, opTile, full, limit)
		return raw, true, err
	case a.status != http.StatusOK:
		return nil, false, l.statusFault(a)
	}
	return a.body, false, nil
}

func partial(full *url.URL, width int) *url.URL {
	u := *full
	u.Path += fmt.Sprintf(".p/%d", width)
	return &u
}

// groups writes the number of a tile in groups of three digits: x001/x234/067.
func groups(tile int64) string {
	var b strings.Builder
	digits := fmt.Sprintf("%03d", tile)
	if rest := len(digits) % 3; rest != 0 {
		digits = strings.Repeat("0", 3-rest) + digits
	}
	for len(digits) > 3 {
		b.WriteString("x" + digits[:3] + "/")
		digits = digits[3:]
	}
	return b.String() + digits
}

// tileReader implements tlog.TileReader.
type tileReader struct {
	read func(tlog.Tile) ([]byte, error)
}

// Height implements tlog.TileReader.
func (tileReader) Height() int { return tileHeight }

// SaveTiles implements tlog.TileReader: nothing is kept.
func (tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles implements tlog.TileReader.
func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, len(tiles))
	for i, t := range tiles {
		raw, err := r.read(t)
		if err != nil {
			return nil, err
		}
		if len(raw) != t.W*tlog.HashSize {
			return nil, badAnswer("a tile has %d bytes, want %d", len(raw), t.W*tlog.HashSize)
		}
		all[i] = raw
	}
	return all, nil
}
