//! `/proc/net/xt_recent/NAME`: what `-m recent` keeps, shown and changed by hand.

use dataplane::rules::matches::recent::{Seen, Table};
use dataplane::wire::address::Address;

use super::conntrack_format::put;
use super::proc::full;

const NS_PER_MS: u64 = 1_000_000;

/// One line (`recent_seq_show`), with its newline. The kernel shows jiffies, this milliseconds
/// since 1970.
pub(super) fn line(seen: &Seen) -> String {
    let (last, ttl) = (seen.last_ns / NS_PER_MS, seen.ttl);
    let mut line = format!("src={} ttl: {ttl} last_seen: {last} ", full(seen.address));
    put(&mut line, format_args!("oldest_pkt: {}", seen.next));
    for (number, stamp) in seen.stamps_ns.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        put(&mut line, format_args!("{comma} {}", stamp / NS_PER_MS));
    }
    line.push('\n');
    line
}

/// Does what was written: `/` takes all addresses out, `+address` enters one and `-address` takes
/// one out (`recent_mt_proc_write`). False if it is none of these.
pub(super) fn write(table: &Table, text: &str, now_ns: u64) -> bool {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let address = |text: &str| match text.contains(':') {
        true => text.parse::<std::net::Ipv6Addr>().ok().map(Address::from),
        false => text.parse::<std::net::Ipv4Addr>().ok().map(Address::from),
    };
    if text.starts_with('/') {
        table.flush();
        return true;
    }
    if let Some(address) = text.strip_prefix('+').and_then(address) {
        table.add(address, now_ns);
        return true;
    }
    let Some(address) = text.strip_prefix('-').and_then(address) else { return false };
    table.delete(address);
    true
}

#[cfg(test)]
mod tests {
    use dataplane::rules::matches::Match;
    use dataplane::rules::model::Ruleset;
    use dataplane::rules::tables::Tables;

    use super::super::Gateway;
    use super::super::proc::run;
    use super::super::stand_in::StandIn;
    use super::*;
    use crate::iptables::restore;
    use dataplane::rules::hook::Family;

    fn gateway() -> StandIn {
        let text = "*filter\n-A INPUT -m recent --set --name st\nCOMMIT\n";
        let ruleset = restore(&Ruleset::new(Family::V4), text, false, false).unwrap();
        let rules = &ruleset.tables.iter().flatten().next().unwrap().chains[0].rules;
        assert!(matches!(rules[0].matches[0], Match::Recent(_)));
        StandIn { tables: Tables::default().next(&[&ruleset]), ..StandIn::with([]) }
    }

    fn proc(gateway: &mut StandIn, words: &[&str]) -> (u8, String, String) {
        let argv: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let answer = run(&argv, gateway);
        (answer.exit, answer.out, answer.err)
    }

    #[test]
    fn lines_are_the_kernel_s() {
        let seen = Seen {
            address: Address::v4(0x7f00_0000),
            ttl: 64,
            last_ns: 1_700_000_000_002_999_999,
            next: 2,
            stamps_ns: vec![1_700_000_000_001_000_000, 1_700_000_000_002_999_999],
        };
        assert_eq!(
            line(&seen),
            "src=127.0.0.0 ttl: 64 last_seen: 1700000000002 oldest_pkt: 2 1700000000001, \
             1700000000002\n"
        );
        let v6 = Seen { address: Address::v6(0xfe80 << 112 | 1), ..seen };
        let start = "src=fe80:0000:0000:0000:0000:0000:0000:0001 ttl: 64 last_seen: ";
        assert!(line(&v6).starts_with(start));
    }

    /// Words and what Linux 6.18 made of them.
    #[test]
    fn writing_changes_the_table() {
        let mut gateway = gateway();
        let path = "net/xt_recent/st";
        for (word, taken, lines) in [
            ("+1.2.3.4", true, 1),
            ("+fe80::1", true, 2),
            ("-9.9.9.9", true, 2),
            ("x", false, 2),
            ("+x", false, 2),
            ("+1.2.3.4/24", false, 2),
            ("+1.2.3.4 ", false, 2),
            (" +1.2.3.4", false, 2),
            ("+", false, 2),
            ("", false, 2),
            ("+1.2.3.999", false, 2),
            ("-1.2.3.4", true, 1),
            ("+::1.2.3.4", true, 2),
            ("/x", true, 0),
        ] {
            let (exit, out, err) = proc(&mut gateway, &[path, word]);
            assert_eq!((exit == 0, out.as_str()), (taken, ""), "{word}");
            assert_eq!(err.ends_with(": Invalid argument\n"), !taken, "{word}: {err}");
            let (exit, out, _) = proc(&mut gateway, &[path]);
            assert_eq!((exit, out.lines().count()), (0, lines), "{word}");
        }
        assert!(gateway.recent("st").is_some() && gateway.recent("other").is_none());
        let (exit, _, err) = proc(&mut gateway, &["net/xt_recent/other"]);
        assert_eq!((exit, err.ends_with("No such file or directory\n")), (1, true));
        let (exit, _, err) = proc(&mut gateway, &["net/nf_conntrack", "/"]);
        assert_eq!((exit, err.ends_with("Permission denied\n")), (1, true));
    }
}
