//! libFuzzer on the target `tftp`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate_fuzz::tftp(bytes));
