-- What a sweep relies on, what happened to projects, and the counts of their digests.

-- +goose Up

-- What was listed as a signature when those of the last signed event were verified, as a JSON list, and by which keys.
-- accessories_seq is the sequence of that event.
ALTER TABLE units ADD COLUMN accessories_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE units ADD COLUMN accessories TEXT NOT NULL DEFAULT '[]';
ALTER TABLE units ADD COLUMN key_set TEXT NOT NULL DEFAULT '';
-- Derived, for the index: the key that made all signatures of a digest that is signed.
ALTER TABLE units ADD COLUMN sole_key TEXT NOT NULL DEFAULT '';

-- An older program has read events of a newer signer as far as it knew them: it took what is only observed, or forbidden, for
-- skipped. A row keeps its last reason; earlier events say the rest when they are read again.
UPDATE units SET
    other        = CASE reason WHEN 'observed' THEN 'unsigned' ELSE 'blocked' END,
    unsigned_seq = MAX(unsigned_seq, other_seq)
WHERE other = 'skipped' AND reason IN ('observed', 'blocked');
UPDATE units SET state = CASE WHEN verified_seq > MAX(gone_seq, unsigned_seq) THEN 'signed' ELSE other END
WHERE other IN ('unsigned', 'blocked');
UPDATE units SET sole_key = (SELECT MIN(json_extract(value, '$.key_id')) FROM json_each(signatures))
WHERE state = 'signed' AND (SELECT COUNT(DISTINCT json_extract(value, '$.key_id')) FROM json_each(signatures)) = 1;

CREATE INDEX units_sole_key ON units (sole_key, first_seen_at, first_seq);
-- The reason makes it answer for the counts of a project without reading the rows.
DROP INDEX units_project_state;
CREATE INDEX units_project_state ON units (project, state, first_seen_at, first_seq, reason);

-- What happened to projects; project is empty for what concerns all.
CREATE TABLE project_events (
    seq     INTEGER PRIMARY KEY,
    project TEXT    NOT NULL,
    kind    TEXT    NOT NULL,
    at      BIGINT  NOT NULL,
    actor   TEXT    NOT NULL,
    origin  TEXT    NOT NULL,
    reason  TEXT    NOT NULL,
    detail  TEXT    NOT NULL,
    data    TEXT    NOT NULL -- JSON: an object with change, sweep
);
CREATE INDEX project_events_project ON project_events (project, seq);
CREATE INDEX project_events_kind ON project_events (kind, project, seq);

-- From the beginning of the stream once more. What the rows hold already, events do not change.
UPDATE view_position SET seq = 0;
