//! What became of the dues.

use core::ops::AddAssign;

macro_rules! skip_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// Why a due was skipped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum SkipReason {
            $($(#[$doc])* $variant,)+
        }

        impl SkipReason {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The label used in metrics, logs and `/v1`; it never changes.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

skip_reasons! {
    /// No entry point came before the next due.
    NoEntryPoint = "no_entry_point",
    /// The picture was not ready to commit when the next due fell or the next pick replaced it.
    RendererBusy = "renderer_busy",
    /// The picks of all streams that wait for a worker hold as much memory as they may.
    Overload = "overload",
    /// The decoder found damage.
    Corrupt = "corrupt",
    /// The worker has no decoder for the codec or the profile.
    UnsupportedCodec = "unsupported_codec",
    /// PQ or HLG, which is not tone-mapped yet.
    HdrUnsupported = "hdr_unsupported",
    /// The entry point, the picture or the JPEG is over a limit.
    TooLarge = "too_large",
    WorkerCrashed = "worker_crashed",
    WorkerTimedOut = "worker_timed_out",
    WorkerOutOfMemory = "worker_out_of_memory",
    /// The worker refused for any other reason.
    RenderFailed = "render_failed",
    /// The spool is full or the disk is at its reserve.
    SpoolFull = "spool_full",
    /// The picture before this one was still being made durable when this due fell.
    CommitBusy = "commit_busy",
    /// The picture could not be written or recorded, for another reason than want of room.
    CommitFailed = "commit_failed",
    PushEnded = "push_ended",
    /// The rule or task was deleted or is over, or another one took its place.
    RuleRemoved = "rule_removed",
    /// The interval was changed, which began a new grid.
    RuleChanged = "rule_changed",
}

const REASONS: usize = SkipReason::ALL.len();

/// What became of the dues of a grid, or of many. Plain sums: add them up over pushes as you like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DueCounts {
    pub due: u64,
    /// The commit said that the picture is durable. Never goes back.
    pub taken: u64,
    skipped: [u64; REASONS],
    /// Fallen and undecided: until an entry point comes, until it is rendered, until the commit has answered.
    pub open: u64,
}

impl DueCounts {
    pub fn skipped(&self, reason: SkipReason) -> u64 {
        self.skipped[reason as usize]
    }

    pub fn skipped_total(&self) -> u64 {
        self.skipped.iter().sum()
    }

    /// Every reason with its count, in the order of [`SkipReason::ALL`], zeros included.
    pub fn skipped_by_reason(&self) -> impl Iterator<Item = (SkipReason, u64)> + '_ {
        SkipReason::ALL.iter().map(|reason| (*reason, self.skipped(*reason)))
    }

    /// `due = taken + skipped + open`: holds for every value this crate hands out.
    pub fn is_balanced(&self) -> bool {
        self.due == self.taken + self.skipped_total() + self.open
    }

    /// One open due is decided.
    pub(super) fn settle_open(&mut self, outcome: Result<(), SkipReason>) {
        self.open -= 1;
        match outcome {
            Ok(()) => self.taken += 1,
            Err(reason) => self.skip(reason, 1),
        }
    }

    pub(super) fn skip(&mut self, reason: SkipReason, dues: u64) {
        self.skipped[reason as usize] += dues;
    }
}

impl AddAssign for DueCounts {
    fn add_assign(&mut self, other: Self) {
        self.due += other.due;
        self.taken += other.taken;
        self.open += other.open;
        for (mine, theirs) in self.skipped.iter_mut().zip(other.skipped) {
            *mine += theirs;
        }
    }
}

impl core::iter::Sum for DueCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    #[test]
    fn reasons_have_names_of_their_own() {
        let names: BTreeSet<_> = SkipReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), SkipReason::ALL.len());
    }

    #[test]
    fn counts_add_up() {
        let mut one = DueCounts { due: 3, taken: 1, open: 1, ..DueCounts::default() };
        assert!(!one.is_balanced());
        one.skip(SkipReason::Corrupt, 1);
        assert!(one.is_balanced());
        let sum: DueCounts = [one, one].into_iter().sum();
        assert_eq!(
            (sum.due, sum.taken, sum.skipped(SkipReason::Corrupt), sum.skipped_total(), sum.open),
            (6, 2, 2, 2, 2)
        );
    }
}
