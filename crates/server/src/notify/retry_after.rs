//! `Retry-After` (RFC 9110, 10.2.3): seconds, or a date in any of the three forms that HTTP has had.

use std::time::{Duration, UNIX_EPOCH};

use framehook_domain::time::UnixMs;
use hyper::header::HeaderValue;

/// The wait that is asked for at `now`: nothing for a date that has passed, and `None` for what is neither form.
pub(super) fn parse(value: &HeaderValue, now: UnixMs) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More seconds than a number holds are as many as it holds.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let since_epoch = date.duration_since(UNIX_EPOCH).ok()?;
    Some(UnixMs(i64::try_from(since_epoch.as_millis()).ok()?).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms() {
        // One minute before the date of RFC 9110's examples.
        let now = UnixMs::from_secs(784_111_777 - 60);
        let secs = |secs| Some(Duration::from_secs(secs));
        let rows = [
            ("120", secs(120)),
            (" 0 ", secs(0)),
            ("99999999999999999999999", secs(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", secs(60)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", secs(60)),
            ("Sun Nov  6 08:49:37 1994", secs(60)),
            ("Sun, 06 Nov 1994 08:47:00 GMT", secs(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("Sun, 31 Feb 1994 08:49:37 GMT", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(&HeaderValue::from_static(text), now), expected, "{text:?}");
        }
    }
}
