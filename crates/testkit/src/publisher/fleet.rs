//! Thousands of publishers on a few threads. A thread for each would spend more on being woken than on sending.

mod member;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::flv::FlvFile;

use self::member::Member;
use super::timeline::Playlist;
use super::{Log, PublishError, PushUrl};

/// Publishers of one thread. At 72 messages a second of each, a thousand take about half a core, loopback's part of receiving
/// included; `bench scale` prints what one of its storm takes.
const MEMBERS_PER_THREAD: usize = 1000;

/// The shortest pause between two rounds. What falls due within it is sent in one round, at most this late; a thousand
/// publishers would otherwise wake their thread for every single message.
const PAUSE: Duration = Duration::from_millis(1);

/// Events that one call asks the kernel for. When more have happened the next round gets the rest.
const EVENTS_PER_ROUND: usize = 256;

/// Publishers that all send the same file over and over, each on a connection of its own and at its own pace.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub file: Arc<FlvFile>,
    /// Where to, one for each publisher.
    pub urls: Vec<PushUrl>,
    /// Over how long the starts are spread, evenly and in the order of `urls`.
    pub ramp: Duration,
    /// From the first start to the orderly end of all.
    pub duration: Duration,
    /// Media seconds per second.
    pub speed: f64,
    /// Outgoing RTMP chunk size in bytes.
    pub chunk_bytes: u32,
    /// The longest that one may take to be accepted. Within it the kernel repeats what a full queue has dropped, after 1, 3,
    /// 7 and 15 s.
    pub patience: Duration,
}

/// What became of one publisher.
#[derive(Debug)]
pub struct Outcome {
    /// How long it took from knocking to being accepted, or why it was not.
    pub accepted: Result<Duration, PublishError>,
    pub log: Log,
    /// Everything that was handed to the kernel, the protocol's own bytes included.
    pub wire_bytes: u64,
    /// The longest that the server took nothing although there was something to send: for that time lateness is its doing,
    /// what is beyond it is ours.
    pub blocked_max: Duration,
    /// From being accepted to its end.
    pub published: Duration,
}

impl Fleet {
    /// Everybody at once, for ten seconds.
    pub fn new(urls: Vec<PushUrl>, file: impl Into<Arc<FlvFile>>) -> Self {
        Self {
            file: file.into(),
            urls,
            ramp: Duration::ZERO,
            duration: Duration::from_secs(10),
            speed: 1.0,
            chunk_bytes: 4096,
            // OBS gives up after 30 s, ffmpeg never.
            patience: Duration::from_secs(30),
        }
    }

    /// Publishes until the time is up and everybody has said goodbye. What became of each comes in the order of `urls`.
    ///
    /// # Errors
    /// When a host has no address or the kernel has no epoll; what happens to one publisher is in its outcome.
    pub fn publish(&self) -> io::Result<Vec<Outcome>> {
        let addresses = self.urls.iter().map(PushUrl::address).collect::<io::Result<Vec<_>>>()?;
        let playlist = Playlist::new(Arc::clone(&self.file));
        let threads = self.urls.len().div_ceil(MEMBERS_PER_THREAD);
        let begin = Instant::now();
        let until = begin + self.duration;
        // Neighbours go to different threads: those of a ramp start one after the other.
        let mut shares: Vec<Vec<Member<'_>>> = (0..threads).map(|_| Vec::new()).collect();
        for (number, (url, address)) in self.urls.iter().zip(addresses).enumerate() {
            let start = begin + self.ramp.mul_f64(number as f64 / self.urls.len() as f64);
            shares[number % threads].push(Member::new(self, &playlist, url, address, start));
        }
        let shares: Vec<Vec<Outcome>> = thread::scope(|scope| {
            let running: Vec<_> =
                shares.into_iter().map(|members| scope.spawn(move || Driver::new(members)?.drive(until))).collect();
            running
                .into_iter()
                .map(|driver| driver.join().expect("publishing does not panic"))
                .collect::<io::Result<_>>()
        })?;
        let mut shares: Vec<_> = shares.into_iter().map(Vec::into_iter).collect();
        Ok((0..self.urls.len()).filter_map(|number| shares[number % threads].next()).collect())
    }
}

/// One thread's publishers.
struct Driver<'a> {
    epoll: OwnedFd,
    members: Vec<Member<'a>>,
    /// When somebody has something to do although nothing has happened, soonest first. Holds what a member has wished for
    /// earlier as well; only its latest wish counts.
    alarms: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl<'a> Driver<'a> {
    fn new(members: Vec<Member<'a>>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let alarms = members.iter().enumerate().filter_map(|(index, member)| Some(Reverse((member.alarm()?, index))));
        Ok(Self { epoll, alarms: alarms.collect(), members })
    }

    fn drive(mut self, until: Instant) -> io::Result<Vec<Outcome>> {
        let mut events = Vec::with_capacity(EVENTS_PER_ROUND);
        let mut is_over = false;
        loop {
            let now = Instant::now();
            if !is_over && now >= until {
                is_over = true;
                (0..self.members.len()).for_each(|index| self.tell(index, |member, _| member.leave(now)));
            }
            while let Some(&Reverse((at, index))) = self.alarms.peek().filter(|Reverse((at, _))| *at <= now) {
                self.alarms.pop();
                if self.members[index].alarm() == Some(at) {
                    self.tell(index, |member, epoll| member.on_alarm(epoll, index as u64, now));
                }
            }
            if is_over && self.members.iter().all(Member::is_over) {
                return Ok(self.members.into_iter().map(Member::into_outcome).collect());
            }
            let alarm = self.alarms.peek().map(|Reverse((at, _))| *at);
            self.wait(&mut events, alarm.into_iter().chain((!is_over).then_some(until)).min())?;
            let now = Instant::now();
            for event in &events {
                self.tell(event.data.u64() as usize, |member, _| member.on_ready(now));
            }
        }
    }

    /// Waits until a socket has changed or the next moment has come, and for the shortest pause at least if none has.
    fn wait(&self, events: &mut Vec<epoll::Event>, next: Option<Instant>) -> io::Result<()> {
        let pause = next.map(|next| next.saturating_duration_since(Instant::now()).max(PAUSE));
        let pause = pause.map(|pause| Timespec::try_from(pause).expect("the end of a run is not ages away"));
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(events), pause.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a member act, and keeps the alarm that it wishes for afterwards.
    fn tell(&mut self, index: usize, act: impl FnOnce(&mut Member<'a>, &OwnedFd)) {
        let member = &mut self.members[index];
        let before = member.alarm();
        act(member, &self.epoll);
        if let Some(alarm) = member.alarm().filter(|alarm| Some(*alarm) != before) {
            self.alarms.push(Reverse((alarm, index)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::{SocketAddr, TcpListener};

    use bytes::Bytes;

    use crate::flv::TagKind;
    use crate::publisher::End;
    use crate::publisher::tests::{PATIENCE, file, pictures, recorder, relay};

    /// What a publisher of `file` has sent when it has sent so many messages.
    fn sent(file: &FlvFile, messages: u64) -> FlvFile {
        let media = file.tags.iter().filter(|tag| tag.dts_ms < file.duration_ms());
        let mut tags: Vec<_> = media.clone().cloned().collect();
        let mut shift_ms = 0;
        while tags.len() < messages as usize {
            shift_ms += file.duration_ms();
            let again = media.clone().filter(|tag| tag.kind != TagKind::Script).cloned();
            tags.extend(again.map(|tag| crate::flv::Tag { dts_ms: tag.dts_ms + shift_ms, ..tag }));
        }
        tags.truncate(messages as usize);
        FlvFile { tags }
    }

    #[test]
    fn another_server_receives_every_byte_of_every_stream() {
        let file = Arc::new(file());
        let mut recorders = [recorder(), recorder(), recorder()];
        let (urls, ends): (Vec<_>, Vec<_>) = recorders.iter().map(|recorder| relay(&recorder.url)).unzip();
        let duration = Duration::from_secs(4);
        let ramp = Duration::from_millis(300);
        let outcomes = Fleet { speed: 4.0, ramp, duration, ..Fleet::new(urls, Arc::clone(&file)) }.publish().unwrap();
        assert_eq!(outcomes.len(), recorders.len());
        for ((outcome, recorder), end) in outcomes.iter().zip(&mut recorders).zip(ends) {
            assert!(outcome.accepted.is_ok() && outcome.log.end == Some(End::Unpublished), "{outcome:?}");
            assert_eq!(outcome.wire_bytes, end.recv_timeout(PATIENCE).unwrap().unwrap());
            recorder.process.wait(PATIENCE).unwrap();
            let sent = sent(&file, outcome.log.messages);
            assert!(outcome.log.keyframes.len() > 5, "it looped");
            assert_eq!(outcome.log.keyframes.len(), sent.tags.iter().filter(|tag| tag.is_keyframe()).count());
            assert_eq!(outcome.log.media_bytes, sent.tags.iter().map(|tag| tag.data.len() as u64).sum::<u64>());
            let recorded: Vec<(u32, Bytes)> = pictures(&FlvFile::open(recorder.recorded.path()).unwrap());
            assert!(recorded == pictures(&sent), "{} of {} pictures", recorded.len(), pictures(&sent).len());
        }
    }

    #[test]
    fn who_is_refused_or_dropped_says_why_and_the_others_go_on() {
        let (healthy, failing) = (recorder(), recorder());
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (silent, rude) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let rude_address = rude.local_addr().unwrap();
        thread::spawn(move || rude.accept().map(drop));
        let url = |address: SocketAddr| format!("rtmp://{address}/live/stream").parse().unwrap();
        let (healthy_url, _healthy_end) = relay(&healthy.url);
        let (failing_url, _failing_end) = relay(&failing.url);
        let urls =
            vec![healthy_url, url(nobody), url(silent.local_addr().unwrap()), url(rude_address), failing_url.clone()];
        let fleet = Fleet {
            duration: Duration::from_secs(4),
            patience: Duration::from_millis(1500),
            ..Fleet::new(urls, file())
        };
        let outcomes = thread::scope(|scope| {
            let publishing = scope.spawn(|| fleet.publish().unwrap());
            let mut process = failing.process;
            crate::wait::until("the recorder to record", PATIENCE, || {
                failing.recorded.as_file().metadata().is_ok_and(|file| file.len() > 0).then_some(())
            })
            .unwrap();
            process.kill9().unwrap();
            publishing.join().unwrap()
        });
        let [healthy, nobody, silent, rude, failing] = outcomes.try_into().unwrap();
        assert_eq!((healthy.accepted.is_ok(), healthy.log.end), (true, Some(End::Unpublished)));
        assert!(
            matches!(&nobody.accepted, Err(PublishError::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
        );
        assert!(matches!(silent.accepted, Err(PublishError::Unanswered(_))));
        assert!(matches!(rude.accepted, Err(PublishError::Closed | PublishError::Io(_))));
        assert!(matches!(failing.log.end, Some(End::Closed(_))), "{failing:?}");
        assert!(healthy.log.messages > failing.log.messages);
    }

    #[test]
    fn a_socket_that_takes_nothing_holds_up_its_own_stream_alone() {
        let (healthy, stuck) = (recorder(), recorder());
        let (healthy_url, _end) = relay(&healthy.url);
        // Stopped, a recorder's kernel answers for it until its buffers are full.
        let (stuck_url, _stuck_end) = relay(&stuck.url);
        let speed = 200.0;
        let fleet =
            Fleet { speed, duration: Duration::from_secs(4), ..Fleet::new(vec![healthy_url, stuck_url], file()) };
        let outcomes = thread::scope(|scope| {
            let publishing = scope.spawn(|| fleet.publish().unwrap());
            crate::wait::until("the recorder to record", PATIENCE, || {
                stuck.recorded.as_file().metadata().is_ok_and(|file| file.len() > 0).then_some(())
            })
            .unwrap();
            stuck.process.signal(rustix::process::Signal::STOP).unwrap();
            publishing.join().unwrap()
        });
        let [healthy, stuck] = outcomes.try_into().unwrap();
        assert!(stuck.blocked_max > Duration::from_millis(500), "{:?}", stuck.blocked_max);
        assert!(healthy.blocked_max < stuck.blocked_max && healthy.log.media_bytes > stuck.log.media_bytes);
        assert_eq!(healthy.log.end, Some(End::Unpublished));
    }
}
