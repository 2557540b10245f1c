//! Screenshot tasks, from the request that makes one to the callbacks of its pictures and their count.

use framehook_testkit::encoder::{self, Program, Source};
use framehook_testkit::receiver::{Receiver, Request};
use framehook_testkit::server::Server;
use framehook_testkit::wait;
use serde_json::{Value, json};

use super::client::Sdk;
use super::common::{CALLBACK_KEY, DOMAIN, PATIENCE, check_snapshot, push_url};
use super::{id, now, open_domain, publish, serve, snapshot_template, utc};

/// The receiver is told of the pictures of every stream.
fn tell(sdk: &mut Sdk, receiver: &Receiver) {
    let urls = json!({
        "TemplateName": "receiver", "CallbackKey": CALLBACK_KEY, "SnapshotNotifyUrl": receiver.url("/"),
    });
    let template = id(&sdk.call("CreateLiveCallbackTemplate", urls));
    sdk.call("CreateLiveCallbackRule", json!({ "DomainName": DOMAIN, "AppName": "live", "TemplateId": template }));
}

fn every_two_seconds(sdk: &mut Sdk) -> i64 {
    let mut template = snapshot_template("covers");
    template["SnapshotInterval"] = 2.into();
    id(&sdk.call("CreateLiveSnapshotTemplate", template))
}

/// A task of the stream `room` for the next ten minutes.
fn task_of(template: i64) -> Value {
    json!({
        "DomainName": DOMAIN, "AppName": "live", "StreamName": "room", "TemplateId": template, "EndTime": now() + 600,
    })
}

fn create(sdk: &mut Sdk, params: Value) -> String {
    let answer = sdk.call("CreateScreenshotTask", params);
    answer["TaskId"].as_str().unwrap_or_else(|| panic!("no TaskId in {answer}")).to_owned()
}

fn one(task: &str) -> Value {
    json!({ "TaskId": task })
}

fn list(sdk: &mut Sdk) -> Value {
    sdk.call("DescribeScreenshotTask", json!({ "StartTime": now() - 3600, "EndTime": now() + 3600 }))
}

/// Every snapshot callback so far that bears the id of a task, or none.
fn snapshots(requests: &[Request], task: Option<&str>) -> Vec<Request> {
    let is_wanted =
        |request: &&Request| request.event_type() == Some(200) && request.json().unwrap()["task_id"].as_str() == task;
    requests.iter().filter(is_wanted).cloned().collect()
}

fn wait_for(receiver: &Receiver, what: &str, condition: impl Fn(&[Request]) -> bool) {
    receiver.wait_until(what, PATIENCE, |requests| condition(requests).then_some(())).unwrap();
}

/// Who wants pictures of the only live stream, with their counts.
fn subscribers(server: &Server) -> Value {
    server.v1("GET", "/v1/streams", None).unwrap()["streams"][0]["rules"].clone()
}

#[test]
fn a_task_takes_pictures_of_a_live_stream_until_it_is_stopped() {
    let receiver = Receiver::start().unwrap();
    let server = serve();
    let mut sdk = Sdk::start(&server);
    open_domain(&mut sdk);
    tell(&mut sdk, &receiver);
    let template = every_two_seconds(&mut sdk);
    let mut encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(&server, "room")).unwrap();
    wait::until("the stream to be live", PATIENCE, || subscribers(&server).is_array().then_some(())).unwrap();

    let task = create(&mut sdk, task_of(template));
    wait_for(&receiver, "two pictures of the task", |requests| snapshots(requests, Some(&task)).len() >= 2);
    for picture in snapshots(&receiver.requests(), Some(&task)) {
        check_snapshot(&server, &picture).unwrap();
    }
    assert!(snapshots(&receiver.requests(), None).is_empty(), "no rule asks for any");
    let counts = &subscribers(&server)[0];
    assert_eq!(counts["subscriber"], format!("task:{task}"));
    let number = |name: &str| counts[name].as_u64().unwrap();
    let skipped: u64 = counts["skipped"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(number("due"), number("taken") + number("open") + skipped, "{counts}");
    let listed = list(&mut sdk);
    assert_eq!(listed["ScrollToken"], "");
    let info = &listed["TaskList"][0];
    assert_eq!(
        (&info["TaskId"], &info["StreamName"], &info["TemplateId"]),
        (&json!(task), &json!("room"), &json!(template))
    );
    assert_eq!((&info["Stopped"], listed["TaskList"].as_array().unwrap().len()), (&json!(0), 1));

    // A rule of the same template on the same stream: both take their own pictures.
    sdk.call("CreateLiveSnapshotRule", json!({ "DomainName": DOMAIN, "TemplateId": template }));
    wait_for(&receiver, "a picture of the rule", |requests| !snapshots(requests, None).is_empty());
    sdk.call("StopScreenshotTask", one(&task));
    let stopped = now();
    let created = |request: &Request| request.json().unwrap()["create_time"].as_i64().unwrap();
    wait_for(&receiver, "a picture of the rule two intervals later", |requests| {
        snapshots(requests, None).iter().any(|picture| created(picture) > stopped + 4)
    });
    let of_task = snapshots(&receiver.requests(), Some(&task));
    assert!(of_task.iter().all(|picture| created(picture) <= stopped + 1), "it went on after it was stopped");
    let names: Vec<_> = subscribers(&server).as_array().unwrap().iter().map(|one| one["subscriber"].clone()).collect();
    assert!(matches!(&names[..], [Value::String(name)] if name.starts_with("rule:")), "{names:?}");
    let end = list(&mut sdk)["TaskList"][0]["Stopped"].as_i64().unwrap();
    assert!((stopped - 1..=stopped).contains(&end), "stopped at {end}, asked for at {stopped}");

    encoder.kill9().unwrap();
    wait::until("every picture to be told and counted", PATIENCE, || {
        let told = receiver.requests().iter().filter(|request| request.event_type() == Some(200)).count() as i64;
        (count(&mut sdk, "Minute") == told && count(&mut sdk, "Day") == told).then_some(())
    })
    .unwrap();

    sdk.call("DeleteScreenshotTask", one(&task));
    assert_eq!(list(&mut sdk)["TaskList"], json!([]));
    assert_eq!(sdk.code("DeleteScreenshotTask", one(&task)), "InvalidParameter");
}

/// How many pictures were taken of the push domain by now.
fn count(sdk: &mut Sdk, granularity: &str) -> i64 {
    let params = json!({
        "StartTime": utc(now() - 600), "EndTime": utc(now()), "PushDomains": [DOMAIN], "Granularity": granularity,
    });
    let counts = sdk.call("DescribeScreenShotSheetNumList", params)["DataInfoList"].take();
    counts.as_array().unwrap().iter().map(|count| count["Num"].as_i64().unwrap()).sum()
}

#[test]
fn a_task_begins_on_time_and_goes_on_after_a_kill() {
    let receiver = Receiver::start().unwrap();
    let mut server = serve();
    let mut sdk = Sdk::start(&server);
    open_domain(&mut sdk);
    tell(&mut sdk, &receiver);
    let template = every_two_seconds(&mut sdk);
    let publisher = publish(&server, "room");
    publisher.wait_for_keyframes(1, PATIENCE).unwrap();
    let start = now() + 3;
    let mut params = task_of(template);
    params["StartTime"] = start.into();
    let task = create(&mut sdk, params);
    assert_eq!(subscribers(&server), json!([]), "its time has not come");
    wait_for(&receiver, "a picture of the task", |requests| !snapshots(requests, Some(&task)).is_empty());
    let first = &snapshots(&receiver.requests(), Some(&task))[0];
    assert!(first.json().unwrap()["create_time"].as_i64().unwrap() >= start);

    server.kill9().unwrap();
    server.restart().unwrap();
    let before = snapshots(&receiver.requests(), Some(&task)).len();
    let _publisher = publish(&server, "room");
    wait_for(&receiver, "more pictures of the task", |requests| snapshots(requests, Some(&task)).len() > before + 1);
}

#[test]
fn tasks_are_refused_limited_and_listed_as_the_documents_say() {
    let server = serve();
    let mut sdk = Sdk::start(&server);
    open_domain(&mut sdk);
    let template = every_two_seconds(&mut sdk);
    let changed = |name: &str, value: Value| {
        let mut params = task_of(template);
        params[name] = value;
        params
    };
    const HOUR: i64 = 3600;
    let mut far = changed("StartTime", (now() + 146 * HOUR).into());
    far["EndTime"] = (now() + 147 * HOUR).into();
    for (what, params, code) in [
        ("over", changed("EndTime", (now() - 1).into()), "InvalidParameter"),
        ("longer than a day", changed("EndTime", (now() + 25 * HOUR).into()), "InvalidParameter"),
        ("over before it begins", changed("StartTime", (now() + HOUR).into()), "InvalidParameter"),
        ("too far away", far, "InvalidParameter"),
        ("unknown domain", changed("DomainName", "other.example.com".into()), "InvalidParameter"),
        ("mixed", changed("StreamType", 1.into()), "UnsupportedOperation"),
        ("no end", changed("EndTime", Value::Null), "MissingParameter"),
        ("no template", changed("TemplateId", Value::Null), "MissingParameter"),
    ] {
        assert_eq!(sdk.code("CreateScreenshotTask", params), code, "{what}");
    }
    let began_early = create(&mut sdk, changed("StartTime", (now() - HOUR).into()));
    let lost = create(&mut sdk, changed("TemplateId", 999.into()));
    let third = create(&mut sdk, task_of(template));
    assert_eq!(sdk.code("CreateScreenshotTask", task_of(template)), "LimitExceeded.MaximumRunningTask");
    create(&mut sdk, changed("StreamName", "other".into()));
    sdk.call("StopScreenshotTask", one(&lost));
    let fourth = create(&mut sdk, task_of(template));
    assert_eq!(sdk.code("CreateScreenshotTask", task_of(template)), "LimitExceeded.MaximumRunningTask");

    let in_use = json!({ "TemplateId": template });
    assert_eq!(sdk.code("DeleteLiveSnapshotTemplate", in_use.clone()), "FailedOperation.ConfInUsed");
    let push = json!({ "DomainName": DOMAIN, "DomainType": 0 });
    assert_eq!(sdk.code("DeleteLiveDomain", push.clone()), "FailedOperation");
    for unknown in ["task-1", "00000000-0000-7000-8000-000000000000"] {
        assert_eq!(sdk.code("StopScreenshotTask", one(unknown)), "InvalidParameter");
        assert_eq!(sdk.code("DeleteScreenshotTask", one(unknown)), "InvalidParameter");
    }

    let window = |more: Value| {
        let mut params = json!({ "StartTime": now() - 2 * HOUR, "EndTime": now() + HOUR });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let ids = |sdk: &mut Sdk, more: Value| -> Vec<String> {
        let tasks = sdk.call("DescribeScreenshotTask", window(more))["TaskList"].take();
        tasks.as_array().unwrap().iter().map(|task| task["TaskId"].as_str().unwrap().to_owned()).collect()
    };
    let room = json!({ "StreamName": "room", "DomainName": DOMAIN, "AppName": "live" });
    assert_eq!(
        ids(&mut sdk, room.clone()),
        [&*began_early, &*lost, &*third, &*fourth],
        "in the order of their creation"
    );
    assert_eq!(ids(&mut sdk, json!({ "StreamName": "room", "StartTime": now() - 60 })), [&*lost, &*third, &*fourth]);
    assert_eq!(ids(&mut sdk, json!({ "ScrollToken": third })).len(), 2, "the fourth, and the other stream's");
    let wide = json!({ "StartTime": now() - 169 * HOUR, "EndTime": now() });
    assert_eq!(sdk.code("DescribeScreenshotTask", wide), "InvalidParameter");
    assert_eq!(sdk.code("DescribeScreenshotTask", window(json!({ "ScrollToken": "next" }))), "InvalidParameter");

    for index in 0..101 {
        create(&mut sdk, changed("StreamName", format!("s{index}").into()));
    }
    let mut token = Value::from("");
    let mut pages = Vec::new();
    loop {
        let page = sdk.call("DescribeScreenshotTask", window(json!({ "ScrollToken": token })));
        pages.push(page["TaskList"].as_array().unwrap().len());
        token = page["ScrollToken"].clone();
        if token == "" {
            break;
        }
    }
    assert_eq!(pages, [100, 6]);
    for _ in pages {
        for task in ids(&mut sdk, json!({})) {
            sdk.call("DeleteScreenshotTask", one(&task));
        }
    }
    sdk.call("DeleteLiveSnapshotTemplate", in_use);
    sdk.call("DeleteLiveDomain", push);
}

#[test]
fn counts_of_pictures_are_asked_for_within_the_limits_of_the_documents() {
    let server = serve();
    let mut sdk = Sdk::start(&server);
    let days = |days: i64| utc(now() - days * 86_400);
    for (what, params, code) in [
        (
            "too wide",
            json!({ "StartTime": days(40), "EndTime": days(0), "Granularity": "Minute" }),
            "InvalidParameterValue",
        ),
        ("too old", json!({ "StartTime": days(187), "EndTime": days(180) }), "InvalidParameterValue"),
        (
            "no such interval",
            json!({ "StartTime": days(1), "EndTime": days(0), "Granularity": "Hour" }),
            "InvalidParameterValue",
        ),
        ("no start", json!({ "EndTime": days(0) }), "MissingParameter"),
    ] {
        assert_eq!(sdk.code("DescribeScreenShotSheetNumList", params), code, "{what}");
    }
    for zone in ["Mainland", "Oversea"] {
        let params = json!({ "StartTime": days(1), "EndTime": days(0), "Zone": zone });
        assert_eq!(sdk.call("DescribeScreenShotSheetNumList", params)["DataInfoList"], json!([]));
    }
}
