//! `--explain`: what became of each frame, in one line, from what can be seen from outside.
//!
//! A line holds what the frame is, what left because of it, drop reasons, the conn as
//! `conntrack -L` shows it afterwards, the rules and policies that counted, and the lines of LOG
//! rules. It is made from counters before and after, so the rules of one frame stand in the order
//! of
//! `iptables-save`, not in the order of the walk, and an answer of the gateway's own adds the rules
//! that it met itself. What happens between two frames gets lines without a number.

use dataplane::conntrack::record::{Conn, ConnRef, Family};
use dataplane::conntrack::state::Status;
use dataplane::conntrack::store::Shared;
use dataplane::conntrack::tuple::{Tuple, proto};
use dataplane::pipeline::counters::LcoreCounters;
use dataplane::pipeline::drops::DropReason;
use dataplane::rules::compiled::CounterId;
use dataplane::rules::model::{Policy, Ruleset};
use dataplane::wire::headers::{self, Headers, Malformed};
use dataplane::wire::{arp, ethernet, icmp, icmpv6, quoted};

use super::{Bench, Captured, Sent};
use crate::explain::words;
use crate::gateway::ControlCore;
use crate::publish::Rulesets;

/// What counters showed when the last line was written.
#[derive(Default)]
struct Seen {
    drops: Vec<u64>,
    generated: u64,
    to_host: u64,
    held: u64,
    /// By family, then by counter.
    rules: [Vec<u64>; 2],
}

/// Writes the lines.
pub(super) struct Explainer {
    ports: Vec<String>,
    /// Names of what counts, by family.
    labels: [Vec<String>; 2],
    seen: Seen,
    frames: u64,
}

impl Explainer {
    /// For ports with these names and the rules that stay in force.
    pub(super) fn new(ports: &[&str], rulesets: &Rulesets) -> Explainer {
        let labels = [labels(&rulesets.v4), labels(&rulesets.v6)];
        let seen = Seen {
            drops: vec![0; DropReason::ALL.len()],
            rules: [vec![0; labels[0].len()], vec![0; labels[1].len()]],
            ..Seen::default()
        };
        let ports = ports.iter().map(|&port| port.to_owned()).collect();
        Explainer { ports, labels, seen, frames: 0 }
    }

    /// The line for what happened since the last one: to `captured`, or by time alone. Empty if
    /// nothing has happened.
    pub(super) fn explain(
        &mut self,
        bench: &mut Bench,
        captured: Option<&Captured>,
        sent: &[Sent],
    ) -> String {
        // Its workers are polled here, so none can fail to answer.
        let _ = bench.core.ask_for_counts();
        bench.settle();
        let headers = captured.map(|c| headers::parse(&c.bytes, c.bytes.len()));
        let what = captured.map(|c| describe(&c.bytes));
        let mut parts: Vec<String> = sent.iter().map(|s| self.sent(s, what.as_deref())).collect();
        parts.extend(self.outcomes(&bench.core));
        if let Some(Ok(headers)) = &headers
            && let Some(conn) = captured.and_then(|c| conn_of(bench, c, headers))
        {
            parts.push(format!("conn: {conn}"));
        }
        parts.extend(self.rules(bench));
        let logged = bench.core.take_log_lines();
        parts.extend(logged.iter().map(|line| format!("log: {}", line.trim_end())));
        let unix_ns = bench.clock.get().unix_ns;
        let past_ns = unix_ns.saturating_sub(bench.origin_ns.unwrap_or(unix_ns));
        let (secs, micros) = (past_ns / 1_000_000_000, past_ns / 1000 % 1_000_000);
        let Some(captured) = captured else {
            let parts = parts.join("; ");
            return if parts.is_empty() {
                parts
            } else {
                format!("- {secs}.{micros:06} {parts}\n")
            };
        };
        self.frames += 1;
        let (port, what) = (self.port(captured.port.0), what.unwrap_or_default());
        format!("{} {secs}.{micros:06} {port} {what}: {}\n", self.frames, parts.join("; "))
    }

    fn port(&self, number: u8) -> &str {
        self.ports.get(usize::from(number)).map_or("?", String::as_str)
    }

    fn sent(&self, (port, _, bytes): &Sent, received: Option<&str>) -> String {
        let (port, what) = (self.port(port.0), describe(bytes));
        match received == Some(what.as_str()) {
            true => format!("sent to {port}"),
            false => format!("sent to {port}: {what}"),
        }
    }

    /// Whatever ended otherwise than on a wire.
    fn outcomes(&mut self, core: &ControlCore) -> Vec<String> {
        let mut parts = Vec::new();
        let sum = |of: &dyn Fn(&LcoreCounters) -> u64| core.counters().map(of).sum::<u64>();
        for (reason, seen) in DropReason::ALL.iter().zip(&mut self.seen.drops) {
            let dropped = sum(&|c| c.drops[*reason as usize].get());
            if let Some(text) = more(&format!("dropped {}", reason.name()), seen, dropped) {
                parts.push(text);
            }
        }
        parts.extend(more("to the gateway", &mut self.seen.to_host, sum(&|c| c.to_host.get())));
        parts.extend(more("made here", &mut self.seen.generated, sum(&|c| c.generated.get())));
        let (held, before) = (sum(&|c| c.held.get()), self.seen.held);
        self.seen.held = held;
        if held > before {
            parts.push("held until the next hop's address is known".to_owned());
        } else if held < before {
            parts.push(format!("{} no longer held", before - held));
        }
        parts
    }

    /// The rules and policies that counted.
    fn rules(&mut self, bench: &Bench) -> Option<String> {
        let mut hits = Vec::new();
        for (number, v6) in [false, true].into_iter().enumerate() {
            let counters = &bench.core.snapshot().family(v6).counters;
            let seen = self.seen.rules[number].iter_mut().zip(&self.labels[number]);
            for (id, (seen, label)) in (0..).map(CounterId).zip(seen) {
                let packets = counters.iter().map(|lcore| lcore.get(id).0).sum();
                hits.extend(more(label, seen, packets));
            }
        }
        (!hits.is_empty()).then(|| format!("rules: {}", hits.join(", ")))
    }
}

/// `text`, with the number of times if it is more than one; `None` if the counter did not move.
fn more(text: &str, seen: &mut u64, now: u64) -> Option<String> {
    let times = now.saturating_sub(*seen);
    *seen = now;
    match times {
        0 => None,
        1 => Some(text.to_owned()),
        times => Some(format!("{text} ({times} times)")),
    }
}

/// `table/CHAIN/number` of each rule and `table/CHAIN/policy` with its verdict, in counter order.
fn labels(ruleset: &Ruleset) -> Vec<String> {
    let label = |item: dataplane::rules::model::Countable| {
        let chain = ruleset.table(item.table).and_then(|table| table.chains.get(item.chain));
        let name = chain.map_or("?", |chain| chain.name.as_str());
        let table = item.table.name();
        match (item.rule, chain.and_then(|chain| chain.base)) {
            (Some(rule), _) => format!("{table}/{name}/{}", rule + 1),
            (None, Some(base)) if base.policy == Policy::Drop => {
                format!("{table}/{name}/policy DROP")
            }
            (None, _) => format!("{table}/{name}/policy ACCEPT"),
        }
    };
    ruleset.countables().map(label).collect()
}

/// A frame in few words.
fn describe(bytes: &[u8]) -> String {
    match headers::parse(bytes, bytes.len()) {
        Ok(h) => words::packet(&h),
        Err(Malformed::NotIp(ethernet::ether_type::ARP)) => {
            let l3 = ethernet::parse(bytes).map_or(0, |link| usize::from(link.l3));
            match bytes.get(l3..).and_then(arp::View::new) {
                Some(arp) if arp.operation() == arp::operation::REQUEST => {
                    format!("arp who has {}, tell {}", arp.target(), arp.sender())
                }
                Some(arp) => format!("arp {} is at {}", arp.sender(), arp.sender_mac()),
                None => "arp, malformed".to_owned(),
            }
        }
        Err(Malformed::NotIp(kind)) => format!("ethertype {kind:#06x}, {} bytes", bytes.len()),
        Err(error) => format!("{} bytes, malformed ({error:?})", bytes.len()),
    }
}

/// The conn a packet belongs to, as it is now; an ICMP error's is the one its quote names.
fn conn_of(bench: &Bench, captured: &Captured, h: &Headers) -> Option<String> {
    let (port, bytes) = (captured.port, &captured.bytes);
    let error = match h.proto {
        proto::ICMP => icmp::is_error(h.icmp_type),
        proto::ICMPV6 => icmpv6::is_error(h.icmp_type),
        _ => false,
    };
    let (ends, ports, icmp) = if error {
        let quote = bytes.get(usize::from(h.l4) + icmp::HEADER_LEN..)?;
        let q = quoted::parse(quote, h.is_v6())?;
        let icmp = (q.icmp_type, q.icmp_code, q.icmp_id);
        ((q.src, q.dst, q.proto), (q.src_port, q.dst_port), icmp)
    } else {
        let icmp = (h.icmp_type, h.icmp_code, h.icmp_id);
        ((h.src, h.dst, h.proto), (h.src_port, h.dst_port), icmp)
    };
    let (src, dst, number) = ends;
    let (src_id, dst_id) = match number {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP => ports,
        // Its call, where the version has one.
        proto::GRE => ports,
        proto::ICMP | proto::ICMPV6 => (icmp.2, u16::from_be_bytes([icmp.0, icmp.1])),
        _ => (0, 0),
    };
    let tuple = Tuple { src, dst, src_id, dst_id, proto: number };
    let (now, table) = (bench.clock.get(), bench.core.table());
    let found = match bench.core.snapshot().zones(tuple.is_v6(), Some(port)) {
        Some(zones) => table.find_in(&tuple, zones, now.tick).map(|found| found.conn),
        None => in_any_zone(table, &tuple),
    };
    found.filter(|conn| !conn.is_expired(now.tick)).map(|conn| words::conn(conn, now))
}

/// A conn with a tuple, where only rules that have been walked already could tell its zone.
fn in_any_zone<'a>(table: &'a Shared, tuple: &Tuple) -> Option<Conn<'a>> {
    let family = if tuple.is_v6() { Family::V6 } else { Family::V4 };
    let numbers = 0..table.records.numbers(family);
    let conns = numbers.filter_map(|n| table.records.get(ConnRef::new(family, n)));
    let has = |conn: &Conn<'_>| {
        let zones = conn.zones();
        conn.status().has(Status::CONFIRMED)
            && [zones.original, zones.reply].iter().any(|&zone| conn.matches(tuple, zone).is_some())
    };
    { conns }.find(has)
}
