-- The signatures of the last signed event, as a JSON list of objects with format, key_id and digest, and what the event
-- says about them. signatures_seq is the sequence of that event.

-- +goose Up
ALTER TABLE units ADD COLUMN signatures_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE units ADD COLUMN signatures TEXT NOT NULL DEFAULT '[]';
ALTER TABLE units ADD COLUMN note TEXT NOT NULL DEFAULT '';

-- Rows so far know one signature. The sequence is one below that of its event: an older program may have read an event
-- that says more, and when it is read again, it is new to these columns. Where it has expired, what the row knows stays.
UPDATE units SET
    signatures_seq = verified_seq - 1,
    signatures     = CASE WHEN format || key_id || signature_digest = '' THEN '[]'
                     ELSE json_array(json_object('format', format, 'key_id', key_id, 'digest', signature_digest)) END
WHERE verified_seq > 0;

-- From the beginning of the stream once more. What the rows hold already, events do not change.
UPDATE view_position SET seq = 0;
