//! From what an encoder typed to a stream and its query.

use alloc::string::String;

use super::{AppName, DomainName, StreamId, StreamName, StreamParam, param};
use crate::refusal::Refusal;

/// Longest `tcUrl`, app or publish name looked at: a query of 4096 bytes plus names and a host fit twice.
const INPUT_BYTES_MAX: usize = 9 * 1024;

/// Where a publisher wants to go, read from the three texts RTMP has for it.
///
/// Encoders split `rtmp://HOST/APP/STREAM?QUERY` in several ways: the query may stand on the publish name, on the app
/// or on `tcUrl`; the stream may stand in the path of `tcUrl` with an empty publish name; `domain=` or `vhost=` in a
/// query overrides the host, which is how a push to a bare IP names its domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishAddress {
    pub stream: StreamId,
    pub param: StreamParam,
}

impl PublishAddress {
    /// Reads `tcUrl` and `app` of RTMP's `connect` and the name of `publish`. They are bytes because AMF strings need
    /// not be UTF-8.
    ///
    /// # Errors
    /// [`Refusal::DomainInvalid`], [`Refusal::AppName`], [`Refusal::StreamName`] or [`Refusal::Param`].
    pub fn parse(
        tc_url: impl AsRef<[u8]>,
        app: impl AsRef<[u8]>,
        publish_name: impl AsRef<[u8]>,
    ) -> Result<Self, Refusal> {
        let url = UrlParts::split(text(tc_url.as_ref(), Refusal::DomainInvalid)?);
        let (app_path, app_query) = split_query(text(app.as_ref(), Refusal::AppName)?);
        let (name, name_query) = split_query(text(publish_name.as_ref(), Refusal::StreamName)?);

        let (app, stream) = split_path(url.path, app_path, name);
        let app = AppName::parse(app).map_err(|_| Refusal::AppName)?;
        let stream = StreamName::parse(stream).map_err(|_| Refusal::StreamName)?;

        let overriding = [name_query, app_query, url.query].into_iter().find_map(named_domain);
        let domain = DomainName::parse(overriding.unwrap_or(url.host)).map_err(|_| Refusal::DomainInvalid)?;

        // Most encoders repeat the app's query on `tcUrl`, so that one counts only when neither other place has any.
        let param = match (name_query, app_query) {
            ("", "") => StreamParam::parse(url.query)?,
            ("", query) | (query, "") => StreamParam::parse(query)?,
            (name_query, app_query) => StreamParam::parse(&alloc::format!("{name_query}&{app_query}"))?,
        };
        Ok(Self { stream: StreamId { domain, app, name: stream }, param })
    }
}

/// What a publisher tried, for a log line about a refusal: host, app and name as far as they can be told, without user
/// name, password or query, and no longer than 256 bytes.
pub fn tried(tc_url: &str, app: &str, publish_name: &str) -> String {
    let host = UrlParts::split(tc_url).host;
    let mut tried = alloc::format!("{host}/{}/{}", split_query(app).0, split_query(publish_name).0);
    if tried.len() > TRIED_BYTES_MAX {
        tried.truncate(tried.floor_char_boundary(TRIED_BYTES_MAX));
        tried.push('…');
    }
    tried
}

/// The longest names that are taken and a host of the same order: 45 + 64 + 128 bytes and two slashes. What is longer
/// was refused for that, and a peer must not choose how long a line of the log is.
const TRIED_BYTES_MAX: usize = 256;

fn text(bytes: &[u8], refusal: Refusal) -> Result<&str, Refusal> {
    if bytes.len() > INPUT_BYTES_MAX {
        return Err(refusal);
    }
    let query_at = bytes.iter().position(|byte| *byte == b'?').unwrap_or(bytes.len());
    core::str::from_utf8(bytes).map_err(|error| if error.valid_up_to() > query_at { Refusal::Param } else { refusal })
}

/// Path and query, both without the slashes that encoders leave at the ends (`live/`, `live?vhost=a/`).
fn split_query(text: &str) -> (&str, &str) {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    (path.trim_matches('/'), query.trim_end_matches('/'))
}

/// App and stream name, wherever they stand.
fn split_path<'a>(url_path: &'a str, app: &'a str, name: &'a str) -> (&'a str, &'a str) {
    match (app, name) {
        ("", "") => url_path.rsplit_once('/').unwrap_or((url_path, "")),
        ("", name) if url_path.is_empty() => name.split_once('/').unwrap_or(("", name)),
        ("", name) => (url_path, name),
        (app, "") => match url_path.strip_prefix(app).and_then(|rest| rest.strip_prefix('/')) {
            Some(name) => (app, name),
            None => app.rsplit_once('/').unwrap_or((app, "")),
        },
        both => both,
    }
}

fn named_domain(query: &str) -> Option<&str> {
    param::pairs(query).find_map(|(key, value)| matches!(key, "domain" | "vhost").then_some(value))
}

/// The parts of `scheme://[user@]host[:port]/path?query` that matter. A general URL parser would refuse or re-encode
/// much of what encoders send here.
struct UrlParts<'a> {
    host: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> UrlParts<'a> {
    fn split(url: &'a str) -> Self {
        let rest = url.split_once("://").map_or(url, |(_scheme, rest)| rest);
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let host_and_port = authority.rsplit_once('@').map_or(authority, |(_user, host)| host);
        let host = match host_and_port.find(']') {
            Some(end) if host_and_port.starts_with('[') => &host_and_port[..=end],
            _ => host_and_port.split_once(':').map_or(host_and_port, |(host, _port)| host),
        };
        let (path, query) = split_query(rest);
        Self { host, path, query }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString};

    use super::*;

    fn parse(
        tc_url: &str,
        app: &str,
        publish_name: &str,
    ) -> Result<(alloc::string::String, alloc::string::String), Refusal> {
        PublishAddress::parse(tc_url, app, publish_name)
            .map(|address| (address.stream.to_string(), address.param.as_wire().to_string()))
    }

    #[test]
    fn finds_stream_and_query_wherever_encoders_put_them() {
        let cases = [
            (
                "query on the publish name, as OBS",
                ["rtmp://push.example.com/live", "live", "room?txSecret=a&txTime=b"],
                "push.example.com/live/room",
                "txSecret=a&txTime=b",
            ),
            ("no query", ["rtmp://push.example.com/live", "live", "room"], "push.example.com/live/room", ""),
            (
                "query on the app",
                ["rtmp://push.example.com/live?txSecret=a", "live?txSecret=a", "room"],
                "push.example.com/live/room",
                "txSecret=a",
            ),
            (
                "query on both",
                ["rtmp://push.example.com/live?x=1", "live?x=1", "room?y=2"],
                "push.example.com/live/room",
                "y=2&x=1",
            ),
            (
                "query only on tcUrl",
                ["rtmp://push.example.com/live?x=1", "live", "room"],
                "push.example.com/live/room",
                "x=1",
            ),
            (
                "port is dropped",
                ["rtmp://push.example.com:19350/live", "live", "room"],
                "push.example.com/live/room",
                "",
            ),
            ("another scheme", ["rtmps://push.example.com:443/live", "live", "room"], "push.example.com/live/room", ""),
            ("upper-case host", ["rtmp://PUSH.Example.com/live", "live", "Room"], "push.example.com/live/Room", ""),
            (
                "user in the URL",
                ["rtmp://me:pw@push.example.com/live", "live", "room"],
                "push.example.com/live/room",
                "",
            ),
            ("IPv4", ["rtmp://127.0.0.1:1935/live", "live", "room"], "127.0.0.1/live/room", ""),
            ("IPv6", ["rtmp://[::1]:1935/live", "live", "room"], "::1/live/room", ""),
            (
                "slashes at the ends",
                ["rtmp://push.example.com/live/", "live/", "/room"],
                "push.example.com/live/room",
                "",
            ),
            (
                "stream in tcUrl's path",
                ["rtmp://push.example.com/live/room", "live", ""],
                "push.example.com/live/room",
                "",
            ),
            (
                "stream in tcUrl's path with query",
                ["rtmp://push.example.com/live/room?x=1", "live", ""],
                "push.example.com/live/room",
                "x=1",
            ),
            (
                "stream in the app",
                ["rtmp://push.example.com/live/room", "live/room", ""],
                "push.example.com/live/room",
                "",
            ),
            (
                "neither app nor name given",
                ["rtmp://push.example.com/live/room", "", ""],
                "push.example.com/live/room",
                "",
            ),
            ("app only in tcUrl", ["rtmp://push.example.com/live", "", "room"], "push.example.com/live/room", ""),
            (
                "app and stream in the name",
                ["rtmp://push.example.com", "", "live/room"],
                "push.example.com/live/room",
                "",
            ),
            (
                "domain= on the stream",
                ["rtmp://192.0.2.1/live", "live", "room?domain=a.example&x=1"],
                "a.example/live/room",
                "domain=a.example&x=1",
            ),
            (
                "vhost= on the app",
                ["rtmp://192.0.2.1/live?vhost=b.example", "live?vhost=b.example", "room"],
                "b.example/live/room",
                "vhost=b.example",
            ),
            (
                "the stream's override wins",
                ["rtmp://192.0.2.1/live", "live?vhost=b.example", "room?domain=a.example"],
                "a.example/live/room",
                "domain=a.example&vhost=b.example",
            ),
            (
                "override without any tcUrl",
                ["", "live", "room?domain=a.example"],
                "a.example/live/room",
                "domain=a.example",
            ),
        ];
        for (name, [tc_url, app, publish_name], stream, param) in cases {
            assert_eq!(parse(tc_url, app, publish_name), Ok((stream.into(), param.into())), "{name}");
        }
    }

    #[test]
    fn refuses_with_the_code_of_the_part_that_is_wrong() {
        let host = "rtmp://push.example.com/live";
        let cases = [
            ("no host", ["", "live", "room"], Refusal::DomainInvalid),
            ("no host in the URL", ["rtmp:///live", "live", "room"], Refusal::DomainInvalid),
            ("bad override", [host, "live", "room?domain=a/b"], Refusal::DomainInvalid),
            ("empty override", [host, "live", "room?vhost="], Refusal::DomainInvalid),
            ("no app", ["rtmp://push.example.com", "", "room"], Refusal::AppName),
            ("app of two levels", [host, "live/sub", "room"], Refusal::AppName),
            ("app that climbs", [host, "..", "room"], Refusal::AppName),
            ("no stream", [host, "live", ""], Refusal::StreamName),
            ("only a query", [host, "live", "?txSecret=a"], Refusal::StreamName),
            ("stream of two levels", [host, "live", "a/b"], Refusal::StreamName),
            ("stream that climbs", [host, "live", ".."], Refusal::StreamName),
            ("space in the stream", [host, "live", "my room"], Refusal::StreamName),
        ];
        for (name, [tc_url, app, publish_name], refusal) in cases {
            assert_eq!(parse(tc_url, app, publish_name), Err(refusal), "{name}");
        }
    }

    #[test]
    fn tells_what_was_tried_without_its_secrets_and_at_bounded_length() {
        let cases = [
            ("plain", ["rtmp://push.example.com/live", "live", "room"], "push.example.com/live/room"),
            (
                "user and password",
                ["rtmp://me:s3cret@push.example.com:1935/live", "live", "room"],
                "push.example.com/live/room",
            ),
            (
                "queries everywhere",
                ["rtmp://push.example.com/live?key=s3cret", "live?key=s3cret", "room?txSecret=s3cret"],
                "push.example.com/live/room",
            ),
            ("no URL at all", ["", "", ""], "//"),
        ];
        for (name, [tc_url, app, publish_name], expected) in cases {
            assert_eq!(tried(tc_url, app, publish_name), expected, "{name}");
        }
        let long = tried("rtmp://push.example.com/live", "live", &"é".repeat(32_000));
        assert!(long.len() <= TRIED_BYTES_MAX + "…".len() && long.ends_with("é…"), "{long}");
    }

    #[test]
    fn refuses_long_input_and_bytes_that_are_not_utf8() {
        let host = "rtmp://push.example.com/live";
        assert_eq!(parse(&format!("rtmp://{}/live", "a".repeat(20_000)), "live", "room"), Err(Refusal::DomainInvalid));
        assert_eq!(parse(host, "live", &format!("room?{}", "a".repeat(4097))), Err(Refusal::Param));
        assert_eq!(parse(host, "live?aaaaaa", &format!("room?{}", "a".repeat(4090))), Err(Refusal::Param), "joined");
        assert_eq!(PublishAddress::parse(host, "live", b"ro\xffom"), Err(Refusal::StreamName));
        assert_eq!(PublishAddress::parse(host, "live", b"room?a=\xff"), Err(Refusal::Param));
        assert_eq!(PublishAddress::parse(host, b"\xff", "room"), Err(Refusal::AppName));
        assert_eq!(PublishAddress::parse(b"rtmp://\xff/live", "live", "room"), Err(Refusal::DomainInvalid));
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_only_makes_safe_names(tc_url: alloc::vec::Vec<u8>, app in ".{0,40}", name in ".{0,40}") {
            if let Ok(address) = PublishAddress::parse(&tc_url, &app, &name) {
                proptest::prop_assert!(!address.stream.app.as_str().contains('/'));
                proptest::prop_assert!(!address.stream.name.as_str().contains(['/', '?']));
            }
        }

        #[test]
        fn reads_back_what_a_push_url_says(
            app in "[a-z0-9_]{1,20}",
            name in "[A-Za-z0-9_-]{1,20}",
            query in "[a-z]{1,4}=[a-z0-9]{0,8}",
        ) {
            let url = format!("rtmp://push.example.com/{app}");
            let expected = Ok((format!("push.example.com/{app}/{name}"), query.clone()));
            let on_name = parse(&url, &app, &format!("{name}?{query}"));
            let on_app = parse(&format!("{url}?{query}"), &format!("{app}?{query}"), &name);
            let on_url = parse(&format!("{url}/{name}?{query}"), &app, "");
            proptest::prop_assert_eq!([on_name, on_app, on_url], [expected.clone(), expected.clone(), expected]);
        }
    }
}
