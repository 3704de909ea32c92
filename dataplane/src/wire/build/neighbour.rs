//! ARP and neighbour discovery frames (RFC 826, RFC 4861).

use super::{Ip, Link, Writer};
use crate::wire::address::Address;
use crate::wire::arp;
use crate::wire::ethernet::{Mac, ether_type};
use crate::wire::headers::protocol;
use crate::wire::icmpv6::kind;
use crate::wire::ndp;

/// An ARP request, broadcast or (to confirm a known neighbour) unicast to `to`. Both addresses
/// IPv4.
pub fn arp_request(
    buffer: &mut [u8],
    mac: Mac,
    sender: Address,
    target: Address,
    to: Option<Mac>,
    tci: Option<u16>,
) -> Option<usize> {
    let link = Link { dst: to.unwrap_or(Mac::BROADCAST), src: mac, tci };
    arp(buffer, &link, arp::operation::REQUEST, sender, (Mac::default(), target))
}

/// The ARP reply that tells `asker` (MAC and address) that `sender` is at `link.src`.
pub fn arp_reply(
    buffer: &mut [u8],
    link: &Link,
    sender: Address,
    asker: (Mac, Address),
) -> Option<usize> {
    arp(buffer, link, arp::operation::REPLY, sender, asker)
}

/// A gratuitous ARP request that announces `address` at `mac` (`arp_announce`, RFC 5227).
pub fn arp_announcement(
    buffer: &mut [u8],
    mac: Mac,
    address: Address,
    tci: Option<u16>,
) -> Option<usize> {
    arp_request(buffer, mac, address, address, None, tci)
}

fn arp(
    buffer: &mut [u8],
    link: &Link,
    operation: u16,
    sender: Address,
    target: (Mac, Address),
) -> Option<usize> {
    if !sender.is_v4() || !target.1.is_v4() {
        return None;
    }
    let mut writer = Writer::new(buffer);
    writer.link(link, ether_type::ARP)?;
    writer.put(&arp::KIND)?;
    writer.put(&operation.to_be_bytes())?;
    writer.put(&link.src.0)?;
    writer.put(&sender.v4_bits().to_be_bytes())?;
    writer.put(&target.0.0)?;
    writer.put(&target.1.v4_bits().to_be_bytes())?;
    Some(writer.len())
}

/// A neighbour solicitation from `sender`: to the solicited-node group of `target`, or (to confirm
/// a known neighbour) unicast to `to`. A `sender` of `::` makes a probe for duplicates, without
/// MAC.
pub fn solicitation(
    buffer: &mut [u8],
    mac: Mac,
    sender: Address,
    target: Address,
    to: Option<Mac>,
    tci: Option<u16>,
) -> Option<usize> {
    let group = ndp::solicited_node(target);
    let (dst, dst_mac) = match to {
        Some(mac) => (target, mac),
        None => (group, ndp::multicast_mac(group)),
    };
    let link = Link { dst: dst_mac, src: mac, tci };
    let option = (sender.bits() != 0).then_some(ndp::option::SOURCE_MAC);
    nd(buffer, &link, (sender, dst), (kind::NEIGHBOUR_SOLICITATION, 0), target, option)
}

/// A neighbour advertisement: `target` is at `link.src`. `to` is the asker, or all nodes
/// (`ff02::1`) for an asker of `::` and for announcements; `flags` as in [`ndp::flags`].
pub fn advertisement(
    buffer: &mut [u8],
    link: &Link,
    target: Address,
    to: Address,
    flags: u8,
) -> Option<usize> {
    let option = Some(ndp::option::TARGET_MAC);
    nd(buffer, link, (target, to), (kind::NEIGHBOUR_ADVERTISEMENT, flags), target, option)
}

fn nd(
    buffer: &mut [u8],
    link: &Link,
    (src, dst): (Address, Address),
    (kind, flags): (u8, u8),
    target: Address,
    mac_option: Option<u8>,
) -> Option<usize> {
    if src.is_v4() || dst.is_v4() || target.is_v4() {
        return None;
    }
    let ip = Ip {
        src,
        dst,
        proto: protocol::ICMPV6,
        ttl: ndp::HOP_LIMIT,
        tos: 0,
        id: 0,
        fragment_word: 0,
    };
    let mut writer = Writer::new(buffer);
    writer.ip(link, &ip, if mac_option.is_some() { 32 } else { 24 })?;
    let l4 = writer.len();
    writer.put(&[kind, 0, 0, 0, flags, 0, 0, 0])?;
    writer.put(&target.bits().to_be_bytes())?;
    if let Some(option) = mac_option {
        writer.put(&[option, 1])?;
        writer.put(&link.src.0)?;
    }
    writer.finish_l4(&ip, l4, 2)?;
    Some(writer.len())
}

#[cfg(test)]
mod tests {
    use super::super::tests::LINK;
    use super::*;
    use crate::wire::ndp::Message;
    use crate::wire::{ethernet, headers};

    fn v4(last: u8) -> Address {
        Address::v4(0xc0a8_0a00 | last as u32)
    }

    fn v6(last: u128) -> Address {
        Address::v6(0xfe80 << 112 | last)
    }

    #[test]
    fn golden_arp_request() {
        let mut buffer = [0u8; 64];
        let len = arp_request(&mut buffer, LINK.src, v4(1), v4(2), None, None).unwrap();
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0,
            1, 2, 0, 0, 0, 0, 1, 192, 168, 10, 1, 0, 0, 0, 0, 0, 0, 192, 168, 10, 2,
        ];
        assert_eq!(buffer[..len], expected);
        assert_eq!(arp_request(&mut buffer[..41], LINK.src, v4(1), v4(2), None, None), None);
        assert_eq!(arp_request(&mut buffer, LINK.src, v6(1), v4(2), None, None), None);
    }

    #[test]
    fn arp_reply_is_read_back() {
        let mut buffer = [0u8; 64];
        let link = Link { tci: Some(100), ..LINK };
        let len = arp_reply(&mut buffer, &link, v4(1), (LINK.dst, v4(2))).unwrap();
        let read = ethernet::parse(&buffer[..len]).unwrap();
        assert_eq!((read.vlan(), read.ether_type, read.dst), (Some(100), 0x0806, LINK.dst));
        let arp = arp::View::new(&buffer[read.l3 as usize..len]).unwrap();
        assert_eq!(arp.operation(), arp::operation::REPLY);
        assert_eq!((arp.sender_mac(), arp.sender()), (LINK.src, v4(1)));
        assert_eq!((arp.target_mac(), arp.target()), (LINK.dst, v4(2)));
        let len = arp_announcement(&mut buffer, LINK.src, v4(1), None).unwrap();
        assert!(arp::View::new(&buffer[14..len]).unwrap().is_gratuitous());
    }

    fn read(frame: &[u8]) -> (headers::Headers, Message) {
        let read = headers::parse(frame, frame.len()).unwrap();
        assert!(read.l4_check_ok(frame));
        let message = ndp::parse(&read, &frame[read.l4 as usize..read.end as usize]).unwrap();
        (read, message)
    }

    #[test]
    fn solicitations_are_read_back() {
        let mut buffer = [0u8; 100];
        let len = solicitation(&mut buffer, LINK.src, v6(1), v6(0x22334455), None, None).unwrap();
        assert_eq!(buffer[..6], [0x33, 0x33, 0xff, 0x33, 0x44, 0x55]);
        let (headers, message) = read(&buffer[..len]);
        assert_eq!(headers.dst.to_string(), "ff02::1:ff33:4455");
        let target = v6(0x22334455);
        assert_eq!(message, Message::Solicitation { target, source_mac: Some(LINK.src) });
        let len = solicitation(&mut buffer, LINK.src, v6(1), target, Some(LINK.dst), None).unwrap();
        assert_eq!(read(&buffer[..len]).0.dst, target);
        assert_eq!(buffer[..6], LINK.dst.0);
        let len = solicitation(&mut buffer, LINK.src, Address::v6(0), target, None, None).unwrap();
        assert_eq!(read(&buffer[..len]).1, Message::Solicitation { target, source_mac: None });
        assert_eq!(solicitation(&mut buffer, LINK.src, v4(1), target, None, None), None);
    }

    #[test]
    fn advertisements_are_read_back() {
        let mut buffer = [0u8; 100];
        let len = advertisement(&mut buffer, &LINK, v6(1), v6(2), 0xe0).unwrap();
        let (headers, message) = read(&buffer[..len]);
        assert_eq!((headers.src, headers.dst, headers.ttl), (v6(1), v6(2), 255));
        let expected = Message::Advertisement {
            target: v6(1),
            target_mac: Some(LINK.src),
            flags: ndp::flags::ROUTER | ndp::flags::SOLICITED | ndp::flags::OVERRIDE,
        };
        assert_eq!(message, expected);
        for room in 0..len {
            assert_eq!(advertisement(&mut buffer[..room], &LINK, v6(1), v6(2), 0), None);
        }
    }
}
