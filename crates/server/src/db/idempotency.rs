//! Requests that made something, by the key that their sender gave them.

use framehook_domain::time::UnixMs;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::secret::Vault;
use super::{DbError, Tx};

/// How such a request was answered. A URL in it may hold a token, so its body is sealed at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of HTTP. 0: there is none yet, and the rest is empty.
    pub status: u16,
    /// The path of what was made. Empty: nothing was.
    pub location: String,
    /// Its version. Empty: it has none.
    pub etag: String,
    /// Its representation, JSON. Empty: nothing is told of it.
    pub body: String,
}

/// A request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// A keyed digest of the request.
    pub request: [u8; 32],
    pub answer: Answer,
}

/// Binds sealed bodies to this column.
const BODY: &str = "idempotency.body";

/// Most keys that are remembered. Everything that can be configured, made three times over within a day, is less; a row
/// has about half a kilobyte.
pub const KEYS_MAX: usize = 10_000;

/// The request that was answered under this key at or after `since`.
///
/// # Errors
/// Those of the database.
pub fn find(conn: &Connection, vault: &Vault, key: &str, since: UnixMs) -> Result<Option<Answered>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT request, status, location, etag, body FROM idempotency WHERE key = ?1 AND created_ms >= ?2",
    )?;
    let found = select.query_row(params![key, since.0], |row| {
        let sealed: Vec<u8> = row.get("body")?;
        let Ok(body) = vault.open_sealed(BODY, &sealed) else {
            return Ok(Err(DbError::Damaged { what: "the answer to a request" }));
        };
        let (status, location, etag) = (row.get("status")?, row.get("location")?, row.get("etag")?);
        let answer = Answer { status, location, etag, body };
        Ok(Ok(Answered { request: row.get("request")?, answer }))
    });
    found.optional()?.transpose()
}

/// Remembers a request and forgets those from before `since`. `false`: there is no room.
///
/// # Errors
/// Those of the database; [`DbError::is_taken`] if the key is remembered already.
pub fn remember(
    tx: &Tx<'_>,
    vault: &Vault,
    key: &str,
    answered: &Answered,
    now: UnixMs,
    since: UnixMs,
) -> Result<bool, DbError> {
    tx.prepare_cached("DELETE FROM idempotency WHERE created_ms < ?1")?.execute([since.0])?;
    let known: i64 = tx.prepare_cached("SELECT count(*) FROM idempotency")?.query_row([], |row| row.get(0))?;
    if known.unsigned_abs() >= KEYS_MAX as u64 {
        return Ok(false);
    }
    let Answered { request, answer } = answered;
    tx.prepare_cached(
        "INSERT INTO idempotency (key, request, status, location, etag, body, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        key,
        request,
        answer.status,
        answer.location,
        answer.etag,
        vault.seal(BODY, &answer.body),
        now.0
    ])?;
    Ok(true)
}

/// Remembers how a request was answered that has been remembered without.
///
/// # Errors
/// Those of the database.
pub fn answer(tx: &Tx<'_>, vault: &Vault, key: &str, answer: &Answer) -> Result<(), DbError> {
    let Answer { status, location, etag, body } = answer;
    tx.prepare_cached("UPDATE idempotency SET status = ?2, location = ?3, etag = ?4, body = ?5 WHERE key = ?1")?
        .execute(params![key, status, location, etag, vault.seal(BODY, body)])?;
    Ok(())
}

/// Forgets a request that did nothing.
///
/// # Errors
/// Those of the database.
pub fn forget(tx: &Tx<'_>, key: &str) -> Result<(), DbError> {
    tx.prepare_cached("DELETE FROM idempotency WHERE key = ?1")?.execute([key])?;
    Ok(())
}
