//! What the server is pushed while it is killed: streams that never stop of their own accord, and others that come and
//! go. Each publisher that loses its server comes back as soon as there is one again, as encoders do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use framehook_testkit::clip::ClipSpec;
use framehook_testkit::dice::Dice;
use framehook_testkit::flv::FlvFile;
use framehook_testkit::publisher::{End, PublishError, Publisher, PublisherSpec, PushUrl};
use framehook_testkit::server::Server;

use crate::common::{PATIENCE, push_url};

/// Stream names of publishers that go on until the end start with this.
pub(crate) const ROOMS: &str = "room_";
const GUESTS: &str = "guest_";

/// With a picture every 2 s each, five pictures a second; and each start brings one of every room at once.
pub(crate) const ROOMS_COUNT: usize = 10;
const GUESTS_COUNT: usize = 3;

/// How long a guest stays, in ms.
const STAY_MS: std::ops::Range<u64> = 150..900;

/// How long a publisher waits before it tries again.
const RETRY: Duration = Duration::from_millis(30);

pub(crate) struct Load {
    rooms: Vec<Seat>,
    guests: Vec<Seat>,
    dice: Dice,
}

/// One stream's place: the publisher in it, if there is one.
struct Seat {
    url: PushUrl,
    file: Arc<FlvFile>,
    publisher: Option<Publisher>,
    try_at: Instant,
    /// When it is to stop, in order. Rooms have none.
    leaves_at: Option<Instant>,
}

impl Load {
    pub(crate) fn new(server: &Server, seed: u64) -> Result<Self> {
        let clip = ClipSpec {
            width: 320,
            height: 180,
            kbit_per_s: 300,
            duration: Duration::from_secs(2),
            gop: Duration::from_millis(500),
            ..ClipSpec::default()
        };
        let file = Arc::new(clip.build()?.flv()?);
        let seats = |prefix: &str, count: usize| -> Result<Vec<Seat>> {
            (0..count)
                .map(|number| {
                    let url = push_url(server, &format!("{prefix}{number}")).parse()?;
                    let file = Arc::clone(&file);
                    Ok(Seat { url, file, publisher: None, try_at: Instant::now(), leaves_at: None })
                })
                .collect()
        };
        Ok(Self { rooms: seats(ROOMS, ROOMS_COUNT)?, guests: seats(GUESTS, GUESTS_COUNT)?, dice: Dice::new(seed) })
    }

    /// Lets publishers come, go and come back as it is time for them. To be called all the while.
    pub(crate) fn tend(&mut self) {
        for room in &mut self.rooms {
            room.come();
        }
        for guest in &mut self.guests {
            if guest.come() {
                guest.leaves_at = Some(Instant::now() + Duration::from_millis(self.dice.within(STAY_MS)));
            }
            if guest.leaves_at.is_some_and(|at| Instant::now() >= at) {
                guest.leave();
            }
        }
    }

    /// Brings every stream back once more, lets it send a keyframe and ends it in order: after this no push is open. The
    /// server must be up.
    pub(crate) fn finish(&mut self) -> Result<()> {
        for seat in self.rooms.iter_mut().chain(&mut self.guests) {
            let publisher = match seat.publisher.take().filter(|publisher| publisher.log().end.is_none()) {
                Some(publisher) => publisher,
                None => seat.start()?,
            };
            publisher.wait_for_keyframes(1, PATIENCE)?;
            let end = publisher.stop().end;
            ensure!(end == Some(End::Unpublished), "{} ended with {end:?}", seat.url);
        }
        Ok(())
    }
}

impl Seat {
    fn start(&self) -> Result<Publisher, PublishError> {
        // Short, since everything waits for a publisher that connects to a server in its last instant.
        let patience = Duration::from_secs(2);
        PublisherSpec { patience, ..PublisherSpec::new(self.url.clone(), Arc::clone(&self.file)) }.looped().start()
    }

    /// Starts a publisher unless one is there. Gives whether it did.
    fn come(&mut self) -> bool {
        if self.publisher.as_ref().is_some_and(|publisher| publisher.log().end.is_none()) {
            return false;
        }
        self.publisher = None;
        if Instant::now() < self.try_at {
            return false;
        }
        match self.start() {
            Ok(publisher) => self.publisher = Some(publisher),
            Err(_) => self.try_at = Instant::now() + RETRY,
        }
        self.publisher.is_some()
    }

    fn leave(&mut self) {
        self.leaves_at = None;
        if let Some(publisher) = self.publisher.take() {
            publisher.stop();
        }
    }
}
