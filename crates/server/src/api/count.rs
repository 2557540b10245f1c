//! How many pictures were taken.

use framehook_domain::stream::DomainName;
use framehook_domain::time::UnixMs;
use framehook_tc3::action::Response;
use framehook_tc3::action::screenshot_count::{DescribeScreenshotCounts, Granularity, ScreenshotCount, Zone};
use framehook_tc3::time::{ApiTime, UnixSecs};

use super::error::Failure;
use crate::db::Db;
use crate::db::count::{self, Count, CountFilter, Interval};

/// Intervals without pictures are left out.
pub(super) async fn list(db: &Db, request: DescribeScreenshotCounts) -> Result<Response, Failure> {
    let DescribeScreenshotCounts { start, end, zone, push_domains, granularity } = request;
    // Every push comes in where the events say that it does: `set_id` 2, the mainland.
    if zone == Some(Zone::Oversea) {
        return Ok(Response::ScreenshotCounts { data_info_list: Vec::new() });
    }
    let filter = CountFilter {
        since: UnixMs::from_secs(start.0),
        until: UnixMs::from_secs(end.0),
        domains: push_domains.iter().map(|name| DomainName::parse(name)).collect::<Result<_, _>>()?,
        interval: match granularity {
            Granularity::FiveMinutes => Interval::FiveMinutes,
            Granularity::Day => Interval::Day,
        },
    };
    let counts = db.read(move |conn| count::list(conn, &filter)).await?;
    let info = |count: Count| ScreenshotCount {
        time: ApiTime::utc(UnixSecs(count.since.secs())),
        num: i64::try_from(count.pictures).unwrap_or(i64::MAX),
    };
    Ok(Response::ScreenshotCounts { data_info_list: counts.into_iter().map(info).collect() })
}
