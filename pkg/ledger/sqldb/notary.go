package sqldb

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/harborseal/harborseal/pkg/notary"
)

const (
	selectLogs = "SELECT epoch, size, last_seq, note, frontier, base_size, base_seq, base_frontier FROM notary_logs ORDER BY epoch"

	insertLog = "INSERT INTO notary_logs (epoch, size, last_seq, note, frontier, base_size, base_seq, base_frontier)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (epoch) DO NOTHING"
	updateLog = "UPDATE notary_logs SET size = ?, last_seq = ?, note = ?, frontier = ? WHERE epoch = ? AND size = ? AND note = ?"

	upsertTile = "INSERT INTO notary_tiles (epoch, level, tile, last_seq, hashes, seqs) VALUES (?, ?, ?, ?, ?, ?)" +
		" ON CONFLICT (epoch, level, tile) DO UPDATE SET last_seq = excluded.last_seq, hashes = excluded.hashes, seqs = excluded.seqs"

	selectTile       = "SELECT level, tile, hashes, seqs FROM notary_tiles WHERE epoch = ? AND level = ? AND tile = ?"
	selectTileBehind = "SELECT level, tile, hashes, seqs FROM notary_tiles WHERE epoch = ? AND level = 0 AND last_seq >= ?" +
		" ORDER BY last_seq LIMIT 1"
)

// seqBytes is the length of a sequence in a tile.
const seqBytes = 8

// Logs implements the store of package notary, as do the methods below.
func (s *Store) Logs(ctx context.Context) ([]notary.Log, error) {
	var logs []notary.Log
	err := s.reading(ctx, "reading the Merkle logs", func(tx *sql.Tx) error {
		return s.each(ctx, tx, selectLogs, nil, func(rows *sql.Rows) error {
			var l notary.Log
			var frontier, base []byte
			err := rows.Scan(&l.Epoch, &l.Size, &l.LastSeq, &l.Note, &frontier, &l.BaseSize, &l.BaseSeq, &base)
			l.Frontier, l.BaseFrontier = splitHashes(frontier), splitHashes(base)
			logs = append(logs, l)
			return err
		})
	})
	return logs, err
}

// SaveLog implements the store of package notary.
func (s *Store) SaveLog(ctx context.Context, from, to notary.Log, tiles []notary.Tile) error {
	err := s.transaction(ctx, func(tx *sql.Tx) error {
		if err := s.moveLog(ctx, tx, from, to); err != nil {
			return err
		}
		for _, t := range tiles {
			var lastSeq uint64
			if n := len(t.Seqs); n >= seqBytes {
				lastSeq = binary.BigEndian.Uint64(t.Seqs[n-seqBytes:])
			}
			_, err := tx.ExecContext(ctx, s.dialect.rebind(upsertTile), to.Epoch, t.Level, t.Index, lastSeq, present(t.Hashes), present(t.Seqs))
			if err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, notary.ErrOtherLog):
		return fmt.Errorf("storing the Merkle log: %w", notary.ErrOtherLog)
	default:
		return s.fail(ctx, "storing the Merkle log", err)
	}
}

// moveLog writes the row of a log, and thereby keeps other writers of it away until the end of the transaction.
func (s *Store) moveLog(ctx context.Context, tx *sql.Tx, from, to notary.Log) error {
	query, args := insertLog, []any{
		to.Epoch, to.Size, to.LastSeq, to.Note, joinHashes(to.Frontier), to.BaseSize, to.BaseSeq, joinHashes(to.BaseFrontier),
	}
	if from.Note != "" {
		query, args = updateLog, []any{to.Size, to.LastSeq, to.Note, joinHashes(to.Frontier), from.Epoch, from.Size, from.Note}
	}
	result, err := tx.ExecContext(ctx, s.dialect.rebind(query), args...)
	if err != nil {
		return err
	}
	moved, err := result.RowsAffected()
	if err != nil {
		return err
	}
	if moved == 0 {
		return notary.ErrOtherLog
	}
	return nil
}

// LogTile implements the store of package notary.
func (s *Store) LogTile(ctx context.Context, epoch uint64, level uint, index uint64) (notary.Tile, bool, error) {
	return s.tile(ctx, selectTile, epoch, level, index)
}

// TileBehind implements the store of package notary.
func (s *Store) TileBehind(ctx context.Context, epoch, seq uint64) (notary.Tile, bool, error) {
	return s.tile(ctx, selectTileBehind, epoch, seq)
}

func (s *Store) tile(ctx context.Context, query string, args ...any) (tile notary.Tile, found bool, err error) {
	err = s.reading(ctx, "reading the Merkle log", func(tx *sql.Tx) error {
		return s.each(ctx, tx, query, args, func(rows *sql.Rows) error {
			found = true
			return rows.Scan(&tile.Level, &tile.Index, &tile.Hashes, &tile.Seqs)
		})
	})
	return tile, found, err
}

// present is never nil, which the database would take for NULL.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func joinHashes(hashes [][]byte) []byte {
	joined := make([]byte, 0, len(hashes)*notary.HashSize)
	for _, h := range hashes {
		joined = append(joined, h...)
	}
	return joined
}

func splitHashes(joined []byte) [][]byte {
	var hashes [][]byte
	for ; len(joined) >= notary.HashSize; joined = joined[notary.HashSize:] {
		hashes = append(hashes, joined[:notary.HashSize:notary.HashSize])
	}
	return hashes
}
