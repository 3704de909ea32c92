//! Datagrams in fragments: one lcore, several, the kernel's interfaces; the comparison with the
//! kernel has the rules of putting together and of cutting.

use dataplane::lcore::memory::MemoryFrame;
use dataplane::pipeline::drops::DropReason::{self, *};
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Family::{V4, V6};
use dataplane::rules::hook::Table::{Filter, Nat, Raw};
use dataplane::wire::build::packet::Packet;
use dataplane::wire::checksum;
use dataplane::wire::headers::Fragment;

use super::host_lcores::Pair;
use super::rig::*;
use super::rules::*;
use super::tracking::udp;

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:53";
const CLIENT6: &str = "[2001:db8:1::2]:4000";
const SERVER6: &str = "[2001:db8:ffff::7]:53";

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| ((n * 7) >> 3) as u8).collect()
}

/// One fragment of a frame's packet: where its payload begins, its length, whether more follow.
fn part(frame: &[u8], id: u16, (offset, len, more): (usize, usize, bool)) -> Vec<u8> {
    if frame[12] == 8 {
        let mut piece = frame[..34].to_vec();
        let word = u16::from(more) << 13 | (offset / 8) as u16;
        piece[16..18].copy_from_slice(&(20 + len as u16).to_be_bytes());
        piece[18..20].copy_from_slice(&id.to_be_bytes());
        piece[20..22].copy_from_slice(&word.to_be_bytes());
        piece[24..26].fill(0);
        let check = checksum::internet(&piece[14..34]);
        piece[24..26].copy_from_slice(&check.to_be_bytes());
        piece.extend(&frame[34 + offset..34 + offset + len]);
        piece
    } else {
        let mut piece = frame[..54].to_vec();
        piece[18..20].copy_from_slice(&(8 + len as u16).to_be_bytes());
        let [a, b] = (offset as u16 | u16::from(more)).to_be_bytes();
        let [c, d] = id.to_be_bytes();
        let next = std::mem::replace(&mut piece[20], 44);
        piece.extend([next, 0, a, b, 0, 0, c, d]);
        piece.extend(&frame[54 + offset..54 + offset + len]);
        piece
    }
}

/// A frame's packet in fragments with these lengths of payload; the last has what is left.
fn cut(frame: &[u8], id: u16, lengths: &[usize]) -> Vec<Vec<u8>> {
    let len = frame.len() - if frame[12] == 8 { 34 } else { 54 };
    let mut offset = 0;
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for &n in lengths {
        parts.push(part(frame, id, (offset, n, true)));
        offset += n;
    }
    parts.push(part(frame, id, (offset, len - offset, false)));
    parts
}

/// Offset, length, more to come, of each fragment that was sent, and what they are together.
fn joined(sent: &[Sent]) -> (Vec<(usize, usize, bool)>, Vec<u8>) {
    let mut whole = Vec::new();
    let mut shape = Vec::new();
    for one in sent {
        let h = one.headers();
        let (offset, more) = match h.fragment {
            Fragment::First { .. } => (0, true),
            Fragment::Later { offset, more, .. } => (offset as usize, more),
            Fragment::None | Fragment::Atomic { .. } => (0, false),
        };
        let payload = &one.bytes[h.l4 as usize..h.end as usize];
        whole.resize(whole.len().max(offset + payload.len()), 0);
        whole[offset..offset + payload.len()].copy_from_slice(payload);
        shape.push((offset, payload.len(), more));
    }
    (shape, whole)
}

fn send(rig: &mut Rig, port: PortId, parts: &[Vec<u8>]) -> Vec<Sent> {
    for bytes in parts {
        rig.push(port, MemoryFrame::new(bytes.clone()));
    }
    rig.poll()
}

fn masquerading() -> Setup {
    Setup::default().both(Nat, "POSTROUTING", masquerade())
}

/// One burst completes twenty datagrams of 45 fragments, more than an output has room for, and
/// between them come packets that fit: all leave, in their order.
#[test]
fn many_datagrams_that_are_whole_at_once_all_leave() {
    const DATAGRAMS: u16 = 20;
    const FRAGMENTS: usize = 45;
    let mut rig = masquerading().knob("ipfrag_max_dist", 0).start();
    let small = |n: u16| framed(LAN, &udp(CLIENT, SERVER).payload(&n.to_be_bytes()));
    rig.pass(LAN, udp(CLIENT, SERVER));
    let mut last = Vec::new();
    for id in 1..=DATAGRAMS {
        let payload = [&bytes(24 * FRAGMENTS - 10)[..], &id.to_be_bytes()].concat();
        let frame = framed(LAN, &udp(CLIENT, SERVER).payload(&payload));
        let mut parts = cut(&frame, id, &[24; FRAGMENTS - 1]);
        last.push(parts.pop().unwrap());
        assert!(send(&mut rig, LAN, &parts).is_empty());
        last.push(small(id));
    }
    let sent = send(&mut rig, LAN, &last);
    assert_eq!((rig.drop_count(TxFull), rig.counters.held.get()), (0, 0));
    let each = sent.chunks(FRAGMENTS + 1);
    assert_eq!(each.len(), DATAGRAMS as usize);
    for (group, id) in each.zip(1..=DATAGRAMS) {
        let (shape, whole) = joined(&group[..FRAGMENTS]);
        assert!(shape.iter().zip((0..).step_by(24)).all(|(one, at)| one.0 == at), "{shape:?}");
        assert_eq!(whole[whole.len() - 2..], id.to_be_bytes());
        assert_eq!(group[FRAGMENTS].bytes[42..44], id.to_be_bytes(), "behind its datagram");
    }
}

#[test]
fn s49_a_datagram_goes_through_the_hooks_once_and_every_frame_ends_once() {
    let setup = masquerading().both(Raw, "PREROUTING", count()).both(Filter, "FORWARD", count());
    let mut rig = setup.start();
    let payload = bytes(3000);
    for (client, server, family, header) in [(CLIENT, SERVER, V4, 20), (CLIENT6, SERVER6, V6, 40)] {
        let frame = framed(LAN, &udp(client, server).payload(&payload));
        let mut parts = cut(&frame, 7, &[800, 1448]);
        parts.reverse();
        let generated = rig.counters.generated.get();
        let put_together = rig.drop_count(Reassembled);
        let sent = send(&mut rig, LAN, &parts);
        let (shape, whole) = joined(&sent);
        assert_eq!(shape, [(0, 800, true), (800, 1448, true), (2248, 760, false)]);
        assert_eq!(whole[8..], payload);
        assert_eq!(rig.counters.generated.get() - generated, 3);
        assert_eq!(rig.drop_count(Reassembled) - put_together, 3);
        let once = (1, 3008 + header);
        assert_eq!(rig.count(family, Raw, "PREROUTING", Some(0)), once);
        assert_eq!(rig.count(family, Filter, "FORWARD", Some(0)), once);
        assert!(sent.iter().all(|s| s.dst_mac() == UPSTREAM_MAC));
    }
    assert_eq!(rig.counters.held.get(), 0);
    assert_eq!(rig.list().len(), 2);
}

#[test]
fn fragments_in_several_segments_leave_as_the_same_bytes() {
    let payload = bytes(4000);
    let frame = framed(LAN, &udp(CLIENT, SERVER).payload(&payload));
    for cuts in [&[][..], &[64], &[42, 300], &[42, 0, 9]] {
        let mut rig = masquerading().start();
        for part in cut(&frame, 7, &[1200, 1200, 1200]) {
            rig.push(LAN, MemoryFrame::chain(&part, cuts));
        }
        let sent = rig.poll();
        let (shape, whole) = joined(&sent);
        assert_eq!(shape.len(), 4, "{cuts:?}");
        assert_eq!(whole[8..], payload);
        assert_eq!(rig.counters.conntrack.invalid.get(), 0);
    }
}

#[test]
fn a_priority_tag_belongs_to_the_link() {
    let mut rig = masquerading().start();
    let frame = framed(LAN, &udp(CLIENT, SERVER).payload(&bytes(1000)));
    let mut parts = cut(&frame, 7, &[400]);
    for part in &mut parts {
        part.splice(12..12, [0x81, 0, 0, 0]);
    }
    let sent = send(&mut rig, LAN, &parts);
    assert_eq!(joined(&sent).0, [(0, 400, true), (400, 608, false)]);
    assert_eq!(sent[0].headers().vlan, None);
}

#[test]
fn every_way_to_refuse_a_fragment_is_counted() {
    let mut rig = Setup::default().knob("ipfrag_max_dist", 8).start();
    let frame = framed(LAN, &udp(CLIENT, SERVER).payload(&bytes(1000)));
    let mut step = |id, p, reason: DropReason, n| {
        let before = rig.drop_count(reason);
        assert!(send(&mut rig, LAN, &[part(&frame, id, p)]).is_empty());
        assert_eq!(rig.drop_count(reason) - before, n, "{reason:?} of {:?}", rig.drops());
    };
    step(1, (0, 400, true), FragmentDuplicate, 0);
    step(1, (0, 400, true), FragmentDuplicate, 1);
    step(1, (392, 16, true), FragmentOverlap, 2);
    step(1, (800, 208, false), FragmentInvalid, 0);
    step(1, (0, 0, true), FragmentInvalid, 2);
    step(2, (0, 8, true), FragmentDistance, 0);
    for id in 10..19 {
        step(id, (0, 8, true), FragmentDistance, 0);
    }
    step(2, (8, 8, true), FragmentDistance, 1);
    assert_eq!(rig.counters.held.get(), 10);
    rig.setup.knobs.set("ipfrag_high_thresh", 9 * 2304).unwrap();
    rig.publish();
    let before = rig.drop_count(FragmentMemory);
    send(&mut rig, LAN, &cut(&frame, 3, &[400]));
    assert_eq!(rig.drop_count(FragmentMemory) - before, 2);
    // IPv6 has a limit of its own.
    let frame = framed(LAN, &udp(CLIENT6, SERVER6).payload(&bytes(1000)));
    assert_eq!(send(&mut rig, LAN, &cut(&frame, 3, &[400])).len(), 2);
}

#[test]
fn what_is_not_whole_in_time_is_given_up_without_any_traffic() {
    for (client, server, gateway, secs, told) in [
        (CLIENT, SERVER, "192.168.1.1:53", 30, [0, 1]),
        (CLIENT6, SERVER6, "[2001:db8:1::1]:53", 60, [1, 1]),
    ] {
        for (to, told) in [server, gateway].into_iter().zip(told) {
            let mut rig = Setup::default().start();
            let frame = framed(LAN, &udp(client, to).payload(&bytes(1000)));
            send(&mut rig, LAN, &[part(&frame, 1, (0, 400, true)), part(&frame, 2, (8, 8, true))]);
            rig.wait(secs - 1);
            assert!(rig.poll().is_empty());
            assert_eq!(rig.counters.held.get(), 2);
            rig.wait(1);
            let sent = rig.poll();
            assert_eq!(sent.len(), told, "{to}");
            if let Some(sent) = sent.first() {
                let kind = if sent.headers().is_v6() { 3 } else { 11 };
                assert_eq!(sent.icmp().0, kind);
                assert_eq!((sent.icmp().1, sent.quote()), (1, format!("{client} > {to}")));
            }
            assert_eq!((rig.counters.held.get(), rig.drop_count(FragmentTimeout)), (0, 2));
        }
    }
}

#[test]
fn a_gateway_that_stops_frees_what_it_holds() {
    let mut rig = Setup::default().start();
    let frame = framed(LAN, &udp(CLIENT, SERVER).payload(&bytes(1000)));
    send(&mut rig, LAN, &cut(&frame, 1, &[400])[..1]);
    rig.worker.stop();
    assert_eq!((rig.counters.held.get(), rig.drop_count(Stopped)), (0, 1));
}

#[test]
fn pieces_for_which_there_is_no_buffer_are_dropped_alone() {
    for left in 0..4 {
        let mut rig = Setup::default().start();
        let frame = framed(LAN, &udp(CLIENT, SERVER).payload(&bytes(3000)));
        rig.worker.io().allocations_left = Some(left);
        let sent = send(&mut rig, LAN, &cut(&frame, 1, &[1000, 1000]));
        assert_eq!((sent.len(), rig.drop_count(NoMbuf)), (left.min(3), 3 - left.min(3) as u64));
    }
}

#[test]
fn pieces_longer_than_a_buffer_are_chains() {
    let mut rig = Setup { mtu: [9000, 8000], ..Setup::default() }.start();
    let payload = bytes(8600);
    let packet = udp(CLIENT, SERVER).dont_fragment(false).payload(&payload);
    let sent = send(&mut rig, LAN, &[framed(LAN, &packet)]);
    let (shape, whole) = joined(&sent);
    assert_eq!(shape, [(0, 7976, true), (7976, 632, false)]);
    assert_eq!(whole[8..], payload);
}

#[test]
fn pieces_wait_for_a_neighbour_together() {
    let mut rig = Setup { neighbours: 8, ..Setup::default() }.start();
    let frame = framed(LAN, &udp(CLIENT, "203.0.113.77:9").payload(&bytes(3000)));
    let asked = send(&mut rig, LAN, &cut(&frame, 1, &[1000, 1000]));
    assert!(asked.len() == 1 && asked[0].is_arp(), "{asked:?}");
    assert_eq!(rig.counters.held.get(), 3);
}

#[test]
fn the_box_itself_sends_and_gets_datagrams() {
    let setup = Setup { host_taps: true, ..Setup::default() };
    let setup = setup.both(Filter, "OUTPUT", count()).both(Filter, "INPUT", count());
    let mut rig = setup.start();
    let payload = bytes(2000);
    let sides = [
        ("203.0.113.1:9000", SERVER, V4, 20, 1000),
        ("[2001:db8:2::1]:9000", SERVER6, V6, 40, 1000),
    ];
    for (host, server, family, header, first) in sides {
        let shape = [(0, first, true), (first, 2008 - first, false)];
        let out = framed(WAN_TAP, &udp(host, server).payload(&payload));
        let sent = send(&mut rig, WAN_TAP, &cut(&out, 5, &[first]));
        assert!(sent.iter().all(|s| s.port == WAN), "{sent:?}");
        assert_eq!(joined(&sent).0, shape);
        assert_eq!(rig.count(family, Filter, "OUTPUT", Some(0)), (1, 2008 + header));
        let back = framed(WAN, &udp(server, host).payload(&payload));
        let sent = send(&mut rig, WAN, &cut(&back, 5, &[first]));
        assert!(sent.iter().all(|s| s.port == WAN_TAP), "{sent:?}");
        assert_eq!(joined(&sent), (shape.to_vec(), back[back.len() - 2008..].to_vec()));
        assert_eq!(rig.count(family, Filter, "INPUT", Some(0)), (1, 2008 + header));
    }
    assert_eq!(rig.list().len(), 2);
}

#[test]
fn received_fragments_and_the_boxs_own_do_not_go_together() {
    let mut rig = Setup { host_taps: true, ..Setup::default() }.start();
    let frame = framed(WAN_TAP, &udp("203.0.113.1:9", SERVER).payload(&bytes(1000)));
    let parts = cut(&frame, 5, &[400]);
    assert!(send(&mut rig, WAN_TAP, &parts[..1]).is_empty());
    let mut from_wire = parts[1].clone();
    from_wire[..6].copy_from_slice(&LAN_MAC.0);
    assert!(send(&mut rig, LAN, &[from_wire]).is_empty());
    assert_eq!(rig.counters.held.get(), 2);
}

/// All parts of some datagrams, each received by the lcore that `lcore_of` names.
fn by_lcores(lcore_of: impl Fn(u16, usize) -> usize) {
    let mut pair = Pair::with_queues(Setup::default().both(Raw, "PREROUTING", count()), 2);
    let payload = bytes(2000);
    for id in 0..20u16 {
        let packet = udp("198.51.100.9:4000", "198.51.100.7:53").payload(&payload);
        let parts = cut(&framed(WAN, &packet), id, &[800, 800]);
        for (n, part) in parts.into_iter().enumerate() {
            let lcore = lcore_of(id, n);
            pair.workers[lcore].io().push(WAN, MemoryFrame::new(part));
            let sent: Vec<Sent> = pair.settle().into_iter().map(|(_, sent)| sent).collect();
            if n == 2 {
                let (shape, whole) = joined(&sent);
                assert_eq!(shape, [(0, 800, true), (800, 800, true), (1600, 408, false)]);
                assert_eq!(whole[8..], payload);
            } else {
                assert!(sent.is_empty());
            }
        }
    }
    let joined = |l: usize| pair.counters[l].drops[Reassembled as usize].get();
    assert!(joined(0) > 0 && joined(1) > 0, "both put together");
    assert_eq!(joined(0) + joined(1), 60);
    assert_eq!(pair.owned().iter().sum::<usize>(), 1);
    assert_eq!(pair.count(Raw, "PREROUTING").iter().sum::<u64>(), 20);
    assert_eq!(pair.count(Raw, "PREROUTING").iter().max(), Some(&20), "all by the conn's owner");
}

#[test]
fn lcores_put_together_what_others_receive() {
    by_lcores(|_, _| 0);
    by_lcores(|_, _| 1);
    by_lcores(|id, n| (id as usize + n) % 2);
}

#[test]
fn lcores_share_the_bound() {
    let setup = Setup::default().knob("ipfrag_max_dist", 0).knob("ipfrag_high_thresh", 10 * 2304);
    let mut pair = Pair::with_queues(setup, 2);
    let frame = framed(WAN, &udp("198.51.100.9:4000", "198.51.100.7:53").payload(&bytes(100)));
    for id in 0..200 {
        let first = part(&frame, id, (0, 48, true));
        pair.workers[0].io().push(WAN, MemoryFrame::new(first));
        pair.settle();
    }
    let held = [0, 1].map(|l: usize| pair.counters[l].held.get());
    assert_eq!(held, [6, 6], "half of it, and the one that went beyond");
    pair.now.tick = pair.now.tick.plus_secs(30);
    pair.settle();
    assert_eq!([0, 1].map(|l: usize| pair.counters[l].held.get()), [0, 0]);
}

#[test]
fn ipv6_fragments_that_no_datagram_can_have_pass_as_invalid() {
    let mut rig = Setup::default().start();
    let frame = framed(LAN, &udp(CLIENT6, SERVER6).payload(&bytes(1000)));
    send(&mut rig, LAN, &[part(&frame, 1, (0, 400, true))]);
    let odd = part(&frame, 1, (400, 13, true));
    let sent = send(&mut rig, LAN, std::slice::from_ref(&odd));
    assert_eq!((sent.len(), &sent[0].bytes[22..]), (1, &odd[22..]));
    assert_eq!((rig.counters.conntrack.invalid.get(), rig.drop_count(FragmentInvalid)), (1, 1));
    // For the gateway itself it is nothing.
    let frame = framed(LAN, &udp(CLIENT6, "[2001:db8:1::1]:9").payload(&bytes(1000)));
    let odd = part(&frame, 1, (400, 13, true));
    assert!(rig.send_counting(LAN, odd, FragmentInvalid).is_empty());
}

#[test]
fn long_packets_without_df_leave_in_pieces() {
    let mut rig = Setup { mtu: [1500, 1300], ..masquerading() }.start();
    let payload = bytes(1400);
    for _ in 0..3 {
        let packet: Packet<'_> = udp(CLIENT, SERVER).dont_fragment(false).payload(&payload);
        let sent = rig.send(LAN, packet);
        let (shape, whole) = joined(&sent);
        assert_eq!(shape, [(0, 1280, true), (1280, 128, false)]);
        assert_eq!(whole[8..], payload);
    }
    let sent = rig.answered(LAN, udp(CLIENT, SERVER).dont_fragment(true).payload(&payload), TooBig);
    assert_eq!((sent.icmp().0, sent.icmp().1, sent.icmp().2), (3, 4, 1300));
}
