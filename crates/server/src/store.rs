//! From the spool into the object stores.
//!
//! The [`Storer`] finds its work in the database: pictures that are committed and whose put has fallen due. What the
//! committer hands over only saves it a look, so a restart is the same as a nudge. When a put succeeds, one transaction says
//! that the picture is stored and makes its deliveries due; before that transaction nobody is told of it.
//!
//! A store is an [`ObjectStore`]; [`Stores`] says which one a bucket is in.

mod ahead;
mod circuit;
mod conditions;
pub mod fs;
mod lane;
mod latest;
mod local;
mod put_signal;
pub mod remote;
mod room;
pub mod signed_url;
pub mod spool;
mod storer;
mod stores;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use framehook_domain::fault::Fault;
use framehook_domain::time::UnixMs;
use rustix::io::Errno;

pub use ahead::{Ahead, clear_recorded_leftovers};
pub use conditions::Conditions;
pub use fs::LocalStore;
pub use latest::LatestStorer;
pub use local::Local;
pub use put_signal::PutSignal;
pub use remote::{Refusal, Remote};
pub(crate) use room::IMAGE_BYTES_EXPECTED;
pub use room::Room;
pub use signed_url::{UrlRefused, UrlSigner};
pub use storer::{PlaceState, PlaceStatus, Storer, StorerParts};
pub(crate) use stores::is_taken;
pub use stores::{Chosen, Stores, StoresError};

use crate::durable::is_full;

/// A bucket of some store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket<'a> {
    /// As the template names it; the local store makes no use of it.
    pub region: &'a str,
    /// With its `-<appid>` tail.
    pub name: &'a str,
}

/// What is put into a store.
#[derive(Clone, Copy, Debug)]
pub struct Upload<'a> {
    /// A file of the spool. It stays as it is.
    pub file: &'a Path,
    /// Such as `image/jpeg`: the store tells it whoever fetches the object.
    pub content_type: &'a str,
    /// Days after which the store may remove the object by itself; `None`: it keeps it. The local store makes no use of it.
    pub retention_days: Option<u32>,
    /// Whether another picture may take its place at any moment: whoever keeps a copy must ask whether it is still right. The
    /// local store makes no use of it, since its objects are given out by us.
    pub is_overwritten: bool,
}

/// What a bucket tells who asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// How far this machine's clock is ahead of the store's, in seconds; `None`: the store does not say what time it is.
    pub clock_ahead_secs: Option<i64>,
}

/// What a store answers when it has been asked.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A place for objects: buckets that hold bytes under keys. Each answer comes in bounded time.
pub trait ObjectStore: fmt::Debug + Send + Sync {
    /// Puts a file under a key, durably and as a whole: whoever fetches it finds all of it, or what was there before. Doing
    /// it again, after a crash or a lost answer, changes nothing.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn put<'a>(&'a self, bucket: Bucket<'a>, key: &'a str, upload: Upload<'a>) -> Answer<'a, ()>;

    /// Whether an object can be fetched.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn exists<'a>(&'a self, bucket: Bucket<'a>, key: &'a str) -> Answer<'a, bool>;

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn remove<'a>(&'a self, bucket: Bucket<'a>, key: &'a str) -> Answer<'a, ()>;

    /// Asks whether a bucket is there and would take us in, for a person who looks for what is wrong.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn probe<'a>(&'a self, bucket: Bucket<'a>) -> Answer<'a, Probe>;

    /// Whether what is put to be kept for so many days is removed after them, as things are now.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn removes_after<'a>(&'a self, bucket: Bucket<'a>, days: u32) -> Answer<'a, bool>;

    /// `pic_full_url`: where receivers fetch an object from `now` on.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] where URLs are signed and there is nothing to sign with.
    fn full_url(&self, bucket: Bucket<'_>, key: &str, now: UnixMs) -> Result<String, StoreError>;

    /// Whether a URL that [`ObjectStore::full_url`] made still opens its object, as far as its age and signature tell.
    fn still_opens(&self, bucket: Bucket<'_>, key: &str, full_url: &str, now: UnixMs) -> bool;

    /// Whether a URL that [`ObjectStore::full_url`] made before an object was put will open it for as long as callbacks are
    /// sent: it is not signed, as the store's URLs are not, or has half of its life left and was signed by who signs now.
    /// Asked at every put, so where URLs are not signed it costs a look for a query.
    fn opens_for_long(&self, bucket: Bucket<'_>, key: &str, full_url: &str, now: UnixMs) -> bool;
}

/// A signed URL of which less is left when its object is put is made anew: 1 of so many parts of its life. Of the shortest
/// life that the configuration takes, an hour, this leaves the half, in which the schedule `css` ends: five waits of 2 min and
/// six attempts of 20 s, where nobody has configured them longer.
const URL_LIFE_LEFT_MIN: u32 = 2;

/// Why a put failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The picture was committed under another configuration.
    #[error("no store is configured under the name {store}")]
    Unknown { store: String },
    #[error("the object name {bucket}/{key} is not safe")]
    UnsafeName { bucket: String, key: String },
    /// Its name and the store's endpoint make none: nothing can be put there under any key.
    #[error("the bucket {bucket} has no URL at the store's endpoint")]
    NoUrl { bucket: String },
    #[error("the bytes of {key} are not in the spool any more")]
    SpoolMissing { key: String },
    #[error("the credentials in {} cannot be used", path.display())]
    Credentials { path: PathBuf, source: io::Error },
    #[error("the store at {host} did not answer within {waited:?}")]
    TimedOut { host: String, waited: Duration },
    #[error("the store at {host} cannot be reached")]
    Unreachable { host: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// A store answered that it did not do it.
    #[error("the store answered {} {} for {bucket}/{key}: {}", refusal.status, refusal.code, refusal.message)]
    Answered { bucket: String, key: String, refusal: Box<Refusal> },
    /// The local store said no for a reason that does not pass by itself: a permission, a file where a folder must be.
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

/// What an error speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This object alone.
    Object,
    /// Some objects, or the whole bucket.
    Unclear,
    /// Every object of the bucket.
    Bucket,
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
            Self::Unknown { .. }
            | Self::NoUrl { .. }
            | Self::Credentials { .. }
            | Self::TimedOut { .. }
            | Self::Unreachable { .. }
            | Self::Answered { .. }
            | Self::Refused { .. }
            | Self::Full { .. }
            | Self::Failed { .. } => Fault::Dependency,
        }
    }

    /// Whether waiting helps.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unknown { .. }
            | Self::UnsafeName { .. }
            | Self::NoUrl { .. }
            | Self::SpoolMissing { .. }
            | Self::Credentials { .. }
            | Self::Refused { .. } => Retry::Held,
            Self::TimedOut { .. } | Self::Unreachable { .. } | Self::Full { .. } | Self::Failed { .. } => Retry::Later,
            Self::Answered { refusal, .. } => refusal.retry(),
        }
    }

    /// What else would fail by it.
    pub fn scope(&self) -> Scope {
        match self {
            Self::UnsafeName { .. } | Self::SpoolMissing { .. } => Scope::Object,
            // A file system that is read-only, a directory that belongs to somebody else.
            Self::Refused { source, .. } if cannot_write(source) => Scope::Bucket,
            // A file where a folder must be concerns the names below it; a disk's error, perhaps one file.
            Self::Refused { .. } | Self::Failed { .. } => Scope::Unclear,
            Self::Answered { refusal, .. } if refusal.is_of_the_object() => Scope::Object,
            Self::Answered { .. }
            | Self::Unknown { .. }
            | Self::NoUrl { .. }
            | Self::Credentials { .. }
            | Self::TimedOut { .. }
            | Self::Unreachable { .. }
            | Self::Full { .. } => Scope::Bucket,
        }
    }

    /// What a person may do about it.
    pub fn mend(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "configure the store under its name again, or discard the pictures",
            Self::UnsafeName { .. } | Self::SpoolMissing { .. } => "discard the picture",
            Self::NoUrl { .. } => {
                "set path_style = true, or correct the store's endpoint or the template's bucket and region"
            }
            Self::Credentials { .. } => "put usable credentials into the file",
            Self::TimedOut { .. } | Self::Unreachable { .. } => "see whether the store runs and the endpoint is right",
            Self::Answered { refusal, .. } => refusal.mend(),
            Self::Refused { .. } | Self::Failed { .. } => "let the server's user write there",
            Self::Full { .. } => "make room on the disk",
        }
    }

    /// Every name, for metrics that must exist before the first failure.
    pub const NAMES: [&str; 11] = [
        "unknown_store",
        "credentials",
        "timed_out",
        "unreachable",
        "slow_down",
        "unsafe_name",
        "no_url",
        "spool_missing",
        "refused",
        "full",
        "failed",
    ];

    /// The name used in metrics and logs; it never changes.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown_store",
            Self::Credentials { .. } => "credentials",
            Self::TimedOut { .. } => "timed_out",
            Self::Unreachable { .. } => "unreachable",
            Self::Answered { refusal, .. } if refusal.is_slow_down() => "slow_down",
            Self::Answered { refusal, .. } if refusal.retry() == Retry::Held => "refused",
            Self::Answered { .. } => "failed",
            Self::UnsafeName { .. } => "unsafe_name",
            Self::NoUrl { .. } => "no_url",
            Self::SpoolMissing { .. } => "spool_missing",
            Self::Refused { .. } => "refused",
            Self::Full { .. } => "full",
            Self::Failed { .. } => "failed",
        }
    }
}

/// Whether an error says that nothing may be written there.
fn cannot_write(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// First delay after a failed put, doubled with each further failure.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// Longest delay while a store is expected to come back: an outage's end is noticed within a minute.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Delay while a store refuses: it waits for a person, who sees the alarm meanwhile and then that it has ended.
const HELD_DELAY: Duration = Duration::from_secs(60);

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
    fn what_waits_for_a_person_is_tried_every_minute() {
        assert_eq!(backoff(Retry::Held, 1, 0.5), HELD_DELAY);
        assert_eq!(backoff(Retry::Held, 50, 0.5), HELD_DELAY);
    }
}
