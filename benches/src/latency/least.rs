//! The least that a picture takes with the stock libraries, whoever calls them: what comes before it and after is not in it.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::Delays;
use crate::subject::{FloorPicture, floor_pictures, floor_program};
use crate::summary::Spread;
use crate::workshop::{Workshop, output};

/// How often each keyframe is taken, after one round to warm up: some three seconds in all.
const ROUNDS: &str = "4";

/// CPU time of one thread for one keyframe of the clip.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Least {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Medians: to decode, to convert to full range, to encode.
    pub(super) steps_ms: [f64; 3],
}

impl Least {
    /// Has the floor program make the clip's pictures.
    pub(super) fn measure(workshop: &Workshop, clip: &Path) -> Result<Self> {
        let program = floor_program(workshop);
        let arguments = [OsStr::new("--pictures"), clip.as_os_str(), OsStr::new(ROUNDS), OsStr::new("1")];
        let pictures = floor_pictures(&output(&program.to_string_lossy(), arguments)?);
        ensure!(!pictures.is_empty(), "the floor program made no picture");
        Ok(Self::of(&pictures))
    }

    fn of(pictures: &[FloorPicture]) -> Self {
        let ms = |us: u64| us as f64 / 1000.0;
        let whole = pictures.iter().map(|one| one.decode_us + one.convert_us + one.encode_us);
        let whole = Delays::of(whole.map(Duration::from_micros).collect());
        let step = |step: fn(&FloorPicture) -> u64| Spread::of(pictures.iter().map(|one| ms(step(one)))).median;
        Self {
            p50_ms: whole.quantile(0.5).as_secs_f64() * 1000.0,
            p99_ms: whole.quantile(0.99).as_secs_f64() * 1000.0,
            steps_ms: [step(|one| one.decode_us), step(|one| one.convert_us), step(|one| one.encode_us)],
        }
    }

    /// `own_ms`: after how long a picture of ours is stored at the median.
    pub(super) fn note(&self, own_ms: f64) -> String {
        let Self { p50_ms, p99_ms, steps_ms: [decode, convert, encode] } = self;
        format!(
            "One thread needs {p50_ms:.1} ms of CPU time at the median and {p99_ms:.1} ms at p99 for such a picture with the stock \
             libraries ({decode:.1} to decode, {convert:.1} to convert, {encode:.1} to encode), so whoever calls them cannot be \
             quicker; Framehook's is stored after {:.2} × that at the median.",
            own_ms / p50_ms
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_the_libraries_take_and_how_far_above_it_we_are() {
        let picture = |decode_us| FloorPicture { decode_us, convert_us: 2_000, encode_us: 3_000 };
        let least = Least::of(&[picture(15_000), picture(10_000), picture(11_000)]);
        assert_eq!((least.p50_ms, least.p99_ms, least.steps_ms), (16.0, 20.0, [11.0, 2.0, 3.0]));
        let note = least.note(20.0);
        assert!(note.contains("16.0 ms of CPU time at the median and 20.0 ms at p99"), "{note}");
        assert!(note.ends_with("stored after 1.25 × that at the median."), "{note}");
    }
}
