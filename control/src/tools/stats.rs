//! `sluicegate stats [--json]`: where every packet went.
//!
//! The numbers are plain copies, taken together. In the totals `rx + generated` equals the sum of
//! the others; a reader can check that.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::conntrack_format::put;
use super::{Answer, Gateway};

/// Everything that `stats` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// In the order of the configuration.
    pub ports: Vec<PortStats>,
    /// In the order of their numbers.
    pub lcores: Vec<LcoreStats>,
    /// The control core.
    pub control_core: ControlCoreStats,
    /// Every reason with its count, zeros included, in the order of the code.
    pub drops: Vec<(&'static str, u64)>,
    /// The same of reasons why packets were INVALID, which are not dropped for that.
    pub invalid: Vec<(&'static str, u64)>,
    /// The balance of packets.
    pub totals: Totals,
    /// The table.
    pub conntrack: TableStats,
    /// The kernel's side.
    pub host: HostStats,
}

/// Frames and bytes of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// The port's name.
    pub name: String,
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// What its driver tells.
    pub wire: Wire,
}

/// A port's wire, as its driver tells a few times a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// `None` where the driver cannot tell.
    pub link: Option<WireLink>,
    /// Frames lost because a receive queue was full, before anybody here saw them.
    pub rx_missed: u64,
    /// Frames received broken.
    pub rx_errors: u64,
    /// Frames lost because the mempool was empty.
    pub rx_no_mbuf: u64,
}

/// The link of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireLink {
    /// Whether there is one.
    pub up: bool,
    /// Mbit/s, where known.
    pub speed_mbps: Option<u32>,
    /// Whether both sides may speak at once.
    pub full_duplex: bool,
}

impl WireLink {
    /// Speed and duplex as an appendix to `up`; empty where the speed is not known.
    pub fn details(&self) -> String {
        let duplex = if self.full_duplex { "full" } else { "half" };
        self.speed_mbps.map_or(String::new(), |speed| format!(", {speed} Mbit/s {duplex} duplex"))
    }
}

/// What one worker lcore did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LcoreStats {
    /// DPDK's number of the lcore.
    pub lcore: u32,
    /// The CPU it runs on.
    pub cpu: u32,
    /// Turns of the poll loop.
    pub polls: u64,
    /// Turns that found no packet.
    pub idle_polls: u64,
    /// Frames taken from its queues.
    pub rx: u64,
    /// Packets passed to another lcore.
    pub handed_over: u64,
    /// Times it did not poll.
    #[serde(flatten)]
    pub stalls: StallStats,
}

/// The control core's thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ControlCoreStats {
    /// The CPU it runs on.
    pub cpu: u32,
    /// Times it did not come round.
    #[serde(flatten)]
    pub stalls: StallStats,
}

/// What the watchdog found out about one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StallStats {
    /// Stalls so far, the present one included.
    pub stalls: u64,
    /// Whether it stands still now.
    pub stalled: bool,
    /// Milliseconds of the longest stall, the present one included.
    pub stalled_ms: u64,
}

/// The balance: `rx + generated = tx + to_host + dropped + held`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Frames received.
    pub rx: u64,
    /// Frames the gateway made itself.
    pub generated: u64,
    /// Frames sent.
    pub tx: u64,
    /// Frames the gateway or its host consumed.
    pub to_host: u64,
    /// Frames dropped, the sum of all reasons.
    pub dropped: u64,
    /// Frames waiting for a neighbour or for other fragments.
    pub held: u64,
}

/// The size and fill of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableStats {
    /// Conns.
    pub count: u32,
    /// The limit.
    pub max: u32,
    /// The reported number of buckets.
    pub buckets: u32,
    /// Expectations.
    pub expect_count: u32,
}

/// What the kernel has learnt on the host taps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostStats {
    /// Host taps.
    pub taps: usize,
    /// Addresses that the file does not name.
    pub learnt_addresses: usize,
    /// Routes in use beside the file's.
    pub learnt_routes: usize,
}

/// Answers `stats`.
pub fn run(argv: &[String], gateway: &mut dyn Gateway) -> Answer {
    match argv {
        [] => Answer::text(text(&gateway.stats())),
        [word] if word == "--json" => Answer::text(format!("{}\n", json(&gateway.stats()))),
        _ => Answer::failure(2, "stats: takes no argument but --json"),
    }
}

/// The JSON object of the user's contract.
pub fn json(stats: &Stats) -> Value {
    let ports = stats.ports.iter().map(|p| {
        let link = |link: WireLink| json!({"up": link.up, "speed_mbps": link.speed_mbps});
        let counters = json!({
            "rx_packets": p.rx_packets,
            "tx_packets": p.tx_packets,
            "rx_bytes": p.rx_bytes,
            "tx_bytes": p.tx_bytes,
            "rx_missed": p.wire.rx_missed,
            "rx_errors": p.wire.rx_errors,
            "rx_no_mbuf": p.wire.rx_no_mbuf,
            "link": p.wire.link.map(link),
        });
        (p.name.clone(), counters)
    });
    let by_reason = |counts: &[(&'static str, u64)]| -> Map<String, Value> {
        counts.iter().map(|(reason, count)| ((*reason).to_owned(), json!(count))).collect()
    };
    json!({
        "ports": ports.collect::<Map<String, Value>>(),
        "lcores": stats.lcores,
        "control_core": stats.control_core,
        "drops": by_reason(&stats.drops),
        "invalid": by_reason(&stats.invalid),
        "totals": stats.totals,
        "conntrack": stats.conntrack,
        "host": stats.host,
    })
}

/// The same for people; reasons that never happened are left out.
pub fn text(stats: &Stats) -> String {
    let mut text = format!(
        "{:<16} {:>15} {:>15} {:>18} {:>18}\n",
        "port", "rx packets", "tx packets", "rx bytes", "tx bytes"
    );
    for p in &stats.ports {
        let (name, rx, tx) = (&p.name, p.rx_packets, p.tx_packets);
        put(&mut text, format_args!("{name:<16} {rx:>15} {tx:>15} "));
        put(&mut text, format_args!("{:>18} {:>18}\n", p.rx_bytes, p.tx_bytes));
    }
    put_wires(&mut text, stats);
    let head = ["lcore", "cpu", "rx", "polls", "idle polls", "handed over"];
    let [a, b, c, d, e, f] = head;
    put(&mut text, format_args!("\n{a:<8} {b:<7} {c:>15} {d:>15} {e:>18} {f:>18}\n"));
    for l in &stats.lcores {
        put(&mut text, format_args!("{:<8} {:<7} {:>15} ", l.lcore, l.cpu, l.rx));
        put(
            &mut text,
            format_args!("{:>15} {:>18} {:>18}\n", l.polls, l.idle_polls, l.handed_over),
        );
    }
    put_stalls(&mut text, stats);
    let t = &stats.totals;
    put(&mut text, format_args!("\nrx {} + generated {} = tx {}", t.rx, t.generated, t.tx));
    put(
        &mut text,
        format_args!(" + to host {} + dropped {} + held {}\n", t.to_host, t.dropped, t.held),
    );
    for (reason, count) in stats.drops.iter().filter(|(_, count)| *count != 0) {
        put(&mut text, format_args!("  dropped {reason:<32} {count:>15}\n"));
    }
    for (reason, count) in stats.invalid.iter().filter(|(_, count)| *count != 0) {
        put(&mut text, format_args!("  invalid {reason:<32} {count:>15}\n"));
    }
    let c = &stats.conntrack;
    put(&mut text, format_args!("\nconns {} of {}, buckets {}", c.count, c.max, c.buckets));
    put(&mut text, format_args!(", expectations {}\n", c.expect_count));
    let h = &stats.host;
    if h.taps > 0 {
        let (taps, routes) = (h.taps, h.learnt_routes);
        put(&mut text, format_args!("host taps {taps}, learnt routes {routes}"));
        put(&mut text, format_args!(", learnt addresses {}\n", h.learnt_addresses));
    }
    text
}

/// What the drivers tell of each port.
fn put_wires(text: &mut String, stats: &Stats) {
    let [a, b, c, d, e] = ["port", "rx missed", "rx errors", "rx no mbuf", "link"];
    put(text, format_args!("\n{a:<16} {b:>15} {c:>15} {d:>18} {e}\n"));
    for PortStats { name, wire, .. } in &stats.ports {
        let (missed, errors, no_mbuf) = (wire.rx_missed, wire.rx_errors, wire.rx_no_mbuf);
        put(text, format_args!("{name:<16} {missed:>15} {errors:>15} {no_mbuf:>18} "));
        match wire.link {
            None => put(text, format_args!("unknown\n")),
            Some(link) if link.up => put(text, format_args!("up{}\n", link.details())),
            Some(_) => put(text, format_args!("down\n")),
        }
    }
}

/// A line for every thread that ever stood still.
fn put_stalls(text: &mut String, stats: &Stats) {
    let lcores = stats.lcores.iter();
    let threads = lcores.map(|l| (format!("lcore {} (CPU {})", l.lcore, l.cpu), l.stalls));
    let core = &stats.control_core;
    let own = (format!("control core (CPU {})", core.cpu), core.stalls);
    for (name, s) in threads.chain([own]).filter(|(_, s)| s.stalls != 0) {
        let times = if s.stalls == 1 { "once" } else { "times" };
        let count = if s.stalls == 1 { String::new() } else { format!("{} ", s.stalls) };
        let longest = s.stalled_ms as f64 / 1000.0;
        let now = if s.stalled { ", and does now" } else { "" };
        put(text, format_args!("{name} stalled {count}{times}, {longest:.1} s at most{now}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::StandIn;
    use super::*;

    fn stats() -> Stats {
        let link = WireLink { up: true, speed_mbps: Some(10_000), full_duplex: true };
        let wire = Wire { link: Some(link), rx_missed: 3, rx_errors: 2, rx_no_mbuf: 1 };
        let name = "lan".to_owned();
        let port = PortStats { name, rx_packets: 7, wire, ..PortStats::default() };
        Stats {
            ports: vec![port],
            lcores: vec![LcoreStats { lcore: 1, cpu: 3, polls: 9, ..LcoreStats::default() }],
            control_core: ControlCoreStats { cpu: 2, ..ControlCoreStats::default() },
            drops: vec![("no_route", 2), ("bad_version", 0)],
            invalid: vec![("tcp-new", 4), ("tcp-rst", 0)],
            totals: Totals { rx: 7, tx: 5, dropped: 2, ..Totals::default() },
            conntrack: TableStats { count: 1, max: 262_144, buckets: 65_536, expect_count: 0 },
            host: HostStats { taps: 2, learnt_addresses: 1, learnt_routes: 12 },
        }
    }

    #[test]
    fn json_has_the_keys_of_the_contract() {
        assert_eq!(
            json(&stats()),
            json!({
                "ports": {"lan": {"rx_packets": 7, "tx_packets": 0, "rx_bytes": 0, "tx_bytes": 0,
                                  "rx_missed": 3, "rx_errors": 2, "rx_no_mbuf": 1,
                                  "link": {"up": true, "speed_mbps": 10_000}}},
                "lcores": [{"lcore": 1, "cpu": 3, "polls": 9, "idle_polls": 0, "rx": 0,
                            "handed_over": 0, "stalls": 0, "stalled": false,
                            "stalled_ms": 0}],
                "control_core": {"cpu": 2, "stalls": 0, "stalled": false, "stalled_ms": 0},
                "drops": {"no_route": 2, "bad_version": 0},
                "invalid": {"tcp-new": 4, "tcp-rst": 0},
                "totals": {"rx": 7, "generated": 0, "tx": 5, "to_host": 0, "dropped": 2, "held": 0},
                "conntrack": {"count": 1, "max": 262_144, "buckets": 65_536, "expect_count": 0},
                "host": {"taps": 2, "learnt_addresses": 1, "learnt_routes": 12},
            })
        );
    }

    #[test]
    fn text_shows_the_balance_and_what_was_dropped() {
        let text = text(&stats());
        assert!(text.contains("rx 7 + generated 0 = tx 5 + to host 0 + dropped 2 + held 0\n"));
        assert!(text.contains("  invalid tcp-new ") && !text.contains("tcp-rst"), "{text}");
        assert!(text.contains("no_route") && !text.contains("bad_version"));
        assert!(text.contains("host taps 2, learnt routes 12, learnt addresses 1\n"));
        assert!(text.contains("conns 1 of 262144, buckets 65536, expectations 0\n"));
    }

    #[test]
    fn a_wire_tells_as_much_as_its_driver() {
        let mut stats = stats();
        let mut shown = |link: Option<WireLink>| {
            stats.ports[0].wire.link = link;
            let line = text(&stats).lines().find(|line| line.contains(" 3 ")).map(str::to_owned);
            (line.unwrap(), json(&stats)["ports"]["lan"]["link"].clone())
        };
        let link = WireLink { up: true, speed_mbps: Some(100), full_duplex: false };
        assert!(shown(Some(link)).0.ends_with(" 1 up, 100 Mbit/s half duplex"));
        let (line, json) = shown(Some(WireLink { speed_mbps: None, ..link }));
        assert!(line.ends_with(" 1 up"), "{line}");
        assert_eq!(json, json!({"up": true, "speed_mbps": null}));
        let (line, json) = shown(Some(WireLink { up: false, speed_mbps: None, ..link }));
        assert!(line.ends_with(" 1 down") && json["up"] == false, "{line}");
        let (line, json) = shown(None);
        assert!(line.ends_with(" 1 unknown") && json.is_null(), "{line}");
    }

    #[test]
    fn text_names_whoever_stalled_and_nobody_else() {
        let mut stats = stats();
        assert!(!text(&stats).contains("stalled"));
        stats.control_core.stalls = StallStats { stalls: 1, stalled: false, stalled_ms: 2510 };
        let line = "control core (CPU 2) stalled once, 2.5 s at most\n";
        assert!(text(&stats).contains(line) && !text(&stats).contains("lcore 1 (CPU 3)"));
        stats.lcores[0].stalls = StallStats { stalls: 3, stalled: true, stalled_ms: 61_000 };
        let line = "\nlcore 1 (CPU 3) stalled 3 times, 61.0 s at most, and does now\n";
        assert!(text(&stats).contains(line), "{}", text(&stats));
    }

    #[test]
    fn arguments() {
        let mut g = StandIn::with([]);
        g.stats = stats();
        let json = run(&["--json".to_owned()], &mut g);
        assert!(json.out.starts_with('{') && json.out.ends_with("}\n"));
        assert_eq!(run(&["-x".to_owned()], &mut g).exit, 2);
    }
}
