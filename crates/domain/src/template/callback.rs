//! Callback templates (CSS, 267/30815).

use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt;

use url::Url;

mod authorities;
mod sending;
mod signing;

pub use authorities::Authorities;
pub use sending::{CONNECT_TIMEOUT_RANGE, Sending, SendingDraft, TIMEOUT_RANGE};
pub use signing::{Ed25519Key, PreviousKey, Signing, SigningDraft};

use super::{check_description, check_name};
use crate::{callback::EventKind, field::FieldError, id::TemplateId, secret::Secret};

/// The key shared by all URLs of a callback template. `Debug` prints `***`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackKey(Secret);

/// CSS's console takes 32 letters and digits and its API names no limit. 128 bytes hold the longest secret that
/// Standard Webhooks allows in its own spelling (`whsec_` and the base64 of 64 bytes).
const KEY_BYTES_MAX: usize = 128;

impl CallbackKey {
    /// # Errors
    /// Empty, longer than 128 bytes or with control characters.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        if (1..=KEY_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control) {
            Ok(Self(Secret::new(text)))
        } else {
            Err(FieldError::secret("key", text, "at most 128 bytes without control characters"))
        }
    }

    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// Longest callback URL. CSS documents no limit; receivers put tokens of a few hundred bytes into the query, and IIS, the
/// strictest of the common servers, refuses a query over 2,048 bytes unless told otherwise, so a longer URL would be saved
/// without complaint and fail at every send.
pub const URL_BYTES_MAX: usize = 2_048;

/// Where to POST an event: `http` or `https`, query kept, `user:password@` allowed (sent as Basic). Printing it masks
/// the user information.
#[derive(Clone, PartialEq, Eq)]
pub struct CallbackUrl(Arc<Url>);

impl CallbackUrl {
    /// # Errors
    /// Not an absolute `http` or `https` URL, with a fragment, or longer than 2048 bytes. `field` names it in the
    /// error.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, FieldError> {
        // The value may hold a password, so the error must not repeat it.
        let refused = || FieldError::secret(field, text, "an http:// or https:// URL of at most 2048 bytes without #");
        if text.len() > URL_BYTES_MAX {
            return Err(refused());
        }
        let url = Url::parse(text).map_err(|_| refused())?;
        let is_http = matches!(url.scheme(), "http" | "https");
        if !is_http || !url.has_host() || url.fragment().is_some() {
            return Err(refused());
        }
        Ok(Self(Arc::new(url)))
    }

    /// With everything in it, passwords included: for sending, never for a log.
    pub fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.username().is_empty() && self.0.password().is_none() {
            return self.0.fmt(f);
        }
        let mut masked = Url::clone(&self.0);
        // Both setters fail only for URLs that cannot have a host, which `parse` refuses.
        let _ = masked.set_username("***");
        let _ = masked.set_password(None);
        masked.fmt(f)
    }
}

impl fmt::Debug for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One URL per event kind; an event without a URL is not sent. We send the first three; the others are kept for
/// programs that set and read them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallbackUrls<T = Option<CallbackUrl>> {
    pub snapshot_notify: T,
    pub stream_begin_notify: T,
    pub stream_end_notify: T,
    pub record_notify: T,
    pub record_status_notify: T,
    pub record_exception_notify: T,
    pub porn_censorship_notify: T,
    pub push_exception_notify: T,
    pub audio_audit_notify: T,
}

impl CallbackUrls {
    /// Where events of this kind go.
    pub fn of(&self, kind: EventKind) -> Option<&CallbackUrl> {
        match kind {
            EventKind::Snapshot => self.snapshot_notify.as_ref(),
            EventKind::PushBegan => self.stream_begin_notify.as_ref(),
            EventKind::PushEnded => self.stream_end_notify.as_ref(),
        }
    }

    fn to_draft(&self) -> CallbackUrls<Option<String>> {
        let text = |url: &Option<CallbackUrl>| url.as_ref().map(|url| url.expose().as_str().into());
        CallbackUrls {
            snapshot_notify: text(&self.snapshot_notify),
            stream_begin_notify: text(&self.stream_begin_notify),
            stream_end_notify: text(&self.stream_end_notify),
            record_notify: text(&self.record_notify),
            record_status_notify: text(&self.record_status_notify),
            record_exception_notify: text(&self.record_exception_notify),
            porn_censorship_notify: text(&self.porn_censorship_notify),
            push_exception_notify: text(&self.push_exception_notify),
            audio_audit_notify: text(&self.audio_audit_notify),
        }
    }

    fn validate(draft: CallbackUrls<Option<String>>) -> Result<Self, FieldError> {
        // CSS's programs send an empty string where they mean no URL.
        let url = |field, text: Option<String>| match text.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => CallbackUrl::parse(field, text).map(Some),
        };
        Ok(Self {
            snapshot_notify: url("snapshot_notify_url", draft.snapshot_notify)?,
            stream_begin_notify: url("stream_begin_notify_url", draft.stream_begin_notify)?,
            stream_end_notify: url("stream_end_notify_url", draft.stream_end_notify)?,
            record_notify: url("record_notify_url", draft.record_notify)?,
            record_status_notify: url("record_status_notify_url", draft.record_status_notify)?,
            record_exception_notify: url("record_exception_notify_url", draft.record_exception_notify)?,
            porn_censorship_notify: url("porn_censorship_notify_url", draft.porn_censorship_notify)?,
            push_exception_notify: url("push_exception_notify_url", draft.push_exception_notify)?,
            audio_audit_notify: url("audio_audit_notify_url", draft.audio_audit_notify)?,
        })
    }
}

/// Whom to tell about the events of a stream, and how to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackTemplate {
    pub id: TemplateId,
    pub name: String,
    pub description: String,
    pub signing: Signing,
    pub urls: CallbackUrls,
    pub sending: Sending,
    /// Kept for programs that set and read them, as the URLs of recordings are.
    pub record_exception_levels: Vec<RecordExceptionLevel>,
    /// Whether a receiver's certificate must be good.
    pub verify_tls: bool,
    /// Whom to believe about receivers' certificates beside the authorities that the machine trusts.
    pub authorities: Option<Authorities>,
}

/// Which exceptions of recordings are to be told (event 341).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordExceptionLevel {
    Error,
    Warning,
    Info,
    /// In answers of CSS where requests say `warning`.
    Alarm,
}

impl RecordExceptionLevel {
    /// As CSS writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Alarm => "alarm",
        }
    }

    /// # Errors
    /// None of the four names.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let all = [Self::Error, Self::Warning, Self::Info, Self::Alarm];
        let known = all.into_iter().find(|level| level.name() == text);
        known.ok_or_else(|| FieldError::new("record_exception_levels", text, "error, warning, info or alarm"))
    }
}

/// A callback template as plain values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallbackTemplateDraft {
    pub name: String,
    pub description: Option<String>,
    pub signing: SigningDraft,
    pub urls: CallbackUrls<Option<String>>,
    pub sending: SendingDraft,
    pub record_exception_levels: Vec<String>,
    pub verify_tls: Option<bool>,
    /// Certificates in PEM.
    pub authorities: Option<String>,
}

impl CallbackTemplate {
    /// The values that [`CallbackTemplate::validate`] makes this template of, to change some of them. Keys and passwords
    /// stand in it as they are.
    pub fn to_draft(&self) -> CallbackTemplateDraft {
        CallbackTemplateDraft {
            name: self.name.clone(),
            description: Some(self.description.clone()),
            signing: self.signing.to_draft(),
            urls: self.urls.to_draft(),
            sending: self.sending.to_draft(),
            record_exception_levels: self.record_exception_levels.iter().map(|level| level.name().into()).collect(),
            verify_tls: Some(self.verify_tls),
            authorities: self.authorities.as_ref().map(|authorities| authorities.pem().into()),
        }
    }

    /// # Errors
    /// The first field outside its limits, or no URL at all. Whether an address may be called is not decided here.
    pub fn validate(id: TemplateId, draft: CallbackTemplateDraft) -> Result<Self, FieldError> {
        check_name(&draft.name)?;
        let description = draft.description.unwrap_or_default();
        check_description(&description)?;
        let signing = Signing::validate(draft.signing)?;
        let sending = Sending::validate(draft.sending)?;
        let urls = CallbackUrls::validate(draft.urls)?;
        if urls == CallbackUrls::default() {
            return Err(FieldError::new(
                "snapshot_notify_url",
                "",
                "at least one of the template's URLs must be given",
            ));
        }
        let levels = draft.record_exception_levels.iter().map(|level| RecordExceptionLevel::parse(level));
        Ok(Self {
            id,
            name: draft.name,
            description,
            signing,
            urls,
            sending,
            record_exception_levels: levels.collect::<Result<_, _>>()?,
            verify_tls: draft.verify_tls.unwrap_or(true),
            authorities: draft.authorities.as_deref().map(Authorities::parse).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString};

    use super::*;

    fn draft() -> CallbackTemplateDraft {
        CallbackTemplateDraft {
            name: "moderation".into(),
            signing: SigningDraft { key: Some("k3yForDocs2024".into()), ..SigningDraft::default() },
            urls: CallbackUrls {
                snapshot_notify: Some("https://a.example/notify?action=snapshot".into()),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    #[test]
    fn keeps_the_query_of_a_url() {
        let template = CallbackTemplate::validate(TemplateId(1), draft()).expect("a template");
        let url = template.urls.of(EventKind::Snapshot).expect("a URL");
        assert_eq!(url.expose().as_str(), "https://a.example/notify?action=snapshot");
        assert_eq!(template.urls.of(EventKind::PushBegan), None);
        assert!(template.verify_tls);
    }

    #[test]
    fn an_empty_key_or_url_is_none() {
        let mut draft = draft();
        draft.signing.key = Some(String::new());
        draft.urls.stream_end_notify = Some(String::new());
        let template = CallbackTemplate::validate(TemplateId(1), draft).expect("a template");
        assert_eq!((template.signing.key, template.urls.stream_end_notify), (None, None));
    }

    #[test]
    fn a_key_has_at_least_one_byte() {
        assert_eq!(CallbackKey::parse("").expect_err("empty").field, "key");
        assert!(CallbackKey::parse("0").is_ok());
    }

    #[test]
    fn refuses_each_field_outside_its_limits() {
        type Change = fn(&mut CallbackTemplateDraft);
        let cases: [(&str, &str, Change); 10] = [
            ("no name", "name", |d| d.name = String::new()),
            ("long description", "description", |d| d.description = Some("a".repeat(1025))),
            ("long key", "key", |d| d.signing.key = Some("k".repeat(129))),
            ("key with a line break", "key", |d| d.signing.key = Some("k\n".into())),
            ("no URL at all", "snapshot_notify_url", |d| d.urls.snapshot_notify = None),
            ("another scheme", "snapshot_notify_url", |d| d.urls.snapshot_notify = Some("ftp://a.example/".into())),
            ("no scheme", "snapshot_notify_url", |d| d.urls.snapshot_notify = Some("a.example/notify".into())),
            ("no host", "snapshot_notify_url", |d| d.urls.snapshot_notify = Some("http://".into())),
            ("fragment", "stream_end_notify_url", |d| d.urls.stream_end_notify = Some("http://a.example/#x".into())),
            ("long URL", "stream_begin_notify_url", |d| {
                d.urls.stream_begin_notify = Some(format!("http://a.example/{}", "x".repeat(2048)))
            }),
        ];
        for (name, field, change) in cases {
            let mut draft = draft();
            change(&mut draft);
            assert_eq!(CallbackTemplate::validate(TemplateId(1), draft).expect_err(name).field, field, "{name}");
        }
    }

    #[test]
    fn masks_keys_and_user_information() {
        let mut draft = draft();
        draft.urls.snapshot_notify = Some("https://me:hunter2@a.example/notify".into());
        let template = CallbackTemplate::validate(TemplateId(1), draft).expect("a template");
        let shown = format!("{template:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("k3yForDocs"), "{shown}");
        let url = template.urls.snapshot_notify.expect("a URL");
        assert_eq!(url.to_string(), "https://***@a.example/notify");
        assert_eq!(url.expose().password(), Some("hunter2"));
    }

    #[test]
    fn a_refused_url_is_not_repeated() {
        let error = CallbackUrl::parse("snapshot_notify_url", "ftp://me:hunter2@a.example/").expect_err("ftp");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
