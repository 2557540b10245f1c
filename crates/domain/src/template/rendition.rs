//! Renditions: the sizes and formats that are made of one picture, and where each of them goes.

use alloc::{format, string::String};
use core::fmt;

use super::{SnapshotTemplate, StoreTarget, snapshot::within};
use crate::{
    field::FieldError,
    object_key::{LatestKey, ObjectFileName, ObjectPattern, ObjectPrefix},
};

/// Most renditions of a template, the main one included. A push has one rule and at most three screenshot tasks, so one
/// decode makes at most 32 images.
pub const RENDITIONS_MAX: usize = 8;

/// How an image is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageFormat {
    /// CSS's only format.
    #[default]
    Jpeg,
    /// Without loss beyond the conversion to R'G'B'; its quality means nothing.
    Png,
    /// Lossy.
    Webp,
    Avif,
}

impl ImageFormat {
    pub const ALL: [Self; 4] = [Self::Jpeg, Self::Png, Self::Webp, Self::Avif];

    /// The name in the configuration, the API and the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Avif => "avif",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// What `{Ext}` becomes, with its dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => ".jpg",
            Self::Png => ".png",
            Self::Webp => ".webp",
            Self::Avif => ".avif",
        }
    }

    /// The media type (IANA).
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
            Self::Avif => "image/avif",
        }
    }
}

/// Longest name of a rendition, in bytes. It becomes a part of object keys.
pub const RENDITION_NAME_BYTES_MAX: usize = 32;

/// The name of a rendition beside the main one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RenditionName(String);

impl RenditionName {
    /// What the rendition is called that every template has: the one of CSS's fields.
    pub const MAIN: &'static str = "main";

    /// # Errors
    /// Other than 1 to 32 of `a-z 0-9 - _`, or `main`.
    pub fn parse(name: &str) -> Result<Self, FieldError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        let fits = (1..=RENDITION_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
        if !fits || name == Self::MAIN {
            return Err(FieldError::new("name", name, "1 to 32 of a-z 0-9 - _, other than main"));
        }
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RenditionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A rendition as plain values; what is `None` is the default, or the template's where that has such a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenditionDraft {
    pub name: String,
    /// 0 by default, as for a template.
    pub width: Option<i64>,
    pub height: Option<i64>,
    /// See [`ImageFormat::name`]; `jpeg` by default.
    pub format: Option<String>,
    /// 1 to 100, 85 by default.
    pub quality: Option<i64>,
    pub app_id: Option<i64>,
    pub bucket: Option<String>,
    pub region: Option<String>,
    pub prefix: Option<String>,
    /// By default the template's, with the rendition's name before its extension.
    pub file_name: Option<String>,
}

/// A rendition that a template has beside the main one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedRendition {
    pub name: RenditionName,
    /// Pixels, as a template's.
    pub width: u32,
    pub height: u32,
    pub format: ImageFormat,
    /// 1 to 100 on the format's own scale; it means nothing for PNG.
    pub quality: u8,
    /// What of its place is its own. The rest follows the template, also when that changes.
    pub own: OwnPlace,
    /// Where it goes, all taken together.
    pub store: StoreTarget,
    pub pattern: ObjectPattern,
    pub latest_key: LatestKey,
}

/// The parts of a rendition's place that are not its template's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnPlace {
    pub app_id: Option<i64>,
    pub bucket: Option<String>,
    pub region: Option<String>,
    pub prefix: Option<String>,
    pub file_name: Option<String>,
}

impl NamedRendition {
    /// Makes a rendition of a template whose own values are valid.
    pub(super) fn validate(draft: RenditionDraft, of: &SnapshotTemplate) -> Result<Self, FieldError> {
        let RenditionDraft { name, width, height, format, quality, app_id, bucket, region, prefix, file_name } = draft;
        let own = OwnPlace { app_id, bucket, region, prefix, file_name };
        let format = match format {
            None => ImageFormat::default(),
            Some(name) => ImageFormat::from_name(&name)
                .ok_or_else(|| FieldError::new("format", name, "jpeg, png, webp or avif"))?,
        };
        Ok(Self {
            name: RenditionName::parse(&name)?,
            width: super::snapshot::width(width)?,
            height: super::snapshot::height(height)?,
            format,
            quality: within("quality", quality.unwrap_or(super::snapshot::QUALITY.into()), 1..=100, "1 to 100")?,
            store: own.store(&of.store)?,
            pattern: own.pattern(&of.pattern)?,
            latest_key: of.latest_key.of_a_rendition()?,
            own,
        })
    }

    fn as_made(&self) -> Rendition<'_> {
        Rendition {
            name: self.name.as_str(),
            width: self.width,
            height: self.height,
            format: self.format,
            quality: self.quality,
            store: &self.store,
            pattern: &self.pattern,
            latest_key: &self.latest_key,
        }
    }

    /// The values that make this rendition again.
    pub fn to_draft(&self) -> RenditionDraft {
        let own = self.own.clone();
        RenditionDraft {
            name: self.name.as_str().into(),
            width: Some(self.width.into()),
            height: Some(self.height.into()),
            format: Some(self.format.name().into()),
            quality: Some(self.quality.into()),
            app_id: own.app_id,
            bucket: own.bucket,
            region: own.region,
            prefix: own.prefix,
            file_name: own.file_name,
        }
    }
}

impl OwnPlace {
    fn store(&self, of: &StoreTarget) -> Result<StoreTarget, FieldError> {
        StoreTarget::new(
            self.app_id.unwrap_or(of.app_id()),
            self.bucket.as_deref().unwrap_or(of.bucket()),
            self.region.as_deref().unwrap_or(of.region()),
        )
    }

    fn pattern(&self, of: &ObjectPattern) -> Result<ObjectPattern, FieldError> {
        let prefix = self.prefix.as_deref().map_or_else(|| Ok(of.prefix().clone()), ObjectPrefix::parse)?;
        let file_name = match &self.file_name {
            Some(own) => ObjectFileName::parse(own)?,
            None if prefix.names_the_rendition() => of.file_name().clone(),
            None => of.file_name().of_a_rendition()?,
        };
        ObjectPattern::new(prefix, file_name)
    }
}

/// A rendition as it is made, whether it is a template's main one or has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rendition<'a> {
    /// [`RenditionName::MAIN`], or its own.
    pub name: &'a str,
    /// Pixels; 0 follows the other side, or the picture.
    pub width: u32,
    pub height: u32,
    pub format: ImageFormat,
    pub quality: u8,
    pub store: &'a StoreTarget,
    pub pattern: &'a ObjectPattern,
    /// The key of the object that each newer picture overwrites, where the template has one.
    pub latest_key: &'a LatestKey,
}

impl SnapshotTemplate {
    /// Everything that is made of one picture, the main rendition first: between one and eight.
    pub fn all_renditions(&self) -> impl Iterator<Item = Rendition<'_>> {
        core::iter::once(self.main_rendition()).chain(self.renditions.iter().map(NamedRendition::as_made))
    }

    /// The rendition that CSS's fields describe.
    pub fn main_rendition(&self) -> Rendition<'_> {
        Rendition {
            name: RenditionName::MAIN,
            width: self.width,
            height: self.height,
            format: ImageFormat::Jpeg,
            quality: self.jpeg_quality,
            store: &self.store,
            pattern: &self.pattern,
            latest_key: &self.latest_key,
        }
    }

    /// Gives the template one more rendition.
    ///
    /// # Errors
    /// The first field outside its limits, a name that another one has, or one rendition too many.
    pub fn add_rendition(&mut self, draft: RenditionDraft) -> Result<(), FieldError> {
        let rendition = NamedRendition::validate(draft, self)?;
        if self.renditions.iter().any(|other| other.name == rendition.name) {
            return Err(FieldError::new("name", rendition.name, "a name that no other rendition has"));
        }
        if self.renditions.len() + 1 >= RENDITIONS_MAX {
            return Err(FieldError::new("name", rendition.name, "at most 7 renditions beside the main one"));
        }
        self.renditions.push(rendition);
        Ok(())
    }

    /// The same, for who gives a template and its renditions in one piece: the error then says which one it is about.
    pub(super) fn add_renditions(
        &mut self,
        drafts: impl IntoIterator<Item = RenditionDraft>,
    ) -> Result<(), FieldError> {
        for draft in drafts {
            let name = draft.name.clone();
            self.add_rendition(draft).map_err(|error| {
                FieldError::new("renditions", format!("{name}: {} = {}", error.field, error.value), error.allowed)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec, vec::Vec};

    use super::*;
    use crate::{
        id::TemplateId,
        object_key::Naming,
        stream::{AppName, DomainName, StreamId, StreamName},
        template::SnapshotTemplateDraft,
        time::{NameZone, UnixMs},
    };

    fn thumb() -> RenditionDraft {
        RenditionDraft {
            name: "thumb".into(),
            width: Some(320),
            format: Some("webp".into()),
            ..RenditionDraft::default()
        }
    }

    fn draft(renditions: Vec<RenditionDraft>) -> SnapshotTemplateDraft {
        SnapshotTemplateDraft {
            name: "covers".into(),
            app_id: 1_250_000_000,
            bucket: "shots".into(),
            region: "ap-guangzhou".into(),
            renditions,
            ..SnapshotTemplateDraft::default()
        }
    }

    fn template(renditions: Vec<RenditionDraft>) -> SnapshotTemplate {
        SnapshotTemplate::validate(TemplateId(1), draft(renditions)).expect("a template")
    }

    fn key(rendition: Rendition<'_>) -> String {
        let stream = StreamId {
            domain: DomainName::parse("push.example.com").expect("a domain"),
            app: AppName::parse("live").expect("an app"),
            name: StreamName::parse("room").expect("a stream"),
        };
        let naming = Naming {
            stream: &stream,
            create_time: UnixMs(0),
            zone: &NameZone::default(),
            width: 320,
            height: 180,
            rendition: rendition.name,
            format: rendition.format,
        };
        rendition.pattern.expand(&naming).to_string()
    }

    #[test]
    fn a_template_makes_one_jpeg_unless_it_is_told_more() {
        let template = template(vec![]);
        let all: Vec<_> = template.all_renditions().collect();
        assert_eq!(all, [template.main_rendition()]);
        assert_eq!((all[0].name, all[0].format, all[0].quality), ("main", ImageFormat::Jpeg, 85));
    }

    #[test]
    fn a_rendition_lies_beside_the_main_one_under_its_own_name() {
        let template = template(vec![thumb()]);
        let keys: Vec<_> = template.all_renditions().map(key).collect();
        assert_eq!(
            keys,
            [
                "1970-01-01/room-screenshot-08-00-00-320x180.jpg",
                "1970-01-01/room-screenshot-08-00-00-320x180-thumb.webp"
            ]
        );
    }

    #[test]
    fn a_pattern_that_names_the_rendition_is_left_as_it_is() {
        let cases = [
            ("in the folder", Some("{Rendition}/{StreamID}"), None, "thumb/room/room-screenshot-08-00-00-320x180.webp"),
            ("in the file", None, Some("{StreamID}_{Rendition}{Ext}"), "1970-01-01/room_thumb.webp"),
        ];
        for (name, prefix, file_name, expected) in cases {
            let draft = SnapshotTemplateDraft {
                prefix: prefix.map(Into::into),
                file_name: file_name.map(Into::into),
                ..draft(vec![thumb()])
            };
            let template = SnapshotTemplate::validate(TemplateId(1), draft).expect(name);
            assert_eq!(template.all_renditions().map(key).last().as_deref(), Some(expected), "{name}");
        }
        let own = RenditionDraft { file_name: Some("own{Ext}".into()), ..thumb() };
        assert_eq!(template(vec![own]).all_renditions().map(key).last().as_deref(), Some("1970-01-01/own.webp"));
    }

    #[test]
    fn what_a_rendition_has_not_of_its_own_follows_the_template() {
        let known = template(vec![RenditionDraft { bucket: Some("thumbs".into()), ..thumb() }]);
        let mut draft = known.to_draft();
        (draft.app_id, draft.region, draft.prefix) = (7, "local".into(), Some("p".into()));
        let changed = SnapshotTemplate::validate(TemplateId(1), draft).expect("a template");
        let thumb = changed.all_renditions().last().expect("two renditions");
        assert_eq!((thumb.store.full_bucket(), thumb.store.region()), ("thumbs-7".into(), "local"));
        assert_eq!(thumb.pattern.prefix().as_str(), "p");
    }

    #[test]
    fn refuses_each_field_outside_its_limits() {
        type Change = fn(&mut RenditionDraft);
        let cases: [(&str, Change); 12] = [
            ("no name", |d| d.name = String::new()),
            ("long name", |d| d.name = "a".repeat(33)),
            ("name in upper case", |d| d.name = "Thumb".into()),
            ("the main one's name", |d| d.name = "main".into()),
            ("width", |d| d.width = Some(3001)),
            ("height", |d| d.height = Some(-1)),
            ("format", |d| d.format = Some("gif".into())),
            ("quality", |d| d.quality = Some(0)),
            ("app id", |d| d.app_id = Some(0)),
            ("bucket", |d| d.bucket = Some("Upper".into())),
            ("prefix", |d| d.prefix = Some("..".into())),
            ("file name", |d| d.file_name = Some("{Nope}".into())),
        ];
        for (name, change) in cases {
            let mut rendition = thumb();
            change(&mut rendition);
            let error = SnapshotTemplate::validate(TemplateId(1), draft(vec![rendition])).expect_err(name);
            assert_eq!(error.field, "renditions", "{name}");
        }
    }

    #[test]
    fn there_are_seven_beside_the_main_one_and_each_has_a_name_of_its_own() {
        let named = |name: usize| RenditionDraft { name: format!("r{name}"), ..thumb() };
        assert_eq!(template((0..7).map(named).collect()).all_renditions().count(), RENDITIONS_MAX);
        for (name, drafts) in [("eight", (0..8).map(named).collect()), ("twice", vec![thumb(), thumb()])] {
            assert!(SnapshotTemplate::validate(TemplateId(1), draft(drafts)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_template_comes_back_from_its_draft() {
        let known =
            template(vec![thumb(), RenditionDraft { name: "big".into(), format: Some("avif".into()), ..thumb() }]);
        assert_eq!(SnapshotTemplate::validate(known.id, known.to_draft()), Ok(known));
    }
}
