//! The control core: everything of Sluicegate that is not on the packet path.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`], [`socket`] | the command line, and how it reaches a running gateway |
//! | [`config`], [`iptables`] | the two languages users write |
//! | [`ipset`] | sets of addresses and ports, which rules ask by name |
//! | [`labels`] | the names of labels, which both a rule and a tool may use |
//! | [`publish`] | both of them compiled into a snapshot |
//! | [`gateway`] | the control core at work: policy, expiry, tools |
//! | [`host`] | the kernel interfaces of the box itself, and what is learnt there |
//! | [`tools`] | `conntrack`, `sysctl`, `/proc` and `stats` as text |
//! | [`launch`], [`daemon`] | DPDK started, workers launched, signals obeyed |
//! | [`watchdog`] | which thread stands still, said in the log and in `stats` |
//! | [`explain`] | what would become of a packet, and why |
//! | [`replay`] | the same pipeline over a capture file |
#![forbid(unsafe_code)]

pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod explain;
pub mod gateway;
pub mod host;
pub mod ipset;
pub mod iptables;
pub mod labels;
pub mod launch;
pub mod log_line;
pub mod publish;
pub mod replay;
pub mod socket;
pub mod tools;
pub mod watchdog;
