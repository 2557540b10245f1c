//! The configuration tables: domains, templates and rules.

use std::collections::BTreeMap;

use framehook_domain::catalog::{CatalogParts, Domain, ManagedBy, PushAuth};
use framehook_domain::id::{RuleId, TemplateId};
use framehook_domain::push_auth::{PushKey, PushKeys};
use framehook_domain::rule::{CallbackRule, RuleScope, SnapshotRule};
use framehook_domain::stream::{AppName, DomainName, StreamName};
use framehook_domain::template::{
    CallbackTemplate, CallbackTemplateDraft, CallbackUrls, SnapshotTemplate, SnapshotTemplateDraft,
};
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::row::number;
use super::secret::Vault;
use super::{DbError, Tx};
use crate::config::{Declared, DeclaredRule};

/// The tables' content and the version it has.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub version: u64,
    pub parts: CatalogParts,
}

/// Columns of `callback_template` that hold a URL, in the order of [`CallbackUrls`].
const URL_COLUMNS: [&str; 9] = [
    "snapshot_notify",
    "stream_begin_notify",
    "stream_end_notify",
    "record_notify",
    "record_status_notify",
    "record_exception_notify",
    "porn_censorship_notify",
    "push_exception_notify",
    "audio_audit_notify",
];

/// Makes what the file manages equal to what it declares: what is new is added, what changed is updated under its id, what
/// is gone is removed. Answers with everything that is configured then.
///
/// # Errors
/// Those of the database.
pub fn apply_file(tx: &Tx<'_>, vault: &Vault, declared: &Declared, wall: UnixMs) -> Result<Loaded, DbError> {
    let file = File { tx, vault, wall };
    // Rules go first, since they hold the templates; and templates come first, since rules need their ids.
    file.remove_rules(declared)?;
    file.remove_named("domain", declared.domains.iter().map(|domain| domain.name.as_str()))?;
    file.remove_named("snapshot_template", declared.snapshot_templates.iter().map(|template| template.name.as_str()))?;
    file.remove_named("callback_template", declared.callback_templates.iter().map(|template| template.name.as_str()))?;
    for domain in &declared.domains {
        file.put_domain(domain)?;
    }
    let mut snapshot_ids = BTreeMap::new();
    for template in &declared.snapshot_templates {
        snapshot_ids.insert(template.name.as_str(), file.put_snapshot_template(template)?);
    }
    let mut callback_ids = BTreeMap::new();
    for template in &declared.callback_templates {
        callback_ids.insert(template.name.as_str(), file.put_callback_template(template)?);
    }
    for DeclaredRule { scope, template } in &declared.snapshot_rules {
        file.put_snapshot_rule(scope, snapshot_ids.get(template.as_str()).copied())?;
    }
    for DeclaredRule { scope, template } in &declared.callback_rules {
        file.put_callback_rule(scope, callback_ids.get(template.as_str()).copied())?;
    }
    tx.execute("UPDATE meta SET catalog_version = catalog_version + 1", [])?;
    load(tx, vault)
}

/// The file's turn at the tables, in one transaction.
struct File<'a, 'c> {
    tx: &'a Tx<'c>,
    vault: &'a Vault,
    wall: UnixMs,
}

impl File<'_, '_> {
    fn remove_rules(&self, declared: &Declared) -> Result<(), DbError> {
        let is_declared = |rules: &[DeclaredRule], scope: &RuleScope| rules.iter().any(|rule| rule.scope == *scope);
        for (id, scope) in managed_rules(self.tx, "snapshot_rule", "stream")? {
            if !is_declared(&declared.snapshot_rules, &scope) {
                self.tx.execute("DELETE FROM snapshot_rule WHERE id = ?1", [id])?;
            }
        }
        for (id, scope) in managed_rules(self.tx, "callback_rule", "''")? {
            if !is_declared(&declared.callback_rules, &scope) {
                self.tx.execute("DELETE FROM callback_rule WHERE id = ?1", [id])?;
            }
        }
        Ok(())
    }

    /// Removes the file's rows of a table whose name is not declared any more.
    fn remove_named<'n>(&self, table: &str, declared: impl Iterator<Item = &'n str>) -> Result<(), DbError> {
        let declared: Vec<&str> = declared.collect();
        let mut statement = self.tx.prepare(&format!("SELECT name FROM {table} WHERE managed_by = 'file'"))?;
        let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for name in names.iter().filter(|name| !declared.contains(&name.as_str())) {
            // Rules that stay and still point to it are pointed elsewhere in this same transaction.
            for rule in ["snapshot_rule", "callback_rule"].iter().filter(|rule| table == rule.replace("rule", "template")) {
                let sql = format!(
                    "DELETE FROM {rule} WHERE managed_by = 'file' AND template_id IN
                     (SELECT id FROM {table} WHERE name = ?1 AND managed_by = 'file')"
                );
                self.tx.execute(&sql, [name])?;
            }
            self.tx.execute(&format!("DELETE FROM {table} WHERE name = ?1 AND managed_by = 'file'"), [name])?;
        }
        Ok(())
    }

    fn put_domain(&self, domain: &Domain) -> Result<(), DbError> {
        let keys = domain.auth.as_ref().map(|auth| &auth.keys);
        let seal = |purpose, key: Option<&PushKey>| key.map(|key| self.vault.seal(purpose, key.expose()));
        self.tx.execute(
            "INSERT INTO domain (name, enabled, auth_enabled, main_key, backup_key, auth_delta_ms, managed_by, created_ms, updated_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'file', ?7, ?7)
             ON CONFLICT (name) DO UPDATE SET enabled = ?2, auth_enabled = ?3, main_key = ?4, backup_key = ?5,
                auth_delta_ms = ?6, managed_by = 'file', updated_ms = ?7",
            params![
                domain.name.as_str(),
                domain.enabled,
                domain.auth.as_ref().is_some_and(|auth| auth.enabled),
                seal("domain.main_key", keys.map(|keys| &keys.main)),
                seal("domain.backup_key", keys.and_then(|keys| keys.backup.as_ref())),
                keys.map_or(0, |keys| i64::try_from(keys.auth_delta.as_millis()).unwrap_or(i64::MAX)),
                self.wall.0,
            ],
        )?;
        Ok(())
    }

    /// The id of the file's template of this name in `table`, made if it is new.
    fn id_of(&self, table: &str, name: &str, insert: impl FnOnce() -> Result<(), DbError>) -> Result<i64, DbError> {
        let sql = format!("SELECT id FROM {table} WHERE name = ?1 AND managed_by = 'file'");
        if let Some(id) = self.tx.query_row(&sql, [name], |row| row.get(0)).optional()? {
            return Ok(id);
        }
        insert()?;
        Ok(self.tx.last_insert_rowid())
    }

    fn put_snapshot_template(&self, template: &SnapshotTemplate) -> Result<TemplateId, DbError> {
        let (prefix, file_name) = (template.pattern.prefix().to_string(), template.pattern.file_name().to_string());
        let id = self.id_of("snapshot_template", &template.name, || {
            self.tx.execute(
                "INSERT INTO snapshot_template
                    (name, interval_secs, jpeg_quality, app_id, bucket, region, prefix, file_name, managed_by, created_ms, updated_ms)
                 VALUES (?1, 0, 0, 0, '', '', '', '', 'file', ?2, ?2)",
                params![template.name, self.wall.0],
            )?;
            Ok(())
        })?;
        self.tx.execute(
            "UPDATE snapshot_template SET description = ?2, interval_secs = ?3, width = ?4, height = ?5, jpeg_quality = ?6,
                app_id = ?7, bucket = ?8, region = ?9, prefix = ?10, file_name = ?11, updated_ms = ?12 WHERE id = ?1",
            params![
                id,
                template.description,
                template.interval.secs(),
                template.width,
                template.height,
                template.jpeg_quality,
                template.store.app_id(),
                template.store.bucket(),
                template.store.region(),
                prefix,
                file_name,
                self.wall.0,
            ],
        )?;
        Ok(TemplateId(id))
    }

    fn put_callback_template(&self, template: &CallbackTemplate) -> Result<TemplateId, DbError> {
        let id = self.id_of("callback_template", &template.name, || {
            self.tx.execute(
                "INSERT INTO callback_template (name, managed_by, created_ms, updated_ms) VALUES (?1, 'file', ?2, ?2)",
                params![template.name, self.wall.0],
            )?;
            Ok(())
        })?;
        let key = template.key.as_ref().map(|key| self.vault.seal("callback_template.callback_key", key.expose()));
        self.tx.execute(
            "UPDATE callback_template SET description = ?2, callback_key = ?3, verify_tls = ?4, updated_ms = ?5 WHERE id = ?1",
            params![id, template.description, key, template.verify_tls, self.wall.0],
        )?;
        for (column, url) in URL_COLUMNS.into_iter().zip(urls_in_order(&template.urls)) {
            let sealed = url.as_ref().map(|url| self.vault.seal(&url_purpose(column), url.expose().as_str()));
            self.tx.execute(&format!("UPDATE callback_template SET {column} = ?2 WHERE id = ?1"), params![id, sealed])?;
        }
        Ok(TemplateId(id))
    }

    fn put_snapshot_rule(&self, scope: &RuleScope, template: Option<TemplateId>) -> Result<(), DbError> {
        let template = template.ok_or(DbError::Damaged { what: "a declared rule's template" })?;
        self.tx.execute(
            "INSERT INTO snapshot_rule (domain, app, stream, template_id, managed_by, created_ms, updated_ms)
             VALUES (?1, ?2, ?3, ?4, 'file', ?5, ?5)
             ON CONFLICT (domain, app, stream) DO UPDATE SET template_id = ?4, managed_by = 'file', updated_ms = ?5",
            params![
                scope.domain.as_str(),
                scope.app.as_ref().map_or("", AppName::as_str),
                scope.stream.as_ref().map_or("", StreamName::as_str),
                template.0,
                self.wall.0,
            ],
        )?;
        Ok(())
    }

    fn put_callback_rule(&self, scope: &RuleScope, template: Option<TemplateId>) -> Result<(), DbError> {
        let template = template.ok_or(DbError::Damaged { what: "a declared rule's template" })?;
        self.tx.execute(
            "INSERT INTO callback_rule (domain, app, template_id, managed_by, created_ms, updated_ms)
             VALUES (?1, ?2, ?3, 'file', ?4, ?4)
             ON CONFLICT (domain, app) DO UPDATE SET template_id = ?3, managed_by = 'file', updated_ms = ?4",
            params![
                scope.domain.as_str(),
                scope.app.as_ref().map_or("", AppName::as_str),
                template.0,
                self.wall.0,
            ],
        )?;
        Ok(())
    }
}

/// Reads everything that is configured.
///
/// # Errors
/// Those of the database, and [`DbError::Damaged`] for a row that no operation of ours writes.
pub fn load(conn: &Connection, vault: &Vault) -> Result<Loaded, DbError> {
    let version: i64 = conn.query_row("SELECT catalog_version FROM meta", [], |row| row.get(0))?;
    let parts = CatalogParts {
        domains: rows(conn, "SELECT * FROM domain", |row| domain(row, vault))?,
        snapshot_templates: rows(conn, "SELECT * FROM snapshot_template", snapshot_template)?,
        callback_templates: rows(conn, "SELECT * FROM callback_template", |row| callback_template(row, vault))?,
        snapshot_rules: rows(conn, "SELECT * FROM snapshot_rule", |row| {
            let (id, template) = rule_ids(row)?;
            Ok(SnapshotRule { id, scope: scope(row, "stream")?, template })
        })?,
        callback_rules: rows(conn, "SELECT *, '' AS stream FROM callback_rule", |row| {
            let (id, template) = rule_ids(row)?;
            Ok(CallbackRule { id, scope: scope(row, "stream")?, template })
        })?,
        ..CatalogParts::default()
    };
    Ok(Loaded { version: version.unsigned_abs(), parts })
}

fn rows<T>(conn: &Connection, sql: &str, read: impl Fn(&Row<'_>) -> Result<T, DbError>) -> Result<Vec<T>, DbError> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

fn domain(row: &Row<'_>, vault: &Vault) -> Result<Domain, DbError> {
    let damaged = DbError::Damaged { what: "a domain" };
    let key = |column: &'static str, purpose: &str| -> Result<Option<PushKey>, DbError> {
        let Some(text) = opened(row, vault, column, purpose)? else { return Ok(None) };
        PushKey::parse(&text).map(Some).map_err(|_| DbError::Damaged { what: "a push key" })
    };
    let name: String = row.get("name")?;
    let main = key("main_key", "domain.main_key")?;
    let backup = key("backup_key", "domain.backup_key")?;
    let auth_delta = std::time::Duration::from_millis(number(row, "auth_delta_ms")?);
    let enabled = row.get("auth_enabled")?;
    Ok(Domain {
        name: DomainName::parse(&name).map_err(|_| damaged)?,
        enabled: row.get("enabled")?,
        auth: main.map(|main| PushAuth { enabled, keys: PushKeys { main, backup, auth_delta } }),
        managed_by: managed_by(row)?,
    })
}

fn snapshot_template(row: &Row<'_>) -> Result<SnapshotTemplate, DbError> {
    let draft = SnapshotTemplateDraft {
        name: row.get("name")?,
        description: row.get("description")?,
        interval_secs: row.get("interval_secs")?,
        width: row.get("width")?,
        height: row.get("height")?,
        jpeg_quality: row.get("jpeg_quality")?,
        app_id: row.get("app_id")?,
        bucket: row.get("bucket")?,
        region: row.get("region")?,
        prefix: row.get("prefix")?,
        file_name: row.get("file_name")?,
    };
    let id = TemplateId(row.get("id")?);
    SnapshotTemplate::validate(id, draft).map_err(|_| DbError::Damaged { what: "a snapshot template" })
}

fn callback_template(row: &Row<'_>, vault: &Vault) -> Result<CallbackTemplate, DbError> {
    let url = |column: &'static str| opened(row, vault, column, &url_purpose(column));
    let draft = CallbackTemplateDraft {
        name: row.get("name")?,
        description: row.get("description")?,
        key: opened(row, vault, "callback_key", "callback_template.callback_key")?,
        urls: CallbackUrls {
            snapshot_notify: url("snapshot_notify")?,
            stream_begin_notify: url("stream_begin_notify")?,
            stream_end_notify: url("stream_end_notify")?,
            record_notify: url("record_notify")?,
            record_status_notify: url("record_status_notify")?,
            record_exception_notify: url("record_exception_notify")?,
            porn_censorship_notify: url("porn_censorship_notify")?,
            push_exception_notify: url("push_exception_notify")?,
            audio_audit_notify: url("audio_audit_notify")?,
        },
        verify_tls: row.get("verify_tls")?,
    };
    let id = TemplateId(row.get("id")?);
    CallbackTemplate::validate(id, draft).map_err(|_| DbError::Damaged { what: "a callback template" })
}

fn urls_in_order(urls: &CallbackUrls) -> [&Option<framehook_domain::template::CallbackUrl>; 9] {
    [
        &urls.snapshot_notify,
        &urls.stream_begin_notify,
        &urls.stream_end_notify,
        &urls.record_notify,
        &urls.record_status_notify,
        &urls.record_exception_notify,
        &urls.porn_censorship_notify,
        &urls.push_exception_notify,
        &urls.audio_audit_notify,
    ]
}

fn url_purpose(column: &str) -> String {
    format!("callback_template.{column}")
}

fn opened(row: &Row<'_>, vault: &Vault, column: &'static str, purpose: &str) -> Result<Option<String>, DbError> {
    let sealed: Option<Vec<u8>> = row.get(column)?;
    let open = |sealed: Vec<u8>| vault.open_sealed(purpose, &sealed).map_err(|_| DbError::Damaged { what: column });
    sealed.map(open).transpose()
}

fn rule_ids(row: &Row<'_>) -> Result<(RuleId, TemplateId), DbError> {
    Ok((RuleId(row.get("id")?), TemplateId(row.get("template_id")?)))
}

fn scope(row: &Row<'_>, stream_column: &str) -> Result<RuleScope, DbError> {
    let text = |column: &str| row.get::<_, String>(column);
    RuleScope::parse(&text("domain")?, &text("app")?, &text(stream_column)?)
        .map_err(|_| DbError::Damaged { what: "a rule's scope" })
}

fn managed_rules(conn: &Connection, table: &str, stream: &str) -> Result<Vec<(i64, RuleScope)>, DbError> {
    let sql = format!("SELECT id, domain, app, {stream} AS stream FROM {table} WHERE managed_by = 'file'");
    rows(conn, &sql, |row| Ok((row.get("id")?, scope(row, "stream")?)))
}

fn managed_by(row: &Row<'_>) -> Result<ManagedBy, DbError> {
    match row.get::<_, String>("managed_by")?.as_str() {
        "file" => Ok(ManagedBy::File),
        "api" => Ok(ManagedBy::Api),
        _ => Err(DbError::Damaged { what: "who manages a domain" }),
    }
}
