//! Two lcores and what one of them has begun and the other goes on with.

use arrayvec::ArrayVec;
use dataplane::conntrack::tuple::{Tuple, proto};
use dataplane::lcore::memory::MemoryFrame;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::handoff::{Handed, Stage};
use dataplane::pipeline::messages::ToLcore;
use dataplane::rules::hook::Table::{Filter, Nat, Raw};
use dataplane::wire::tcp::flags::{ACK, RST, SYN};

use super::host_lcores::Pair;
use super::rig::*;
use super::rules::*;
use super::tracking::{tcp, udp};

const SERVER: &str = "198.51.100.7:53";

fn counting() -> Setup {
    Setup::default().both(Raw, "PREROUTING", count()).both(Filter, "INPUT", count())
}

impl Pair {
    /// Ports from which a host's packets to the gateway are begun at `lcore` by their hash.
    fn ports_of(&self, lcore: u8, host: &str, gateway: &str, n: usize) -> Vec<u16> {
        let place = self.layout.place(lcore);
        let to = at(gateway);
        let is_its = |port: &u16| {
            let (src, dst) = (address(host), to.ip().into());
            let (src_id, dst_id, proto) = (*port, to.port(), proto::UDP);
            let tuple = Tuple { src, dst, src_id, dst_id, proto };
            place.elsewhere(WAN, self.shared.hash(&tuple, 0)).is_none()
        };
        (4000..).filter(is_its).take(n).collect()
    }
}

#[test]
fn who_has_room_made_for_a_conn_keeps_it_where_hashes_name_another() {
    const HOST: &str = "198.51.100.9";
    const OURS: &str = "203.0.113.1:22";
    let mut pair = Pair::with_queues(Setup { max: 16, ..counting() }, 1);
    // All the room there is belongs to lcore 0.
    for port in pair.ports_of(0, HOST, OURS, 16) {
        pair.pass(1, WAN, udp(&format!("{HOST}:{port}"), OURS));
    }
    assert_eq!((pair.owned(), pair.count(Raw, "PREROUTING")), ([16, 0], [16, 0]));
    for (n, port) in (1..).zip(pair.ports_of(1, HOST, OURS, 12)) {
        pair.pass(1, WAN, udp(&format!("{HOST}:{port}"), OURS));
        assert_eq!(pair.count(Raw, "PREROUTING").iter().sum::<u64>(), 16 + n, "raw once");
        assert_eq!(pair.count(Filter, "INPUT").iter().sum::<u64>(), 16 + n);
    }
    assert!(pair.count(Filter, "INPUT")[0] > 16, "some went on at lcore 0");
    let full = DropReason::TableFull as usize;
    assert!(pair.counters.iter().all(|c| c.drops[full].get() == 0));
}

#[test]
fn what_passed_raw_elsewhere_is_not_counted_there_again_by_a_cached_path() {
    let setup = counting().both(Filter, "FORWARD", count());
    let mut pair = Pair::with_queues(setup, 2);
    let client = "198.51.100.9:4000";
    pair.pass(0, WAN, udp(client, SERVER));
    for _ in 0..3 {
        pair.pass(0, WAN, udp(client, SERVER));
    }
    assert!(pair.counters[0].fast.get() > 0, "a path is cached");
    // Another lcore saw the conn only behind its raw table.
    let frame = MemoryFrame::new(framed(WAN, &udp(client, SERVER)));
    let (stage, template) = (Stage::PastRaw, None);
    let handed = Handed {
        frame,
        port: WAN,
        stage,
        hops: 1,
        mark: 0,
        traced: false,
        template,
        datagram: None,
    };
    pair.third.give(0, &mut ArrayVec::<_, 1>::from([handed]));
    assert_eq!(pair.settle().len(), 1);
    pair.mailboxes[0].send(ToLcore::Fold).unwrap();
    pair.settle();
    assert_eq!(pair.count(Raw, "PREROUTING"), [4, 0]);
    assert_eq!(pair.count(Filter, "FORWARD"), [5, 0]);
}

/// An INVALID segment is reset by who received it; the reset itself is a packet of a conn that
/// another lcore owns.
#[test]
fn a_packet_of_our_own_goes_to_the_owner_of_its_conn() {
    const FAR: &str = "198.51.100.7:80";
    let setup = Setup::default()
        .both(Nat, "POSTROUTING", masquerade())
        .both(Raw, "OUTPUT", count())
        .both(Filter, "FORWARD", reset().in_port("wan"))
        .knob("tcp_loose", 0);
    let mut pair = Pair::with_queues(setup, 2);
    for (n, client) in (1..).zip(["192.168.1.2:4000", "192.168.1.2:4001"]) {
        pair.pass(0, LAN, tcp(client, FAR, SYN, 7, 0));
        assert_eq!(pair.owned(), [1, 0]);
        let (_, sent) = pair.pass(1, WAN, tcp(FAR, client, ACK, 9, 8));
        assert_eq!((sent.port, sent.headers().tcp_flags), (WAN, RST));
        assert_eq!(pair.owned(), [0, 0], "the reset ends the attempt");
        assert_eq!(pair.count(Raw, "OUTPUT").iter().sum::<u64>(), n, "raw once");
    }
}
