-- The view of the ledger. It can be deleted at any time: the projector fills it again from the stream.
-- Times are microseconds since 1970 (UTC), NULL where unknown. A sequence of 0 means that no event has set the part.

-- +goose Up
CREATE TABLE view_position (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    stream_created TEXT    NOT NULL, -- RFC 3339 with nanoseconds; empty before the first reset
    rules          BIGINT  NOT NULL,
    generation     BIGINT  NOT NULL,
    seq            BIGINT  NOT NULL
);
INSERT INTO view_position (id, stream_created, rules, generation, seq) VALUES (1, '', 0, 0, 0);

CREATE TABLE units (
    id                  INTEGER PRIMARY KEY,
    project             TEXT   NOT NULL,
    repository          TEXT   NOT NULL,
    digest              TEXT   NOT NULL,
    state               TEXT   NOT NULL, -- derived from the columns below, for the indexes
    first_seq           BIGINT NOT NULL,
    first_seen_at       BIGINT NOT NULL,
    last_seq            BIGINT NOT NULL,
    received_seq        BIGINT NOT NULL,
    received_at         BIGINT,
    pushed_at           BIGINT,
    pusher              TEXT   NOT NULL,
    last_received_seq   BIGINT NOT NULL,
    signed_seq          BIGINT NOT NULL,
    signed_at           BIGINT,
    verified_seq        BIGINT NOT NULL,
    verified_at         BIGINT,
    key_id              TEXT   NOT NULL,
    format              TEXT   NOT NULL,
    signature_digest    TEXT   NOT NULL,
    how                 TEXT   NOT NULL,
    gone_seq            BIGINT NOT NULL,
    unsigned_seq        BIGINT NOT NULL,
    other_seq           BIGINT NOT NULL,
    other               TEXT   NOT NULL,
    reason              TEXT   NOT NULL,
    detail              TEXT   NOT NULL,
    media_type_seq      BIGINT NOT NULL,
    media_type          TEXT   NOT NULL,
    policy_revision_seq BIGINT NOT NULL,
    policy_revision     TEXT   NOT NULL,
    attempts            BIGINT NOT NULL
);

-- Pages are keyed by (first_seen_at, first_seq); each index ends with them, so that a filtered page is a range of it.
CREATE UNIQUE INDEX units_unit ON units (repository, digest);
CREATE INDEX units_digest ON units (digest);
CREATE INDEX units_place ON units (first_seen_at, first_seq);
CREATE INDEX units_state ON units (state, first_seen_at, first_seq);
CREATE INDEX units_project ON units (project, first_seen_at, first_seq);
CREATE INDEX units_project_state ON units (project, state, first_seen_at, first_seq);
CREATE INDEX units_repository ON units (repository, first_seen_at, first_seq);
CREATE INDEX units_repository_state ON units (repository, state, first_seen_at, first_seq);

-- The tags that were seen on a unit, and the indexes that name it as their child.
CREATE TABLE tags (
    unit_id   BIGINT NOT NULL,
    name      TEXT   NOT NULL,
    first_seq BIGINT NOT NULL,
    first_at  BIGINT NOT NULL,
    last_seq  BIGINT NOT NULL,
    last_at   BIGINT NOT NULL,
    PRIMARY KEY (unit_id, name)
) WITHOUT ROWID;

CREATE TABLE parents (
    unit_id   BIGINT NOT NULL,
    name      TEXT   NOT NULL,
    first_seq BIGINT NOT NULL,
    first_at  BIGINT NOT NULL,
    last_seq  BIGINT NOT NULL,
    last_at   BIGINT NOT NULL,
    PRIMARY KEY (unit_id, name)
) WITHOUT ROWID;
