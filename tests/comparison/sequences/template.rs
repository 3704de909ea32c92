//! What the table raw says of a connection before it exists: zones, helpers, no tracking.

use super::{Ends, HIGH, MASQUERADE, OPEN, Sequence, Setup, both, only4, sequence};
use crate::packets::{Packet, echo, echo_reply, error, udp};
use crate::topology::{C1, C1_6, C2, GATEWAY_WAN, S1, S1_6, S2};
use std::net::IpAddr;

/// Sequences about `-j CT`.
pub fn group() -> Vec<Sequence> {
    vec![
        zone_of_a_port(),
        zone_of_both_ports(),
        same_tuple_in_two_zones(),
        zone_by_address(),
        zone_by_mark(),
        zone_orig(),
        zone_orig_asked_from_outside(),
        zone_reply(),
        zones_and_errors(),
        zones_and_nat(),
        zone_orig_and_nat(),
        first_target_counts(),
        notrack_before_zone(),
        helper_name(),
        helper_and_zone(),
        zone_in_a_user_chain(),
    ]
}

const CLIENT: (IpAddr, u16) = (C1, 4000);
const SERVER: (IpAddr, u16) = (S1, 53);

fn raw(rules: &str) -> Setup {
    both(&[("filter", OPEN), ("raw", rules)])
}

fn question() -> Packet {
    udp(CLIENT, SERVER).payload(b"question")
}

fn answer() -> Packet {
    udp(SERVER, CLIENT).payload(b"answer")
}

fn zone_of_a_port() -> Sequence {
    let rules = "-A PREROUTING -i lan -j CT --zone 5\n";
    sequence("zone-of-a-port", "answers without the zone are strangers", raw(rules), |s| {
        s.lan(question());
        s.wan(answer());
        s.lan(question());
        s.lan(udp((C1_6, 4000), (S1_6, 53)));
        s.table();
    })
}

fn zone_of_both_ports() -> Sequence {
    let rules = "-A PREROUTING -j CT --zone 7\n";
    sequence("zone-of-both-ports", "a zone for everything", raw(rules), |s| {
        s.lan(question());
        s.wan(answer());
        s.lan(question());
        s.wan(answer());
        s.table();
        let ends = Ends::plain((C2, 4000), (S2, 80));
        ends.open(s);
        s.lan(ends.c("PA", 1001, 5001).payload(b"request"));
        s.wan(ends.s("A", 5001, 1008));
        s.table();
        s.lan(echo(C1, S1, 7, 1));
        s.wan(echo_reply(S1, C1, 7, 1));
    })
}

fn same_tuple_in_two_zones() -> Sequence {
    let rules = "-A PREROUTING -i lan -j CT --zone 1\n\
                 -A PREROUTING -i wan -j CT --zone 2\n";
    let setup = only4(&[("filter", OPEN), ("raw", rules)]);
    sequence("same-tuple-in-two-zones", "each port has a table of its own", setup, |s| {
        s.lan(question());
        s.wan(answer());
        s.lan(question());
        s.wan(answer());
        // The very tuple of the first, from the other side.
        s.wan(question());
        s.table();
    })
}

fn zone_by_address() -> Sequence {
    let rules = "-A PREROUTING -s 10.1.0.11 -j CT --zone 3\n\
                 -A PREROUTING -d 10.1.0.11 -j CT --zone 3\n";
    let setup = only4(&[("filter", OPEN), ("raw", rules)]);
    sequence("zone-by-address", "the zone depends on the packet", setup, |s| {
        s.lan(question());
        s.wan(answer());
        s.lan(udp((C2, 4000), SERVER));
        s.wan(udp(SERVER, (C2, 4000)));
        s.lan(question());
        s.wan(answer());
        s.lan(udp((C2, 4000), SERVER));
        s.wan(udp(SERVER, (C2, 4000)));
        s.table();
    })
}

fn zone_by_mark() -> Sequence {
    let rules = "-A PREROUTING -p udp -j MARK --set-mark 0x10009\n\
                 -A PREROUTING -j CT --zone mark\n\
                 -A PREROUTING -p udp -m udp --dport 54 -j MARK --set-mark 8\n";
    sequence("zone-by-mark", "the mark behind raw, cut to 16 bits", raw(rules), |s| {
        s.lan(question());
        s.wan(answer());
        s.lan(udp(CLIENT, (S1, 54)));
        s.lan(echo(C1, S1, 7, 1));
        s.lan(udp((C1_6, 4000), (S1_6, 53)));
        s.table();
    })
}

const ORIG: &str = "-A PREROUTING -i lan -j CT --zone-orig 5\n";

fn zone_orig() -> Sequence {
    sequence("zone-orig", "the answers come without a zone", raw(ORIG), |s| {
        s.lan(question());
        s.table();
        s.wan(answer());
        s.lan(question());
        s.wan(answer());
        s.table();
        let ends = Ends::plain((C2, 4000), (S2, 80));
        ends.open(s);
        s.lan(ends.c("PA", 1001, 5001).payload(b"request"));
        s.wan(ends.s("A", 5001, 1008));
        s.lan(udp((C1_6, 4000), (S1_6, 53)));
        s.wan(udp((S1_6, 53), (C1_6, 4000)));
        s.table();
    })
}

fn zone_orig_asked_from_outside() -> Sequence {
    let shows = "an answer is searched for in the reply's zone too";
    sequence("zone-orig-asked-from-outside", shows, raw(ORIG), |s| {
        s.wan(udp((S1, 4000), (C1, 53)));
        s.lan(udp((C1, 53), (S1, 4000)));
        s.wan(udp((S1, 4000), (C1, 53)));
        s.lan(udp((C1, 53), (S1, 4000)));
        s.table();
    })
}

fn zone_reply() -> Sequence {
    let rules = "-A PREROUTING -i lan -j CT --zone-reply 6\n\
                 -A PREROUTING -i wan -p udp -m udp --sport 53 -j CT --zone 6\n";
    sequence("zone-reply", "only who has the zone can answer", raw(rules), |s| {
        s.lan(question());
        s.wan(answer());
        s.lan(question());
        s.lan(udp(CLIENT, (S1, 54)));
        s.wan(udp((S1, 54), CLIENT));
        s.table();
    })
}

fn zones_and_errors() -> Sequence {
    let rules = "-A PREROUTING -i lan -j CT --zone-orig 5\n\
                 -A PREROUTING -i wan -s 203.0.113.52 -j CT --zone 9\n";
    let setup = only4(&[("filter", super::NOT_INVALID), ("raw", rules)]);
    sequence("zones-and-errors", "an error is about a connection of its zone", setup, |s| {
        s.lan(question());
        s.wan(error(S1, C1, 3, 3, &question()));
        s.wan(error(S2, C1, 3, 3, &question()));
        s.wan(answer());
        s.lan(error(C1, S1, 3, 3, &answer()));
        s.table();
    })
}

fn zones_and_nat() -> Sequence {
    let rules = "-A PREROUTING -i lan -s 10.1.0.11 -j CT --zone 1\n\
                 -A PREROUTING -i lan -s 10.1.0.12 -j CT --zone 2\n";
    let setup = only4(&[("filter", OPEN), ("raw", rules), ("nat", MASQUERADE)]);
    sequence("zones-and-nat", "a port is taken once in each zone", setup, |s| {
        s.lan(udp((C1, 4000), SERVER));
        s.lan(udp((C2, 4000), SERVER));
        s.table();
    })
}

fn zone_orig_and_nat() -> Sequence {
    let rules = "-A PREROUTING -i lan -s 10.1.0.11 -j CT --zone-orig 1\n\
                 -A PREROUTING -i lan -s 10.1.0.12 -j CT --zone-orig 2\n";
    let setup = only4(&[("filter", OPEN), ("raw", rules), ("nat", MASQUERADE)]);
    sequence("zone-orig-and-nat", "one zone for all answers: ports differ", setup, |s| {
        s.lan(udp((C1, 4000), SERVER));
        let step = s.lan(udp((C2, 4000), SERVER));
        let second = s.learn(step, HIGH, "port of the second");
        s.wan(udp(SERVER, (GATEWAY_WAN, 4000)));
        s.wan(udp(SERVER, second));
        s.lan(udp((C1, 4000), SERVER));
        s.lan(udp((C2, 4000), SERVER));
        s.table();
    })
}

fn first_target_counts() -> Sequence {
    let rules = "-A PREROUTING -p udp -m udp --dport 53 -j CT\n\
                 -A PREROUTING -i lan -j CT --zone 4\n\
                 -A PREROUTING -j NOTRACK\n";
    sequence("first-target-counts", "zone or no tracking, whoever says it first", raw(rules), |s| {
        s.lan(question());
        s.lan(udp(CLIENT, (S1, 54)));
        s.wan(udp((S1, 60), CLIENT));
        s.table();
    })
}

fn notrack_before_zone() -> Sequence {
    let rules = "-A PREROUTING -p udp -j CT --notrack --zone 4\n\
                 -A PREROUTING -j CT --zone 4\n";
    sequence("notrack-before-zone", "a zone does not bring tracking back", raw(rules), |s| {
        s.lan(question());
        s.lan(question());
        s.lan(echo(C1, S1, 7, 1));
        s.table();
    })
}

fn helper_name() -> Sequence {
    let rules = "-A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp\n";
    sequence("helper-name", "the listing names the helper", raw(rules), |s| {
        s.lan(udp(CLIENT, (S1, 69)));
        s.wan(udp((S1, 69), CLIENT));
        s.lan(question());
        s.lan(udp((C1_6, 4000), (S1_6, 69)));
        s.table();
    })
}

fn helper_and_zone() -> Sequence {
    let rules = "-A PREROUTING -i lan -p udp -m udp --dport 69 -j CT --zone 3 --helper tftp\n\
                 -A PREROUTING -j CT --zone 3\n";
    sequence("helper-and-zone", "one target says both", raw(rules), |s| {
        s.lan(udp(CLIENT, (S1, 69)));
        s.wan(udp((S1, 69), CLIENT));
        s.lan(udp(CLIENT, (S1, 69)));
        s.lan(question());
        s.table();
    })
}

fn zone_in_a_user_chain() -> Sequence {
    let rules = ":tenants - [0:0]\n\
                 -A PREROUTING -i lan -j tenants\n\
                 -A PREROUTING -j CT --zone 9\n\
                 -A tenants -p tcp -j RETURN\n\
                 -A tenants -j CT --zone-orig 8\n";
    sequence("zone-in-a-user-chain", "who returns goes on behind the jump", raw(rules), |s| {
        s.lan(question());
        s.wan(answer());
        let ends = Ends::plain((C2, 4000), (S2, 80));
        ends.open(s);
        s.lan(question());
        s.table();
    })
}
