//! What can be said of the example by itself; the suite `receivers` of the executable `framehook` has it receive.

#![expect(clippy::disallowed_methods, reason = "starts the program under test")]

use std::process::Command;

#[test]
fn does_not_start_without_a_key_that_protects() {
    let example = || Command::new(env!("CARGO_BIN_EXE_framehook-example-receiver"));
    let missing = example().env_remove("FRAMEHOOK_CALLBACK_KEY").output().unwrap();
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("--key"), "{missing:?}");
    let empty = example().env("FRAMEHOOK_CALLBACK_KEY", "").args(["--listen", "127.0.0.1:0"]).output().unwrap();
    assert!(!empty.status.success());
    assert!(String::from_utf8_lossy(&empty.stderr).contains("key"), "{empty:?}");
}
