//! The streams whose pictures are timed, and how long each picture took.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use framehook_testkit::flv::FlvFile;
use framehook_testkit::publisher::{KeyframeSent, Publisher, PublisherSpec, PushUrl};
use framehook_testkit::receiver::Request;
use serde_json::Value;

use super::watch::Watch;
use super::{GOP, TIMED_APP};

/// `event_type` of a stored picture (CSS).
const SNAPSHOT: u64 = 200;

/// How much later than the server's clock our own may say that a keyframe has left: we note it after the system call, and
/// may lose the core in between.
const NOTED_LATE_MAX: Duration = Duration::from_millis(250);

/// What the streams' names begin with; their number follows.
const STREAM: &str = "room_";

/// Publishers in this process, whose logs say when each keyframe left.
pub(super) struct Timed(Vec<Publisher>);

/// How long after its keyframe's last byte a picture was where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) stored: Duration,
    pub(super) called: Duration,
}

impl Timed {
    /// Publishers to an app that join evenly over one interval.
    pub(super) fn start(clip: &Path, to: SocketAddr, app: &str, streams: u32) -> Result<Self> {
        let file = Arc::new(FlvFile::open(clip)?);
        let began = Instant::now();
        let publishers = (0..streams).map(|index| {
            std::thread::sleep((GOP * index / streams).saturating_sub(began.elapsed()));
            let url: PushUrl = format!("rtmp://{to}/{app}/{STREAM}{index}").parse()?;
            Ok(PublisherSpec::new(url, Arc::clone(&file)).looped().start()?)
        });
        publishers.collect::<Result<_>>().map(Self)
    }

    /// The keyframes of each stream that have left.
    pub(super) fn keyframes(&self) -> Vec<Vec<KeyframeSent>> {
        self.0.iter().map(|publisher| publisher.log().keyframes).collect()
    }

    /// The pictures of all keyframes that left within the window, and how many keyframes have no callback. `objects` is
    /// where the local store keeps them, as `watch` has seen them appear.
    pub(super) fn pictures(
        &self,
        requests: &[Request],
        (objects, watch): (&Path, &Watch),
        window: Range<Instant>,
    ) -> Result<(Vec<Picture>, usize)> {
        let logs = self.keyframes();
        let mut callbacks: HashMap<(usize, usize), (&Request, Value)> = HashMap::new();
        for request in requests {
            let body = request.json()?;
            if body["event_type"] != SNAPSHOT || body["appname"] != TIMED_APP {
                continue;
            }
            let stream = body["stream_id"].as_str().and_then(number_of);
            let stream = stream.with_context(|| format!("a callback of a foreign stream: {body}"))?;
            let create_time_s = body["create_time"].as_u64().context("a callback without create_time")?;
            let keyframe = shown(logs.get(stream).context("a foreign stream")?, create_time_s);
            let keyframe = keyframe.context("a callback came before its keyframe")?;
            let earlier = callbacks.insert((stream, keyframe), (request, body));
            ensure!(earlier.is_none(), "two pictures of keyframe {keyframe} of stream {stream}");
        }
        let (mut pictures, mut missing) = (Vec::new(), 0);
        for (stream, keyframes) in logs.iter().enumerate() {
            for (number, keyframe) in keyframes.iter().enumerate().filter(|(_, key)| window.contains(&key.sent)) {
                let Some((request, body)) = callbacks.get(&(stream, number)) else {
                    missing += 1;
                    continue;
                };
                let path = object(body, objects)?;
                let stored = watch.appeared(&path).with_context(|| {
                    format!("nobody saw {} appear; a day that begins meanwhile has a new folder", path.display())
                })?;
                pictures.push(Picture {
                    stored: stored.saturating_duration_since(keyframe.sent),
                    called: request.arrived.saturating_duration_since(keyframe.sent),
                });
            }
        }
        ensure!(!pictures.is_empty(), "no picture within the window: this machine is saturated");
        Ok((pictures, missing))
    }
}

/// The number of a timed stream.
pub(super) fn number_of(name: &str) -> Option<usize> {
    name.strip_prefix(STREAM)?.parse().ok()
}

/// The keyframe of which the server saw the last byte in this second: the last one that had left at its end. Keyframes are
/// two seconds apart, so it is the right one unless the server took three quarters of a second to read it.
fn shown(keyframes: &[KeyframeSent], create_time_s: u64) -> Option<usize> {
    let end = UNIX_EPOCH + Duration::from_secs(create_time_s + 1) + NOTED_LATE_MAX;
    keyframes.iter().rposition(|keyframe| keyframe.sent_wall < end)
}

/// The file in the local store that a callback tells of.
fn object(body: &Value, objects: &Path) -> Result<PathBuf> {
    let url = body["pic_full_url"].as_str().context("a callback without pic_full_url")?;
    let (_, object) = url.split_once("/objects/").with_context(|| format!("{url} is not in the local store"))?;
    Ok(objects.join(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_shows_the_keyframe_whose_last_byte_came_in_its_second() {
        let (epoch, sent) = (UNIX_EPOCH + Duration::from_secs(1000), Instant::now());
        let left_after = |ms: u64| KeyframeSent {
            picture_number: 0,
            dts_ms: 0,
            bytes: 1,
            sent,
            sent_wall: epoch + Duration::from_millis(ms),
        };
        for (name, first_ms, create_time_s, expected) in [
            ("seen at once", 100, 1000, Some(0)),
            ("seen in the next second", 990, 1001, Some(0)),
            ("noted after it was seen", 1005, 1000, Some(0)),
            ("the second one", 100, 1002, Some(1)),
            ("none had left", 1300, 1000, None),
        ] {
            let keyframes = [left_after(first_ms), left_after(first_ms + 2000)];
            assert_eq!(shown(&keyframes, create_time_s), expected, "{name}");
        }
    }
}
