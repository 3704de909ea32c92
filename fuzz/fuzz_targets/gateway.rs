//! libFuzzer on the target `gateway`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate_fuzz::gateway::packets(bytes));
