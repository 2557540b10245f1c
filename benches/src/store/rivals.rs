//! What people put pictures with otherwise: a loop with the vendor's SDK, and `rclone` from a shell.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use framehook_testkit::process::Process;
use serde::Deserialize;

use super::{AT_A_TIME, BUCKET, Pace, Place};
use crate::workshop::Workshop;

/// Longest time for all puts of one run.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the puts took, and who made them.
#[derive(Debug, Deserialize)]
pub(super) struct Rival {
    cpu_secs: f64,
    pub(super) name: String,
}

impl Rival {
    pub(super) fn cpu(&self) -> Duration {
        Duration::from_secs_f64(self.cpu_secs)
    }
}

/// boto3 or Tencent's SDK, in one process that lives for all puts. It counts its own CPU time, from after the first put: what
/// loading an SDK takes belongs to none.
pub(super) fn sdk(
    workshop: &Workshop,
    place: Place,
    store: SocketAddr,
    picture: &Path,
    puts: (usize, Pace),
) -> Result<Rival> {
    let (puts, pace) = puts;
    let per_sec = match pace {
        Pace::PerSec(per_sec) => per_sec,
        Pace::AtOnce => 0,
    };
    let mut command = Command::new(workshop.python()?);
    command.arg(workshop.repository.join("benches/store/put.py")).arg(place.store());
    command.arg(store.port().to_string()).arg(BUCKET).arg(picture);
    command.args([puts, per_sec as usize, AT_A_TIME].map(|number| number.to_string()));
    let printed = run("the SDK", &mut command)?;
    serde_json::from_str(&printed).with_context(|| format!("read {printed:?}"))
}

/// One `rclone` for each picture as a script would start it, or one for a folder of them. CPU time is the shell's and that of
/// what it started.
pub(super) fn rclone(store: SocketAddr, folder: &Path, puts: (usize, Pace)) -> Result<Rival> {
    const ONE_BY_ONE: &str = r#"
        for ((number = 0; number < $1; number++)); do
            rclone copyto "$2/0.jpg" "store:$3/${EPOCHREALTIME/./}-$number.jpg"
        done
        times"#;
    const FOLDER: &str = r#"rclone copy "$2" "store:$3" --transfers "$4"; times"#;
    let (puts, pace) = puts;
    let script = match pace {
        Pace::PerSec(_) => ONE_BY_ONE,
        Pace::AtOnce => FOLDER,
    };
    let mut command = Command::new("bash");
    command.args(["-euc", script, "bash", &puts.to_string()]).arg(folder).args([BUCKET, &AT_A_TIME.to_string()]);
    // The decimal point of EPOCHREALTIME is the locale's.
    command.env("LC_ALL", "C").env("RCLONE_CONFIG", "/dev/null");
    // It would believe nobody but whom this names, and with its own connections it does not start at all.
    command.env_remove("AWS_CA_BUNDLE");
    let endpoint = format!("http://{store}");
    let settings: [(&str, &str); 7] = [
        ("TYPE", "s3"),
        ("PROVIDER", "Other"),
        ("ACCESS_KEY_ID", "AKIDofTheBenchmark"),
        ("SECRET_ACCESS_KEY", "keyOfTheBenchmark"),
        ("REGION", "us-east-1"),
        ("ENDPOINT", &endpoint),
        // It need not look whether the bucket is there, which nobody else does.
        ("NO_CHECK_BUCKET", "true"),
    ];
    command.envs(settings.map(|(name, value)| (format!("RCLONE_CONFIG_STORE_{name}"), value.to_owned())));
    let printed = run("rclone", &mut command)?;
    let cpu_secs = cpu_secs(&printed).with_context(|| format!("read {printed:?}"))?;
    Ok(Rival { cpu_secs, name: "rclone".to_owned() })
}

fn run(name: &str, command: &mut Command) -> Result<String> {
    let mut process = Process::spawn(name, command)?;
    let status = process.wait(PATIENCE)?;
    ensure!(status.success(), "{name} ended with {status}: {}", process.stderr_tail());
    Ok(process.stdout())
}

/// The sum of what bash's `times` prints: user and system time of the shell, then of its children, such as `0m1.234s`.
fn cpu_secs(printed: &str) -> Option<f64> {
    let secs = |time: &str| -> Option<f64> {
        let (minutes, secs) = time.strip_suffix('s')?.split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + secs.parse::<f64>().ok()?)
    };
    let times: Vec<f64> = printed.split_whitespace().map(secs).collect::<Option<_>>()?;
    (times.len() == 4).then(|| times.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_what_the_shell_and_its_children_took() {
        assert_eq!(cpu_secs("0m0.004s 0m0.002s\n1m1.500s 0m0.250s\n"), Some(61.756));
        assert_eq!(cpu_secs("0m0.004s 0m0.002s\n"), None);
        assert_eq!(cpu_secs("nothing of it\n"), None);
    }
}
