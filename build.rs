//! Stamps what `sluicegate --version` says: the version, and the DPDK it was built with.
//!
//! `dpdk-bindings` finds DPDK, and says which packages to install where it is missing; its version
//! arrives here as `DEP_DPDK_VERSION`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DEP_DPDK_VERSION");
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    let dpdk = env::var("DEP_DPDK_VERSION").expect("dpdk-bindings sets it");
    println!("cargo::rustc-env=SLUICEGATE_VERSION={version} (DPDK {dpdk})");
}
