//! Replays what a real encoder sent through the session and the picks, in the pieces in which the server reads it: the
//! work that every byte of every stream costs. `tests/bounds.rs` counts its instructions.
//!
//!     framehook-instructions skip|pick TRACE
//!
//! `skip` is a stream of which nobody wants pictures, `pick` one with a picture every two seconds. Prints the number of
//! messages that were counted.

use std::env;
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::id::RuleId;
use framehook_domain::pick::{PushPicks, Subscriber, Subscription};
use framehook_domain::template::{SnapshotInterval, SnapshotTemplate, StoreTarget};
use framehook_domain::time::Mono;
use framehook_rtmp::handshake::RANDOM_BYTES;
use framehook_rtmp::{Event, Limits, Phase, Session};

/// One read of a socket that is visited a few times a second.
const PIECE_BYTES: usize = 64 << 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (trace, picks) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["skip", trace] => (trace, PushPicks::new()),
        ["pick", trace] => (trace, a_picture_every(2)),
        _ => {
            eprintln!("usage: framehook-instructions skip|pick TRACE");
            return ExitCode::FAILURE;
        }
    };
    let trace = match fs::read(trace) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("{trace}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (mut session, media) = publishing(&trace);
    session.set_keep_entry_points(!picks.is_idle());
    println!("{}", replay(session, picks, media));
    ExitCode::SUCCESS
}

/// A session behind its accepted publish, and the bytes that follow.
fn publishing(trace: &[u8]) -> (Session, &[u8]) {
    let mut session = Session::new(Limits::default(), &[0x5a; RANDOM_BYTES]);
    let mut at = 0;
    while session.phase() != Phase::Decision {
        session.push(&trace[at..=at], |_| {}).expect("the trace is RTMP");
        at += 1;
    }
    assert!(session.accept_publish());
    session.consume_output(session.output().len());
    (session, &trace[at..])
}

fn a_picture_every(secs: i64) -> PushPicks {
    let interval = SnapshotInterval::from_secs(secs).expect("an interval that templates allow");
    let template = Arc::new(SnapshotTemplate { interval, ..SnapshotTemplate::built_in(StoreTarget::default()) });
    let mut picks = PushPicks::new();
    let _ =
        picks.reconcile(Mono::default(), 1, vec![Subscription { subscriber: Subscriber::Rule(RuleId(1)), template }]);
    picks
}

/// What is counted. Gives the number of messages.
#[inline(never)]
fn replay(mut session: Session, mut picks: PushPicks, media: &[u8]) -> usize {
    let mut messages = 0;
    for piece in media.chunks(PIECE_BYTES) {
        let take = |event| {
            messages += 1;
            if let Event::EntryPoint(unit) = event {
                let now = Mono(Duration::from_millis(unit.dts_ms.into()));
                for want in picks.on_entry_point(now) {
                    if let Some(committing) = picks.hand_over(now, want.ticket) {
                        picks.settle_commit(now, committing, Ok(()));
                    }
                }
            }
        };
        session.push(piece, take).expect("the trace is RTMP");
        session.consume_output(session.output().len());
    }
    messages
}
