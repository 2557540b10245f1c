//! What happens, one struct each: `emit` writes the log line, moves the counter and tells whoever listens.
//!
//! The fields are the names that a search in the logs uses: `trace` follows a picture from its pick to its callback,
//! `snapshot`, `delivery` and `sequence` are the ids of `/v1`. No field ever holds a key, a password or a push URL's query.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use framehook_domain::fault::Fault;
use framehook_domain::id::{DeliveryId, PushSequence, SnapshotId, TemplateId};
use framehook_domain::refusal::{PushEnd, Refusal};
use framehook_domain::stream::StreamId;
use framehook_domain::time::UnixMs;
use framehook_rtmp::Phase;

use super::Telemetry;
use super::happening::{self, Happening};
use crate::config::{ConfigError, Problem};
use crate::db::outbox::EndpointId;
use crate::render::RenderError;
use crate::tls::CertificateError;

/// Writes a line whose level is known only at run time.
macro_rules! line_by_fault {
    ($fault:expr, $($line:tt)*) => {
        match $fault {
            Fault::Peer => tracing::info!($($line)*),
            Fault::Dependency => tracing::warn!($($line)*),
            Fault::Ours => tracing::error!($($line)*),
        }
    };
}

/// Milliseconds for a log field.
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A publisher was turned away before it became a push.
#[derive(Debug)]
pub struct PublishRefused<'a> {
    /// The encoder's address.
    pub peer: SocketAddr,
    /// What [`tried`](framehook_domain::stream::tried) tells of the push URL. It is escaped.
    pub tried: &'a str,
    /// Why, as the encoder was told.
    pub refusal: Refusal,
}

impl PublishRefused<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.refused(self.refusal);
        let Self { peer, tried, refusal } = self;
        let (code, reason) = (refusal.code(), refusal.name());
        if let Some(left_out) = telemetry.admit_peer(peer.ip(), reason) {
            tracing::info!(%peer, tried = ?tried, %code, reason, left_out, "publish refused");
        }
        telemetry.tell(None, || Happening::PublishRefused {
            peer: peer.ip(),
            tried: (*tried).to_owned(),
            code: code.to_string(),
            reason,
        });
    }
}

/// A connection was closed before its first byte: there are too many, in all or from its address.
#[derive(Debug)]
pub struct ConnectionRefused {
    /// Who connected.
    pub peer: SocketAddr,
}

impl ConnectionRefused {
    /// Logs it.
    pub fn emit(&self, telemetry: &Telemetry) {
        let Self { peer } = self;
        if let Some(left_out) = telemetry.admit_peer(peer.ip(), "too_many_connections") {
            tracing::warn!(%peer, left_out, "connection refused: too many connections");
        }
    }
}

/// A connection was cut off for what it sent, or for what it did not send in time.
#[derive(Debug)]
pub struct CutOff<'a> {
    /// Who sent it.
    pub peer: SocketAddr,
    /// How far the session had come.
    pub phase: Phase,
    /// Why, by a name from a fixed set.
    pub reason: &'static str,
    /// Why, in words.
    pub error: Option<&'a (dyn std::error::Error + 'static)>,
}

impl CutOff<'_> {
    /// Logs it.
    pub fn emit(&self, telemetry: &Telemetry) {
        let Self { peer, phase, reason, error } = self;
        if let Some(left_out) = telemetry.admit_peer(peer.ip(), reason) {
            let error = error.map(|error| tracing::field::display(Chain(error)));
            tracing::info!(%peer, ?phase, reason, error, left_out, "connection cut off");
        }
    }
}

/// Why a connection that should be private is not.
#[derive(Debug)]
pub enum HandshakeFault {
    /// It closed before it said anything, as whoever only looks whether somebody listens does.
    Closed,
    /// Its first byte is not TLS.
    Plaintext,
    TimedOut,
    /// What the peer sent, or what it did not like.
    Failed(io::Error),
}

impl HandshakeFault {
    /// Every name, for a page that shows them from the start.
    pub const NAMES: [&str; 4] = ["closed", "plaintext", "timed_out", "failed"];

    fn name(&self) -> &'static str {
        match self {
            Self::Closed => Self::NAMES[0],
            Self::Plaintext => Self::NAMES[1],
            Self::TimedOut => Self::NAMES[2],
            Self::Failed(_) => Self::NAMES[3],
        }
    }
}

/// A connection did not become private, and was closed.
#[derive(Debug)]
pub struct HandshakeFailed<'a> {
    /// Who connected.
    pub peer: SocketAddr,
    /// `https` or `rtmps`.
    pub listener: &'static str,
    /// Why.
    pub fault: &'a HandshakeFault,
}

impl HandshakeFailed<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        let Self { peer, listener, fault } = self;
        let reason = fault.name();
        telemetry.metrics.handshake_ended(reason);
        if matches!(fault, HandshakeFault::Closed) {
            tracing::debug!(%peer, listener, reason, "connection closed before its TLS handshake");
        } else if let Some(left_out) = telemetry.admit_peer(peer.ip(), reason) {
            let error = if let HandshakeFault::Failed(error) = fault { Some(error.to_string()) } else { None };
            tracing::info!(%peer, listener, reason, error, left_out, "no TLS handshake; connection closed");
        }
    }
}

/// The certificate's files were read again.
#[derive(Debug)]
pub enum CertificateRead<'a> {
    /// It is shown from now on.
    Applied {
        /// When it ends, if that can be told.
        not_after: Option<UnixMs>,
    },
    /// It cannot be used, so the one before it goes on being shown.
    Refused(&'a CertificateError),
}

impl CertificateRead<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        let outcome = if matches!(self, Self::Applied { .. }) { "applied" } else { "refused" };
        telemetry.metrics.certificate_read(outcome);
        telemetry.tell(None, || Happening::CertificateReloaded { outcome });
        match self {
            Self::Applied { not_after } => {
                let not_after_ms = not_after.map(|at| at.0);
                tracing::info!(not_after_ms, "certificate reloaded");
            }
            Self::Refused(error) => {
                tracing::error!(error = %Chain(*error), "certificate not reloaded: the one before it stays in use");
            }
        }
    }
}

/// A publisher was accepted.
#[derive(Debug)]
pub struct SessionBegan<'a> {
    /// The encoder's address.
    pub peer: SocketAddr,
    /// What it pushes.
    pub stream: &'a StreamId,
    /// The push, which may be an earlier one that goes on.
    pub sequence: PushSequence,
}

impl SessionBegan<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.session_began();
        let Self { peer, stream, sequence } = self;
        tracing::info!(%peer, %stream, %sequence, "publishing began");
        let what = || Happening::SessionBegan { sequence: sequence.to_string(), peer: peer.ip() };
        telemetry.tell(Some(stream), what);
    }
}

/// A publisher's connection is over. The push may go on with another one.
#[derive(Debug)]
pub struct SessionEnded<'a> {
    /// The encoder's address.
    pub peer: SocketAddr,
    /// What it pushed.
    pub stream: &'a StreamId,
    /// The push.
    pub sequence: PushSequence,
    /// Why.
    pub end: PushEnd,
    /// How long it lasted.
    pub lasted: Duration,
    /// What it sent since it was accepted.
    pub bytes: u64,
}

impl SessionEnded<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.session_ended(self.end.name());
        let Self { peer, stream, sequence, end, lasted, bytes } = self;
        let duration_ms = ms(*lasted);
        let code = match end {
            PushEnd::Cut(reason) => reason.code().to_string(),
            end => end.errcode().to_string(),
        };
        tracing::info!(%peer, %stream, %sequence, reason = end.name(), code, duration_ms, bytes, "publishing ended");
        telemetry.tell(Some(stream), || Happening::SessionEnded {
            sequence: sequence.to_string(),
            peer: peer.ip(),
            reason: end.name(),
            duration_ms,
            bytes: *bytes,
        });
    }
}

/// An entry point that was picked gave no picture.
#[derive(Debug)]
pub struct RenderFailed<'a> {
    /// The picture that is not there.
    pub trace: SnapshotId,
    /// Its stream.
    pub stream: &'a StreamId,
    /// Why.
    pub error: &'a RenderError,
}

impl RenderFailed<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.render_failed(self.error.reason());
        let Self { trace, stream, error } = self;
        let reason = error.reason();
        if let Some(left_out) = telemetry.admit(&stream.to_string(), reason) {
            line_by_fault!(
                error.fault(),
                %trace, %stream, reason, %error, left_out, "an entry point gave no picture"
            );
        }
    }
}

/// One upload ended, well or not.
#[derive(Debug)]
pub struct PutEnded<'a> {
    /// The id since the pick.
    pub trace: SnapshotId,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Store and bucket, for collapsing repeats.
    pub store: &'a str,
    /// Its key there.
    pub key: &'a str,
    /// From 1.
    pub attempt: u32,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, with a name from a fixed set and whose fault it is.
    pub failure: Option<(&'static str, Fault, &'a (dyn std::error::Error + 'static))>,
}

impl PutEnded<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        let Self { trace, snapshot, store, key, attempt, took, failure } = self;
        let duration_ms = ms(*took);
        let Some((outcome, fault, error)) = failure else {
            telemetry.metrics.put_ended("stored", *took);
            tracing::debug!(%trace, %snapshot, store, key, attempt, duration_ms, "stored");
            return;
        };
        telemetry.metrics.put_ended(outcome, *took);
        if let Some(left_out) = telemetry.admit(store, outcome) {
            let error = Chain(*error);
            line_by_fault!(
                fault,
                %trace, %snapshot, store, key, attempt, duration_ms, outcome, %error, left_out, "upload failed"
            );
        }
    }
}

/// A bucket takes no pictures.
#[derive(Debug)]
pub struct BucketFails<'a> {
    /// The store, as the configuration names it.
    pub store: &'a str,
    /// Its full name.
    pub bucket: &'a str,
    /// Why, with a name from a fixed set.
    pub reason: &'static str,
    /// Whether waiting alone will not mend it.
    pub alarm: bool,
    /// Why, in words.
    pub error: &'a (dyn std::error::Error + 'static),
    /// What a person may do about it.
    pub mend: &'static str,
}

impl BucketFails<'_> {
    /// Logs it, and tells whoever listens.
    pub fn emit(&self, telemetry: &Telemetry) {
        let Self { store, bucket, reason, alarm, error, mend } = *self;
        let error = Chain(error);
        if alarm {
            tracing::error!(store, bucket, %error, mend, "the bucket refuses pictures: they wait for you to mend it");
        } else {
            tracing::warn!(store, bucket, %error, mend, "the bucket fails: its pictures wait for it");
        }
        telemetry.tell(None, || Happening::BucketFailing {
            store: store.to_owned(),
            bucket: bucket.to_owned(),
            reason,
            alarm,
            error: error.to_string(),
            mend,
        });
    }
}

/// A bucket takes pictures again.
#[derive(Debug)]
pub struct BucketTakes<'a> {
    /// The store, as the configuration names it.
    pub store: &'a str,
    /// Its full name.
    pub bucket: &'a str,
}

impl BucketTakes<'_> {
    /// Logs it, and tells whoever listens.
    pub fn emit(&self, telemetry: &Telemetry) {
        let Self { store, bucket } = *self;
        tracing::info!(store, bucket, "the bucket takes pictures again");
        telemetry.tell(None, || Happening::BucketTaking { store: store.to_owned(), bucket: bucket.to_owned() });
    }
}

/// One attempt at a callback ended, well or not.
#[derive(Debug)]
pub struct AttemptEnded<'a> {
    /// The id since the pick, for event 200.
    pub trace: Option<SnapshotId>,
    /// The `webhook-id`.
    pub delivery: DeliveryId,
    /// CSS's number of the event.
    pub event_type: u16,
    /// The receiver, without what its URL keeps secret.
    pub endpoint: &'a str,
    /// From 1.
    pub attempt: u32,
    /// `delivered`, or the name of what went wrong.
    pub outcome: &'static str,
    /// What the receiver answered.
    pub status: Option<u16>,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, in words.
    pub error: Option<&'a str>,
    /// What comes of it.
    pub next: Next,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the receiver has it.
    Delivered,
    /// Another attempt after this wait.
    Retry(Duration),
    /// Nothing until a person replays it.
    Dead,
}

impl AttemptEnded<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        let Self { trace, delivery, event_type, endpoint, attempt, outcome, status, took, error, next } = self;
        telemetry.metrics.attempt_ended(*event_type, outcome, *took);
        let trace = trace.map(tracing::field::display);
        let duration_ms = ms(*took);
        match next {
            Next::Delivered => {
                tracing::debug!(trace, %delivery, event_type, endpoint, attempt, status, duration_ms, "callback delivered");
            }
            Next::Retry(wait) => {
                if let Some(left_out) = telemetry.admit(endpoint, outcome) {
                    let retry_in_ms = ms(*wait);
                    tracing::warn!(
                        trace, %delivery, event_type, endpoint, attempt, status, duration_ms, outcome, error, retry_in_ms,
                        left_out, "callback failed; it will be sent again"
                    );
                }
            }
            Next::Dead => {
                telemetry.metrics.given_up();
                if let Some(left_out) = telemetry.admit(endpoint, "dead") {
                    tracing::error!(
                        trace, %delivery, event_type, endpoint, attempt, status, duration_ms, outcome, error, left_out,
                        "callback given up; `framehook deliveries replay` sends it again"
                    );
                }
            }
        }
    }
}

/// Callbacks of an endpoint are due and not sent for long, or no longer so.
#[derive(Debug)]
pub struct EndpointOverdue {
    /// Its number.
    pub endpoint: EndpointId,
    /// The callback template whose URL it is.
    pub template: TemplateId,
    /// CSS's number of the event.
    pub event_type: u16,
    /// For how long the oldest has been due; `None` when that is over.
    pub age: Option<Duration>,
}

impl EndpointOverdue {
    /// Logs it, and tells whoever listens.
    pub fn emit(&self, telemetry: &Telemetry) {
        let Self { endpoint: EndpointId(id), template: TemplateId(template), event_type, age } = self;
        let endpoint = || happening::Endpoint { id: *id, template: *template, event_type: *event_type };
        match age.map(ms) {
            Some(age_ms) => {
                tracing::error!(
                    endpoint = id,
                    template,
                    event_type,
                    age_ms,
                    "callbacks are overdue: their receiver does not keep up or does not answer"
                );
                telemetry.tell(None, || Happening::EndpointOverdue { endpoint: endpoint(), oldest_due_age_ms: age_ms });
            }
            None => {
                tracing::info!(endpoint = id, template, event_type, "callbacks are no longer overdue");
                telemetry.tell(None, || Happening::EndpointCaughtUp { endpoint: endpoint() });
            }
        }
    }
}

/// A request to `/v1` came without the right credentials.
#[derive(Debug)]
pub struct LoginRefused {
    /// Who tried.
    pub peer: SocketAddr,
    /// `missing`, `wrong` or `too_many_attempts`.
    pub reason: &'static str,
}

impl LoginRefused {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.metrics.login_refused();
        let Self { peer, reason } = self;
        if let Some(left_out) = telemetry.admit_peer(peer.ip(), reason) {
            tracing::warn!(%peer, reason, left_out, "request without the right credentials");
        }
        telemetry.tell(None, || Happening::LoginRefused { peer: peer.ip(), reason });
    }
}

/// The configuration file was read again.
#[derive(Debug)]
pub enum Reloaded<'a> {
    /// Its domains, templates and rules apply from now on.
    Applied {
        /// The catalog's new version.
        version: u64,
        /// Keys of other settings that differ from those the process runs with.
        waiting: &'a [String],
    },
    /// It has problems, so everything stays as it was.
    Refused(&'a ConfigError),
    /// It is right and could not be stored, so everything stays as it was.
    Failed(&'a (dyn std::error::Error + 'static)),
}

impl Reloaded<'_> {
    /// Logs and counts it; every problem has a line.
    pub fn emit(&self, telemetry: &Telemetry) {
        let outcome = match self {
            Self::Applied { .. } => "applied",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        };
        telemetry.metrics.reloaded(outcome);
        telemetry.tell(None, || Happening::ConfigurationReloaded { outcome });
        match self {
            Self::Applied { version, waiting } => {
                tracing::info!(version, "configuration reloaded");
                if !waiting.is_empty() {
                    let keys = waiting.join(", ");
                    tracing::warn!(keys, "these settings have changed and apply at the next start");
                }
            }
            Self::Refused(ConfigError { problems }) => {
                for Problem { key, value, origin, what } in problems {
                    tracing::error!(key, value, %origin, what, "configuration not reloaded: it has a problem");
                }
            }
            Self::Failed(error) => {
                tracing::error!(error = %Chain(*error), "configuration not reloaded: it could not be stored");
            }
        }
    }
}

/// An error with its causes, on one line.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
