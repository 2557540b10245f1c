//! The two protocols, as far as they differ: how headers are called and how a request is signed.

use framehook_domain::time::UnixMs;
use jiff::Timestamp;
use url::Url;

use super::cos_signature::{self, Signed, Window};
use super::keys::Credentials;

/// How long a request's signature counts. A put ends long before; the rest is room for a clock of ours that is behind the
/// store's, which itself allows 15 minutes.
const REQUEST_LIFE_SECS: u32 = 20 * 60;

/// How far ahead of its own clock S3 takes requests to be from.
const S3_AHEAD_SECS_MAX: i64 = 15 * 60;

/// What a store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Cos,
    S3,
}

/// A request as it is before it is signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsigned<'a> {
    pub(super) method: rusty_s3::Method,
    /// Where it goes, percent-encoded and without a query.
    pub(super) url: &'a Url,
    /// The same path as it is meant.
    pub(super) path: &'a str,
    /// In the order of their names.
    pub(super) parameters: &'a [(&'a str, &'a str)],
    /// Names in lower case and in order; all of them are sent as they are here. `host` and `content-length` are not among
    /// them.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) content_length: Option<usize>,
    /// Signed requests of S3 name it; COS knows its buckets' own.
    pub(super) region: &'a str,
}

/// What signing adds to a request.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Dialect {
    /// Whether a store refuses what is signed by a clock that is so far ahead of its own, or behind it where negative.
    pub(super) fn refuses_clock(self, ahead_secs: i64) -> bool {
        let ahead_max = match self {
            Self::Cos => Window::SLACK_SECS,
            Self::S3 => S3_AHEAD_SECS_MAX,
        };
        ahead_secs > ahead_max || -ahead_secs > i64::from(REQUEST_LIFE_SECS)
    }

    /// The full name of a header that both have, by what it is called after the vendor's part.
    pub(super) fn header(self, name: &str) -> String {
        match self {
            Self::Cos => format!("x-cos-{name}"),
            Self::S3 => format!("x-amz-{name}"),
        }
    }

    /// The header with the id of an encryption key.
    pub(super) fn kms_key_header(self) -> String {
        match self {
            Self::Cos => self.header("server-side-encryption-cos-kms-key-id"),
            Self::S3 => self.header("server-side-encryption-aws-kms-key-id"),
        }
    }

    /// Signs a request that is sent at once. Both ways bind the method, the path, the query and every header that says
    /// something of the object, `content-md5` and with it the body among them.
    pub(super) fn sign(self, request: &Unsigned<'_>, credentials: &Credentials, now: UnixMs) -> Proof {
        match self {
            Self::S3 => Proof { url: s3_url(request, credentials, now, REQUEST_LIFE_SECS), headers: Vec::new() },
            Self::Cos => {
                let (host, length) = (host(request.url), request.content_length.map(|length| length.to_string()));
                let token = credentials.token.as_ref().map(|token| ("x-cos-security-token", token.expose()));
                let mut headers = request.headers.to_vec();
                headers.push(("host", &host));
                headers.extend(length.as_deref().map(|length| ("content-length", length)));
                headers.extend(token);
                let signed = Signed {
                    method: request.method.to_str(),
                    path: request.path,
                    parameters: request.parameters,
                    headers: &headers,
                };
                let (id, key) = (credentials.id.expose(), credentials.key.expose());
                let window = Window::from(now, REQUEST_LIFE_SECS.into());
                let mut headers = vec![("authorization", cos_signature::authorization(id, key, window, &signed))];
                headers.extend(token.map(|(name, token)| (name, token.to_owned())));
                Proof { url: with_query(request.url, request.parameters), headers }
            }
        }
    }

    /// A URL with which anybody fetches the object for `life_secs`.
    pub(super) fn signed_url(
        self,
        url: &Url,
        path: &str,
        region: &str,
        credentials: &Credentials,
        now: UnixMs,
        life_secs: u32,
    ) -> Url {
        let request = Unsigned {
            method: rusty_s3::Method::Get,
            url,
            path,
            parameters: &[],
            headers: &[],
            content_length: None,
            region,
        };
        match self {
            Self::S3 => s3_url(&request, credentials, now, life_secs),
            Self::Cos => {
                let host = host(url);
                let signed = Signed { method: "GET", path, parameters: &[], headers: &[("host", &host)] };
                let (id, key) = (credentials.id.expose(), credentials.key.expose());
                let window = Window::from(now, life_secs.into());
                let fields = cos_signature::fields(id, key, window, &signed);
                let token = credentials.token.as_ref().map(|token| ("x-cos-security-token", token.expose()));
                let fields = fields.iter().map(|(name, value)| (*name, value.as_str())).chain(token);
                with_query(url, &fields.collect::<Vec<_>>())
            }
        }
    }

    /// When a signed URL stops opening its object, in seconds since 1970; `None`: it is not signed.
    pub(super) fn url_end(self, url: &Url) -> Option<i64> {
        match self {
            Self::Cos => parameter(url, "q-sign-time")?.split_once(';')?.1.parse().ok(),
            Self::S3 => {
                let began = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", parameter(url, "X-Amz-Date")?).ok()?;
                let began = began.to_datetime().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
                let life: i64 = parameter(url, "X-Amz-Expires")?.parse().ok()?;
                began.timestamp().as_second().checked_add(life)
            }
        }
    }

    /// The id of the credentials that have signed a URL; `None`: it is not signed.
    pub(super) fn url_signer(self, url: &Url) -> Option<String> {
        match self {
            Self::Cos => parameter(url, "q-ak"),
            Self::S3 => Some(parameter(url, "X-Amz-Credential")?.split_once('/')?.0.to_owned()),
        }
    }
}

/// The first value of a parameter of a URL.
fn parameter(url: &Url, wanted: &str) -> Option<String> {
    url.query_pairs().find_map(|(name, value)| (name == wanted).then(|| value.into_owned()))
}

fn s3_url(request: &Unsigned<'_>, credentials: &Credentials, now: UnixMs, life_secs: u32) -> Url {
    let date = Timestamp::from_second(now.secs()).unwrap_or(Timestamp::MAX);
    rusty_s3::signing::sign(
        &date,
        request.method,
        request.url.clone(),
        credentials.id.expose(),
        credentials.key.expose(),
        credentials.token.as_ref().map(|token| token.expose()),
        request.region,
        life_secs.into(),
        request.parameters.iter().copied(),
        request.headers.iter().copied(),
    )
}

/// The value of the `Host` header.
pub(super) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn with_query(url: &Url, parameters: &[(&str, &str)]) -> Url {
    let mut url = url.clone();
    if !parameters.is_empty() {
        let pairs = parameters
            .iter()
            .map(|(name, value)| format!("{}={}", cos_signature::encode(name), cos_signature::encode(value)));
        url.set_query(Some(&pairs.collect::<Vec<_>>().join("&")));
    }
    url
}

#[cfg(test)]
mod tests {
    use framehook_domain::secret::Secret;

    use super::*;

    const NOW: UnixMs = UnixMs(1_735_689_600_999);

    fn credentials(token: &str) -> Credentials {
        Credentials::new(&Secret::new("AKID"), &Secret::new("secret"), &Secret::new(token))
    }

    #[test]
    fn a_signed_url_says_when_it_ends_and_who_has_signed_it() {
        let url: Url = "https://shots-1.example.com/a%20b.jpg".parse().expect("a URL");
        for dialect in [Dialect::Cos, Dialect::S3] {
            let signed = dialect.signed_url(&url, "/a b.jpg", "eu-west-1", &credentials("tok/en"), NOW, 3600);
            assert_eq!(dialect.url_end(&signed), Some(1_735_693_200), "{signed}");
            assert_eq!(dialect.url_signer(&signed).as_deref(), Some("AKID"));
            assert_eq!((dialect.url_end(&url), dialect.url_signer(&url)), (None, None));
            assert!(signed.as_str().starts_with("https://shots-1.example.com/a%20b.jpg?"), "{signed}");
            assert!(signed.query().is_some_and(|query| query.contains("=tok%2Fen")), "{signed}");
            assert!(!signed.as_str().contains(';'), "{signed}");
        }
    }

    #[test]
    fn the_host_has_its_port_where_it_is_not_the_usual() {
        for (url, expected) in
            [("https://a.b:443/", "a.b"), ("http://a.b:9000/", "a.b:9000"), ("http://[::1]:9/", "[::1]:9")]
        {
            assert_eq!(host(&url.parse().expect("a URL")), expected);
        }
    }
}
