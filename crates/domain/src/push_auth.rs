//! Hotlink keys: who may push (CSS, 267/31560).
//!
//! ```text
//! txTime   = unix seconds of expiry, in hexadecimal (or decimal)
//! txSecret = lower-case hex of MD5(KEY + StreamName + txTime), or of SHA-256 of the same
//! ```

use alloc::{format, string::String};
use core::time::Duration;

use md5::Md5;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    field::FieldError,
    hex,
    refusal::Refusal,
    secret::Secret,
    stream::{StreamName, StreamParam},
    time::UnixMs,
};

/// The push keys of a domain; a signature made with either is good, so that keys can be rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushKeys {
    pub main: PushKey,
    pub backup: Option<PushKey>,
    /// Added to `txTime`; zero by default, as push URLs expire at `txTime` itself.
    pub auth_delta: Duration,
}

/// One push key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushKey(Secret);

/// CSS generates 32 characters and documents no limit; eight times that is room for any generator.
const KEY_BYTES_MAX: usize = 256;

impl PushKey {
    /// # Errors
    /// Empty, longer than 256 bytes, or with control characters.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        if (1..=KEY_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control) {
            Ok(Self(Secret::new(text)))
        } else {
            Err(FieldError::secret("push_key", text, "1 to 256 bytes without control characters"))
        }
    }

    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// Checks a push that is about to begin. A running push survives the expiry of its URL.
///
/// # Errors
/// [`Refusal::TxTimeMissing`] (absent or not a number), [`Refusal::TxSecretMissing`], [`Refusal::TxSecretWrong`],
/// [`Refusal::Expired`]. The signature is checked before the expiry, so that "expired" is only said to holders of a
/// key.
pub fn check(keys: &PushKeys, stream: &StreamName, param: &StreamParam, now: UnixMs) -> Result<(), Refusal> {
    let tx_time = param.get("txTime").filter(|text| !text.is_empty()).ok_or(Refusal::TxTimeMissing)?;
    let tx_secret = param.get("txSecret").filter(|text| !text.is_empty()).ok_or(Refusal::TxSecretMissing)?;
    let expires_secs = expiry_secs(tx_time).ok_or(Refusal::TxTimeMissing)?;

    let candidates = [Some(&keys.main), keys.backup.as_ref()];
    if !candidates.into_iter().flatten().any(|key| is_signed_by(key, stream, tx_time, tx_secret)) {
        return Err(Refusal::TxSecretWrong);
    }
    if now > UnixMs::from_secs(expires_secs).plus(keys.auth_delta) {
        return Err(Refusal::Expired);
    }
    Ok(())
}

/// Makes `(txSecret, txTime)` for a push URL that expires at `expires`, in upper-case hexadecimal as CSS's own samples.
pub fn sign(key: &PushKey, stream: &StreamName, expires: UnixMs) -> (String, String) {
    let tx_time = format!("{:X}", expires.secs().max(0));
    (hex::lower(Md5::digest(signed_text(key, stream, &tx_time))), tx_time)
}

fn is_signed_by(key: &PushKey, stream: &StreamName, tx_time: &str, tx_secret: &str) -> bool {
    let text = signed_text(key, stream, tx_time);
    let expected = if tx_secret.len() == 64 { hex::lower(Sha256::digest(text)) } else { hex::lower(Md5::digest(text)) };
    expected.as_bytes().ct_eq(tx_secret.to_ascii_lowercase().as_bytes()).into()
}

/// `txTime` is signed exactly as it stands in the URL, before it is read as a number.
fn signed_text(key: &PushKey, stream: &StreamName, tx_time: &str) -> String {
    format!("{}{stream}{tx_time}", key.expose())
}

/// Ten decimal digits are decimal seconds (2001 to 2286); everything else is hexadecimal. Ten hexadecimal digits
/// without a letter would be far past the year 2600, so nothing sensible is read wrongly.
fn expiry_secs(tx_time: &str) -> Option<i64> {
    if !tx_time.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let is_decimal = tx_time.len() == 10 && tx_time.bytes().all(|byte| byte.is_ascii_digit());
    i64::from_str_radix(tx_time, if is_decimal { 10 } else { 16 }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "M4sterPushKey0123456789abcdefXYZ";
    const BACKUP: &str = "B4ckupPushKey0123456789abcdefXYZ";
    /// 2025-12-31T23:59:59Z, the expiry of every vector of the specification.
    const EXPIRES: UnixMs = UnixMs::from_secs(1_767_225_599);

    fn key(text: &str) -> PushKey {
        PushKey::parse(text).expect("a key")
    }

    fn keys(main: &str, backup: Option<&str>) -> PushKeys {
        PushKeys { main: key(main), backup: backup.map(key), auth_delta: Duration::ZERO }
    }

    fn stream(name: &str) -> StreamName {
        StreamName::parse(name).expect("a stream name")
    }

    fn param(query: &str) -> StreamParam {
        StreamParam::parse(query).expect("a query")
    }

    #[test]
    fn accepts_every_vector() {
        let both = keys(MAIN, Some(BACKUP));
        let sha256 = "8166da611d03e1be5be6470b6d63fe7690f218156c27a284b0b723595367e83f";
        let cases = [
            ("main, upper-case hex", &both, "room_1001", "6955B8FF", "97672276ddfff159cdb1ab726863f7bd"),
            ("main, lower-case hex", &both, "room_1001", "6955b8ff", "7d99822e58b4d0c8bccbd2f05ff4f3e3"),
            ("main, decimal", &both, "room_1001", "1767225599", "17132f8308d5125005a67ae84105fc72"),
            ("backup", &both, "room_1001", "6955B8FF", "45bb3161e7295f162fae7b009aed6be2"),
            ("main, SHA-256", &both, "room_1001", "6955B8FF", sha256),
            (
                "published in 267/31560",
                &keys("e12c46f2612d5106e2034781ab261ca3", None),
                "test",
                "5C271099",
                "f85a2ab363fe4deaffef9754d79da6fe",
            ),
            (
                "published in 267/35598",
                &keys("somestring", None),
                "test",
                "5c2acacc",
                "b77e812107e1d8b8f247885a46e1bd34",
            ),
            ("digest in upper case", &both, "room_1001", "6955B8FF", "97672276DDFFF159CDB1AB726863F7BD"),
        ];
        for (name, keys, stream_name, tx_time, tx_secret) in cases {
            let query = param(&format!("txSecret={tx_secret}&txTime={tx_time}"));
            assert_eq!(check(keys, &stream(stream_name), &query, UnixMs::from_secs(1_500_000_000)), Ok(()), "{name}");
        }
    }

    #[test]
    fn refuses_with_the_code_of_each_failure() {
        let good = "txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=6955B8FF";
        let after = UnixMs(EXPIRES.0 + 1);
        let cases = [
            ("nothing", "", EXPIRES, Err(Refusal::TxTimeMissing)),
            ("no txTime", "txSecret=97672276ddfff159cdb1ab726863f7bd", EXPIRES, Err(Refusal::TxTimeMissing)),
            ("empty txTime", "txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=", EXPIRES, Err(Refusal::TxTimeMissing)),
            (
                "txTime that is no number",
                "txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=soon",
                EXPIRES,
                Err(Refusal::TxTimeMissing),
            ),
            (
                "txTime beyond 64 bits",
                "txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=11112222333344445",
                EXPIRES,
                Err(Refusal::TxTimeMissing),
            ),
            ("no txSecret", "txTime=6955B8FF", EXPIRES, Err(Refusal::TxSecretMissing)),
            ("empty txSecret", "txSecret=&txTime=6955B8FF", EXPIRES, Err(Refusal::TxSecretMissing)),
            (
                "wrong txSecret",
                "txSecret=97672276ddfff159cdb1ab726863f7be&txTime=6955B8FF",
                EXPIRES,
                Err(Refusal::TxSecretWrong),
            ),
            ("shortened txSecret", "txSecret=97672276&txTime=6955B8FF", EXPIRES, Err(Refusal::TxSecretWrong)),
            (
                "signed for another spelling of txTime",
                "txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=6955b8ff",
                EXPIRES,
                Err(Refusal::TxSecretWrong),
            ),
            ("at its last moment", good, EXPIRES, Ok(())),
            ("one millisecond late", good, after, Err(Refusal::Expired)),
            ("expired and forged", "txSecret=00&txTime=6955B8FF", after, Err(Refusal::TxSecretWrong)),
            ("custom parameters are not signed", &format!("a=1&{good}&b=2"), EXPIRES, Ok(())),
        ];
        for (name, query, now, expected) in cases {
            assert_eq!(check(&keys(MAIN, Some(BACKUP)), &stream("room_1001"), &param(query), now), expected, "{name}");
        }
    }

    #[test]
    fn reads_expiry_times_as_the_documents_print_them() {
        let cases = [
            ("hexadecimal", "5867D600", Some(1_483_200_000)),
            ("lower case", "5c2acacc", Some(1_546_308_300)),
            ("eight digits are hexadecimal", "59000000", Some(0x5900_0000)),
            ("ten digits are decimal", "1767225599", Some(1_767_225_599)),
            ("ten with a letter are hexadecimal", "176722559a", Some(0x17_6722_559a)),
            ("sign", "-6955B8FF", None),
            ("plus", "+6955B8FF", None),
            ("prefix", "0x6955B8FF", None),
        ];
        for (name, tx_time, expected) in cases {
            assert_eq!(expiry_secs(tx_time), expected, "{name}");
        }
    }

    #[test]
    fn auth_delta_extends_the_expiry() {
        let keys = PushKeys { auth_delta: Duration::from_secs(60), ..keys(MAIN, None) };
        let query = param("txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=6955B8FF");
        assert_eq!(check(&keys, &stream("room_1001"), &query, UnixMs(EXPIRES.0 + 60_000)), Ok(()));
        assert_eq!(check(&keys, &stream("room_1001"), &query, UnixMs(EXPIRES.0 + 60_001)), Err(Refusal::Expired));
    }

    #[test]
    fn signs_as_the_specification_does() {
        let (tx_secret, tx_time) = sign(&key(MAIN), &stream("room_1001"), EXPIRES);
        assert_eq!((tx_secret.as_str(), tx_time.as_str()), ("97672276ddfff159cdb1ab726863f7bd", "6955B8FF"));
    }

    #[test]
    fn keys_print_as_stars() {
        let shown = format!("{:?}", keys(MAIN, Some(BACKUP)));
        assert!(shown.contains("***") && !shown.contains("PushKey0123"), "{shown}");
    }

    #[test]
    fn refuses_keys_that_cannot_be_typed() {
        for text in ["", "a\nb", &"a".repeat(257)] {
            assert!(PushKey::parse(text).is_err());
        }
    }
}
