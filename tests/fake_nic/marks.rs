//! What a NIC says of a checksum: right is believed, anything else is looked at here, as Linux does
//! (`CHECKSUM_UNNECESSARY` or not).

use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, SYN};
use dpdk_bindings::Checksum;

use crate::rig::{Gateway, MASQUERADE, Numbers, Setup, Side, marked};

const NO_INVALID: &str = "*filter\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n";

/// Whether a packet passed, and whether it was INVALID.
fn fate(gateway: &mut Gateway, from: Side, packet: &Packet<'_>, l4: Checksum) -> (bool, bool) {
    let before = gateway.invalid();
    gateway.put_marked(from, packet, marked(l4));
    gateway.settle();
    let passed = gateway.sent(from.other()).len() == 1;
    (passed, gateway.invalid() > before)
}

const PASSED: (bool, bool) = (true, false);
const INVALID: (bool, bool) = (false, true);

#[test]
fn only_a_right_checksum_or_a_nic_that_says_so_makes_a_new_conn() {
    let setup = Setup { workers: 2, v4: NO_INVALID, v6: NO_INVALID, ..Setup::default() };
    let mut gateway = Gateway::new(setup);
    let mut numbers = Numbers(0x600d);
    for is_tcp in [true, false] {
        for v4 in [true, false] {
            for (l4, wrong_one) in [
                (Checksum::Good, PASSED),
                (Checksum::Bad, INVALID),
                (Checksum::Unknown, INVALID),
                (Checksum::None, INVALID),
            ] {
                let mut packet = || {
                    let (client, server) = numbers.ends(v4);
                    match is_tcp {
                        true => Packet::tcp(client, server).flags(SYN).seq(3),
                        false => Packet::udp(client, server).payload(b"datagram"),
                    }
                };
                let (right, wrong) = (packet(), packet().l4_check(0x1234));
                let what = format!("tcp {is_tcp}, IPv4 {v4}, marked {l4:?}");
                assert_eq!(fate(&mut gateway, Side::Lan, &right, l4), PASSED, "{what}");
                assert_eq!(fate(&mut gateway, Side::Lan, &wrong, l4), wrong_one, "{what}");
            }
        }
    }
}

#[test]
fn packets_of_known_conns_are_judged_alike() {
    let rules = format!("{NO_INVALID}{MASQUERADE}");
    let mut gateway = Gateway::new(Setup { workers: 1, v4: &rules, ..Setup::default() });
    let mut numbers = Numbers(0x600e);
    for is_tcp in [true, false] {
        let (client, server) = numbers.ends(true);
        let packet = |flags, seq, ack| match is_tcp {
            true => Packet::tcp(client, server).flags(flags).seq(seq).ack(ack),
            false => Packet::udp(client, server).payload(b"datagram"),
        };
        let (_, sent) = gateway.forward(Side::Lan, &packet(SYN, 0, 0));
        let lent = sent.src();
        let back = match is_tcp {
            true => Packet::tcp(server, lent).flags(SYN | ACK).seq(0).ack(1),
            false => Packet::udp(server, lent),
        };
        gateway.forward(Side::Wan, &back);
        gateway.forward(Side::Lan, &packet(ACK, 1, 1));
        for (l4, expected) in
            [(Checksum::Good, PASSED), (Checksum::Bad, INVALID), (Checksum::Unknown, INVALID)]
        {
            let wrong = packet(ACK, 1, 1).l4_check(0x4321);
            let what = format!("tcp {is_tcp}, marked {l4:?}");
            assert_eq!(fate(&mut gateway, Side::Lan, &wrong, l4), expected, "{what}");
            let right = fate(&mut gateway, Side::Lan, &packet(ACK, 1, 1), l4);
            assert_eq!(right, PASSED, "{what}");
        }
    }
}

#[test]
fn nobody_looks_where_the_checksum_is_not_to_be_looked_at() {
    let mut gateway = Gateway::new(Setup { workers: 1, v4: NO_INVALID, ..Setup::default() });
    sluicegate::tools::Gateway::set_sysctl(&mut gateway.core, "nf_conntrack_checksum", 0).unwrap();
    gateway.settle();
    let (client, server) = Numbers(0x600f).ends(true);
    let wrong = Packet::udp(client, server).payload(b"datagram").l4_check(0x1234);
    assert_eq!(fate(&mut gateway, Side::Lan, &wrong, Checksum::Bad), PASSED);
}
