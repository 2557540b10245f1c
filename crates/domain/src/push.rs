//! One push: how it ends, comes back, and is fought over.

use core::time::Duration;

use crate::{refusal::PushEnd, time::Mono};

/// What to do when a session of a push ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The publisher said goodbye, or we cut it: the push is over, event 0 goes out at once.
    EndPush,
    /// The publisher vanished: the push waits for it, with its sequence and grid, and ends after the grace.
    AwaitReturn,
    /// A newer session of the same push took over: nothing is told.
    Displaced,
}

/// Decides by the cause.
pub fn on_session_end(end: PushEnd) -> SessionEnd {
    use crate::refusal::CutReason;
    match end {
        PushEnd::Unpublished | PushEnd::DeleteStream | PushEnd::CloseStream => SessionEnd::EndPush,
        PushEnd::Cut(CutReason::Displaced) => SessionEnd::Displaced,
        PushEnd::Cut(CutReason::Dropped | CutReason::Forbidden) => SessionEnd::EndPush,
        // What we cut for its content is a broken connection to the publisher, which will come back and may do better.
        PushEnd::BadRtmp | PushEnd::BadAmf | PushEnd::MessageTooBig => SessionEnd::AwaitReturn,
        PushEnd::PeerClosed | PushEnd::ReadError | PushEnd::Silent => SessionEnd::AwaitReturn,
        // A server that stops ends no push: the grace that counts is the one that the next start gives.
        PushEnd::ServerStopped => SessionEnd::AwaitReturn,
    }
}

/// Displacements within this time count together, and newcomers are refused for as long.
const FIGHT: Duration = Duration::from_secs(10);

/// The displacements of one stream. Two encoders with the same push URL and automatic reconnect displace each other for
/// ever; after the third time within 10 s the next newcomer, and every other for 10 s, is refused (18/601), so that one
/// of them gets to stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Displacements {
    /// The last three, oldest first.
    recent: [Option<Mono>; 3],
    refuses_until: Option<Mono>,
}

impl Displacements {
    /// A newcomer wants a stream that somebody pushes at this moment. `true`: it takes over, and that is counted. `false`: refuse it.
    pub fn admit(&mut self, now: Mono) -> bool {
        if self.refuses_until.is_some_and(|until| now < until) {
            return false;
        }
        let [oldest, middle, newest] = self.recent;
        if oldest.is_some_and(|oldest| now.since(oldest) < FIGHT) {
            self.refuses_until = Some(now.plus(FIGHT));
            return false;
        }
        self.recent = [middle, newest, Some(now)];
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::CutReason;

    #[test]
    fn an_orderly_end_is_told_at_once_and_a_loss_after_the_grace() {
        let cases = [
            (PushEnd::Unpublished, SessionEnd::EndPush),
            (PushEnd::DeleteStream, SessionEnd::EndPush),
            (PushEnd::CloseStream, SessionEnd::EndPush),
            (PushEnd::Cut(CutReason::Dropped), SessionEnd::EndPush),
            (PushEnd::Cut(CutReason::Forbidden), SessionEnd::EndPush),
            (PushEnd::Cut(CutReason::Displaced), SessionEnd::Displaced),
            (PushEnd::PeerClosed, SessionEnd::AwaitReturn),
            (PushEnd::ReadError, SessionEnd::AwaitReturn),
            (PushEnd::Silent, SessionEnd::AwaitReturn),
            (PushEnd::ServerStopped, SessionEnd::AwaitReturn),
            (PushEnd::BadRtmp, SessionEnd::AwaitReturn),
        ];
        for (end, expected) in cases {
            assert_eq!(on_session_end(end), expected, "{end:?}");
        }
    }

    #[test]
    fn refuses_the_newcomer_for_ten_seconds_after_three_displacements_in_ten() {
        let cases: [(&str, &[(u64, bool)]); 5] = [
            ("three are allowed", &[(0, true), (1, true), (2, true)]),
            ("the fourth is not", &[(0, true), (1, true), (2, true), (3, false)]),
            ("nor anybody for ten seconds", &[(0, true), (1, true), (2, true), (9, false), (18, false), (19, true)]),
            ("ten seconds are not within ten seconds", &[(0, true), (4, true), (8, true), (10, true), (14, true)]),
            (
                "a refusal does not extend itself",
                &[(0, true), (1, true), (2, true), (3, false), (12, false), (13, true)],
            ),
        ];
        for (name, arrivals) in cases {
            let mut displacements = Displacements::default();
            for (at_secs, expected) in arrivals {
                let admitted = displacements.admit(Mono(Duration::from_secs(*at_secs)));
                assert_eq!(admitted, *expected, "{name}: at {at_secs} s");
            }
        }
    }
}
