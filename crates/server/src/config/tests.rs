use framehook_domain::callback::EventKind;
use framehook_domain::retry::Schedule;

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, &Sources::default())
}

/// What a person reads, one line per problem.
fn complaints(text: &str) -> Vec<String> {
    let error = parse(text).expect_err("the text has problems");
    error.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_gives_the_documented_defaults() {
    let config = Config::default();
    assert_eq!(config.data_dir, Path::new("./framehook-data"));
    assert_eq!(config.rtmp.addr.to_string(), "[::]:1935");
    assert_eq!(config.http.addr.to_string(), "127.0.0.1:8080");
    assert_eq!(config.http.admin, None);
    assert_eq!(config.ingest.reconnect_grace, Duration::from_secs(70));
    assert_eq!(config.ingest.keyframe_bytes_max, ByteSize(256 << 20));
    assert_eq!(config.spool.bytes_max, ByteSize(4 << 30));
    assert_eq!(config.spool.disk_reserve, ByteSize(512 << 20));
    assert_eq!(config.deliver.timeout, Duration::from_secs(20));
    let [snapshot, push] = [EventKind::Snapshot, EventKind::PushBegan].map(Schedule::css);
    assert_eq!(
        (config.deliver.snapshot_retries, config.deliver.snapshot_retry_interval),
        (5, Duration::from_secs(120))
    );
    assert_eq!((snapshot.retries, snapshot.step), (5, Duration::from_secs(120)));
    assert_eq!((config.deliver.push_retries, config.deliver.push_retry_interval), (12, Duration::from_secs(60)));
    assert_eq!((push.retries, push.step), (12, Duration::from_secs(60)));
    assert_eq!(config.deliver.held_max, Duration::from_secs(24 * 3600));
    assert_eq!(config.deliver.log_bytes_max, ByteSize(2 << 30));
    assert_eq!(config.names.time_zone, NameZone::default());
    assert!(!config.render.unsafe_no_jail);
}

#[test]
fn every_default_lies_in_its_range_and_every_range_can_be_read() {
    // A bound that cannot be parsed would count as no bound: each is therefore also written as a value.
    for table in TABLES.iter().filter(|table| !table.repeated) {
        for field in table.fields {
            let Some((least, most)) = field.range else { continue };
            for bound in [least, most] {
                let value = if field.quoted { format!("{bound:?}") } else { bound.to_owned() };
                let header = if table.path.is_empty() { String::new() } else { format!("[{}]\n", table.path) };
                let problems = match parse(&format!("{header}{} = {value}", field.name)) {
                    Ok(_) => Vec::new(),
                    Err(error) => error.problems,
                };
                let key = table.key(field);
                assert!(!problems.iter().any(|problem| problem.key == key), "{key} = {value}: {problems:?}");
            }
        }
    }
}

#[test]
fn reports_every_problem_at_once_with_key_value_and_range() {
    let text = r#"
        app_id = 0
        colour = "red"
        [deliver]
        timeout = "20"
        snapshot_retries = 101
        retry = 1
        allow_receiver = ["10.0.0.0/8", "example.com"]
        [rtmp]
        adr = "[::]:1935"
        [spool]
        bytes_max = "1KiB"
        [[snapshot_rule]]
        domain = "push.example.com"
        [[domain]]
        name = "push.example.com"
        main_key = "x"
        main_kee = "x"
    "#;
    assert_eq!(
        complaints(text),
        [
            "colour: is no setting; `framehook config reference` lists them all",
            "deliver.retry: is no setting; `framehook config reference` lists them all",
            "domain[1].main_kee: is no setting; did you mean main_key?",
            "rtmp.adr: is no setting; did you mean rtmp.addr?",
            "app_id = 0: must be from 1 to 9223372036854775807",
            "spool.bytes_max = \"1KiB\": must be from 16MiB to 64TiB",
            "deliver.allow_receiver = [\"10.0.0.0/8\", \"example.com\"]: example.com is not an address block such as \
             10.1.0.0/16 or fd00:1::/48",
            "deliver.timeout = \"20\": expected a duration such as \"250ms\", \"10s\", \"2m\", \"1h30m\" or \"14d\" \
             from 100ms to 5m",
            "deliver.snapshot_retries = 101: must be from 0 to 100",
            "snapshot_rule[1].template: is required: expected a text",
        ]
    );
}

#[test]
fn refuses_a_value_of_another_kind() {
    assert_eq!(complaints("rtmp = 1935"), ["rtmp: expected [rtmp]"]);
    assert_eq!(complaints("domain = 1"), ["domain: expected [[domain]]"]);
    assert_eq!(complaints("[domain]\nname = \"a\""), ["domain: expected [[domain]]"]);
    assert_eq!(complaints("domain = [1]")[0], "domain[1] = 1: expected [[domain]]");
    assert_eq!(
        complaints("app_id = \"1\"")[0],
        "app_id = \"1\": expected a whole number from 1 to 9223372036854775807"
    );
    assert_eq!(complaints("app_id = -1")[0], "app_id = -1: must be from 1 to 9223372036854775807");
    assert_eq!(complaints("[render]\nunsafe_no_jail = 1"), ["render.unsafe_no_jail = 1: expected true or false"]);
}

#[test]
fn shows_where_a_file_is_not_toml() {
    let complaints = complaints("app_id = 1\n[rtmp\n");
    assert!(complaints[0].contains("line 2"), "{complaints:?}");
}

#[test]
fn a_line_that_is_not_toml_is_not_repeated() {
    let complaints = complaints("app_id = 1\n[[domain]]\nmain_key = \"hunter2\n").join("\n");
    assert!(complaints.contains("line 3, column"), "{complaints}");
    assert!(!complaints.contains("hunter2"), "{complaints}");
}

#[test]
fn names_and_urls_are_judged_before_any_port_opens() {
    let public = |url: &str| complaints(&format!("[store.local]\npublic_url = {url:?}")).join("\n");
    assert_eq!(
        complaints("[ingest]\ndefault_domain = \"a b\""),
        [
            "ingest.default_domain = \"a b\": expected a host name of at most 45 letters, digits, - . _, or an IP address"
        ]
    );
    for (url, part) in [
        ("http://pics.example.com/objects?a=b", "a query"),
        ("http://pics.example.com/objects#top", "a fragment"),
        ("http://user:hunter2@pics.example.com/objects", "a user or password"),
    ] {
        let complaint = public(url);
        assert!(complaint.starts_with("store.local.public_url"), "{complaint}");
        assert!(
            complaint.ends_with(&format!("must not have {part}: an object's name is appended to it")),
            "{complaint}"
        );
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }
    assert!(parse("[store.local]\npublic_url = \"https://pics.example.com/objects/\"").is_ok());
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let mut sources = Sources {
        environment: vec![
            ("FRAMEHOOK_RTMP_ADDR".to_owned(), "127.0.0.1:2".to_owned()),
            ("FRAMEHOOK_HTTP_ADDR".to_owned(), "127.0.0.1:2".to_owned()),
            ("FRAMEHOOK_DELIVER_ALLOW_RECEIVER".to_owned(), "10.0.0.0/8, 127.0.0.1".to_owned()),
        ],
        ..Sources::default()
    };
    sources.flag("--rtmp", "rtmp.addr", "127.0.0.1:3");
    let text = "data_dir = \"here\"\n[rtmp]\naddr = \"127.0.0.1:1\"\n[http]\naddr = \"127.0.0.1:1\"";
    let config = Config::parse(text, &sources).expect("valid");
    assert_eq!(config.rtmp.addr.port(), 3);
    assert_eq!(config.http.addr.port(), 2);
    assert_eq!(config.data_dir, Path::new("here"));
    assert_eq!(config.deliver.allow_receiver.len(), 2);
}

#[test]
fn a_repeated_flag_makes_a_list() {
    let mut sources = Sources::default();
    sources.flag("--allow-receiver", "deliver.allow_receiver", "10.0.0.0/8");
    sources.flag("--allow-receiver", "deliver.allow_receiver", "192.168.0.0/16");
    let config = Config::parse("[deliver]\nallow_receiver = [\"172.16.0.0/12\"]", &sources).expect("valid");
    let shown: Vec<String> = config.deliver.allow_receiver.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.0/8", "192.168.0.0/16"]);
}

#[test]
fn a_bad_value_is_blamed_on_where_it_was_read() {
    let mut sources = Sources {
        environment: vec![("FRAMEHOOK_DELIVER_TIMEOUT".to_owned(), "soon".to_owned())],
        ..Sources::default()
    };
    sources.flag("--rtmp", "rtmp.addr", "1935");
    let error = Config::parse("", &sources).expect_err("two bad values");
    let complaints: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
    assert!(
        complaints[0].starts_with("rtmp.addr = \"1935\" (flag --rtmp): expected an address and port"),
        "{complaints:?}"
    );
    let expected = "deliver.timeout = \"soon\" (environment variable FRAMEHOOK_DELIVER_TIMEOUT): expected a duration";
    assert!(complaints[1].starts_with(expected), "{complaints:?}");
}

#[test]
fn a_mistyped_variable_is_named_but_not_refused() {
    let names = ["FRAMEHOOK_RTMP_ADR", "FRAMEHOOK_PORT_8080_TCP_PROTO", "FRAMEHOOK_MASTER_KEY", "HOME"];
    let environment = names.map(|name| (name.to_owned(), "x".to_owned())).to_vec();
    let sources = Sources { environment, ..Sources::default() };
    Config::parse("", &sources).expect("unknown variables are passed over");
    assert_eq!(
        sources.unknown_variables(),
        [
            ("FRAMEHOOK_RTMP_ADR".to_owned(), Some("FRAMEHOOK_RTMP_ADDR".to_owned())),
            ("FRAMEHOOK_PORT_8080_TCP_PROTO".to_owned(), None),
        ]
    );
}

#[test]
fn a_secret_is_repeated_in_no_message() {
    let text = "[[callback_template]]\nname = \"a\"\ncallback_key = 77123\nsnapshot_notify_url = 88123";
    let complaints = complaints(text).join("\n");
    assert!(complaints.contains("callback_template[1].callback_key: expected a text"), "{complaints}");
    assert!(!complaints.contains("123"), "{complaints}");
    let config =
        parse("app_id = 9223372036854775807\n[[domain]]\nname = \"a\"\nmain_key = \"hunter2\"").expect("valid");
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.built_in_store().full_bucket(), "framehook-9223372036854775807");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    assert_eq!(
        complaints("[shutdown]\nputs = \"15s\"\n[http]\naddr = \"127.0.0.1:80\"\nadmin = \"127.0.0.1:80\""),
        [
            "shutdown: the steps take 28s together, and may take 18s at most",
            "http.admin = \"127.0.0.1:80\": must differ from http.addr",
        ]
    );
}

#[test]
fn a_missing_file_is_named() {
    let file = Some(PathBuf::from("/nowhere/framehook.toml"));
    let error = Config::load(&Sources { file, ..Sources::default() }).expect_err("no file");
    assert!(error.problems[0].to_string().contains("/nowhere/framehook.toml"), "{error:?}");
}
