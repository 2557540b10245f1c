//! What the passing media says about a push: codec, size, frame rate, bit rate, GOP. Measured from message headers, so
//! it costs nothing that ingest would not do anyway.

use framehook_domain::time::Mono;
use framehook_media::Codec;
use framehook_media::time::{Unwrap, Unwrapped};

/// The facts of one push, as `/v1/streams` shows them. Rates are those of the last whole GOP, from keyframe to keyframe as
/// the container marks them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) codec: Option<Codec>,
    /// A video codec that arrives but cannot become a picture, by its announced name.
    pub(crate) unsupported: Option<String>,
    /// Coded picture size from the decoder config, cropped; 0 while unknown.
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) audio: bool,
    pub(crate) encoder: Option<String>,
    pub(crate) frames_per_sec: f64,
    pub(crate) bits_per_sec: u64,
    pub(crate) gop_ms: u64,
    pub(crate) bytes: u64,
    pub(crate) last_entry_point: Option<Mono>,
    media_time: Unwrap,
    window: Window,
}

/// What was counted since the last keyframe.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    started: Option<Unwrapped>,
    pictures: u32,
    bytes: u64,
}

/// One media message, as far as it says something about a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// A coded picture. `keyframe` is the container's claim: it costs nothing to read, and is there whether or not a rule
    /// wants the picture.
    Picture {
        keyframe: bool,
        dts_ms: u32,
    },
    Audio,
    /// Metadata, decoder configs, and what only ends a sequence.
    Other,
}

/// A GOP longer than this, in ms of media time, says more about a jump of the publisher's clock than about the stream.
const GOP_MS_MAX: u64 = 600_000;

impl Facts {
    /// Counts one message of `len` bytes. A keyframe closes the GOP before it.
    pub(crate) fn passed(&mut self, passed: Passed, len: usize) {
        match passed {
            Passed::Picture { keyframe: true, dts_ms } => self.begin_gop(dts_ms),
            Passed::Picture { keyframe: false, .. } => self.window.pictures = self.window.pictures.saturating_add(1),
            Passed::Audio => self.audio = true,
            Passed::Other => {}
        }
        self.bytes += len as u64;
        self.window.bytes += len as u64;
    }

    /// Notes that a message was an entry point, from which a picture can be made.
    pub(crate) fn entry_point(&mut self, codec: Codec, now: Mono) {
        self.codec = Some(codec);
        self.unsupported = None;
        self.last_entry_point = Some(now);
    }

    fn begin_gop(&mut self, dts_ms: u32) {
        let now = self.media_time.push(dts_ms);
        if let Some(started) = self.window.started
            && started.timeline == now.timeline
        {
            let gop_ms = now.ms - started.ms;
            if (1..=GOP_MS_MAX).contains(&gop_ms) {
                self.gop_ms = gop_ms;
                self.frames_per_sec = f64::from(self.window.pictures) * 1000.0 / gop_ms as f64;
                self.bits_per_sec = self.window.bytes.saturating_mul(8000) / gop_ms;
            }
        }
        self.window = Window { started: Some(now), pictures: 1, bytes: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyframe(facts: &mut Facts, dts_ms: u32, len: usize) {
        facts.passed(Passed::Picture { keyframe: true, dts_ms }, len);
    }

    #[test]
    fn a_whole_gop_gives_frame_rate_bit_rate_and_length() {
        let mut facts = Facts::default();
        keyframe(&mut facts, 1_000, 50_000);
        for number in 1..60 {
            facts.passed(Passed::Picture { keyframe: false, dts_ms: 1_000 + number * 33 }, 1_000);
        }
        facts.passed(Passed::Audio, 500);
        facts.passed(Passed::Other, 40);
        assert_eq!(facts.gop_ms, 0, "nothing is claimed before a GOP has passed");
        keyframe(&mut facts, 3_000, 50_000);
        assert_eq!(facts.gop_ms, 2_000);
        assert_eq!(facts.frames_per_sec, 30.0, "neither audio nor metadata is a picture");
        assert_eq!(facts.bits_per_sec, (50_000 + 59_000 + 540) * 8 / 2);
        assert!(facts.audio);
    }

    #[test]
    fn a_clock_that_wraps_goes_on_and_one_that_starts_again_claims_nothing() {
        let cases = [
            ("wraps after 49.7 days", u32::MAX - 999, 1_000, 2_000),
            ("starts again", 90_000, 0, 0),
            ("jumps ahead by an hour", 1_000, 3_601_000, 0),
            ("stands still", 1_000, 1_000, 0),
        ];
        for (name, first, second, gop_ms) in cases {
            let mut facts = Facts::default();
            keyframe(&mut facts, first, 10);
            keyframe(&mut facts, second, 10);
            assert_eq!(facts.gop_ms, gop_ms, "{name}");
        }
    }
}
