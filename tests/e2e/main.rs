//! The gateway as its users have it: the binary, started on net_tap or on veth pairs between
//! network namespaces, with the kernel's own clients and servers on both sides.
//!
//! Needs root, iproute2, util-linux, ethtool, procps, curl and ping, for transfers tftp-hpa and
//! tftpd-hpa, for programs on the gateway box also OpenSSH, FRR, dnsmasq, dhclient, udhcpc and
//! iptables, and fails where they are missing.
//! Every test has its own namespaces, file prefix, folder and control socket, so tests run side by
//! side; gateways use no huge pages and sleep when idle, but for the tests about just that.

#![forbid(unsafe_code)]
#![allow(missing_docs, unreachable_pub)]

mod as_an_operator;
mod bad_input;
mod conntrack_by_hand;
mod conntrack_counts;
mod conntrack_examples;
mod conntrack_labels;
mod conntrack_times;
mod conntrack_tool;
mod control;
mod daemon;
mod ending;
mod explain;
mod gateway;
mod host;
mod host_bgp;
mod host_dhcp;
mod host_once;
mod host_rig;
mod host_ssh;
mod live;
mod netns;
#[path = "../comparison/nflog.rs"]
mod nflog;
#[allow(dead_code)]
#[path = "../comparison/packets.rs"]
mod packets;
mod reload;
mod rig;
mod rules_by_hand;
mod servers;
mod sets;
mod synproxy;
mod sysctl;
mod sysctl_effects;
mod tftp;
mod timeout_policies;
mod traffic;
mod vlan;
mod waiting_events;
mod watchdog;
mod workers;
