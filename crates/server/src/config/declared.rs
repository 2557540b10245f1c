//! Domains, templates and rules as the file declares them. Field names and meanings are CSS's, in snake case; the
//! sections are those of the callback and snapshot templates of its API (`spec` 4.1 and 5).

use std::time::Duration;

use framehook_domain::secret::Secret;

use super::problem::Problem;
use super::section::{Overrides, Reader, Section, section};
use super::value::PushAuth;

section! {
    /// A push domain: the host name in the encoder's URL. As soon as a domain, template or rule exists, publishers of any
    /// other host are refused.
    pub struct Domain at "domain" repeated {
        /// The host name, lower case, at most 45 characters. An address is allowed too.
        name: String,
        /// Whether publishers of this domain are accepted at all.
        enabled: bool = "true",
        /// Whether publishers need `txSecret` and `txTime`.
        auth: PushAuth = "on",
        /// The key that `txSecret` is made with. Required unless `auth` is off.
        main_key: Secret = "",
        /// A second key that is accepted too, for changing keys without a gap.
        backup_key: Secret = "",
        /// Time after `txTime` for which a URL is still accepted.
        auth_delta: Duration = "0" in "0"..="30d",
    }
}

section! {
    /// How to make a snapshot, and where it goes.
    pub struct SnapshotTemplate at "snapshot_template" repeated {
        /// How rules refer to it: 1 to 255 bytes of letters, digits, `_`, `-`, `.` and spaces.
        name: String,
        /// For people; at most 1024 bytes.
        description: String = "",
        /// The tail of the bucket's full name; `app_id` where it is left out.
        cos_app_id: Option<u64> = "" in "1"..="9223372036854775807",
        /// The bucket without that tail. The local store keeps it as a directory.
        cos_bucket: String = "framehook",
        /// The bucket's region. The local store has only `local`.
        cos_region: String = "local",
        /// Time from one picture to the next.
        snapshot_interval: Duration = "10s" in "2s"..="300s",
        /// Width in pixels; 0 follows the height, or the picture.
        width: u32 = "0" in "0"..="3000",
        /// Height in pixels; 0 follows the width, or the picture.
        height: u32 = "0" in "0"..="2000",
        /// JPEG quality. CSS does not say; 85 looks the same as 95 at a third of the bytes.
        jpeg_quality: u32 = "85" in "1"..="100",
        /// The folder. Placeholders: `{AppName}`, `{PushDomain}`, `{StreamID}`, `{Year}`, `{Month}`, `{Day}`, `{Hour}`,
        /// `{Minute}`, `{Second}`, `{Width}`, `{Height}`, `{Ext}`.
        cos_prefix: String = "/{Year}-{Month}-{Day}",
        /// The file's name, with the same placeholders.
        cos_file_name: String = "{StreamID}-screenshot-{Hour}-{Minute}-{Second}-{Width}x{Height}{Ext}",
    }
}

section! {
    /// Who is told what. A URL that is left out means that its event is not sent.
    pub struct CallbackTemplate at "callback_template" repeated {
        /// How rules refer to it: 1 to 255 bytes of letters, digits, `_`, `-`, `.` and spaces.
        name: String,
        /// For people; at most 1024 bytes.
        description: String = "",
        /// The key that callbacks are signed with, at most 128 bytes. Without it `t` and `sign` are left out.
        callback_key: Secret = "",
        /// Receives event 200: a snapshot is stored.
        snapshot_notify_url: Secret = "",
        /// Receives event 1: a push began.
        stream_begin_notify_url: Secret = "",
        /// Receives event 0: a push ended.
        stream_end_notify_url: Secret = "",
        /// Whether a receiver's certificate must be good. Turn it off for a private authority only.
        verify_tls: bool = "true",
    }
}

section! {
    /// Which streams a snapshot template is for. The most specific rule that matches is the one that counts.
    pub struct SnapshotRule at "snapshot_rule" repeated {
        /// A push domain.
        domain: String,
        /// The first part of the push path; `*` is every app.
        app: String = "live",
        /// The stream name; empty is every stream.
        stream: String = "",
        /// The name of a snapshot template.
        template: String,
    }
}

section! {
    /// Which streams a callback template is for.
    pub struct CallbackRule at "callback_rule" repeated {
        /// A push domain.
        domain: String,
        /// The first part of the push path; `*` is every app.
        app: String = "live",
        /// The name of a callback template.
        template: String,
    }
}

/// All that the file declares, in its order.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// `[[domain]]`
    pub domains: Vec<Domain>,
    /// `[[snapshot_template]]`
    pub snapshot_templates: Vec<SnapshotTemplate>,
    /// `[[callback_template]]`
    pub callback_templates: Vec<CallbackTemplate>,
    /// `[[snapshot_rule]]`
    pub snapshot_rules: Vec<SnapshotRule>,
    /// `[[callback_rule]]`
    pub callback_rules: Vec<CallbackRule>,
}

impl Declared {
    pub(super) fn read(root: &toml::Table, overrides: &Overrides, problems: &mut Vec<Problem>) -> Option<Self> {
        fn list<S: Section>(root: &toml::Table, overrides: &Overrides, problems: &mut Vec<Problem>) -> Option<Vec<S>> {
            let path = S::TABLE.path;
            let items = root.get(path).and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let read = items.iter().enumerate().map(|(index, item)| {
                let path = format!("{path}[{}]", index + 1);
                S::read(&mut Reader { written: item.as_table(), path, overrides, problems: &mut *problems })
            });
            // Collected in two steps, so that a failure does not end the reading of those after it.
            read.collect::<Vec<Option<S>>>().into_iter().collect()
        }
        let domains = list(root, overrides, problems);
        let snapshot_templates = list(root, overrides, problems);
        let callback_templates = list(root, overrides, problems);
        let snapshot_rules = list(root, overrides, problems);
        let callback_rules = list(root, overrides, problems);
        Some(Self {
            domains: domains?,
            snapshot_templates: snapshot_templates?,
            callback_templates: callback_templates?,
            snapshot_rules: snapshot_rules?,
            callback_rules: callback_rules?,
        })
    }
}
