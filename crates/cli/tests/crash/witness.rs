//! The receiver of a server that is killed: it takes callbacks, misbehaves by plan, and remembers everything.

#![allow(dead_code, reason = "each suite uses its part of this")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use framehook_testkit::receiver::{Receiver, Reply, Request};
use serde_json::Value;

use crate::common::CALLBACK_KEY;
use crate::objects::Objects;

/// What came under one `webhook-id`.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    /// The body but for `t` and `sign`, which are blanked.
    pub(crate) body: String,
    /// The same without the two, parsed.
    pub(crate) fields: Value,
    pub(crate) requests: u64,
    /// Those that came after one was answered with 200.
    pub(crate) repeats: u64,
    /// Those that were not answered with any status.
    pub(crate) unanswered: u64,
    /// Whether a 200 was answered, as far as the receiver can tell.
    pub(crate) taken: bool,
}

pub(crate) struct Witness {
    _receiver: Receiver,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    /// By `webhook-id`, as 32 hexadecimal digits.
    stories: BTreeMap<String, Story>,
    /// What must never happen and did.
    complaints: Vec<String>,
    requests: usize,
    fetched: u64,
    unanswered: u64,
}

impl Witness {
    /// Answers as `plan` says, and looks for what callbacks announce among `objects`.
    pub(crate) fn new(receiver: Receiver, objects: Objects, plan: Plan) -> Self {
        let memory = Arc::<Mutex<Memory>>::default();
        receiver.on_request({
            let memory = Arc::clone(&memory);
            move |request| {
                lock(&memory).requests += 1;
                let heard = hear(request, &objects, &memory, plan);
                heard.unwrap_or_else(|complaint| {
                    lock(&memory).complaints.push(format!("{complaint:#}"));
                    Reply::Status(200)
                })
            }
        });
        Self { _receiver: receiver, memory }
    }

    /// How many requests have come so far.
    pub(crate) fn requests(&self) -> usize {
        lock(&self.memory).requests
    }

    pub(crate) fn stories(&self) -> BTreeMap<String, Story> {
        lock(&self.memory).stories.clone()
    }

    /// Announced objects that were fetched from the server, and those that it was killed before it had handed out.
    pub(crate) fn fetches(&self) -> (u64, u64) {
        let memory = lock(&self.memory);
        (memory.fetched, memory.unanswered)
    }

    /// Whether every request so far was as it must be.
    pub(crate) fn was_content(&self) -> Result<()> {
        let memory = lock(&self.memory);
        ensure!(memory.complaints.is_empty(), "the receiver complains:\n{}", memory.complaints.join("\n"));
        Ok(())
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks one request, remembers it and decides what to do with it.
fn hear(request: &Request, objects: &Objects, memory: &Mutex<Memory>, plan: Plan) -> Result<Reply> {
    request.verify(CALLBACK_KEY)?;
    let id = request.webhook_id()?.replace('-', "");
    let (body, fields) = without_signature(request)?;
    let fetched = if fields["event_type"] == 200 { objects.check(&fields)? } else { None };
    let mut memory = lock(memory);
    match fetched {
        Some(true) => memory.fetched += 1,
        Some(false) => memory.unanswered += 1,
        None => {}
    }
    let story = memory.stories.entry(id.clone()).or_insert_with(|| Story {
        body: body.clone(),
        fields,
        requests: 0,
        repeats: 0,
        unanswered: 0,
        taken: false,
    });
    ensure!(story.body == body, "{id} came with two bodies:\n{}\n{body}", story.body);
    story.requests += 1;
    story.repeats += u64::from(story.taken);
    let reply = plan(draw(&id)?, story.requests);
    story.taken |= matches!(reply, Reply::Status(200) | Reply::After(_, 200));
    story.unanswered += u64::from(!matches!(reply, Reply::Status(_) | Reply::After(..)));
    Ok(reply)
}

/// The body with `t` and `sign` blanked in place, and its fields without them.
fn without_signature(request: &Request) -> Result<(String, Value)> {
    let text = String::from_utf8(request.body.clone()).context("a body is UTF-8")?;
    let mut fields = request.json()?;
    let object = fields.as_object_mut().with_context(|| format!("no object: {text}"))?;
    let t = object.remove("t").with_context(|| format!("no t: {text}"))?;
    let sign = object.remove("sign").with_context(|| format!("no sign: {text}"))?;
    let blanked = text.replace(&format!("\"t\":{t}"), "\"t\":").replace(&format!("\"sign\":{sign}"), "\"sign\":");
    ensure!(blanked.len() < text.len(), "t and sign are not where they should be: {text}");
    Ok((blanked, fields))
}

/// A number below 1,000. The id's last digits decide, so a repeat after a crash meets the same receiver.
fn draw(id: &str) -> Result<u32> {
    let tail = id.get(id.len().saturating_sub(6)..).context("a webhook-id is long")?;
    Ok(u32::from_str_radix(tail, 16).with_context(|| format!("webhook-id {id} is no UUID"))? % 1000)
}

/// What is done with the nth request (from 1) under an id with this draw. A callback that was taken once is taken ever after.
pub(crate) type Plan = fn(u32, u64) -> Reply;

/// A receiver that takes everything at once.
pub(crate) fn content(_: u32, _: u64) -> Reply {
    Reply::Status(200)
}

/// A receiver that misbehaves in every way and never takes one in 25.
pub(crate) fn moody(draw: u32, nth: u64) -> Reply {
    match (draw / 10, nth) {
        (0..4, _) => Reply::Status(500),
        (4..12, 1) => Reply::Status(503),
        (12..16, 1) => Reply::Status(204),
        (12..16, 2) | (16..20, 1) => Reply::Reset,
        (20..24, 1) => Reply::ResetMidAnswer,
        (24..27, 1) => Reply::Hang,
        (27..30, 1) => Reply::Close,
        (30..34, _) => Reply::After(Duration::from_millis(100), 200),
        _ => Reply::Status(200),
    }
}

/// A receiver that does so seldom enough to be sent many callbacks at once, and takes its time over each.
pub(crate) fn busy(draw: u32, nth: u64) -> Reply {
    match (draw, nth) {
        (0..5, _) => Reply::Status(500),
        (5..7, 1) => Reply::Status(503),
        (7..9, 1) => Reply::Reset,
        (9..11, 1) => Reply::ResetMidAnswer,
        (11, 1) => Reply::Hang,
        _ => Reply::After(Duration::from_millis(30), 200),
    }
}
