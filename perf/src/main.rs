//! Benchmarks of Sluicegate beside its peers.
//!
//! `perf bench` measures every row the product is judged by and writes one report. What it is made
//! of can be run alone: `perf compare` replays the same capture through testpmd, OVS-DPDK and
//! Sluicegate on the same virtual devices and the same CPU, interleaved, and prints one table of
//! medians and ratios; `perf workers` does so with one and two workers of Sluicegate, direct and
//! with every packet handed over; `perf resize` changes the size of the table under traffic; `perf
//! table`, `newconns` and others measure inside this process. See README.md of this crate for what
//! the figures mean and how they are kept fair.

#![forbid(unsafe_code)]

mod bench;
mod compare;
mod crew;
mod frame;
mod goals;
mod inprocess;
mod instructions;
mod latency;
mod machine;
mod measure;
mod ovs;
mod process;
mod program;
mod proof;
mod report;
mod resize;
mod rig;
mod row;
mod sluicegate;
mod stand;
mod testpmd;
mod traffic;
mod vpp;
mod workers;

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
    /// Every row with its goal and outcome, in one report with plots.
    Bench(bench::Options),
    /// The same traffic through testpmd, OVS-DPDK and Sluicegate, interleaved.
    Compare(compare::Options),
    /// Sluicegate with one and two workers, direct and with every packet handed over.
    Workers(workers::Options),
    /// Instructions per packet of an established conn, counted by callgrind.
    Instructions(instructions::Options),
    /// How long packets are under way, over shared memory, at a share of the greatest rate.
    Latency(latency::Options),
    /// The generator of `latency`, which starts it.
    #[command(hide = true)]
    Generate(latency::generator::Options),
    /// The table changed to another size and back under replayed traffic.
    Resize(resize::Options),
    /// The table alone, beside DPDK's hash table: lookups, deletions and insertions.
    Table(inprocess::Options),
    /// New conns per second of one lcore, through the whole pipeline.
    Newconns(inprocess::Options),
    /// First packets and known ones behind ten, a thousand and ten thousand rules.
    Rules(inprocess::Options),
    /// A million conns flushed.
    Teardown(inprocess::Options),
    /// A million idle conns expire while others forward.
    Expiry(inprocess::Options),
    /// A flood of SYNs finds the table full.
    Flood(inprocess::Options),
    /// Bytes for each conn, all in.
    Memory(inprocess::Options),
    /// Packets of a million and of ten million established conns.
    Source(inprocess::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().benchmark {
        Benchmark::Bench(options) => bench::run(&options),
        Benchmark::Compare(options) => compare::run(&options),
        Benchmark::Workers(options) => workers::run(&options),
        Benchmark::Instructions(options) => instructions::run(&options),
        Benchmark::Latency(options) => latency::run(&options),
        Benchmark::Generate(options) => latency::generator::run(&options),
        Benchmark::Resize(options) => resize::run(&options),
        Benchmark::Table(options) => inprocess::table::run(&options),
        Benchmark::Newconns(options) => inprocess::newconns::run(&options),
        Benchmark::Rules(options) => inprocess::rules::run(&options),
        Benchmark::Teardown(options) => inprocess::teardown::run(&options),
        Benchmark::Expiry(options) => inprocess::expiry::run(&options),
        Benchmark::Flood(options) => inprocess::flood::run(&options),
        Benchmark::Memory(options) => inprocess::memory::run(&options),
        Benchmark::Source(options) => inprocess::established::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("perf: {failure}");
            ExitCode::FAILURE
        }
    }
}
