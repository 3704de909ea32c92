//! libFuzzer on the target `tcp`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate_fuzz::tcp(bytes));
