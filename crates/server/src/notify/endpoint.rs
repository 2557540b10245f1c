//! A callback URL, parsed once. Everything later (name to resolve, address to judge, `Host`, TLS name, request line)
//! comes from this one parse, so no two readers of the URL can disagree about where it leads.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use framehook_domain::template::URL_BYTES_MAX;
use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use url::{Host, Url};

/// Longest name that can be looked up (RFC 1035, 2.3.4: 255 octets on the wire, which leaves 253 characters).
const HOST_BYTES_MAX: usize = 253;

/// Where a callback goes. `Display` and `Debug` mask the credentials and the query, which may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    origin: Origin,
    server_name: ServerName<'static>,
    host_header: HeaderValue,
    uri: Uri,
    target: PathAndQuery,
    authorization: Option<HeaderValue>,
}

/// Scheme, host and port: what a connection is made to, and all of a URL that is safe to count or group by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// `https` rather than `http`.
    pub tls: bool,
    /// A name in ASCII (IDNA done) or a literal address, however it was spelt.
    pub host: Host<String>,
    /// As written, or the scheme's default.
    pub port: u16,
}

/// Why a text is not a callback URL. No variant repeats the text: it may hold credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Longer than [`URL_BYTES_MAX`].
    #[error("URL of {length} bytes is longer than {URL_BYTES_MAX}")]
    TooLong { length: usize },
    /// White space, a control character or a backslash. Parsers strip or reinterpret these, each in its own way.
    #[error("character at byte {at} of the URL must be percent-encoded")]
    Character { at: usize },
    /// Not an absolute URL with a host.
    #[error("not an absolute URL")]
    Malformed(#[source] Option<url::ParseError>),
    /// Neither `http` nor `https`.
    #[error("scheme is neither http nor https")]
    Scheme,
    /// No name that DNS or a certificate could hold.
    #[error("host is not a valid name")]
    Host,
    /// User or password cannot be sent as Basic credentials (RFC 7617, 2: no control characters, no colon in the user).
    #[error("user or password cannot be sent as Basic credentials")]
    Credentials,
}

impl Endpoint {
    /// Parses a callback URL as the WHATWG URL standard reads it. Path and query are kept as that standard serialises
    /// them (what may stand in a request line stays byte for byte); the fragment is dropped.
    ///
    /// # Errors
    /// Each variant of [`EndpointError`].
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        if text.len() > URL_BYTES_MAX {
            return Err(EndpointError::TooLong { length: text.len() });
        }
        if let Some(at) = text.bytes().position(|byte| byte <= b' ' || byte == 0x7f || byte == b'\\') {
            return Err(EndpointError::Character { at });
        }
        let url = Url::parse(text).map_err(|source| EndpointError::Malformed(Some(source)))?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(EndpointError::Scheme),
        };
        let host = url.host().ok_or(EndpointError::Malformed(None))?.to_owned();
        let port = url.port_or_known_default().ok_or(EndpointError::Malformed(None))?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let target = PathAndQuery::try_from(target).map_err(|_| EndpointError::Malformed(None))?;
        let uri = Uri::builder().scheme(url.scheme()).authority(authority.as_str()).path_and_query(target.clone());
        Ok(Self {
            server_name: server_name(&host)?,
            host_header: HeaderValue::from_str(&authority).map_err(|_| EndpointError::Host)?,
            uri: uri.build().map_err(|_| EndpointError::Host)?,
            target,
            authorization: authorization(&url)?,
            origin: Origin { tls, host, port },
        })
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The name that the receiver's certificate must hold.
    pub(super) fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }

    /// The value of `Host`: the port only where it is not the scheme's own.
    pub(super) fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    /// The whole URL without credentials and fragment, for HTTP/2's pseudo-headers.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Path and query, for the request line.
    pub(super) fn target(&self) -> &PathAndQuery {
        &self.target
    }

    /// The value of `Authorization`, if the URL holds credentials.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

impl Origin {
    /// The socket address, if the host is a literal address rather than a name.
    pub fn literal(&self) -> Option<SocketAddr> {
        let address: IpAddr = match self.host {
            Host::Ipv4(v4) => v4.into(),
            Host::Ipv6(v6) => v6.into(),
            Host::Domain(_) => return None,
        };
        Some(SocketAddr::new(address, self.port))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.origin.tls { "https" } else { "http" };
        let credentials = if self.authorization.is_some() { "***@" } else { "" };
        // The header value was made from ASCII text.
        let authority = self.host_header.to_str().unwrap_or_default();
        let query = if self.target.query().is_some() { "?***" } else { "" };
        write!(f, "{scheme}://{credentials}{authority}{}{query}", self.target.path())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

fn server_name(host: &Host<String>) -> Result<ServerName<'static>, EndpointError> {
    match host {
        Host::Ipv4(v4) => Ok(IpAddr::from(*v4).into()),
        Host::Ipv6(v6) => Ok(IpAddr::from(*v6).into()),
        // A name that no certificate can hold is refused for plain HTTP as well: DNS could not hold it either.
        Host::Domain(name) if name.len() > HOST_BYTES_MAX => Err(EndpointError::Host),
        Host::Domain(name) => ServerName::try_from(name.clone()).map_err(|_| EndpointError::Host),
    }
}

/// Basic credentials (RFC 7617) from the user information of a URL, if there is any.
fn authorization(url: &Url) -> Result<Option<HeaderValue>, EndpointError> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let user: Vec<u8> = percent_decode_str(url.username()).collect();
    let password: Vec<u8> = percent_decode_str(url.password().unwrap_or_default()).collect();
    if user.contains(&b':') || user.iter().chain(&password).any(u8::is_ascii_control) {
        return Err(EndpointError::Credentials);
    }
    let encoded = BASE64.encode([&user[..], b":", &password].concat());
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).map_err(|_| EndpointError::Credentials)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::address::{AddressPolicy, Verdict};

    fn parse(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn takes_a_url_apart() {
        // URL, origin, Host, request target
        let rows = [
            ("http://example.com", "http://example.com:80", "example.com", "/"),
            ("HTTPS://Example.COM:443/A/b", "https://example.com:443", "example.com", "/A/b"),
            (
                "http://example.com:8080/n?action=snapshot",
                "http://example.com:8080",
                "example.com:8080",
                "/n?action=snapshot",
            ),
            ("https://example.com:80/", "https://example.com:80", "example.com:80", "/"),
            (
                "http://example.com/a%2Fb/%7e?x=%20+&&y=;z",
                "http://example.com:80",
                "example.com",
                "/a%2Fb/%7e?x=%20+&&y=;z",
            ),
            ("http://example.com/p?", "http://example.com:80", "example.com", "/p?"),
            ("http://example.com/p?q#fragment", "http://example.com:80", "example.com", "/p?q"),
            ("http://bücher.example/ü", "http://xn--bcher-kva.example:80", "xn--bcher-kva.example", "/%C3%BC"),
            ("http://my_host.internal/", "http://my_host.internal:80", "my_host.internal", "/"),
            ("http://example.com./", "http://example.com.:80", "example.com.", "/"),
            ("http://[2606:4700::1]:81/", "http://[2606:4700::1]:81", "[2606:4700::1]:81", "/"),
        ];
        for (text, origin, host, target) in rows {
            let endpoint = parse(text);
            assert_eq!(endpoint.origin().to_string(), origin, "{text}");
            assert_eq!(endpoint.host_header(), host, "{text}");
            assert_eq!(endpoint.target().as_str(), target, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_callback_url() {
        let long = format!("http://example.com/{}", "a".repeat(URL_BYTES_MAX));
        let long_name = format!("http://{}example.com/", "a.".repeat(130));
        let long_label = format!("http://{}.example.com/", "a".repeat(64));
        let rows = [
            (long.as_str(), EndpointError::TooLong { length: 2_067 }),
            ("http://exa\tmple.com/", EndpointError::Character { at: 10 }),
            (" http://example.com/", EndpointError::Character { at: 0 }),
            ("http://example.com/\r\nX: y", EndpointError::Character { at: 19 }),
            ("http://a\\@example.com/", EndpointError::Character { at: 8 }),
            ("", EndpointError::Malformed(Some(url::ParseError::RelativeUrlWithoutBase))),
            ("example.com/notify", EndpointError::Malformed(Some(url::ParseError::RelativeUrlWithoutBase))),
            ("http://", EndpointError::Malformed(Some(url::ParseError::EmptyHost))),
            ("http://example.com:65536/", EndpointError::Malformed(Some(url::ParseError::InvalidPort))),
            ("ftp://example.com/", EndpointError::Scheme),
            ("file:///etc/passwd", EndpointError::Scheme),
            ("gopher://example.com/", EndpointError::Scheme),
            ("unix:/run/docker.sock", EndpointError::Scheme),
            ("http://a..b/", EndpointError::Host),
            (long_name.as_str(), EndpointError::Host),
            (long_label.as_str(), EndpointError::Host),
            ("http://us%3Aer:pw@example.com/", EndpointError::Credentials),
            ("http://user:p%0Dw@example.com/", EndpointError::Credentials),
        ];
        for (text, error) in rows {
            assert_eq!(Endpoint::parse(text).map(|endpoint| endpoint.to_string()), Err(error), "{text}");
        }
    }

    #[test]
    fn turns_user_information_into_a_basic_header() {
        let header = |text| parse(text).authorization().map(|value| value.to_str().expect("ASCII").to_owned());
        assert_eq!(header("http://example.com/"), None);
        // The example of RFC 7617, section 2.
        assert_eq!(
            header("http://Aladdin:open%20sesame@example.com/").as_deref(),
            Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        );
        assert_eq!(header("http://user@example.com/").as_deref(), Some("Basic dXNlcjo="));
        assert_eq!(header("http://:pw@example.com/").as_deref(), Some("Basic OnB3"));
        assert_eq!(header("http://u:a:b@example.com/").as_deref(), Some("Basic dTphOmI="));
    }

    #[test]
    fn never_prints_credentials_or_query() {
        let endpoint = parse("https://us3r:p4ss@example.com:8443/notify?token=s3cret#frag");
        assert_eq!(endpoint.to_string(), "https://***@example.com:8443/notify?***");
        assert_eq!(format!("{endpoint:?}"), "Endpoint(https://***@example.com:8443/notify?***)");
        assert_eq!(format!("{:?}", endpoint.authorization()), "Some(Sensitive)");
        assert_eq!(parse("http://example.com/").to_string(), "http://example.com/");
    }

    /// Every spelling that some resolver or URL parser takes for a forbidden address is judged as that address, or is no
    /// URL at all. What stays a name is judged after it was resolved.
    #[test]
    fn sees_through_every_spelling_of_a_forbidden_address() {
        let literals = [
            ("127.0.0.1", "loopback"),
            ("2130706433", "loopback"),
            ("0x7f000001", "loopback"),
            ("0X7F.0.0.1", "loopback"),
            ("017700000001", "loopback"),
            ("0177.0.0.01", "loopback"),
            ("127.1", "loopback"),
            ("127.0.1", "loopback"),
            ("127.0.0.1.", "loopback"),
            ("%31%32%37.0.0.1", "loopback"),
            ("１２７.０.０.１", "loopback"),
            ("127。0。0。1", "loopback"),
            ("①②⑦.0.0.1", "loopback"),
            ("0", "this network"),
            ("0.0.0.0", "this network"),
            ("[::]", "unspecified"),
            ("[::1]", "loopback"),
            ("[0:0:0:0:0:0:0:1]", "loopback"),
            ("[::ffff:127.0.0.1]", "loopback"),
            ("[::ffff:7f00:1]", "loopback"),
            ("[::FFFF:a9fe:A9FE]", "link-local"),
            ("[::127.0.0.1]", "ipv4-compatible"),
            ("[64:ff9b::169.254.169.254]", "link-local"),
            ("[fe80::1]", "link-local"),
            ("169.254.169.254", "link-local"),
            ("2852039166", "link-local"),
            ("0xA9FEA9FE", "link-local"),
            ("0251.0376.0251.0376", "link-local"),
            ("user@10.1", "private"),
            ("example.com@192.168.0.1", "private"),
        ];
        let policy = AddressPolicy::default();
        for (spelling, class) in literals {
            let endpoint = parse(&format!("http://{spelling}/"));
            let literal = endpoint.origin().literal().unwrap_or_else(|| panic!("{spelling} was taken for a name"));
            assert_eq!(policy.verdict(literal.ip(), &[]), Verdict::Forbidden(class), "{spelling}");
        }
        let not_urls = [
            "[fe80::1%25eth0]",
            "[fe80::1%eth0]",
            "[::1",
            "::1",
            "127.0.0.256",
            "127.0.0.1.1",
            "0x7f.0.0.0x100",
            "4294967296",
            "[127.0.0.1]",
            "127.0.0.1%00.example.com",
            "127.0.0.1%2f.example.com",
        ];
        for spelling in not_urls {
            assert!(Endpoint::parse(&format!("http://{spelling}/")).is_err(), "{spelling}");
        }
    }
}
