//! libFuzzer on the target `conntrack_arguments`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate_fuzz::conntrack_arguments(bytes));
