//! libFuzzer on the target `sctp`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate_fuzz::sctp(bytes));
