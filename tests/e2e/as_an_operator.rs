//! What an operator types on a gateway: the same steps to the kernel's tools and to ours, with the
//! same text on standard output, the same exit code, and the word at fault in what is complained.

use crate::live::{Bench, on_both};
use crate::netns::demand_programs;
use crate::rig::Wish;

/// A command line and what a complaint about it names; nothing for one that is obeyed.
type Step = (&'static str, &'static str);

/// The tables that are there already are emptied first.
const CLEAN: &[Step] = &[
    ("iptables -F", ""),
    ("iptables -t nat -F", ""),
    ("iptables -P INPUT ACCEPT", ""),
    ("iptables -P FORWARD ACCEPT", ""),
    ("iptables -S", ""),
];

const EDITS: &[Step] = &[
    ("iptables -A OUTPUT -p tcp -m state --state ESTABLISHED -j ACCEPT", ""),
    ("iptables -t raw -A PREROUTING -p tcp -j NOTRACK", ""),
    ("iptables -t nat -A POSTROUTING -o wan -s 172.30.4.0/24 -j SNAT --to 172.30.4.11", ""),
    ("iptables -A INPUT -p tcp -s 54.239.25.200 --sport 443 -j ACCEPT", ""),
    ("iptables -S", ""),
    ("iptables -t raw -S", ""),
    ("iptables -t nat -S", ""),
    ("iptables -N web", ""),
    ("iptables -N web", "exists"),
    ("iptables -N ACCEPT", "target"),
    ("iptables -A web -p tcp -m multiport --dports 80,443,8000:8100 -j ACCEPT", ""),
    ("iptables -A INPUT -j web", ""),
    ("iptables -X web", "web"),
    ("iptables -F web", ""),
    ("iptables -A INPUT -g web", ""),
    ("iptables -A INPUT -j nope", "nope"),
    ("iptables -I INPUT 1 -s 10.0.0.0/8 -j DROP", ""),
    ("iptables -I INPUT 3 -s 11.0.0.0/8 -j DROP", ""),
    ("iptables -I INPUT 9 -s 12.0.0.0/8 -j DROP", "Index of insertion too big."),
    ("iptables -I INPUT 0 -s 12.0.0.0/8 -j DROP", "`0'"),
    ("iptables -R INPUT 2 -s 13.0.0.0/8 -j ACCEPT", ""),
    ("iptables -R INPUT 22 -s 13.0.0.0/8 -j ACCEPT", "Index of replacement too big."),
    ("iptables -R INPUT -s 13.0.0.0/8 -j ACCEPT", "-R"),
    ("iptables -S INPUT", ""),
    ("iptables -S INPUT 2", ""),
    ("iptables -S INPUT 99", ""),
    ("iptables -D INPUT 2", ""),
    ("iptables -D INPUT 99", "Index of deletion too big."),
    ("iptables -D INPUT -s 10.0.0.0/8 -j DROP", ""),
    ("iptables -D INPUT -s 10.0.0.0/8 -j DROP", "does a matching rule exist"),
    ("iptables -C INPUT -s 11.0.0.0/8 -j DROP", ""),
    ("iptables -C INPUT -s 14.0.0.0/8 -j DROP", "does a matching rule exist"),
    ("iptables -P FORWARD DROP", ""),
    ("iptables -P FORWARD REJECT", "Bad policy name"),
    ("iptables -P web DROP", "Bad built-in chain name."),
    ("iptables -E web www", ""),
    ("iptables -E nope x", "No chain/target/match by that name."),
    ("iptables -Z INPUT 1", ""),
    ("iptables -Z", ""),
    ("iptables -A INPUT -c 5 6 -p icmp --icmp-type 3/77", ""),
    ("iptables -A INPUT ! -s 192.0.2.0/24 ! -i lan ! -p tcp -j DROP", ""),
    ("iptables -L -n -v --line-numbers", ""),
    ("iptables -nvxL INPUT", ""),
    ("iptables -L INPUT 2 -n", ""),
    ("iptables -t nat -nL", ""),
    ("iptables -v -A FORWARD -s 10.0.0.0/8 -p tcp --dport 80 -j DROP", ""),
    ("iptables -v -D FORWARD -s 10.0.0.0/8 -p tcp --dport 80 -j DROP", ""),
    ("iptables -w 5 -A FORWARD -m limit --limit 5/min --limit-burst 7 -j LOG", ""),
    ("iptables -S", ""),
    ("iptables -F", ""),
    ("iptables -X", ""),
    ("iptables -t raw -F", ""),
    ("iptables -t nat -F", ""),
    ("iptables -S", ""),
];

const REFUSED: &[Step] = &[
    ("iptables", "no command specified"),
    ("iptables -Q", "-Q"),
    ("iptables -A", "-A"),
    ("iptables -A INPUT -p nope", "nope"),
    ("iptables -A INPUT -p tcp --dport 99999", "`99999'"),
    ("iptables -A INPUT --dport 80", "--dport"),
    ("iptables -A INPUT -s 1.2.3.4/33", "`33'"),
    ("iptables -A INPUT -m nope", "nope"),
    ("iptables -A INPUT -o wan -j DROP", "-o"),
    ("iptables -t nope -L", "nope"),
    ("iptables -t nat -P PREROUTING DROP", "DROP"),
    ("iptables -A INPUT -A OUTPUT", "-A"),
    ("iptables -A INPUT -m set --match-set nope src -j DROP", "Set nope doesn't exist."),
    ("iptables -A INPUT -j SET --add-set nope src", "Set nope doesn't exist."),
    ("iptables -A INPUT -j REJECT --reject-with nope", "nope"),
    ("iptables -A INPUT -m conntrack --ctstate NOPE", "NOPE"),
    ("iptables -A INPUT -m limit --limit 0/min", "0/min"),
    ("iptables-save -t nope", "nope"),
    ("iptables -S", ""),
];

const SIX: &[Step] = &[
    ("ip6tables -F", ""),
    ("ip6tables -P INPUT ACCEPT", ""),
    ("ip6tables -P FORWARD ACCEPT", ""),
    ("ip6tables -A INPUT -p icmpv6 --icmpv6-type 128/0 -j ACCEPT", ""),
    ("ip6tables -A INPUT -s fe80::/10 -p tcp --dport 22 -j REJECT", ""),
    ("ip6tables -A INPUT -s 10.0.0.1 -j ACCEPT", "10.0.0.1"),
    ("ip6tables -A INPUT -f -j DROP", "-f"),
    ("ip6tables -A FORWARD -m hl --hl-lt 2 -j DROP", ""),
    ("ip6tables -L -n", ""),
    ("ip6tables -S", ""),
    ("ip6tables -F", ""),
];

const SETS: &[Step] = &[
    ("ipset create s hash:ip timeout 0 counters", ""),
    ("ipset create s hash:ip", "exists"),
    ("ipset create n nope", "nope"),
    ("ipset add s 192.0.2.1", ""),
    ("ipset add s 192.0.2.1", "already added"),
    ("ipset add s fe80::1", "fe80::1"),
    ("ipset add nope 192.0.2.1", "does not exist"),
    ("ipset test s 192.0.2.1", "192.0.2.1"),
    ("ipset test s 192.0.2.2", "NOT in set"),
    ("ipset del s 192.0.2.9", "not added"),
    ("ipset create six hash:net family inet6", ""),
    ("iptables -A INPUT -m set --match-set s src -j DROP", ""),
    ("iptables -A INPUT -m set --match-set six src -j DROP", "six"),
    ("iptables -A INPUT -j SET --add-set s dst --exist --timeout 5", ""),
    ("iptables -S INPUT", ""),
    ("iptables -nL INPUT", ""),
    ("ipset destroy s", "in use"),
    ("ipset rename six seven", ""),
    ("ipset list -n", ""),
    ("ipset nope", "nope"),
    ("iptables -F", ""),
];

/// Files for `iptables-restore`, its options, and what a complaint names.
const FILES: &[(&str, &str, &str)] = &[
    ("--test", "*filter\n:INPUT DROP [1:2]\n-A INPUT -j ACCEPT\nCOMMIT\n", ""),
    ("-n", "*filter\n:new - [0:0]\n-A new -j ACCEPT\n-A INPUT -j new\nCOMMIT\n", ""),
    ("-c", "*filter\n:INPUT DROP [10:20]\n[7:77] -A INPUT -s 192.0.2.1 -j ACCEPT\nCOMMIT\n", ""),
    (
        "-n -c",
        "*nat\n:PREROUTING ACCEPT [5:6]\n[9:10] -A PREROUTING -p tcp -j ACCEPT\nCOMMIT\n",
        "",
    ),
    ("", "*filter\n-A INPUT -j ACCEPT\n-A NOPE -j DROP\nCOMMIT\n", "line"),
    ("", "*filter\n-A INPUT -j NOPE\nCOMMIT\n", "NOPE"),
    ("", "*nope\nCOMMIT\n", "nope"),
    ("", "*filter\n-A INPUT -j ACCEPT\n", "COMMIT expected"),
    ("-n", "*filter\n-D INPUT -s 192.0.2.9 -j DROP\nCOMMIT\n", "line"),
    ("-T filter", "*nat\n-F\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", ""),
];

fn note(b: &mut Bench<'_>, line: &str, word: &str, output: &std::process::Output) {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let said = format!("{out}{err}");
    assert_eq!(word.is_empty(), output.status.success() && err.is_empty(), "{line}: {err}");
    assert!(said.contains(word), "{line}: {word} is not in {said}");
    // The tools' date, and the hash that a set has of its own.
    let out: Vec<&str> = out.lines().filter(|line| !line.starts_with('#')).collect();
    b.note(line, format_args!("{:?}\n    {}", output.status.code(), out.join("\n    ")));
}

fn take(b: &mut Bench<'_>, steps: &[Step]) {
    for (line, word) in steps {
        let output = b.side.ask(line);
        // What a test of a set says it says there.
        note(b, line, word, &output);
    }
}

#[test]
fn the_tools_of_a_gateway_are_the_kernel_s() {
    demand_programs(&["iptables", "ip6tables", "ipset"]);
    on_both(Wish::default(), |b| {
        for steps in [CLEAN, EDITS, REFUSED, SIX, SETS] {
            take(b, steps);
        }
        for (options, text, word) in FILES {
            let line = format!("iptables-restore {options}");
            let output = b.side.feed(line.trim(), text);
            note(b, &format!("{line} {text}"), word, &output);
            take(b, &[("iptables-save -c -t filter", ""), ("iptables-save -c -t nat", "")]);
        }
        assert!(b.run("sysctl net.netfilter.nf_conntrack_count").starts_with("net.netfilter."));
        b.run("conntrack -L");
    });
}
