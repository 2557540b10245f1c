//! `framehook push-url`: a signed push URL for an encoder.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use framehook_domain::push_auth::{PushKey, sign};
use framehook_domain::stream::{AppName, DomainName, StreamName};
use framehook_domain::time::UnixMs;
use framehook_server::clock::Clock;

use crate::output;

#[derive(Args)]
#[command(
    about = "Make a signed push URL",
    long_about = "Make a push URL with txSecret and txTime, as a domain with a push key asks for it.\n\n\
        Most encoders want it in two parts: everything up to the last / is the server, the rest is the stream key."
)]
pub(crate) struct PushUrlArgs {
    /// The domain's main or backup push key.
    #[arg(long, env = "FRAMEHOOK_PUSH_KEY", hide_env_values = true)]
    key: String,
    /// The push domain.
    #[arg(long)]
    domain: String,
    /// The first part of the path.
    #[arg(long, default_value = "live")]
    app: String,
    /// The stream name.
    #[arg(long)]
    stream: String,
    /// How long the URL lets a push begin, as `90s`, `30m`, `12h` or `7d`.
    #[arg(long, default_value = "24h", value_parser = life, conflicts_with = "expires_at")]
    expires: Duration,
    /// When it stops doing so, in seconds since 1970 (UTC).
    #[arg(long, value_name = "UNIX_SECONDS")]
    expires_at: Option<i64>,
    /// Address of the server, if the domain does not resolve to it: the domain then goes into the query.
    #[arg(long, value_name = "HOST[:PORT]")]
    server: Option<String>,
}

/// `90s`, `30m`, `12h`, `7d`.
fn life(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds_each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => bail!("expected a number and s, m, h or d, such as 24h"),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds_each));
    // Beyond 3000 years the hexadecimal txTime would no longer have its usual 8 characters, and nobody is served.
    match seconds.filter(|&seconds| (1..=100_000_000_000).contains(&seconds)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => bail!("expected a number and s, m, h or d, such as 24h"),
    }
}

pub(crate) fn run(arguments: &PushUrlArgs) -> Result<ExitCode> {
    let key = PushKey::parse(&arguments.key)?;
    let domain = DomainName::parse(&arguments.domain)?;
    let app = AppName::parse(&arguments.app)?;
    let stream = StreamName::parse(&arguments.stream)?;
    let expires = arguments.expires_at.map_or_else(|| Clock::start().wall().plus(arguments.expires), UnixMs::from_secs);
    let (tx_secret, tx_time) = sign(&key, &stream, expires);
    let query = format!("txSecret={tx_secret}&txTime={tx_time}");
    output::line(&match &arguments.server {
        None => format!("rtmp://{domain}/{app}/{stream}?{query}"),
        Some(server) => format!("rtmp://{server}/{app}/{stream}?domain={domain}&{query}"),
    });
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_have_a_unit_and_an_end() {
        let cases = [("90s", Some(90)), ("30m", Some(1800)), ("12h", Some(43_200)), ("7d", Some(604_800))];
        let refused = ["", "s", "5", "5w", "-5s", "0s", "99999999999999999999d", "5 s", "5é"];
        for (text, seconds) in cases.into_iter().chain(refused.map(|text| (text, None))) {
            assert_eq!(life(text).ok(), seconds.map(Duration::from_secs), "{text:?}");
        }
    }
}
