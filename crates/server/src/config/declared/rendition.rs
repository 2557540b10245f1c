//! `[[snapshot_rendition]]`: the renditions that templates of the file have beside their main ones.

use framehook_domain::template::{RenditionDraft, SnapshotTemplate};

use super::{item_path, refused, unknown};
use crate::config::problem::Problem;
use crate::config::section::{Section as _, section};

section! {
    /// One more image that a snapshot template makes of each picture, from the same decode: another size, format or place.
    /// A template has at most seven beside its own. Each is announced by a callback of its own, which names it.
    pub(in crate::config) struct SnapshotRenditionTable at "snapshot_rendition" repeated {
        /// The name of the snapshot template that it belongs to.
        template: String,
        /// 1 to 32 of `a-z`, `0-9`, `-` and `_`; not `main`, which is what the template's own image is called.
        name: String,
        /// Width in pixels; 0 follows the height, or the picture.
        width: u32 = "0" in "0"..="3000",
        /// Height in pixels; 0 follows the width, or the picture.
        height: u32 = "0" in "0"..="2000",
        /// `jpeg`, `png`, `webp` (lossy) or `avif`. An AVIF costs many times the CPU of the others.
        format: String = "jpeg",
        /// Quality on the format's own scale; PNG has none.
        quality: u32 = "85" in "1"..="100",
        /// The tail of the bucket's full name; the template's where it is left out.
        cos_app_id: Option<i64> = "" in "1"..="9223372036854775807",
        /// The bucket without that tail; empty is the template's.
        cos_bucket: String = "",
        /// The bucket's region; empty is the template's.
        cos_region: String = "",
        /// The folder, with the template's placeholders and `{Rendition}`; empty is the template's.
        cos_prefix: String = "",
        /// The file's name, with the same placeholders. Empty is the template's with `-{Rendition}` before `{Ext}`.
        cos_file_name: String = "",
    }
}

/// The rendition, and the name of its template.
pub(super) fn snapshot_rendition(table: SnapshotRenditionTable) -> (String, RenditionDraft) {
    let given = |text: String| (!text.is_empty()).then_some(text);
    let draft = RenditionDraft {
        name: table.name,
        width: Some(table.width.into()),
        height: Some(table.height.into()),
        format: Some(table.format),
        quality: Some(table.quality.into()),
        app_id: table.cos_app_id,
        bucket: given(table.cos_bucket),
        region: given(table.cos_region),
        prefix: given(table.cos_prefix),
        file_name: given(table.cos_file_name),
    };
    (table.template, draft)
}

/// Gives each rendition to the template that it names.
pub(super) fn add_renditions(
    templates: &mut [SnapshotTemplate],
    renditions: Vec<(String, RenditionDraft)>,
    problems: &mut Vec<Problem>,
) {
    let renamed = [
        ("app_id", "cos_app_id"),
        ("bucket", "cos_bucket"),
        ("region", "cos_region"),
        ("prefix", "cos_prefix"),
        ("file_name", "cos_file_name"),
    ];
    for (index, (name, draft)) in renditions.into_iter().enumerate() {
        let path = item_path(&SnapshotRenditionTable::TABLE, index);
        let problem = match templates.iter_mut().find(|template| template.name == name) {
            Some(template) => template.add_rendition(draft).map_err(|error| refused(error, &renamed).at(&path)).err(),
            None => {
                let known = templates.iter().map(|template| &*template.name);
                Some(unknown(format!("{path}.template"), &name, "template", known))
            }
        };
        problems.extend(problem);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};

    use super::super::tests::{WHOLE, complaints};

    #[test]
    fn renditions_belong_to_the_template_that_they_name() {
        let text = format!(
            r#"{WHOLE}
            [[snapshot_rendition]]
            template = "covers"
            name = "thumb"
            width = 320
            format = "webp"
            cos_bucket = "thumbs"
            "#
        );
        let config = Config::parse(&text, &Sources::default()).unwrap_or_else(|error| panic!("{:?}", error.problems));
        let thumb = config.declared.snapshot_templates[0].all_renditions().last().unwrap();
        assert_eq!((thumb.name, thumb.width, thumb.format.name()), ("thumb", 320, "webp"));
        assert_eq!(thumb.store.full_bucket(), "thumbs-1250000000");

        let wrong = text.replace("thumbs", "Upper").replace("320", "3001")
            + "[[snapshot_rendition]]\ntemplate = \"cover\"\nname = \"b\"\n\
               [[snapshot_rendition]]\ntemplate = \"covers\"\nname = \"c\"\nformat = \"gif\"\n";
        let complaints = complaints(&wrong);
        assert!(complaints[0].starts_with("snapshot_rendition[1].width = 3001"), "{complaints:?}");
        let wrong = wrong.replace("3001", "320");
        let keys: Vec<_> =
            self::complaints(&wrong).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(
            keys,
            ["snapshot_rendition[1].cos_bucket", "snapshot_rendition[2].template", "snapshot_rendition[3].format"]
        );
    }
}
