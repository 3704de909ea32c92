//! libFuzzer on the target `iptables_arguments`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate_fuzz::iptables_arguments(bytes));
