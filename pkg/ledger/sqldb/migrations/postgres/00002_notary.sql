-- The leaves and tiles of the ledger's Merkle log: what proofs are made of. They hold nothing that the stream does not, and have a
-- position of their own: the size and last_seq of the log.

-- +goose Up
CREATE TABLE notary_logs (
    epoch         BIGINT NOT NULL PRIMARY KEY,
    size          BIGINT NOT NULL,
    last_seq      BIGINT NOT NULL,
    note          TEXT   NOT NULL,
    frontier      BYTEA  NOT NULL, -- hashes of 32 bytes, as in base_frontier
    base_size     BIGINT NOT NULL,
    base_seq      BIGINT NOT NULL,
    base_frontier BYTEA  NOT NULL
);

-- A row holds up to 256 hashes of 32 bytes; seqs are of 8 bytes for each leaf, and empty above level 0, as is last_seq.
CREATE TABLE notary_tiles (
    epoch    BIGINT  NOT NULL,
    level    BIGINT  NOT NULL,
    tile     BIGINT  NOT NULL,
    last_seq BIGINT  NOT NULL,
    hashes   BYTEA   NOT NULL,
    seqs     BYTEA   NOT NULL,
    PRIMARY KEY (epoch, level, tile)
);
-- Hashes do not get smaller by compression: do not try.
ALTER TABLE notary_tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;
CREATE INDEX notary_tiles_seq ON notary_tiles (epoch, level, last_seq);
