//! Instants, and the three ways in which the API writes them.

use alloc::string::String;
use core::fmt;

use jiff::{
    Timestamp,
    civil::DateTime,
    fmt::strtime::BrokenDownTime,
    tz::{Offset, TimeZone},
};
use serde::{Serialize, Serializer};

/// Wall time: seconds since 1970-01-01T00:00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct UnixSecs(pub i64);

impl UnixSecs {
    pub const fn plus_secs(self, secs: i64) -> Self {
        Self(self.0.saturating_add(secs))
    }

    /// Seconds from `earlier` to `self`, negative when it is later.
    pub const fn secs_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The date in UTC as `2025-01-01`, which scopes a signature of version 3.
    pub fn utc_date(self) -> String {
        alloc::format!("{}", self.civil(Offset::UTC).date())
    }

    /// Calendar fields; instants outside the years 1970 to 9999 are moved to the nearer end, as none of them can be a
    /// time that the API speaks about.
    fn civil(self, offset: Offset) -> DateTime {
        let end = if self.0 < 0 { Timestamp::UNIX_EPOCH } else { Timestamp::MAX };
        let instant = Timestamp::from_second(self.0).unwrap_or(end).max(Timestamp::UNIX_EPOCH);
        offset.to_datetime(instant)
    }
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// `2025-01-01T00:00:00Z`
    Utc,
    /// `2025-01-01 08:00:00`: UTC+8 without saying so.
    Beijing,
    /// `2025-01-01T08:00:00+08:00`, seconds east of Greenwich.
    Offset(i32),
}

/// Beijing's distance from Greenwich.
const BEIJING_SECS: i32 = 8 * 3600;

/// An instant and how it is written. Some actions answer in the notation of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiTime {
    pub at: UnixSecs,
    pub notation: Notation,
}

impl ApiTime {
    pub const fn utc(at: UnixSecs) -> Self {
        Self { at, notation: Notation::Utc }
    }

    pub const fn beijing(at: UnixSecs) -> Self {
        Self { at, notation: Notation::Beijing }
    }

    /// Reads any of the three notations, told apart by their lengths. `None` for anything else: no fractions, no other
    /// separators, nothing before 1970.
    pub fn parse(text: &str) -> Option<Self> {
        let civil = |format| BrokenDownTime::parse(format, text).ok()?.to_datetime().ok();
        let (civil, notation) = match text.len() {
            20 => (civil("%Y-%m-%dT%H:%M:%SZ")?, Notation::Utc),
            19 => (civil("%Y-%m-%d %H:%M:%S")?, Notation::Beijing),
            25 => {
                let parsed = BrokenDownTime::parse("%Y-%m-%dT%H:%M:%S%:z", text).ok()?;
                (parsed.to_datetime().ok()?, Notation::Offset(parsed.offset()?.seconds()))
            }
            _ => return None,
        };
        let zone = TimeZone::fixed(notation.offset());
        let at = civil.to_zoned(zone).ok()?.timestamp().as_second();
        (at >= 0).then_some(Self { at: UnixSecs(at), notation })
    }
}

impl Notation {
    fn offset(self) -> Offset {
        let secs = match self {
            Self::Utc => 0,
            Self::Beijing => BEIJING_SECS,
            Self::Offset(secs) => secs,
        };
        Offset::from_seconds(secs).unwrap_or(Offset::UTC)
    }
}

impl fmt::Display for ApiTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let civil = self.at.civil(self.notation.offset());
        let (date, time) = (civil.date(), civil.time());
        match self.notation {
            Notation::Utc => write!(f, "{date}T{time}Z"),
            Notation::Beijing => write!(f, "{date} {time}"),
            Notation::Offset(secs) => {
                let sign = if secs < 0 { '-' } else { '+' };
                let minutes = secs.unsigned_abs() / 60;
                write!(f, "{date}T{time}{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        }
    }
}

impl Serialize for ApiTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_and_writes_the_three_notations() {
        let cases = [
            ("2025-01-01T00:00:00Z", 1_735_689_600, Notation::Utc),
            ("2025-01-01 08:00:00", 1_735_689_600, Notation::Beijing),
            ("2025-01-01T08:00:00+08:00", 1_735_689_600, Notation::Offset(28_800)),
            ("2024-12-31T20:30:00-03:30", 1_735_689_600, Notation::Offset(-12_600)),
            ("2024-02-29T23:59:59Z", 1_709_251_199, Notation::Utc),
        ];
        for (text, secs, notation) in cases {
            let time = ApiTime { at: UnixSecs(secs), notation };
            assert_eq!(ApiTime::parse(text), Some(time), "{text}");
            assert_eq!(time.to_string(), text);
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "now",
            "1735689600",
            "2025-01-01",
            "2025-01-01T00:00:00",
            "2025-01-01T00:00:00z",
            "2025-01-01 00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-01-01T25:00:00Z",
            "2025-01-01T00:00:00.5Z",
            "2025-01-01T00:00:00+0800",
            "2025-01-01T00:00:00+99:00",
            "-025-01-01T00:00:00Z",
            "+025-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2025-01-01T00:00:00[UTC]",
        ] {
            assert_eq!(ApiTime::parse(text), None, "{text}");
        }
    }

    #[test]
    fn dates_are_those_of_greenwich() {
        assert_eq!(UnixSecs(1_735_689_599).utc_date(), "2024-12-31");
        assert_eq!(UnixSecs(1_735_689_600).utc_date(), "2025-01-01");
        assert_eq!(UnixSecs(i64::MIN).utc_date(), "1970-01-01");
        assert_eq!(UnixSecs(i64::MAX).utc_date(), "9999-12-30");
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(secs in 0..250_000_000_000_i64, offset_minutes in -720..=840_i32) {
            for notation in [Notation::Utc, Notation::Beijing, Notation::Offset(offset_minutes * 60)] {
                let time = ApiTime { at: UnixSecs(secs), notation };
                prop_assert_eq!(ApiTime::parse(&time.to_string()), Some(time));
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,30}") {
            ApiTime::parse(&text);
        }
    }
}
