//! Scenarios: one lcore with ports in memory and a virtual clock, from frames in to frames out.
//!
//! The kernel's behaviour is the yardstick throughout. One file per theme; `rig` is the gateway.

mod by_hand;
mod expect;
mod forwarding;
mod fragments;
mod full;
mod host;
mod host_lcores;
mod invalid;
mod keeping;
mod kept;
mod labels;
mod lcores;
mod links;
mod messages;
mod nat;
mod paths;
mod protocols;
mod reasons;
mod rig;
mod robustness;
mod rules;
mod segments;
mod semantics;
mod synproxy;
mod targets;
mod template;
mod tracking;
mod vlan;
