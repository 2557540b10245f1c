//! Domains, templates and rules as the file declares them. Field names and meanings are CSS's, in snake case, so that a
//! person who knows its API knows this file.

mod rendition;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use framehook_domain::catalog::{Domain, PushAuth};
use framehook_domain::field::FieldError;
use framehook_domain::id::TemplateId;
use framehook_domain::push_auth::{PushKey, PushKeys};
use framehook_domain::retry::Plan;
use framehook_domain::rule::RuleScope;
use framehook_domain::secret::Secret;
use framehook_domain::stream::DomainName;
use framehook_domain::template::{
    CallbackTemplate, CallbackTemplateDraft, CallbackUrls, SendingDraft, SigningDraft, SnapshotTemplate,
    SnapshotTemplateDraft,
};

pub(super) use rendition::SnapshotRenditionTable;
use rendition::{add_renditions, snapshot_rendition};

use super::problem::{Problem, nearest};
use super::section::{Overrides, Reader, Section, Table, section};
use super::value::Switch;
use crate::notify::tls::check_authorities;
use crate::telemetry::event::Chain;

section! {
    /// A push domain: the host name in the encoder's URL. As soon as a domain, template or rule exists, publishers of any
    /// other host are refused.
    pub(super) struct DomainTable at "domain" repeated {
        /// The host name, lower case, at most 45 characters. An address is allowed too.
        name: String,
        /// Whether publishers of this domain are accepted at all.
        enabled: bool = "true",
        /// Whether publishers need `txSecret` and `txTime`.
        auth: Switch = "on",
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
    pub(super) struct SnapshotTemplateTable at "snapshot_template" repeated {
        /// How rules refer to it: 1 to 255 bytes of letters, digits, `_`, `-`, `.` and spaces.
        name: String,
        /// For people; at most 1024 bytes.
        description: String = "",
        /// The tail of the bucket's full name; `app_id` where it is left out.
        cos_app_id: Option<i64> = "" in "1"..="9223372036854775807",
        /// The bucket without that tail. The local store keeps it as a directory.
        cos_bucket: String = "framehook",
        /// The region, which says with bucket and account what store the pictures go to: `local` is the data directory, and so is
        /// any other as long as there is no `[[object_store]]`. A name without a hyphen is short for `ap-` and it, as with COS:
        /// `beijing` is `ap-beijing`.
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
        /// `sequence`: each picture is an object of its own, and announced. `latest`: each overwrites the one before, and none
        /// is announced. `both`: both.
        objects: String = "sequence",
        /// The key of the object that is overwritten: `{AppName}`, `{PushDomain}`, `{StreamID}`, `{Rendition}`, `{Ext}`, and `/`
        /// between levels.
        latest_key: String = "latest/{PushDomain}/{AppName}/{StreamID}{Ext}",
        /// Days after which pictures are removed; 0 keeps them. It applies to those that are there, too, as far as they are
        /// remembered.
        retention_days: u32 = "0" in "0"..="3650",
    }
}

section! {
    /// Who is told what. A URL that is left out means that its event is not sent.
    pub(super) struct CallbackTemplateTable at "callback_template" repeated {
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
        /// Whether a receiver's certificate must be good. Without that, whoever can answer in a receiver's place gets its
        /// callbacks; for an authority of your own, name it with `ca_file` instead.
        verify_tls: bool = "true",
        /// A PEM file of authorities that receivers may have their certificates from, beside those that the machine trusts. It
        /// is read with this file, at the start and at a reload.
        ca_file: Option<PathBuf> = "",
        /// A second key that signs too: the one before, while receivers may still have it alone. Take it away when none has.
        previous_callback_key: Secret = "",
        /// A private ed25519 key, `whsk_` and base64. With it `webhook-signature` also holds a `v1a` signature, for receivers
        /// that are to check callbacks and not to make them.
        ed25519_key: Secret = "",
        /// When a callback that failed is sent again. `css`: in the steps of `[deliver]`, whatever the receiver answers.
        /// `patient`: in ever longer steps with jitter, from 5 s to 1 h, for 24 hours; `Retry-After` is heeded, and 410 ends it.
        schedule: Plan = "css",
        /// Time for a connection to one of the receiver's addresses, TLS included. Without it, an equal share of the rest.
        connect_timeout: Option<Duration> = "" in "100ms"..="1m",
        /// Time for one attempt; `deliver.timeout` where it is left out.
        timeout: Option<Duration> = "" in "100ms"..="5m",
        /// Dead letters no older than this are sent again by themselves, once each, when their receiver takes callbacks again.
        /// Without it they wait for a person.
        replay_recovered: Option<Duration> = "" in "1m"..="30d",
    }
}

section! {
    /// Which streams a snapshot template is for. The most specific rule that matches is the one that counts.
    pub(super) struct SnapshotRuleTable at "snapshot_rule" repeated {
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
    pub(super) struct CallbackRuleTable at "callback_rule" repeated {
        /// A push domain.
        domain: String,
        /// The first part of the push path; `*` is every app.
        app: String = "live",
        /// The name of a callback template.
        template: String,
    }
}

/// All that the file declares, each part valid on its own and fitting the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// `[[domain]]`
    pub domains: Vec<Domain>,
    /// `[[snapshot_template]]`, each with id 0: the database gives out ids.
    pub snapshot_templates: Vec<SnapshotTemplate>,
    /// `[[callback_template]]`, each with id 0.
    pub callback_templates: Vec<CallbackTemplate>,
    /// `[[snapshot_rule]]`
    pub snapshot_rules: Vec<DeclaredRule>,
    /// `[[callback_rule]]`
    pub callback_rules: Vec<DeclaredRule>,
}

/// A rule that refers to its template by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredRule {
    /// What it applies to.
    pub scope: RuleScope,
    /// The name of a template of its kind, which is declared too.
    pub template: String,
}

/// An id that no template has: the database gives out ids from 1.
const NOT_STORED: TemplateId = TemplateId(0);

impl Declared {
    pub(super) fn read(
        root: &toml::Table,
        overrides: &Overrides,
        app_id: i64,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let domains = items(root, overrides, problems, domain);
        let snapshot_templates = items(root, overrides, problems, |table| snapshot_template(table, app_id));
        let callback_templates = items(root, overrides, problems, callback_template);
        let renditions = items(root, overrides, problems, |table| Ok(snapshot_rendition(table)));
        let snapshot_rules = items(root, overrides, problems, snapshot_rule);
        let callback_rules = items(root, overrides, problems, callback_rule);
        let mut snapshot_templates = snapshot_templates?;
        add_renditions(&mut snapshot_templates, renditions?, problems);
        let declared = Self {
            domains: domains?,
            snapshot_templates,
            callback_templates: callback_templates?,
            snapshot_rules: snapshot_rules?,
            callback_rules: callback_rules?,
        };
        declared.check_together(problems);
        Some(declared)
    }

    fn check_together(&self, problems: &mut Vec<Problem>) {
        let domains: Vec<&DomainName> = self.domains.iter().map(|domain| &domain.name).collect();
        let snapshot_templates: Vec<&str> = self.snapshot_templates.iter().map(|template| &*template.name).collect();
        let callback_templates: Vec<&str> = self.callback_templates.iter().map(|template| &*template.name).collect();
        refuse_repeats(&DomainTable::TABLE, "name", &domains, problems);
        refuse_repeats(&SnapshotTemplateTable::TABLE, "name", &snapshot_templates, problems);
        refuse_repeats(&CallbackTemplateTable::TABLE, "name", &callback_templates, problems);
        check_rules(&SnapshotRuleTable::TABLE, &self.snapshot_rules, &domains, &snapshot_templates, problems);
        check_rules(&CallbackRuleTable::TABLE, &self.callback_rules, &domains, &callback_templates, problems);
    }
}

/// Reads every item of one array of tables and turns it into what it declares. `None` if one could not be; the others are
/// read nevertheless, so that all problems are found.
fn items<S: Section, T>(
    root: &toml::Table,
    overrides: &Overrides,
    problems: &mut Vec<Problem>,
    declare: impl Fn(S) -> Result<T, Refused>,
) -> Option<Vec<T>> {
    let written = root.get(S::TABLE.path).and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut all = Some(Vec::with_capacity(written.len()));
    for (index, item) in written.iter().enumerate() {
        let path = item_path(&S::TABLE, index);
        let mut reader = Reader { written: item.as_table(), path: path.clone(), overrides, problems: &mut *problems };
        let declared = S::read(&mut reader).and_then(|table| {
            let declared = declare(table);
            declared.map_err(|refused| problems.push(refused.at(&path))).ok()
        });
        match (declared, &mut all) {
            (Some(declared), Some(all)) => all.push(declared),
            (None, _) => all = None,
            (Some(_), None) => {}
        }
    }
    all
}

/// `snapshot_rule[2]`: items are counted from 1, as people do.
fn item_path(table: &Table, index: usize) -> String {
    format!("{}[{}]", table.path, index + 1)
}

/// A value that the domain does not accept, under the name that this file has for it.
struct Refused {
    field: &'static str,
    value: Option<String>,
    what: String,
}

impl Refused {
    fn at(self, path: &str) -> Problem {
        Problem::in_file(format!("{path}.{}", self.field), self.value, self.what)
    }
}

/// Names a refused value as the file does: `renamed` maps the domain's field names where they differ from the file's.
fn refused(error: FieldError, renamed: &[(&str, &'static str)]) -> Refused {
    let field = renamed.iter().find(|(domain, _)| *domain == error.field).map_or(error.field, |&(_, file)| file);
    Refused { field, value: Some(format!("{:?}", error.value)), what: format!("allowed: {}", error.allowed) }
}

fn domain(table: DomainTable) -> Result<Domain, Refused> {
    let name = DomainName::parse(&table.name).map_err(|error| refused(error, &[("domain", "name")]))?;
    let key = |field: &'static str, key: &Secret| -> Result<Option<PushKey>, Refused> {
        if key.expose().is_empty() {
            return Ok(None);
        }
        PushKey::parse(key.expose()).map(Some).map_err(|error| refused(error, &[("push_key", field)]))
    };
    let main = key("main_key", &table.main_key)?;
    let backup = key("backup_key", &table.backup_key)?;
    let enabled = table.auth == Switch::On;
    let auth = match (main, enabled || backup.is_some()) {
        (Some(main), _) => Some(PushAuth { enabled, keys: PushKeys { main, backup, auth_delta: table.auth_delta } }),
        (None, false) => None,
        (None, true) => {
            let what = "is required; set it, or let anybody publish with auth = \"off\"".to_owned();
            return Err(Refused { field: "main_key", value: None, what });
        }
    };
    Ok(Domain { name, enabled: table.enabled, auth })
}

fn snapshot_template(table: SnapshotTemplateTable, app_id: i64) -> Result<SnapshotTemplate, Refused> {
    let secs = table.snapshot_interval.as_secs();
    if Duration::from_secs(secs) != table.snapshot_interval {
        let value = Some(format!("{:?}", table.snapshot_interval));
        return Err(Refused { field: "snapshot_interval", value, what: "must be whole seconds".to_owned() });
    }
    let draft = SnapshotTemplateDraft {
        name: table.name,
        description: Some(table.description),
        interval_secs: Some(i64::try_from(secs).unwrap_or(i64::MAX)),
        width: Some(table.width.into()),
        height: Some(table.height.into()),
        jpeg_quality: Some(table.jpeg_quality.into()),
        porn_flag: None,
        app_id: table.cos_app_id.unwrap_or(app_id),
        bucket: table.cos_bucket,
        region: table.cos_region,
        prefix: Some(table.cos_prefix),
        file_name: Some(table.cos_file_name),
        objects: Some(table.objects),
        latest_key: Some(table.latest_key),
        retention_days: (table.retention_days > 0).then(|| table.retention_days.into()),
        renditions: Vec::new(),
    };
    let renamed = [
        ("interval", "snapshot_interval"),
        ("app_id", "cos_app_id"),
        ("bucket", "cos_bucket"),
        ("region", "cos_region"),
        ("prefix", "cos_prefix"),
        ("file_name", "cos_file_name"),
    ];
    SnapshotTemplate::validate(NOT_STORED, draft).map_err(|error| refused(error, &renamed))
}

fn callback_template(table: CallbackTemplateTable) -> Result<CallbackTemplate, Refused> {
    let authorities = table.ca_file.as_deref().map(authorities).transpose()?;
    let url = |secret: Secret| Some(secret.expose().to_owned());
    let draft = CallbackTemplateDraft {
        name: table.name,
        description: Some(table.description),
        signing: SigningDraft {
            key: Some(table.callback_key.expose().to_owned()),
            previous_key: Some(table.previous_callback_key.expose().to_owned()),
            previous_key_until: None,
            ed25519_key: Some(table.ed25519_key.expose().to_owned()),
        },
        sending: SendingDraft {
            schedule: Some(table.schedule.name().to_owned()),
            connect_timeout: table.connect_timeout,
            timeout: table.timeout,
            replay_recovered: table.replay_recovered,
        },
        urls: CallbackUrls {
            snapshot_notify: url(table.snapshot_notify_url),
            stream_begin_notify: url(table.stream_begin_notify_url),
            stream_end_notify: url(table.stream_end_notify_url),
            ..CallbackUrls::default()
        },
        record_exception_levels: Vec::new(),
        verify_tls: Some(table.verify_tls),
        authorities,
    };
    let renamed = [("key", "callback_key"), ("previous_key", "previous_callback_key"), ("ca_certificates", "ca_file")];
    let template = CallbackTemplate::validate(NOT_STORED, draft).map_err(|error| refused(error, &renamed))?;
    if let Some(authorities) = &template.authorities {
        check_authorities(authorities).map_err(|error| ca_file_refused(Chain(&error).to_string()))?;
    }
    Ok(template)
}

/// Most that is read of a file of authorities: a byte more than a template takes, which then says so.
const CA_FILE_BYTES_MAX: u64 = (64 << 10) + 1;

fn authorities(path: &Path) -> Result<String, Refused> {
    let mut pem = String::new();
    let file = File::open(path).map(|file| file.take(CA_FILE_BYTES_MAX));
    match file.and_then(|mut file| file.read_to_string(&mut pem)) {
        Ok(_) => Ok(pem),
        Err(error) => Err(ca_file_refused(format!("{} cannot be read: {error}", path.display()))),
    }
}

fn ca_file_refused(what: String) -> Refused {
    Refused { field: "ca_file", value: None, what }
}

fn snapshot_rule(table: SnapshotRuleTable) -> Result<DeclaredRule, Refused> {
    rule(&table.domain, &table.app, &table.stream, table.template)
}

fn callback_rule(table: CallbackRuleTable) -> Result<DeclaredRule, Refused> {
    rule(&table.domain, &table.app, "", table.template)
}

fn rule(domain: &str, app: &str, stream: &str, template: String) -> Result<DeclaredRule, Refused> {
    let scope = RuleScope::parse(domain, app, stream).map_err(|error| refused(error, &[]))?;
    Ok(DeclaredRule { scope, template })
}

/// Reports every item whose identity an earlier one has.
fn refuse_repeats<T: Ord + ToString>(table: &Table, field: &str, values: &[T], problems: &mut Vec<Problem>) {
    let mut first = BTreeMap::new();
    for (index, value) in values.iter().enumerate() {
        let earlier = *first.entry(value).or_insert(index);
        if earlier != index {
            let what = format!("is already that of {}", item_path(table, earlier));
            let key = format!("{}.{field}", item_path(table, index));
            problems.push(Problem::in_file(key, Some(format!("{:?}", value.to_string())), what));
        }
    }
}

fn check_rules(
    table: &Table,
    rules: &[DeclaredRule],
    domains: &[&DomainName],
    templates: &[&str],
    problems: &mut Vec<Problem>,
) {
    let scopes: Vec<&RuleScope> = rules.iter().map(|rule| &rule.scope).collect();
    refuse_repeats(table, "domain", &scopes, problems);
    for (index, DeclaredRule { scope, template }) in rules.iter().enumerate() {
        let path = item_path(table, index);
        if !domains.contains(&&scope.domain) {
            let known = domains.iter().map(|domain| domain.as_str());
            problems.push(unknown(format!("{path}.domain"), scope.domain.as_str(), "domain", known));
        }
        if !templates.contains(&&**template) {
            problems.push(unknown(format!("{path}.template"), template, "template", templates.iter().copied()));
        }
    }
}

/// A rule refers to something that the file does not declare.
fn unknown<'a>(key: String, name: &str, noun: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    let what = match nearest(name, known) {
        Some(meant) => format!("is no {noun} of this file; did you mean {meant:?}?"),
        None => format!("is no {noun} of this file"),
    };
    Problem::in_file(key, Some(format!("{name:?}")), what)
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};

    pub(super) fn complaints(text: &str) -> Vec<String> {
        let error = Config::parse(text, &Sources::default()).expect_err("the text has problems");
        error.problems.iter().map(ToString::to_string).collect()
    }

    pub(super) const WHOLE: &str = r#"
        [[domain]]
        name = "Push.Example.com"
        main_key = "main"
        [[snapshot_template]]
        name = "covers"
        snapshot_interval = "5s"
        retention_days = 7
        [[callback_template]]
        name = "moderation"
        snapshot_notify_url = "https://user:hunter2@receiver.example.com/?action=snapshot"
        [[snapshot_rule]]
        domain = "push.example.com"
        app = "*"
        template = "covers"
        [[callback_rule]]
        domain = "push.example.com"
        template = "moderation"
    "#;

    #[test]
    fn reads_one_of_each() {
        let config = Config::parse(WHOLE, &Sources::default()).unwrap_or_else(|error| panic!("{:?}", error.problems));
        let declared = &config.declared;
        assert_eq!(declared.domains[0].name.as_str(), "push.example.com");
        assert!(declared.domains[0].keys_to_check().is_some());
        let template = &declared.snapshot_templates[0];
        assert_eq!((template.interval.secs(), template.jpeg_quality, template.store.app_id()), (5, 85, 1_250_000_000));
        assert_eq!(template.retention_days, Some(7));
        assert_eq!(declared.snapshot_rules[0].scope.to_string(), "push.example.com/*/*");
        assert_eq!(declared.callback_rules[0].scope.to_string(), "push.example.com/live/*");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn the_deployments_account_number_is_the_buckets_where_none_is_given() {
        let config = Config::parse(&format!("app_id = 7\n{WHOLE}"), &Sources::default()).expect("valid");
        assert_eq!(config.declared.snapshot_templates[0].store.full_bucket(), "framehook-7");
    }

    #[test]
    fn refused_values_go_by_the_names_of_the_file() {
        let text = r#"
            [[domain]]
            name = "no_keys.example.com"
            [[domain]]
            name = "-"
            [[domain]]
            name = "b.example.com"
            auth = "off"
            backup_key = "b"
            [[snapshot_template]]
            name = "a"
            snapshot_interval = "2500ms"
            [[snapshot_template]]
            name = "b"
            cos_bucket = "Upper"
            [[snapshot_template]]
            name = "c"
            cos_file_name = "{Nope}"
            [[callback_template]]
            name = "nobody"
            [[callback_template]]
            name = "url"
            snapshot_notify_url = "ftp://user:hunter2@receiver.example.com"
            [[snapshot_rule]]
            domain = "push.example.com"
            stream = "a/b"
            template = "covers"
        "#;
        let complaints = complaints(text);
        let keys: Vec<&str> = complaints.iter().map(|line| line.split([' ', ':']).next().unwrap_or_default()).collect();
        assert_eq!(
            keys,
            [
                "domain[1].main_key",
                "domain[2].name",
                "domain[3].main_key",
                "snapshot_template[1].snapshot_interval",
                "snapshot_template[2].cos_bucket",
                "snapshot_template[3].cos_file_name",
                "callback_template[1].snapshot_notify_url",
                "callback_template[2].snapshot_notify_url",
                "snapshot_rule[1].stream",
            ],
            "{complaints:#?}"
        );
        assert!(!complaints.concat().contains("hunter2"), "{complaints:#?}");
    }

    #[test]
    fn parts_must_fit_together() {
        let text = format!(
            r#"{WHOLE}
            [[domain]]
            name = "push.example.com"
            auth = "off"
            [[snapshot_template]]
            name = "covers"
            [[snapshot_rule]]
            domain = "push.example.com"
            app = ""
            template = "cover"
            [[callback_rule]]
            domain = "pull.example.com"
            template = "covers"
            "#
        );
        assert_eq!(
            complaints(&text),
            [
                "domain[2].name = \"push.example.com\": is already that of domain[1]",
                "snapshot_template[2].name = \"covers\": is already that of snapshot_template[1]",
                "snapshot_rule[2].domain = \"push.example.com/*/*\": is already that of snapshot_rule[1]",
                "snapshot_rule[2].template = \"cover\": is no template of this file; did you mean \"covers\"?",
                "callback_rule[2].domain = \"pull.example.com\": is no domain of this file; did you mean \"push.example.com\"?",
                "callback_rule[2].template = \"covers\": is no template of this file",
            ]
        );
    }
}
