//! Draws the demo clip and has ffmpeg encode it: what a user sees first, embedded in the executable.
//!
//! Drawn here rather than filmed, so that it is ours, looks the same on every machine and stays below [`BYTES_MAX`].

mod canvas;
mod glyph;
mod scene;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use self::canvas::Canvas;

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;
const FPS: usize = 30;
/// One loop. Every motion returns to its start in it, and it is a whole number of GOPs.
const SECONDS: usize = 16;
const GOP_SECONDS: usize = 2;
/// The executable carries the clip.
const BYTES_MAX: u64 = 1_000_000;

/// Makes `path` (an FLV file) anew.
pub(crate) fn generate(path: &Path) -> Result<()> {
    let dir = path.parent().context("the clip has a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y"])
        .args(words(&format!("-f rawvideo -pix_fmt rgb24 -s {WIDTH}x{HEIGHT} -r {FPS} -i pipe:0")))
        .args(["-f", "lavfi", "-i", &tone()])
        .args([
            "-vf",
            "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int+bitexact,format=yuv420p",
        ])
        .args(words(&format!("-t {SECONDS} -c:v libx264 -profile:v high -preset slow -tune animation -crf 24 -bf 2")))
        .args(words(&format!("-g {0} -keyint_min {0} -sc_threshold 0", FPS * GOP_SECONDS)))
        .args(words("-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"))
        .args(words("-c:a aac -b:a 32k -ac 1 -fflags +bitexact -f flv"))
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .context("start ffmpeg")?;
    let mut frames = ffmpeg.stdin.take().expect("stdin is piped");
    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    for frame in 0..SECONDS * FPS {
        scene::draw(&mut canvas, frame);
        frames.write_all(canvas.rgb()).context("hand a frame to ffmpeg")?;
    }
    drop(frames);
    let status = ffmpeg.wait().context("wait for ffmpeg")?;
    ensure!(status.success(), "ffmpeg ended with {status}");
    let bytes = fs::metadata(path).context("look at the clip")?.len();
    ensure!(bytes <= BYTES_MAX, "the clip has {bytes} bytes, more than {BYTES_MAX}");
    println!("{}: {bytes} bytes, {SECONDS} s", path.display());
    Ok(())
}

/// A quiet A major chord that swells twice per loop. The frequencies are multiples of 1/16 Hz, so that a loop ends where
/// it began.
fn tone() -> String {
    let voices = [220.0, 277.1875, 329.625].map(|hertz| format!("sin(2*PI*{hertz}*t)")).join("+");
    format!("aevalsrc=0.03*({voices})*(0.65-0.35*cos(2*PI*t/8)):s=48000:d={SECONDS}")
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(' ')
}
