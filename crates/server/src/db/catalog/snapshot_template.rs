//! Snapshot templates and their renditions.

use std::collections::BTreeMap;

use framehook_domain::catalog::{Managed, ManagedBy};
use framehook_domain::id::TemplateId;
use framehook_domain::template::{OwnPlace, RenditionDraft, SnapshotTemplate, SnapshotTemplateDraft};
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, Row, params};

use super::{by_name, managed, rows};
use crate::db::row::stored;
use crate::db::{DbError, Tx};

/// Every template, by id.
pub(super) fn load(conn: &Connection) -> Result<Vec<Managed<SnapshotTemplate>>, DbError> {
    let mut renditions: BTreeMap<i64, Vec<RenditionDraft>> = BTreeMap::new();
    let all = rows(conn, "SELECT * FROM snapshot_rendition ORDER BY template_id, position", |row| {
        Ok((row.get("template_id")?, rendition(row)?))
    })?;
    for (template, rendition) in all {
        renditions.entry(template).or_default().push(rendition);
    }
    rows(conn, "SELECT * FROM snapshot_template ORDER BY id", |row| {
        let renditions = renditions.remove(&row.get("id")?).unwrap_or_default();
        template(row, renditions)
    })
}

/// Adds a snapshot template; its own id is passed over.
///
/// # Errors
/// Those of the database.
pub fn insert_snapshot_template(
    tx: &Tx<'_>,
    template: &SnapshotTemplate,
    by: ManagedBy,
    now: UnixMs,
) -> Result<TemplateId, DbError> {
    let id = tx
        .prepare_cached(
            "INSERT INTO snapshot_template (name, description, interval_secs, width, height, jpeg_quality, app_id, bucket,
                 region, prefix, file_name, managed_by, created_ms, updated_ms, porn_flag, retention_days,
                 objects, latest_key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13, ?14, ?15, ?16, ?17)",
        )?
        .insert(params![
            template.name,
            template.description,
            template.interval.secs(),
            template.width,
            template.height,
            template.jpeg_quality,
            template.store.app_id(),
            template.store.bucket(),
            template.store.region(),
            template.pattern.prefix().as_str(),
            template.pattern.file_name().as_str(),
            by_name(by),
            now.0,
            template.porn_flag,
            template.retention_days,
            template.objects.name(),
            template.latest_key.as_str(),
        ])?;
    let id = TemplateId(id);
    put_renditions(tx, id, template)?;
    Ok(id)
}

/// Changes every field of the snapshot template with this id.
///
/// # Errors
/// Those of the database.
pub fn update_snapshot_template(tx: &Tx<'_>, template: &SnapshotTemplate, now: UnixMs) -> Result<(), DbError> {
    tx.prepare_cached(
        "UPDATE snapshot_template SET name = ?2, description = ?3, interval_secs = ?4, width = ?5, height = ?6,
             jpeg_quality = ?7, app_id = ?8, bucket = ?9, region = ?10, prefix = ?11, file_name = ?12,
             updated_ms = max(?13, updated_ms + 1), porn_flag = ?14, retention_days = ?15, objects = ?16,
             latest_key = ?17
         WHERE id = ?1",
    )?
    .execute(params![
        template.id.0,
        template.name,
        template.description,
        template.interval.secs(),
        template.width,
        template.height,
        template.jpeg_quality,
        template.store.app_id(),
        template.store.bucket(),
        template.store.region(),
        template.pattern.prefix().as_str(),
        template.pattern.file_name().as_str(),
        now.0,
        template.porn_flag,
        template.retention_days,
        template.objects.name(),
        template.latest_key.as_str(),
    ])?;
    tx.prepare_cached("DELETE FROM snapshot_rendition WHERE template_id = ?1")?.execute([template.id.0])?;
    put_renditions(tx, template.id, template)
}

/// Removes a snapshot template. Its rules must be gone before.
///
/// # Errors
/// Those of the database, one of which says that a rule is still there.
pub fn remove_snapshot_template(tx: &Tx<'_>, id: TemplateId) -> Result<(), DbError> {
    tx.prepare_cached("DELETE FROM snapshot_template WHERE id = ?1")?.execute([id.0])?;
    Ok(())
}

fn put_renditions(tx: &Tx<'_>, id: TemplateId, template: &SnapshotTemplate) -> Result<(), DbError> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO snapshot_rendition (template_id, position, name, width, height, format, quality, app_id, bucket, region,
             prefix, file_name)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    for (position, rendition) in template.renditions.iter().enumerate() {
        let OwnPlace { app_id, bucket, region, prefix, file_name } = &rendition.own;
        insert.execute(params![
            id.0,
            stored(position),
            rendition.name.as_str(),
            rendition.width,
            rendition.height,
            rendition.format.name(),
            rendition.quality,
            app_id,
            bucket,
            region,
            prefix,
            file_name,
        ])?;
    }
    Ok(())
}

fn rendition(row: &Row<'_>) -> Result<RenditionDraft, DbError> {
    Ok(RenditionDraft {
        name: row.get("name")?,
        width: row.get("width")?,
        height: row.get("height")?,
        format: row.get("format")?,
        quality: row.get("quality")?,
        app_id: row.get("app_id")?,
        bucket: row.get("bucket")?,
        region: row.get("region")?,
        prefix: row.get("prefix")?,
        file_name: row.get("file_name")?,
    })
}

fn template(row: &Row<'_>, renditions: Vec<RenditionDraft>) -> Result<Managed<SnapshotTemplate>, DbError> {
    let draft = SnapshotTemplateDraft {
        name: row.get("name")?,
        description: row.get("description")?,
        interval_secs: row.get("interval_secs")?,
        width: row.get("width")?,
        height: row.get("height")?,
        jpeg_quality: row.get("jpeg_quality")?,
        porn_flag: row.get("porn_flag")?,
        app_id: row.get("app_id")?,
        bucket: row.get("bucket")?,
        region: row.get("region")?,
        prefix: row.get("prefix")?,
        file_name: row.get("file_name")?,
        objects: row.get("objects")?,
        latest_key: row.get("latest_key")?,
        retention_days: row.get("retention_days")?,
        renditions,
    };
    let value = SnapshotTemplate::validate(TemplateId(row.get("id")?), draft);
    let value = value.map_err(|_| DbError::Damaged { what: "a snapshot template" })?;
    managed(row, value)
}

#[cfg(test)]
mod tests {
    use framehook_domain::template::StoreTarget;

    use super::*;
    use crate::db::planned;

    fn database() -> Connection {
        let conn = planned::database();
        conn.pragma_update(None, "foreign_keys", true).unwrap();
        conn
    }

    #[test]
    fn each_change_makes_a_later_version_within_a_millisecond_and_after_the_clock_was_set_back() {
        let conn = database();
        let (tx, by) = (Tx { conn: &conn }, ManagedBy::Api);
        let template = SnapshotTemplate::built_in(StoreTarget::default());
        let id = insert_snapshot_template(&tx, &template, by, UnixMs(5)).unwrap();
        for (now, updated) in [(5, 6), (1, 7), (100, 100)] {
            update_snapshot_template(&tx, &SnapshotTemplate { id, ..template.clone() }, UnixMs(now)).unwrap();
            let stored = load(&conn).unwrap();
            assert_eq!((stored[0].created, stored[0].updated), (UnixMs(5), UnixMs(updated)), "changed at {now}");
        }
    }

    #[test]
    fn renditions_come_back_in_their_order_and_go_with_their_template() {
        let conn = database();
        let tx = Tx { conn: &conn };
        let mut template = SnapshotTemplate::built_in(StoreTarget::default());
        for (name, format) in [("small", "webp"), ("archive", "png")] {
            let bucket = (name == "archive").then(|| "archive".to_owned());
            let draft = RenditionDraft {
                name: name.to_owned(),
                format: Some(format.to_owned()),
                bucket,
                ..RenditionDraft::default()
            };
            template.add_rendition(draft).unwrap();
        }
        let id = insert_snapshot_template(&tx, &template, ManagedBy::Api, UnixMs(5)).unwrap();
        let template = SnapshotTemplate { id, retention_days: Some(7), ..template };
        update_snapshot_template(&tx, &template, UnixMs(5)).unwrap();
        assert_eq!(load(&conn).unwrap()[0].value, template);

        let fewer = SnapshotTemplate { renditions: template.renditions[1..].to_vec(), ..template };
        update_snapshot_template(&tx, &fewer, UnixMs(6)).unwrap();
        assert_eq!(load(&conn).unwrap()[0].value, fewer);

        remove_snapshot_template(&tx, id).unwrap();
        let left: i64 = conn.query_row("SELECT count(*) FROM snapshot_rendition", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0);
    }
}
