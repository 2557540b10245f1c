//! One suite for every object store: the local one, S3 as moto keeps it and botocore judges it, and COS as the vendor's SDK
//! judges it. What was put is read back by the vendors' own SDKs.

#![expect(clippy::disallowed_methods, reason = "runs real parts")]

mod refusals;
mod subject;
mod urls;

use framehook_server::store::{Retry, StoreError};

use subject::{Subject, each};

#[test]
fn what_is_put_can_be_fetched() {
    each(|subject| {
        subject.put("2025-01-01/a.jpg", b"picture").unwrap_or_else(|error| panic!("{subject}: {error:?}"));
        assert_eq!(subject.read("2025-01-01/a.jpg").as_deref(), Some(&b"picture"[..]), "{subject}");
        assert!(subject.exists("2025-01-01/a.jpg").expect("asked"), "{subject}");
        assert!(!subject.exists("2025-01-01/b.jpg").expect("asked"), "{subject}");
    });
}

#[test]
fn a_put_can_be_repeated_and_replaces_what_was_there() {
    each(|subject| {
        for picture in [&b"first"[..], b"first", b"second, and longer"] {
            subject.put("again.jpg", picture).unwrap_or_else(|error| panic!("{subject}: {error:?}"));
            assert_eq!(subject.read("again.jpg").as_deref(), Some(picture), "{subject}");
        }
    });
}

#[test]
fn odd_keys_are_kept_as_they_are() {
    const KEYS: [&str; 9] = [
        "a b/é(1)+!*.jpg",
        "plus+and space.jpg",
        "100%/%41.jpg",
        "=&@~,;$'.jpg",
        "question?mark#hash.jpg",
        "日本語/スナップ.jpg",
        "deep/er/and/deep.er/a.jpg",
        "-dash/_under/.dot.jpg",
        "[brackets]{braces}|^`.jpg",
    ];
    each(|subject| {
        for (index, key) in KEYS.iter().enumerate() {
            let picture = format!("picture {index}");
            subject.put(key, picture.as_bytes()).unwrap_or_else(|error| panic!("{subject} {key}: {error:?}"));
        }
        for (index, (key, read)) in KEYS.iter().zip(subject.read_all(&KEYS)).enumerate() {
            assert_eq!(read, Some(format!("picture {index}").into_bytes()), "{subject} {key}");
            assert!(subject.exists(key).expect("asked"), "{subject} {key}");
        }
    });
}

#[test]
fn keys_that_lead_elsewhere_are_refused() {
    each(|subject| {
        for key in ["../a.jpg", "a/../../b.jpg", "/a.jpg", "a/./b.jpg"] {
            let error = subject.put(key, b"picture").expect_err(key);
            assert!(matches!(error, StoreError::UnsafeName { .. }), "{subject} {key}: {error:?}");
            assert_eq!(error.retry(), Retry::Held);
        }
    });
}

#[test]
fn an_empty_picture_and_a_large_one_arrive_whole() {
    let large: Vec<u8> = (0..5_000_000_u32).map(|byte| ((byte * 31) >> 3) as u8).collect();
    each(|subject| {
        for (key, picture) in [("empty.jpg", &b""[..]), ("large.jpg", &large)] {
            subject.put(key, picture).unwrap_or_else(|error| panic!("{subject} {key}: {error:?}"));
            assert!(subject.read(key).as_deref() == Some(picture), "{subject} {key}");
        }
    });
}

#[test]
fn what_is_removed_is_gone_and_removing_it_again_is_no_error() {
    each(|subject| {
        subject.put("gone.jpg", b"picture").expect("put");
        for _ in 0..2 {
            subject.remove("gone.jpg").unwrap_or_else(|error| panic!("{subject}: {error:?}"));
            assert!(!subject.exists("gone.jpg").expect("asked"), "{subject}");
        }
    });
}

#[test]
fn a_picture_that_the_spool_has_lost_is_held() {
    each(|subject| {
        let error = subject.put_file("a.jpg", std::path::Path::new("/nowhere/a.jpg")).expect_err("no file");
        assert!(matches!(error, StoreError::SpoolMissing { .. }), "{subject}: {error:?}");
        assert_eq!(error.retry(), Retry::Held, "{subject}");
    });
}

#[test]
fn a_bucket_that_is_there_says_so_and_what_time_it_is() {
    each(|subject| {
        let probe = subject.probe().unwrap_or_else(|error| panic!("{subject}: {error:?}"));
        if subject.server().is_some() {
            let ahead = probe.clock_ahead_secs.unwrap_or_else(|| panic!("{subject}: no time"));
            assert!(ahead.abs() <= 2, "{subject}: {ahead} s");
        }
    });
}

#[test]
fn many_puts_at_once_all_arrive() {
    each(|subject: &Subject| {
        let keys: Vec<String> = (0..40).map(|number| format!("many/{number}.jpg")).collect();
        subject.put_all(&keys, b"one of many");
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert!(subject.read_all(&keys).iter().all(|read| read.as_deref() == Some(b"one of many")), "{subject}");
    });
}
