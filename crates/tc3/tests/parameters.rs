//! Which parameters an action needs, which values it takes, and with which code it refuses the rest. Every case is the
//! golden request of `tests/golden` with one parameter changed.

use std::fs;
use std::path::Path;

use framehook_tc3::action::screenshot_count::Granularity;
use framehook_tc3::action::screenshot_task::StreamType;
use framehook_tc3::action::{Action, Request};
use framehook_tc3::error::ApiError;
use framehook_tc3::params::Params;
use framehook_tc3::time::UnixSecs;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// 2025-01-01T00:00:00Z.
const NOW: UnixSecs = UnixSecs(1_735_689_600);
const DAY_SECS: i64 = 86_400;

fn golden(action: Action) -> Map<String, Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{action}.request.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{action}: {error}"))
}

fn parse(action: Action, parameters: Map<String, Value>) -> Result<Request, ApiError> {
    let mut params = Params::from_json(Value::Object(parameters).to_string().as_bytes())?;
    Request::parse(action, &mut params, NOW)
}

/// The golden request with some parameters changed; `null` is as good as absent.
fn changed(action: Action, changes: &Value) -> Result<Request, ApiError> {
    let mut parameters = golden(action);
    for (name, value) in changes.as_object().expect("an object of changes") {
        parameters.insert(name.clone(), value.clone());
    }
    parse(action, parameters)
}

fn code(outcome: &Result<Request, ApiError>) -> &'static str {
    outcome.as_ref().map_or_else(|error| error.code.as_str(), |_| "")
}

#[track_caller]
fn check(action: Action, rows: &[(Value, &str)]) {
    for (changes, expected) in rows {
        assert_eq!(code(&changed(action, changes)), *expected, "{action} {changes}");
    }
}

fn long(bytes: usize) -> String {
    "a".repeat(bytes)
}

const ACCEPTED: &str = "";
const VALUE: &str = "InvalidParameterValue";
const TYPE: &str = "InvalidParameter";
const MISSING: &str = "MissingParameter";
const FILE_NAME: &str = "InvalidParameter.COSCustomFileNameError";
const DOMAIN: &str = "InvalidParameter.DomainFormatError";

#[test]
fn every_parameter_is_needed_or_not_as_documented() {
    for &action in Action::ALL {
        let golden = golden(action);
        let mut needed: Vec<_> = Vec::new();
        for name in golden.keys() {
            let mut without = golden.clone();
            without.remove(name);
            match parse(action, without) {
                Ok(_) => {}
                Err(error) => {
                    assert!(error.to_string().starts_with("MissingParameter: "), "{action}.{name}: {error}");
                    assert!(error.message.contains(&format!("`{name}`")), "{action}.{name}: {error}");
                    needed.push(name.as_str());
                }
            }
        }
        needed.sort_unstable();
        assert_eq!(needed, required(action), "{action}");
    }
}

/// The parameters in bold of the documents' tables, sorted.
fn required(action: Action) -> &'static [&'static str] {
    match action {
        Action::CreateLiveSnapshotTemplate => &["CosAppId", "CosBucket", "CosRegion", "TemplateName"],
        Action::ModifyLiveSnapshotTemplate => &["CosAppId", "CosBucket", "CosRegion", "TemplateId"],
        Action::CreateLiveCallbackTemplate => &["TemplateName"],
        Action::DescribeLiveSnapshotTemplate
        | Action::DeleteLiveSnapshotTemplate
        | Action::DescribeLiveCallbackTemplate
        | Action::ModifyLiveCallbackTemplate
        | Action::DeleteLiveCallbackTemplate => &["TemplateId"],
        Action::CreateLiveSnapshotRule => &["DomainName", "TemplateId"],
        Action::CreateLiveCallbackRule => &["AppName", "DomainName", "TemplateId"],
        Action::DeleteLiveCallbackRule => &["AppName", "DomainName"],
        Action::DeleteLiveSnapshotRule
        | Action::DescribeLiveDomain
        | Action::EnableLiveDomain
        | Action::ForbidLiveDomain
        | Action::DescribeLivePushAuthKey
        | Action::ModifyLivePushAuthKey => &["DomainName"],
        Action::AddLiveDomain | Action::DeleteLiveDomain => &["DomainName", "DomainType"],
        Action::CreateScreenshotTask => &["AppName", "DomainName", "EndTime", "StreamName", "TemplateId"],
        Action::StopScreenshotTask | Action::DeleteScreenshotTask => &["TaskId"],
        Action::DescribeCallbackRecordsList => &["EndTime", "PageNum", "PageSize", "StartTime", "StreamName"],
        Action::DescribeScreenshotTask
        | Action::DescribeScreenShotSheetNumList
        | Action::DescribeLiveStreamEventList => &["EndTime", "StartTime"],
        Action::DescribeLiveStreamState
        | Action::DropLiveStream
        | Action::ForbidLiveStream
        | Action::ResumeLiveStream => &["AppName", "DomainName", "StreamName"],
        Action::DescribeLiveSnapshotTemplates
        | Action::DescribeLiveSnapshotRules
        | Action::DescribeLiveCallbackTemplates
        | Action::DescribeLiveCallbackRules
        | Action::DescribeLiveDomains
        | Action::DescribeLiveStreamOnlineList
        | Action::DescribeLiveForbidStreamList => &[],
    }
}

#[test]
fn snapshot_templates_keep_their_limits() {
    let both = [
        (json!({"TemplateName": long(255)}), ACCEPTED),
        (json!({"TemplateName": long(256)}), VALUE),
        (json!({"TemplateName": "名".repeat(85)}), ACCEPTED),
        (json!({"TemplateName": "名".repeat(86)}), VALUE),
        (json!({"TemplateName": ""}), VALUE),
        (json!({"TemplateName": 10}), TYPE),
        (json!({"Description": long(1024)}), ACCEPTED),
        (json!({"Description": long(1025)}), VALUE),
        (json!({"CosAppId": 0}), VALUE),
        (json!({"CosAppId": "1250000000"}), ACCEPTED),
        (json!({"CosBucket": long(60)}), ACCEPTED),
        (json!({"CosBucket": long(61)}), VALUE),
        (json!({"CosBucket": ""}), VALUE),
        (json!({"CosRegion": long(61)}), VALUE),
        (json!({"SnapshotInterval": 2}), ACCEPTED),
        (json!({"SnapshotInterval": "300"}), ACCEPTED),
        (json!({"SnapshotInterval": 1}), VALUE),
        (json!({"SnapshotInterval": 301}), VALUE),
        (json!({"SnapshotInterval": 10.5}), TYPE),
        (json!({"SnapshotInterval": "ten"}), TYPE),
        (json!({"SnapshotInterval": null}), ACCEPTED),
        (json!({"Width": 3000, "Height": 2000}), ACCEPTED),
        (json!({"Width": 3001}), VALUE),
        (json!({"Height": 2001}), VALUE),
        (json!({"Width": -1}), VALUE),
        (json!({"PornFlag": 1}), ACCEPTED),
        (json!({"PornFlag": 2}), VALUE),
        (json!({"CosPrefix": "", "CosFileName": ""}), ACCEPTED),
        (json!({"CosPrefix": long(851)}), FILE_NAME),
        (json!({"CosFileName": long(851)}), FILE_NAME),
        (json!({"CosFileName": 1}), TYPE),
    ];
    check(Action::CreateLiveSnapshotTemplate, &both);
    check(Action::ModifyLiveSnapshotTemplate, &both);
    check(Action::ModifyLiveSnapshotTemplate, &[(json!({"TemplateName": null}), ACCEPTED)]);
}

#[test]
fn templates_are_named_by_positive_ids() {
    for action in [
        Action::DescribeLiveSnapshotTemplate,
        Action::DeleteLiveSnapshotTemplate,
        Action::ModifyLiveSnapshotTemplate,
        Action::CreateLiveSnapshotRule,
        Action::DescribeLiveCallbackTemplate,
        Action::DeleteLiveCallbackTemplate,
        Action::ModifyLiveCallbackTemplate,
        Action::CreateLiveCallbackRule,
    ] {
        check(
            action,
            &[
                (json!({"TemplateId": "1"}), ACCEPTED),
                (json!({"TemplateId": i64::MAX}), ACCEPTED),
                (json!({"TemplateId": 0}), VALUE),
                (json!({"TemplateId": -1}), VALUE),
                (json!({"TemplateId": u64::MAX}), TYPE),
                (json!({"TemplateId": [1]}), TYPE),
                (json!({"TemplateId": null}), MISSING),
            ],
        );
    }
}

#[test]
fn callback_templates_keep_their_limits() {
    let url = |bytes: usize| format!("http://a.example/{}", long(bytes - 17));
    for action in [Action::CreateLiveCallbackTemplate, Action::ModifyLiveCallbackTemplate] {
        check(
            action,
            &[
                (json!({"SnapshotNotifyUrl": url(2048)}), ACCEPTED),
                (json!({"SnapshotNotifyUrl": url(2049)}), VALUE),
                (json!({"RecordNotifyUrl": url(2049)}), VALUE),
                (json!({"CallbackKey": long(128)}), ACCEPTED),
                (json!({"CallbackKey": ""}), ACCEPTED),
                (json!({"CallbackKey": long(129)}), VALUE),
                (json!({"RecordExceptionLevels": []}), ACCEPTED),
                (json!({"RecordExceptionLevels": ["error", "warning", "info", "alarm"]}), ACCEPTED),
                (json!({"RecordExceptionLevels": ["fatal"]}), VALUE),
                (json!({"RecordExceptionLevels": ["info", "info", "info", "info", "info"]}), VALUE),
                (json!({"RecordExceptionLevels": "error"}), TYPE),
            ],
        );
    }
}

#[test]
fn a_new_callback_template_needs_a_url() {
    let without_urls = |value: &Value| {
        let mut parameters = golden(Action::CreateLiveCallbackTemplate);
        for (name, url) in &mut parameters {
            // The deprecated one does not count.
            if name.ends_with("NotifyUrl") && name != "StreamMixNotifyUrl" {
                *url = value.clone();
            }
        }
        parameters
    };
    for value in [Value::Null, json!("")] {
        let mut parameters = without_urls(&value);
        assert_eq!(code(&parse(Action::CreateLiveCallbackTemplate, parameters.clone())), MISSING);
        parameters.insert("RecordStatusNotifyUrl".into(), json!("http://a.example/"));
        assert_eq!(code(&parse(Action::CreateLiveCallbackTemplate, parameters)), ACCEPTED, "one is enough");
    }
    let mut parameters = without_urls(&Value::Null);
    parameters.insert("TemplateId".into(), json!(1));
    assert_eq!(code(&parse(Action::ModifyLiveCallbackTemplate, parameters)), ACCEPTED, "absent means unchanged");
}

#[test]
fn a_domain_of_a_wrong_length_has_the_code_that_the_action_documents() {
    for (action, expected) in [
        (Action::CreateLiveSnapshotRule, DOMAIN),
        (Action::DeleteLiveSnapshotRule, DOMAIN),
        (Action::CreateLiveCallbackRule, DOMAIN),
        (Action::DeleteLiveCallbackRule, TYPE),
        (Action::CreateScreenshotTask, TYPE),
        (Action::AddLiveDomain, "InvalidParameter.DomainTooLong"),
        (Action::DeleteLiveDomain, DOMAIN),
        (Action::DescribeLiveDomain, TYPE),
        (Action::EnableLiveDomain, DOMAIN),
        (Action::ForbidLiveDomain, TYPE),
        (Action::DescribeLivePushAuthKey, TYPE),
        (Action::ModifyLivePushAuthKey, TYPE),
        (Action::DescribeLiveStreamState, TYPE),
        (Action::ForbidLiveStream, TYPE),
    ] {
        check(action, &[(json!({"DomainName": long(45)}), ACCEPTED), (json!({"DomainName": long(46)}), expected)]);
    }
}

#[test]
fn rules_have_their_defaults() {
    for (action, app, stream) in [
        (Action::CreateLiveSnapshotRule, json!(null), json!(null)),
        (Action::DeleteLiveSnapshotRule, json!(null), json!(null)),
    ] {
        let scope = match changed(action, &json!({"AppName": app, "StreamName": stream})) {
            Ok(Request::CreateLiveSnapshotRule(rule)) => rule.scope,
            Ok(Request::DeleteLiveSnapshotRule(scope)) => scope,
            other => panic!("{other:?}"),
        };
        assert_eq!((scope.app_name.as_str(), scope.stream_name.as_str()), ("live", ""), "{action}");
        check(action, &[(json!({"AppName": "", "StreamName": ""}), ACCEPTED), (json!({"AppName": "*"}), ACCEPTED)]);
    }
    check(
        Action::CreateLiveCallbackRule,
        &[
            (json!({"AppName": "*"}), ACCEPTED),
            (json!({"AppName": null}), MISSING),
            (json!({"AppName": long(257)}), VALUE),
        ],
    );
}

#[test]
fn tasks_keep_within_their_window() {
    let at = |secs: i64| NOW.0 + secs;
    check(
        Action::CreateScreenshotTask,
        &[
            (json!({"StartTime": null, "EndTime": at(1)}), ACCEPTED),
            (json!({"StartTime": null, "EndTime": at(DAY_SECS)}), ACCEPTED),
            (json!({"StartTime": null, "EndTime": at(DAY_SECS + 1)}), TYPE),
            (json!({"StartTime": at(-3600), "EndTime": at(3600)}), ACCEPTED),
            (json!({"EndTime": at(0)}), TYPE),
            (json!({"StartTime": at(7200), "EndTime": at(7200)}), TYPE),
            (json!({"StartTime": at(6 * DAY_SECS), "EndTime": at(7 * DAY_SECS - 1)}), ACCEPTED),
            (json!({"StartTime": at(6 * DAY_SECS), "EndTime": at(7 * DAY_SECS)}), TYPE),
            (json!({"StartTime": at(6 * DAY_SECS + 1), "EndTime": at(7 * DAY_SECS - 1)}), TYPE),
            (json!({"StartTime": -1}), VALUE),
            (json!({"EndTime": i64::MAX}), TYPE),
            (json!({"TemplateId": 0}), ACCEPTED),
            (json!({"TemplateId": -1}), VALUE),
            (json!({"StreamType": 2}), VALUE),
            (json!({"Extension": long(1025)}), VALUE),
            (json!({"StreamName": ""}), VALUE),
        ],
    );
    check(
        Action::DescribeScreenshotTask,
        &[
            (json!({"StartTime": at(-7 * DAY_SECS)}), ACCEPTED),
            (json!({"StartTime": at(-7 * DAY_SECS - 1)}), TYPE),
            (json!({"StartTime": at(1)}), TYPE),
            (json!({"StartTime": at(-90 * DAY_SECS), "EndTime": at(-90 * DAY_SECS)}), ACCEPTED),
            (json!({"StartTime": at(-91 * DAY_SECS), "EndTime": at(-90 * DAY_SECS)}), TYPE),
            (json!({"ScrollToken": long(257)}), VALUE),
        ],
    );
    check(Action::StopScreenshotTask, &[(json!({"TaskId": long(129)}), VALUE), (json!({"TaskId": ""}), VALUE)]);
}

#[test]
fn absent_parameters_of_a_task_have_their_defaults() {
    let task = changed(Action::CreateScreenshotTask, &json!({"StartTime": null, "StreamType": null}));
    let Ok(Request::CreateScreenshotTask(task)) = task else { panic!("{task:?}") };
    assert_eq!((task.start, task.stream_type), (NOW, StreamType::Pushed));
    let task = changed(Action::CreateScreenshotTask, &json!({"StreamType": 1}));
    let Ok(Request::CreateScreenshotTask(task)) = task else { panic!("{task:?}") };
    assert_eq!(task.stream_type, StreamType::Mixed);
}

#[test]
fn logs_and_counts_keep_within_their_windows() {
    check(
        Action::DescribeCallbackRecordsList,
        &[
            (json!({"StartTime": "2024-12-31T00:00:00Z"}), ACCEPTED),
            (json!({"StartTime": "2024-12-31 08:00:00", "EndTime": "2025-01-01 08:00:00"}), ACCEPTED),
            (json!({"StartTime": "2024-12-30T23:59:59Z"}), VALUE),
            (json!({"StartTime": "2024-12-18 08:00:00", "EndTime": "2024-12-19 08:00:00"}), ACCEPTED),
            (json!({"StartTime": "2024-12-17 08:00:00", "EndTime": "2024-12-18 08:00:00"}), VALUE),
            (json!({"StartTime": "2025-01-01T00:00:01Z"}), VALUE),
            (json!({"StartTime": "yesterday"}), TYPE),
            (json!({"StartTime": NOW.0}), TYPE),
            (json!({"PageNum": 0}), VALUE),
            (json!({"PageNum": 100_001}), VALUE),
            (json!({"PageSize": 1000}), ACCEPTED),
            (json!({"PageSize": 1001}), VALUE),
            (json!({"EventType": null, "ResultCode": null}), ACCEPTED),
            (json!({"EventType": 341, "ResultCode": -1}), ACCEPTED),
            (json!({"EventType": -1}), VALUE),
        ],
    );
    check(
        Action::DescribeScreenShotSheetNumList,
        &[
            (json!({"StartTime": "2024-11-30T23:59:59Z"}), VALUE),
            (json!({"StartTime": "2024-11-30T23:59:59Z", "Granularity": "Day"}), ACCEPTED),
            (json!({"StartTime": "2024-06-29T00:00:00Z", "Granularity": "Day"}), ACCEPTED),
            (json!({"StartTime": "2024-06-28T23:59:59Z", "Granularity": "Day"}), VALUE),
            (json!({"StartTime": "2024-09-30T00:00:00Z", "EndTime": "2024-10-01T00:00:00Z"}), ACCEPTED),
            (json!({"StartTime": "2024-09-29T00:00:00Z", "EndTime": "2024-10-01T00:00:00Z"}), VALUE),
            (json!({"Granularity": "Hour"}), VALUE),
            (json!({"Zone": "Oversea"}), ACCEPTED),
            (json!({"Zone": "Europe"}), VALUE),
            (json!({"PushDomains": vec![long(45); 100]}), ACCEPTED),
            (json!({"PushDomains": vec![long(45); 101]}), VALUE),
            (json!({"PushDomains": [long(46)]}), VALUE),
            (json!({"PushDomains": [""]}), VALUE),
            (json!({"PushDomains": null, "Zone": null}), ACCEPTED),
        ],
    );
    let counts = changed(Action::DescribeScreenShotSheetNumList, &json!({"Granularity": null}));
    let Ok(Request::DescribeScreenShotSheetNumList(counts)) = counts else { panic!("{counts:?}") };
    assert_eq!(counts.granularity, Granularity::Day);
}

#[test]
fn domains_keep_their_limits() {
    check(
        Action::AddLiveDomain,
        &[
            (json!({"DomainType": 1}), ACCEPTED),
            (json!({"DomainType": 2}), VALUE),
            (json!({"PlayType": 3}), ACCEPTED),
            (json!({"PlayType": 0}), VALUE),
            (json!({"IsDelayLive": 2}), VALUE),
            (json!({"VerifyOwnerType": "dnsCheck"}), ACCEPTED),
            (json!({"VerifyOwnerType": "none"}), VALUE),
        ],
    );
    check(
        Action::DescribeLiveDomains,
        &[
            (json!({"PageSize": 10}), ACCEPTED),
            (json!({"PageSize": 9}), VALUE),
            (json!({"PageSize": 101}), VALUE),
            (json!({"PageNum": 100_000}), ACCEPTED),
            (json!({"PageNum": 100_001}), VALUE),
            (json!({"DomainStatus": 2}), VALUE),
        ],
    );
    check(
        Action::ModifyLivePushAuthKey,
        &[
            (json!({"MasterAuthKey": long(256), "BackupAuthKey": ""}), ACCEPTED),
            (json!({"MasterAuthKey": long(257)}), VALUE),
            (json!({"AuthDelta": 0}), ACCEPTED),
            (json!({"AuthDelta": -1}), VALUE),
            (json!({"AuthDelta": i64::MAX}), VALUE),
            (json!({"Enable": 2}), VALUE),
        ],
    );
}

#[test]
fn streams_keep_their_limits() {
    check(
        Action::ForbidLiveStream,
        &[
            (json!({"ResumeTime": "2025-01-01T00:00:00Z"}), VALUE),
            (json!({"ResumeTime": "2025-01-01T00:00:01Z"}), ACCEPTED),
            (json!({"ResumeTime": "2025-04-01T00:00:00Z"}), ACCEPTED),
            (json!({"ResumeTime": "2025-04-01T00:00:01Z"}), VALUE),
            (json!({"ResumeTime": "tomorrow"}), TYPE),
            (json!({"Reason": long(2048)}), ACCEPTED),
            (json!({"Reason": long(2049)}), VALUE),
            (json!({"AppName": ""}), VALUE),
        ],
    );
    check(
        Action::DescribeLiveStreamOnlineList,
        &[
            (json!({"PageSize": 10}), ACCEPTED),
            (json!({"PageSize": 9}), VALUE),
            (json!({"PageSize": 300_001}), VALUE),
            (json!({"DomainName": "", "AppName": "", "StreamName": ""}), ACCEPTED),
        ],
    );
    check(
        Action::DescribeLiveForbidStreamList,
        &[(json!({"PageSize": 1}), ACCEPTED), (json!({"PageSize": 101}), VALUE)],
    );
    check(
        Action::DescribeLiveStreamEventList,
        &[
            (json!({"StartTime": "2024-12-01T00:00:00Z"}), ACCEPTED),
            (json!({"StartTime": "2024-11-30T23:59:59Z"}), VALUE),
            (json!({"StartTime": "2024-10-31T00:00:00Z", "EndTime": "2024-10-31T01:00:00Z"}), ACCEPTED),
            (json!({"StartTime": "2024-10-30T00:00:00Z", "EndTime": "2024-10-31T00:00:00Z"}), VALUE),
            (json!({"PageSize": 101}), VALUE),
            (json!({"IsStrict": 2}), VALUE),
        ],
    );
    let forbid = changed(Action::ForbidLiveStream, &json!({"ResumeTime": null, "Reason": null}));
    let Ok(Request::ForbidLiveStream(forbid)) = forbid else { panic!("{forbid:?}") };
    assert_eq!((forbid.resume, forbid.reason), (NOW.plus_secs(7 * DAY_SECS), None));
}

#[test]
fn empty_filters_filter_nothing() {
    let list =
        changed(Action::DescribeLiveStreamOnlineList, &json!({"DomainName": "", "AppName": "", "StreamName": null}));
    let Ok(Request::DescribeLiveStreamOnlineList(list)) = list else { panic!("{list:?}") };
    assert_eq!((list.domain_name, list.app_name, list.stream_name), (None, None, None));
}

#[test]
fn unknown_parameters_are_left_for_the_caller_to_judge() {
    let mut params = Params::from_json(br#"{"TemplateId":1,"TemplateIdd":2}"#).expect("JSON");
    assert!(Request::parse(Action::DeleteLiveSnapshotTemplate, &mut params, NOW).is_ok());
    assert_eq!(params.unread().collect::<Vec<_>>(), ["TemplateIdd"]);
}

#[test]
fn requests_print_no_keys_and_no_urls() {
    for (action, name) in [
        (Action::CreateLiveCallbackTemplate, "CallbackKey"),
        (Action::CreateLiveCallbackTemplate, "SnapshotNotifyUrl"),
        (Action::ModifyLivePushAuthKey, "MasterAuthKey"),
        (Action::ModifyLivePushAuthKey, "BackupAuthKey"),
    ] {
        let request = changed(action, &json!({name: "hunter2"})).expect("a request");
        assert!(!format!("{request:?}").contains("hunter2"), "{action}.{name}");
        let refused = changed(action, &json!({name: "hunter2".repeat(1000)})).expect_err("too long");
        assert!(!format!("{refused:?}").contains("hunter2"), "{action}.{name}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-5..400_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        prop::collection::vec("[a-z.]{0,50}".prop_map(Value::from), 0..4).prop_map(Value::from),
        Just(json!({"0": "a", "1": {"B": []}})),
    ]
}

proptest! {
    #[test]
    fn any_value_is_taken_or_refused_with_a_documented_code(
        index in 0..Action::ALL.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 1..4),
        now in prop_oneof![Just(NOW.0), any::<i64>()],
    ) {
        let action = Action::ALL[index];
        let mut parameters = golden(action);
        let names: Vec<_> = parameters.keys().cloned().collect();
        if !names.is_empty() {
            for (name, value) in changes {
                parameters.insert(name.get(&names).clone(), value);
            }
        }
        let mut params = Params::from_json(Value::Object(parameters).to_string().as_bytes()).expect("JSON");
        if let Err(error) = Request::parse(action, &mut params, UnixSecs(now)) {
            prop_assert!(action.documents(error.code), "{} {}", action, error);
        }
    }
}
