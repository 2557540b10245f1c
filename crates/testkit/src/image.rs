//! Decodes the PNG, WebP and AVIF files that Framehook stores, with ffmpeg, which shares no code with their encoders.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::picture::Picture;

/// What an image file says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Jpeg,
    Png,
    Webp,
    Avif,
}

/// Tells a file's format by its first bytes.
pub fn format(file: &[u8]) -> Option<Format> {
    match file {
        [0xff, 0xd8, ..] => Some(Format::Jpeg),
        [0x89, b'P', b'N', b'G', ..] => Some(Format::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::Webp),
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f', ..] => Some(Format::Avif),
        _ => None,
    }
}

/// Width and height as the file's own header says.
///
/// # Errors
/// When the file is none of the four formats, or ends before its header does.
pub fn size(file: &[u8]) -> Result<(usize, usize)> {
    let number = |at: usize, bytes: usize| -> Result<usize> {
        let field = file.get(at..at + bytes).context("the header is cut off")?;
        Ok(field.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    match format(file).context("no image")? {
        Format::Jpeg => crate::jpeg::decode(file).map(|picture| (picture.width, picture.height)),
        Format::Png => Ok((number(16, 4)?, number(20, 4)?)),
        // RFC 6386, 9.1: 14 bits each, little endian, behind the frame tag and the start code.
        Format::Webp => {
            let side = |at: usize| -> Result<usize> { Ok((number(at + 1, 1)? << 8 | number(at, 1)?) & 0x3fff) };
            Ok((side(26)?, side(28)?))
        }
        Format::Avif => {
            let at = find(file, b"ispe").context("no size")?;
            Ok((number(at + 8, 4)?, number(at + 12, 4)?))
        }
    }
}

fn find(file: &[u8], name: &[u8; 4]) -> Option<usize> {
    file.windows(4).position(|window| window == name)
}

/// The AV1 frame of an AVIF file: ffmpeg before 7 does not read the file around it.
///
/// # Errors
/// When there is none.
pub fn av1_frame(file: &[u8]) -> Result<&[u8]> {
    let at = find(file, b"mdat").context("no data")?;
    Ok(&file[at + 4..])
}

/// Decodes to RGB as a browser would.
///
/// # Errors
/// When the bytes are not a whole, well-formed image.
pub fn decode(file: &[u8]) -> Result<Picture> {
    let (width, height) = size(file)?;
    let (demuxer, bytes) = match format(file).context("no image")? {
        Format::Jpeg => return crate::jpeg::decode(file),
        Format::Png => ("png_pipe", file.to_vec()),
        Format::Webp => ("webp_pipe", file.to_vec()),
        // A temporal delimiter makes a stream of one frame (AV1, 5.6).
        Format::Avif => ("obu", [&[0x12, 0x00], av1_frame(file)?].concat()),
    };
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-f", demuxer, "-i", "-"])
        .args(["-vf", "scale=flags=bicubic+accurate_rnd+full_chroma_int,format=rgb24", "-f", "rawvideo", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start ffmpeg")?;
    let mut stdin = ffmpeg.stdin.take().context("a pipe")?;
    // From a thread of its own, or both could wait with full pipes.
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = ffmpeg.wait_with_output()?;
    if let Err(error) = writer.join().expect("it does not panic") {
        bail!("ffmpeg took no more: {error}; {}", String::from_utf8_lossy(&output.stderr));
    }
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && complaints.is_empty(), "ffmpeg: {complaints}");
    Picture::new(width, height, output.stdout)
}
