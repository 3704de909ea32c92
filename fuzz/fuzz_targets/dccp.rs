//! libFuzzer on the target `dccp`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate_fuzz::dccp(bytes));
