//! The URL that a person types into an encoder.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use anyhow::{Context, bail};

/// `rtmp://host[:port]/app/stream[?query]`. The last path segment is the stream name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushUrl {
    /// Where to connect to, with the port if there is one.
    pub host: String,
    pub app: String,
    /// The stream name with its query.
    pub stream: String,
    /// The host in `tcUrl`, which the server takes for the push domain; the same as `host` unless changed.
    pub domain: String,
}

/// RTMP's registered port.
const DEFAULT_PORT: u16 = 1935;

impl PushUrl {
    /// The same push, said to be for another domain. The connection goes where it went before.
    #[must_use]
    pub fn for_domain(self, domain: &str) -> Self {
        Self { domain: domain.to_owned(), ..self }
    }

    /// The first address of the host.
    ///
    /// # Errors
    /// When the name does not resolve.
    pub fn address(&self) -> io::Result<SocketAddr> {
        let mut addresses = if self.has_port() {
            self.host.to_socket_addrs()?
        } else {
            (self.host.as_str(), DEFAULT_PORT).to_socket_addrs()?
        };
        addresses.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", self.host)))
    }

    /// `tcUrl` as an encoder sends it.
    pub fn tc_url(&self) -> String {
        format!("rtmp://{}/{}", self.domain, self.app)
    }

    fn has_port(&self) -> bool {
        self.host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    }
}

impl FromStr for PushUrl {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("rtmp://").with_context(|| format!("{url:?} does not start with rtmp://"))?;
        let path_end = rest.find('?').unwrap_or(rest.len());
        let (Some(host_end), Some(app_end)) = (rest[..path_end].find('/'), rest[..path_end].rfind('/')) else {
            bail!("{url:?} has no path");
        };
        if host_end == app_end {
            bail!("{url:?} has no stream name");
        }
        let host = rest[..host_end].to_owned();
        Ok(Self {
            domain: host.clone(),
            host,
            app: rest[host_end + 1..app_end].to_owned(),
            stream: rest[app_end + 1..].to_owned(),
        })
    }
}

impl fmt::Display for PushUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rtmp://{}/{}/{}", self.host, self.app, self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_into_what_rtmp_sends() {
        for (url, host, app, stream) in [
            ("rtmp://127.0.0.1:1935/live/room", "127.0.0.1:1935", "live", "room"),
            ("rtmp://h/a/b/room?txSecret=1/2&txTime=3", "h", "a/b", "room?txSecret=1/2&txTime=3"),
            ("rtmp://h/live/", "h", "live", ""),
        ] {
            let parsed: PushUrl = url.parse().unwrap();
            assert_eq!((parsed.host.as_str(), parsed.app.as_str(), parsed.stream.as_str()), (host, app, stream));
            assert_eq!(parsed.to_string(), url);
        }
        for wrong in ["http://h/a/b", "rtmp://h", "rtmp://h/live", "rtmp://h?a/b/c"] {
            assert!(wrong.parse::<PushUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn connects_to_the_host_and_names_the_domain() {
        let url = "rtmp://127.0.0.1/live/room".parse::<PushUrl>().unwrap().for_domain("push.example.com");
        assert_eq!(url.address().unwrap(), "127.0.0.1:1935".parse().unwrap());
        assert_eq!(url.tc_url(), "rtmp://push.example.com/live");
    }
}
