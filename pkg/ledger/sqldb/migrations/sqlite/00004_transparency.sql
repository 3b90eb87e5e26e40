-- What is owed to transparency logs, and the outages of what the programs depend on. Nothing here rewrites a row: columns with
-- constant defaults are added to the schema alone, and the indexes hold only what owes.

-- +goose Up

-- What the last signed event says is owed, as a JSON list of formats, and what the ledger had reached before the signer looked.
ALTER TABLE units ADD COLUMN owed TEXT NOT NULL DEFAULT '[]';
ALTER TABLE units ADD COLUMN owed_as_of BIGINT NOT NULL DEFAULT 0;
-- The signed events by which entries were owed, as a JSON list of objects with seq, as_of and at.
ALTER TABLE units ADD COLUMN debts TEXT NOT NULL DEFAULT '[]';
-- The last event by which nothing is owed any more, and the last of those that name signatures.
ALTER TABLE units ADD COLUMN paid_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE units ADD COLUMN paid_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE units ADD COLUMN paid_note TEXT NOT NULL DEFAULT '';
ALTER TABLE units ADD COLUMN paid_signatures_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE units ADD COLUMN paid_at BIGINT;
ALTER TABLE units ADD COLUMN paid_signatures TEXT NOT NULL DEFAULT '[]';
-- Derived, for the indexes: since when an entry is owed, NULL if none is.
ALTER TABLE units ADD COLUMN log_owed_since BIGINT;

CREATE INDEX units_log_owed ON units (first_seen_at, first_seq) WHERE log_owed_since IS NOT NULL;
CREATE INDEX units_log_debt ON units (project, first_seen_at, first_seq, log_owed_since) WHERE log_owed_since IS NOT NULL;

-- One row for each outage that a program has seen. seq is the sequence of its first record, last_seq that of the record which
-- says the rest.
CREATE TABLE outages (
    dependency  TEXT   NOT NULL,
    program     TEXT   NOT NULL,
    instance    TEXT   NOT NULL,
    started_at  BIGINT NOT NULL,
    seq         BIGINT NOT NULL,
    last_seq    BIGINT NOT NULL,
    detected_at BIGINT NOT NULL,
    ended_at    BIGINT,
    cause       TEXT   NOT NULL,
    detail      TEXT   NOT NULL,
    waiting     BIGINT NOT NULL,
    deferred    BIGINT NOT NULL,
    PRIMARY KEY (dependency, program, instance, started_at)
);
CREATE INDEX outages_seq ON outages (seq);

-- From the beginning of the stream once more. What the rows hold already, events do not change.
UPDATE view_position SET seq = 0;
