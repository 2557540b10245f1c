//! Between columns and the domain's types.

use framehook_domain::stream::{AppName, DomainName, StreamId, StreamName};
use rusqlite::Row;
use uuid::Uuid;

use super::DbError;

/// A UUID as its 16 bytes.
pub(super) fn blob(id: Uuid) -> [u8; 16] {
    *id.as_bytes()
}

/// Reads a UUID column.
pub(super) fn uuid(row: &Row<'_>, column: &str) -> Result<Uuid, rusqlite::Error> {
    row.get(column).map(Uuid::from_bytes)
}

/// Reads a UUID column that may be NULL.
pub(super) fn uuid_opt(row: &Row<'_>, column: &str) -> Result<Option<Uuid>, rusqlite::Error> {
    Ok(row.get::<_, Option<[u8; 16]>>(column)?.map(Uuid::from_bytes))
}

/// Reads the columns `domain`, `app` and `stream`.
pub(super) fn stream_id(row: &Row<'_>) -> Result<StreamId, DbError> {
    let text = |column: &str| row.get::<_, String>(column);
    let damaged = |_| DbError::Damaged { what: "a stream's name" };
    Ok(StreamId {
        domain: DomainName::parse(&text("domain")?).map_err(damaged)?,
        app: AppName::parse(&text("app")?).map_err(damaged)?,
        name: StreamName::parse(&text("stream")?).map_err(damaged)?,
    })
}

/// Reads a small count or size.
pub(super) fn number<T: TryFrom<i64>>(row: &Row<'_>, column: &'static str) -> Result<T, DbError> {
    T::try_from(row.get::<_, i64>(column)?).map_err(|_| DbError::Damaged { what: column })
}

/// A count or size for a column. SQLite's integers are signed; nothing of ours comes near their end.
pub(super) fn stored(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
