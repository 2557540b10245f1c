//! What people run instead: nginx-rtmp starts a program for each stream, which writes its pictures into a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use framehook_testkit::flv::FlvFile;
use framehook_testkit::publisher::KeyframeSent;
use framehook_testkit::wait;
use tempfile::TempDir;

use super::GOP;
use super::report::Rival;
use super::shown::{Known, Place, Sum, sum};
use super::timed::{Timed, number_of};
use super::watch::{Watch, Whole};
use crate::machine;
use crate::subject;
use crate::workshop::{Workshop, output};

/// A program reads a stream for some seconds before it decodes, and holds pictures back.
const FIRST_PICTURES_PATIENCE: Duration = Duration::from_secs(60);

/// The app that [`subject::nginx_with`] has.
const APP: &str = "live";

/// A picture of each keyframe, decoding nothing else. The decoder gives none before it has seen as many more as the stream says
/// may be out of order, and here these are keyframes, too: `-flags low_delay` does not change that.
const NOKEY: &str = "ffmpeg -nostdin -v error -threads 1 -skip_frame nokey -i {read} -an -vsync passthrough -threads 1 \
                     -q:v 3 {write}";
/// The same pictures with everything decoded, so that the next pictures, and not the next keyframes, let one go.
const SELECT: &str = "ffmpeg -nostdin -v error -threads 1 -i {read} -an -vf select=key -vsync passthrough -threads 1 \
                      -q:v 3 {write}";
/// The usual recipe, at the rate at which others are given keyframes.
const FPS: &str = "ffmpeg -nostdin -v error -i {read} -vf fps=1/2 -q:v 3 {write}";
/// A picture of every picture.
const EVERY: &str = "ffmpeg -nostdin -v error -i {read} -an -vsync passthrough -q:v 3 {write}";
/// What [`subject`] says of this pipeline holds here; without `videorate` it writes a picture of each keyframe.
const GSTREAMER: &str = "gst-launch-1.0 -q {read} ! flvdemux name=demux \
                         demux.video ! identity drop-buffer-flags=delta-unit ! h264parse ! avdec_h264 max-threads=1 ! \
                         videoconvert ! jpegenc quality=85 ! multifilesink async=false location={write} \
                         demux.audio ! fakesink sync=false async=false";

pub(super) const RECIPES: [Recipe; 5] = [
    Recipe { label: "nginx-rtmp + ffmpeg select=key", line: SELECT, same: NOKEY, ..Recipe::FFMPEG },
    Recipe { label: "nginx-rtmp + ffmpeg -skip_frame nokey", line: NOKEY, same: NOKEY, waits: true, ..Recipe::FFMPEG },
    Recipe { label: "nginx-rtmp + ffmpeg fps=1/2", line: FPS, same: EVERY, waits: true, ..Recipe::FFMPEG },
    Recipe {
        label: "no B-frames: nginx-rtmp + ffmpeg -skip_frame nokey",
        line: NOKEY,
        same: NOKEY,
        b_frames: false,
        ..Recipe::FFMPEG
    },
    Recipe {
        label: "no B-frames: nginx-rtmp + GStreamer, keyframes only",
        line: GSTREAMER,
        same: GSTREAMER,
        program: Program::Gstreamer,
        b_frames: false,
        ..Recipe::FFMPEG
    },
];

/// What nginx-rtmp starts for each stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recipe {
    label: &'static str,
    program: Program,
    /// With places for what it reads and what it writes.
    line: &'static str,
    /// What makes the same pictures of the clip's file, in the order in which they are shown.
    same: &'static str,
    /// Whether its streams have B-frames, as the clip does.
    b_frames: bool,
    /// Whether it waits for pictures to come, which is seconds and needs no long look.
    waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Ffmpeg,
    Gstreamer,
}

impl Program {
    /// The line as [`subject::nginx_with`] takes it.
    fn of_stream(self, line: &str) -> String {
        let read = match self {
            Self::Ffmpeg => "{input}",
            Self::Gstreamer => "rtmp2src location={input}",
        };
        line.replace("{read}", read).replace("{write}", "{shots}/$name-%03d.jpg")
    }

    /// The line as words, that reads `clip` and writes to `folder` or prints what it would have written.
    fn of_file(self, line: &str, clip: &Path, folder: &Path) -> Vec<String> {
        let (read, write) = match self {
            Self::Ffmpeg => ("{clip}", "-c:v mjpeg -f framemd5 -"),
            Self::Gstreamer => ("filesrc location={clip}", "{folder}/%05d.jpg"),
        };
        let line = line.replace("{read}", read).replace("{write}", write);
        // Words first, since a path may have blanks.
        let (clip, folder) = (clip.to_string_lossy(), folder.to_string_lossy());
        line.split_whitespace().map(|word| word.replace("{clip}", &clip).replace("{folder}", &folder)).collect()
    }
}

impl Recipe {
    const FFMPEG: Self = Self { label: "", program: Program::Ffmpeg, line: "", same: "", b_frames: true, waits: false };

    /// Makes everything that is known before a stream is there. `clip` is the one with B-frames.
    pub(super) fn prepare(self, workshop: &Workshop, clip: &Path) -> Result<Prepared> {
        let clip = if self.b_frames { clip.to_owned() } else { without_b_frames(clip)? };
        let file = FlvFile::open(&clip)?;
        let places = if self.same == EVERY { Place::of_all(&file) } else { Place::of_keyframes(&file) };
        let known = self.sums(workshop, &clip).and_then(|sums| Known::new(&sums, &places));
        let known = known.with_context(|| format!("have {} make the clip's pictures", self.label))?;
        Ok(Prepared { recipe: self, clip, known })
    }

    /// Of what it makes of the pictures of the file.
    fn sums(self, workshop: &Workshop, clip: &Path) -> Result<Vec<Sum>> {
        let folder = TempDir::with_prefix_in("pictures-", workshop.runs())?.keep();
        let words = self.program.of_file(self.same, clip, &folder);
        let (program, arguments) = words.split_first().context("a recipe is never empty")?;
        let printed = output(program, arguments)?;
        match self.program {
            Program::Ffmpeg => printed_sums(&printed),
            Program::Gstreamer => {
                let mut files = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
                files.sort_unstable();
                files.iter().map(|file| Ok(sum(&fs::read(file)?))).collect()
            }
        }
    }

    /// Those that decode everything would fill the machine sooner.
    fn streams(self, asked: u32) -> u32 {
        let most = if self.line == NOKEY || self.line == GSTREAMER { 10 } else { 4 };
        asked.min(most)
    }

    /// Of this length the whole run becomes six minutes long.
    fn window(self, whole: Duration) -> Duration {
        if self.waits { whole / 6 } else { whole / 3 }
    }
}

/// A recipe whose pictures are known.
pub(super) struct Prepared {
    recipe: Recipe,
    clip: PathBuf,
    known: Known,
}

impl Prepared {
    pub(super) fn label(&self) -> &'static str {
        self.recipe.label
    }

    /// Times every picture that it writes within a part of the window, with at most so many streams and nobody else there.
    pub(super) fn measure(&self, workshop: &Workshop, streams: u32, window: Duration) -> Result<Rival> {
        let Self { recipe, clip, known } = self;
        let (streams, window) = (recipe.streams(streams), recipe.window(window).max(2 * GOP));
        eprintln!("{}, {streams} streams, {} s", recipe.label, window.as_secs());
        let running = subject::nginx_with(workshop, &recipe.program.of_stream(recipe.line))?;
        let watch = Watch::start(&running.shots()?, Whole::Closed)?;
        let timed = Timed::start(clip, running.rtmp, APP, streams)?;
        // The first picture may be one that had waited while the program found out what it reads.
        wait::until("two pictures of each stream", FIRST_PICTURES_PATIENCE, || {
            let pictures = pictures(&watch.all(), streams);
            pictures.iter().all(|of_stream| of_stream.len() >= 2).then_some(())
        })
        .with_context(|| running.root().stderr_tail())?;
        let (began, busy_before) = (Instant::now(), machine::busy()?);
        std::thread::sleep(window);
        let ended = Instant::now();
        let cores_busy = (machine::busy()? - busy_before).as_secs_f64() / (ended - began).as_secs_f64();
        let (keyframes, pictures) = (timed.keyframes(), pictures(&watch.all(), streams));
        drop(timed);

        let window = began..ended;
        let due = keyframes.iter().flatten().filter(|sent| window.contains(&sent.sent)).count();
        let (mut delays, mut unknown) = (Vec::new(), 0);
        for (of_stream, keyframes) in pictures.iter().zip(&keyframes) {
            for (path, whole) in of_stream.iter().filter(|(_, whole)| window.contains(whole)) {
                match delay(known, path, keyframes, *whole)? {
                    Some(delay) => delays.push(delay),
                    None => unknown += 1,
                }
            }
        }
        ensure!(!delays.is_empty(), "{due} keyframes left, and none of {unknown} pictures shows what the clip has");
        Ok(Rival::new(recipe.label, streams, cores_busy, &delays, (due, unknown)))
    }
}

/// How long a picture took from when it had left until its file was whole. `None` when it shows nothing of the clip.
fn delay(known: &Known, path: &Path, keyframes: &[KeyframeSent], whole: Instant) -> Result<Option<Duration>> {
    let file = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(known.left(sum(&file), keyframes, whole).map(|left| whole - left))
}

/// The pictures of each stream, `room_7-012.jpg` one of the stream of that number. What else is there is on its way to
/// becoming one.
fn pictures(files: &[(PathBuf, Instant)], streams: u32) -> Vec<Vec<(PathBuf, Instant)>> {
    let mut pictures = vec![Vec::new(); streams as usize];
    for (path, whole) in files {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jpg"));
        let stream = name.and_then(|name| number_of(name.rsplit_once('-')?.0));
        if let Some(of_stream) = stream.and_then(|stream| pictures.get_mut(stream)) {
            of_stream.push((path.clone(), *whole));
        }
    }
    pictures
}

/// What `-f framemd5` prints: a comment, or a line for each picture, whose sixth field it is.
fn printed_sums(printed: &str) -> Result<Vec<Sum>> {
    let lines = printed.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let field = line.split(',').nth(5).with_context(|| format!("no sum in {line:?}"))?;
            Sum::from_str_radix(field.trim(), 16).with_context(|| format!("no sum: {field:?}"))
        })
        .collect()
}

/// The clip as an encoder sends it that is set to a low delay: encoded once more, which costs it little. Sound is left as it is.
fn without_b_frames(clip: &Path) -> Result<PathBuf> {
    let made = clip.with_extension("no-b-frames.flv");
    if made.exists() {
        return Ok(made);
    }
    eprintln!("encoding {} (once; about half a minute)", made.display());
    let unfinished = made.with_extension("unfinished.flv");
    let gop = (GOP.as_secs() * 30).to_string();
    let encode = ["-c:v", "libx264", "-preset", "veryfast", "-profile:v", "high", "-bf", "0", "-sc_threshold", "0"];
    let rate = ["-b:v", "2500k", "-maxrate", "2500k", "-bufsize", "5000k", "-g", &gop, "-keyint_min", &gop];
    let (from, to) = (clip.to_string_lossy(), unfinished.to_string_lossy());
    let begin = ["-nostdin", "-v", "error", "-y", "-i", &from];
    output("ffmpeg", begin.iter().chain(&encode).chain(&rate).chain(&["-c:a", "copy", &to]))?;
    fs::rename(&unfinished, &made).with_context(|| format!("keep {}", made.display()))?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_a_stream_or_a_file_and_writes_what_can_be_known_again() {
        let ffmpeg = Program::Ffmpeg.of_stream(NOKEY);
        assert!(ffmpeg.contains(" -i {input} ") && ffmpeg.ends_with(" {shots}/$name-%03d.jpg"), "{ffmpeg}");
        let gstreamer = Program::Gstreamer.of_stream(GSTREAMER);
        assert!(gstreamer.contains(" rtmp2src location={input} ! "), "{gstreamer}");
        assert!(gstreamer.contains(" location={shots}/$name-%03d.jpg "), "{gstreamer}");

        let (clip, folder) = (Path::new("a folder/clip.flv"), Path::new("another one"));
        let ffmpeg = Program::Ffmpeg.of_file(NOKEY, clip, folder);
        assert!(ffmpeg.windows(2).any(|words| words == ["-i", "a folder/clip.flv"]), "{ffmpeg:?}");
        assert!(ffmpeg.ends_with(&["-c:v", "mjpeg", "-f", "framemd5", "-"].map(str::to_owned)), "{ffmpeg:?}");
        let gstreamer = Program::Gstreamer.of_file(GSTREAMER, clip, folder);
        for word in ["filesrc", "location=a folder/clip.flv", "location=another one/%05d.jpg"] {
            assert!(gstreamer.iter().any(|other| other == word), "{word} in {gstreamer:?}");
        }
    }

    #[test]
    fn a_recipe_and_what_makes_the_same_pictures_encode_alike() {
        for Recipe { label, program, line, same, .. } in RECIPES {
            let encoder = match program {
                Program::Ffmpeg => "-q:v 3 {write}",
                Program::Gstreamer => "jpegenc quality=85 ! multifilesink",
            };
            assert!(line.contains(encoder) && same.contains(encoder), "{label}");
            assert!(line.matches("{read}").count() == 1 && same.matches("{read}").count() == 1, "{label}");
        }
    }

    #[test]
    fn reads_the_sums_that_ffmpeg_prints() {
        let printed = "#format: frame checksums\n#stream#, dts, pts, duration, size, hash\n\
            0, 1, 1, 1, 126365, eacd9e48cd48eaa6012bb40e9e9c276e, S=1, 8, 7b0c23ca572b4b4c51f51a899d6a3b1b\n\
            0, 61, 61, 1, 3, 900150983cd24fb0d6963f7d28e17f72\n";
        assert_eq!(printed_sums(printed).unwrap(), [0xeacd_9e48_cd48_eaa6_012b_b40e_9e9c_276e, sum(b"abc")]);
        assert!(printed_sums("0, 1, 1, 1, 126365\n").is_err());
    }

    #[test]
    fn tells_pictures_of_each_stream_from_files_under_way() {
        let whole = Instant::now();
        let names = ["room_0-001.jpg", "room_1-000.jpg", "room_1-000.jpg.N4D9Y3", "room_0-1000.jpg", "room_7-001.jpg"];
        let files = names.map(|name| (Path::new("/shots").join(name), whole));
        let pictures = pictures(&files, 2);
        let names = |of_stream: usize| -> Vec<_> {
            pictures[of_stream].iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect()
        };
        assert_eq!(names(0), ["room_0-001.jpg", "room_0-1000.jpg"]);
        assert_eq!(names(1), ["room_1-000.jpg"]);
    }
}
