//! libFuzzer on the target `iptables`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate_fuzz::iptables(bytes));
