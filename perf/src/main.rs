//! Benchmarks of Sluicegate beside its peers.
//!
//! `perf compare` replays the same capture through testpmd, OVS-DPDK and Sluicegate on the same
//! virtual devices and the same CPU, interleaved, and prints one table of medians and ratios. See
//! README.md of this crate for what the figures mean and how they are kept fair.

#![forbid(unsafe_code)]

mod compare;
mod machine;
mod measure;
mod ovs;
mod process;
mod program;
mod proof;
mod report;
mod sluicegate;
mod testpmd;
mod traffic;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Benchmarks of Sluicegate beside its peers")]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// The same traffic through testpmd, OVS-DPDK and Sluicegate, interleaved.
    Compare(compare::Options),
}

fn main() -> ExitCode {
    let Benchmark::Compare(options) = Arguments::parse().benchmark;
    match compare::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("perf: {failure}");
            ExitCode::FAILURE
        }
    }
}
