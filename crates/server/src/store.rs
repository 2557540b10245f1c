//! From the spool into the object store.
//!
//! The [`Storer`] finds its work in the database: pictures that are committed and whose put has fallen due. A signal only
//! wakes it earlier, so a restart is the same as a nudge. When a put succeeds, one transaction says that the picture is
//! stored and makes its deliveries due; before that transaction nobody is told of it.
//!
//! [`LocalStore`] is the only store today. The next one turns it into a trait; what the Storer asks of a store is `put`,
//! `exists`, and an error that knows whether waiting helps.

pub mod fs;
pub mod signed_url;
pub mod spool;
mod storer;

use std::io;
use std::time::Duration;

use framehook_domain::fault::Fault;
use framehook_domain::object_key::ObjectKey;
use framehook_domain::template::StoreTarget;
use framehook_domain::time::UnixMs;
use rustix::io::Errno;

pub use fs::LocalStore;
pub use signed_url::{UrlRefused, UrlSigner};
pub use storer::{Storer, StorerParts};

use crate::durable::is_full;

/// Why a put failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the object name {bucket}/{key} is not safe")]
    UnsafeName { bucket: String, key: String },
    #[error("the bytes of {key} are not in the spool any more")]
    SpoolMissing { key: String },
    /// The store said no for a reason that does not pass by itself: a permission, a file where a folder must be.
    #[error("the store refuses {bucket}/{key}")]
    Refused { bucket: String, key: String, source: io::Error },
    #[error("the store has no room for {bucket}/{key}")]
    Full { bucket: String, key: String, source: io::Error },
    #[error("the store failed at {bucket}/{key}")]
    Failed { bucket: String, key: String, source: io::Error },
}

/// What comes after a failed put. It stays owed in both cases; only a person ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It will pass: try again soon.
    Later,
    /// A person should look: try again now and then, and raise the alarm.
    Held,
}

impl StoreError {
    fn from_io(bucket: &str, key: &str, source: io::Error) -> Self {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        const REFUSALS: [Errno; 7] =
            [Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::NOTDIR, Errno::ISDIR, Errno::NAMETOOLONG, Errno::LOOP];
        if is_full(&source) {
            Self::Full { bucket, key, source }
        } else if Errno::from_io_error(&source).is_some_and(|errno| REFUSALS.contains(&errno)) {
            Self::Refused { bucket, key, source }
        } else {
            Self::Failed { bucket, key, source }
        }
    }

    /// Who is to blame.
    pub fn fault(&self) -> Fault {
        match self {
            Self::UnsafeName { .. } | Self::SpoolMissing { .. } => Fault::Ours,
            Self::Refused { .. } | Self::Full { .. } | Self::Failed { .. } => Fault::Dependency,
        }
    }

    /// Whether waiting helps.
    pub fn retry(&self) -> Retry {
        match self {
            Self::UnsafeName { .. } | Self::SpoolMissing { .. } | Self::Refused { .. } => Retry::Held,
            Self::Full { .. } | Self::Failed { .. } => Retry::Later,
        }
    }

    /// Every name, for metrics that must exist before the first failure.
    pub const NAMES: [&str; 5] = ["unsafe_name", "spool_missing", "refused", "full", "failed"];

    /// The name used in metrics and logs; it never changes.
    pub fn name(&self) -> &'static str {
        match self {
            Self::UnsafeName { .. } => "unsafe_name",
            Self::SpoolMissing { .. } => "spool_missing",
            Self::Refused { .. } => "refused",
            Self::Full { .. } => "full",
            Self::Failed { .. } => "failed",
        }
    }
}

/// How receivers reach the objects of each store.
#[derive(Clone, Debug)]
pub struct StoreUrls {
    local_public_url: String,
    /// Signs the URLs of the local store, where it gives objects out to signed ones only.
    signer: Option<UrlSigner>,
}

impl StoreUrls {
    /// `local_public_url` is what stands before `/<bucket>-<appid>/<key>`, for instance `http://127.0.0.1:8080/objects`.
    pub fn new(local_public_url: &str, signer: Option<UrlSigner>) -> Self {
        Self { local_public_url: local_public_url.trim_end_matches('/').to_owned(), signer }
    }

    /// `pic_full_url` of an object that is committed `now`.
    pub fn pic_full_url(&self, target: &StoreTarget, key: &ObjectKey, now: UnixMs) -> String {
        let bucket = target.full_bucket();
        let url = key.pic_full_url(&format!("{}/{bucket}", self.local_public_url));
        match &self.signer {
            Some(signer) => format!("{url}?{}", signer.query(&bucket, key.as_str(), now)),
            None => url,
        }
    }

    /// Whether a request for an object of the local store may have it: with any query, or with a signed one where that is
    /// asked for.
    ///
    /// # Errors
    /// See [`UrlRefused`].
    pub fn admit(&self, bucket: &str, key: &str, query: &str, now: UnixMs) -> Result<(), UrlRefused> {
        self.signer.as_ref().map_or(Ok(()), |signer| signer.check(bucket, key, query, now))
    }

    /// Whether objects are given out to signed URLs only.
    pub fn are_signed(&self) -> bool {
        self.signer.is_some()
    }
}

/// First delay after a failed put, doubled with each further failure.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// Longest delay while a store is expected to come back: an outage's end is noticed within a minute.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Delay while a store refuses: it waits for a person, who takes longer than that and sees the alarm meanwhile.
const HELD_DELAY: Duration = Duration::from_secs(300);

/// The delay after `failures` failed puts (at least 1). `jitter` in `[0, 1)` spreads it over ±20 %, so that pictures that
/// failed together do not come back together.
pub fn backoff(retry: Retry, failures: u32, jitter: f64) -> Duration {
    let base = match retry {
        Retry::Held => HELD_DELAY,
        Retry::Later => BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(BACKOFF_MAX),
    };
    base.mul_f64(0.8 + 0.4 * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute() {
        let secs = |failures| backoff(Retry::Later, failures, 0.5).as_secs_f64();
        let delays: Vec<f64> = [1, 2, 3, 6, 7, 8, 1000, u32::MAX].into_iter().map(secs).collect();
        assert_eq!(delays, [1.0, 2.0, 4.0, 32.0, 60.0, 60.0, 60.0, 60.0]);
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        for retry in [Retry::Later, Retry::Held] {
            let middle = backoff(retry, 3, 0.5);
            assert_eq!(backoff(retry, 3, 0.0), middle.mul_f64(0.8));
            assert!(backoff(retry, 3, 0.999_999) < middle.mul_f64(1.2));
        }
    }

    #[test]
    fn what_waits_for_a_person_is_tried_every_few_minutes() {
        assert_eq!(backoff(Retry::Held, 1, 0.5), HELD_DELAY);
        assert_eq!(backoff(Retry::Held, 50, 0.5), HELD_DELAY);
    }
}
