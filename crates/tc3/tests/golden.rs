//! Every action has a golden request and a golden response: `tests/golden/<Action>.request.json` and `.response.json`. The
//! requests name every parameter that the vendor's SDKs know, the responses every field that they read.

use std::fs;
use std::path::Path;

use framehook_tc3::action::callback_record::{CallbackRecord, DescribeCallbackRecords};
use framehook_tc3::action::callback_rule::{CallbackRuleInfo, CallbackRuleScope, CreateCallbackRule};
use framehook_tc3::action::callback_template::{
    CallbackOptions, CallbackTemplateInfo, CreateCallbackTemplate, ModifyCallbackTemplate, NotifyUrls,
};
use framehook_tc3::action::domain::{AddDomain, DeleteDomain, DescribeDomains, DomainInfo, DomainType, OneDomain};
use framehook_tc3::action::page::Page;
use framehook_tc3::action::push_auth_key::{ModifyPushAuthKey, PushAuthKeyInfo};
use framehook_tc3::action::screenshot_count::{DescribeScreenshotCounts, Granularity, ScreenshotCount, Zone};
use framehook_tc3::action::screenshot_task::{
    CreateScreenshotTask, DescribeScreenshotTask, OneTask, ScreenshotTask, StreamType,
};
use framehook_tc3::action::snapshot_rule::{CreateSnapshotRule, SnapshotRuleInfo, SnapshotRuleScope};
use framehook_tc3::action::snapshot_template::{
    Bucket, CreateSnapshotTemplate, ModifySnapshotTemplate, SnapshotOptions, SnapshotTemplateInfo,
};
use framehook_tc3::action::stream::{
    DescribeForbiddenStreams, DescribeOnlineStreams, ForbidStream, ForbiddenStream, OneStream, OnlineStream,
    PublishTime, StreamState,
};
use framehook_tc3::action::stream_event::{DescribeStreamEvents, StreamEvent};
use framehook_tc3::action::template::OneTemplate;
use framehook_tc3::action::{Action, NoParameters, Request, Response};
use framehook_tc3::envelope::{self, Call, HttpRequest};
use framehook_tc3::params::Params;
use framehook_tc3::secret::Secret;
use framehook_tc3::time::{ApiTime, Notation, UnixSecs};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// 2025-01-01T00:00:00Z.
const NOW: UnixSecs = UnixSecs(1_735_689_600);
const DAY_SECS: i64 = 86_400;
const REQUEST_ID: &str = "0d9e5c3a-6b1f-4f0e-9a2d-3c5b7e8f1a20";

fn text(text: &str) -> String {
    text.to_owned()
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text))
}

fn bucket() -> Bucket {
    Bucket { cos_app_id: 1_250_000_000, cos_bucket: text("shots"), cos_region: text("ap-guangzhou") }
}

fn snapshot_options(interval: i64) -> SnapshotOptions {
    SnapshotOptions {
        description: Some(text("covers")),
        snapshot_interval: Some(interval),
        width: Some(0),
        height: Some(360),
        porn_flag: Some(false),
        cos_prefix: Some(text("/{Year}-{Month}-{Day}")),
        cos_file_name: Some(text("{StreamID}-{Hour}-{Minute}-{Second}{Ext}")),
    }
}

fn snapshot_template() -> SnapshotTemplateInfo {
    SnapshotTemplateInfo {
        template_id: 1000,
        template_name: text("cover_10s"),
        snapshot_interval: 10,
        width: 0,
        height: 360,
        porn_flag: 0,
        cos_app_id: 1_250_000_000,
        cos_bucket: text("shots"),
        cos_region: text("ap-guangzhou"),
        description: text("covers"),
        cos_prefix: text("/{Year}-{Month}-{Day}"),
        cos_file_name: text("{StreamID}-{Hour}-{Minute}-{Second}{Ext}"),
    }
}

fn callback_options(snapshot_url: &str) -> CallbackOptions {
    CallbackOptions {
        description: Some(text("the moderators")),
        callback_key: secret("k3yForDocs2024"),
        urls: NotifyUrls {
            stream_begin: secret("https://hook.example.com/begin"),
            stream_end: secret("https://hook.example.com/end"),
            record: secret("https://hook.example.com/record"),
            record_status: secret("https://hook.example.com/record-status"),
            snapshot: secret(snapshot_url),
            porn_censorship: secret("https://hook.example.com/porn"),
            push_exception: secret("https://hook.example.com/exception"),
            audio_audit: secret("https://hook.example.com/audio"),
            record_exception: secret("https://hook.example.com/record-exception"),
        },
        record_exception_levels: Some(vec!["error", "warning"]),
    }
}

fn callback_template() -> CallbackTemplateInfo {
    CallbackTemplateInfo {
        template_id: 1000,
        template_name: text("moderation"),
        description: text("the moderators"),
        stream_begin_notify_url: Secret::new("https://hook.example.com/begin"),
        stream_mix_notify_url: "",
        stream_end_notify_url: Secret::new("https://hook.example.com/end"),
        record_notify_url: Secret::new(""),
        snapshot_notify_url: Secret::new("https://hook.example.com/snapshot?a=1&b=2"),
        porn_censorship_notify_url: Secret::new(""),
        callback_key: Secret::new("k3yForDocs2024"),
        push_exception_notify_url: Secret::new(""),
        audio_audit_notify_url: Secret::new(""),
        record_exception_notify_url: Secret::new(""),
        record_exception_levels: vec![text("error"), text("warning")],
    }
}

fn domain() -> DomainInfo {
    DomainInfo {
        name: text("push.example.com"),
        domain_type: 0,
        status: 1,
        create_time: ApiTime::beijing(NOW),
        has_cname: 0,
        target_domain: String::new(),
        play_type: 1,
        is_delay_live: 0,
        current_cname: String::new(),
        rent_tag: 0,
        rent_expire_time: "",
        is_mini_program_live: 0,
    }
}

fn one_template() -> OneTemplate {
    OneTemplate { template_id: 1000 }
}

fn one_domain() -> OneDomain {
    OneDomain { domain_name: text("push.example.com") }
}

fn one_task() -> OneTask {
    OneTask { task_id: text("task-1") }
}

fn one_stream() -> OneStream {
    OneStream { domain_name: text("push.example.com"), app_name: text("live"), stream_name: text("room_1001") }
}

fn snapshot_scope() -> SnapshotRuleScope {
    let OneStream { domain_name, app_name, stream_name } = one_stream();
    SnapshotRuleScope { domain_name, app_name, stream_name }
}

/// Of templates and rules: what each golden request asks for, and what is answered.
fn configuration() -> Vec<(Request, Response)> {
    let created = || Response::TemplateCreated { template_id: 1000 };
    let done = || Response::Done {};
    vec![
        (
            Request::CreateLiveSnapshotTemplate(CreateSnapshotTemplate {
                template_name: text("cover_10s"),
                bucket: bucket(),
                options: snapshot_options(10),
            }),
            created(),
        ),
        (
            Request::DescribeLiveSnapshotTemplate(one_template()),
            Response::SnapshotTemplate { template: snapshot_template() },
        ),
        (
            Request::DescribeLiveSnapshotTemplates(NoParameters),
            Response::SnapshotTemplates { templates: vec![snapshot_template()] },
        ),
        (
            Request::ModifyLiveSnapshotTemplate(ModifySnapshotTemplate {
                template_id: 1000,
                template_name: Some(text("cover_10s")),
                bucket: bucket(),
                options: snapshot_options(5),
            }),
            done(),
        ),
        (Request::DeleteLiveSnapshotTemplate(one_template()), done()),
        (Request::CreateLiveSnapshotRule(CreateSnapshotRule { scope: snapshot_scope(), template_id: 1000 }), done()),
        (
            Request::DescribeLiveSnapshotRules(NoParameters),
            Response::SnapshotRules {
                rules: vec![SnapshotRuleInfo {
                    create_time: ApiTime::beijing(NOW),
                    update_time: ApiTime::beijing(NOW.plus_secs(1)),
                    template_id: 1000,
                    domain_name: text("push.example.com"),
                    app_name: text("live"),
                    stream_name: text("room_1001"),
                }],
            },
        ),
        (Request::DeleteLiveSnapshotRule(snapshot_scope()), done()),
        (
            Request::CreateLiveCallbackTemplate(CreateCallbackTemplate {
                template_name: text("moderation"),
                options: callback_options("https://hook.example.com/snapshot?a=1&b=2"),
            }),
            created(),
        ),
        (
            Request::DescribeLiveCallbackTemplate(one_template()),
            Response::CallbackTemplate { template: callback_template() },
        ),
        (
            Request::DescribeLiveCallbackTemplates(NoParameters),
            Response::CallbackTemplates { templates: vec![callback_template()] },
        ),
        (
            Request::ModifyLiveCallbackTemplate(ModifyCallbackTemplate {
                template_id: 1000,
                template_name: Some(text("moderation")),
                options: callback_options(""),
            }),
            done(),
        ),
        (Request::DeleteLiveCallbackTemplate(one_template()), done()),
        (
            Request::CreateLiveCallbackRule(CreateCallbackRule {
                scope: CallbackRuleScope { domain_name: text("push.example.com"), app_name: text("live") },
                template_id: 1000,
            }),
            done(),
        ),
        (
            Request::DescribeLiveCallbackRules(NoParameters),
            Response::CallbackRules {
                rules: vec![CallbackRuleInfo {
                    create_time: ApiTime::beijing(NOW),
                    update_time: ApiTime::beijing(NOW.plus_secs(1)),
                    template_id: 1000,
                    domain_name: text("push.example.com"),
                    app_name: text("live"),
                }],
            },
        ),
        (
            Request::DeleteLiveCallbackRule(CallbackRuleScope {
                domain_name: text("push.example.com"),
                app_name: String::new(),
            }),
            done(),
        ),
    ]
}

/// Of tasks, logs and counts.
fn records() -> Vec<(Request, Response)> {
    let time = |secs: i64| ApiTime { at: NOW.plus_secs(secs), notation: Notation::Offset(28_800) };
    vec![
        (
            Request::CreateScreenshotTask(CreateScreenshotTask {
                domain_name: text("push.example.com"),
                app_name: text("live"),
                stream_name: text("room_1001"),
                start: NOW.plus_secs(3600),
                end: NOW.plus_secs(7200),
                template_id: 1000,
                stream_type: StreamType::Pushed,
            }),
            Response::TaskCreated { task_id: text("task-1") },
        ),
        (
            Request::DescribeScreenshotTask(DescribeScreenshotTask {
                start: NOW.plus_secs(-DAY_SECS),
                end: NOW,
                domain_name: Some(text("push.example.com")),
                app_name: Some(text("live")),
                stream_name: Some(text("room_1001")),
                scroll_token: Some(text("next-1")),
            }),
            Response::Tasks {
                scroll_token: text("next-2"),
                task_list: vec![ScreenshotTask {
                    task_id: text("task-1"),
                    domain_name: text("push.example.com"),
                    app_name: text("live"),
                    stream_name: text("room_1001"),
                    start_time: NOW.plus_secs(-7200),
                    end_time: NOW.plus_secs(-3600),
                    template_id: 1000,
                    stopped: UnixSecs(0),
                }],
            },
        ),
        (Request::StopScreenshotTask(one_task()), Response::Done {}),
        (Request::DeleteScreenshotTask(one_task()), Response::Done {}),
        (
            Request::DescribeCallbackRecordsList(DescribeCallbackRecords {
                start: NOW.plus_secs(-DAY_SECS),
                end: NOW,
                notation: Notation::Offset(28_800),
                stream_name: text("room_1001"),
                page: Page { num: 1, size: 20 },
                event_type: Some(200),
                result_code: Some(0),
            }),
            Response::CallbackRecords {
                data_info_list: vec![CallbackRecord {
                    event_time: time(-600),
                    event_type: 200,
                    request: text(r#"{"event_type":200}"#),
                    response: text(r#"{"code":0}"#),
                    response_time: time(-599),
                    result_code: 0,
                    stream_id: text("room_1001"),
                }],
                paging: Page { num: 1, size: 20 }.of(21),
            },
        ),
        (
            Request::DescribeScreenShotSheetNumList(DescribeScreenshotCounts {
                start: NOW.plus_secs(-31 * DAY_SECS),
                end: NOW,
                zone: Some(Zone::Mainland),
                push_domains: vec![text("push.example.com"), text("push2.example.com")],
                granularity: Granularity::FiveMinutes,
            }),
            Response::ScreenshotCounts {
                data_info_list: vec![ScreenshotCount { time: ApiTime::utc(NOW.plus_secs(-300)), num: 30 }],
            },
        ),
    ]
}

/// Of domains and streams.
fn control() -> Vec<(Request, Response)> {
    vec![
        (
            Request::AddLiveDomain(AddDomain {
                domain_name: text("push.example.com"),
                domain_type: DomainType::Push,
                play_type: 2,
                is_delay_live: false,
                is_mini_program_live: false,
            }),
            Response::Done {},
        ),
        (
            Request::DeleteLiveDomain(DeleteDomain {
                domain_name: text("push.example.com"),
                domain_type: DomainType::Push,
            }),
            Response::Done {},
        ),
        (Request::DescribeLiveDomain(one_domain()), Response::Domain { domain_info: domain() }),
        (
            Request::DescribeLiveDomains(DescribeDomains {
                is_enabled: Some(true),
                domain_type: Some(DomainType::Push),
                page: Page { num: 2, size: 20 },
                is_delay_live: Some(false),
                domain_prefix: Some(text("push")),
                play_type: Some(1),
            }),
            Response::Domains {
                all_count: 21,
                domain_list: vec![domain()],
                create_limit_count: 79,
                play_type_count: [0, 0, 0],
            },
        ),
        (Request::EnableLiveDomain(one_domain()), Response::Done {}),
        (Request::ForbidLiveDomain(one_domain()), Response::Done {}),
        (
            Request::DescribeLivePushAuthKey(one_domain()),
            Response::PushAuthKey {
                push_auth_key_info: PushAuthKeyInfo {
                    domain_name: text("push.example.com"),
                    enable: 1,
                    master_auth_key: Secret::new("M4sterPushKey0123456789abcdefXYZ"),
                    backup_auth_key: Secret::new(""),
                    auth_delta: 0,
                },
            },
        ),
        (
            Request::ModifyLivePushAuthKey(ModifyPushAuthKey {
                domain_name: text("push.example.com"),
                enable: Some(true),
                master_auth_key: secret("M4sterPushKey0123456789abcdefXYZ"),
                backup_auth_key: secret("B4ckupPushKey0123456789abcdefXYZ"),
                auth_delta: Some(60),
            }),
            Response::Done {},
        ),
        (
            Request::DescribeLiveStreamOnlineList(DescribeOnlineStreams {
                domain_name: Some(text("push.example.com")),
                app_name: Some(text("live")),
                stream_name: Some(text("room_1001")),
                page: Page { num: 1, size: 300_000 },
            }),
            Response::OnlineStreams {
                online_info: vec![OnlineStream {
                    stream_name: text("room_1001"),
                    app_name: text("live"),
                    domain_name: text("push.example.com"),
                    publish_time_list: vec![PublishTime { publish_time: ApiTime::utc(NOW) }],
                    push_to_delay: 0,
                }],
                paging: Page { num: 1, size: 300_000 }.of(1),
            },
        ),
        (Request::DescribeLiveStreamState(one_stream()), Response::StreamState { stream_state: StreamState::Inactive }),
        (Request::DropLiveStream(one_stream()), Response::Done {}),
        (
            Request::ForbidLiveStream(ForbidStream {
                stream: one_stream(),
                resume: NOW.plus_secs(DAY_SECS),
                reason: Some(text("测试")),
            }),
            Response::Done {},
        ),
        (Request::ResumeLiveStream(one_stream()), Response::Done {}),
        (
            Request::DescribeLiveForbidStreamList(DescribeForbiddenStreams {
                stream_name: Some(text("room_1001")),
                page: Page { num: 1, size: 100 },
            }),
            Response::ForbiddenStreams {
                forbid_stream_list: vec![ForbiddenStream {
                    stream_name: text("room_1001"),
                    create_time: ApiTime::beijing(NOW),
                    expire_time: ApiTime::beijing(NOW.plus_secs(DAY_SECS)),
                    app_name: text("live"),
                    domain_name: text("push.example.com"),
                }],
                paging: Page { num: 1, size: 100 }.of(1),
            },
        ),
        (
            Request::DescribeLiveStreamEventList(DescribeStreamEvents {
                start: NOW.plus_secs(-DAY_SECS),
                end: NOW,
                domain_name: Some(text("push.example.com")),
                app_name: Some(text("live")),
                stream_name: Some(text("room")),
                page: Page { num: 1, size: 10 },
                is_filter: true,
                is_strict: false,
                is_asc: true,
            }),
            Response::StreamEvents {
                event_list: vec![StreamEvent {
                    app_name: text("live"),
                    domain_name: text("push.example.com"),
                    stream_name: text("room_1001"),
                    stream_start_time: ApiTime::utc(NOW.plus_secs(-7200)),
                    stream_end_time: ApiTime::utc(NOW.plus_secs(-3600)),
                    stop_reason: text("recv rtmp deleteStream"),
                    duration: 3600,
                    client_ip: text("203.0.113.7"),
                    resolution: text("1280x720"),
                }],
                paging: Page { num: 1, size: 10 }.of(1),
            },
        ),
    ]
}

fn cases() -> Vec<(Request, Response)> {
    [configuration(), records(), control()].concat()
}

fn golden(action: Action, kind: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{action}.{kind}.json"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_action_has_one_case_and_nothing_else_lies_there() {
    let mut actions: Vec<_> = cases().iter().map(|(request, _)| request.action()).collect();
    actions.sort();
    assert_eq!(actions, Action::ALL);
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")).expect("the golden files");
    assert_eq!(files.count(), 2 * Action::ALL.len());
}

#[test]
fn reads_every_golden_request() {
    for (expected, _) in cases() {
        let action = expected.action();
        let mut params =
            Params::from_json(golden(action, "request").as_bytes()).unwrap_or_else(|error| panic!("{action}: {error}"));
        assert_eq!(Request::parse(action, &mut params, NOW), Ok(expected), "{action}");
        assert_eq!(params.unread().collect::<Vec<_>>(), [""; 0], "{action}");
    }
}

#[test]
fn reads_every_golden_request_as_a_form() {
    for (expected, _) in cases() {
        let action = expected.action();
        let json: Value =
            serde_json::from_str(&golden(action, "request")).unwrap_or_else(|error| panic!("{action}: {error}"));
        let mut query = format!("Action={action}&Version=2018-08-01&SecretId=AKID&Nonce=1&Timestamp=1&Signature=x");
        flatten("", &json, &mut query);
        let headers = [("Host", "live.tencentcloudapi.com")];
        let request = HttpRequest { method: "GET", query: &query, headers: &headers, body: b"" };
        let mut call = Call::parse(&request).unwrap_or_else(|error| panic!("{action}: {error}"));
        assert_eq!(Request::parse(call.action, &mut call.params, NOW), Ok(expected), "{action}");
        assert_eq!(call.params.unread().collect::<Vec<_>>(), [""; 0], "{action}");
    }
}

/// Appends `&A.0.B=x` for each value, as SDKs do for GET.
fn flatten(name: &str, value: &Value, query: &mut String) {
    let inner = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
    let plain = match value {
        Value::Object(members) => return members.iter().for_each(|(part, value)| flatten(&inner(part), value, query)),
        Value::Array(items) => {
            let numbered = items.iter().enumerate();
            return numbered.for_each(|(index, value)| flatten(&inner(&index.to_string()), value, query));
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    *query += &format!("&{name}={}", utf8_percent_encode(&plain, NON_ALPHANUMERIC));
}

#[test]
fn writes_every_golden_response() {
    for (request, response) in cases() {
        let action = request.action();
        let written = String::from_utf8(envelope::success(&response, REQUEST_ID)).expect("UTF-8");
        assert_eq!(written, golden(action, "response").trim_end(), "{action}");
    }
}
