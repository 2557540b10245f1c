//! Object stores in the cloud or the network, as the file declares them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use framehook_domain::secret::Secret;
use framehook_domain::template::StoreTarget;

use super::problem::Problem;
use super::section::{Overrides, Reader, Section, section};
use super::value::StoreKind;

section! {
    /// An object store beside the local one. A snapshot template says by its bucket and region which one its pictures go to.
    pub struct ObjectStore at "object_store" repeated {
        /// What lists, logs and metrics call it: letters, digits, `_` and `-`. Pictures that wait for a store are found again by
        /// it, so keep it.
        name: String,
        /// `cos` or `s3`.
        kind: StoreKind,
        /// The regions of templates that it takes, as `cos_region` has them. Without any, a `cos` store takes every region but
        /// `local`, and an `s3` store takes its own `region`.
        regions: Vec<String> = "",
        /// Takes only templates with one of these account numbers (`cos_app_id`).
        app_ids: Vec<i64> = "" in "1"..="9223372036854775807",
        /// Takes only these buckets, by their full names (`<cos_bucket>-<cos_app_id>`). Where several stores take a template,
        /// one that names its bucket comes first, then one that names its account, then one that names its region.
        buckets: Vec<String> = "",
        /// Where requests go: `https://HOST`, with `{bucket}` and `{region}` filled in. Without it COS's or AWS's own hosts, over
        /// HTTPS. For a server of your own, such as `http://minio.example.com:9000`, set `path_style` too.
        endpoint: String = "",
        /// Connects to this address instead of where the endpoint's name leads, for private networks without such names.
        connect_to: Option<SocketAddr> = "",
        /// A PEM file of further certificate authorities that the store's certificate may come from.
        ca_file: Option<PathBuf> = "",
        /// The region in signatures of S3. Without it the region of the template; servers of your own often want `us-east-1`.
        region: String = "",
        /// Addresses S3's buckets by the path and not by the host's name.
        path_style: bool = "false",
        /// The buckets are called `<cos_bucket>`, without the `-<cos_app_id>` tail that COS's names have.
        short_bucket_names: bool = "false",
        /// Who may sign: COS's SecretId, S3's access key id. Without it and `credentials_file` the usual variables of the
        /// environment are read at the start: `TENCENTCLOUD_SECRET_ID`, `TENCENTCLOUD_SECRET_KEY` and `TENCENTCLOUD_TOKEN`, or
        /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.
        secret_id: Secret = "",
        /// Its key.
        secret_key: Secret = "",
        /// The token that temporary credentials come with.
        session_token: Secret = "",
        /// A file of credentials: lines `secret_id=…`, `secret_key=…` and `session_token=…`, or an AWS credentials file with one
        /// profile. It is read again when it changes, as temporary credentials do.
        credentials_file: Option<PathBuf> = "",
        /// What a callback's `pic_full_url` starts with, before `/<key>`; `{bucket}` and `{region}` are filled in. Without it
        /// `http://<bucket>.cos.<region>.myqcloud.com`, as CSS has it, or where S3's requests go.
        public_url: String = "",
        /// Signs each `pic_full_url`, for buckets that are not public.
        signed_urls: bool = "false",
        /// How long a signed URL opens its object, from the moment the picture is committed, or from when it is put if less than
        /// half of that is left then. S3 allows 7 days at most, and no URL outlives temporary credentials. Half of the least is
        /// enough for every attempt of the schedule `css`.
        signed_url_life: Duration = "7d" in "1h"..="3650d",
        /// Who may fetch each object: COS's `x-cos-acl` or S3's `x-amz-acl`, such as `public-read`. Without it the bucket decides.
        acl: String = "",
        /// Such as `STANDARD_IA`. Without it the store's own default.
        storage_class: String = "",
        /// Encryption by the store: `AES256`, or `aws:kms` (S3) and `cos/kms` (COS) with a key of its key service.
        encryption: String = "",
        /// The id of that key. Without it the store's default key.
        kms_key_id: String = "",
        /// Time for one upload, from the connection to the answer.
        timeout: Duration = "30s" in "100ms"..="10m",
    }
}

/// Most that S3 takes for the life of a URL.
const S3_URL_LIFE_MAX: Duration = Duration::from_secs(7 * 86_400);

impl ObjectStore {
    /// Every `[[object_store]]`. Credentials that the file leaves out come from the `environment`.
    pub(super) fn read_all(
        root: &toml::Table,
        overrides: &Overrides,
        environment: &[(String, String)],
        problems: &mut Vec<Problem>,
    ) -> Option<Vec<Self>> {
        let written = root.get(Self::TABLE.path).and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut stores: Vec<Self> = Vec::with_capacity(written.len());
        let before = problems.len();
        for (index, item) in written.iter().enumerate() {
            let path = format!("{}[{}]", Self::TABLE.path, index + 1);
            let mut reader =
                Reader { written: item.as_table(), path: path.clone(), overrides, problems: &mut *problems };
            let Some(mut store) = Self::read(&mut reader) else { continue };
            store.take_credentials(environment);
            let wrong = store.wrong().or_else(|| {
                let is_repeated = stores.iter().any(|earlier| earlier.name == store.name);
                is_repeated.then(|| ("name", "is already that of another object store".to_owned()))
            });
            problems.extend(wrong.map(|(field, what)| Problem::in_file(format!("{path}.{field}"), None, what)));
            stores.push(store);
        }
        (problems.len() == before).then_some(stores)
    }

    /// Where requests go, `{bucket}` and `{region}` not yet filled in.
    pub(crate) fn endpoint_template(&self) -> String {
        let given = self.endpoint.trim_end_matches('/');
        match (self.kind, given) {
            (StoreKind::Cos, "") => "https://{bucket}.cos.{region}.myqcloud.com".to_owned(),
            (StoreKind::S3, "") if self.path_style => "https://s3.{region}.amazonaws.com/{bucket}".to_owned(),
            (StoreKind::S3, "") => "https://{bucket}.s3.{region}.amazonaws.com".to_owned(),
            (_, given) if given.contains("{bucket}") => given.to_owned(),
            // A domain of its own leads to one bucket.
            (StoreKind::Cos, given) => given.to_owned(),
            (StoreKind::S3, given) if self.path_style => format!("{given}/{{bucket}}"),
            (StoreKind::S3, given) => match given.split_once("://") {
                Some((scheme, host)) => format!("{scheme}://{{bucket}}.{host}"),
                None => given.to_owned(),
            },
        }
    }

    fn take_credentials(&mut self, environment: &[(String, String)]) {
        if self.credentials_file.is_some() || !self.secret_id.expose().is_empty() {
            return;
        }
        let [id, key, token] = match self.kind {
            StoreKind::Cos => ["TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN"],
            StoreKind::S3 => ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
        };
        let value = |name| {
            let found = environment.iter().find(|(known, _)| known == name);
            Secret::new(found.map_or("", |(_, value)| value))
        };
        (self.secret_id, self.secret_key, self.session_token) = (value(id), value(key), value(token));
    }

    /// The first field that cannot be used.
    fn wrong(&self) -> Option<(&'static str, String)> {
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(in_name) {
            return Some(("name", "allowed: 1 to 64 letters, digits, _ and -".to_owned()));
        }
        if self.name == crate::store::LocalStore::NAME {
            return Some(("name", "is that of the store in the data directory".to_owned()));
        }
        if let Some(region) = self.regions.iter().find(|region| long_region(region).is_none()) {
            return Some((
                "regions",
                format!("{region:?} is no region; allowed: a-z, 0-9 and inner hyphens, not local"),
            ));
        }
        let templates = [("endpoint", &self.endpoint), ("public_url", &self.public_url)];
        for (field, url) in templates.into_iter().filter(|(_, url)| !url.is_empty()) {
            let filled = url.replace("{bucket}", "b-1").replace("{region}", "r-1");
            let parsed = <url::Url as super::value::Value>::parse(&filled);
            if parsed.is_err() {
                return Some((field, "expected an http:// or https:// URL without user, query or fragment".to_owned()));
            }
        }
        let of_bucket = self.endpoint_template().replace("{bucket}", "b-1").replace("{region}", "r-1");
        if <url::Url as super::value::Value>::parse(&of_bucket).is_err() {
            let what = format!(
                "is false, but no bucket's name can stand before an IP address, as in {of_bucket}; allowed: true"
            );
            return Some(("path_style", what));
        }
        if self.kind == StoreKind::Cos
            && !self.endpoint.is_empty()
            && !self.endpoint.contains("{bucket}")
            && self.buckets.len() != 1
        {
            let what = "leads to one bucket: name that alone in buckets, or say with {bucket} where the name goes";
            return Some(("endpoint", what.to_owned()));
        }
        let in_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !self.region.bytes().all(in_host) {
            return Some(("region", "allowed: a-z, 0-9 and hyphens".to_owned()));
        }
        if self.secret_id.expose().is_empty() != self.secret_key.expose().is_empty() {
            return Some(("secret_key", "is required with secret_id, and the other way round".to_owned()));
        }
        if self.secret_id.expose().is_empty() && self.credentials_file.is_none() {
            let what = "is required, or credentials_file, or the variables of the environment that the reference names";
            return Some(("secret_id", what.to_owned()));
        }
        let in_header = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let headers = [
            ("secret_id", self.secret_id.expose()),
            ("session_token", self.session_token.expose()),
            ("acl", &self.acl),
            ("storage_class", &self.storage_class),
            ("kms_key_id", &self.kms_key_id),
        ];
        if let Some((field, _)) = headers.into_iter().find(|(_, text)| !in_header(text)) {
            return Some((field, "allowed: printable ASCII without spaces".to_owned()));
        }
        let encryptions: &[&str] = match self.kind {
            StoreKind::Cos => &["", "AES256", "cos/kms"],
            StoreKind::S3 => &["", "AES256", "aws:kms"],
        };
        if !encryptions.contains(&self.encryption.as_str()) {
            return Some(("encryption", format!("allowed: {}", encryptions[1..].join(" and "))));
        }
        if self.kind == StoreKind::S3 && self.signed_url_life > S3_URL_LIFE_MAX {
            return Some(("signed_url_life", "S3 allows 7d at most".to_owned()));
        }
        if self.kind == StoreKind::S3 && self.regions.is_empty() && long_region(&self.region).is_none() {
            return Some(("regions", "is required: it says which templates' pictures go to this store".to_owned()));
        }
        None
    }
}

/// A region as templates keep it: `beijing` is `ap-beijing`. `None`: it is none that an object store can have.
pub(crate) fn long_region(region: &str) -> Option<String> {
    let target = StoreTarget::new(1, "x", region).ok()?;
    (target.region() != StoreTarget::LOCAL_REGION).then(|| target.region().to_owned())
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};

    fn complaints(table: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let sources = Sources { environment, ..Sources::default() };
        match Config::parse(&format!("[[object_store]]\n{table}"), &sources) {
            Ok(_) => Vec::new(),
            Err(error) => error.problems.iter().map(ToString::to_string).collect(),
        }
    }

    const KEYS: &str = "secret_id = \"AKID\"\nsecret_key = \"hunter2\"\n";

    #[test]
    fn a_store_needs_a_name_a_kind_and_credentials() {
        let whole = format!("name = \"a\"\nkind = \"cos\"\n{KEYS}");
        assert_eq!(complaints(&whole, &[]), Vec::<String>::new());
        let cases = [
            ("no name", format!("kind = \"cos\"\n{KEYS}"), "object_store[1].name"),
            ("another store's name", format!("name = \"local\"\nkind = \"cos\"\n{KEYS}"), "object_store[1].name"),
            ("no kind", format!("name = \"a\"\n{KEYS}"), "object_store[1].kind"),
            ("an unknown kind", format!("name = \"a\"\nkind = \"ftp\"\n{KEYS}"), "object_store[1].kind"),
            ("no credentials", "name = \"a\"\nkind = \"s3\"\nregion = \"x-1\"".to_owned(), "object_store[1].secret_id"),
            ("half of them", "name = \"a\"\nkind = \"s3\"\nsecret_id = \"A\"".to_owned(), "object_store[1].secret_key"),
            ("a region that is the local store's", format!("{whole}regions = [\"local\"]"), "object_store[1].regions"),
            ("an endpoint of another scheme", format!("{whole}endpoint = \"ftp://a\""), "object_store[1].endpoint"),
            ("S3's encryption for COS", format!("{whole}encryption = \"aws:kms\""), "object_store[1].encryption"),
            (
                "an endpoint of one bucket for all of them",
                format!("{whole}endpoint = \"https://pictures.example.com\""),
                "object_store[1].endpoint",
            ),
            (
                "a region that no host can have in it",
                format!("name = \"a\"\nkind = \"s3\"\n{KEYS}regions = [\"ceph\"]\nregion = \"RegionOne\""),
                "object_store[1].region",
            ),
            ("a header that is none", format!("{whole}acl = \"public read\""), "object_store[1].acl"),
            ("S3 without a region", format!("name = \"a\"\nkind = \"s3\"\n{KEYS}"), "object_store[1].regions"),
            (
                "a URL that lives too long for S3",
                format!("name = \"a\"\nkind = \"s3\"\nsigned_url_life = \"8d\"\n{KEYS}"),
                "object_store[1].signed_url_life",
            ),
            (
                "buckets' names before an IP address",
                format!(
                    "name = \"a\"\nkind = \"s3\"\n{KEYS}regions = [\"minio\"]\nendpoint = \"http://10.0.0.5:9000\""
                ),
                "object_store[1].path_style: is false, but no bucket's name can stand before an IP address, as in \
                 http://b-1.10.0.0.5:9000; allowed: true",
            ),
            (
                "the same where it is written out",
                format!("{whole}endpoint = \"http://{{bucket}}.[::1]:9000\""),
                "object_store[1].endpoint",
            ),
        ];
        for (name, table, key) in cases {
            let found = complaints(&table, &[]);
            assert!(found.len() == 1 && found[0].starts_with(key), "{name}: {found:?}");
            assert!(!found[0].contains("hunter2"), "{name}: {found:?}");
        }
    }

    #[test]
    fn a_bucket_at_an_ip_address_stands_in_the_path() {
        for endpoint in ["http://10.0.0.5:9000", "https://[::1]:9000/"] {
            let table = format!(
                "name = \"a\"\nkind = \"s3\"\n{KEYS}regions = [\"minio\"]\nendpoint = \"{endpoint}\"\npath_style = true"
            );
            assert_eq!(complaints(&table, &[]), Vec::<String>::new(), "{endpoint}");
        }
    }

    #[test]
    fn credentials_may_come_from_the_usual_variables() {
        let rows = [
            ("cos", "TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY"),
            ("s3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ];
        for (kind, id, key) in rows {
            let table = format!("name = \"a\"\nkind = \"{kind}\"\nregion = \"eu-west-1\"");
            assert_eq!(complaints(&table, &[(id, "A"), (key, "B")]), Vec::<String>::new(), "{kind}");
            assert!(!complaints(&table, &[(id, "A")]).is_empty(), "{kind}");
        }
    }

    #[test]
    fn a_name_stands_once() {
        let store = format!("name = \"a\"\nkind = \"cos\"\n{KEYS}");
        let found = complaints(&format!("{store}\n[[object_store]]\n{store}"), &[]);
        assert!(found.len() == 1 && found[0].starts_with("object_store[2].name"), "{found:?}");
    }

    #[test]
    fn keys_are_never_shown() {
        let text = format!("[[object_store]]\nname = \"a\"\nkind = \"cos\"\n{KEYS}session_token = \"tok-abc\"");
        let config = Config::parse(&text, &Sources::default()).expect("a configuration");
        let shown = format!("{:?}", config.object_stores);
        assert!(!shown.contains("hunter2") && !shown.contains("tok-abc") && !shown.contains("AKID"), "{shown}");
    }
}
