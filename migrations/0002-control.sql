-- Schema 2: what requests configure and the file cannot.

-- Streams that may not be pushed for a while. A row outlives its time until the next one is added.
CREATE TABLE forbidden_stream (
    domain     TEXT NOT NULL,
    app        TEXT NOT NULL,
    stream     TEXT NOT NULL,
    until_ms   INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (domain, app, stream)
) STRICT, WITHOUT ROWID;

-- Names with commas between them. Recordings are not made here; what is said about them is kept for whoever reads it back.
ALTER TABLE callback_template ADD COLUMN record_exception_levels TEXT NOT NULL DEFAULT '';
