//! Real encoders push real clips; every callback names an object that is there, and its picture shows the picked frame.

mod common;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::{DOMAIN, check_snapshot, push_url, serve, wait_for_snapshots};
use framehook_testkit::clip::{self, Chroma, ClipSpec, Colour};
use framehook_testkit::encoder::{self, Program, Source};
use framehook_testkit::receiver::Receiver;

/// A clip of 360p that is quick to make and to decode.
fn small() -> ClipSpec {
    ClipSpec { width: 640, height: 360, kbit_per_s: 800, ..ClipSpec::default() }
}

/// Pushes a clip with a program, checks the first `pictures` snapshots against the clip's own frames, and the events
/// around them.
fn push_and_check(program: Program, spec: ClipSpec, pictures: usize) -> Result<()> {
    let clip = spec.build()?;
    let receiver = Receiver::start()?;
    let server = serve(&receiver, 2, "")?;
    let _encoder = encoder::push(program, Source::Clip(&clip.path), &push_url(&server, "room_1001"))?;
    let requests = wait_for_snapshots(&receiver, pictures)?;
    let began = receiver.requests().into_iter().find(|request| request.event_type() == Some(1));
    let began = began.context("no event 1 came before the pictures")?.json()?;
    ensure!(began["app"] == DOMAIN && began["stream_id"] == "room_1001" && began["errcode"] == 0, "{began}");
    let keyframes: Vec<u32> = clip.flv()?.picture_numbers().into_iter().flatten().collect();
    for request in &requests {
        let snapshot = check_snapshot(&server, request)?;
        ensure!(snapshot.body["app"] == DOMAIN && snapshot.body["appname"] == "live", "{}", snapshot.body);
        ensure!(snapshot.body["stream_param"] == format!("domain={DOMAIN}"), "{}", snapshot.body);
        let number = clip::frame_number(&snapshot.picture).context("no frame number can be read")?;
        ensure!(
            number % clip.spec.gop_frames() == 0 && keyframes.contains(&number),
            "frame {number} is no keyframe of this clip"
        );
        let frame = clip.frame(number, Some((snapshot.picture.width, snapshot.picture.height)))?;
        let planes = snapshot.picture.psnr_planes(&frame)?;
        // Colour that is finer than the JPEG's 4:2:0 is lost by design.
        let colour = if clip.spec.chroma == Chroma::Yuv444 { 33.0 } else { 36.0 };
        let good = planes.iter().zip([36.0, colour, colour]).all(|(psnr, bound)| *psnr >= bound);
        ensure!(good, "{planes:.1?} dB against frame {number}");
    }
    Ok(())
}

#[test]
fn ffmpeg_pushes() {
    push_and_check(Program::Ffmpeg, small(), 3).unwrap();
}

#[test]
fn gstreamer_rtmp2sink_pushes() {
    push_and_check(Program::GstRtmp2Sink, small(), 3).unwrap();
}

#[test]
fn librtmp_pushes() {
    push_and_check(Program::GstRtmpSink, small(), 3).unwrap();
}

#[test]
fn portrait() {
    push_and_check(Program::Ffmpeg, ClipSpec { width: 360, height: 640, ..small() }, 1).unwrap();
}

#[test]
fn sides_that_are_no_multiple_of_a_macroblock() {
    push_and_check(Program::Ffmpeg, ClipSpec { width: 630, height: 346, ..small() }, 1).unwrap();
}

#[test]
fn odd_sides() {
    push_and_check(Program::Ffmpeg, ClipSpec { width: 641, height: 361, chroma: Chroma::Yuv444, ..small() }, 1)
        .unwrap();
}

#[test]
fn samples_that_are_not_square() {
    push_and_check(Program::Ffmpeg, ClipSpec { sar: (4, 3), ..small() }, 1).unwrap();
}

#[test]
fn chroma_422() {
    push_and_check(Program::Ffmpeg, ClipSpec { chroma: Chroma::Yuv422, ..small() }, 1).unwrap();
}

#[test]
fn ten_bits() {
    push_and_check(Program::Ffmpeg, ClipSpec { depth: 10, ..small() }, 1).unwrap();
}

#[test]
fn interlaced() {
    push_and_check(Program::Ffmpeg, ClipSpec { interlaced: true, ..small() }, 1).unwrap();
}

#[test]
fn many_b_frames() {
    push_and_check(Program::Ffmpeg, ClipSpec { b_frames: 5, ..small() }, 1).unwrap();
}

#[test]
fn no_audio_and_another_matrix() {
    push_and_check(Program::Ffmpeg, ClipSpec { audio: false, colour: Colour::Bt601, full_range: true, ..small() }, 1)
        .unwrap();
}

#[test]
fn hd_and_full_hd() {
    push_and_check(Program::Ffmpeg, ClipSpec { duration: Duration::from_secs(4), ..ClipSpec::default() }, 1).unwrap();
    let full_hd = ClipSpec { width: 1920, height: 1080, kbit_per_s: 5000, ..ClipSpec::default() };
    push_and_check(Program::Ffmpeg, ClipSpec { duration: Duration::from_secs(4), ..full_hd }, 1).unwrap();
}

#[test]
fn ultra_hd() {
    let spec = ClipSpec { width: 3840, height: 2160, fps: 10, kbit_per_s: 15_000, ..ClipSpec::default() };
    push_and_check(Program::Ffmpeg, ClipSpec { duration: Duration::from_secs(3), ..spec }, 1).unwrap();
}

#[test]
fn a_gop_of_half_a_second() {
    push_and_check(Program::Ffmpeg, ClipSpec { gop: Duration::from_millis(500), ..small() }, 2).unwrap();
}

#[test]
fn a_gop_of_eight_seconds() {
    let spec = ClipSpec { gop: Duration::from_secs(8), duration: Duration::from_secs(10), ..small() };
    push_and_check(Program::Ffmpeg, spec, 2).unwrap();
}
