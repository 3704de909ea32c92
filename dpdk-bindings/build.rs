//! Generates the DPDK bindings (being built).
fn main() {}
