//! What the passing media says about a push: codec, size, frame rate, bit rate, GOP. Measured from message headers, so
//! it costs nothing that ingest would not do anyway.

use framehook_domain::time::Mono;
use framehook_media::Codec;

/// The facts of one push, as `/v1/streams` shows them. Rates are those of the last whole GOP.
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
    window: Window,
}

/// What was counted since the last entry point.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    started_ms: Option<u32>,
    frames: u32,
    bytes: u64,
}

/// A GOP shorter or longer than this says more about a clock reset than about the stream. In ms of media time.
const GOP_MS_MAX: u32 = 600_000;

impl Facts {
    /// Counts one video message of `len` bytes at media time `dts_ms` that is not an entry point.
    pub(crate) fn video(&mut self, len: usize) {
        self.window.frames = self.window.frames.saturating_add(1);
        self.count(len);
    }

    /// Counts one audio message of `len` bytes.
    pub(crate) fn audio(&mut self, len: usize) {
        self.audio = true;
        self.count(len);
    }

    /// Counts an entry point and closes the GOP before it.
    pub(crate) fn entry_point(&mut self, codec: Codec, dts_ms: u32, len: usize, now: Mono) {
        self.codec = Some(codec);
        self.unsupported = None;
        if let Some(started_ms) = self.window.started_ms {
            let gop_ms = dts_ms.wrapping_sub(started_ms);
            if gop_ms > 0 && gop_ms <= GOP_MS_MAX {
                self.gop_ms = u64::from(gop_ms);
                self.frames_per_sec = f64::from(self.window.frames) * 1000.0 / f64::from(gop_ms);
                self.bits_per_sec = self.window.bytes.saturating_mul(8000) / u64::from(gop_ms);
            }
        }
        self.window = Window { started_ms: Some(dts_ms), frames: 1, bytes: 0 };
        self.last_entry_point = Some(now);
        self.count(len);
    }

    fn count(&mut self, len: usize) {
        self.bytes += len as u64;
        self.window.bytes += len as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_whole_gop_gives_frame_rate_bit_rate_and_length() {
        let mut facts = Facts::default();
        facts.entry_point(Codec::H264, 1_000, 50_000, Mono(Duration::from_secs(1)));
        for _ in 1..60 {
            facts.video(1_000);
        }
        facts.audio(500);
        assert_eq!(facts.gop_ms, 0, "nothing is claimed before a GOP has passed");
        facts.entry_point(Codec::H264, 3_000, 50_000, Mono(Duration::from_secs(3)));
        assert_eq!(facts.gop_ms, 2_000);
        assert_eq!(facts.frames_per_sec, 30.0);
        assert_eq!(facts.bits_per_sec, (50_000 + 59_000 + 500) * 8 / 2);
    }

    #[test]
    fn a_clock_that_starts_again_does_not_become_a_gop_of_weeks() {
        let mut facts = Facts::default();
        facts.entry_point(Codec::H264, 90_000, 10, Mono(Duration::from_secs(1)));
        facts.entry_point(Codec::H264, 0, 10, Mono(Duration::from_secs(2)));
        assert_eq!(facts.gop_ms, 0);
    }
}
