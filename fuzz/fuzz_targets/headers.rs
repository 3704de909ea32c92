//! libFuzzer on the target `headers`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate_fuzz::headers(bytes));
