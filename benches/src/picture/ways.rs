//! The ways to a picture, and the keyframes that all of them take.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use framehook_testkit::flv::{FlvFile, TagKind};
use serde::Serialize;
use tempfile::TempDir;

use crate::subject::{FloorPicture, floor_pictures, floor_program};
use crate::workshop::{Workshop, output};

/// Pictures of each keyframe in one measurement, after one to warm up. One is some 0.4 s of CPU time: a shared machine is
/// quicker or slower by a tenth from one half minute to the next, so ways that are compared take turns soon and often.
const PASSES: u32 = 1;

/// The same where one way is measured by itself.
const PASSES_ALONE: u32 = 4;

/// Of a coded picture's or a config's tag, what stands before its data (FLV 10.1, E.4.3.1).
const AVC_HEADER_BYTES: usize = 5;

/// How a picture is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// libavcodec, swscale and libjpeg-turbo on one thread: the floor program.
    Libraries,
    /// The worker's own code in one process, without jail.
    Direct,
    /// A task of the server's runtime and a jailed worker.
    Pool,
}

pub(super) const WAYS: [Way; 3] = [Way::Libraries, Way::Direct, Way::Pool];

/// How large the image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ImageSize {
    Own,
    Half,
}

pub(super) const SIZES: [ImageSize; 2] = [ImageSize::Own, ImageSize::Half];

/// What one way used for its pictures, once.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Taken {
    pub(super) way: Way,
    pub(super) size: ImageSize,
    pub(super) round: u32,
    pub(super) pictures: u64,
    /// Of the process that decodes and encodes.
    pub(super) rendering_us: u64,
    /// Of the process that asks it to, where that is another one.
    pub(super) asking_us: u64,
    /// Of the libraries only: decode, convert, encode.
    pub(super) steps_us: Option<[u64; 3]>,
    /// Of the worker's code: what its own steps took of that, decoding, converting and encoding, by the clock on the wall.
    pub(super) own_steps_us: u64,
}

impl Taken {
    const NOTHING: Self = Self {
        way: Way::Pool,
        size: ImageSize::Own,
        round: 1,
        pictures: 0,
        rendering_us: 0,
        asking_us: 0,
        steps_us: None,
        own_steps_us: 0,
    };

    /// CPU time of all processes for one picture.
    pub(super) fn ms(&self) -> f64 {
        self.each_ms(self.rendering_us + self.asking_us)
    }

    /// What the asking process used for one picture.
    pub(super) fn asking_ms(&self) -> f64 {
        self.each_ms(self.asking_us)
    }

    /// What is done for one picture beside decoding, converting and encoding it, on both sides.
    pub(super) fn beside_steps_ms(&self) -> f64 {
        self.ms() - self.each_ms(self.own_steps_us)
    }

    pub(super) fn each_ms(&self, us: u64) -> f64 {
        us as f64 / self.pictures as f64 / 1000.0
    }
}

/// The keyframes of a clip as files, which is how the worker and the pool are given them.
#[derive(Debug)]
pub(super) struct Keyframes {
    clip: PathBuf,
    width: u32,
    config: PathBuf,
    units: Vec<PathBuf>,
    _folder: TempDir,
}

impl Keyframes {
    /// `clip` is one of ours, 1280 pixels wide.
    pub(super) fn of(clip: &Path) -> Result<Self> {
        let file = FlvFile::open(clip)?;
        let folder = TempDir::with_prefix("framehook-bench-").context("make a folder for keyframes")?;
        let video = || file.tags.iter().filter(|tag| tag.kind == TagKind::Video && tag.data.len() > AVC_HEADER_BYTES);
        let config = folder.path().join("config");
        let first = video().find(|tag| tag.is_decoder_config()).context("the clip has no decoder config")?;
        fs::write(&config, &first.data[AVC_HEADER_BYTES..])?;
        let mut units = Vec::new();
        for (number, tag) in video().filter(|tag| tag.is_keyframe()).enumerate() {
            let path = folder.path().join(format!("unit-{number}"));
            fs::write(&path, &tag.data[AVC_HEADER_BYTES..])?;
            units.push(path);
        }
        ensure!(!units.is_empty(), "{} has no keyframe", clip.display());
        Ok(Self { clip: clip.to_owned(), width: 1280, config, units, _folder: folder })
    }

    pub(super) fn count(&self) -> usize {
        self.units.len()
    }

    /// The width that a template would ask for; 0 is the picture's own.
    fn width(&self, size: ImageSize) -> String {
        match size {
            ImageSize::Own => 0,
            ImageSize::Half => self.width / 2,
        }
        .to_string()
    }

    fn files(&self) -> impl Iterator<Item = &OsStr> {
        [&self.config].into_iter().chain(&self.units).map(|path| path.as_os_str())
    }
}

impl ImageSize {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Own => "1280x720",
            Self::Half => "640x360",
        }
    }
}

impl Way {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Libraries => "the libraries called directly",
            Self::Direct => "the worker's code called directly",
            Self::Pool => "the server's pool and a jailed worker",
        }
    }

    pub(super) fn take(self, workshop: &Workshop, keyframes: &Keyframes, size: ImageSize, round: u32) -> Result<Taken> {
        let one = Taken { way: self, size, round, ..Taken::NOTHING };
        let taken = match self {
            Self::Libraries => libraries(workshop, keyframes, one),
            Self::Direct => direct(workshop, keyframes, one),
            Self::Pool => pool(workshop, keyframes, PASSES, one),
        };
        taken.with_context(|| format!("measure {}", self.label()))
    }
}

/// What the server's side of the pool uses for a picture of its own size, in ms.
pub(crate) fn pool_server_ms(workshop: &Workshop, clip: &Path) -> Result<f64> {
    let taken = pool(workshop, &Keyframes::of(clip)?, PASSES_ALONE, Taken::NOTHING);
    Ok(taken.context("measure the server's side of the pool")?.asking_ms())
}

fn libraries(workshop: &Workshop, keyframes: &Keyframes, one: Taken) -> Result<Taken> {
    let passes = PASSES.to_string();
    let divisor = match one.size {
        ImageSize::Own => "1",
        ImageSize::Half => "2",
    };
    let arguments = [OsStr::new("--pictures"), keyframes.clip.as_os_str(), passes.as_ref(), divisor.as_ref()];
    let printed = floor_pictures(&output(&floor_program(workshop).to_string_lossy(), arguments)?);
    let sum = |step: fn(&FloorPicture) -> u64| printed.iter().map(step).sum::<u64>();
    let steps = [sum(|one| one.decode_us), sum(|one| one.convert_us), sum(|one| one.encode_us)];
    let pictures = printed.len() as u64;
    ensure!(pictures == keyframes.units.len() as u64 * u64::from(PASSES), "it made {pictures} pictures");
    Ok(Taken { pictures, rendering_us: steps.iter().sum(), steps_us: Some(steps), ..one })
}

fn direct(workshop: &Workshop, keyframes: &Keyframes, one: Taken) -> Result<Taken> {
    let program = workshop.executable("framehook-render", "cargo build --release")?;
    let width = keyframes.width(one.size);
    let arguments = ["--measure", &width].map(OsStr::new).into_iter().chain(keyframes.files());
    let printed = output(&program.to_string_lossy(), arguments)?;
    let pictures = value(&printed, "pictures")?;
    let all = |of_each: &str| anyhow::Ok(value(&printed, of_each)? * pictures);
    let own_steps_us = all("wall_us_decode")? + all("wall_us_convert")? + all("wall_us_encode")?;
    Ok(Taken { pictures, rendering_us: all("cpu_us_per_picture")?, own_steps_us, ..one })
}

fn pool(workshop: &Workshop, keyframes: &Keyframes, passes: u32, one: Taken) -> Result<Taken> {
    let program = workshop.executable("framehook-pool", "cargo build --release -p framehook-pool")?;
    let (width, passes) = (keyframes.width(one.size), passes.to_string());
    let arguments = [&width, &passes].map(OsStr::new).into_iter().chain(keyframes.files());
    let printed = output(&program.to_string_lossy(), arguments)?;
    Ok(Taken {
        pictures: value(&printed, "pictures")?,
        rendering_us: value(&printed, "worker_us")?,
        asking_us: value(&printed, "server_us")?,
        own_steps_us: value(&printed, "steps_us")?,
        ..one
    })
}

/// The number behind a name, on a line of its own.
fn value(printed: &str, name: &str) -> Result<u64> {
    let found = printed.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    found.with_context(|| format!("no {name} in {printed:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_worker_and_pool_print() {
        let printed = "pictures 128\nserver_us 25600\nworker_us 1920000\n";
        assert_eq!(value(printed, "server_us").unwrap(), 25_600);
        assert!(value(printed, "cpu_us_per_picture").unwrap_err().to_string().contains("no cpu_us_per_picture"));
    }
}
