//! The systems that are measured: each is started on free loopback ports, given K publishers, and ended with everything
//! that it started.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use framehook_testkit::process::Process;
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::wait;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::group::Group;
use crate::packages::{NGINX_RTMP_MODULE, Need};
use crate::workshop::{Workshop, output};

/// One picture of each stream in this time, whoever makes it.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

const START_PATIENCE: Duration = Duration::from_secs(20);

/// Everything is declared, as an installation would: with an empty file a built-in rule would do the same.
const FRAMEHOOK_CONFIG: &str = r#"
[[domain]]
name = "127.0.0.1"
auth = "off"

[[snapshot_template]]
name = "bench"
snapshot_interval = "10s"

[[snapshot_rule]]
domain = "127.0.0.1"
template = "bench"
"#;

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
    /// nginx-rtmp and one ffmpeg per stream as the usual recipe has it.
    Plain,
}

impl Subject {
    pub(crate) const ALL: [Self; 4] = [Self::Floor, Self::Framehook, Self::Tuned, Self::Plain];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Floor => "floor program",
            Self::Framehook => "framehook serve",
            Self::Tuned => "nginx-rtmp + ffmpeg -skip_frame nokey",
            Self::Plain => "nginx-rtmp + ffmpeg fps=1/10",
        }
    }

    /// More streams would not fit two cores, and a system that cannot keep up is not measured but strangled.
    pub(crate) fn streams_max(self) -> u32 {
        match self {
            Self::Floor | Self::Framehook => u32::MAX,
            Self::Tuned => 40,
            Self::Plain => 10,
        }
    }

    pub(crate) fn needs(self) -> &'static [Need] {
        match self {
            Self::Floor => &[Need::Compiler, Need::PkgConfig, Need::Libavcodec, Need::Libswscale, Need::LibjpegTurbo],
            Self::Framehook => &[],
            Self::Tuned | Self::Plain => &[Need::Nginx, Need::NginxRtmp],
        }
    }

    /// Builds it, or makes sure that it has been built.
    pub(crate) fn prepare(self, workshop: &Workshop) -> Result<()> {
        match self {
            Self::Floor => build_floor(workshop),
            Self::Framehook => framehook_executable(workshop).map(drop),
            Self::Tuned | Self::Plain => Ok(()),
        }
    }

    /// Starts it and waits until it accepts publishers.
    pub(crate) fn start(self, workshop: &Workshop, clip: &Path, streams: u32) -> Result<Running> {
        let group = Group::new("subject");
        match self {
            Self::Floor => floor(group, workshop, clip, streams),
            Self::Framehook => framehook(group, workshop),
            Self::Tuned => nginx(
                group,
                "-threads 1 -skip_frame nokey -i {input} -an -vf fps=1/10 -threads 1 -q:v 3 {shots}/$name-%03d.jpg",
            ),
            Self::Plain => nginx(group, "-i {input} -vf fps=1/10 -q:v 3 {shots}/$name-%03d.jpg"),
        }
        .with_context(|| format!("start {}", self.label()))
    }
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

    /// How many pictures there are by now.
    pub(crate) fn pictures(&self) -> Result<usize> {
        match &self.program {
            Program::Floor(process) => Ok(floor_pictures(&process.stdout()).len()),
            Program::Framehook(server) => count_jpegs(&server.data_dir().join("objects")),
            Program::Nginx { folder, .. } => count_jpegs(&shots(folder)),
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

fn floor_program(workshop: &Workshop) -> PathBuf {
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

fn floor(group: Group, workshop: &Workshop, clip: &Path, streams: u32) -> Result<Running> {
    #[derive(Deserialize)]
    struct Hello {
        port: u16,
    }
    let mut command = Command::new(floor_program(workshop));
    command.arg(clip).arg(streams.to_string()).arg(INTERVAL.as_millis().to_string());
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

fn framehook(group: Group, workshop: &Workshop) -> Result<Running> {
    let executable = framehook_executable(workshop)?;
    let server = group.enter(|| ServerSpec::new(executable).config(FRAMEHOOK_CONFIG).start())?;
    Ok(Running { rtmp: server.rtmp_address(), group, program: Program::Framehook(Box::new(server)) })
}

fn nginx(group: Group, recipe: &str) -> Result<Running> {
    let folder = TempDir::with_prefix("framehook-bench-").context("make a folder for nginx")?;
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

/// `recipe` is ffmpeg's arguments, with `{input}` and `{shots}` for what nginx relays and where pictures go.
fn nginx_config(folder: &Path, rtmp: SocketAddr, recipe: &str) -> String {
    let shots = folder.join("shots");
    let recipe = recipe.replace("{input}", &format!("rtmp://{rtmp}/live/$name"));
    let recipe = recipe.replace("{shots}", &shots.display().to_string());
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
               exec_push ffmpeg -nostdin -v error {recipe};\n\
             }}\n\
           }}\n\
         }}\n"
    )
}

fn shots(folder: &TempDir) -> PathBuf {
    folder.path().join("shots")
}

fn count_jpegs(folder: &Path) -> Result<usize> {
    let mut count = 0;
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // A local store makes its folders with the first picture.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            count += count_jpegs(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "jpg") {
            count += 1;
        }
    }
    Ok(count)
}

fn skipped(metrics: &str) -> Vec<String> {
    let counters = metrics.lines().filter(|line| line.starts_with("framehook_skipped_total{") && !line.ends_with(" 0"));
    counters.map(str::to_owned).collect()
}

fn floor_pictures(printed: &str) -> Vec<FloorPicture> {
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
        assert_eq!(count_jpegs(&folder.path().join("objects")).unwrap(), 0);
        fs::create_dir_all(folder.path().join("objects/bucket/day")).unwrap();
        for file in ["objects/a.jpg", "objects/bucket/day/b.jpg", "objects/bucket/c.jpg.part"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        assert_eq!(count_jpegs(&folder.path().join("objects")).unwrap(), 2);
    }

    #[test]
    fn nginx_runs_the_recipe_for_each_stream() {
        let config =
            nginx_config(Path::new("/tmp/x"), "127.0.0.1:1935".parse().unwrap(), "-i {input} {shots}/$name.jpg");
        let expected = "exec_push ffmpeg -nostdin -v error -i rtmp://127.0.0.1:1935/live/$name /tmp/x/shots/$name.jpg;";
        assert!(config.contains(expected), "{config}");
    }
}
