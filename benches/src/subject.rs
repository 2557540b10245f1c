//! The systems that are measured: each is started on free loopback ports, given K publishers, and ended with everything
//! that it started.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use framehook_testkit::metrics::Metrics;
use framehook_testkit::process::Process;
use framehook_testkit::server::Server;
use framehook_testkit::wait;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::group::Group;
use crate::packages::{self, NGINX_RTMP_MODULE, Need};
use crate::workshop::{Workshop, output};

/// One picture of each stream in this time, whoever makes it.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
/// One picture of each stream in this time, where many streams are to fit the machine.
pub(crate) const SPARSE_INTERVAL: Duration = Duration::from_secs(30);

const START_PATIENCE: Duration = Duration::from_secs(20);

/// What nginx-rtmp starts for each stream, with `{input}` and `{shots}` for what it relays and where pictures go, and its
/// own `$name` for the stream.
const PLAIN: &str = "ffmpeg -nostdin -v error -i {input} -vf fps=1/10 -q:v 3 {shots}/$name-%03d.jpg";
const TUNED: &str = "ffmpeg -nostdin -v error -threads 1 -skip_frame nokey -i {input} -an -vf fps=1/10 -threads 1 \
                     -q:v 3 {shots}/$name-%03d.jpg";
/// `avdec_h264` cannot be told to skip all but keyframes, so what lies between them is dropped before it is parsed. No
/// queue: one thread from the socket to the file costs the least. Without a sink of its own the sound would stop the demuxer.
const GSTREAMER: &str = "gst-launch-1.0 -q rtmp2src location={input} ! flvdemux name=demux \
                         demux.video ! identity drop-buffer-flags=delta-unit ! h264parse ! avdec_h264 max-threads=1 ! \
                         videorate ! video/x-raw,framerate=1/10 ! videoconvert ! jpegenc quality=85 ! \
                         multifilesink async=false location={shots}/$name-%03d.jpg \
                         demux.audio ! fakesink sync=false async=false";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    /// Receives and drops, and makes the same number of pictures on one thread.
    Floor,
    /// The server of this build with its workers.
    Framehook,
    /// nginx-rtmp and one ffmpeg per stream that decodes keyframes only, on one thread.
    Tuned,
    /// nginx-rtmp and one GStreamer pipeline per stream that decodes keyframes only, on one thread.
    Gstreamer,
    /// nginx-rtmp and one ffmpeg per stream as the usual recipe has it.
    Plain,
    /// The floor program without pictures: receives and drops.
    #[value(skip)]
    Sink,
    /// The server of this build, without a rule that wants pictures.
    #[value(skip)]
    Receiving,
    /// nginx-rtmp that starts nothing.
    #[value(skip)]
    Nginx,
    /// The floor program with a picture every [`SPARSE_INTERVAL`].
    #[value(skip)]
    SparseFloor,
    /// The server of this build, with a picture every [`SPARSE_INTERVAL`].
    #[value(skip)]
    Sparse,
}

impl Subject {
    /// Those that take a picture every [`INTERVAL`].
    pub(crate) const WITH_PICTURES: [Self; 5] =
        [Self::Floor, Self::Framehook, Self::Tuned, Self::Gstreamer, Self::Plain];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Floor | Self::SparseFloor => "floor program",
            Self::Framehook | Self::Sparse => "framehook serve",
            Self::Receiving => "framehook serve, no rule",
            Self::Sink => "plain sink",
            Self::Nginx => "nginx-rtmp",
            Self::Tuned => "nginx-rtmp + ffmpeg -skip_frame nokey",
            Self::Gstreamer => "nginx-rtmp + GStreamer, keyframes only",
            Self::Plain => "nginx-rtmp + ffmpeg fps=1/10",
        }
    }

    /// Between two pictures of a stream; `None` for who takes none.
    pub(crate) fn interval(self) -> Option<Duration> {
        match self {
            Self::Floor | Self::Framehook | Self::Tuned | Self::Gstreamer | Self::Plain => Some(INTERVAL),
            Self::SparseFloor | Self::Sparse => Some(SPARSE_INTERVAL),
            Self::Sink | Self::Receiving | Self::Nginx => None,
        }
    }

    /// Whether it starts a process for each stream, as people do.
    pub(crate) fn is_recipe(self) -> bool {
        matches!(self, Self::Tuned | Self::Gstreamer | Self::Plain)
    }

    /// More streams would not fit two cores, and a system that cannot keep up is not measured but strangled.
    pub(crate) fn streams_max(self) -> u32 {
        match self {
            Self::Tuned | Self::Gstreamer => 40,
            Self::Plain => 10,
            _ => u32::MAX,
        }
    }

    /// Recipes with a process for each stream cost five times the floor and more: three rounds tell that as well as five,
    /// and save a quarter of a run.
    pub(crate) fn rounds_max(self) -> u32 {
        if self.is_recipe() { 3 } else { u32::MAX }
    }

    fn needs(self) -> &'static [Need] {
        match self {
            Self::Floor | Self::Sink | Self::SparseFloor => {
                &[Need::Compiler, Need::PkgConfig, Need::Libavcodec, Need::Libswscale, Need::LibjpegTurbo]
            }
            Self::Framehook | Self::Receiving | Self::Sparse => &[],
            Self::Tuned | Self::Plain => &[Need::Ffmpeg, Need::Nginx, Need::NginxRtmp],
            Self::Gstreamer => &[
                Need::Gstreamer,
                Need::GstreamerBase,
                Need::GstreamerGood,
                Need::GstreamerBad,
                Need::GstreamerLibav,
                Need::Nginx,
                Need::NginxRtmp,
            ],
            Self::Nginx => &[Need::Nginx, Need::NginxRtmp],
        }
    }

    /// Builds it, or makes sure that it has been built.
    fn prepare(self, workshop: &Workshop) -> Result<()> {
        match self {
            Self::Floor | Self::Sink | Self::SparseFloor => build_floor(workshop),
            Self::Framehook | Self::Receiving | Self::Sparse => framehook_executable(workshop).map(drop),
            Self::Tuned | Self::Gstreamer | Self::Plain | Self::Nginx => Ok(()),
        }
    }

    /// Starts it and waits until it accepts publishers.
    pub(crate) fn start(self, workshop: &Workshop, clip: &Path, streams: u32) -> Result<Running> {
        let group = Group::new("subject");
        match self {
            Self::Floor | Self::Sink | Self::SparseFloor => floor(group, workshop, clip, streams, self.interval()),
            Self::Framehook | Self::Receiving | Self::Sparse => framehook(group, workshop, self.interval()),
            Self::Tuned => nginx(group, Some(TUNED)),
            Self::Gstreamer => nginx(group, Some(GSTREAMER)),
            Self::Plain => nginx(group, Some(PLAIN)),
            Self::Nginx => nginx(group, None),
        }
        .with_context(|| format!("start {}", self.label()))
    }
}

/// Makes sure that everything is there before the first measurement.
pub(crate) fn prepare(workshop: &Workshop, subjects: &[Subject]) -> Result<()> {
    let needs: Vec<Need> = subjects.iter().flat_map(|subject| subject.needs()).copied().collect();
    packages::require(&needs)?;
    subjects.iter().try_for_each(|subject| subject.prepare(workshop))
}

/// A system that accepts publishers. Dropping it ends everything it has started.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) rtmp: SocketAddr,
    // Before the group, which can go only when its last process has been waited for.
    program: Program,
    pub(crate) group: Group,
}

#[derive(Debug)]
enum Program {
    Floor(Process),
    Framehook(Box<Server>),
    Nginx { process: Process, folder: TempDir },
}

/// What the floor program prints for one picture.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(crate) struct FloorPicture {
    pub(crate) decode_us: u64,
    pub(crate) convert_us: u64,
    pub(crate) encode_us: u64,
}

impl Running {
    pub(crate) fn root(&self) -> &Process {
        match &self.program {
            Program::Floor(process) | Program::Nginx { process, .. } => process,
            Program::Framehook(server) => server.process(),
        }
    }

    /// Proportional set size of all its processes now.
    pub(crate) fn memory_bytes(&self) -> Result<u64> {
        self.group.memory_bytes(self.root())
    }

    /// How many pictures there are by now.
    pub(crate) fn pictures(&self) -> Result<usize> {
        match &self.program {
            Program::Floor(process) => Ok(floor_pictures(&process.stdout()).len()),
            Program::Framehook(server) => Ok(jpegs(&objects(server))?.len()),
            Program::Nginx { folder, .. } => Ok(jpegs(&shots(folder))?.len()),
        }
    }

    /// Where nginx-rtmp's command writes pictures.
    pub(crate) fn shots(&self) -> Result<PathBuf> {
        match &self.program {
            Program::Nginx { folder, .. } => Ok(shots(folder)),
            _ => bail!("only nginx-rtmp has such a folder"),
        }
    }

    /// Framehook's metrics page.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        match &self.program {
            Program::Framehook(server) => server.metrics(),
            _ => bail!("only Framehook has such a page"),
        }
    }

    /// Framehook's stored pictures: the stream of each and when its bytes were written.
    pub(crate) fn stored(&self) -> Result<Vec<(String, SystemTime)>> {
        let Program::Framehook(server) = &self.program else { bail!("only Framehook's pictures are known by stream") };
        let stored = jpegs(&objects(server))?.into_iter().map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let (stream, _) = name.split_once("-screenshot-").with_context(|| format!("whose picture is {name}?"))?;
            // Putting an object into the local store links the file, which keeps its time.
            Ok((stream.to_owned(), fs::metadata(&path)?.modified()?))
        });
        stored.collect()
    }

    /// Framehook's pushes, those that wait for their publisher to return included: the stream of each and its sequence.
    pub(crate) fn pushes(&self) -> Result<BTreeMap<String, String>> {
        #[derive(Deserialize)]
        struct Listed {
            streams: Vec<Push>,
            next_cursor: Option<String>,
        }
        #[derive(Deserialize)]
        struct Push {
            name: String,
            sequence: String,
        }
        let Program::Framehook(server) = &self.program else { bail!("only Framehook has pushes") };
        let (mut pushes, mut cursor) = (BTreeMap::new(), String::new());
        loop {
            let page = server.v1("GET", &format!("/v1/streams?limit=1000{cursor}"), None)?;
            let Listed { streams, next_cursor } = serde_json::from_value(page).context("read the list of streams")?;
            pushes.extend(streams.into_iter().map(|push| (push.name, push.sequence)));
            let Some(next) = next_cursor else { return Ok(pushes) };
            cursor = format!("&cursor={next}");
        }
    }

    /// What Framehook says about dues that got no picture, since its start: its counters that are not zero. Empty for
    /// others.
    pub(crate) fn skipped(&self) -> Result<Vec<String>> {
        match &self.program {
            Program::Framehook(server) => Ok(skipped(&server.get("/metrics")?.text())),
            _ => Ok(Vec::new()),
        }
    }

    /// What each of the floor's pictures cost; empty for others.
    pub(crate) fn floor_pictures(&self) -> Vec<FloorPicture> {
        match &self.program {
            Program::Floor(process) => floor_pictures(&process.stdout()),
            _ => Vec::new(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.group.kill(self.root()) {
            eprintln!("{error:#}");
        }
    }
}

pub(crate) fn floor_program(workshop: &Workshop) -> PathBuf {
    workshop.cache.join("floor")
}

fn build_floor(workshop: &Workshop) -> Result<()> {
    let sources = workshop.repository.join("benches/floor");
    let program = floor_program(workshop);
    let libraries = output("pkg-config", ["--cflags", "--libs", "libavcodec", "libavutil", "libswscale", "libjpeg"])?;
    let flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-o"];
    let files = ["floor.c", "sink.c", "picture.c"].map(|file| sources.join(file).into_os_string());
    let arguments = flags.into_iter().map(Into::into).chain([program.into_os_string()]).chain(files);
    output("cc", arguments.chain(libraries.split_whitespace().chain(["-lm", "-lpthread"]).map(Into::into)))?;
    Ok(())
}

fn floor(group: Group, workshop: &Workshop, clip: &Path, streams: u32, interval: Option<Duration>) -> Result<Running> {
    #[derive(Deserialize)]
    struct Hello {
        port: u16,
    }
    let mut command = Command::new(floor_program(workshop));
    command.arg(clip).arg(streams.to_string()).arg(interval.unwrap_or_default().as_millis().to_string());
    let process = group.enter(|| Process::spawn("floor", &mut command))?;
    let hello: Hello = wait::until("the floor program's port", START_PATIENCE, || {
        process.stdout().lines().next().and_then(|line| serde_json::from_str(line).ok())
    })
    .with_context(|| process.stderr_tail())?;
    Ok(Running { rtmp: (Ipv4Addr::LOCALHOST, hello.port).into(), group, program: Program::Floor(process) })
}

/// The server; `framehook-render` lies beside it.
pub(crate) fn framehook_executable(workshop: &Workshop) -> Result<PathBuf> {
    workshop.executable("framehook", "cargo build --release")
}

/// Everything is declared, as an installation would: with an empty file a built-in rule would take pictures. All
/// publishers come from one address.
pub(crate) fn framehook_config(interval: Option<Duration>) -> String {
    let mut config = r#"
[ingest]
connections_max = 8192
connections_per_address_max = 8192

[[domain]]
name = "127.0.0.1"
auth = "off"
"#
    .to_owned();
    if let Some(interval) = interval {
        config += &format!(
            r#"
[[snapshot_template]]
name = "bench"
snapshot_interval = "{}s"

[[snapshot_rule]]
domain = "127.0.0.1"
template = "bench"
"#,
            interval.as_secs()
        );
    }
    config
}

/// The server with a picture of each stream every `interval`, or without pictures.
pub(crate) fn framehook(group: Group, workshop: &Workshop, interval: Option<Duration>) -> Result<Running> {
    let spec = workshop.server()?.config(framehook_config(interval));
    let server = group.enter(|| spec.start())?;
    Ok(Running { rtmp: server.rtmp_address(), group, program: Program::Framehook(Box::new(server)) })
}

/// nginx-rtmp that starts a command of one's own, with the places that [`PLAIN`] has. Its files stay until all has been
/// measured, as those of a server do.
pub(crate) fn nginx_with(workshop: &Workshop, recipe: &str) -> Result<Running> {
    let mut folder = TempDir::with_prefix_in("nginx-", workshop.runs()).context("make a folder for nginx")?;
    folder.disable_cleanup(true);
    nginx_in(folder, Group::new("subject"), Some(recipe))
}

fn nginx(group: Group, recipe: Option<&str>) -> Result<Running> {
    nginx_in(TempDir::with_prefix("framehook-bench-").context("make a folder for nginx")?, group, recipe)
}

fn nginx_in(folder: TempDir, group: Group, recipe: Option<&str>) -> Result<Running> {
    fs::create_dir(shots(&folder))?;
    // nginx does not say which port it got, so one is found for it. Somebody else may take it in between; then the
    // start fails and says so.
    let rtmp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let config = folder.path().join("nginx.conf");
    fs::write(&config, nginx_config(folder.path(), rtmp, recipe))?;
    let mut command = Command::new("nginx");
    command.arg("-e").arg("stderr").arg("-p").arg(folder.path()).arg("-c").arg(&config);
    let process = group.enter(|| Process::spawn("nginx", &mut command))?;
    wait::until("nginx-rtmp to accept", START_PATIENCE, || TcpStream::connect(rtmp).ok())
        .with_context(|| process.stderr_tail())?;
    Ok(Running { rtmp, group, program: Program::Nginx { process, folder } })
}

/// `recipe` is a command line with the places that [`PLAIN`] has. Without one nothing is started.
fn nginx_config(folder: &Path, rtmp: SocketAddr, recipe: Option<&str>) -> String {
    let shots = folder.join("shots");
    let exec = recipe.map_or_else(String::new, |recipe| {
        let recipe = recipe.replace("{input}", &format!("rtmp://{rtmp}/live/$name"));
        let recipe = recipe.replace("{shots}", &shots.display().to_string());
        format!("exec_push {recipe};")
    });
    let folder = folder.display();
    // As root, nginx gives its workers to another user, who could not write the pictures.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "load_module {NGINX_RTMP_MODULE};\n\
         {user}\n\
         worker_processes 1;\n\
         daemon off;\n\
         pid {folder}/nginx.pid;\n\
         error_log stderr error;\n\
         events {{ worker_connections 4096; }}\n\
         rtmp {{\n\
           access_log off;\n\
           server {{\n\
             listen {rtmp};\n\
             chunk_size 4096;\n\
             max_message 4M;\n\
             application live {{\n\
               live on;\n\
               {exec}\n\
             }}\n\
           }}\n\
         }}\n"
    )
}

fn objects(server: &Server) -> PathBuf {
    server.data_dir().join("objects")
}

fn shots(folder: &TempDir) -> PathBuf {
    folder.path().join("shots")
}

/// Every picture in the folder and below.
fn jpegs(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // A local store makes its folders with the first picture.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(jpegs(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "jpg") {
            found.push(path);
        }
    }
    Ok(found)
}

fn skipped(metrics: &str) -> Vec<String> {
    let counters = metrics.lines().filter(|line| line.starts_with("framehook_skipped_total{") && !line.ends_with(" 0"));
    counters.map(str::to_owned).collect()
}

/// One for each whole line that is a picture.
pub(crate) fn floor_pictures(printed: &str) -> Vec<FloorPicture> {
    printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_floor_prints_and_leaves_out_a_line_cut_off() {
        let printed = "{\"port\":4711}\n\
            {\"decode_us\":12000,\"convert_us\":2000,\"encode_us\":2500,\"bytes\":150000}\n\
            {\"decode_us\":11000,\"conv";
        let first = FloorPicture { decode_us: 12_000, convert_us: 2_000, encode_us: 2_500 };
        assert_eq!(floor_pictures(printed), [first]);
    }

    #[test]
    fn tells_reasons_for_skipped_dues_from_other_counters() {
        let page = "framehook_due_total 9\nframehook_skipped_total{reason=\"corrupt\"} 0\n\
            framehook_skipped_total{reason=\"renderer_busy\"} 4\n";
        assert_eq!(skipped(page), ["framehook_skipped_total{reason=\"renderer_busy\"} 4"]);
    }

    #[test]
    fn counts_pictures_in_folders_below() {
        let folder = TempDir::new().unwrap();
        assert!(jpegs(&folder.path().join("objects")).unwrap().is_empty());
        fs::create_dir_all(folder.path().join("objects/bucket/day")).unwrap();
        for file in ["objects/a.jpg", "objects/bucket/day/b.jpg", "objects/bucket/c.jpg.part"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        assert_eq!(jpegs(&folder.path().join("objects")).unwrap().len(), 2);
    }

    #[test]
    fn nginx_runs_the_recipe_for_each_stream() {
        let config = nginx_config(
            Path::new("/tmp/x"),
            "127.0.0.1:1935".parse().unwrap(),
            Some("take {input} {shots}/$name.jpg"),
        );
        let expected = "exec_push take rtmp://127.0.0.1:1935/live/$name /tmp/x/shots/$name.jpg;";
        assert!(config.contains(expected), "{config}");
        let bare = nginx_config(Path::new("/tmp/x"), "127.0.0.1:1935".parse().unwrap(), None);
        assert!(!bare.contains("exec"), "{bare}");
    }
}
