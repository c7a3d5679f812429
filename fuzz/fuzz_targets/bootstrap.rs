#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| launcher::fuzz::bootstrap(data));
