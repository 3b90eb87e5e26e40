-- What Harbor itself says of pushes, what the report is filtered and sorted by, and the aggregates. No row of units is rewritten:
-- columns have constant defaults or are computed when they are read, and the rest is filled by reading the rows once.

-- +goose Up

-- The first event in which Harbor's own feed tells of the push. It counts more than what the webhook said.
ALTER TABLE units ADD COLUMN confirmed_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE units ADD COLUMN confirmed_pushed_at BIGINT;
ALTER TABLE units ADD COLUMN confirmed_pusher TEXT NOT NULL DEFAULT '';

-- Derived, for the indexes: what the row shows. Without a time of the push, that is when the ledger first heard of the digest; what was
-- never signed comes after everything that was. Formats are those of the signatures that count: legacy, bundle, both, other, or empty if there are none.
ALTER TABLE units ADD COLUMN pusher_source TEXT NOT NULL GENERATED ALWAYS AS (
    CASE WHEN confirmed_seq > 0 THEN 'harbor_audit' WHEN pusher <> '' THEN 'webhook' ELSE 'none' END) VIRTUAL;
ALTER TABLE units ADD COLUMN shown_pusher TEXT NOT NULL GENERATED ALWAYS AS (
    CASE WHEN confirmed_seq > 0 THEN confirmed_pusher ELSE pusher END) VIRTUAL;
ALTER TABLE units ADD COLUMN pushed_sort BIGINT NOT NULL GENERATED ALWAYS AS (
    COALESCE(confirmed_pushed_at, pushed_at, first_seen_at)) VIRTUAL;
ALTER TABLE units ADD COLUMN signed_sort BIGINT NOT NULL GENERATED ALWAYS AS (
    COALESCE(signed_at, -9223372036854775807)) VIRTUAL;
ALTER TABLE units ADD COLUMN evidence TEXT NOT NULL GENERATED ALWAYS AS (
    CASE WHEN paid_signatures_seq > CASE WHEN owed <> '[]' THEN owed_as_of ELSE signatures_seq END
    THEN paid_signatures ELSE signatures END) VIRTUAL;
ALTER TABLE units ADD COLUMN formats TEXT NOT NULL GENERATED ALWAYS AS (
    CASE (instr(evidence, '"format":"legacy"') > 0) + 2 * (instr(evidence, '"format":"bundle"') > 0)
    WHEN 3 THEN 'both' WHEN 2 THEN 'bundle' WHEN 1 THEN 'legacy' ELSE CASE evidence WHEN '[]' THEN '' ELSE 'other' END END) VIRTUAL;

-- Each index is paid for by every event. These two have become dispensable: unit_keys leads to the rows of a key, and a repository has few.
DROP INDEX units_sole_key;
DROP INDEX units_repository_state;
CREATE INDEX units_pushed ON units (pushed_sort, first_seq);
CREATE INDEX units_signed ON units (signed_sort, first_seq);
CREATE INDEX units_project_pushed ON units (project, pushed_sort, first_seq);
CREATE INDEX units_project_signed ON units (project, signed_sort, first_seq);
CREATE INDEX units_formats ON units (formats, state, first_seen_at, first_seq);
CREATE INDEX units_pusher ON units (pusher_source, shown_pusher, first_seen_at, first_seq);
CREATE INDEX tags_name ON tags (name, unit_id);

-- The keys of the signatures that count, each once for a unit. The place is that of the unit, and as unique as the unit is.
CREATE TABLE unit_keys (
    key_id        TEXT   NOT NULL,
    first_seen_at BIGINT NOT NULL,
    first_seq     BIGINT NOT NULL,
    unit_id       BIGINT NOT NULL,
    PRIMARY KEY (key_id, first_seen_at, first_seq)
) WITHOUT ROWID;
INSERT INTO unit_keys (key_id, first_seen_at, first_seq, unit_id)
SELECT DISTINCT json_extract(value, '$.key_id'), first_seen_at, first_seq, units.id
FROM units, json_each(evidence) WHERE evidence <> '[]' AND json_extract(value, '$.key_id') <> '';

-- How many digests there are. The class is the reason of what is skipped or blocked, else empty; the day is that of first_seen_at (UTC),
-- counted from 1970. A count of 0 is no row.
CREATE TABLE project_counts (
    project TEXT   NOT NULL,
    state   TEXT   NOT NULL,
    class   TEXT   NOT NULL,
    n       BIGINT NOT NULL,
    PRIMARY KEY (project, state, class)
) WITHOUT ROWID;
CREATE TABLE day_counts (
    project TEXT   NOT NULL,
    day     BIGINT NOT NULL,
    state   TEXT   NOT NULL,
    class   TEXT   NOT NULL,
    n       BIGINT NOT NULL,
    PRIMARY KEY (project, day, state, class)
) WITHOUT ROWID;
INSERT INTO day_counts (project, day, state, class, n)
SELECT project, (first_seen_at - (first_seen_at % 86400000000 + 86400000000) % 86400000000) / 86400000000, state,
    CASE WHEN state IN ('skipped', 'blocked') THEN reason ELSE '' END, COUNT(*)
FROM units GROUP BY 1, 2, 3, 4;
INSERT INTO project_counts (project, state, class, n)
SELECT project, state, class, SUM(n) FROM day_counts GROUP BY 1, 2, 3;

-- How long it took from the push to the first signature, where this service made it: the day is that of the signature, and the bucket
-- that of the time between both.
CREATE TABLE sign_times (
    project TEXT   NOT NULL,
    day     BIGINT NOT NULL,
    bucket  BIGINT NOT NULL,
    n       BIGINT NOT NULL,
    PRIMARY KEY (project, day, bucket)
) WITHOUT ROWID;
-- The buckets begin at 0 to 15 ms, and double every 8.
CREATE TEMP TABLE bucket_bounds (since BIGINT PRIMARY KEY, bucket BIGINT NOT NULL);
INSERT INTO bucket_bounds (since, bucket)
WITH RECURSIVE b (bucket) AS (SELECT 0 UNION ALL SELECT bucket + 1 FROM b WHERE bucket < 303)
SELECT CASE WHEN bucket < 8 THEN bucket ELSE (bucket % 8 + 8) << (bucket / 8 - 1) END, bucket FROM b;
INSERT INTO sign_times (project, day, bucket, n)
SELECT project, (signed_at - (signed_at % 86400000000 + 86400000000) % 86400000000) / 86400000000,
    (SELECT bucket FROM bucket_bounds WHERE since <= MAX(0, (signed_at - COALESCE(pushed_at, received_at, first_seen_at)) / 1000) ORDER BY since DESC LIMIT 1),
    COUNT(*)
FROM units WHERE how = 'made' AND signed_at IS NOT NULL GROUP BY 1, 2, 3;
DROP TABLE bucket_bounds;

-- From the beginning of the stream once more. What the rows hold already, events do not change.
UPDATE view_position SET seq = 0;
