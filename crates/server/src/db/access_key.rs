//! Keys of the API beside the one in `DIR/credentials`, and when each was last used.

use framehook_domain::secret::Secret;
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::secret::Vault;
use super::{DbError, Tx};

/// What a sealed key is bound to.
const SECRET: &str = "access_key.secret";

/// A row.
#[derive(Clone, Debug)]
pub struct StoredKey {
    /// The SecretId.
    pub id: String,
    pub name: String,
    pub read_only: bool,
    pub secret: Secret,
    pub created: UnixMs,
}

/// Every key, the oldest first.
///
/// # Errors
/// Those of the database; [`DbError::Damaged`] where a key does not open.
pub fn list(conn: &Connection, vault: &Vault) -> Result<Vec<StoredKey>, DbError> {
    let mut statement = conn.prepare_cached("SELECT * FROM access_key ORDER BY created_ms, id")?;
    let mut rows = statement.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let secret = vault.open_sealed(SECRET, &row.get::<_, Vec<u8>>("secret")?);
        keys.push(StoredKey {
            id: row.get("id")?,
            name: row.get("name")?,
            read_only: row.get("read_only")?,
            secret: Secret::new(&secret.map_err(|_| DbError::Damaged { what: SECRET })?),
            created: UnixMs(row.get("created_ms")?),
        });
    }
    Ok(keys)
}

/// How many there are, and whether one has this name.
///
/// # Errors
/// Those of the database.
pub fn count(conn: &Connection, name: &str) -> Result<(usize, bool), DbError> {
    let (all, named) = conn
        .prepare_cached("SELECT count(*), count(*) FILTER (WHERE name = ?1) FROM access_key")?
        .query_row([name], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    Ok((usize::try_from(all).unwrap_or(usize::MAX), named > 0))
}

/// Adds a key.
///
/// # Errors
/// Those of the database; [`DbError::is_taken`] if its id or name is.
pub fn insert(tx: &Tx<'_>, vault: &Vault, key: &StoredKey) -> Result<(), DbError> {
    tx.prepare_cached("INSERT INTO access_key (id, name, read_only, secret, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![key.id, key.name, key.read_only, vault.seal(SECRET, key.secret.expose()), key.created.0])?;
    Ok(())
}

/// Removes a key. Gives its name and whether it only read; `None`: there is none of this id.
///
/// # Errors
/// Those of the database.
pub fn remove(tx: &Tx<'_>, id: &str) -> Result<Option<(String, bool)>, DbError> {
    tx.prepare_cached("DELETE FROM access_key_use WHERE id = ?1")?.execute([id])?;
    let removed = tx
        .prepare_cached("DELETE FROM access_key WHERE id = ?1 RETURNING name, read_only")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(removed)
}

/// When each was last used, by id.
///
/// # Errors
/// Those of the database.
pub fn uses(conn: &Connection) -> Result<Vec<(String, UnixMs)>, DbError> {
    let mut statement = conn.prepare_cached("SELECT id, used_ms FROM access_key_use")?;
    let uses = statement.query_map([], |row| Ok((row.get(0)?, UnixMs(row.get(1)?))))?.collect::<Result<_, _>>()?;
    Ok(uses)
}

/// Notes when keys were last used.
///
/// # Errors
/// Those of the database.
pub fn note_uses(tx: &Tx<'_>, uses: &[(String, UnixMs)]) -> Result<(), DbError> {
    let mut put = tx.prepare_cached(
        "INSERT INTO access_key_use (id, used_ms) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET used_ms = ?2",
    )?;
    for (id, used) in uses {
        put.execute(params![id, used.0])?;
    }
    Ok(())
}
