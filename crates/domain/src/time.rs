//! Wall time, monotonic time, and the time zone in which objects are named. All of them are arguments here: the
//! server's `clock.rs` is the only place that reads one.

use alloc::sync::Arc;
use core::{fmt, str::FromStr, time::Duration};

use jiff::{
    Timestamp,
    fmt::temporal::DateTimeParser,
    tz::{TimeZone, TimeZoneDatabase},
};

use crate::field::FieldError;

/// Wall clock: milliseconds since 1970-01-01T00:00:00 UTC. It may jump; nothing waits by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMs(pub i64);

impl UnixMs {
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Whole seconds, rounded down, as the callbacks carry them.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// Time passed since `earlier`, zero when the clock went back.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Whole milliseconds of a duration, saturating: 2^63 ms are 292 million years.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Monotonic clock: time since the process began. It never jumps and means nothing to another process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub Duration);

impl Mono {
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// Not before the process began.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }

    /// Time passed since `earlier`, zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A wall clock that moved this much more or less than the monotonic one was set, not merely slewed: NTP slews at most
/// 0.5 ms per second, so even a minute between two looks explains only 30 ms.
const WALL_JUMP: Duration = Duration::from_secs(30);

/// Whether the wall clock was set between two looks at both clocks, by comparing how far each moved.
pub fn wall_jumped(before: (UnixMs, Mono), now: (UnixMs, Mono)) -> bool {
    let expected = before.0.plus(now.1.since(before.1));
    now.0.since(expected).max(expected.since(now.0)) > WALL_JUMP
}

/// The calendar fields of an instant in a [`NameZone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CivilTime {
    /// 0 to 9999, so that it always has four digits.
    pub year: u16,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

/// The time zone of `{Year}` … `{Second}` in object keys: a fixed offset (`+08:00`) or an IANA name (`Europe/Berlin`)
/// from the tz data built into the executable, so that a host without `/usr/share/zoneinfo` names objects alike.
#[derive(Clone, Debug)]
pub struct NameZone {
    name: Arc<str>,
    zone: TimeZone,
}

/// Kiribati keeps UTC+14, nobody anything further.
const OFFSET_SECS_MAX: i32 = 14 * 3600;

const ZONE_ALLOWED: &str = "an offset such as +08:00, or an IANA time zone such as UTC or Asia/Shanghai";

impl NameZone {
    /// The calendar fields of `at`; instants before the year 0 or after 9999 are clamped to that range.
    pub fn civil(&self, at: UnixMs) -> CivilTime {
        let first = Timestamp::UNIX_EPOCH;
        let instant = Timestamp::from_millisecond(at.0).unwrap_or(if at.0 < 0 { first } else { Timestamp::MAX });
        let civil = self.zone.to_datetime(instant.max(first));
        // jiff's calendar fields are small and, after the clamp to 1970, positive, so no cast below can change a value.
        CivilTime {
            year: civil.year().unsigned_abs(),
            month: civil.month().unsigned_abs(),
            day: civil.day().unsigned_abs(),
            hour: civil.hour().unsigned_abs(),
            minute: civil.minute().unsigned_abs(),
            second: civil.second().unsigned_abs(),
        }
    }
}

impl Default for NameZone {
    /// UTC+8, as CSS names its objects.
    fn default() -> Self {
        "+08:00".parse().expect("+08:00 is a fixed offset")
    }
}

impl FromStr for NameZone {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let refused = || FieldError::new("time_zone", text, ZONE_ALLOWED);
        // Only text with a leading sign is read as an offset. The general parser would also take POSIX rules, in which
        // `UTC+8` means eight hours *behind*: the opposite of what everybody who types it wants.
        let zone = if text.starts_with(['+', '-']) {
            let zone = DateTimeParser::new().parse_time_zone_with(&TimeZoneDatabase::none(), text);
            let is_on_earth =
                |zone: &TimeZone| zone.to_fixed_offset().is_ok_and(|o| o.seconds().abs() <= OFFSET_SECS_MAX);
            zone.ok().filter(is_on_earth).ok_or_else(refused)?
        } else {
            TimeZoneDatabase::bundled().get(text).map_err(|_| refused())?
        };
        Ok(Self { name: text.into(), zone })
    }
}

impl fmt::Display for NameZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for NameZone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for NameZone {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn civil(zone: &str, at_secs: i64) -> [u16; 6] {
        let zone: NameZone = zone.parse().expect("a zone");
        let CivilTime { year, month, day, hour, minute, second } = zone.civil(UnixMs::from_secs(at_secs));
        [year, month.into(), day.into(), hour.into(), minute.into(), second.into()]
    }

    #[test]
    fn tells_the_calendar_time_of_a_zone() {
        let cases = [
            ("published sample in UTC+8", "+08:00", 1622599925, [2021, 6, 2, 10, 12, 5]),
            ("legacy published sample", "+08:00", 1473645788, [2016, 9, 12, 10, 3, 8]),
            ("new year comes earlier in the east", "+08:00", 1735662600, [2025, 1, 1, 0, 30, 0]),
            ("utc", "UTC", 1735662600, [2024, 12, 31, 16, 30, 0]),
            ("summer time by IANA name", "Europe/Berlin", 1622599925, [2021, 6, 2, 4, 12, 5]),
            ("winter time by IANA name", "Europe/Berlin", 1735689600, [2025, 1, 1, 1, 0, 0]),
            ("half-hour offset", "-03:30", 1735689600, [2024, 12, 31, 20, 30, 0]),
        ];
        for (name, zone, at_secs, expected) in cases {
            assert_eq!(civil(zone, at_secs), expected, "{name}");
        }
    }

    #[test]
    fn is_utc_plus_eight_unless_told() {
        assert_eq!(NameZone::default(), "+08:00".parse().expect("a zone"));
    }

    #[test]
    fn refuses_what_is_not_a_zone() {
        for text in ["", "Mars/Olympus", "UTC+8", "8", "+15:00", "-23:59", "CST-8", "+08:00 ", "../etc/passwd"] {
            let error = text.parse::<NameZone>().expect_err(text);
            assert_eq!(error.field, "time_zone", "{text}");
        }
    }

    #[test]
    fn shows_the_name_it_was_given() {
        assert_eq!("Asia/Tokyo".parse::<NameZone>().expect("a zone").to_string(), "Asia/Tokyo");
    }

    #[test]
    fn clamps_instants_outside_the_calendar() {
        let zone = NameZone::default();
        assert_eq!(zone.civil(UnixMs(i64::MIN)).year, 1970);
        assert_eq!(zone.civil(UnixMs(i64::MAX)).year, 9999);
    }

    #[test]
    fn notices_a_wall_clock_that_was_set() {
        let before = (UnixMs::from_secs(1000), Mono(Duration::from_secs(10)));
        let cases = [
            ("both moved alike", 1060, 70, false),
            ("slewed a little", 1061, 70, false),
            ("set forward by an hour", 4660, 70, true),
            ("set back by an hour", -2540, 70, true),
            ("exactly thirty seconds is not a jump", 1090, 70, false),
            ("one more is", 1091, 70, true),
        ];
        for (name, wall_secs, mono_secs, jumped) in cases {
            let now = (UnixMs::from_secs(wall_secs), Mono(Duration::from_secs(mono_secs)));
            assert_eq!(wall_jumped(before, now), jumped, "{name}");
        }
    }

    #[test]
    fn seconds_round_down_also_before_the_epoch() {
        assert_eq!(UnixMs(1999).secs(), 1);
        assert_eq!(UnixMs(-1).secs(), -1);
    }
}
