//! libFuzzer on the target `tcp_options`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate_fuzz::tcp_options(bytes));
