#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| framehook_media::fuzz::avcc_sps_pps(bytes));
