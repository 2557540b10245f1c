//! Real encoders: programs that other people wrote, pushing to a URL at real speed.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::Process;

/// Which program pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// ffmpeg's own RTMP client.
    Ffmpeg,
    /// GStreamer's own RTMP client.
    GstRtmp2Sink,
    /// librtmp, through GStreamer.
    GstRtmpSink,
}

/// What is pushed.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// An FLV file, not encoded again.
    Clip(&'a Path),
    /// An FLV file over and over, on one continuous timeline. GStreamer cannot: it plays the file once.
    LoopedClip(&'a Path),
    /// A moving test picture, 640x360 at 30 fps with a keyframe each second, encoded live. It ends only when killed.
    TestPicture,
}

/// Starts pushing. The process ends by itself at the end of a [`Source::Clip`], is killed when dropped, and keeps what
/// the encoder printed: a refusal stands there.
///
/// # Errors
/// When the program is not installed.
pub fn push(program: Program, source: Source<'_>, url: &str) -> Result<Process> {
    match program {
        Program::Ffmpeg => Process::spawn("ffmpeg", Command::new("ffmpeg").args(ffmpeg(source, url))),
        Program::GstRtmp2Sink => Process::spawn("gst-launch rtmp2sink", &mut gstreamer("rtmp2sink", source, url)),
        Program::GstRtmpSink => Process::spawn("gst-launch rtmpsink", &mut gstreamer("rtmpsink", source, url)),
    }
}

fn ffmpeg(source: Source<'_>, url: &str) -> Vec<String> {
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &str| arguments.extend(words.split(' ').map(str::to_owned));
    add("-nostdin -v warning -re");
    match source {
        Source::Clip(path) | Source::LoopedClip(path) => {
            if matches!(source, Source::LoopedClip(_)) {
                add("-stream_loop -1");
            }
            arguments.extend(["-i".to_owned(), path.display().to_string(), "-c".to_owned(), "copy".to_owned()]);
        }
        Source::TestPicture => {
            add("-f lavfi -i testsrc2=s=640x360:r=30 -f lavfi -i sine=sample_rate=48000 -c:a aac");
            add("-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 30 -sc_threshold 0");
        }
    }
    arguments.extend(["-f".to_owned(), "flv".to_owned(), url.to_owned()]);
    arguments
}

fn gstreamer(sink: &str, source: Source<'_>, url: &str) -> Command {
    let (video, audio) = match source {
        Source::Clip(path) | Source::LoopedClip(path) => (
            format!("filesrc location={} ! flvdemux name=d d.video ! queue ! h264parse", path.display()),
            "d.audio ! queue ! aacparse",
        ),
        Source::TestPicture => (
            "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 ! x264enc \
             speed-preset=ultrafast tune=zerolatency key-int-max=30 ! h264parse"
                .to_owned(),
            "audiotestsrc is-live=true volume=0.05 ! audioconvert ! avenc_aac ! aacparse",
        ),
    };
    // Each word is one argument, so that a URL with spaces or exclamation marks stays whole.
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(video.split_whitespace()).args(["!", "flvmux", "streamable=true", "name=m"]);
    command.args(["!", sink, "sync=true", &format!("location={url}")]);
    command.args(audio.split_whitespace()).args(["!", "m."]);
    command
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::clip::ClipSpec;
    use crate::flv::FlvFile;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// ffmpeg as an RTMP server for one connection, recording to a file.
    fn recorder(port: u16, path: &Path) -> Process {
        let url = format!("rtmp://127.0.0.1:{port}/live/stream");
        let mut command = Command::new("ffmpeg");
        command
            .args(["-nostdin", "-v", "error", "-y", "-listen", "1", "-i", &url, "-c", "copy", "-f", "flv"])
            .arg(path);
        Process::spawn("recording ffmpeg", &mut command).unwrap()
    }

    /// Whether someone listens on a port, without connecting: the recorder takes one connection only.
    fn is_listening(port: u16) -> bool {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.contains(&format!("0100007F:{port:04X} 00000000:0000 0A"))
    }

    #[test]
    fn every_program_pushes_a_whole_clip() {
        let clip = ClipSpec {
            width: 320,
            height: 180,
            duration: Duration::from_secs(2),
            kbit_per_s: 300,
            b_frames: 0,
            ..ClipSpec::default()
        };
        let clip = clip.build().unwrap();
        let pictures = |file: &FlvFile| file.picture_numbers().iter().flatten().count();
        let sent = pictures(&clip.flv().unwrap());
        for program in [Program::Ffmpeg, Program::GstRtmp2Sink, Program::GstRtmpSink] {
            // ffmpeg cannot say which port it was given, so one that was just free has to do.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let recorded = tempfile::NamedTempFile::new().unwrap();
            let mut recorder = recorder(port, recorded.path());
            crate::wait::until("the recorder", PATIENCE, || is_listening(port).then_some(())).unwrap();
            let url = format!("rtmp://127.0.0.1:{port}/live/stream");
            let mut encoder = push(program, Source::Clip(&clip.path), &url).unwrap();
            encoder.wait(PATIENCE).unwrap();
            recorder.wait(PATIENCE).unwrap();
            let received = pictures(&FlvFile::open(recorded.path()).unwrap());
            assert_eq!(received, sent, "{program:?} printed: {}", encoder.stderr());
        }
    }
}
