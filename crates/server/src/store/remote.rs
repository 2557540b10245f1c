//! Object stores over HTTP: Tencent COS with its own signature, and S3 with everything that speaks it.
//!
//! Signing S3's requests is `rusty-s3`'s work, connections are hyper's; what is said and when, and what an answer means for
//! the picture, is ours. A put carries the body's MD5 under its signature, so that bytes that are damaged on the way are
//! refused by the store and sent again.

mod answer;
mod client;
mod cos_signature;
mod dialect;
mod keys;
pub mod lifecycle;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use framehook_domain::object_key::pic_full_url;
use framehook_domain::time::{Mono, UnixMs};
use http_body_util::Full;
use hyper::header::{CONTENT_LENGTH, DATE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use md5::{Digest as _, Md5};
use url::Url;

use super::{Answer, Bucket, ObjectStore, Probe, StoreError, URL_LIFE_LEFT_MIN, Upload};
use crate::clock::Clock;
use crate::config::{ObjectStore as Settings, StoreKind};
use crate::fail_point;
use crate::telemetry::event::Chain;
use answer::is_done;
use client::{Answered, Client, NoAnswer};
use dialect::{Dialect, Unsigned};
use keys::{Credentials, Keys};
use lifecycle::{Merged, RuleError};

pub use answer::Refusal;

/// Sets of bucket and days whose rule this process has seen to, some hundred bytes each. Forgetting them costs two requests.
const RULES_REMEMBERED_MAX: usize = 10_000;

/// A store that is reached over HTTP.
#[derive(Debug)]
pub struct Remote {
    dialect: Dialect,
    /// Where requests go, with `{bucket}` and `{region}` to be filled in.
    endpoint: String,
    public_url: String,
    /// Signs for this region, or for that of the bucket.
    region: Option<String>,
    client: Client,
    keys: Keys,
    clock: Clock,
    /// What each object is put with, by the names that the store has for it.
    object_headers: Vec<(String, String)>,
    signed_url_life_secs: Option<u32>,
    /// Buckets and days whose lifecycle rule has been seen to, and when one that could not be made is tried again.
    rules: Mutex<HashMap<(String, u32), Option<Mono>>>,
    /// For each bucket to which rules are added: held while one is, since a bucket's rules are one document, and two that are
    /// added at once would lose one. A bucket that hangs holds up no other.
    adding: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Remote {
    /// `tls` trusts whom the store's certificate may come from. Nothing is sent yet.
    pub fn new(settings: &Settings, tls: rustls::ClientConfig, clock: Clock) -> Self {
        let dialect = match settings.kind {
            StoreKind::Cos => Dialect::Cos,
            StoreKind::S3 => Dialect::S3,
        };
        let keys = match &settings.credentials_file {
            Some(path) => Keys::file(path),
            None => Keys::Fixed(Arc::new(Credentials::new(
                &settings.secret_id,
                &settings.secret_key,
                &settings.session_token,
            ))),
        };
        let object_headers = [
            (dialect.header("acl"), &settings.acl),
            (dialect.header("storage-class"), &settings.storage_class),
            (dialect.header("server-side-encryption"), &settings.encryption),
            (dialect.kms_key_header(), &settings.kms_key_id),
        ];
        let life = settings.signed_urls.then_some(settings.signed_url_life.as_secs());
        let endpoint = settings.endpoint_template();
        Self {
            dialect,
            public_url: match (settings.public_url.as_str(), settings.kind) {
                ("", StoreKind::Cos) if settings.endpoint.is_empty() => {
                    // As in every sample that was published: plain HTTP.
                    "http://{bucket}.cos.{region}.myqcloud.com".to_owned()
                }
                ("", _) => endpoint.clone(),
                (url, _) => url.to_owned(),
            },
            endpoint,
            region: (!settings.region.is_empty()).then(|| settings.region.clone()),
            client: Client::new(tls, settings.connect_to, settings.timeout),
            keys,
            clock,
            object_headers: object_headers
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name, value.clone()))
                .collect(),
            signed_url_life_secs: life.map(|secs| u32::try_from(secs).unwrap_or(u32::MAX)),
            rules: Mutex::default(),
            adding: Mutex::default(),
        }
    }

    /// The region that a bucket's requests are signed for, and that its names have in them.
    fn region<'a>(&'a self, bucket: Bucket<'a>) -> &'a str {
        match (self.dialect, &self.region) {
            (Dialect::S3, Some(region)) => region,
            _ => bucket.region,
        }
    }

    /// The URL of an object, or of the bucket with an empty key.
    fn url(&self, template: &str, bucket: Bucket<'_>, key: &str) -> Result<Url, StoreError> {
        let no_url = || StoreError::NoUrl { bucket: bucket.name.to_owned() };
        let in_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        let is_label = |text: &str| !text.is_empty() && text.bytes().all(in_host);
        // URLs resolve such levels, which would lead to another object or out of the bucket.
        let climbs = key.split('/').any(|level| level == "." || level == "..");
        let region = self.region(bucket);
        if climbs || key.starts_with('/') {
            return Err(StoreError::UnsafeName { bucket: bucket.name.to_owned(), key: key.to_owned() });
        }
        if !is_label(bucket.name) || !is_label(region) {
            return Err(no_url());
        }
        let base = template.replace("{bucket}", bucket.name).replace("{region}", region);
        format!("{}/{}", base.trim_end_matches('/'), encode_path(key)).parse().map_err(|_| no_url())
    }

    /// One signed request and its answer, whatever its status.
    async fn call(&self, call: Call<'_>) -> Result<Answered, StoreError> {
        let Call { method, bucket, key, parameters, headers, body } = call;
        let credentials = self.keys.current(self.clock.mono())?;
        let url = self.url(&self.endpoint, bucket, key)?;
        let path = meant_path(&url);
        let mut headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        headers.sort_unstable();
        let content_length = (method == rusty_s3::Method::Put).then_some(body.len());
        let unsigned = Unsigned {
            method,
            url: &url,
            path: &path,
            parameters,
            headers: &headers,
            content_length,
            region: self.region(bucket),
        };
        let proof = self.dialect.sign(&unsigned, &credentials, self.clock.wall());
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Unreachable {
            host: dialect::host(&url),
            source,
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::from_bytes(method.to_str().as_bytes()).expect("a method of HTTP");
        *request.uri_mut() = proof.url.as_str().parse().map_err(|error| broken(Box::new(error)))?;
        let sent = request.headers_mut();
        sent.insert(USER_AGENT, HeaderValue::from_static(concat!("Framehook/", env!("CARGO_PKG_VERSION"))));
        sent.insert(HOST, value(&dialect::host(&url)).map_err(broken)?);
        if let Some(length) = content_length {
            // Also for an empty body, which would go without.
            sent.insert(CONTENT_LENGTH, length.into());
        }
        let proof_headers = proof.headers.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, text) in headers.iter().copied().chain(proof_headers) {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| broken(Box::new(error)))?;
            let mut value = value(text).map_err(broken)?;
            value.set_sensitive(name == "authorization" || name.as_str().ends_with("security-token"));
            sent.insert(name, value);
        }
        self.client.send(request).await.map_err(|error| match error {
            NoAnswer::TimedOut(waited) => StoreError::TimedOut { host: dialect::host(&url), waited },
            NoAnswer::Broken(source) => broken(source),
        })
    }

    /// How far this machine's clock is ahead of the store's, in seconds; `None`: the answer does not say what time it is.
    fn clock_ahead_secs(&self, answered: &Answered) -> Option<i64> {
        let date = answered.headers.get(DATE)?.to_str().ok()?;
        let date = jiff::fmt::rfc2822::parse(date).ok()?;
        Some(self.clock.wall().secs() - date.timestamp().as_second())
    }

    fn refused(&self, bucket: Bucket<'_>, key: &str, answered: &Answered) -> StoreError {
        let clock_is_off = self.clock_ahead_secs(answered).is_some_and(|ahead| self.dialect.refuses_clock(ahead));
        let (bucket, key) = (bucket.name.to_owned(), key.to_owned());
        StoreError::Answered { bucket, key, refusal: Box::new(Refusal::of(answered, clock_is_off)) }
    }

    /// Why a bucket does not show itself. A HEAD is answered without a document, which would tell a wrong key from a missing
    /// right: a list of one object is asked for, to be told with one.
    async fn refused_to_show(&self, bucket: Bucket<'_>, head: &Answered) -> StoreError {
        let list = Call { parameters: &[("max-keys", "1")], ..Call::of(rusty_s3::Method::Get, bucket, "") };
        match self.call(list).await {
            Ok(answered) if !is_done(answered.status) => self.refused(bucket, "", &answered),
            // It may be listed and not be asked for, or cannot be reached any more: all that is known is what was said before.
            Ok(_) | Err(_) => self.refused(bucket, "", head),
        }
    }

    /// Sees to it, once, that the bucket removes objects after so many days. A put does not fail by it: the picture matters
    /// more than its end.
    async fn keep_for(&self, bucket: Bucket<'_>, days: u32) {
        let (rule, now) = ((bucket.name.to_owned(), days), self.clock.mono());
        {
            let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
            if rules.get(&rule).is_some_and(|again| again.is_none_or(|again| now < again)) {
                return;
            }
            if rules.len() >= RULES_REMEMBERED_MAX {
                rules.clear();
            }
            // Noted before it is tried: puts that come meanwhile do not wait, nor do they write the same document.
            rules.insert(rule.clone(), None);
        }
        // The picture waits for this, so what others add to the same bucket, one after the other, is part of the time too.
        let added = tokio::time::timeout(self.client.timeout(), self.add_rule(bucket, days)).await;
        if let Err(error) = added.unwrap_or_else(|_| Err(RuleError::TimedOut(self.client.timeout()))) {
            tracing::warn!(
                bucket = bucket.name,
                days,
                error = %Chain(&error),
                rule = lifecycle::rule(days),
                "the bucket's lifecycle rule could not be made; until somebody adds it, these objects are kept"
            );
            let again = self.clock.mono().plus(error.again());
            self.rules.lock().unwrap_or_else(PoisonError::into_inner).insert(rule, Some(again));
        }
    }

    /// Whose holder may add a rule to the bucket.
    fn turn_to_add(&self, bucket: Bucket<'_>) -> Arc<tokio::sync::Mutex<()>> {
        let mut adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        adding.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(adding.entry(bucket.name.to_owned()).or_default())
    }

    /// Adds the rule for `days` to the bucket's lifecycle, if it is not there. Whatever else is there stays.
    async fn add_rule(&self, bucket: Bucket<'_>, days: u32) -> Result<(), RuleError> {
        let turn = self.turn_to_add(bucket);
        let _adding = turn.lock().await;
        let body = match lifecycle::merged(self.rules_of(bucket).await?.as_deref(), days) {
            Merged::Known => return Ok(()),
            Merged::Added(document) => Bytes::from(document),
            Merged::Unreadable => return Err(RuleError::Unreadable),
        };
        let headers =
            vec![("content-md5".to_owned(), md5(&body)), ("content-type".to_owned(), "application/xml".to_owned())];
        let put = Call { parameters: LIFECYCLE, headers, body, ..Call::of(rusty_s3::Method::Put, bucket, "") };
        let written = self.call(put).await?;
        if is_done(written.status) { Ok(()) } else { Err(self.refused(bucket, "", &written).into()) }
    }

    /// The document of a bucket's lifecycle rules; `None`: it has none.
    async fn rules_of(&self, bucket: Bucket<'_>) -> Result<Option<String>, StoreError> {
        let get = Call { parameters: LIFECYCLE, ..Call::of(rusty_s3::Method::Get, bucket, "") };
        let known = self.call(get).await?;
        match known.status {
            status if is_done(status) => Ok(Some(String::from_utf8_lossy(&known.body).into_owned())),
            _ => match self.refused(bucket, "", &known) {
                StoreError::Answered { refusal, .. } if refusal.code == "NoSuchLifecycleConfiguration" => Ok(None),
                refused => Err(refused),
            },
        }
    }
}

/// What asks a bucket for its lifecycle rules and not for its objects.
const LIFECYCLE: &[(&str, &str)] = &[("lifecycle", "")];

/// One request.
struct Call<'a> {
    method: rusty_s3::Method,
    bucket: Bucket<'a>,
    key: &'a str,
    parameters: &'a [(&'a str, &'a str)],
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl<'a> Call<'a> {
    fn of(method: rusty_s3::Method, bucket: Bucket<'a>, key: &'a str) -> Self {
        Self { method, bucket, key, parameters: &[], headers: Vec::new(), body: Bytes::new() }
    }
}

impl ObjectStore for Remote {
    fn put<'a>(&'a self, bucket: Bucket<'a>, key: &'a str, upload: Upload<'a>) -> Answer<'a, ()> {
        Box::pin(async move {
            let (body, sum) = read(upload.file, bucket, key).await?;
            let mut headers = self.object_headers.clone();
            headers.push(("content-md5".to_owned(), sum));
            headers.push(("content-type".to_owned(), upload.content_type.to_owned()));
            if upload.is_overwritten {
                headers.push(("cache-control".to_owned(), "no-cache".to_owned()));
            }
            if let Some(days) = upload.retention_days {
                self.keep_for(bucket, days).await;
                headers.push((self.dialect.header("tagging"), format!("{}={days}", lifecycle::TAG)));
            }
            let put = Call { headers, body, ..Call::of(rusty_s3::Method::Put, bucket, key) };
            let answered = self.call(put).await?;
            fail_point::pass("put_sent");
            if is_done(answered.status) { Ok(()) } else { Err(self.refused(bucket, key, &answered)) }
        })
    }

    fn exists<'a>(&'a self, bucket: Bucket<'a>, key: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let answered = self.call(Call::of(rusty_s3::Method::Head, bucket, key)).await?;
            match answered.status {
                StatusCode::NOT_FOUND => Ok(false),
                status if is_done(status) => Ok(true),
                _ => Err(self.refused(bucket, key, &answered)),
            }
        })
    }

    fn remove<'a>(&'a self, bucket: Bucket<'a>, key: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let answered = self.call(Call::of(rusty_s3::Method::Delete, bucket, key)).await?;
            match answered.status {
                StatusCode::NOT_FOUND => Ok(()),
                status if is_done(status) => Ok(()),
                _ => Err(self.refused(bucket, key, &answered)),
            }
        })
    }

    fn probe<'a>(&'a self, bucket: Bucket<'a>) -> Answer<'a, Probe> {
        Box::pin(async move {
            let answered = self.call(Call::of(rusty_s3::Method::Head, bucket, "")).await?;
            if !is_done(answered.status) {
                return Err(self.refused_to_show(bucket, &answered).await);
            }
            Ok(Probe { clock_ahead_secs: self.clock_ahead_secs(&answered) })
        })
    }

    fn removes_after<'a>(&'a self, bucket: Bucket<'a>, days: u32) -> Answer<'a, bool> {
        Box::pin(async move {
            let document = self.rules_of(bucket).await?;
            Ok(lifecycle::merged(document.as_deref(), days) == Merged::Known)
        })
    }

    fn full_url(&self, bucket: Bucket<'_>, key: &str, now: UnixMs) -> Result<String, StoreError> {
        let Some(life) = self.signed_url_life_secs else {
            let base = self.public_url.replace("{bucket}", bucket.name).replace("{region}", self.region(bucket));
            return Ok(pic_full_url(&base, key));
        };
        let credentials = self.keys.current(self.clock.mono())?;
        let url = self.url(&self.public_url, bucket, key)?;
        Ok(self.dialect.signed_url(&url, &meant_path(&url), self.region(bucket), &credentials, now, life).into())
    }

    fn still_opens(&self, _bucket: Bucket<'_>, _key: &str, full_url: &str, now: UnixMs) -> bool {
        let end = full_url.parse().ok().and_then(|url| self.dialect.url_end(&url));
        end.is_none_or(|end| now.secs() < end)
    }

    fn opens_for_long(&self, _bucket: Bucket<'_>, _key: &str, full_url: &str, now: UnixMs) -> bool {
        let Some(life) = self.signed_url_life_secs else { return !full_url.contains('?') };
        let Ok(url) = full_url.parse::<Url>() else { return false };
        let lives =
            self.dialect.url_end(&url).is_some_and(|end| end - now.secs() > i64::from(life / URL_LIFE_LEFT_MIN));
        // A URL ends with the temporary credentials that have signed it, which it does not tell. Those that the object has just
        // been put with are good.
        let is_signed_by =
            |signer: &Credentials| self.dialect.url_signer(&url).is_some_and(|id| id == signer.id.expose());
        lives && self.keys.current(self.clock.mono()).is_ok_and(|signer| is_signed_by(&signer))
    }
}

/// A key as the path of a URL: all but RFC 3986's unreserved characters and `/` percent-encoded.
fn encode_path(key: &str) -> String {
    key.split('/').map(cos_signature::encode).collect::<Vec<_>>().join("/")
}

/// The path of a URL as it is meant.
fn meant_path(url: &Url) -> String {
    percent_encoding::percent_decode_str(url.path()).decode_utf8_lossy().into_owned()
}

fn value(text: &str) -> Result<HeaderValue, Box<dyn std::error::Error + Send + Sync>> {
    Ok(HeaderValue::from_bytes(text.as_bytes())?)
}

/// The whole file, and the MD5 of its bytes as the header has it. Pictures are small: a few hundred kilobytes that are read
/// once, for the sum and for sending.
async fn read(file: &Path, bucket: Bucket<'_>, key: &str) -> Result<(Bytes, String), StoreError> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let bytes = Bytes::from(std::fs::read(path)?);
        let sum = md5(&bytes);
        Ok((bytes, sum))
    });
    read.await.map_err(std::io::Error::other).flatten().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => StoreError::SpoolMissing { key: key.to_owned() },
        _ => StoreError::Failed { bucket: bucket.name.to_owned(), key: key.to_owned(), source },
    })
}

fn md5(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(Md5::digest(bytes))
}
