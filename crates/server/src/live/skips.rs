//! Tells listeners of dues that were skipped.
//!
//! A grid counts many dues only when it is asked (`no_entry_point`, of a stream that has stalled), so what was skipped is found
//! by comparing counts from second to second. Nothing is compared while nobody listens.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::id::PushSequence;
use framehook_domain::pick::DueCounts;
use tokio_util::sync::CancellationToken;

use super::{Lives, Push};
use crate::telemetry::happening::Happening;

/// How often counts are compared. A listener hears of a skipped due so much later at most.
const COMPARED_EVERY: Duration = Duration::from_secs(1);

/// What listeners have been told of each push. One that has ended stays until nothing of it is open.
type ToldOf = HashMap<PushSequence, (Arc<Push>, DueCounts)>;

impl Lives {
    /// Tells whoever listens which dues were skipped, until `token` ends it.
    pub(crate) async fn tell_skips(self: Arc<Self>, token: CancellationToken) {
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = self.telemetry.feed.heard() => {}
            }
            // What was skipped before is no news.
            let now = self.clock.mono();
            let mut told: ToldOf = self
                .pushes()
                .into_iter()
                .map(|push| (push.sequence(), (Arc::clone(&push), push.totals(now))))
                .collect();
            while self.telemetry.feed.is_heard() {
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(COMPARED_EVERY) => self.tell_skipped_since(&mut told),
                }
            }
        }
    }

    fn tell_skipped_since(&self, told: &mut ToldOf) {
        let live = self.pushes();
        for push in &live {
            told.entry(push.sequence()).or_insert_with(|| (Arc::clone(push), DueCounts::default()));
        }
        let is_live: HashSet<PushSequence> = live.iter().map(|push| push.sequence()).collect();
        let now = self.clock.mono();
        told.retain(|sequence, (push, before)| {
            let counts = push.totals(now);
            for (reason, skipped) in counts.skipped_by_reason() {
                let dues = skipped - before.skipped(reason);
                if dues > 0 {
                    self.telemetry.tell(Some(push.stream()), || Happening::SnapshotSkipped {
                        sequence: sequence.to_string(),
                        reason: reason.name(),
                        dues,
                    });
                }
            }
            *before = counts;
            is_live.contains(sequence) || counts.open > 0
        });
    }
}
