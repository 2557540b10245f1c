//! The audit log's rows.

use framehook_domain::time::UnixMs;
use rusqlite::{Connection, Row, ToSql, params};

use super::row::stored;
use super::{DbError, Tx};
use crate::audit::{Caller, Change, Noun};

/// Most rows that [`list`] gives at a time.
pub const PAGE_ROWS_MAX: usize = 1000;

/// Notes what `caller` changed.
///
/// # Errors
/// Those of the database.
pub fn note(tx: &Tx<'_>, caller: &Caller, change: &Change, at: UnixMs) -> Result<(), DbError> {
    let text = |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string);
    tx.prepare_cached(
        "INSERT INTO audit (at_ms, who, name, peer, noun, object, verb, before, after)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        at.0,
        caller.who(),
        caller.name(),
        caller.peer().map(|peer| peer.to_string()),
        change.noun.name(),
        change.id,
        change.verb,
        text(&change.before),
        text(&change.after),
    ])?;
    Ok(())
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Grows from entry to entry.
    pub id: i64,
    pub at: UnixMs,
    /// See [`Caller::who`].
    pub who: String,
    pub name: Option<String>,
    pub peer: Option<String>,
    pub noun: String,
    pub object: String,
    pub verb: String,
    /// JSON.
    pub before: Option<String>,
    /// JSON.
    pub after: Option<String>,
}

/// Which entries to list; what is `None` lets every one pass.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub noun: Option<Noun>,
    pub object: Option<String>,
    pub who: Option<String>,
    pub since: Option<UnixMs>,
    pub until: Option<UnixMs>,
    /// Only entries before this one.
    pub before: Option<i64>,
}

/// Entries, the newest first, at most `limit` of them.
///
/// # Errors
/// Those of the database.
pub fn list(conn: &Connection, filter: &Filter, limit: usize) -> Result<Vec<Entry>, DbError> {
    let noun = filter.noun.map(Noun::name);
    let (since, until) = (filter.since.map(|at| at.0), filter.until.map(|at| at.0));
    let limit = stored(limit.min(PAGE_ROWS_MAX));
    let conditions: [(&str, &dyn ToSql, bool); 6] = [
        ("noun = ?", &noun, noun.is_some()),
        ("object = ?", &filter.object, filter.object.is_some()),
        ("who = ?", &filter.who, filter.who.is_some()),
        ("at_ms >= ?", &since, since.is_some()),
        ("at_ms < ?", &until, until.is_some()),
        ("id < ?", &filter.before, filter.before.is_some()),
    ];
    let asked: Vec<_> = conditions.into_iter().filter(|(.., asked)| *asked).collect();
    let condition = match asked.is_empty() {
        true => "1".to_owned(),
        false => asked.iter().map(|(text, ..)| *text).collect::<Vec<_>>().join(" AND "),
    };
    let mut values: Vec<&dyn ToSql> = asked.iter().map(|(_, value, _)| *value).collect();
    values.push(&limit);
    let sql = format!("SELECT * FROM audit WHERE {condition} ORDER BY id DESC LIMIT ?");
    let mut statement = conn.prepare_cached(&sql)?;
    let entries = statement.query_map(&values[..], entry)?.collect::<Result<_, _>>()?;
    Ok(entries)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        id: row.get("id")?,
        at: UnixMs(row.get("at_ms")?),
        who: row.get("who")?,
        name: row.get("name")?,
        peer: row.get("peer")?,
        noun: row.get("noun")?,
        object: row.get("object")?,
        verb: row.get("verb")?,
        before: row.get("before")?,
        after: row.get("after")?,
    })
}

/// Removes entries older than `before`, the oldest first, at most `rows`. Gives how many.
///
/// # Errors
/// Those of the database.
pub fn prune_before(tx: &Tx<'_>, before: UnixMs, rows: usize) -> Result<usize, DbError> {
    let pruned = tx
        .prepare_cached(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)",
        )?
        .execute(params![before.0, stored(rows)])?;
    Ok(pruned)
}

/// Removes the oldest entries, at most `rows`. Gives how many.
///
/// # Errors
/// Those of the database.
pub fn prune_oldest(tx: &Tx<'_>, rows: usize) -> Result<usize, DbError> {
    let pruned = tx
        .prepare_cached("DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY id LIMIT ?1)")?
        .execute([stored(rows)])?;
    Ok(pruned)
}

/// Bytes of a row beside the texts that vary: its numbers, an address, an id, and its entries in the indexes.
const ENTRY_BYTES: f64 = 240.0;

/// How many entries there are, and what they take: their number times the mean size of recent ones.
///
/// # Errors
/// Those of the database.
pub fn size(conn: &Connection) -> Result<(u64, u64), DbError> {
    let entries: i64 = conn.prepare_cached("SELECT count(*) FROM audit")?.query_row([], |row| row.get(0))?;
    let mean: Option<f64> = conn
        .prepare_cached(
            "SELECT avg(coalesce(length(before), 0) + coalesce(length(after), 0) + 2 * length(object))
             FROM (SELECT before, after, object FROM audit ORDER BY id DESC LIMIT 200)",
        )?
        .query_row([], |row| row.get(0))?;
    let entries = entries.unsigned_abs();
    Ok((entries, (entries as f64 * (ENTRY_BYTES + mean.unwrap_or(0.0))) as u64))
}
