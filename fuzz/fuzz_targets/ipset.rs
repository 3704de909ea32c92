//! libFuzzer on the target `ipset`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate_fuzz::ipset(bytes));
