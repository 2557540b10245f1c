//! What one connection publishes: from the session's events to the push that it holds.

use std::net::SocketAddr;
use std::sync::Arc;

use framehook_domain::refusal::{CutReason, PushEnd};
use framehook_domain::time::Mono;
use framehook_media::DecoderConfig;
use framehook_media::avcc::Avcc;
use framehook_media::flv::VideoCodec;
use framehook_media::h264::Sps;
use framehook_rtmp::{Event, Media, MediaKind, PublishRequest, UnpublishedBy};

use super::rhythm::{Expected, Rhythm};
use crate::live::{Hold, Lives, Passed};
use crate::telemetry::event::{SessionBegan, SessionEnded};

/// The publishing side of a connection. Everything is done in the order of the wire: what comes behind the end of a
/// publish in the same read belongs to the next.
pub(super) struct Publisher<'a> {
    lives: &'a Arc<Lives>,
    pub(super) peer: SocketAddr,
    /// A publish that was asked for and not withdrawn.
    asked: Option<Box<PublishRequest>>,
    held: Option<Held>,
    early: Early,
    /// Since when a publish is waited for: the accept, or the end of the publish before.
    pub(super) waiting_since: Mono,
    /// When the last whole message came.
    pub(super) heard: Mono,
    received_bytes: u64,
}

/// The push that the connection holds, since when and from which byte on.
struct Held {
    hold: Hold,
    since: Mono,
    from_byte: u64,
    /// An encoder's config that cannot be read, and a codec of which no pictures can be made, are told once per publish: a
    /// peer could alternate between two for ever.
    told: Told,
    rhythm: Rhythm,
}

#[derive(Default)]
struct Told {
    bad_config: bool,
    unsupported: bool,
}

/// What encoders may send before their publish is accepted and will not send again.
#[derive(Default)]
struct Early {
    config: Option<Arc<DecoderConfig>>,
    encoder: Option<String>,
    unsupported: Option<VideoCodec>,
}

impl<'a> Publisher<'a> {
    /// A connection that was accepted at `connected`. What it has taken since, as for TLS, is part of its handshake.
    pub(super) fn new(lives: &'a Arc<Lives>, peer: SocketAddr, connected: Mono) -> Self {
        let (early, heard) = (Early::default(), lives.clock.mono());
        Self { lives, peer, asked: None, held: None, early, waiting_since: connected, heard, received_bytes: 0 }
    }

    /// Whether entry points are worth assembling.
    pub(super) fn wanted(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.hold.push.wanted())
    }

    /// The first moment from `now` on at which an entry point may be picked. `None` while nothing wants one.
    pub(super) fn picks_from(&self, now: Mono) -> Option<Mono> {
        self.held.as_ref().and_then(|held| held.hold.push.picks_from(now))
    }

    /// The next keyframe; `None` while there is no telling.
    pub(super) fn next_keyframe(&self) -> Option<Expected> {
        self.held.as_ref().and_then(|held| held.rhythm.next_keyframe())
    }

    pub(super) fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Whether a publish waits for its answer.
    pub(super) fn asks(&self) -> bool {
        self.asked.is_some()
    }

    pub(super) fn take_asked(&mut self) -> Option<Box<PublishRequest>> {
        self.asked.take()
    }

    /// Completes when the push's holder is told to go.
    pub(super) async fn was_cut(&mut self) -> CutReason {
        match &mut self.held {
            Some(held) => match (&mut held.hold.cut).await {
                Ok(reason) => reason,
                // The push let go of us without a word, which it never does while we hold it.
                Err(_) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// Counts bytes that are about to be heard.
    pub(super) fn received(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
    }

    /// The publish that was asked for is accepted.
    pub(super) fn enter(&mut self, hold: Hold) {
        debug_assert!(self.held.is_none(), "a session asks for a publish only when it has none");
        let push = &hold.push;
        SessionBegan { peer: self.peer, stream: push.stream(), sequence: push.sequence() }.emit(&self.lives.telemetry);
        self.heard = self.lives.clock.mono();
        self.held = Some(Held {
            hold,
            since: self.heard,
            from_byte: self.received_bytes,
            told: Told::default(),
            rhythm: Rhythm::default(),
        });
        let Early { config, encoder, unsupported } = std::mem::take(&mut self.early);
        if let Some(config) = config {
            self.configured(&config);
        }
        if let Some(encoder) = encoder {
            self.described(encoder);
        }
        if let Some(codec) = unsupported {
            self.unsupported(codec);
        }
    }

    /// Lets go of the push, if one is held.
    pub(super) fn leave(&mut self, end: PushEnd) {
        let Some(Held { hold, since, from_byte, .. }) = self.held.take() else { return };
        self.waiting_since = self.lives.clock.mono();
        SessionEnded {
            peer: self.peer,
            stream: hold.push.stream(),
            sequence: hold.push.sequence(),
            end,
            lasted: self.waiting_since.since(since),
            bytes: self.received_bytes - from_byte,
        }
        .emit(&self.lives.telemetry);
        hold.give_back(end);
    }

    /// Acts on one event. Called between two reads, so nothing in here waits.
    pub(super) fn hear(&mut self, event: Event) {
        self.heard = self.lives.clock.mono();
        match event {
            Event::Publish(request) => {
                self.early = Early::default();
                self.asked = Some(request);
            }
            Event::Unpublish { by } => {
                // One that was asked for and not yet answered is merely withdrawn.
                if self.asked.take().is_none() {
                    self.leave(unpublished(by));
                }
            }
            Event::Config(config) => self.configured(&config),
            Event::Metadata(metadata) => {
                if let Some(encoder) = metadata.encoder {
                    self.described(encoder);
                }
            }
            Event::EntryPoint(unit) => {
                if let Some(held) = &mut self.held {
                    held.rhythm.picture(unit.dts_ms, true, unit.data.len() as u32, self.heard);
                    self.lives.entry_point(&held.hold.push, unit);
                }
            }
            Event::Media(media) => {
                if let Some(held) = &mut self.held {
                    if let MediaKind::Picture { keyframe, .. } = media.kind {
                        held.rhythm.picture(media.timestamp_ms, keyframe, media.len, self.heard);
                    }
                    held.hold.push.media(passed(&media), media.len as usize, self.heard);
                }
            }
            Event::UnsupportedVideo(codec) => self.unsupported(codec),
            Event::BadConfig(error) => {
                if let Some(held) = &mut self.held
                    && !std::mem::replace(&mut held.told.bad_config, true)
                {
                    let stream = held.hold.push.stream();
                    tracing::info!(%stream, %error, "the decoder config cannot be read; no pictures until a good one");
                }
            }
        }
    }

    fn configured(&mut self, config: &Arc<DecoderConfig>) {
        let Some(held) = &self.held else {
            self.early.config = Some(Arc::clone(config));
            return;
        };
        let sps = Avcc::parse(&config.record).ok().and_then(|record| Sps::parse(record.sps.first()?).ok());
        if let Some(sps) = sps {
            held.hold.push.announce(config.codec, sps.width, sps.height);
        }
    }

    fn described(&mut self, encoder: String) {
        match &self.held {
            Some(held) => held.hold.push.encoder(encoder),
            None => self.early.encoder = Some(encoder),
        }
    }

    fn unsupported(&mut self, codec: VideoCodec) {
        let Some(held) = &mut self.held else {
            self.early.unsupported = Some(codec);
            return;
        };
        let push = &held.hold.push;
        push.unsupported(codec.to_string());
        if !std::mem::replace(&mut held.told.unsupported, true) {
            tracing::warn!(stream = %push.stream(), %codec, "no pictures can be made of this codec");
        }
    }
}

fn unpublished(by: UnpublishedBy) -> PushEnd {
    match by {
        UnpublishedBy::FcUnpublish => PushEnd::Unpublished,
        UnpublishedBy::DeleteStream => PushEnd::DeleteStream,
        UnpublishedBy::CloseStream => PushEnd::CloseStream,
    }
}

fn passed(media: &Media) -> Passed {
    match media.kind {
        MediaKind::Audio { .. } => Passed::Audio,
        MediaKind::Picture { keyframe, .. } => Passed::Picture { keyframe, dts_ms: media.timestamp_ms },
        MediaKind::Video { .. } | MediaKind::Data => Passed::Other,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use framehook_media::{AccessUnit, Codec};

    use super::*;
    use crate::live::scene::{Scene, address};

    #[tokio::test]
    async fn keyframes_that_are_kept_and_those_that_are_not_make_one_rhythm() {
        let scene = Scene::new();
        let peer: SocketAddr = "127.0.0.1:40000".parse().expect("an address");
        let hold = scene.lives.admit(&address("room"), peer.ip(), peer.ip()).await.expect("admitted");
        let mut publisher = Publisher::new(&scene.lives, peer, scene.lives.clock.mono());
        publisher.enter(hold);
        let config = Arc::new(DecoderConfig { codec: Codec::H264, record: Bytes::new() });
        for dts_ms in [0, 2000, 4000] {
            assert_eq!(publisher.next_keyframe(), None, "{dts_ms}");
            publisher.hear(Event::EntryPoint(AccessUnit { config: Arc::clone(&config), data: Bytes::new(), dts_ms }));
        }
        let kind = MediaKind::Picture { codec: VideoCodec::Known(Codec::H264), keyframe: true };
        publisher.hear(Event::Media(Media { kind, timestamp_ms: 6000, len: 1 }));
        let at = publisher.heard.plus(std::time::Duration::from_secs(2));
        assert_eq!(publisher.next_keyframe(), Some(Expected { at, bytes: 1 }));
        publisher.leave(PushEnd::PeerClosed);
        assert_eq!(publisher.next_keyframe(), None);
    }
}
