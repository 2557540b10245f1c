//! How many pictures were taken, by the five minutes in which they were and by push domain.
//!
//! The rows of the pictures themselves are forgotten with the log, long before anybody stops asking how many there were.

use std::time::Duration;

use framehook_domain::stream::DomainName;
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, Row, named_params, params};

use super::row::{number, stored};
use super::{DbError, Tx};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Days of UTC+8 begin this long before those of Greenwich.
const BEIJING_MS: i64 = 8 * HOUR_MS;

/// How long counts are kept: they may be asked for over 186 days (CSS, `DescribeScreenShotSheetNumList`), and the first of
/// those is wanted whole.
const KEPT: Duration = Duration::from_secs(188 * 86_400);

/// What is added up to one number. The longer one is made of whole shorter ones, which are what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    FiveMinutes,
    /// Of UTC+8.
    Day,
}

impl Interval {
    fn length_ms(self) -> i64 {
        match self {
            Self::FiveMinutes => 5 * MINUTE_MS,
            Self::Day => DAY_MS,
        }
    }

    fn shift_ms(self) -> i64 {
        match self {
            Self::FiveMinutes => 0,
            Self::Day => BEIJING_MS,
        }
    }

    /// When the interval begins that `at` lies in.
    fn start_of(self, at: UnixMs) -> UnixMs {
        UnixMs(at.0 - at.0.saturating_add(self.shift_ms()).rem_euclid(self.length_ms()))
    }
}

/// Counts one picture of `domain` that was taken `at`.
///
/// # Errors
/// Those of the database.
pub fn add(tx: &Tx<'_>, domain: &DomainName, at: UnixMs) -> Result<(), DbError> {
    tx.prepare_cached(
        "INSERT INTO picture_count (since_ms, domain, pictures) VALUES (?1, ?2, 1)
         ON CONFLICT DO UPDATE SET pictures = pictures + 1",
    )?
    .execute(params![Interval::FiveMinutes.start_of(at).0, domain.as_str()])?;
    Ok(())
}

/// Which pictures to count.
#[derive(Clone, Debug)]
pub struct CountFilter {
    /// From the interval that this lies in to the one that the other lies in, both whole.
    pub since: UnixMs,
    pub until: UnixMs,
    /// Empty: of every domain.
    pub domains: Vec<DomainName>,
    pub interval: Interval,
}

/// The pictures of one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// When the interval begins.
    pub since: UnixMs,
    pub pictures: u64,
}

/// The intervals in which pictures were taken, in their order.
///
/// # Errors
/// Those of the database.
pub fn list(conn: &Connection, filter: &CountFilter) -> Result<Vec<Count>, DbError> {
    let interval = filter.interval;
    let names: Vec<&str> = filter.domains.iter().map(DomainName::as_str).collect();
    let mut statement = conn.prepare_cached(
        "SELECT (since_ms + :shift) / :length * :length - :shift AS interval_ms, sum(pictures) AS pictures
         FROM picture_count
         WHERE since_ms >= :since AND since_ms < :end
             AND (:names = '[]' OR domain IN (SELECT value FROM json_each(:names)))
         GROUP BY interval_ms ORDER BY interval_ms",
    )?;
    let rows = statement.query_map(
        named_params! {
            ":shift": interval.shift_ms(),
            ":length": interval.length_ms(),
            ":since": interval.start_of(filter.since).0,
            ":end": interval.start_of(filter.until).0.saturating_add(interval.length_ms()),
            ":names": serde_json::json!(names).to_string(),
        },
        |row| Ok(count(row)),
    )?;
    rows.map(|row| row?).collect()
}

fn count(row: &Row<'_>) -> Result<Count, DbError> {
    Ok(Count { since: UnixMs(row.get("interval_ms")?), pictures: number(row, "pictures")? })
}

/// Forgets at most `rows` counts that nobody can ask for any more.
///
/// # Errors
/// Those of the database.
pub fn prune(tx: &Tx<'_>, wall: UnixMs, rows: usize) -> Result<usize, DbError> {
    let delete = "DELETE FROM picture_count WHERE (since_ms, domain) IN
                      (SELECT since_ms, domain FROM picture_count WHERE since_ms < ?1 LIMIT ?2)";
    Ok(tx.prepare_cached(delete)?.execute(params![wall.minus(KEPT).0, stored(rows)])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_in_utc_plus_eight() {
        // 2025-01-01 00:00:00 UTC, eight in the morning in UTC+8.
        const MORNING: i64 = 1_735_689_600_000;
        for (interval, at, start) in [
            (Interval::FiveMinutes, MORNING, MORNING),
            (Interval::FiveMinutes, MORNING + 5 * MINUTE_MS - 1, MORNING),
            (Interval::FiveMinutes, MORNING + 5 * MINUTE_MS, MORNING + 5 * MINUTE_MS),
            (Interval::Day, MORNING, MORNING - 8 * HOUR_MS),
            (Interval::Day, MORNING - 8 * HOUR_MS, MORNING - 8 * HOUR_MS),
            (Interval::Day, MORNING - 8 * HOUR_MS - 1, MORNING - 32 * HOUR_MS),
        ] {
            assert_eq!(interval.start_of(UnixMs(at)), UnixMs(start), "{interval:?} {at}");
        }
    }
}
