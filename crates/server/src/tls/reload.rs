//! The certificate that is shown now, and the next one when its files change.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use framehook_domain::time::UnixMs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use super::certificate::{Certificate, CertificateError, CertificateFiles};
use crate::telemetry::Telemetry;
use crate::telemetry::event::{CertificateRead, Chain};

/// How often the files are looked at. Certificates change once in weeks, and whoever cannot wait sends a SIGHUP.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The certificate of both listeners.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: CertificateFiles,
    /// The files as they were before they were first read.
    opened: Stamp,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    current: Certificate,
    /// Why the files that are there now are not in use.
    problem: Option<String>,
}

/// What tells that a file was changed, replaced, or made readable: device, inode, size and the time of the last change of any
/// of it, also of its mode. `None`: it cannot be looked at.
type Stamp = [Option<(u64, u64, u64, i64, i64)>; 2];

impl Certificates {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub(crate) fn open(files: CertificateFiles) -> Result<Self, CertificateError> {
        let opened = stamp(&files);
        let current = Certificate::load(&files)?;
        Ok(Self { files, opened, state: RwLock::new(State { current, problem: None }) })
    }

    /// Whole days until the certificate in use ends.
    pub(crate) fn days_left(&self, now: UnixMs) -> Option<i64> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).current.days_left(now)
    }

    /// Why the files that are there now are not in use, if they are not.
    pub(crate) fn problem(&self) -> Option<String> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).problem.clone()
    }

    /// Reads the files again. A pair that cannot be used changes nothing, and is told once. Connections that are there go on
    /// with what they began with.
    pub(crate) fn reload(&self, telemetry: &Telemetry) {
        let read = Certificate::load(&self.files);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(certificate) => {
                let is_new = certificate.key.cert != state.current.key.cert;
                if is_new || state.problem.is_some() {
                    CertificateRead::Applied { not_after: certificate.not_after }.emit(telemetry);
                }
                *state = State { current: certificate, problem: None };
            }
            Err(error) => {
                let problem = Chain(&error).to_string();
                if state.problem.as_ref() != Some(&problem) {
                    CertificateRead::Refused(&error).emit(telemetry);
                }
                state.problem = Some(problem);
            }
        }
    }

    /// Reads the files again whenever they have changed, until `token` ends it.
    pub(crate) async fn watch(self: Arc<Self>, telemetry: Arc<Telemetry>, token: CancellationToken) {
        let mut read = self.opened;
        let mut before = read;
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let (now, certificates, telemetry) = (stamp(&self.files), Arc::clone(&self), Arc::clone(&telemetry));
            // Two files are never replaced in the same instant: what still changes is left alone until the next look.
            if now != read && now == before {
                let reading = tokio::task::spawn_blocking(move || certificates.reload(&telemetry));
                if reading.await.is_err() {
                    tracing::error!("reading the certificate panicked");
                }
                read = now;
            }
            before = now;
        }
    }
}

fn stamp(files: &CertificateFiles) -> Stamp {
    let of = |path: &Path| {
        let file = fs::metadata(path).ok()?;
        Some((file.dev(), file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
    };
    [of(&files.cert), of(&files.key)]
}

impl ResolvesServerCert for Certificates {
    /// One certificate, whatever name is asked for: publishers that connect by address ask for none.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).current.key))
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::tests::write_pair;
    use super::*;
    use crate::clock::Clock;

    #[tokio::test(start_paused = true)]
    async fn a_new_pair_is_taken_and_a_bad_one_is_told_and_left() {
        let dir = tempfile::tempdir().unwrap();
        let files = write_pair(dir.path(), 2040);
        let certificates = Arc::new(Certificates::open(files.clone()).unwrap());
        let token = CancellationToken::new();
        let watch = Arc::clone(&certificates).watch(Telemetry::new(Clock::start()), token.clone());
        tokio::pin!(watch);
        let first = certificates.days_left(UnixMs(0));

        // Time only moves while the watch waits, so each of these is some looks of it.
        let look = Duration::from_secs(60);
        assert!(tokio::time::timeout(look, &mut watch).await.is_err());
        fs::write(&files.key, "half a ke").unwrap();
        assert!(tokio::time::timeout(look, &mut watch).await.is_err());
        assert!(certificates.problem().unwrap().contains("no private key"), "{:?}", certificates.problem());
        assert_eq!(certificates.days_left(UnixMs(0)), first, "the old one stays");

        write_pair(dir.path(), 2041);
        assert!(tokio::time::timeout(look, &mut watch).await.is_err());
        assert_eq!(certificates.problem(), None);
        assert_eq!(certificates.days_left(UnixMs(0)), first.map(|days| days + 366));
        token.cancel();
        watch.await;
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_still_change_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let files = write_pair(dir.path(), 2040);
        let certificates = Arc::new(Certificates::open(files.clone()).unwrap());
        let token = CancellationToken::new();
        let watch = Arc::clone(&certificates).watch(Telemetry::new(Clock::start()), token.clone());
        tokio::pin!(watch);
        // Between two looks each time.
        let half_a_look = LOOK_EVERY / 2;
        assert!(tokio::time::timeout(half_a_look, &mut watch).await.is_err());
        for written in ["half", "half a", "half a key"] {
            fs::write(&files.key, written).unwrap();
            assert!(tokio::time::timeout(LOOK_EVERY, &mut watch).await.is_err());
            assert_eq!(certificates.problem(), None, "{written:?}");
        }
        assert!(tokio::time::timeout(LOOK_EVERY, &mut watch).await.is_err());
        assert!(certificates.problem().is_some(), "it has stayed as it is from one look to the next");
        token.cancel();
        watch.await;
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_were_mended_without_another_size_or_time_are_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let files = write_pair(dir.path(), 2040);
        let certificates = Arc::new(Certificates::open(files.clone()).unwrap());
        let good = fs::read(&files.key).unwrap();
        // Before the watch begins, as a tool may that renews while the server starts.
        fs::write(&files.key, vec![b'x'; good.len()]).unwrap();
        let modified = fs::metadata(&files.key).unwrap().modified().unwrap();
        let token = CancellationToken::new();
        let watch = Arc::clone(&certificates).watch(Telemetry::new(Clock::start()), token.clone());
        tokio::pin!(watch);
        let look = Duration::from_secs(60);
        assert!(tokio::time::timeout(look, &mut watch).await.is_err());
        assert!(certificates.problem().is_some());

        fs::write(&files.key, good).unwrap();
        let key = fs::File::options().write(true).open(&files.key).unwrap();
        key.set_modified(modified).unwrap();
        assert!(tokio::time::timeout(look, &mut watch).await.is_err());
        assert_eq!(certificates.problem(), None);
        token.cancel();
        watch.await;
    }
}
