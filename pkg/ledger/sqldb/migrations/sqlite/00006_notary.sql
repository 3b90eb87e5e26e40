-- The leaves and tiles of the ledger's Merkle log: what proofs are made of. They hold nothing that the stream does not, and have a
-- position of their own: the size and last_seq of the log.

-- +goose Up
CREATE TABLE notary_logs (
    epoch         INTEGER NOT NULL PRIMARY KEY,
    size          INTEGER NOT NULL,
    last_seq      INTEGER NOT NULL,
    note          TEXT    NOT NULL,
    frontier      BLOB    NOT NULL, -- hashes of 32 bytes, as in base_frontier
    base_size     INTEGER NOT NULL,
    base_seq      INTEGER NOT NULL,
    base_frontier BLOB    NOT NULL
) STRICT;

-- A row holds up to 256 hashes of 32 bytes; seqs are of 8 bytes for each leaf, and empty above level 0, as is last_seq.
CREATE TABLE notary_tiles (
    epoch    INTEGER NOT NULL,
    level    INTEGER NOT NULL,
    tile     INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    hashes   BLOB    NOT NULL,
    seqs     BLOB    NOT NULL,
    PRIMARY KEY (epoch, level, tile)
) STRICT;
CREATE INDEX notary_tiles_seq ON notary_tiles (epoch, level, last_seq);
