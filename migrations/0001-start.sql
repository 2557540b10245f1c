-- Schema 1. Times are UTC milliseconds (`_ms`), ids of snapshots, events and deliveries are UUIDv7 in 16 bytes.
-- "sealed" means AES-256-GCM under the master key (db/secret.rs); everything else is plain, so that any SQLite tool can
-- read what happened.

CREATE TABLE meta (
    id              INTEGER PRIMARY KEY CHECK (id = 1),
    -- One more at each start. Claims of deliveries name it.
    epoch           INTEGER NOT NULL,
    -- A known text, sealed: tells a wrong master key at the start and not at the first callback.
    key_check       BLOB,
    -- One more at each change of the configuration tables.
    catalog_version INTEGER NOT NULL
) STRICT;
INSERT INTO meta (id, epoch, catalog_version) VALUES (1, 0, 0);


-- What happened -------------------------------------------------------------------------------------------------------

CREATE TABLE push (
    sequence      INTEGER PRIMARY KEY,
    domain        TEXT NOT NULL,
    app           TEXT NOT NULL,
    stream        TEXT NOT NULL,
    -- The query of the push URL as pushed. It holds txSecret, as the callbacks do.
    param         TEXT NOT NULL,
    user_ip       TEXT NOT NULL,
    node          TEXT NOT NULL,
    width         INTEGER NOT NULL DEFAULT 0,
    height        INTEGER NOT NULL DEFAULT 0,
    opened_ms     INTEGER NOT NULL,
    last_media_ms INTEGER NOT NULL,
    -- The next three are NULL while the push is open.
    ended_ms      INTEGER,
    errcode       INTEGER,
    errmsg        TEXT
) STRICT;
CREATE INDEX push_open ON push (sequence) WHERE ended_ms IS NULL;
CREATE INDEX push_by_stream ON push (domain, app, stream, opened_ms);
CREATE INDEX push_ended ON push (ended_ms) WHERE ended_ms IS NOT NULL;

-- One stored picture. The row lives until its put and its event are settled and forgotten; meanwhile it keeps the
-- object's key from being taken again.
CREATE TABLE snapshot (
    id              BLOB PRIMARY KEY NOT NULL,
    -- The id that follows a picture through every log line, from pick to callback.
    trace           BLOB NOT NULL,
    push_sequence   INTEGER NOT NULL,
    domain          TEXT NOT NULL,
    app             TEXT NOT NULL,
    stream          TEXT NOT NULL,
    rule_id         INTEGER,
    task_id         TEXT,
    template_id     INTEGER NOT NULL,
    -- The configuration under which it was picked.
    catalog_version INTEGER NOT NULL,
    event_id        BLOB NOT NULL,
    create_time_ms  INTEGER NOT NULL,
    recorded_ms     INTEGER NOT NULL,
    width           INTEGER NOT NULL,
    height          INTEGER NOT NULL,
    -- jpeg, png, webp or avif; and which of its template's renditions it is. NULL: there is only one.
    format          TEXT NOT NULL,
    rendition       TEXT,
    file_size       INTEGER NOT NULL,
    sha256          BLOB NOT NULL,
    -- The configured store that its bucket is in, and the region that the template gave.
    store           TEXT NOT NULL,
    region          TEXT NOT NULL,
    -- With its -<appid> tail.
    bucket          TEXT NOT NULL,
    object_key      TEXT NOT NULL,
    -- NULL: not known before it is stored.
    pic_full_url    TEXT,
    -- owed: its bytes are in spool/<id>.image; stored: in the store; discarded: given up by a person; expiring: older than
    -- its template keeps it, and its file is about to go; expired: gone.
    put_state       TEXT NOT NULL CHECK (put_state IN ('owed', 'stored', 'discarded', 'expiring', 'expired')),
    put_attempts    INTEGER NOT NULL DEFAULT 0,
    put_due_ms      INTEGER NOT NULL,
    put_step_ms     INTEGER NOT NULL DEFAULT 0,
    -- 1: the store refuses it in a way that waiting alone will not mend; a person should look.
    put_alarm       INTEGER NOT NULL DEFAULT 0,
    put_error       TEXT,
    -- When it was stored or discarded, and by whom it was discarded.
    settled_ms      INTEGER,
    discarded_by    TEXT,
    -- 1: its event is forgotten; the row stays for as long as its template's retention needs it.
    is_forgotten    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX snapshot_by_key ON snapshot (store, bucket, object_key);
-- Searches of a person: each in the order of its pages.
CREATE INDEX snapshot_by_stream ON snapshot (domain, app, stream, create_time_ms);
CREATE INDEX snapshot_by_time ON snapshot (create_time_ms);
CREATE INDEX snapshot_by_rule ON snapshot (rule_id, create_time_ms) WHERE rule_id IS NOT NULL;
CREATE INDEX snapshot_by_template ON snapshot (template_id, create_time_ms);
-- What waits for each bucket: a store that is away is passed over without reading what waits for it.
CREATE INDEX snapshot_fresh ON snapshot (store, bucket, recorded_ms) WHERE put_state = 'owed' AND put_attempts = 0;
-- The last three so that counting what is owed, and passing over what is fresh, reads no rows.
CREATE INDEX snapshot_backlog ON snapshot (store, bucket, put_due_ms, put_attempts, recorded_ms, put_alarm)
    WHERE put_state = 'owed';
CREATE INDEX snapshot_alarm ON snapshot (id) WHERE put_alarm = 1;
-- What retention walks: pictures that may expire, that are about to, and that nothing else remembers.
CREATE INDEX snapshot_kept ON snapshot (template_id, create_time_ms) WHERE put_state = 'stored' AND store = 'local';
CREATE INDEX snapshot_expiring ON snapshot (id) WHERE put_state = 'expiring';
CREATE INDEX snapshot_forgotten ON snapshot (template_id) WHERE is_forgotten = 1;

-- Keys wanted more than once, and the last suffix given out: a pattern without a clock in it would otherwise search
-- through all its older pictures for a free name. While a key is here it counts as taken, also when the rows of its
-- pictures are forgotten.
CREATE TABLE key_suffix (
    store      TEXT NOT NULL,
    bucket     TEXT NOT NULL,
    object_key TEXT NOT NULL,
    last       INTEGER NOT NULL,
    -- When it was last wanted.
    used_ms    INTEGER NOT NULL,
    PRIMARY KEY (store, bucket, object_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX key_suffix_used ON key_suffix (used_ms);

-- Objects that each newer picture overwrites, and the newest picture of each: while it is owed, its bytes are in
-- spool/<id>.image. Which pictures are newer is told by the time of their keyframes, then by their ids.
CREATE TABLE latest_object (
    store          TEXT NOT NULL,
    -- With its -<appid> tail.
    bucket         TEXT NOT NULL,
    object_key     TEXT NOT NULL,
    region         TEXT NOT NULL,
    id             BLOB NOT NULL,
    trace          BLOB NOT NULL,
    create_time_ms INTEGER NOT NULL,
    format         TEXT NOT NULL,
    file_size      INTEGER NOT NULL,
    is_owed        INTEGER NOT NULL,
    -- While it is owed: since when its store lacks a picture, this one or one that it has taken the place of.
    owed_since_ms  INTEGER NOT NULL,
    put_attempts   INTEGER NOT NULL DEFAULT 0,
    put_due_ms     INTEGER NOT NULL,
    put_step_ms    INTEGER NOT NULL DEFAULT 0,
    -- 1: waiting alone does not mend it; a person should look.
    put_alarm      INTEGER NOT NULL DEFAULT 0,
    put_error      TEXT,
    PRIMARY KEY (store, bucket, object_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX latest_owed ON latest_object (store, bucket, put_due_ms) WHERE is_owed = 1;
CREATE INDEX latest_idle ON latest_object (create_time_ms) WHERE is_owed = 0;

-- How many pictures were taken in each five minutes. Counted in the transaction that records a picture, so a count is
-- never of one that was lost.
CREATE TABLE picture_count (
    since_ms INTEGER NOT NULL,
    domain   TEXT NOT NULL,
    pictures INTEGER NOT NULL,
    PRIMARY KEY (since_ms, domain)
) STRICT, WITHOUT ROWID;

-- A fact that receivers may want to know. `body` is the callback without `t` and `sign`, which each attempt makes anew.
CREATE TABLE event (
    id            BLOB PRIMARY KEY NOT NULL,
    -- CSS's event_type: 200, 1 or 0.
    kind          INTEGER NOT NULL,
    push_sequence INTEGER NOT NULL,
    snapshot_id   BLOB,
    domain        TEXT NOT NULL,
    app           TEXT NOT NULL,
    stream        TEXT NOT NULL,
    body          TEXT NOT NULL,
    created_ms    INTEGER NOT NULL,
    -- Whether a delivery of it was made.
    is_told       INTEGER NOT NULL
) STRICT;
-- The name first: the log of callbacks is asked for by it alone.
CREATE INDEX event_by_stream ON event (stream, domain, app, id);
CREATE INDEX event_untold ON event (created_ms) WHERE is_told = 0;


-- What is owed --------------------------------------------------------------------------------------------------------

-- Where deliveries go: one URL of one callback template, or a URL given for a replay. Not the URL itself, which is read
-- from the configuration again for each attempt.
CREATE TABLE endpoint (
    id                   INTEGER PRIMARY KEY AUTOINCREMENT,
    callback_template_id INTEGER NOT NULL,
    -- The event_type whose URL it is.
    kind                 INTEGER NOT NULL,
    -- Sealed, since a URL may hold a password. NULL: the template's own URL.
    url_override         BLOB,
    -- Tells equal URLs, whose sealed forms differ: a keyed digest, so that nobody can try out guesses on it.
    url_digest           BLOB
) STRICT;
CREATE UNIQUE INDEX endpoint_of_template ON endpoint (callback_template_id, kind) WHERE url_override IS NULL;
-- The digest first: whether anything is due at a URL is asked for all of its endpoints together.
CREATE UNIQUE INDEX endpoint_of_url ON endpoint (url_digest, callback_template_id, kind) WHERE url_override IS NOT NULL;

CREATE TABLE delivery (
    -- The webhook-id of every attempt, over retries, restarts and replays.
    id            BLOB PRIMARY KEY NOT NULL,
    event_id      BLOB NOT NULL REFERENCES event (id),
    endpoint_id   INTEGER NOT NULL REFERENCES endpoint (id),
    -- waiting: its object is not stored yet; due: at due_ms; claimed: an attempt is under way in the process of
    -- claim_epoch; the others are settled.
    state         TEXT NOT NULL CHECK (state IN ('waiting', 'due', 'claimed', 'delivered', 'dead', 'cancelled')),
    -- Attempts recorded, and how many of them belong to earlier rounds: a replay starts a new round.
    attempts      INTEGER NOT NULL DEFAULT 0,
    round_start   INTEGER NOT NULL DEFAULT 0,
    due_ms        INTEGER NOT NULL,
    -- The delay that led to due_ms. No clock change can make the delivery wait longer than it once more.
    step_ms       INTEGER NOT NULL DEFAULT 0,
    -- All such delays of this round together.
    waited_ms     INTEGER NOT NULL DEFAULT 0,
    claim_epoch   INTEGER,
    -- How often it was claimed. An outcome names the claim that it belongs to and settles no other.
    claims        INTEGER NOT NULL DEFAULT 0,
    created_ms    INTEGER NOT NULL,
    -- NULL while it is waiting, due or claimed.
    settled_ms    INTEGER,
    -- The last attempt's outcome, or why it was settled without one.
    outcome       TEXT
) STRICT;
CREATE INDEX delivery_due ON delivery (endpoint_id, due_ms) WHERE state = 'due';
CREATE INDEX delivery_begun ON delivery (endpoint_id, due_ms) WHERE state = 'due' AND attempts > round_start;
CREATE INDEX delivery_waiting ON delivery (endpoint_id) WHERE state = 'waiting';
CREATE INDEX delivery_claimed ON delivery (claim_epoch) WHERE state = 'claimed';
CREATE INDEX delivery_open ON delivery (id) WHERE settled_ms IS NULL;
CREATE INDEX delivery_dead ON delivery (id) WHERE state = 'dead';
CREATE INDEX delivery_dead_by_endpoint ON delivery (endpoint_id, id) WHERE state = 'dead';
CREATE INDEX delivery_dead_once ON delivery (endpoint_id, id) WHERE state = 'dead' AND round_start = 0
    AND outcome NOT IN ('template_deleted', 'object_expired', 'object_unknown', 'gone', 'damaged');
CREATE INDEX delivery_cancelled ON delivery (id) WHERE state = 'cancelled';
CREATE INDEX delivery_by_event ON delivery (event_id);
CREATE INDEX delivery_by_endpoint ON delivery (endpoint_id, id);
CREATE INDEX delivery_prunable ON delivery (settled_ms) WHERE state IN ('delivered', 'cancelled');

CREATE TABLE attempt (
    delivery_id BLOB NOT NULL REFERENCES delivery (id),
    number      INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    started_ms  INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    -- The HTTP status, if there was an answer.
    status      INTEGER,
    outcome     TEXT NOT NULL,
    error       TEXT,
    -- The first KiB of the answer's body.
    response    TEXT,
    -- Without user and password.
    url         TEXT NOT NULL,
    PRIMARY KEY (delivery_id, number)
) STRICT;

-- Orders to send many settled deliveries again, a few per second. NULL in a column that limits it: whatever it is.
CREATE TABLE replay (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Names with commas between them.
    states       TEXT NOT NULL,
    domain       TEXT,
    app          TEXT,
    stream       TEXT,
    template_id  INTEGER,
    endpoint_id  INTEGER,
    kind         INTEGER,
    -- Made at or after, and before.
    since_ms     INTEGER,
    until_ms     INTEGER NOT NULL,
    -- Where they are sent instead of their templates' URLs; as in `endpoint`.
    url          BLOB,
    url_digest   BLOB,
    per_sec      INTEGER NOT NULL,
    -- 1: their receiver had recovered; only those that were never sent again. 0: a person asked for it.
    is_automatic INTEGER NOT NULL,
    created_ms   INTEGER NOT NULL,
    -- NULL while it goes on.
    ended_ms     INTEGER,
    is_cancelled INTEGER NOT NULL DEFAULT 0,
    -- Deliveries that became due by it, and those that could not, since their pictures were gone or their stores did not tell.
    replayed     INTEGER NOT NULL DEFAULT 0,
    refused      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX replay_open ON replay (id) WHERE ended_ms IS NULL;
CREATE INDEX replay_ended ON replay (ended_ms) WHERE ended_ms IS NOT NULL;

-- How far each has come: an endpoint stands here until all of its deliveries have been looked at.
CREATE TABLE replay_part (
    replay_id   INTEGER NOT NULL REFERENCES replay (id) ON DELETE CASCADE,
    endpoint_id INTEGER NOT NULL,
    -- The last delivery that was looked at.
    after_id    BLOB NOT NULL,
    PRIMARY KEY (replay_id, endpoint_id)
) STRICT, WITHOUT ROWID;


-- Configuration -------------------------------------------------------------------------------------------------------
-- managed_by: `file` rows follow the configuration file at each start and reload, `api` rows are changed by requests.

CREATE TABLE domain (
    name          TEXT PRIMARY KEY NOT NULL,
    enabled       INTEGER NOT NULL DEFAULT 1,
    -- Push keys; NULL main_key: no authentication is configured.
    auth_enabled  INTEGER NOT NULL DEFAULT 1,
    main_key      BLOB, -- sealed
    backup_key    BLOB, -- sealed
    auth_delta_ms INTEGER NOT NULL DEFAULT 0,
    managed_by    TEXT NOT NULL CHECK (managed_by IN ('file', 'api')),
    created_ms    INTEGER NOT NULL,
    updated_ms    INTEGER NOT NULL
) STRICT;

CREATE TABLE snapshot_template (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT NOT NULL,
    description   TEXT NOT NULL DEFAULT '',
    interval_secs INTEGER NOT NULL,
    width         INTEGER NOT NULL DEFAULT 0,
    height        INTEGER NOT NULL DEFAULT 0,
    jpeg_quality  INTEGER NOT NULL,
    porn_flag     INTEGER NOT NULL DEFAULT 0,
    -- sequence, latest or both.
    objects       TEXT NOT NULL,
    latest_key    TEXT NOT NULL,
    -- Days that pictures are kept; NULL: for ever.
    retention_days INTEGER,
    app_id        INTEGER NOT NULL,
    -- Without its -<appid> tail.
    bucket        TEXT NOT NULL,
    region        TEXT NOT NULL,
    prefix        TEXT NOT NULL,
    file_name     TEXT NOT NULL,
    managed_by    TEXT NOT NULL CHECK (managed_by IN ('file', 'api')),
    created_ms    INTEGER NOT NULL,
    updated_ms    INTEGER NOT NULL
) STRICT;

-- What a template makes of each picture beside the main rendition, which its own row describes. NULL: as the template.
CREATE TABLE snapshot_rendition (
    template_id INTEGER NOT NULL REFERENCES snapshot_template (id) ON DELETE CASCADE,
    position    INTEGER NOT NULL,
    name        TEXT NOT NULL,
    width       INTEGER NOT NULL,
    height      INTEGER NOT NULL,
    format      TEXT NOT NULL,
    quality     INTEGER NOT NULL,
    app_id      INTEGER,
    bucket      TEXT,
    region      TEXT,
    prefix      TEXT,
    file_name   TEXT,
    PRIMARY KEY (template_id, position),
    UNIQUE (template_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE callback_template (
    id                      INTEGER PRIMARY KEY AUTOINCREMENT,
    name                    TEXT NOT NULL,
    description             TEXT NOT NULL DEFAULT '',
    -- The key and the URLs are sealed; NULL: not set.
    callback_key            BLOB,
    snapshot_notify         BLOB,
    stream_begin_notify     BLOB,
    stream_end_notify       BLOB,
    record_notify           BLOB,
    record_status_notify    BLOB,
    record_exception_notify BLOB,
    porn_censorship_notify  BLOB,
    push_exception_notify   BLOB,
    audio_audit_notify      BLOB,
    -- Names with commas between them. Recordings are not made here; what is said about them is kept for whoever reads it.
    record_exception_levels TEXT NOT NULL DEFAULT '',
    verify_tls              INTEGER NOT NULL DEFAULT 1,
    -- PEM; NULL: only those that the machine trusts.
    ca_certificates         TEXT,
    -- The key before, sealed: it signs too, before that time or until it is taken away.
    previous_key            BLOB,
    previous_key_until_ms   INTEGER,
    -- The private key of `v1a`, sealed.
    ed25519_key             BLOB,
    -- `css` or `patient`.
    schedule                TEXT NOT NULL DEFAULT 'css',
    -- NULL: what the configuration says.
    connect_timeout_ms      INTEGER,
    timeout_ms              INTEGER,
    -- Dead letters no older than so are sent again when their receiver answers; NULL: they wait for a person.
    replay_recovered_ms     INTEGER,
    managed_by              TEXT NOT NULL CHECK (managed_by IN ('file', 'api')),
    created_ms              INTEGER NOT NULL,
    updated_ms              INTEGER NOT NULL
) STRICT;

-- '' in app or stream means every one.
CREATE TABLE snapshot_rule (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    domain      TEXT NOT NULL,
    app         TEXT NOT NULL,
    stream      TEXT NOT NULL,
    template_id INTEGER NOT NULL REFERENCES snapshot_template (id),
    managed_by  TEXT NOT NULL CHECK (managed_by IN ('file', 'api')),
    created_ms  INTEGER NOT NULL,
    updated_ms  INTEGER NOT NULL,
    UNIQUE (domain, app, stream)
) STRICT;
CREATE INDEX snapshot_rule_by_template ON snapshot_rule (template_id);

CREATE TABLE callback_rule (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    domain      TEXT NOT NULL,
    app         TEXT NOT NULL,
    template_id INTEGER NOT NULL REFERENCES callback_template (id),
    managed_by  TEXT NOT NULL CHECK (managed_by IN ('file', 'api')),
    created_ms  INTEGER NOT NULL,
    updated_ms  INTEGER NOT NULL,
    UNIQUE (domain, app)
) STRICT;
CREATE INDEX callback_rule_by_template ON callback_rule (template_id);

-- Streams that may not be pushed for a while; only requests forbid them. A row outlives its time until the next is added.
CREATE TABLE forbidden_stream (
    domain     TEXT NOT NULL,
    app        TEXT NOT NULL,
    stream     TEXT NOT NULL,
    until_ms   INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (domain, app, stream)
) STRICT, WITHOUT ROWID;

-- Windows of time in which pictures of one stream are taken beside those of its rule; only requests make them. Rows are
-- kept for three months after their ends.
CREATE TABLE screenshot_task (
    id          BLOB PRIMARY KEY NOT NULL,
    domain      TEXT NOT NULL,
    app         TEXT NOT NULL,
    stream      TEXT NOT NULL,
    -- No reference: a task may name a template that does not exist, and then takes nothing.
    template_id INTEGER NOT NULL,
    start_ms    INTEGER NOT NULL,
    end_ms      INTEGER NOT NULL,
    -- When a request stopped it, if one did.
    stopped_ms  INTEGER
) STRICT;
CREATE INDEX screenshot_task_by_end ON screenshot_task (end_ms);

-- Requests of /v1 that made something, by the key that their sender gave them. The same request under the same key gets the
-- same answer again and makes nothing.
CREATE TABLE idempotency (
    key        TEXT PRIMARY KEY NOT NULL,
    -- A keyed digest of the request: its body may hold a secret.
    request    BLOB NOT NULL,
    status     INTEGER NOT NULL, -- 0: it is not answered yet
    location   TEXT NOT NULL,
    etag       TEXT NOT NULL,
    body       BLOB NOT NULL, -- sealed
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_created ON idempotency (created_ms);

-- Who may change it, and who did --------------------------------------------------------------------------------------

-- Keys of the API beside the one in DIR/credentials.
CREATE TABLE access_key (
    -- The SecretId.
    id         TEXT PRIMARY KEY NOT NULL,
    name       TEXT NOT NULL UNIQUE,
    -- 1: it may look and not change.
    read_only  INTEGER NOT NULL,
    secret     BLOB NOT NULL, -- sealed
    created_ms INTEGER NOT NULL
) STRICT;

-- When a key last let a request in, the one in DIR/credentials included. Noted once a minute.
CREATE TABLE access_key_use (
    id      TEXT PRIMARY KEY NOT NULL,
    used_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Every change that somebody made, written in the transaction of the change. Secrets are masked before they come here.
CREATE TABLE audit (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms  INTEGER NOT NULL,
    -- The SecretId of a key; `control`: whoever may open the data directory; `file`: the configuration file.
    who    TEXT NOT NULL,
    -- The key's name at that time.
    name   TEXT,
    -- The address that the request came from.
    peer   TEXT,
    noun   TEXT NOT NULL,
    object TEXT NOT NULL,
    verb   TEXT NOT NULL,
    -- JSON; NULL where there was or is nothing.
    before TEXT,
    after  TEXT
) STRICT;
CREATE INDEX audit_by_object ON audit (noun, object, id);
CREATE INDEX audit_by_who ON audit (who, id);
CREATE INDEX audit_by_time ON audit (at_ms);
