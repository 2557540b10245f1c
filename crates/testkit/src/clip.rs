//! Test clips: made by ffmpeg and libx264 when first needed, kept under `target/testkit-clips`.
//!
//! Every frame carries its number ([`frame_number`]), so that a picture taken from the clip says which frame it shows.

mod frame_number;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use self::frame_number::frame_number;
use crate::flv::FlvFile;
use crate::picture::Picture;

/// What a clip is made of. Start from `ClipSpec::default()`: 1280x720, 30 fps, 6 s, a keyframe every 2 s, 2.5 Mbit/s,
/// BT.709, with sound.
#[derive(Clone, Debug, Hash)]
pub struct ClipSpec {
    /// Samples. With [`Chroma::Yuv420`] both sides must be even, with `Yuv422` the width: H.264 cannot say otherwise.
    pub width: u32,
    pub height: u32,
    pub fps: u32,
    pub duration: Duration,
    /// Distance of keyframes, each an IDR picture of a closed GOP; rounded to whole frames.
    pub gop: Duration,
    pub kbit_per_s: u32,
    /// Sample aspect ratio.
    pub sar: (u32, u32),
    pub chroma: Chroma,
    /// Bits of a sample: 8 or 10.
    pub depth: u32,
    /// Coded as interlaced (MBAFF, top field first).
    pub interlaced: bool,
    pub b_frames: u32,
    pub audio: bool,
    pub colour: Colour,
    pub full_range: bool,
    /// Whether the bitstream says which matrix and range it uses. The picture is made with `colour` and `full_range`
    /// either way, so an untagged clip in full range looks wrong to every decoder.
    pub tagged: bool,
    pub content: Content,
    /// More of ffmpeg's output options, such as `-bsf:v h264_metadata=rotate=90`.
    pub encoder_args: &'static [&'static str],
}

impl Default for ClipSpec {
    fn default() -> Self {
        Self {
            width: 1280,
            height: 720,
            fps: 30,
            duration: Duration::from_secs(6),
            gop: Duration::from_secs(2),
            kbit_per_s: 2500,
            sar: (1, 1),
            chroma: Chroma::Yuv420,
            depth: 8,
            interlaced: false,
            b_frames: 2,
            audio: true,
            colour: Colour::Bt709,
            full_range: false,
            tagged: true,
            content: Content::Moving,
            encoder_args: &[],
        }
    }
}

/// Chroma subsampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chroma {
    Yuv420,
    Yuv422,
    Yuv444,
}

/// The matrix between RGB and YCbCr; primaries and transfer are tagged to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Colour {
    Bt601,
    Bt709,
    Bt2020,
}

impl Colour {
    /// swscale's name of the matrix, ffmpeg's names of matrix, primaries and transfer.
    fn names(self) -> (&'static str, [&'static str; 3]) {
        match self {
            Self::Bt601 => ("bt601", ["smpte170m", "smpte170m", "smpte170m"]),
            Self::Bt709 => ("bt709", ["bt709", "bt709", "bt709"]),
            Self::Bt2020 => ("bt2020", ["bt2020nc", "bt2020", "bt2020-10"]),
        }
    }
}

/// What the pictures show beside their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// ffmpeg's moving test picture.
    Moving,
    /// Flat patches of known colours, see [`PATCHES`]; nothing else moves than the number.
    Patches,
}

/// The colours of [`Content::Patches`], red, green and blue: black, white, greys, primaries, secondaries and soft ones.
/// Four to a row, row by row, in a grid that covers the whole picture (the strip with the number hides some of the first).
pub const PATCHES: [[u8; 3]; 16] = [
    [0, 0, 0],
    [255, 255, 255],
    [128, 128, 128],
    [64, 64, 64],
    [255, 0, 0],
    [0, 255, 0],
    [0, 0, 255],
    [192, 192, 192],
    [0, 255, 255],
    [255, 0, 255],
    [255, 255, 0],
    [16, 16, 16],
    [224, 172, 138],
    [98, 122, 157],
    [87, 108, 67],
    [235, 235, 235],
];

/// The middle of a patch, as fractions of width and height.
pub fn patch_centre(index: usize) -> (f64, f64) {
    (((index % 4) as f64 + 0.5) / 4.0, ((index / 4) as f64 + 0.5) / 4.0)
}

/// A clip on disk.
#[derive(Clone, Debug)]
pub struct Clip {
    pub spec: ClipSpec,
    pub path: PathBuf,
}

impl ClipSpec {
    /// The clip of this specification, made now unless an earlier run already has.
    ///
    /// # Errors
    /// When ffmpeg is missing or refuses.
    pub fn build(&self) -> Result<Clip> {
        let arguments = self.ffmpeg_arguments();
        let path = cache_dir()?.join(format!("{self}-{:016x}.flv", hash(&arguments)));
        if !path.exists() {
            // Made beside its place and renamed, so that no test ever reads half a clip; two tests that make the same
            // one at the same time both succeed.
            let unfinished = tempfile::Builder::new()
                .suffix(".flv")
                .tempfile_in(path.parent().expect("the cache is a directory"))
                .context("make room for a clip")?
                .into_temp_path();
            ffmpeg(arguments.into_iter().chain([unfinished.as_os_str().to_owned()]))?;
            unfinished.persist(&path).context("keep a clip")?;
        }
        Ok(Clip { spec: self.clone(), path })
    }

    /// Frames from one keyframe to the next.
    pub fn gop_frames(&self) -> u32 {
        ((self.gop.as_secs_f64() * f64::from(self.fps)).round() as u32).max(1)
    }

    fn pixel_format(&self) -> String {
        let chroma = match self.chroma {
            Chroma::Yuv420 => "yuv420p",
            Chroma::Yuv422 => "yuv422p",
            Chroma::Yuv444 => "yuv444p",
        };
        if self.depth == 8 { chroma.to_owned() } else { format!("{chroma}{}le", self.depth) }
    }

    fn source(&self) -> String {
        let (width, height, fps) = (self.width, self.height, self.fps);
        match self.content {
            Content::Moving => format!("testsrc2=s={width}x{height}:r={fps},format=rgb24"),
            Content::Patches => {
                let mut source = format!("color=c=black:s={width}x{height}:r={fps},format=rgb24");
                let edge = |index: usize, side: u32| index as u32 * side / 4;
                for (index, [red, green, blue]) in PATCHES.iter().enumerate() {
                    let (column, row) = (index % 4, index / 4);
                    let (x, y) = (edge(column, width), edge(row, height));
                    let (w, h) = (edge(column + 1, width) - x, edge(row + 1, height) - y);
                    source +=
                        &format!(",drawbox=x={x}:y={y}:w={w}:h={h}:color=0x{red:02x}{green:02x}{blue:02x}:t=fill");
                }
                source
            }
        }
    }

    fn ffmpeg_arguments(&self) -> Vec<OsString> {
        let (matrix, [colorspace, primaries, transfer]) = self.colour.names();
        let range = if self.full_range { "pc" } else { "tv" };
        let fields = if self.interlaced { ",setfield=tff" } else { "" };
        let video = format!(
            "{},{},scale=out_color_matrix={matrix}:out_range={range}:flags=accurate_rnd+full_chroma_int+bitexact,format={},setsar={}/{}{fields}",
            self.source(),
            frame_number::burn_filters(self.width, self.height),
            self.pixel_format(),
            self.sar.0,
            self.sar.1,
        );
        let mut list = format!("-f lavfi -i {video}");
        if self.audio {
            list += " -f lavfi -i sine=frequency=440:sample_rate=48000,volume=0.1 -c:a aac -b:a 96k -ac 2";
        }
        let (gop, rate) = (self.gop_frames(), self.kbit_per_s);
        list += &format!(
            " -t {} -c:v libx264 -preset veryfast -g {gop} -keyint_min {gop} -sc_threshold 0 -bf {} -b:v {rate}k -maxrate {rate}k -bufsize {}k",
            self.duration.as_secs_f64(),
            self.b_frames,
            rate * 2,
        );
        if self.interlaced {
            list += " -flags +ilme+ildct -x264opts tff=1";
        }
        if self.tagged {
            list += &format!(
                " -colorspace {colorspace} -color_primaries {primaries} -color_trc {transfer} -color_range {range}"
            );
        } else {
            // The frames carry their matrix and range; this takes them out of the bitstream again.
            list += " -bsf:v h264_metadata=colour_primaries=2:transfer_characteristics=2:matrix_coefficients=2";
        }
        list.split(' ').chain(self.encoder_args.iter().copied()).chain(["-f", "flv"]).map(OsString::from).collect()
    }
}

/// The readable part of the clip's file name.
impl fmt::Display for ClipSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}-{}fps-gop{}-{}", self.width, self.height, self.fps, self.gop_frames(), self.pixel_format())
    }
}

impl Clip {
    /// # Errors
    /// When the file cannot be read any more.
    pub fn flv(&self) -> Result<FlvFile> {
        FlvFile::open(&self.path)
    }

    /// Frame `number` (from 0, in display order) as ffmpeg decodes it, converted with the clip's own matrix and range;
    /// scaled to `size` if given. Samples are taken as square.
    ///
    /// # Errors
    /// When the clip has no such frame.
    pub fn frame(&self, number: u32, size: Option<(usize, usize)>) -> Result<Picture> {
        let (width, height) = size.unwrap_or((self.spec.width as usize, self.spec.height as usize));
        let (matrix, _) = self.spec.colour.names();
        let range = if self.spec.full_range { "pc" } else { "tv" };
        let filters = format!(
            "select=eq(n\\,{number}),scale={width}:{height}:in_color_matrix={matrix}:in_range={range}:flags=bicubic+accurate_rnd+full_chroma_int,format=rgb24"
        );
        let input = self.path.to_str().context("a clip's path is UTF-8")?;
        let arguments = ["-i", input, "-vf", &filters, "-frames:v", "1", "-f", "rawvideo", "-"];
        let rgb = ffmpeg(arguments.into_iter().map(OsString::from))?;
        ensure!(!rgb.is_empty(), "{} has no frame {number}", self.path.display());
        Picture::new(width, height, rgb)
    }
}

/// Runs ffmpeg to its end; gives what it wrote to standard output.
fn ffmpeg(arguments: impl Iterator<Item = OsString>) -> Result<Vec<u8>> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("start ffmpeg")?;
    ensure!(output.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// `target/testkit-clips`, wherever cargo's target directory is.
fn cache_dir() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace's root").join("target"),
        PathBuf::from,
    );
    let dir = target.join("testkit-clips");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    Ok(dir)
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jpeg;

    fn small() -> ClipSpec {
        ClipSpec {
            width: 320,
            height: 180,
            duration: Duration::from_secs(2),
            gop: Duration::from_millis(500),
            kbit_per_s: 500,
            ..ClipSpec::default()
        }
    }

    #[test]
    fn every_kind_of_clip_carries_its_numbers() {
        let kinds = [
            ("plain", small()),
            ("portrait", ClipSpec { width: 180, height: 320, ..small() }),
            ("wide samples", ClipSpec { sar: (4, 3), ..small() }),
            ("4:2:2, 10 bit", ClipSpec { chroma: Chroma::Yuv422, depth: 10, ..small() }),
            ("4:4:4, odd size", ClipSpec { chroma: Chroma::Yuv444, width: 321, height: 179, ..small() }),
            ("interlaced", ClipSpec { interlaced: true, ..small() }),
            ("no B frames, silent", ClipSpec { b_frames: 0, audio: false, ..small() }),
            ("full range, untagged", ClipSpec { full_range: true, tagged: false, ..small() }),
        ];
        for (kind, spec) in kinds {
            let clip = spec.build().unwrap();
            for number in [0, 37, 59] {
                let picture = clip.frame(number, None).unwrap();
                assert_eq!(frame_number(&picture), Some(number), "{kind}");
            }
            assert_eq!(frame_number(&clip.frame(37, Some((160, 90))).unwrap()), Some(37), "{kind}, half size");
        }
    }

    #[test]
    fn keyframes_come_every_gop_and_know_their_number() {
        let file = small().build().unwrap().flv().unwrap();
        let numbers = file.picture_numbers();
        let keyframes: Vec<_> = file
            .tags
            .iter()
            .zip(&numbers)
            .filter(|(tag, _)| tag.is_keyframe())
            .filter_map(|(_, &number)| number)
            .collect();
        assert_eq!(keyframes, [0, 15, 30, 45]);
        assert_eq!(file.duration_ms(), 2000);
    }

    #[test]
    fn patches_keep_their_colours_in_every_matrix_and_depth() {
        for colour in [Colour::Bt601, Colour::Bt709, Colour::Bt2020] {
            for (chroma, depth, full_range) in [
                (Chroma::Yuv420, 8, false),
                (Chroma::Yuv420, 10, false),
                (Chroma::Yuv444, 8, true),
                (Chroma::Yuv422, 10, true),
            ] {
                let spec = ClipSpec {
                    content: Content::Patches,
                    colour,
                    chroma,
                    depth,
                    full_range,
                    kbit_per_s: 4000,
                    ..small()
                };
                let picture = spec.build().unwrap().frame(15, None).unwrap();
                for (index, patch) in PATCHES.iter().enumerate() {
                    let (x, y) = patch_centre(index);
                    let seen = picture.at((x * 320.0) as usize, (y * 180.0) as usize);
                    let error = seen.iter().zip(patch).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                    assert!(error <= 3, "{colour:?} {chroma:?} {depth} bit: patch {index} {patch:?} became {seen:?}");
                }
            }
        }
    }

    #[test]
    fn a_jpeg_of_a_frame_decodes_to_the_frame() {
        let clip = small().build().unwrap();
        let input = clip.path.to_str().unwrap();
        // ffmpeg's JPEG encoder keeps the BT.709 matrix, so the frame is converted to JPEG's own BT.601 first.
        let filters = "scale=in_color_matrix=bt709:in_range=tv:out_color_matrix=bt601:out_range=pc:flags=accurate_rnd,format=yuvj444p";
        let arguments = ["-i", input, "-vf", filters, "-frames:v", "1", "-q:v", "2", "-f", "mjpeg", "-"];
        let picture = jpeg::decode(&ffmpeg(arguments.into_iter().map(OsString::from)).unwrap()).unwrap();
        assert_eq!(frame_number(&picture), Some(0));
        let psnr = picture.psnr_luma(&clip.frame(0, None).unwrap()).unwrap();
        assert!(psnr > 38.0, "{psnr} dB");
        assert!(jpeg::decode(b"\xff\xd8\xff\xe0 not a picture").is_err());
    }
}
