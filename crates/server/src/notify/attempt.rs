//! One attempt of one delivery: look up where it goes now, sign it anew, send it, write down how it ended.

use std::sync::Arc;

use bytes::Bytes;
use framehook_domain::callback::{EventBody, render};
use framehook_domain::catalog::Catalog;
use framehook_domain::dispatch::Felt;
use framehook_domain::retry::{DeadReason, Failed, Next, Outcome, Plan};
use framehook_domain::signature;
use framehook_domain::template::{CallbackUrl, Sending, Signing};
use framehook_domain::time::{Mono, UnixMs};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinSet;

use super::client::{AttemptReport, AttemptRequest};
use super::endpoint::Endpoint;
use super::notifier::NotifierParts;
use super::retry_after;
use super::settler::{End, Ended, Settler};
use super::tls::Certificates;
use crate::db::outbox::{Attempted, Buried, Claim, EndpointRow};
use crate::db::secret::Vault;
use crate::fail_point;
use crate::telemetry::Telemetry;
use crate::telemetry::event::{self, AttemptEnded, Chain};
use crate::telemetry::happening::{self, Happening};

/// What is kept of an answer's body: enough for an error message of a framework.
const RESPONSE_KEPT_BYTES: usize = 1024;

/// What binds a sealed URL to its column.
pub(super) const URL_PURPOSE: &str = "endpoint.url_override";

/// Where a delivery goes by the configuration of now, and how it is signed.
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    signing: Signing,
    sending: Sending,
    certificates: Certificates,
}

/// Why a delivery has nowhere to go.
pub(super) enum NoTarget {
    /// Its template, or the template's URL for its kind of event, is gone.
    TemplateDeleted,
    /// There is a URL that cannot be called. Says why, without repeating it.
    Unusable(String),
}

impl Target {
    pub(super) fn of(catalog: &Catalog, vault: &Vault, row: &EndpointRow) -> Result<Self, NoTarget> {
        let template = catalog.callback_template(row.template);
        let endpoint = match &row.url_override {
            Some(sealed) => {
                let unusable = |error: &dyn std::error::Error| NoTarget::Unusable(error.to_string());
                let url = vault.open_sealed(URL_PURPOSE, sealed).map_err(|error| unusable(&error))?;
                Endpoint::parse(&url)
            }
            None => {
                let url: Option<&CallbackUrl> = template.and_then(|template| template.urls.of(row.kind));
                Endpoint::parse(url.ok_or(NoTarget::TemplateDeleted)?.expose().as_str())
            }
        };
        let certificates = template.map(|template| match (&template.authorities, template.verify_tls) {
            (_, false) => Certificates::Unverified,
            (None, true) => Certificates::Verified,
            (Some(authorities), true) => Certificates::VerifiedWith(authorities.clone()),
        });
        Ok(Self {
            endpoint: endpoint.map_err(|error| NoTarget::Unusable(error.to_string()))?,
            signing: template.map(|template| template.signing.clone()).unwrap_or_default(),
            sending: template.map(|template| template.sending.clone()).unwrap_or_default(),
            certificates: certificates.unwrap_or_default(),
        })
    }
}

/// Makes the attempt of a claimed delivery and settles it. Waits out a full disk with the outcome in hand. Tells what it
/// says about the receiver, and when that was known.
pub(super) async fn run_attempt(parts: &NotifierParts, settler: &Settler, claim: &Claim) -> (Felt, Mono) {
    let catalog = Arc::clone(&parts.catalog.borrow());
    let started = parts.clock.wall();
    let (mut plan, mut retry_after, mut wants_dead_letters) = (Plan::default(), None, false);
    let attempted = match Target::of(&catalog, &parts.vault, &claim.endpoint) {
        Ok(target) => {
            plan = target.sending.plan;
            wants_dead_letters = target.sending.replay_recovered.is_some();
            let report = send(parts, claim, &target, started).await;
            fail_point::pass("attempt_answered");
            retry_after = asked_wait(&report, parts.clock.wall());
            attempted(started, &target.endpoint, report)
        }
        Err(NoTarget::TemplateDeleted) => {
            let ended = parts.clock.mono();
            bury(parts, settler, claim).await;
            return (Felt::Nothing, ended);
        }
        Err(NoTarget::Unusable(why)) => Attempted {
            started,
            duration: std::time::Duration::ZERO,
            outcome: Outcome::Local,
            error: Some(why),
            response: None,
            url: String::new(),
        },
    };
    let ended = parts.clock.mono();
    let next = match attempted.outcome.is_delivered() {
        true => None,
        false => {
            let Claim { attempt_of_round: attempt, waited, .. } = *claim;
            let (outcome, random) = (attempted.outcome, parts.entropy.bits());
            let failed = Failed { attempt, outcome, waited, retry_after, random };
            Some(plan.next(parts.schedules.of(claim.endpoint.kind), &failed))
        }
    };
    let felt = attempted.outcome.felt();
    if attempted.outcome.is_delivered() && wants_dead_letters {
        parts.recovered.note(claim.endpoint.id);
    }
    report(parts, claim, &attempted, next);
    settle_attempt(parts, settler, claim, attempted, next, ended).await;
    (felt, ended)
}

/// How long the receiver asked us to wait before we try again.
fn asked_wait(report: &Result<AttemptReport, String>, now: UnixMs) -> Option<std::time::Duration> {
    let answer = report.as_ref().ok()?.outcome.as_ref().ok()?;
    answer.retry_after.as_ref().and_then(|value| retry_after::parse(value, now))
}

async fn send(parts: &NotifierParts, claim: &Claim, target: &Target, sent: UnixMs) -> Result<AttemptReport, String> {
    let body = EventBody::from_json(&claim.body).map_err(|error| error.to_string())?;
    let body = render(&body, target.signing.key.as_ref(), sent);
    let mut headers = HeaderMap::new();
    for (name, value) in signature::headers(&target.signing, claim.id.delivery, sent, &body) {
        let value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
        headers.insert(HeaderName::from_static(name), value);
    }
    let Sending { timeout, connect_timeout, .. } = target.sending;
    let (body, certificates) = (Bytes::from(body), target.certificates.clone());
    let request = AttemptRequest { headers, body, certificates, connect_timeout };
    let deadline = timeout.unwrap_or(parts.deadline);
    let (client, endpoint) = (Arc::clone(&parts.client), target.endpoint.clone());
    // In a task of its own, which ends with this one: a panic below must not leave a claim that nobody settles.
    let mut exchange = JoinSet::new();
    exchange.spawn(async move { client.attempt(&endpoint, &request, deadline).await });
    let ended = exchange.join_next().await.expect("one task was started");
    if let Ok(AttemptReport { remote, reused, repeated, .. }) = &ended {
        // Where a receiver says that it saw a request twice, or none: which machine it went to, and whether again.
        tracing::debug!(delivery = %claim.id.delivery, ?remote, reused, repeated, "a request was sent");
    }
    ended.map_err(|panic| panic.to_string())
}

fn attempted(started: UnixMs, endpoint: &Endpoint, report: Result<AttemptReport, String>) -> Attempted {
    let url = endpoint.to_string();
    let report = match report {
        Ok(report) => report,
        Err(why) => {
            let (duration, outcome) = (std::time::Duration::ZERO, Outcome::Local);
            return Attempted { started, duration, outcome, error: Some(why), response: None, url };
        }
    };
    let duration = report.duration;
    match report.outcome {
        Ok(answer) => {
            let kept = &answer.body_excerpt[..answer.body_excerpt.len().min(RESPONSE_KEPT_BYTES)];
            let response = (!kept.is_empty()).then(|| String::from_utf8_lossy(kept).into_owned());
            Attempted { started, duration, outcome: Outcome::from_status(answer.status), error: None, response, url }
        }
        Err(error) => {
            Attempted { started, duration, outcome: error.outcome(), error: Some(error.chain()), response: None, url }
        }
    }
}

fn report(parts: &NotifierParts, claim: &Claim, attempted: &Attempted, next: Option<Next>) {
    if attempted.outcome.is_delivered()
        && claim.attempt == 1
        && let Some((_, arrived)) = claim.picture
    {
        parts.telemetry.metrics.announced(parts.clock.wall().since(arrived));
    }
    AttemptEnded {
        trace: claim.picture.map(|(trace, _)| trace),
        delivery: claim.id.delivery,
        event_type: claim.endpoint.kind.event_type(),
        endpoint: &attempted.url,
        attempt: claim.attempt,
        outcome: attempted.outcome.name(),
        status: attempted.outcome.status(),
        took: attempted.duration,
        error: attempted.error.as_deref(),
        next: match next {
            None => event::Next::Delivered,
            Some(Next::After(step)) => event::Next::Retry(step),
            Some(Next::Dead(_)) => event::Next::Dead,
        },
    }
    .emit(&parts.telemetry);
}

async fn settle_attempt(
    parts: &NotifierParts,
    settler: &Settler,
    claim: &Claim,
    attempted: Attempted,
    next: Option<Next>,
    judged: Mono,
) {
    let attempted = Arc::new(attempted);
    let end = match next {
        None => End::Delivered,
        Some(Next::After(step)) => End::Retry { judged, step },
        Some(Next::Dead(reason)) => End::Dead(reason),
    };
    let ended = Ended { claim: claim.id, attempted: Some(Arc::clone(&attempted)), end, wall: parts.clock.wall() };
    match settler.settle(ended).await {
        Ok(is_settled) => {
            fail_point::pass("attempt_settled");
            // Else it was cancelled meanwhile, or replayed: what comes of it is no longer this attempt's to say.
            if is_settled {
                tell(parts, claim, &attempted, next);
            }
        }
        // The notifier finds the claim that nobody holds any more, or the next start does; it is sent again with the same
        // id.
        Err(error) => {
            let error = Chain(&error);
            let delivery = claim.id.delivery;
            tracing::warn!(%delivery, %error, "an attempt's outcome could not be written down");
        }
    }
}

/// Tells listeners what has become of an attempt.
fn tell(parts: &NotifierParts, claim: &Claim, attempted: &Attempted, next: Option<Next>) {
    parts.telemetry.tell(Some(&claim.stream), || {
        let attempt = happening::Attempt {
            delivery_id: claim.id.delivery.0,
            event_type: claim.endpoint.kind.event_type(),
            url: attempted.url.clone(),
            attempt: claim.attempt,
            outcome: attempted.outcome.name(),
            status: attempted.outcome.status(),
            duration_ms: attempted.duration.as_millis() as u64,
        };
        match next {
            None => Happening::DeliveryDelivered { attempt },
            Some(Next::After(step)) => Happening::DeliveryFailed { attempt, retry_in_ms: step.as_millis() as u64 },
            Some(Next::Dead(_)) => Happening::DeliveryDead { attempt },
        }
    });
}

/// The template is gone: no request is made and nothing is recorded as an attempt.
async fn bury(parts: &NotifierParts, settler: &Settler, claim: &Claim) {
    let (end, wall) = (End::Dead(DeadReason::TemplateDeleted), parts.clock.wall());
    match settler.settle(Ended { claim: claim.id, attempted: None, end, wall }).await {
        Ok(false) => {}
        Ok(true) => tell_buried(
            &parts.telemetry,
            &Buried {
                delivery: claim.id.delivery,
                kind: claim.endpoint.kind,
                stream: Some(claim.stream.clone()),
                reason: DeadReason::TemplateDeleted,
            },
        ),
        Err(error) => {
            let (delivery, error) = (claim.id.delivery, Chain(&error));
            tracing::warn!(%delivery, %error, "a delivery without a template could not be settled");
        }
    }
}

/// Tells listeners that a delivery is dead of which no attempt was made.
pub(super) fn tell_buried(telemetry: &Telemetry, buried: &Buried) {
    telemetry.tell(buried.stream.as_ref(), || Happening::DeliveryDead {
        attempt: happening::Attempt {
            delivery_id: buried.delivery.0,
            event_type: buried.kind.event_type(),
            url: String::new(),
            attempt: 0,
            outcome: buried.reason.name(),
            status: None,
            duration_ms: 0,
        },
    });
}
