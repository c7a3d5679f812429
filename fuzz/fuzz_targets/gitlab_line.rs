#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent::fuzz::gitlab_line(data));
