//! Snapshot templates (CSS, 267/30834).

use alloc::{format, string::String, vec::Vec};
use core::{ops::RangeInclusive, time::Duration};

use super::{NamedRendition, Objects, RenditionDraft, check_description, check_name};
use crate::{
    field::FieldError,
    id::TemplateId,
    object_key::{LatestKey, ObjectFileName, ObjectPattern, ObjectPrefix},
};

/// Seconds between two snapshots: 2 to 300 (CSS prints 5 to 300 in some places; the create call takes 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotInterval(u16);

impl SnapshotInterval {
    pub const SECS: RangeInclusive<i64> = 2..=300;

    /// # Errors
    /// Outside 2 to 300 s.
    pub fn from_secs(secs: i64) -> Result<Self, FieldError> {
        match u16::try_from(secs) {
            Ok(short) if Self::SECS.contains(&secs) => Ok(Self(short)),
            _ => Err(FieldError::new("interval", secs, "2 to 300 (seconds)")),
        }
    }

    pub const fn secs(self) -> u16 {
        self.0
    }

    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl Default for SnapshotInterval {
    /// The API's default; the console's is 2.
    fn default() -> Self {
        Self(10)
    }
}

/// Which bucket a snapshot goes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTarget {
    app_id: i64,
    bucket: String,
    region: String,
}

/// Longest COS host name (436/13312).
const COS_HOST_BYTES_MAX: usize = 60;

impl StoreTarget {
    /// A region without a hyphen is CSS's short form (`beijing` for `ap-beijing`), except `local`, which names no COS
    /// region but the local store.
    ///
    /// # Errors
    /// `app_id` not positive, a bucket or region with other than lower-case letters, digits and inner hyphens, or a COS
    /// host name over 60 bytes.
    pub fn new(app_id: i64, bucket: &str, region: &str) -> Result<Self, FieldError> {
        if app_id <= 0 {
            return Err(FieldError::new("app_id", app_id, "a positive number"));
        }
        if !is_label(bucket) {
            let allowed = "lower-case letters, digits and inner hyphens, without the -<app_id> tail";
            return Err(FieldError::new("bucket", bucket, allowed));
        }
        if !is_label(region) {
            return Err(FieldError::new(
                "region",
                region,
                "lower-case letters, digits and inner hyphens, as ap-guangzhou",
            ));
        }
        let is_short = !region.contains('-') && region != Self::LOCAL_REGION;
        let region = if is_short { format!("ap-{region}") } else { region.into() };
        let target = Self { app_id, bucket: bucket.into(), region };
        if target.cos_host().len() > COS_HOST_BYTES_MAX {
            return Err(FieldError::new("bucket", bucket, "a name whose COS host has at most 60 bytes"));
        }
        Ok(target)
    }

    /// The region of objects kept by the local store.
    pub const LOCAL_REGION: &str = "local";

    pub fn app_id(&self) -> i64 {
        self.app_id
    }

    /// Without the `-<app_id>` tail.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// In its long form.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// `<bucket>-<app_id>`: the full bucket name in COS and S3, and the local store's directory.
    pub fn full_bucket(&self) -> String {
        format!("{}-{}", self.bucket, self.app_id)
    }

    /// The host under which COS serves the bucket.
    pub fn cos_host(&self) -> String {
        format!("{}-{}.cos.{}.myqcloud.com", self.bucket, self.app_id, self.region)
    }
}

impl Default for StoreTarget {
    /// The built-in target: `framehook-1250000000` in the local store. The number is the one CSS's documents use in
    /// their examples, so nobody takes it for a real account.
    fn default() -> Self {
        Self::new(1_250_000_000, "framehook", Self::LOCAL_REGION).expect("the built-in target is valid")
    }
}

fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.bytes().all(allowed)
}

/// How to make snapshots of a stream, and where to put them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotTemplate {
    pub id: TemplateId,
    pub name: String,
    pub description: String,
    pub interval: SnapshotInterval,
    /// Pixels, at most 3000; 0 follows the picture.
    pub width: u32,
    /// Pixels, at most 2000; 0 follows the picture.
    pub height: u32,
    /// 1 to 100. Ours: CSS does not say.
    pub jpeg_quality: u8,
    /// CSS's `PornFlag`: pictures are to be moderated. It is kept and shown; nothing is moderated yet.
    pub porn_flag: bool,
    pub store: StoreTarget,
    pub pattern: ObjectPattern,
    pub objects: Objects,
    /// Of the object that each newer picture overwrites, if `objects` asks for one.
    pub latest_key: LatestKey,
    /// Days after which stored pictures are removed, 1 to 3650; `None` keeps them.
    pub retention_days: Option<u16>,
    /// What is made of each picture beside the main rendition, which the fields above describe.
    pub renditions: Vec<NamedRendition>,
}

/// A snapshot template as plain values; what is `None` takes CSS's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotTemplateDraft {
    pub name: String,
    pub description: Option<String>,
    pub interval_secs: Option<i64>,
    pub width: Option<i64>,
    pub height: Option<i64>,
    pub jpeg_quality: Option<i64>,
    pub porn_flag: Option<bool>,
    pub app_id: i64,
    pub bucket: String,
    pub region: String,
    pub prefix: Option<String>,
    pub file_name: Option<String>,
    /// See [`Objects::name`].
    pub objects: Option<String>,
    pub latest_key: Option<String>,
    /// `None`: for ever.
    pub retention_days: Option<i64>,
    /// Beside the main one.
    pub renditions: Vec<RenditionDraft>,
}

/// Visually lossless for moderation and covers, at about a third of the bytes of 95.
pub(super) const QUALITY: u8 = 85;

impl SnapshotTemplate {
    /// # Errors
    /// The first field outside its limits.
    pub fn validate(id: TemplateId, draft: SnapshotTemplateDraft) -> Result<Self, FieldError> {
        check_name(&draft.name)?;
        let description = draft.description.unwrap_or_default();
        check_description(&description)?;
        let interval = draft.interval_secs.map_or(Ok(SnapshotInterval::default()), SnapshotInterval::from_secs)?;
        let prefix = draft.prefix.as_deref().map_or_else(|| Ok(ObjectPrefix::default()), ObjectPrefix::parse)?;
        let file_name =
            draft.file_name.as_deref().map_or_else(|| Ok(ObjectFileName::default()), ObjectFileName::parse)?;
        let mut template = Self {
            id,
            name: draft.name,
            description,
            interval,
            width: width(draft.width)?,
            height: height(draft.height)?,
            jpeg_quality: within("jpeg_quality", draft.jpeg_quality.unwrap_or(QUALITY.into()), 1..=100, "1 to 100")?,
            porn_flag: draft.porn_flag.unwrap_or(false),
            store: StoreTarget::new(draft.app_id, &draft.bucket, &draft.region)?,
            pattern: ObjectPattern::new(prefix, file_name)?,
            objects: draft.objects.map_or_else(|| Ok(Objects::default()), objects)?,
            latest_key: draft.latest_key.as_deref().map_or_else(|| Ok(LatestKey::default()), LatestKey::parse)?,
            retention_days: draft.retention_days.map(retention_days).transpose()?,
            renditions: Vec::new(),
        };
        template.add_renditions(draft.renditions)?;
        Ok(template)
    }

    /// The values that [`SnapshotTemplate::validate`] makes this template of, to change some of them.
    pub fn to_draft(&self) -> SnapshotTemplateDraft {
        SnapshotTemplateDraft {
            name: self.name.clone(),
            description: Some(self.description.clone()),
            interval_secs: Some(self.interval.secs().into()),
            width: Some(self.width.into()),
            height: Some(self.height.into()),
            jpeg_quality: Some(self.jpeg_quality.into()),
            porn_flag: Some(self.porn_flag),
            app_id: self.store.app_id(),
            bucket: self.store.bucket().into(),
            region: self.store.region().into(),
            prefix: Some(self.pattern.prefix().as_str().into()),
            file_name: Some(self.pattern.file_name().as_str().into()),
            objects: Some(self.objects.name().into()),
            latest_key: Some(self.latest_key.as_str().into()),
            retention_days: self.retention_days.map(Into::into),
            renditions: self.renditions.iter().map(NamedRendition::to_draft).collect(),
        }
    }

    /// The template of the built-in rule: every default, into `store`. Its id is 0, which no list shows.
    pub fn built_in(store: StoreTarget) -> Self {
        Self {
            id: TemplateId(0),
            name: "built-in".into(),
            description: String::new(),
            interval: SnapshotInterval::default(),
            width: 0,
            height: 0,
            jpeg_quality: QUALITY,
            porn_flag: false,
            store,
            pattern: ObjectPattern::default(),
            objects: Objects::default(),
            latest_key: LatestKey::default(),
            retention_days: None,
            renditions: Vec::new(),
        }
    }
}

fn objects(name: String) -> Result<Objects, FieldError> {
    Objects::from_name(&name).ok_or_else(|| FieldError::new("objects", name, "sequence, latest or both"))
}

/// Ten years; longer is for ever.
fn retention_days(days: i64) -> Result<u16, FieldError> {
    within("retention_days", days, 1..=3650, "1 to 3650 (days)")
}

/// The width that an image is asked for in.
pub(super) fn width(pixels: Option<i64>) -> Result<u32, FieldError> {
    within("width", pixels.unwrap_or(0), 0..=3000, "0 to 3000 (pixels, 0 follows the picture)")
}

/// The height that an image is asked for in.
pub(super) fn height(pixels: Option<i64>) -> Result<u32, FieldError> {
    within("height", pixels.unwrap_or(0), 0..=2000, "0 to 2000 (pixels, 0 follows the picture)")
}

pub(super) fn within<T: TryFrom<i64>>(
    field: &'static str,
    value: i64,
    range: RangeInclusive<i64>,
    allowed: &'static str,
) -> Result<T, FieldError> {
    match T::try_from(value) {
        Ok(small) if range.contains(&value) => Ok(small),
        _ => Err(FieldError::new(field, value, allowed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> SnapshotTemplateDraft {
        SnapshotTemplateDraft {
            name: "cover_10s".into(),
            app_id: 1_250_000_000,
            bucket: "shots".into(),
            region: "ap-guangzhou".into(),
            ..SnapshotTemplateDraft::default()
        }
    }

    #[test]
    fn fills_in_the_defaults_of_css() {
        let template = SnapshotTemplate::validate(TemplateId(7), draft()).expect("a template");
        assert_eq!(template.interval.secs(), 10);
        assert_eq!((template.width, template.height, template.jpeg_quality), (0, 0, 85));
        assert_eq!(template.pattern.prefix().as_str(), "/{Year}-{Month}-{Day}");
        assert_eq!(
            template.pattern.file_name().as_str(),
            "{StreamID}-screenshot-{Hour}-{Minute}-{Second}-{Width}x{Height}{Ext}"
        );
    }

    #[test]
    fn refuses_each_field_outside_its_limits() {
        type Change = fn(&mut SnapshotTemplateDraft);
        let cases: [(&str, &str, Change); 26] = [
            ("no name", "name", |d| d.name = String::new()),
            ("long name", "name", |d| d.name = "a".repeat(256)),
            ("long name in bytes, not characters", "name", |d| d.name = "名".repeat(86)),
            ("name with markup", "name", |d| d.name = "<b>".into()),
            ("long description", "description", |d| d.description = Some("a".repeat(1025))),
            ("description with a line break", "description", |d| d.description = Some("a\nb".into())),
            ("interval 1", "interval", |d| d.interval_secs = Some(1)),
            ("interval 301", "interval", |d| d.interval_secs = Some(301)),
            ("interval beyond 16 bits", "interval", |d| d.interval_secs = Some(65_538)),
            ("negative interval", "interval", |d| d.interval_secs = Some(-10)),
            ("width 3001", "width", |d| d.width = Some(3001)),
            ("negative width", "width", |d| d.width = Some(-1)),
            ("height 2001", "height", |d| d.height = Some(2001)),
            ("quality 0", "jpeg_quality", |d| d.jpeg_quality = Some(0)),
            ("quality 101", "jpeg_quality", |d| d.jpeg_quality = Some(101)),
            ("objects of another kind", "objects", |d| d.objects = Some("all".into())),
            ("latest by the clock", "latest_key", |d| d.latest_key = Some("{Hour}{Ext}".into())),
            ("no day", "retention_days", |d| d.retention_days = Some(0)),
            ("more than ten years", "retention_days", |d| d.retention_days = Some(3651)),
            ("app id 0", "app_id", |d| d.app_id = 0),
            ("bucket in upper case", "bucket", |d| d.bucket = "Shots".into()),
            ("bucket with a hyphen at its end", "bucket", |d| d.bucket = "shots-".into()),
            ("host over 60 bytes", "bucket", |d| d.bucket = "a".repeat(20)),
            ("region with a dot", "region", |d| d.region = "ap.guangzhou".into()),
            ("prefix that climbs", "prefix", |d| d.prefix = Some("..".into())),
            ("file name with a folder", "file_name", |d| d.file_name = Some("a/b".into())),
        ];
        for (name, field, change) in cases {
            let mut draft = draft();
            change(&mut draft);
            assert_eq!(SnapshotTemplate::validate(TemplateId(1), draft).expect_err(name).field, field, "{name}");
        }
    }

    #[test]
    fn accepts_each_field_at_its_limits() {
        type Change = fn(&mut SnapshotTemplateDraft);
        let cases: [(&str, Change); 7] = [
            ("255 bytes of name", |d| d.name = "名".repeat(85)),
            ("1024 bytes of description", |d| d.description = Some("a".repeat(1024))),
            ("interval 2", |d| d.interval_secs = Some(2)),
            ("interval 300", |d| d.interval_secs = Some(300)),
            ("width 3000", |d| d.width = Some(3000)),
            ("height 2000", |d| d.height = Some(2000)),
            ("host of 60 bytes", |d| d.bucket = "a".repeat(19)),
        ];
        for (name, change) in cases {
            let mut draft = draft();
            change(&mut draft);
            assert!(SnapshotTemplate::validate(TemplateId(1), draft).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_buckets_as_cos_does() {
        let target = StoreTarget::new(1_250_000_000, "shots", "ap-guangzhou").expect("a target");
        assert_eq!(target.full_bucket(), "shots-1250000000");
        assert_eq!(target.cos_host(), "shots-1250000000.cos.ap-guangzhou.myqcloud.com");
    }

    #[test]
    fn lengthens_short_regions() {
        for (short, long) in [("beijing", "ap-beijing"), ("na-ashburn", "na-ashburn"), ("local", "local")] {
            assert_eq!(StoreTarget::new(1, "shots", short).expect("a target").region(), long);
        }
    }

    #[test]
    fn the_built_in_template_has_every_default() {
        let built_in = SnapshotTemplate::built_in(StoreTarget::default());
        assert_eq!((built_in.interval.secs(), built_in.store.full_bucket()), (10, "framehook-1250000000".into()));
        assert_eq!(built_in.pattern, ObjectPattern::default());
    }
}
