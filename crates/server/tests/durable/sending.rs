//! What a callback template says about sending: when again, for how long, under which signatures.

use std::time::Duration;

use framehook_domain::catalog::{Catalog, CatalogParts, Domain};
use framehook_domain::id::{RuleId, TemplateId};
use framehook_domain::retry::{Plan, Schedule};
use framehook_domain::rule::{CallbackRule, RuleScope};
use framehook_domain::stream::DomainName;
use framehook_domain::template::{CallbackKey, CallbackTemplate, Ed25519Key, PreviousKey, Sending, Signing};
use framehook_domain::time::UnixMs;
use framehook_server::db::outbox::State;
use framehook_testkit::receiver::{Receiver, Reply};
use framehook_verify::webhook::ed25519::PublicKey;
use framehook_verify::webhook::{Headers, WebhookSecret, verify};

use crate::harness::{KEY, PATIENCE, Place, Settings, callback_template, room};

/// A configuration in which the room is told to a URL by a template that `change` makes of the usual one.
fn telling_room(url: &str, change: impl FnOnce(&mut CallbackTemplate)) -> Catalog {
    let mut template = callback_template(TemplateId(1), url, KEY);
    change(&mut template);
    let name = DomainName::parse("push.example.com").expect("a domain");
    let scope = RuleScope { domain: name.clone(), app: None, stream: None };
    let parts = CatalogParts {
        domains: vec![Domain { name, enabled: true, auth: None }],
        callback_templates: vec![template],
        callback_rules: vec![CallbackRule { id: RuleId(1), scope, template: TemplateId(1) }],
        ..CatalogParts::default()
    };
    Catalog::build(1, parts).expect("a catalog")
}

fn answering(answer: &'static str) -> Receiver {
    let receiver = Receiver::start().expect("a receiver");
    receiver.reply_always(Reply::Raw(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").into_bytes()));
    receiver
}

#[test]
fn a_patient_template_heeds_410_and_the_default_does_not() {
    for (plan, state, outcome) in [(Plan::Patient, State::Dead, "gone"), (Plan::Css, State::Due, "status")] {
        let receiver = answering("410 Gone");
        let place = Place::new(telling_room(&receiver.url("/"), |template| template.sending.plan = plan));
        let schedule = Schedule { step: Duration::from_secs(3600), retries: 3 };
        let process = place.start_with(Settings { schedule, ..Settings::default() });
        process.commit(&room());
        receiver.wait_for(1, PATIENCE).expect("an attempt");
        let detail = process.wait_for_state(state);
        assert_eq!((detail.row.attempts, detail.row.outcome.as_deref()), (1, Some(outcome)), "{plan:?}");
        assert_eq!(detail.attempts[0].status, Some(410), "{plan:?}");
    }
}

#[test]
fn a_patient_template_heeds_retry_after() {
    let receiver = answering("503 Service Unavailable\r\nretry-after: 1800");
    let place = Place::new(telling_room(&receiver.url("/"), |template| template.sending.plan = Plan::Patient));
    let process = place.start();
    process.commit(&room());
    receiver.wait_for(1, PATIENCE).expect("an attempt");
    let due = process.wait_for_state(State::Due).row.due.since(process.clock.wall());
    let (least, most) = (Duration::from_secs(1800) - PATIENCE, Duration::from_secs(1800));
    assert!((least..=most).contains(&due), "the next attempt is due in {due:?}");
}

#[test]
fn a_template_has_its_own_time_for_an_attempt() {
    let receiver = Receiver::start().expect("a receiver");
    receiver.reply_always(Reply::Hang);
    let sending = Sending { timeout: Some(Duration::from_millis(200)), ..Sending::default() };
    let place = Place::new(telling_room(&receiver.url("/"), |template| template.sending = sending));
    let schedule = Schedule { step: Duration::from_millis(20), retries: 0 };
    let process = place.start_with(Settings { schedule, deadline: 4 * PATIENCE, ..Settings::default() });
    process.commit(&room());
    let dead = process.wait_for_state(State::Dead);
    assert_eq!(dead.attempts[0].outcome, "timeout");
    assert!(dead.attempts[0].duration < PATIENCE, "it took {:?}", dead.attempts[0].duration);
}

#[test]
fn while_a_key_is_changed_each_of_them_verifies() {
    let receiver = Receiver::start().expect("a receiver");
    let ed25519 = Ed25519Key::from_seed([7; 32]);
    let public = PublicKey::from_text(&ed25519.public_text()).expect("a key");
    let key = |text| CallbackKey::parse(text).expect("a key");
    let signing = |until| Signing {
        key: Some(key("the new key")),
        previous: Some(PreviousKey { key: key(KEY), until }),
        ed25519: Some(ed25519.clone()),
    };
    let place = Place::new(telling_room(&receiver.url("/"), |template| template.signing = signing(None)));
    let process = place.start();
    process.commit(&room());
    let request = receiver.wait_for(1, PATIENCE).expect("sent").remove(0);
    request.verify("the new key").expect("body and headers");
    let headers = Headers::read(|name| request.headers.get(name)).expect("headers");
    let sent_secs: i64 = headers.timestamp.parse().expect("seconds");
    let old = WebhookSecret::from_callback_key(KEY);
    verify([&old], headers, &request.body, sent_secs).expect("the key before");
    public.verify(headers, &request.body, sent_secs).expect("ed25519");
    process.wait_for_state(State::Delivered);

    place.configure(telling_room(&receiver.url("/"), |template| template.signing = signing(Some(UnixMs(1)))));
    process.commit(&room());
    let request = receiver.wait_for(2, PATIENCE).expect("sent").remove(1);
    request.verify("the new key").expect("body and headers");
    let headers = Headers::read(|name| request.headers.get(name)).expect("headers");
    assert_eq!(headers.signature.split(' ').count(), 2, "the time of the old one is over: {}", headers.signature);
    process.wait_for_state(State::Delivered);
}
