//! The receiver's procedure for CSS's signature, with a finding for each check, so that a person learns which one failed.

use alloc::{format, string::String, vec::Vec};
use core::time::Duration;

use serde_json::{Map, Value};
use subtle::{Choice, ConstantTimeEq};

use super::{expiry_secs, sign};

/// Clocks of sender and receiver may differ by this much before a `t` counts as made for later use.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The checks, in the order they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    BodyIsObject,
    TPresent,
    SignPresent,
    /// `t` has not passed.
    Fresh,
    /// `t` is no later than a sender with a slightly wrong clock would make it.
    NotTooFarAhead,
    SignatureEqual,
}

impl Check {
    pub const fn name(self) -> &'static str {
        match self {
            Self::BodyIsObject => "body_is_object",
            Self::TPresent => "t_present",
            Self::SignPresent => "sign_present",
            Self::Fresh => "fresh",
            Self::NotTooFarAhead => "not_too_far_ahead",
            Self::SignatureEqual => "signature_equal",
        }
    }
}

/// One check and how it ended: the error says in a clause what was wrong.
pub type Finding = (Check, Result<(), String>);

/// Every check that could be made, in order. A check whose input is missing is not made: its absence already failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn passed(&self) -> bool {
        self.findings.iter().all(|(_, result)| result.is_ok())
    }

    /// The first check that failed, and why.
    pub fn first_failure(&self) -> Option<(Check, &str)> {
        self.findings.iter().find_map(|(check, result)| result.as_ref().err().map(|why| (*check, why.as_str())))
    }
}

/// Checks a callback's body at `now_secs` (unix seconds). Any of `keys` may have signed it, so an empty list accepts
/// nothing; `None` is a receiver without keys, which can check the form alone.
pub fn report(body: &[u8], keys: Option<&[&str]>, now_secs: i64) -> Report {
    examine(body, keys, now_secs).0
}

/// The report, and the body's fields if it has any: for callers that go on with them.
pub(crate) fn examine(body: &[u8], keys: Option<&[&str]>, now_secs: i64) -> (Report, Map<String, Value>) {
    let fields = match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("the body is JSON, but not an object".into()),
        Err(error) => Err(format!("the body is not JSON: {error}")),
    };
    let mut findings = Vec::from([(Check::BodyIsObject, fields.as_ref().map(|_| ()).map_err(Clone::clone))]);
    let fields = fields.unwrap_or_default();
    if let Some(keys) = keys
        && findings[0].1.is_ok()
    {
        findings.extend(signature_findings(&fields, keys, now_secs));
    }
    (Report { findings }, fields)
}

fn signature_findings(fields: &Map<String, Value>, keys: &[&str], now_secs: i64) -> Vec<Finding> {
    let t = read_t(fields.get("t"));
    let signed =
        fields.get("sign").and_then(Value::as_str).ok_or_else(|| String::from("sign is missing or not a string"));
    let mut findings = Vec::from([
        (Check::TPresent, t.as_ref().map(|_| ()).map_err(Clone::clone)),
        (Check::SignPresent, signed.as_ref().map(|_| ()).map_err(Clone::clone)),
    ]);
    if let Ok(t) = t {
        findings.push((Check::Fresh, is_fresh(t, now_secs)));
        findings.push((Check::NotTooFarAhead, is_not_too_far_ahead(t, now_secs)));
        if let Ok(signed) = signed {
            findings.push((Check::SignatureEqual, is_made_with_one_of(keys, t, signed)));
        }
    }
    findings
}

/// CSS's current tables say `t` is a number, its legacy ones a string; receivers take both.
fn read_t(t: Option<&Value>) -> Result<i64, String> {
    match t {
        None => Err("t is missing".into()),
        Some(Value::Number(number)) => number.as_i64().ok_or_else(|| format!("t is not a whole number: {number}")),
        Some(Value::String(text)) => text.parse().map_err(|_| format!("t is not a decimal number: {text:?}")),
        Some(_) => Err("t is neither a number nor a string".into()),
    }
}

fn is_fresh(t: i64, now_secs: i64) -> Result<(), String> {
    let late = now_secs.saturating_sub(t);
    if late <= 0 { Ok(()) } else { Err(format!("t passed {late} s ago")) }
}

fn is_not_too_far_ahead(t: i64, now_secs: i64) -> Result<(), String> {
    let latest = expiry_secs(now_secs.saturating_add(CLOCK_SKEW.as_secs().cast_signed()));
    if t <= latest {
        Ok(())
    } else {
        Err(format!("t lies {} s beyond what a correct clock makes", t.saturating_sub(latest)))
    }
}

fn is_made_with_one_of(keys: &[&str], t: i64, signed: &str) -> Result<(), String> {
    let signed = signed.to_ascii_lowercase();
    let no_key = Choice::from(0);
    // Every key is tried, so that the time taken does not tell which one it was.
    let fits = keys.iter().fold(no_key, |fits, key| fits | sign(key, t).as_bytes().ct_eq(signed.as_bytes()));
    if fits.into() { Ok(()) } else { Err("sign is not MD5(key + t): another key, or a changed t".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: Option<&[&str]> = Some(&["k3yForDocs2024"]);
    const NOW: i64 = 1_735_689_601;

    #[test]
    fn names_the_check_that_failed() {
        let good = r#"{"t":1735690201,"sign":"4f9ce1a147eede4654f8d35ce939c39e"}"#;
        let cases = [
            ("as sent", good, NOW, None),
            ("t as a string", r#"{"t":"1735690201","sign":"4f9ce1a147eede4654f8d35ce939c39e"}"#, NOW, None),
            ("sign in upper case", r#"{"t":1735690201,"sign":"4F9CE1A147EEDE4654F8D35CE939C39E"}"#, NOW, None),
            ("unknown fields", r#"{"idc_id":34,"t":1735690201,"sign":"4f9ce1a147eede4654f8d35ce939c39e"}"#, NOW, None),
            ("not JSON", "t=1", NOW, Some(Check::BodyIsObject)),
            ("empty", "", NOW, Some(Check::BodyIsObject)),
            ("array", "[]", NOW, Some(Check::BodyIsObject)),
            ("no t", r#"{"sign":"4f9ce1a147eede4654f8d35ce939c39e"}"#, NOW, Some(Check::TPresent)),
            ("t with a fraction", r#"{"t":1.5,"sign":"4f9ce1a147eede4654f8d35ce939c39e"}"#, NOW, Some(Check::TPresent)),
            ("t null", r#"{"t":null,"sign":"4f9ce1a147eede4654f8d35ce939c39e"}"#, NOW, Some(Check::TPresent)),
            ("no sign", r#"{"t":1735690201}"#, NOW, Some(Check::SignPresent)),
            ("sign a number", r#"{"t":1735690201,"sign":4}"#, NOW, Some(Check::SignPresent)),
            ("at its last second", good, 1_735_690_201, None),
            ("a second too late", good, 1_735_690_202, Some(Check::Fresh)),
            ("sender's clock five minutes ahead", good, 1_735_689_301, None),
            ("a second more", good, 1_735_689_300, Some(Check::NotTooFarAhead)),
            (
                "forged",
                r#"{"t":1735690201,"sign":"4f9ce1a147eede4654f8d35ce939c39f"}"#,
                NOW,
                Some(Check::SignatureEqual),
            ),
            (
                "changed t",
                r#"{"t":1735690200,"sign":"4f9ce1a147eede4654f8d35ce939c39e"}"#,
                NOW,
                Some(Check::SignatureEqual),
            ),
            ("shortened sign", r#"{"t":1735690201,"sign":"4f9c"}"#, NOW, Some(Check::SignatureEqual)),
            ("t at the end of its range", r#"{"t":9223372036854775807,"sign":""}"#, NOW, Some(Check::NotTooFarAhead)),
        ];
        for (name, body, now, failed) in cases {
            let report = super::report(body.as_bytes(), KEYS, now);
            assert_eq!(report.first_failure().map(|(check, _)| check), failed, "{name}");
            assert_eq!(report.passed(), failed.is_none(), "{name}");
        }
    }

    #[test]
    fn reports_every_check_also_after_one_failed() {
        let stale = r#"{"t":1735690201,"sign":"4f9ce1a147eede4654f8d35ce939c39e"}"#;
        let report = super::report(stale.as_bytes(), KEYS, 1_800_000_000);
        let shown: Vec<_> = report.findings.iter().map(|(check, result)| (check.name(), result.is_ok())).collect();
        assert_eq!(
            shown,
            [
                ("body_is_object", true),
                ("t_present", true),
                ("sign_present", true),
                ("fresh", false),
                ("not_too_far_ahead", true),
                ("signature_equal", true)
            ]
        );
    }

    #[test]
    fn without_a_key_only_the_form_is_checked() {
        assert!(report(b"{}", None, NOW).passed());
        assert!(!report(b"[]", None, NOW).passed());
    }

    #[test]
    fn any_of_several_keys_may_have_signed() {
        let good = br#"{"t":1735690201,"sign":"4f9ce1a147eede4654f8d35ce939c39e"}"#;
        for keys in [&["k3yForDocs2024", "next"], &["previous", "k3yForDocs2024"]] {
            assert!(report(good, Some(keys), NOW).passed(), "{keys:?}");
        }
        assert!(!report(good, Some(&["previous", "next"]), NOW).passed());
        assert!(!report(good, Some(&[]), NOW).passed(), "no key signs nothing");
    }
}
