#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| framehook_tc3::fuzz::call(bytes));
