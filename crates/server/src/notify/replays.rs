//! Carries out replays of many deliveries: by a person's order, and for receivers that have recovered.
//!
//! What is replayed stays below what is owed anyway. A few deliveries at a time become due, as the order's rate allows, and
//! only at endpoints where nothing else is due: so a new callback never stands behind more than one portion. To a receiver that
//! fails again deliveries go on until its breaker opens; then they stay due, and no more are added. How far an order has come is
//! in the database, in the transaction that takes the deliveries up.
//!
//! Each order has turns of its own, so one whose pictures are in a store that hangs keeps no other waiting.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use framehook_domain::catalog::Catalog;
use framehook_domain::time::Mono;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::replay::{ASKED_AT_ONCE, REPLAYS_MAX, ReplayError, Replayer};
use crate::db::outbox::{self, EndpointId, Filter, Picture, State};
use crate::db::replays::{self, Found, OpenCount, Order, Part, Portion, Replay, ReplayId};
use crate::db::{DbError, Tx};
use crate::store::Retry;
use crate::telemetry::event::Chain;

/// How often replays go on while there are any.
const TICK: Duration = Duration::from_millis(250);

/// How often it is looked whether there are any, and whether a receiver has recovered.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Deliveries taken up in one transaction at most: pictures that are committed meanwhile wait for it.
const PORTION_MAX: usize = 250;

/// Endpoints of one replay that get a portion in one tick at most.
const PARTS_AT_ONCE: usize = 32;

/// Wait before a replay goes on that met an error: of a store that did not say whether a picture is still there, or of the
/// database.
const ERROR_WAIT: Duration = Duration::from_secs(5);

/// Automatic replays that may go on at a time: they leave room for those that people order.
const AUTOMATIC_MAX: usize = REPLAYS_MAX / 2;

/// Deliveries per second of an automatic replay: a receiver that has just come back is spared.
const AUTOMATIC_PER_SEC: u32 = 20;

/// Endpoints that took a callback since they were asked for, of those whose dead letters are then sent again. Clones share
/// them. There are never more than endpoints.
#[derive(Clone, Debug, Default)]
pub struct Recovered(Arc<Mutex<HashSet<EndpointId>>>);

impl Recovered {
    pub(super) fn note(&self, endpoint: EndpointId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(endpoint);
    }

    fn take(&self) -> HashSet<EndpointId> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Carries out replays of many deliveries.
#[derive(Debug)]
pub struct Replays {
    pub replayer: Replayer,
    pub catalog: watch::Receiver<Arc<Catalog>>,
    pub recovered: Recovered,
}

/// How far a replay may go on now.
#[derive(Debug)]
struct Pace {
    /// Until when its rate was counted.
    at: Mono,
    /// Thousandths of deliveries that it may send.
    credit: u64,
    /// The endpoint that had its turn last.
    after: EndpointId,
    held_until: Mono,
}

impl Pace {
    fn new(now: Mono) -> Self {
        Self { at: now, credit: 0, after: EndpointId(0), held_until: now }
    }

    /// How many deliveries may be sent at `now`. What was not used in half a second is lost, so that nothing bursts out of a
    /// pause.
    fn allowance(&mut self, now: Mono, per_sec: u32) -> usize {
        let elapsed_ms = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.at = now;
        let most = (u64::from(per_sec) * 500).max(1000);
        self.credit = self.credit.saturating_add(elapsed_ms.saturating_mul(per_sec.into())).min(most);
        usize::try_from(self.credit / 1000).unwrap_or(usize::MAX)
    }

    fn spend(&mut self, deliveries: usize) {
        self.credit = self.credit.saturating_sub(deliveries as u64 * 1000);
    }
}

/// One replay's next portion, as far as its rate allows.
#[derive(Debug)]
struct Turn {
    replay: Replay,
    pace: Pace,
    allowance: usize,
}

/// The turns that are due now.
#[derive(Debug)]
struct Look {
    turns: Vec<Turn>,
    /// Whether any replay goes on, due or not.
    is_any_open: bool,
}

/// Which of the open replays have a turn now. Takes their paces out of `paces`, where those of the others stay.
fn turns(
    open: Vec<Replay>,
    paces: &mut HashMap<ReplayId, Pace>,
    under_way: &HashSet<ReplayId>,
    now: Mono,
) -> Vec<Turn> {
    paces.retain(|id, _| open.iter().any(|replay| replay.id == *id));
    // Orders for one URL take turns: their portions would stand there together.
    let own_url = |replay: &Replay| replay.order.own_url.as_ref().map(|url| url.digest);
    let mut urls: HashSet<_> =
        open.iter().filter(|replay| under_way.contains(&replay.id)).filter_map(own_url).collect();
    let mut turns = Vec::new();
    for replay in open {
        if under_way.contains(&replay.id) {
            continue;
        }
        let mut pace = paces.remove(&replay.id).unwrap_or_else(|| Pace::new(now));
        let allowance = pace.allowance(now, replay.order.per_sec);
        let is_waiting = allowance == 0 || pace.held_until > now;
        if is_waiting || own_url(&replay).is_some_and(|url| !urls.insert(url)) {
            paces.insert(replay.id, pace);
        } else {
            turns.push(Turn { replay, pace, allowance });
        }
    }
    turns
}

impl Replays {
    /// Runs until `token` ends it. Where it stands then, the next start goes on.
    pub async fn run(self, token: CancellationToken) {
        // A turn may wait for stores. Each of its writes is a transaction of its own, so it can be broken off anywhere.
        let _: Option<()> = token.run_until_cancelled(self.carry_out()).await;
    }

    /// Gives each replay its turns, one after another, beside those of the others. Ends with the database.
    async fn carry_out(&self) {
        let (mut paces, mut under_way) = (HashMap::new(), HashSet::new());
        // At most one turn of each replay, so never more than `REPLAYS_MAX`.
        let mut turns = FuturesUnordered::new();
        loop {
            let woken = self.replayer.replays_wake.notified();
            let wait = match self.look(&mut paces, &under_way).await {
                Ok(look) => {
                    under_way.extend(look.turns.iter().map(|turn| turn.replay.id));
                    turns.extend(look.turns.into_iter().map(|turn| self.take_turn(turn)));
                    if look.is_any_open { TICK } else { LOOK_EVERY }
                }
                Err(DbError::Stopped) => return,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "replays cannot go on");
                    LOOK_EVERY
                }
            };
            let (mut woken, mut waited) = (pin!(woken), pin!(tokio::time::sleep(wait)));
            loop {
                tokio::select! {
                    () = &mut woken => break,
                    () = &mut waited => break,
                    Some(ended) = turns.next() => {
                        let Some((id, pace)) = ended else { return };
                        under_way.remove(&id);
                        paces.insert(id, pace);
                    }
                }
            }
        }
    }

    /// Finds the replays that may go on now.
    async fn look(&self, paces: &mut HashMap<ReplayId, Pace>, under_way: &HashSet<ReplayId>) -> Result<Look, DbError> {
        for endpoint in self.recovered.take() {
            match self.replay_recovered(endpoint).await {
                Ok(()) => {}
                Err(DbError::Stopped) => return Err(DbError::Stopped),
                // The next callback that is taken there asks again.
                Err(error) => tracing::warn!(
                    endpoint = endpoint.0,
                    error = %Chain(&error),
                    "the dead letters of a receiver that has recovered could not be looked for"
                ),
            }
        }
        let Found { replays: open, damaged } = self.replayer.db.read(replays::open).await?;
        for id in damaged {
            match self.end_damaged(id).await {
                Ok(()) => {}
                Err(DbError::Stopped) => return Err(DbError::Stopped),
                // The next look tries again.
                Err(error) => {
                    tracing::warn!(replay = id.0, error = %Chain(&error), "a damaged replay could not be ended")
                }
            }
        }
        let is_any_open = !open.is_empty();
        Ok(Look { turns: turns(open, paces, under_way, self.replayer.clock.mono()), is_any_open })
    }

    /// Takes a replay one portion further; one that cannot go on is held for a while. `None`: the database has ended.
    async fn take_turn(&self, turn: Turn) -> Option<(ReplayId, Pace)> {
        let Turn { replay, mut pace, allowance } = turn;
        match self.go_on(&replay, &mut pace, allowance).await {
            Ok(()) => {}
            Err(ReplayError::Db(DbError::Stopped)) => return None,
            Err(error) => {
                tracing::warn!(replay = replay.id.0, error = %Chain(&error), "a replay waits");
                pace.held_until = self.replayer.clock.mono().plus(ERROR_WAIT);
            }
        }
        Some((replay.id, pace))
    }

    /// Takes up at most `allowance` deliveries, at the endpoints whose turn it is.
    async fn go_on(&self, replay: &Replay, pace: &mut Pace, allowance: usize) -> Result<(), ReplayError> {
        let (id, after, own_url) = (replay.id, pace.after, replay.order.own_url.clone());
        // Where all go to one URL, they are one portion there.
        let mut allowance = if own_url.is_some() { allowance.min(PORTION_MAX) } else { allowance };
        let now = self.replayer.timeline.now();
        let parts = self.replayer.db.read(move |conn| {
            if let Some(url) = &own_url
                && replays::is_url_busy(conn, url, now)?
            {
                return Ok(Vec::new());
            }
            let next = replays::parts(conn, id, after, PARTS_AT_ONCE)?;
            // All have had their turn: from the first again.
            if next.is_empty() { replays::parts(conn, id, EndpointId(0), PARTS_AT_ONCE) } else { Ok(next) }
        });
        for part in parts.await? {
            if allowance == 0 {
                break;
            }
            pace.after = part.endpoint;
            let taken = self.take_up(replay, part, allowance.min(PORTION_MAX)).await?;
            allowance -= taken;
            pace.spend(taken);
        }
        Ok(())
    }

    /// Makes a part's next deliveries due. Returns how many were looked at.
    async fn take_up(&self, replay: &Replay, part: Part, limit: usize) -> Result<usize, ReplayError> {
        let Replayer { db, clock, timeline, .. } = &self.replayer;
        let (of, now) = (replay.clone(), timeline.now());
        let find = db.read(move |conn| {
            // Whether its own URL is busy was asked for all parts together.
            if of.order.own_url.is_none() && replays::is_busy(conn, part.endpoint, now)? {
                return Ok(None);
            }
            replays::next_portion(conn, &of, &part, limit).map(Some)
        });
        let Some(portion) = find.await? else { return Ok(0) };
        let pictures = self.ask_stores(&portion).await?;
        let (replay, clock, timeline) = (replay.clone(), *clock, timeline.clone());
        let write = move |tx: &Tx<'_>| {
            // While the stores were asked, another order may have been quicker at this endpoint.
            if replay.order.own_url.is_none() && replays::is_busy(tx, part.endpoint, timeline.now())? {
                return Ok(0);
            }
            replays::take_up(tx, &replay, &portion, &pictures, timeline.now(), clock.wall())?;
            Ok(pictures.len())
        };
        Ok(db.write(write).await?)
    }

    /// What the stores say about the pictures of these deliveries, in their order. A store that will not tell, however long one
    /// waits, has answered: S3 says 403 of a picture that is gone to whoever may not list the bucket.
    async fn ask_stores(&self, portion: &Portion) -> Result<Vec<Picture>, ReplayError> {
        let mut pictures = Vec::with_capacity(portion.deliveries.len());
        let mut refusal = None;
        for some in portion.deliveries.chunks(ASKED_AT_ONCE) {
            for answer in join_all(some.iter().map(|id| self.replayer.picture(*id))).await {
                pictures.push(match answer {
                    Ok(picture) => picture,
                    Err(ReplayError::Store(error)) if error.retry() == Retry::Held => {
                        refusal = Some(error);
                        Picture::Untold
                    }
                    Err(error) => return Err(error),
                });
            }
        }
        if let Some(error) = refusal {
            let untold = pictures.iter().filter(|picture| **picture == Picture::Untold).count();
            tracing::warn!(
                untold,
                error = %Chain(&error),
                "a store does not tell whether pictures are still there: their callbacks are not sent again"
            );
        }
        Ok(pictures)
    }

    /// Ends an order that cannot be read, so that it takes no other's place.
    async fn end_damaged(&self, id: ReplayId) -> Result<(), DbError> {
        let clock = self.replayer.clock;
        if self.replayer.db.write(move |tx| replays::cancel(tx, id, clock.wall())).await? {
            tracing::error!(replay = id.0, "a row of the table `replay` is damaged: the order is cancelled");
        }
        Ok(())
    }

    /// Orders the dead letters of an endpoint to be sent again that has taken a callback, if its template wants that.
    async fn replay_recovered(&self, endpoint: EndpointId) -> Result<(), DbError> {
        let Replayer { db, clock, .. } = &self.replayer;
        let (catalog, wall) = (Arc::clone(&self.catalog.borrow()), clock.wall());
        let dead_since = db.read(move |conn| {
            let template = outbox::endpoint(conn, endpoint)?.and_then(|row| catalog.callback_template(row.template));
            let age_max = template.and_then(|template| template.sending.replay_recovered);
            let since = age_max.map(|age| wall.minus(age));
            match since {
                Some(since) if replays::has_dead_letters(conn, endpoint, since, wall)? => Ok(Some(since)),
                _ => Ok(None),
            }
        });
        let Some(since) = dead_since.await? else { return Ok(()) };
        let (states, endpoint_only) = (vec![State::Dead], Some(endpoint));
        let filter = Filter { states, endpoint: endpoint_only, since: Some(since), ..Filter::default() };
        let order = Order { filter, own_url: None, per_sec: AUTOMATIC_PER_SEC, is_automatic: true };
        let write = move |tx: &Tx<'_>| {
            let OpenCount { all, automatic } = replays::open_count(tx)?;
            if all >= REPLAYS_MAX || automatic >= AUTOMATIC_MAX {
                // The next callback that is taken there asks again.
                return Ok(None);
            }
            replays::order(tx, &order, wall).map(Some)
        };
        if let Some(id) = db.write(write).await? {
            tracing::info!(
                replay = id.0,
                endpoint = endpoint.0,
                "a receiver has recovered: its dead letters are sent again"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use framehook_domain::time::UnixMs;

    use super::*;
    use crate::db::outbox::OwnUrl;

    fn replay(id: i64, own_url: Option<u8>) -> Replay {
        let own_url = own_url.map(|digest| OwnUrl { sealed: vec![], digest: [digest; 32] });
        Replay {
            id: ReplayId(id),
            order: Order { filter: Filter::default(), own_url, per_sec: 1000, is_automatic: false },
            created: UnixMs(0),
            ended: None,
            is_cancelled: false,
            replayed: 0,
            refused: 0,
        }
    }

    #[test]
    fn orders_for_one_url_take_turns() {
        let start = Mono(Duration::ZERO);
        let open =
            || vec![replay(1, Some(7)), replay(2, Some(7)), replay(3, Some(8)), replay(4, None), replay(5, None)];
        let mut paces: HashMap<_, _> = open().iter().map(|replay| (replay.id, Pace::new(start))).collect();
        let mut ids = |under_way: &[i64]| -> Vec<i64> {
            let under_way = under_way.iter().copied().map(ReplayId).collect();
            let found = turns(open(), &mut paces, &under_way, start.plus(Duration::from_secs(1)));
            // Their turns end at once, with nothing taken up.
            found
                .into_iter()
                .map(|turn| (turn.replay.id, turn.pace))
                .map(|(id, pace)| {
                    paces.insert(id, pace);
                    id.0
                })
                .collect()
        };
        assert_eq!(ids(&[]), [1, 3, 4, 5]);
        assert_eq!(ids(&[1]), [3, 4, 5], "the first is still under way");
        assert_eq!(ids(&[2, 4]), [3, 5], "so is the second");
    }

    #[test]
    fn a_replay_keeps_to_its_rate_and_saves_nothing_up() {
        let start = Mono(Duration::ZERO);
        let at = |ms| start.plus(Duration::from_millis(ms));
        let mut pace = Pace::new(start);
        let mut sent = 0;
        for tick in 1..=40 {
            let allowance = pace.allowance(at(tick * 250), 30);
            assert!((7..=8).contains(&allowance), "{allowance}");
            pace.spend(allowance);
            sent += allowance;
        }
        assert_eq!(sent, 300, "30 per second for ten seconds");
        assert_eq!(pace.allowance(at(60_000), 30), 15, "half a second's worth after fifty seconds");

        let mut slow = Pace::new(start);
        let allowed = |pace: &mut Pace, ms| pace.allowance(at(ms), 1);
        assert_eq!([500, 999, 1000].map(|ms| allowed(&mut slow, ms)), [0, 0, 1]);
        slow.spend(1);
        assert_eq!([1500, 2000, 9000].map(|ms| allowed(&mut slow, ms)), [0, 1, 1]);
    }
}
