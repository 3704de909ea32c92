//! TCP resets as REJECT sends them (`nf_send_reset`, RFC 9293 section 3.10.7.1).

use super::{Ip, Link, Writer};
use crate::wire::headers::{Headers, protocol};
use crate::wire::ipv4;
use crate::wire::tcp::{self, flags};

/// True if a segment may be answered with a reset: a whole TCP header, neither a fragment nor
/// itself a reset. `nf_send_reset` also wants the checksum right ([`Headers::l4_check_ok`]) and, in
/// IPv6, unicast addresses ([`super::icmp_error::answerable`] covers these).
pub fn answerable(headers: &Headers) -> bool {
    headers.proto == protocol::TCP
        && !headers.l4_truncated
        && !headers.fragment.is_later()
        && headers.tcp_flags & flags::RST == 0
}

/// The reset that answers the segment in `frame`, back to its source. A segment with ACK is
/// answered in its own numbers; one without gets an ACK of all it carries. DF, identification 0 and
/// window 0 as the kernel sends them, TTL and TOS as given. `None` also if there is
/// no TCP header to answer.
pub fn write(
    buffer: &mut [u8],
    link: &Link,
    headers: &Headers,
    frame: &[u8],
    (ttl, tos): (u8, u8),
) -> Option<usize> {
    if headers.proto != protocol::TCP || headers.fragment.is_later() {
        return None;
    }
    let segment = tcp::View::new(frame.get(headers.l4 as usize..)?)?;
    let (seq, ack, answer) = numbers(&segment, headers.l4_len());
    let ip = Ip {
        src: headers.dst,
        dst: headers.src,
        proto: protocol::TCP,
        ttl,
        tos,
        id: 0,
        fragment_word: ipv4::DONT_FRAGMENT,
    };
    let mut writer = Writer::new(buffer);
    writer.ip(link, &ip, tcp::HEADER_LEN)?;
    let l4 = writer.len();
    writer.put(&segment.dst_port().to_be_bytes())?;
    writer.put(&segment.src_port().to_be_bytes())?;
    writer.put(&seq.to_be_bytes())?;
    writer.put(&ack.to_be_bytes())?;
    writer.put(&[0x50, answer])?;
    writer.put(&[0; 6])?;
    writer.finish_l4(&ip, l4, 16)?;
    Some(writer.len())
}

/// Sequence number, acknowledgment number and flags of the reset for a segment of `len` bytes.
fn numbers(segment: &tcp::View<'_>, len: u32) -> (u32, u32, u8) {
    let bits = segment.flags();
    if bits & flags::ACK != 0 {
        return (segment.ack(), 0, flags::RST);
    }
    let payload = len.wrapping_sub(segment.header_len() as u32);
    let marks = (bits & flags::SYN != 0) as u32 + (bits & flags::FIN != 0) as u32;
    (0, segment.seq().wrapping_add(marks).wrapping_add(payload), flags::RST | flags::ACK)
}

#[cfg(test)]
mod tests {
    use super::super::packet::Packet;
    use super::super::tests::LINK;
    use super::*;
    use crate::wire::headers;

    const V4: [&str; 2] = ["192.168.10.2:40000", "203.0.113.9:443"];
    const V6: [&str; 2] = ["[fd00:10::2]:40000", "[2001:db8::9]:443"];

    fn segment(ends: [&str; 2]) -> Packet<'static> {
        Packet::tcp(ends[0].parse().unwrap(), ends[1].parse().unwrap())
    }

    fn reset(frame: &[u8]) -> (Headers, u32, u32) {
        let read = headers::parse(frame, frame.len()).unwrap();
        let mut buffer = [0u8; 128];
        let len = write(&mut buffer, &LINK, &read, frame, (64, 0)).unwrap();
        assert_eq!(write(&mut buffer[..len - 1], &LINK, &read, frame, (64, 0)), None);
        let len = write(&mut buffer, &LINK, &read, frame, (64, 0)).unwrap();
        let answer = headers::parse(&buffer[..len], len).unwrap();
        assert!(answer.l4_check_ok(&buffer));
        assert_eq!((answer.src, answer.dst), (read.dst, read.src));
        assert_eq!((answer.src_port, answer.dst_port), (443, 40000));
        assert!(answer.dont_fragment && !answerable(&answer) && answerable(&read));
        let tcp = tcp::View::new(&buffer[answer.l4 as usize..len]).unwrap();
        assert_eq!((tcp.window(), tcp.header_len()), (0, 20));
        (answer, tcp.seq(), tcp.ack())
    }

    #[test]
    fn both_cases_of_the_rfc() {
        for ends in [V4, V6] {
            let syn = segment(ends).flags(flags::SYN).seq(u32::MAX).to_vec();
            let (headers, seq, ack) = reset(&syn);
            assert_eq!((headers.tcp_flags, seq, ack), (flags::RST | flags::ACK, 0, 0));
            let syn = segment(ends).flags(flags::SYN | flags::FIN).seq(100).options(&[1; 8]);
            let (_, seq, ack) = reset(&syn.payload(b"hello").to_vec());
            assert_eq!((seq, ack), (0, 107));
            let data = segment(ends).flags(flags::ACK | flags::PSH).seq(5).ack(77).payload(b"x");
            let (headers, seq, ack) = reset(&data.to_vec());
            assert_eq!((headers.tcp_flags, seq, ack), (flags::RST, 77, 0));
        }
    }

    #[test]
    fn only_tcp() {
        let udp = Packet::udp(V4[0].parse().unwrap(), V4[1].parse().unwrap()).to_vec();
        let read = headers::parse(&udp, udp.len()).unwrap();
        assert!(!answerable(&read));
        assert_eq!(write(&mut [0; 128], &LINK, &read, &udp, (64, 0)), None);
        let rst = segment(V4).flags(flags::RST).to_vec();
        assert!(!answerable(&headers::parse(&rst, rst.len()).unwrap()));
    }

    /// What REJECT of Linux 6.18 answered; the capture had the checksums still to be computed.
    #[test]
    fn golden_is_the_kernels() {
        let golden = |seq: u8, ack: u8, flags: u8| {
            [
                0x45, 0x00, 0x00, 0x28, 0x00, 0x00, 0x40, 0x00, 0x40, 0x06, 0x34, 0x1c, 0xcb, 0x00,
                0x71, 0x09, 0xc0, 0xa8, 0x0a, 0x02, 0x01, 0xbb, 0x9c, 0x40, 0x00, 0x00, 0x00, seq,
                0, 0, 0, ack, 0x50, flags, 0, 0,
            ]
        };
        let answer = |segment: Packet<'_>| {
            let frame = segment.to_vec();
            let read = headers::parse(&frame, frame.len()).unwrap();
            let mut buffer = [0u8; 54];
            write(&mut buffer, &LINK, &read, &frame, (64, 0)).unwrap();
            assert_eq!(buffer[52..], [0, 0]);
            buffer[14..50].to_vec()
        };
        let syn = segment(V4).flags(flags::SYN).seq(u32::MAX);
        assert_eq!(answer(syn), golden(0, 0, 0x14));
        let both = segment(V4).flags(flags::SYN | flags::FIN).seq(100).payload(b"hello");
        assert_eq!(answer(both), golden(0, 0x6b, 0x14));
        let data = segment(V4).flags(flags::ACK | flags::PSH).seq(5).ack(77).payload(b"x");
        assert_eq!(answer(data), golden(0x4d, 0, 0x04));
    }
}
