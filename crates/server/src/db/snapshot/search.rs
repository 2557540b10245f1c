//! Looking pictures up.

use framehook_domain::id::{EventId, PushSequence, RuleId, SnapshotId, TemplateId};
use framehook_domain::stream::StreamId;
use framehook_domain::template::ImageFormat;
use framehook_domain::time::UnixMs;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

use crate::db::DbError;
use crate::db::row::{blob, number, stream_id, uuid};

/// What has become of a picture's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutState {
    /// In the spool, to be put into its store.
    Owed,
    Stored,
    /// Given up by a person.
    Discarded,
    /// Older than its template keeps it: its object is gone, or about to go.
    Expired,
}

impl PutState {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "owed" => Some(Self::Owed),
            "stored" => Some(Self::Stored),
            "discarded" => Some(Self::Discarded),
            "expiring" | "expired" => Some(Self::Expired),
            _ => None,
        }
    }
}

/// Where a page ends: the pictures after it are older, or as old with a smaller id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub create_time: UnixMs,
    pub id: SnapshotId,
}

/// Which pictures to list. The default is all of them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub stream: Option<StreamId>,
    pub rule: Option<RuleId>,
    pub template: Option<TemplateId>,
    /// Taken at or after.
    pub since: Option<UnixMs>,
    /// Taken before.
    pub until: Option<UnixMs>,
    /// The page after this picture.
    pub after: Option<Cursor>,
}

/// Everything that is known of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    pub id: SnapshotId,
    pub event: EventId,
    pub sequence: PushSequence,
    pub stream: StreamId,
    /// The rule that wanted it; `None` if a task did.
    pub rule: Option<RuleId>,
    pub task: Option<String>,
    pub template: TemplateId,
    pub create_time: UnixMs,
    pub recorded: UnixMs,
    pub width: u32,
    pub height: u32,
    pub format: ImageFormat,
    /// Which of its template's renditions it is; `None` if there was only one.
    pub rendition: Option<String>,
    pub file_size_bytes: u64,
    pub sha256: [u8; 32],
    pub store: String,
    /// With its `-<appid>` tail.
    pub bucket: String,
    pub key: String,
    /// `None`: it is not known before the picture is stored.
    pub pic_full_url: Option<String>,
    pub state: PutState,
    /// Puts that failed.
    pub attempts: u32,
    pub error: Option<String>,
    /// When it was stored or discarded, or had expired.
    pub settled: Option<UnixMs>,
}

fn snapshot_row(row: &Row<'_>) -> Result<SnapshotRow, DbError> {
    let state: String = row.get("put_state")?;
    let sequence = PushSequence::from_i64(row.get("push_sequence")?);
    Ok(SnapshotRow {
        id: SnapshotId(uuid(row, "id")?),
        event: EventId(uuid(row, "event_id")?),
        sequence: sequence.ok_or(DbError::Damaged { what: "a push's sequence" })?,
        stream: stream_id(row)?,
        rule: row.get::<_, Option<i64>>("rule_id")?.map(RuleId),
        task: row.get("task_id")?,
        template: TemplateId(row.get("template_id")?),
        create_time: UnixMs(row.get("create_time_ms")?),
        recorded: UnixMs(row.get("recorded_ms")?),
        width: number(row, "width")?,
        height: number(row, "height")?,
        format: super::image_format(row)?,
        rendition: row.get("rendition")?,
        file_size_bytes: number(row, "file_size")?,
        sha256: row.get("sha256")?,
        store: row.get("store")?,
        bucket: row.get("bucket")?,
        key: row.get("object_key")?,
        pic_full_url: row.get("pic_full_url")?,
        state: PutState::from_name(&state).ok_or(DbError::Damaged { what: "a picture's state" })?,
        attempts: number(row, "put_attempts")?,
        error: row.get("put_error")?,
        settled: row.get::<_, Option<i64>>("settled_ms")?.map(UnixMs),
    })
}

/// Lists pictures, the newest first, at most `limit`. The next page is the one [`after`](Filter::after) the last of this.
///
/// # Errors
/// Those of the database.
pub fn list(conn: &Connection, filter: &Filter, limit: usize) -> Result<Vec<SnapshotRow>, DbError> {
    let (sql, values) = search(filter, limit);
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(snapshot_row(row)?);
    }
    Ok(found)
}

/// Millions of pictures are remembered, and a page is a few of them. Each filter has an index that is in the order of the
/// page, so that a search reads its page and little more.
fn search(filter: &Filter, limit: usize) -> (String, Vec<Value>) {
    let mut conditions = vec!["1"];
    let mut values: Vec<Value> = Vec::new();
    let mut add = |condition, value: Value| {
        conditions.push(condition);
        values.push(value);
    };
    if let Some(stream) = &filter.stream {
        add("domain = ?", stream.domain.as_str().to_owned().into());
        add("app = ?", stream.app.as_str().to_owned().into());
        add("stream = ?", stream.name.as_str().to_owned().into());
    }
    if let Some(rule) = filter.rule {
        add("rule_id = ?", rule.0.into());
    }
    if let Some(template) = filter.template {
        add("template_id = ?", template.0.into());
    }
    if let Some(since) = filter.since {
        add("create_time_ms >= ?", since.0.into());
    }
    if let Some(until) = filter.until {
        add("create_time_ms < ?", until.0.into());
    }
    if let Some(Cursor { create_time, id }) = filter.after {
        conditions.push("(create_time_ms, id) < (?, ?)");
        values.extend([create_time.0.into(), blob(id.0).to_vec().into()]);
    }
    let conditions = conditions.join(" AND ");
    let sql = format!("SELECT * FROM snapshot WHERE {conditions} ORDER BY create_time_ms DESC, id DESC LIMIT {limit}");
    (sql, values)
}

/// One picture.
///
/// # Errors
/// Those of the database.
pub fn show(conn: &Connection, id: SnapshotId) -> Result<Option<SnapshotRow>, DbError> {
    let mut statement = conn.prepare_cached("SELECT * FROM snapshot WHERE id = ?1")?;
    statement.query_row([blob(id.0)], |row| Ok(snapshot_row(row))).optional()?.transpose()
}

#[cfg(test)]
mod tests {
    use framehook_domain::stream::{AppName, DomainName, StreamName};
    use rusqlite::params;
    use uuid::Uuid;

    use super::*;
    use crate::db::planned;

    fn database() -> Connection {
        planned::database()
    }

    fn stream(name: &str) -> StreamId {
        StreamId {
            domain: DomainName::parse("push.example.com").unwrap(),
            app: AppName::parse("live").unwrap(),
            name: StreamName::parse(name).unwrap(),
        }
    }

    /// A picture whose id ends in `number`.
    fn insert(conn: &Connection, number: u8, name: &str, rule: i64, create_time_ms: i64) {
        let sql = "INSERT INTO snapshot (id, trace, push_sequence, domain, app, stream, rule_id, template_id, catalog_version,
                event_id, create_time_ms, recorded_ms, width, height, file_size, sha256, store, region, bucket, object_key,
                pic_full_url, put_state, put_due_ms, format)
            VALUES (?1, ?1, 1, 'push.example.com', 'live', ?2, ?3, ?3, 1, ?1, ?4, ?4, 1, 1, 1, zeroblob(32), 'local', 'local', 'b', ?5,
                'http://a/', 'owed', 0, 'jpeg')";
        let id = Uuid::from_u128(number.into()).into_bytes();
        conn.execute(sql, params![id, name, rule, create_time_ms, format!("{number}.jpg")]).unwrap();
    }

    fn found(conn: &Connection, filter: &Filter, limit: usize) -> Vec<u8> {
        list(conn, filter, limit).unwrap().iter().map(|row| row.id.0.as_bytes()[15]).collect()
    }

    #[test]
    fn a_search_finds_what_it_asks_for_the_newest_first() {
        let conn = database();
        for (number, name, rule, at) in [(1, "a", 1, 10), (2, "b", 1, 20), (3, "a", 2, 30), (4, "a", 1, 30)] {
            insert(&conn, number, name, rule, at);
        }
        let all = Filter::default;
        for (what, filter, expected) in [
            ("all", all(), &[4, 3, 2, 1][..]),
            ("a stream", Filter { stream: Some(stream("a")), ..all() }, &[4, 3, 1]),
            ("a rule", Filter { rule: Some(RuleId(1)), ..all() }, &[4, 2, 1]),
            ("a template", Filter { template: Some(TemplateId(2)), ..all() }, &[3]),
            ("since", Filter { since: Some(UnixMs(20)), ..all() }, &[4, 3, 2]),
            ("until", Filter { until: Some(UnixMs(20)), ..all() }, &[1]),
            ("a stream's rule", Filter { stream: Some(stream("a")), rule: Some(RuleId(1)), ..all() }, &[4, 1]),
            ("nothing", Filter { stream: Some(stream("c")), ..all() }, &[]),
        ] {
            assert_eq!(found(&conn, &filter, 100), expected, "{what}");
            // One at a time gives the same, though two are of the same millisecond.
            let (mut filter, mut pages) = (filter, Vec::new());
            while let Some(row) = list(&conn, &filter, 1).unwrap().pop() {
                pages.push(row.id.0.as_bytes()[15]);
                filter.after = Some(Cursor { create_time: row.create_time, id: row.id });
            }
            assert_eq!(pages, expected, "{what}");
        }
        assert_eq!(show(&conn, SnapshotId(Uuid::from_u128(3))).unwrap().unwrap().stream, stream("a"));
        assert_eq!(show(&conn, SnapshotId(Uuid::from_u128(9))).unwrap(), None);
    }

    #[test]
    fn no_search_reads_or_sorts_more_than_its_page() {
        let conn = database();
        let after = Some(Cursor { create_time: UnixMs(9), id: SnapshotId(Uuid::nil()) });
        let all = Filter::default;
        for (what, filter, index) in [
            ("all", all(), "snapshot_by_time"),
            ("a later page", Filter { after, ..all() }, "snapshot_by_time"),
            ("a time", Filter { since: Some(UnixMs(1)), until: Some(UnixMs(9)), ..all() }, "snapshot_by_time"),
            ("a stream", Filter { stream: Some(stream("a")), after, ..all() }, "snapshot_by_stream"),
            ("a rule", Filter { rule: Some(RuleId(1)), after, ..all() }, "snapshot_by_rule"),
            ("a template", Filter { template: Some(TemplateId(1)), after, ..all() }, "snapshot_by_template"),
        ] {
            let plan = planned::plan(&conn, &search(&filter, 100).0);
            assert!(plan.contains(index), "{what}:\n{plan}");
            // Those of one millisecond may be sorted among each other, never all of them.
            let sorts = plan.lines().filter(|step| step.contains("TEMP B-TREE"));
            assert!(sorts.into_iter().all(|step| step.contains("LAST TERM")), "{what}:\n{plan}");
        }
    }
}
