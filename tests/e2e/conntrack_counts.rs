//! What `/proc/net/stat/nf_conntrack` and `conntrack -S` count, beside the kernel's: the same
//! packets through both, and by how much each sum has moved.
//!
//! Left out is what nobody can bring about with packets alone: two first packets of a conn that
//! meet at confirm (`insert_failed`, `clash_resolve`), a search that begins anew
//! (`search_restart`), and a chain that is too long under a secret hash.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;

use crate::live::{Bench, OPEN, Seen, on_both};
use crate::packets::{Packet, error, icmp, tcp, udp};
use crate::rig::{LAN_HOST, WAN_HOST, Wish};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn client(port: u16) -> (IpAddr, u16) {
    (address(LAN_HOST), port)
}

fn server(port: u16) -> (IpAddr, u16) {
    (address(WAN_HOST), port)
}

/// The columns by name, summed up over the rows; of `entries`, which each row repeats, the first.
fn counts(bench: &Bench<'_>) -> Vec<(String, u64)> {
    let text = bench.side.proc("net/stat/nf_conntrack");
    let mut rows = text.lines();
    let names = rows.next().unwrap_or_default().split_whitespace().map(str::to_owned);
    let mut sums: Vec<(String, u64)> = names.map(|name| (name, 0)).collect();
    for (number, row) in rows.enumerate() {
        let values: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(values.len(), sums.len(), "{text}");
        for ((name, sum), value) in sums.iter_mut().zip(values) {
            let value = u64::from_str_radix(value, 16).unwrap_or_else(|_| panic!("{text}"));
            *sum = if name == "entries" && number > 0 { value } else { *sum + value };
        }
    }
    sums
}

/// The same as `conntrack -S` and `-S expect` have it, by the names of the file.
fn tool_counts(bench: &Bench<'_>) -> Vec<(String, u64)> {
    let text = bench.run("conntrack -S") + &bench.run("conntrack -S expect");
    let mut sums: Vec<(String, u64)> = Vec::new();
    for (name, value) in text.split_whitespace().filter_map(|word| word.split_once('=')) {
        let name = match name {
            "cpu" => continue,
            "error" => "icmp_error",
            "clash_resolve" => "clashres",
            "chaintoolong" => "chainlength",
            name => name,
        };
        let value: u64 = value.parse().unwrap_or_else(|_| panic!("{text}"));
        match sums.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += value,
            None => sums.push((name.to_owned(), value)),
        }
    }
    sums
}

/// Notes what a script moves, and sees to it that file and tool agree.
fn moves(bench: &mut Bench<'_>, what: &str, script: impl FnOnce(&mut Bench<'_>)) {
    let before = counts(bench);
    script(bench);
    let after = counts(bench);
    let tool = tool_counts(bench);
    assert!(tool.len() >= 13, "{tool:?}");
    for (name, sum) in &tool {
        assert!(after.contains(&(name.clone(), *sum)), "{what}: {name}={sum}, but {after:?}");
    }
    let mut moved = String::new();
    for ((name, old), (_, new)) in before.iter().zip(&after) {
        if old != new {
            let _ = write!(moved, " {name}{:+}", *new as i64 - *old as i64);
        }
    }
    bench.note(what, moved);
}

/// What the kernel has been seen to move, so that nothing passes for being the same on both sides.
fn assert_moved(seen: &[Seen], what: &str, words: &str) {
    let line = format!("{what}: {words}");
    let found = seen.iter().any(|seen| matches!(seen, Seen::Text(text) if *text == line));
    assert!(found, "not seen: {line}\n{seen:#?}");
}

#[test]
fn what_packets_move_is_what_they_move_in_the_kernel() {
    let seen = on_both(Wish::default(), |bench| {
        let (lan, wan) = (address(LAN_HOST), address(WAN_HOST));
        moves(bench, "invalid", |bench| {
            bench.lan(&tcp(client(4000), server(80), "FS", 1, 0));
            bench.lan(&tcp(client(4000), server(80), "", 1, 0));
            bench.lan(&udp(client(4000), server(53)).payload(b"x").bad_checksum());
            bench.lan(&udp(client(4000), server(53)).udp_length(99));
            bench.lan(&tcp(client(4000), server(80), "S", 1000, 0));
            bench.wan(&tcp(server(80), client(4000), "SA", 7, 9));
        });
        moves(bench, "errors", |bench| {
            bench.wan(&error(wan, lan, 3, 1, &udp(client(1), server(2))));
            bench.wan(&icmp(wan, lan, 3, 1, [0; 4]).payload(b"short"));
            bench.lan(&icmp(lan, wan, 200, 0, [0; 4]));
            bench.lan(&icmp(lan, wan, 0, 0, [0; 4]));
        });
        moves(bench, "entries", |bench| {
            bench.flush();
            (0..3).for_each(|n| bench.lan(&udp(client(5000 + n), server(53))));
        });
        moves(bench, "insert", |bench| {
            let tuple = "-p udp -s 1.1.1.1 -d 2.2.2.2 --sport 1 --dport";
            bench.run(&format!("conntrack -I {tuple} 1 -t 90"));
            bench.run(&format!("conntrack -A {tuple} 2 -t 90"));
            bench.run(&format!("conntrack -A {tuple} 2 -t 90"));
            bench.side.ask(&format!("conntrack -I {tuple} 2 -t 90"));
        });
    });
    assert_moved(&seen, "invalid", " entries+1 invalid+4");
    assert_moved(&seen, "errors", " invalid+1 icmp_error+3");
    assert_moved(&seen, "insert", " entries+2 insert+2");
}

#[test]
fn a_port_that_is_taken_is_found() {
    let seen = on_both(Wish::default(), |bench| {
        bench.rules(&OPEN.replace(
            ":POSTROUTING ACCEPT [0:0]\n",
            ":POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o wan -p udp -j MASQUERADE\n",
        ));
        bench.flush();
        let from = |last: u8| (address(&format!("10.77.0.{last}")), 4000);
        moves(bench, "the first has it", |bench| bench.lan(&udp(from(2), server(53))));
        moves(bench, "the second finds it", |bench| bench.lan(&udp(from(3), server(53))));
        moves(bench, "another server", |bench| bench.lan(&udp(from(3), server(54))));
    });
    assert_moved(&seen, "the second finds it", " entries+1 found+1");
}

#[test]
fn expectations_are_counted_as_the_kernel_counts_them() {
    let seen = on_both(Wish::default(), |bench| {
        let rule = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                    -A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp\nCOMMIT\n";
        let output = bench.side.feed("iptables-restore", &format!("{OPEN}{rule}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        bench.flush();
        let ask = |port| udp(client(port), server(69)).payload(b"\0\x01name\0octet\0");
        moves(bench, "asked", |bench| bench.lan(&ask(4000)));
        moves(bench, "answered", |bench| {
            bench.wan(&udp(server(7000), client(4000)).payload(b"\0\x03\0\x01data"));
        });
        moves(bench, "asked again", |bench| bench.lan(&ask(4001)));
        moves(bench, "ended", |bench| bench.flush());
        for options in ["", " -o extended,timestamp"] {
            bench.events("told", options, |bench| {
                bench.lan(&ask(4002));
                bench.run("conntrack -D -p udp --sport 4002");
            });
        }
    });
    assert_moved(&seen, "asked", " entries+1 expect_create+1");
}

/// Lines for `conntrack -R` that make so many conns.
fn conns(count: u64, status: &str) -> String {
    let mut text = String::new();
    for n in 0..count {
        let [_, a, b, c] = (n as u32).to_be_bytes();
        let _ = writeln!(
            text,
            "-A -t 900 -u {status} -s 10.{a}.{b}.{c} -d 203.0.113.9 -p udp --sport 1 --dport 9"
        );
    }
    text
}

/// A namespace cannot say how many conns it takes: what the machine takes is made in the kernel.
#[test]
fn a_full_table_drops_as_the_kernel_s() {
    let mut kernel = true;
    let seen = on_both(Wish::default(), |bench| {
        let max = if std::mem::take(&mut kernel) {
            let max = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max");
            let max = max.expect("the kernel has conntrack").trim().parse().expect("a number");
            assert!(max <= 1 << 20, "{max} conns are too many for a test");
            max
        } else {
            // And so few buckets that none of eight in a row is without conns.
            bench.set("max", 1000);
            bench.set("buckets", 256);
            1000
        };
        let packet = |port: u16| -> Packet { udp(client(port), server(53)) };
        for (status, what) in [("SEEN_REPLY,ASSURED", "assured"), ("SEEN_REPLY", "not assured")] {
            bench.flush();
            let path = bench.side.files().write("conns", &conns(max, status));
            bench.run(&format!("conntrack -R {}", path.display()));
            assert_eq!(bench.run("conntrack -C").trim(), max.to_string());
            let before = counts(bench);
            let passed = bench.bytes(true, &packet(5000).bytes());
            let after = counts(bench);
            let by = |name: &str| {
                let of = |sums: &[(String, u64)]| {
                    sums.iter().find(|(known, _)| known == name).expect("a column").1
                };
                of(&after) - of(&before)
            };
            // How many go is for the hash to say.
            let early = by("early_drop") > 0;
            bench.note(what, format!("{passed} {} {early}", by("drop")));
            moves(bench, what, |bench| {
                let tuple = "-p udp -s 1.1.1.1 -d 2.2.2.2 --sport 1 --dport 1 -t 9";
                if !early {
                    assert!(!bench.side.ask(&format!("conntrack -I {tuple}")).status.success());
                }
            });
        }
        bench.flush();
    });
    assert_moved(&seen, "assured", "0 1 false");
    assert_moved(&seen, "not assured", "1 0 true");
}
