//! The configuration tables: domains, templates, rules and forbidden streams; tasks have a module of their own. Keys and
//! callback URLs are sealed at rest.
//!
//! `updated_ms` grows with every change of a row, even within one millisecond and after the clock was set back: it tells
//! the versions of an object apart.

mod snapshot_template;

use std::time::Duration;

use framehook_domain::catalog::{Domain, Forbiddance, ForbiddenStream, Inventory, Managed, ManagedBy, PushAuth};
use framehook_domain::id::{RuleId, TemplateId};
use framehook_domain::push_auth::{PushKey, PushKeys};
use framehook_domain::rule::{CallbackRule, RuleScope, SnapshotRule};
use framehook_domain::stream::{AppName, DomainName, StreamId, StreamName};
use framehook_domain::template::{
    Authorities, CallbackTemplate, CallbackTemplateDraft, CallbackUrls, SendingDraft, SigningDraft,
};
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

pub use snapshot_template::{insert_snapshot_template, remove_snapshot_template, update_snapshot_template};

use super::row::{number, stored, stream_id};
use super::secret::Vault;
use super::{DbError, Tx, task};

/// Reads everything configured, with the screenshot tasks that are not over at `now`.
///
/// # Errors
/// Those of the database; [`DbError::Damaged`] where a row is none that we write or does not open with this key.
pub fn load(conn: &Connection, vault: &Vault, now: UnixMs) -> Result<Inventory, DbError> {
    let version = conn.query_row("SELECT catalog_version FROM meta", [], |row| row.get::<_, i64>(0))?;
    Ok(Inventory {
        version: u64::try_from(version).map_err(|_| DbError::Damaged { what: "the catalog's version" })?,
        domains: rows(conn, "SELECT * FROM domain ORDER BY name", |row| domain(row, vault))?,
        snapshot_templates: snapshot_template::load(conn)?,
        callback_templates: rows(conn, "SELECT * FROM callback_template ORDER BY id", |row| {
            callback_template(row, vault)
        })?,
        snapshot_rules: rows(conn, "SELECT * FROM snapshot_rule ORDER BY id", |row| {
            let (id, scope, template) = rule(row, &row.get::<_, String>("stream")?)?;
            managed(row, SnapshotRule { id, scope, template })
        })?,
        callback_rules: rows(conn, "SELECT * FROM callback_rule ORDER BY id", |row| {
            let (id, scope, template) = rule(row, "")?;
            managed(row, CallbackRule { id, scope, template })
        })?,
        forbidden: rows(conn, "SELECT * FROM forbidden_stream ORDER BY domain, app, stream", forbiddance)?,
        tasks: task::open_tasks(conn, now)?,
    })
}

/// Until when and why a stream may not be pushed, or might not until lately.
///
/// # Errors
/// Those of the database; [`DbError::Damaged`] where the row is none that we write.
pub fn forbiddance_of(conn: &Connection, stream: &StreamId) -> Result<Option<Forbiddance>, DbError> {
    let StreamId { domain, app, name } = stream;
    conn.prepare_cached("SELECT * FROM forbidden_stream WHERE domain = ?1 AND app = ?2 AND stream = ?3")?
        .query_row([domain.as_str(), app.as_str(), name.as_str()], |row| Ok(forbiddance(row)))
        .optional()?
        .transpose()
}

/// Counts one more change and returns the new version.
///
/// # Errors
/// Those of the database.
pub fn next_version(tx: &Tx<'_>) -> Result<u64, DbError> {
    let version =
        tx.query_row("UPDATE meta SET catalog_version = catalog_version + 1 RETURNING catalog_version", [], |row| {
            row.get::<_, i64>(0)
        })?;
    u64::try_from(version).map_err(|_| DbError::Damaged { what: "the catalog's version" })
}

/// Adds a domain, or changes the one of that name.
///
/// # Errors
/// Those of the database.
pub fn put_domain(tx: &Tx<'_>, vault: &Vault, domain: &Domain, by: ManagedBy, now: UnixMs) -> Result<(), DbError> {
    let keys = domain.auth.as_ref().map(|auth| &auth.keys);
    let seal = |purpose, key: &PushKey| vault.seal(purpose, key.expose());
    tx.prepare_cached(
        "INSERT INTO domain (name, enabled, auth_enabled, main_key, backup_key, auth_delta_ms, managed_by, created_ms, updated_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)
         ON CONFLICT (name) DO UPDATE SET enabled = ?2, auth_enabled = ?3, main_key = ?4, backup_key = ?5,
             auth_delta_ms = ?6, managed_by = ?7, updated_ms = max(?8, updated_ms + 1)",
    )?
    .execute(params![
        domain.name.as_str(),
        domain.enabled,
        domain.auth.as_ref().is_some_and(|auth| auth.enabled),
        keys.map(|keys| seal(MAIN_KEY, &keys.main)),
        keys.and_then(|keys| keys.backup.as_ref()).map(|key| seal(BACKUP_KEY, key)),
        keys.map_or(0, |keys| stored(keys.auth_delta.as_millis())),
        by_name(by),
        now.0,
    ])?;
    Ok(())
}

/// Removes a domain. Its rules must be gone before.
///
/// # Errors
/// Those of the database.
pub fn remove_domain(tx: &Tx<'_>, name: &DomainName) -> Result<(), DbError> {
    tx.prepare_cached("DELETE FROM domain WHERE name = ?1")?.execute([name.as_str()])?;
    Ok(())
}

/// Adds a callback template; its own id is passed over.
///
/// # Errors
/// Those of the database.
pub fn insert_callback_template(
    tx: &Tx<'_>,
    vault: &Vault,
    template: &CallbackTemplate,
    by: ManagedBy,
    now: UnixMs,
) -> Result<TemplateId, DbError> {
    let id = tx
        .prepare_cached(
            "INSERT INTO callback_template (name, managed_by, created_ms, updated_ms) VALUES (?1, ?2, ?3, 0)",
        )?
        .insert(params![template.name, by_name(by), now.0])?;
    let id = TemplateId(id);
    update_callback_template(tx, vault, &CallbackTemplate { id, ..template.clone() }, now)?;
    Ok(id)
}

/// Changes every field of the callback template with this id.
///
/// # Errors
/// Those of the database.
pub fn update_callback_template(
    tx: &Tx<'_>,
    vault: &Vault,
    template: &CallbackTemplate,
    now: UnixMs,
) -> Result<(), DbError> {
    let urls = by_column(&template.urls)
        .map(|(column, url)| url.as_ref().map(|url| vault.seal(column, url.expose().as_str())));
    let [snapshot, begin, end, record, record_status, record_exception, censorship, push_exception, audio] = urls;
    let previous = template.signing.previous.as_ref();
    let levels: Vec<_> = template.record_exception_levels.iter().map(|level| level.name()).collect();
    tx.prepare_cached(
        "UPDATE callback_template SET name = ?2, description = ?3, callback_key = ?4, verify_tls = ?5,
             updated_ms = max(?6, updated_ms + 1), snapshot_notify = ?7, stream_begin_notify = ?8, stream_end_notify = ?9, record_notify = ?10,
             record_status_notify = ?11, record_exception_notify = ?12, porn_censorship_notify = ?13,
             push_exception_notify = ?14, audio_audit_notify = ?15, record_exception_levels = ?16, previous_key = ?17,
             previous_key_until_ms = ?18, ed25519_key = ?19, schedule = ?20, connect_timeout_ms = ?21, timeout_ms = ?22,
             replay_recovered_ms = ?23, ca_certificates = ?24
         WHERE id = ?1",
    )?
    .execute(params![
        template.id.0,
        template.name,
        template.description,
        template.signing.key.as_ref().map(|key| vault.seal(CALLBACK_KEY, key.expose())),
        template.verify_tls,
        now.0,
        snapshot,
        begin,
        end,
        record,
        record_status,
        record_exception,
        censorship,
        push_exception,
        audio,
        levels.join(","),
        previous.map(|previous| vault.seal(PREVIOUS_KEY, previous.key.expose())),
        previous.and_then(|previous| previous.until).map(|until| until.0),
        template.signing.ed25519.as_ref().map(|key| vault.seal(ED25519_KEY, &key.to_text())),
        template.sending.plan.name(),
        template.sending.connect_timeout.map(|time| stored(time.as_millis())),
        template.sending.timeout.map(|time| stored(time.as_millis())),
        template.sending.replay_recovered.map(|age| stored(age.as_millis())),
        template.authorities.as_ref().map(Authorities::pem),
    ])?;
    Ok(())
}

/// Removes a callback template. Its rules must be gone before. What is owed by it becomes dead letters elsewhere.
///
/// # Errors
/// Those of the database, one of which says that a rule is still there.
pub fn remove_callback_template(tx: &Tx<'_>, id: TemplateId) -> Result<(), DbError> {
    tx.prepare_cached("DELETE FROM callback_template WHERE id = ?1")?.execute([id.0])?;
    Ok(())
}

/// Adds a snapshot rule.
///
/// # Errors
/// Those of the database; [`DbError::is_taken`] if its scope has one.
pub fn insert_snapshot_rule(
    tx: &Tx<'_>,
    scope: &RuleScope,
    template: TemplateId,
    by: ManagedBy,
    now: UnixMs,
) -> Result<RuleId, DbError> {
    let (domain, app, stream) = scope_columns(scope);
    let id = tx
        .prepare_cached(
            "INSERT INTO snapshot_rule (domain, app, stream, template_id, managed_by, created_ms, updated_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        )?
        .insert(params![domain, app, stream, template.0, by_name(by), now.0])?;
    Ok(RuleId(id))
}

/// Binds a snapshot rule to another template. Its id stays, so live pushes keep their grid.
///
/// # Errors
/// Those of the database.
pub fn rebind_snapshot_rule(tx: &Tx<'_>, id: RuleId, template: TemplateId, now: UnixMs) -> Result<(), DbError> {
    tx.prepare_cached("UPDATE snapshot_rule SET template_id = ?2, updated_ms = max(?3, updated_ms + 1) WHERE id = ?1")?
        .execute(params![id.0, template.0, now.0])?;
    Ok(())
}

/// Removes a snapshot rule.
///
/// # Errors
/// Those of the database.
pub fn remove_snapshot_rule(tx: &Tx<'_>, id: RuleId) -> Result<(), DbError> {
    tx.prepare_cached("DELETE FROM snapshot_rule WHERE id = ?1")?.execute([id.0])?;
    Ok(())
}

/// Adds a callback rule.
///
/// # Errors
/// Those of the database; [`DbError::is_taken`] if its scope has one.
pub fn insert_callback_rule(
    tx: &Tx<'_>,
    scope: &RuleScope,
    template: TemplateId,
    by: ManagedBy,
    now: UnixMs,
) -> Result<RuleId, DbError> {
    let (domain, app, _) = scope_columns(scope);
    let id = tx
        .prepare_cached(
            "INSERT INTO callback_rule (domain, app, template_id, managed_by, created_ms, updated_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        )?
        .insert(params![domain, app, template.0, by_name(by), now.0])?;
    Ok(RuleId(id))
}

/// Binds a callback rule to another template.
///
/// # Errors
/// Those of the database.
pub fn rebind_callback_rule(tx: &Tx<'_>, id: RuleId, template: TemplateId, now: UnixMs) -> Result<(), DbError> {
    tx.prepare_cached("UPDATE callback_rule SET template_id = ?2, updated_ms = max(?3, updated_ms + 1) WHERE id = ?1")?
        .execute(params![id.0, template.0, now.0])?;
    Ok(())
}

/// Removes a callback rule.
///
/// # Errors
/// Those of the database.
pub fn remove_callback_rule(tx: &Tx<'_>, id: RuleId) -> Result<(), DbError> {
    tx.prepare_cached("DELETE FROM callback_rule WHERE id = ?1")?.execute([id.0])?;
    Ok(())
}

/// Forbids a stream, or does so anew. Those whose time was over by then are forgotten.
///
/// # Errors
/// Those of the database.
pub fn forbid_stream(tx: &Tx<'_>, forbiddance: &Forbiddance) -> Result<(), DbError> {
    let Forbiddance { stream: ForbiddenStream { stream, until }, reason, created } = forbiddance;
    tx.prepare_cached("DELETE FROM forbidden_stream WHERE until_ms <= ?1")?.execute([created.0])?;
    tx.prepare_cached(
        "INSERT OR REPLACE INTO forbidden_stream (domain, app, stream, until_ms, reason, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        stream.domain.as_str(),
        stream.app.as_str(),
        stream.name.as_str(),
        until.0,
        reason,
        created.0,
    ])?;
    Ok(())
}

/// Lets a stream be pushed again.
///
/// # Errors
/// Those of the database.
pub fn resume_stream(tx: &Tx<'_>, stream: &StreamId) -> Result<(), DbError> {
    tx.prepare_cached("DELETE FROM forbidden_stream WHERE domain = ?1 AND app = ?2 AND stream = ?3")?.execute([
        stream.domain.as_str(),
        stream.app.as_str(),
        stream.name.as_str(),
    ])?;
    Ok(())
}

// What a sealed value is bound to: its column, so that one moved elsewhere does not open.
const MAIN_KEY: &str = "domain.main_key";
const BACKUP_KEY: &str = "domain.backup_key";
const CALLBACK_KEY: &str = "callback_template.callback_key";
const PREVIOUS_KEY: &str = "callback_template.previous_key";
const ED25519_KEY: &str = "callback_template.ed25519_key";

/// The URLs of a callback template by column.
fn by_column<T>(urls: &CallbackUrls<T>) -> [(&'static str, &T); 9] {
    [
        ("callback_template.snapshot_notify", &urls.snapshot_notify),
        ("callback_template.stream_begin_notify", &urls.stream_begin_notify),
        ("callback_template.stream_end_notify", &urls.stream_end_notify),
        ("callback_template.record_notify", &urls.record_notify),
        ("callback_template.record_status_notify", &urls.record_status_notify),
        ("callback_template.record_exception_notify", &urls.record_exception_notify),
        ("callback_template.porn_censorship_notify", &urls.porn_censorship_notify),
        ("callback_template.push_exception_notify", &urls.push_exception_notify),
        ("callback_template.audio_audit_notify", &urls.audio_audit_notify),
    ]
}

fn rows<T>(
    conn: &Connection,
    sql: &str,
    mut read: impl FnMut(&Row<'_>) -> Result<T, DbError>,
) -> Result<Vec<T>, DbError> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

/// Opens a sealed column; NULL is no value.
fn opened(row: &Row<'_>, vault: &Vault, purpose: &'static str) -> Result<Option<String>, DbError> {
    let column = purpose.rsplit('.').next().unwrap_or(purpose);
    let sealed: Option<Vec<u8>> = row.get(column)?;
    let open = |sealed: Vec<u8>| vault.open_sealed(purpose, &sealed).map_err(|_| DbError::Damaged { what: purpose });
    sealed.map(open).transpose()
}

fn domain(row: &Row<'_>, vault: &Vault) -> Result<Managed<Domain>, DbError> {
    let damaged = |_| DbError::Damaged { what: "a domain" };
    let key = |purpose| opened(row, vault, purpose)?.map(|key| PushKey::parse(&key)).transpose().map_err(damaged);
    let backup = key(BACKUP_KEY)?;
    let auth_delta = Duration::from_millis(number(row, "auth_delta_ms")?);
    let enabled = row.get("auth_enabled")?;
    let auth = key(MAIN_KEY)?.map(|main| PushAuth { enabled, keys: PushKeys { main, backup, auth_delta } });
    let name = DomainName::parse(&row.get::<_, String>("name")?).map_err(damaged)?;
    managed(row, Domain { name, enabled: row.get("enabled")?, auth })
}

fn milliseconds(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

fn callback_template(row: &Row<'_>, vault: &Vault) -> Result<Managed<CallbackTemplate>, DbError> {
    let columns = by_column(&CallbackUrls::<()>::default()).map(|(column, ())| opened(row, vault, column));
    let [snapshot, begin, end, record, record_status, record_exception, censorship, push_exception, audio] = columns;
    let levels: String = row.get("record_exception_levels")?;
    let draft = CallbackTemplateDraft {
        name: row.get("name")?,
        description: row.get("description")?,
        signing: SigningDraft {
            key: opened(row, vault, CALLBACK_KEY)?,
            previous_key: opened(row, vault, PREVIOUS_KEY)?,
            previous_key_until: row.get::<_, Option<i64>>("previous_key_until_ms")?.map(UnixMs),
            ed25519_key: opened(row, vault, ED25519_KEY)?,
        },
        sending: SendingDraft {
            schedule: row.get("schedule")?,
            connect_timeout: row.get::<_, Option<u32>>("connect_timeout_ms")?.map(milliseconds),
            timeout: row.get::<_, Option<u32>>("timeout_ms")?.map(milliseconds),
            replay_recovered: row.get::<_, Option<u32>>("replay_recovered_ms")?.map(milliseconds),
        },
        urls: CallbackUrls {
            snapshot_notify: snapshot?,
            stream_begin_notify: begin?,
            stream_end_notify: end?,
            record_notify: record?,
            record_status_notify: record_status?,
            record_exception_notify: record_exception?,
            porn_censorship_notify: censorship?,
            push_exception_notify: push_exception?,
            audio_audit_notify: audio?,
        },
        record_exception_levels: levels.split_terminator(',').map(str::to_owned).collect(),
        verify_tls: row.get("verify_tls")?,
        authorities: row.get("ca_certificates")?,
    };
    let value = CallbackTemplate::validate(TemplateId(row.get("id")?), draft);
    let value = value.map_err(|_| DbError::Damaged { what: "a callback template" })?;
    managed(row, value)
}

fn rule(row: &Row<'_>, stream: &str) -> Result<(RuleId, RuleScope, TemplateId), DbError> {
    let damaged = |_| DbError::Damaged { what: "a rule" };
    let (domain, app): (String, String) = (row.get("domain")?, row.get("app")?);
    let scope = RuleScope::parse(&domain, &app, stream).map_err(damaged)?;
    Ok((RuleId(row.get("id")?), scope, TemplateId(row.get("template_id")?)))
}

/// Domain, app and stream of a scope; empty is every one.
fn scope_columns(scope: &RuleScope) -> (&str, &str, &str) {
    let app = scope.app.as_ref().map_or("", AppName::as_str);
    let stream = scope.stream.as_ref().map_or("", StreamName::as_str);
    (scope.domain.as_str(), app, stream)
}

fn by_name(by: ManagedBy) -> &'static str {
    match by {
        ManagedBy::File => "file",
        ManagedBy::Api => "api",
    }
}

fn managed<T>(row: &Row<'_>, value: T) -> Result<Managed<T>, DbError> {
    let by = match row.get_ref("managed_by")?.as_str() {
        Ok("file") => ManagedBy::File,
        Ok("api") => ManagedBy::Api,
        _ => return Err(DbError::Damaged { what: "managed_by" }),
    };
    let (created, updated) = (UnixMs(row.get("created_ms")?), UnixMs(row.get("updated_ms")?));
    Ok(Managed { value, by, created, updated })
}

fn forbiddance(row: &Row<'_>) -> Result<Forbiddance, DbError> {
    let stream = ForbiddenStream { stream: stream_id(row)?, until: UnixMs(row.get("until_ms")?) };
    Ok(Forbiddance { stream, reason: row.get("reason")?, created: UnixMs(row.get("created_ms")?) })
}
