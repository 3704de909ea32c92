//! `sluicegate proc PATH`: the kernel's text files about conn tracking, byte for byte.
//!
//! Unlike conntrack(8) they write IPv6 addresses in full, always name the family and, where both
//! directions share it, the zone, and count the reader among a conn's users.

use dataplane::conntrack::expect::ExpectationView;
use dataplane::conntrack::state::Status;
use dataplane::conntrack::tuple::Tuple;
use dataplane::conntrack::view::{ConnView, CpuStatistics, SynproxyStatistics};
use dataplane::wire::address::Address;

use super::conntrack_expect::flags;
use super::conntrack_format::{proto_name, put, put_ids};
use super::{Answer, Gateway, proc_recent};

/// Answers `proc PATH`, or `proc PATH TEXT` which writes; the path may begin with `/proc/`.
pub fn run(argv: &[String], gateway: &mut dyn Gateway) -> Answer {
    let (path, text) = match argv {
        [path] => (path, None),
        [path, text] => (path, Some(text.as_str())),
        _ => return Answer::failure(2, "proc: give one path, such as net/nf_conntrack"),
    };
    let path = path.strip_prefix("/proc/").unwrap_or(path);
    if let Some(name) = path.strip_prefix("net/xt_recent/") {
        return recent(path, name, text, gateway);
    }
    if text.is_some() {
        return Answer::failure(1, format_args!("proc: {path}: Permission denied"));
    }
    match path {
        "net/nf_conntrack" => {
            let conns = match gateway.conns() {
                Ok(conns) => conns,
                Err(silent) => return Answer::failure(1, format_args!("proc: {path}: {silent}")),
            };
            let now = gateway.unix_ns();
            Answer::text(conns.iter().map(|c| conn_line(c, now) + "\n").collect::<String>())
        }
        "net/nf_conntrack_expect" => match gateway.expectations() {
            Ok(all) => Answer::text(all.iter().map(|e| expect_line(e) + "\n").collect::<String>()),
            Err(silent) => Answer::failure(1, format_args!("proc: {path}: {silent}")),
        },
        "net/stat/nf_conntrack" => {
            let entries = gateway.count();
            Answer::text(statistics(entries, &gateway.cpu_statistics()))
        }
        "net/stat/synproxy" => Answer::text(synproxy_statistics(&gateway.synproxy_statistics())),
        _ => Answer::failure(1, format_args!("proc: {path}: No such file or directory")),
    }
}

fn recent(path: &str, name: &str, text: Option<&str>, gateway: &mut dyn Gateway) -> Answer {
    let Some(table) = gateway.recent(name) else {
        return Answer::failure(1, format_args!("proc: {path}: No such file or directory"));
    };
    match text {
        None => Answer::text(table.seen().iter().map(proc_recent::line).collect::<String>()),
        Some(text) if proc_recent::write(&table, text, gateway.unix_ns()) => Answer::text(""),
        Some(_) => Answer::failure(1, format_args!("proc: {path}: Invalid argument")),
    }
}

/// One line of `/proc/net/nf_conntrack`, without newline (`ct_seq_show`).
pub fn conn_line(conn: &ConnView, unix_ns: u64) -> String {
    let mut line = String::with_capacity(256);
    let (family, number) = if conn.original.is_v6() { ("ipv6", 10) } else { ("ipv4", 2) };
    let name = proto_name(conn.original.proto);
    let (proto, left) = (conn.original.proto, conn.remaining_secs);
    put(&mut line, format_args!("{family:<8} {number} {name:<8} {proto} {left} "));
    if let Some(state) = conn.state {
        put(&mut line, format_args!("{state} "));
    }
    if let Some([plain, stream]) = conn.gre_timeouts_secs {
        put(&mut line, format_args!("timeout={plain}, stream_timeout={stream} "));
    }
    let one_zone = conn.zone_original == conn.zone_reply;
    let directions = [(conn.zone_original, "orig", 0), (conn.zone_reply, "reply", 1)];
    for (tuple, (zone, word, index)) in [&conn.original, &conn.reply].into_iter().zip(directions) {
        put_tuple(&mut line, tuple);
        if !one_zone && zone != 0 {
            put(&mut line, format_args!("zone-{word}={zone} "));
        }
        if let Some(c) = conn.counters.map(|both| both[index]) {
            put(&mut line, format_args!("packets={} bytes={} ", c.packets, c.bytes));
        }
        if index == 0 && !conn.status.has(Status::SEEN_REPLY) {
            line.push_str("[UNREPLIED] ");
        }
    }
    if conn.status.has(Status::ASSURED) {
        line.push_str("[ASSURED] ");
    }
    put(&mut line, format_args!("mark={} ", conn.mark));
    if one_zone {
        put(&mut line, format_args!("zone={} ", conn.zone_original));
    }
    if let Some(start) = conn.start_unix_ns {
        let age_ns = unix_ns.saturating_sub(start);
        put(&mut line, format_args!("delta-time={} ", age_ns / 1_000_000_000));
    }
    line.push_str("use=2");
    line
}

/// One line of `/proc/net/nf_conntrack_expect`, without newline (`exp_seq_show`).
pub fn expect_line(view: &ExpectationView) -> String {
    let (what, tuple) = (&view.what, &view.what.tuple);
    let (family, proto) = (if tuple.dst.is_v4() { 2 } else { 10 }, tuple.proto);
    let mut line = format!("{} l3proto = {family} proto={proto} ", view.remaining_secs);
    put_tuple(&mut line, tuple);
    for (i, word) in flags(what.flags).iter().enumerate() {
        put(&mut line, format_args!("{}{word}", if i == 0 { "" } else { "," }));
    }
    let gap = if what.flags.0 == 0 { "" } else { " " };
    put(&mut line, format_args!("{gap}{}", what.helper.name()));
    line
}

fn put_tuple(line: &mut String, tuple: &Tuple) {
    put(line, format_args!("src={} dst={} ", full(tuple.src), full(tuple.dst)));
    put_ids(line, tuple);
}

/// An IPv6 address with all its digits, or an IPv4 one.
pub(super) fn full(address: Address) -> String {
    if address.is_v4() {
        return address.to_string();
    }
    let digits = format!("{:032x}", address.bits());
    let groups: Vec<&str> = (0..8).map(|i| &digits[i * 4..i * 4 + 4]).collect();
    groups.join(":")
}

/// `/proc/net/stat/nf_conntrack` (`ct_cpu_seq_show`): every row repeats the number of entries.
pub fn statistics(entries: u32, cpus: &[CpuStatistics]) -> String {
    let mut text = "entries  clashres found new invalid ignore delete chainlength insert \
                    insert_failed drop early_drop icmp_error  expect_new expect_create \
                    expect_delete search_restart\n"
        .to_owned();
    for s in cpus {
        let columns = [
            u64::from(entries),
            s.clash_resolve,
            s.found,
            0,
            s.invalid,
            0,
            0,
            s.chain_too_long,
            s.insert,
            s.insert_failed,
            s.drop,
            s.early_drop,
            s.icmp_error,
            s.expect_new,
            s.expect_create,
            s.expect_delete,
            s.search_restart,
        ];
        for (i, value) in columns.into_iter().enumerate() {
            // The kernel's columns are 32 bits wide, and two blanks set off the first and the
            // expectation columns.
            let gap = ["", "  ", " "][if i == 0 {
                0
            } else if matches!(i, 1 | 13) {
                1
            } else {
                2
            }];
            put(&mut text, format_args!("{gap}{:08x}", value as u32));
        }
        text.push('\n');
    }
    text
}

/// `/proc/net/stat/synproxy` (`synproxy_cpu_seq_show`); it has no entries to count.
pub fn synproxy_statistics(cpus: &[SynproxyStatistics]) -> String {
    let mut text = "entries\t\tsyn_received\tcookie_invalid\tcookie_valid\tcookie_retrans\t\
                    conn_reopened\n"
        .to_owned();
    for s in cpus {
        let more = [s.cookie_invalid, s.cookie_valid, s.cookie_retrans, s.conn_reopened];
        put(&mut text, format_args!("{:08x}\t{:08x}", 0, s.syn_received as u32));
        more.iter().for_each(|&value| put(&mut text, format_args!("\t{:08x}", value as u32)));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Silent;
    use super::super::conntrack_expect::tests as expect;
    use super::super::conntrack_format::tests as sample;
    use super::super::stand_in::StandIn;
    use super::*;
    use dataplane::conntrack::expect::Flags;

    #[test]
    fn s73_lines_as_the_kernel_writes_them() {
        assert_eq!(
            conn_line(&sample::tcp(), sample::START),
            "ipv4     2 tcp      6 431999 ESTABLISHED src=10.9.0.1 dst=10.9.0.2 sport=43451 \
             dport=8081 packets=3 bytes=164 src=10.9.0.2 dst=10.9.0.2 sport=8081 dport=581 \
             packets=2 bytes=114 [ASSURED] mark=0 zone=0 delta-time=0 use=2"
        );
        let v6 = sample::tuple(58, "fd00::1", 78, "fd00::2", 128 << 8);
        let reply = v6.inverted().unwrap();
        let conn = ConnView { original: v6, reply, remaining_secs: 3999, ..ConnView::default() };
        assert_eq!(
            conn_line(&conn, 0),
            "ipv6     10 icmpv6   58 3999 src=fd00:0000:0000:0000:0000:0000:0000:0001 \
             dst=fd00:0000:0000:0000:0000:0000:0000:0002 type=128 code=0 id=78 [UNREPLIED] \
             src=fd00:0000:0000:0000:0000:0000:0000:0002 \
             dst=fd00:0000:0000:0000:0000:0000:0000:0001 type=129 code=0 id=78 mark=0 zone=0 use=2"
        );
        let gre = sample::tuple(47, "10.1.0.2", 0, "10.2.0.2", 0);
        let conn = ConnView {
            original: gre,
            reply: gre.inverted().unwrap(),
            zone_original: 6,
            remaining_secs: 29,
            gre_timeouts_secs: Some([30, 180]),
            ..ConnView::default()
        };
        assert_eq!(
            conn_line(&conn, 0),
            "ipv4     2 gre      47 29 timeout=30, stream_timeout=180 src=10.1.0.2 dst=10.2.0.2 \
             srckey=0x0 dstkey=0x0 zone-orig=6 [UNREPLIED] src=10.2.0.2 dst=10.1.0.2 srckey=0x0 \
             dstkey=0x0 mark=0 use=2"
        );
    }

    #[test]
    fn s78_expectations_as_the_kernel_writes_them() {
        let mut view = expect::tftp(1, "10.1.0.2", "10.2.0.2");
        let start = "299 l3proto = 2 proto=17 src=10.2.0.2 dst=10.1.0.2 sport=0 dport=5000 ";
        assert_eq!(expect_line(&view), format!("{start}tftp"));
        view.what.flags = Flags(Flags::PERMANENT.0 | Flags::INACTIVE.0);
        assert_eq!(expect_line(&view), format!("{start}PERMANENT,INACTIVE tftp"));
        assert_eq!(
            expect_line(&expect::tftp(1, "fd01::2", "fd02::2")),
            "299 l3proto = 10 proto=17 src=fd02:0000:0000:0000:0000:0000:0000:0002 \
             dst=fd01:0000:0000:0000:0000:0000:0000:0002 sport=0 dport=5000 tftp"
        );
        let mut g = StandIn::with([]);
        g.expectations = vec![expect::tftp(1, "10.1.0.2", "10.2.0.2")];
        let read = run(&["net/nf_conntrack_expect".to_owned()], &mut g);
        assert_eq!(read, Answer::text(format!("{start}tftp\n")));
    }

    #[test]
    fn s77_statistics_as_the_kernel_writes_them() {
        let cpu = CpuStatistics { found: 0x11, chain_too_long: 2, ..CpuStatistics::default() };
        assert_eq!(
            statistics(4, &[cpu]),
            "entries  clashres found new invalid ignore delete chainlength insert insert_failed \
             drop early_drop icmp_error  expect_new expect_create expect_delete search_restart\n\
             00000004  00000000 00000011 00000000 00000000 00000000 00000000 00000002 00000000 \
             00000000 00000000 00000000 00000000  00000000 00000000 00000000 00000000\n"
        );
    }

    #[test]
    fn handshakes_as_the_kernel_counts_them() {
        let cpu = SynproxyStatistics {
            syn_received: 0x1a,
            cookie_valid: 1 << 32 | 2,
            conn_reopened: 3,
            ..SynproxyStatistics::default()
        };
        assert_eq!(
            synproxy_statistics(&[cpu]),
            "entries\t\tsyn_received\tcookie_invalid\tcookie_valid\tcookie_retrans\tconn_reopened\n\
             00000000\t0000001a\t00000000\t00000002\t00000000\t00000003\n"
        );
    }

    #[test]
    fn paths() {
        let mut g = StandIn::with([sample::tcp(), sample::udp()]);
        let mut read = |path: &str| run(&[path.to_owned()], &mut g);
        assert_eq!(read("net/nf_conntrack").out.lines().count(), 2);
        assert_eq!(read("/proc/net/nf_conntrack").out.lines().count(), 2);
        assert_eq!(read("net/nf_conntrack_expect"), Answer::default());
        assert_eq!(read("net/stat/nf_conntrack").out.lines().count(), 3);
        assert_eq!(read("net/stat/synproxy").out.lines().count(), 3);
        g.silent = Some(Silent { lcore: 2, cpu: 1 });
        let mut read = |path: &str| run(&[path.to_owned()], &mut g);
        let silent = read("net/nf_conntrack");
        let said = "proc: net/nf_conntrack: worker lcore 2 (CPU 1) does not answer\n";
        assert_eq!((silent.exit, silent.out.as_str(), silent.err.as_str()), (1, "", said));
        assert_eq!(read("net/stat/nf_conntrack").exit, 0, "counters are read, not asked for");
        let missing = read("net/arp");
        assert_eq!(
            (missing.exit, missing.err.as_str()),
            (1, "proc: net/arp: No such file or directory\n")
        );
    }
}
