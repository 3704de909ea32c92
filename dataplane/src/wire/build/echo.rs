//! Echo replies, made in place from the request (`icmp_reply`, `icmpv6_echo_reply`).

use super::checksum;
use crate::wire::address::Address;
use crate::wire::ethernet::{self, Mac};
use crate::wire::headers::{Headers, protocol};
use crate::wire::{icmp, icmpv6, ipv4, ipv6};

/// Turns the echo request in `frame` into its reply: back to its source, from `mac` and `src` (the
/// address asked, or the gateway's own if a group was asked), TTL 64, same TOS, data and IPv4
/// options untouched. Only the headers need to be in `frame`. `id` is the IPv4 identification; DF
/// is cleared.
///
/// False, and nothing changed, if it is no whole echo request or its IPv6 header has extensions,
/// which a reply would not repeat.
pub fn reply(frame: &mut [u8], headers: &Headers, mac: Mac, src: Address, id: u16) -> bool {
    let v6 = headers.is_v6();
    let request = match headers.proto {
        protocol::ICMP if !v6 => headers.icmp_type == icmp::kind::ECHO,
        protocol::ICMPV6 if v6 => {
            headers.icmp_type == icmpv6::kind::ECHO
                && headers.l4 == headers.l3 + ipv6::HEADER_LEN as u16
        }
        _ => false,
    };
    let whole = !headers.l4_truncated && !headers.fragment.is_fragment();
    let reachable = frame.len() >= headers.l4 as usize + icmp::HEADER_LEN;
    if !request || !whole || !reachable || src.is_v4() == v6 {
        return false;
    }
    let answered = edit(frame, headers, src, id);
    if answered.is_some()
        && let Some(link) = ethernet::View::new(frame)
    {
        let asker = link.src();
        ethernet::rewrite(frame, asker, mac);
    }
    answered.is_some()
}

/// Edits IP and ICMP headers, whose presence the caller has checked.
fn edit(frame: &mut [u8], headers: &Headers, src: Address, id: u16) -> Option<()> {
    let packet = frame.get_mut(headers.l3 as usize..)?;
    let (ip, l4) = packet.split_at_mut_checked(headers.l4.saturating_sub(headers.l3) as usize)?;
    let mut echo = icmp::ViewMut::new(l4)?;
    if headers.is_v6() {
        let mut view = ipv6::ViewMut::new(ip)?;
        view.set_src(src);
        view.set_dst(headers.src);
        view.set_hop_limit(super::TTL);
        view.clear_flow_label();
        echo.set_kind(icmpv6::kind::ECHO_REPLY);
        // Swapping the addresses changes no sum; another source than the one asked does.
        echo.adjust_check(checksum::delta_address(headers.dst, src));
    } else {
        let mut view = ipv4::ViewMut::new(ip)?;
        view.set_src(src);
        view.set_dst(headers.src);
        view.set_ttl(super::TTL);
        view.set_id(id);
        view.set_fragment_word(0);
        echo.set_kind(icmp::kind::ECHO_REPLY);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::packet::Packet;
    use super::super::tests::LINK;
    use super::*;
    use crate::wire::{checksum, headers};

    fn answered(request: &[u8], src: Address) -> Option<(Headers, Vec<u8>)> {
        let mut frame = request.to_vec();
        let read = headers::parse(&frame, frame.len()).unwrap();
        if !reply(&mut frame, &read, LINK.dst, src, 0x77) {
            assert_eq!(frame, request, "nothing changed");
            return None;
        }
        let answer = headers::parse(&frame, frame.len()).unwrap();
        assert!(answer.l4_check_ok(&frame));
        assert_eq!((answer.dst, answer.icmp_id, answer.ttl), (read.src, read.icmp_id, 64));
        assert_eq!((answer.tos, answer.src), (read.tos, src));
        assert_eq!(frame[answer.l4 as usize + 8..], request[read.l4 as usize + 8..]);
        assert_eq!(ethernet::View::new(&frame).unwrap().dst(), LINK.src);
        Some((answer, frame))
    }

    #[test]
    fn v4() {
        let (a, b) = ("192.168.10.2".parse().unwrap(), "192.168.10.1".parse().unwrap());
        let request = Packet::icmp(a, b, 8, 0, 0x1234_0001).tos(4).ttl(9).payload(b"abc").to_vec();
        let (answer, frame) = answered(&request, b.into()).unwrap();
        assert_eq!((answer.icmp_type, answer.dont_fragment), (0, false));
        assert_eq!(frame[18..22], [0, 0x77, 0, 0]);
        assert!(answered(&frame, a.into()).is_none(), "a reply is not answered");
        let first = Packet::icmp(a, b, 8, 0, 1).fragment(0, true).to_vec();
        assert!(answered(&first, b.into()).is_none());
        assert!(answered(&request, Address::v6(1)).is_none());
    }

    #[test]
    fn v6_to_an_address_and_to_a_group() {
        let (a, b) = ("fd00:10::2".parse().unwrap(), "fd00:10::1".parse().unwrap());
        let request = Packet::icmp(a, b, 128, 0, 0x1234_0001).tos(4).payload(b"abcd").to_vec();
        assert_eq!(answered(&request, b.into()).unwrap().0.icmp_type, 129);
        let group = "ff02::1".parse().unwrap();
        let request = Packet::icmp(a, group, 128, 0, 1).payload(&[1; 33]).to_vec();
        answered(&request, b.into()).unwrap();
        let hop = Packet::icmp(a, b, 128, 0, 1).extension(0, &[5, 2, 0, 0, 1, 0]).to_vec();
        assert!(answered(&hop, b.into()).is_none());
    }

    #[test]
    fn options_stay_covered() {
        let (a, b) = ("192.168.10.2".parse().unwrap(), "192.168.10.1".parse().unwrap());
        let request = Packet::icmp(a, b, 8, 0, 1).ip_options(&[1, 1, 1, 0]).to_vec();
        let (answer, frame) = answered(&request, b.into()).unwrap();
        assert_eq!(answer.l4, 38);
        assert_eq!(checksum::internet(&frame[14..38]), 0);
    }

    /// What Linux 6.18 answered.
    #[test]
    fn golden_is_the_kernels() {
        let (a, b) = ("192.168.10.2".parse().unwrap(), "192.168.10.1".parse().unwrap());
        let request = Packet::icmp(a, b, 8, 0, 0x1234_0001).tos(4).ttl(9).payload(b"abc");
        let mut frame = request.dont_fragment(true).to_vec();
        let read = headers::parse(&frame, frame.len()).unwrap();
        assert!(reply(&mut frame, &read, LINK.dst, b.into(), 0x3f56));
        let expected = [
            0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x08, 0x00,
            0x45, 0x04, 0x00, 0x1f, 0x3f, 0x56, 0x00, 0x00, 0x40, 0x01, 0xa6, 0x30, 0xc0, 0xa8,
            0x0a, 0x01, 0xc0, 0xa8, 0x0a, 0x02, 0x00, 0x00, 0x29, 0x68, 0x12, 0x34, 0x00, 0x01,
            0x61, 0x62, 0x63,
        ];
        assert_eq!(frame, expected);
    }
}
