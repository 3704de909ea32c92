//! The NAT edit: new addresses and ports into a packet, checksums kept right without reading the
//! payload.
//!
//! [`apply`] changes one end, as the kernel does at each NAT hook (`nf_nat_manip_pkt`), so the
//! rules between two hooks see the header as Linux shows it there. [`apply_cached`] changes both
//! ends at once with checksum deltas that were computed when the conn got its translation
//! ([`Deltas`]): two bounds checks, a few stores, no loop.
//!
//! What changes: addresses always; ports of TCP, UDP, UDP-Lite, SCTP and DCCP; the id of ICMP
//! queries and ICMPv6 echoes; the call id of enhanced GRE towards its destination. Packets of other
//! protocols, later fragments and packets that end within their L4 header change their addresses
//! only. Everything is written in place within the first segment; all checksums are adjusted, so a
//! wrong one stays wrong and payload in further segments is never read. That holds for SCTP too: a
//! CRC is linear, so the CRC of the changed ports, moved to their distance from the end, is enough.

use super::range::Manip;
use crate::conntrack::record::{Conn, LeavingV4, LeavingV6};
use crate::conntrack::state::{Direction, Status};
use crate::conntrack::tuple::{KeyV4, Tuple, proto};
use crate::wire::address::Address;
use crate::wire::checksum;
use crate::wire::headers::{Headers, is_query};
use crate::wire::{ipv4, ipv6};

/// Checksum deltas of one direction of a translated conn; see [`crate::wire::checksum`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deltas {
    /// For the IPv4 header's checksum.
    pub l3: u16,
    /// For the L4 checksum: ports, and the addresses where a pseudo header covers them.
    pub l4: u16,
}

impl Deltas {
    /// Of what a conn makes of packets of its original direction; `None` if it leaves them alone.
    #[inline]
    pub fn of(conn: Conn<'_>) -> Option<Deltas> {
        const TRANSLATED: u16 = Status::SRC_NAT.0 | Status::DST_NAT.0;
        if conn.status().0 & TRANSLATED == 0 {
            return None;
        }
        match (conn.key(Direction::Original), conn.key(Direction::Reply)) {
            (Some(from), Some(reply)) => Some(Deltas::of_words(&from, &reply.inverted())),
            _ => Some(Deltas::between(&conn.orig(), &conn.reply().inverted()?)),
        }
    }

    /// Equal to [`Deltas::between`] of the same tuples.
    #[inline(always)]
    fn of_words(from: &KeyV4, to: &KeyV4) -> Deltas {
        let addresses = checksum::add_wide(!from.addresses, to.addresses);
        let both = checksum::add_wide(addresses, !from.ids as u64 + to.ids as u64);
        // The words' first bytes are their lowest.
        let [l3, l4] = [addresses, both].map(|sum| checksum::as_delta(sum).swap_bytes());
        Deltas { l3, l4 }
    }

    /// For packets that arrive as `from` and leave as `to`; both of one family and protocol.
    pub fn between(from: &Tuple, to: &Tuple) -> Deltas {
        let addresses = checksum::combine(
            checksum::delta_address(from.src, to.src),
            checksum::delta_address(from.dst, to.dst),
        );
        let src_id = checksum::delta16(from.src_id, to.src_id);
        let l4 = match from.proto {
            proto::TCP | proto::UDP | proto::UDPLITE | proto::DCCP => {
                let ports = checksum::combine(src_id, checksum::delta16(from.dst_id, to.dst_id));
                checksum::combine(addresses, ports)
            }
            proto::ICMP => src_id,
            proto::ICMPV6 if is_echo_v6((from.dst_id >> 8) as u8) => {
                checksum::combine(addresses, src_id)
            }
            proto::ICMPV6 => addresses,
            _ => checksum::NO_DELTA,
        };
        Deltas { l3: addresses, l4 }
    }
}

/// Gives one end of a packet the address and id that `to` has at that end, and notes them in
/// `headers`. False if the frame does not hold the headers, which parsed headers exclude, or holds
/// a GRE header that cannot be translated: then the packet is to be dropped.
pub fn apply(frame: &mut [u8], headers: &mut Headers, manip: Manip, to: &Tuple) -> bool {
    let ports = matches!(headers.proto, proto::TCP | proto::UDP) && has_l4(headers);
    if ports && headers.src.is_v4() {
        let done = match manip {
            Manip::Src => edit_v4::<12, 0>(frame, headers, to.src, to.src_id),
            Manip::Dst => edit_v4::<16, 2>(frame, headers, to.dst, to.dst_id),
        };
        if done.is_some() {
            match manip {
                Manip::Src => (headers.src, headers.src_port) = (to.src, to.src_id),
                Manip::Dst => (headers.dst, headers.dst_port) = (to.dst, to.dst_id),
            }
            return true;
        }
    }
    apply_rarely(frame, headers, manip, to)
}

/// What [`edit`] does, for TCP and UDP over IPv4: the address and the port that stand so far behind
/// the beginning of their headers. `None`, and nothing done, if the frame does not hold those.
#[inline(always)]
fn edit_v4<const ADDRESS: usize, const PORT: usize>(
    frame: &mut [u8],
    headers: &Headers,
    address: Address,
    port: u16,
) -> Option<()> {
    let packet = frame.get_mut(..headers.end as usize)?;
    let (head, l4) = packet.split_at_mut_checked(headers.l4 as usize)?;
    let ip = head.get_mut(headers.l3 as usize..)?.first_chunk_mut::<20>()?;
    let place = &mut ip[ADDRESS..ADDRESS + 4];
    let (old, new) = (u32::from_be_bytes(*place.first_chunk()?), address.v4_bits());
    let delta = checksum::delta32(old, new);
    if headers.proto == proto::TCP {
        let tcp = l4.first_chunk_mut::<20>()?;
        let delta = checksum::combine(delta, replace(&mut tcp[PORT..PORT + 2], port));
        adjust(&mut tcp[16..18], delta);
    } else {
        let udp = l4.first_chunk_mut::<8>()?;
        let delta = checksum::combine(delta, replace(&mut udp[PORT..PORT + 2], port));
        adjust_udp(&mut udp[6..8], delta);
    }
    place.copy_from_slice(&new.to_be_bytes());
    adjust(&mut ip[10..12], delta);
    Some(())
}

/// The rest of [`apply`].
#[inline(never)]
fn apply_rarely(frame: &mut [u8], headers: &mut Headers, manip: Manip, to: &Tuple) -> bool {
    let place = Place {
        l3: headers.l3 as usize,
        l4: headers.l4 as usize,
        end: headers.end as usize,
        l4_len: headers.l4_len(),
        proto: headers.proto,
        has_l4: has_l4(headers),
    };
    let from = match manip {
        Manip::Src => headers.src,
        Manip::Dst => headers.dst,
    };
    let Some(id_changed) = edit(frame, &place, manip, from, to) else { return false };
    match manip {
        Manip::Src => headers.src = to.src,
        Manip::Dst => headers.dst = to.dst,
    }
    if id_changed {
        match (headers.proto, manip) {
            (proto::ICMP | proto::ICMPV6, _) => headers.icmp_id = to.src_id,
            (_, Manip::Src) => headers.src_port = to.src_id,
            (_, Manip::Dst) => headers.dst_port = to.dst_id,
        }
    }
    true
}

/// Makes a packet that arrived as the tuple which `deltas` start from into `to`, both ends at once.
/// `headers` are those of the arrival and stay so. False as for [`apply`].
#[inline]
pub fn apply_cached(frame: &mut [u8], headers: &Headers, to: &Tuple, deltas: Deltas) -> bool {
    let Some((head, l4)) = frame.split_at_mut_checked(headers.l4 as usize) else { return false };
    let Some(l3) = head.get_mut(headers.l3 as usize..) else { return false };
    if to.src.is_v4() {
        let Some(ip) = l3.first_chunk_mut::<20>() else { return false };
        ip[12..16].copy_from_slice(&to.src.v4_bits().to_be_bytes());
        ip[16..20].copy_from_slice(&to.dst.v4_bits().to_be_bytes());
        adjust(&mut ip[10..12], deltas.l3);
    } else {
        let Some(ip) = l3.first_chunk_mut::<40>() else { return false };
        ip[8..24].copy_from_slice(&to.src.bits().to_be_bytes());
        ip[24..40].copy_from_slice(&to.dst.bits().to_be_bytes());
    }
    if !has_l4(headers) {
        return true;
    }
    match to.proto {
        proto::TCP => {
            let Some(tcp) = l4.first_chunk_mut::<20>() else { return false };
            tcp[0..2].copy_from_slice(&to.src_id.to_be_bytes());
            tcp[2..4].copy_from_slice(&to.dst_id.to_be_bytes());
            adjust(&mut tcp[16..18], deltas.l4);
        }
        proto::UDP => {
            let Some(udp) = l4.first_chunk_mut::<8>() else { return false };
            udp[0..2].copy_from_slice(&to.src_id.to_be_bytes());
            udp[2..4].copy_from_slice(&to.dst_id.to_be_bytes());
            adjust_udp(&mut udp[6..8], deltas.l4);
        }
        _ => return cached_rarely(l4, headers, to, deltas),
    }
    true
}

/// Whether there are ids to translate. GRE that is too short to have them is tracked all the same,
/// and cannot be translated.
#[inline]
fn has_l4(headers: &Headers) -> bool {
    !headers.fragment.is_later() && (!headers.l4_truncated || headers.proto == proto::GRE)
}

/// The whole edit of a forwarded TCP or UDP packet over IPv4 without options and tag, in one go:
/// MAC addresses (destination, source), TTL less one, and the translation that `to` gives if there
/// is one. Nothing is done to a frame that is shorter than its headers.
#[inline(always)]
pub fn forward_lean(
    frame: &mut [u8],
    macs: &[u8; 12],
    udp: bool,
    to: Option<impl FnOnce() -> LeavingV4>,
) {
    /// What the header's sum changes by when the TTL, the first byte of its word, loses one.
    const ONE_HOP: u16 = !1;
    let Some(bytes) = frame.first_chunk_mut::<42>() else { return };
    bytes[..12].copy_from_slice(macs);
    bytes[22] = bytes[22].wrapping_sub(1);
    let Some(to) = to else { return add_to(bytes, 24, ONE_HOP) };
    let LeavingV4 { addresses, ids, l3, l4 } = to();
    add_to(bytes, 24, checksum::combine(l3, ONE_HOP));
    bytes[26..34].copy_from_slice(&addresses.to_le_bytes());
    bytes[34..38].copy_from_slice(&ids.to_le_bytes());
    if !udp {
        let Some(bytes) = frame.first_chunk_mut::<54>() else { return };
        return add_to(bytes, 50, l4);
    }
    // As it is the same sum in either order, so are its two zeros.
    let check = checksum::adjust_udp(u16::from_le_bytes([bytes[40], bytes[41]]), l4);
    [bytes[40], bytes[41]] = check.to_le_bytes();
}

/// The same over IPv6 without extension headers.
#[inline(always)]
pub fn forward_lean_v6(
    frame: &mut [u8],
    macs: &[u8; 12],
    udp: bool,
    to: Option<impl FnOnce() -> LeavingV6>,
) {
    let Some(bytes) = frame.first_chunk_mut::<62>() else { return };
    bytes[..12].copy_from_slice(macs);
    bytes[21] = bytes[21].wrapping_sub(1);
    let Some(to) = to else { return };
    let LeavingV6 { addresses, ids, l4 } = to();
    for (place, word) in bytes[22..54].as_chunks_mut::<8>().0.iter_mut().zip(addresses) {
        *place = word.to_be_bytes();
    }
    bytes[54..58].copy_from_slice(&ids.to_le_bytes());
    if !udp {
        let Some(bytes) = frame.first_chunk_mut::<74>() else { return };
        return add_to(bytes, 70, l4);
    }
    let check = checksum::adjust_udp(u16::from_le_bytes([bytes[60], bytes[61]]), l4);
    [bytes[60], bytes[61]] = check.to_le_bytes();
}

/// Adds a delta to a check; both with their first byte lowest, which is the same sum.
#[inline(always)]
fn add_to<const N: usize>(bytes: &mut [u8; N], at: usize, delta: u16) {
    let check = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    [bytes[at], bytes[at + 1]] = checksum::adjust_delta(check, delta).to_le_bytes();
}

/// The other protocols of [`apply_cached`].
fn cached_rarely(l4: &mut [u8], headers: &Headers, to: &Tuple, deltas: Deltas) -> bool {
    match to.proto {
        proto::ICMP | proto::ICMPV6 => {
            let Some(icmp) = l4.first_chunk_mut::<8>() else { return false };
            if has_id(to.proto, icmp[0]) {
                icmp[4..6].copy_from_slice(&to.src_id.to_be_bytes());
            }
            adjust(&mut icmp[2..4], deltas.l4);
        }
        proto::UDPLITE => {
            let Some(udp) = l4.first_chunk_mut::<8>() else { return false };
            udp[0..2].copy_from_slice(&to.src_id.to_be_bytes());
            udp[2..4].copy_from_slice(&to.dst_id.to_be_bytes());
            adjust_udplite(&mut udp[6..8], deltas.l4);
        }
        proto::DCCP => {
            let Some(dccp) = l4.first_chunk_mut::<12>() else { return false };
            dccp[0..2].copy_from_slice(&to.src_id.to_be_bytes());
            dccp[2..4].copy_from_slice(&to.dst_id.to_be_bytes());
            adjust(&mut dccp[6..8], deltas.l4);
        }
        proto::SCTP => {
            let ports = (to.src_id as u32) << 16 | to.dst_id as u32;
            return set_sctp_ports(l4, ports, u32::MAX, headers.l4_len()).is_some();
        }
        proto::GRE => return set_call_id(l4, to.dst_id, headers.dst != to.dst).is_some(),
        _ => {}
    }
    true
}

/// Where the headers of a packet lie in a frame: the packet itself, or one quoted by an ICMP error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) l3: usize,
    pub(super) l4: usize,
    /// Where the packet's bytes end, whatever its own length says.
    pub(super) end: usize,
    /// Bytes of L4 header and payload when the packet was sent.
    pub(super) l4_len: u32,
    pub(super) proto: u8,
    /// The packet has an L4 header.
    pub(super) has_l4: bool,
}

/// Changes one end; `from` is its present address. L4 fields that the packet's end cuts off are
/// left out, as a quote may end after 8 bytes. True if the id was changed, `None` if there are no
/// headers.
pub(super) fn edit(
    frame: &mut [u8],
    place: &Place,
    manip: Manip,
    from: Address,
    to: &Tuple,
) -> Option<bool> {
    let (head, rest) = frame.split_at_mut_checked(place.l4)?;
    let l3 = head.get_mut(place.l3..)?;
    let (address, id) = match manip {
        Manip::Src => (to.src, to.src_id),
        Manip::Dst => (to.dst, to.dst_id),
    };
    match (from.is_v4(), manip) {
        (true, Manip::Src) => ipv4::ViewMut::new(l3)?.set_src(address),
        (true, Manip::Dst) => ipv4::ViewMut::new(l3)?.set_dst(address),
        (false, Manip::Src) => ipv6::ViewMut::new(l3)?.set_src(address),
        (false, Manip::Dst) => ipv6::ViewMut::new(l3)?.set_dst(address),
    }
    if !place.has_l4 {
        return Some(false);
    }
    let present = place.end.saturating_sub(place.l4).min(rest.len());
    let l4 = rest.get_mut(..present)?;
    let addresses = checksum::delta_address(from, address);
    Some(match place.proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::DCCP => {
            let port = match manip {
                Manip::Src => l4.get_mut(0..2)?,
                Manip::Dst => l4.get_mut(2..4)?,
            };
            let delta = checksum::combine(addresses, replace(port, id));
            match place.proto {
                proto::TCP => l4.get_mut(..20).map(|tcp| adjust(&mut tcp[16..18], delta)),
                proto::UDP => l4.get_mut(..8).map(|udp| adjust_udp(&mut udp[6..8], delta)),
                proto::DCCP => l4.get_mut(..8).map(|dccp| adjust(&mut dccp[6..8], delta)),
                _ => l4.get_mut(..8).map(|udp| adjust_udplite(&mut udp[6..8], delta)),
            };
            true
        }
        proto::SCTP => {
            let (ports, mask) = match manip {
                Manip::Src => ((id as u32) << 16, 0xffff_0000),
                Manip::Dst => (id as u32, 0x0000_ffff),
            };
            set_sctp_ports(l4, ports, mask, place.l4_len)?;
            true
        }
        proto::ICMP | proto::ICMPV6 => match l4.first_chunk_mut::<8>() {
            Some(icmp) => {
                let covered = place.proto == proto::ICMPV6;
                let mut delta = if covered { addresses } else { checksum::NO_DELTA };
                let named = has_id(place.proto, icmp[0]);
                if named {
                    delta = checksum::combine(delta, replace(&mut icmp[4..6], to.src_id));
                }
                adjust(&mut icmp[2..4], delta);
                named
            }
            None => false,
        },
        proto::GRE => set_call_id(l4, id, manip == Manip::Dst)?,
        _ => false,
    })
}

/// True if an ICMP or ICMPv6 type carries an identifier that is translated. Node information has
/// one that is not, in the kernel too.
#[inline]
fn has_id(proto: u8, kind: u8) -> bool {
    if proto == proto::ICMPV6 { is_echo_v6(kind) } else { is_query(proto, kind) }
}

#[inline]
const fn is_echo_v6(kind: u8) -> bool {
    kind == 128 || kind == 129
}

#[inline]
fn read(field: &[u8]) -> u16 {
    field.first_chunk().map_or(0, |word| u16::from_be_bytes(*word))
}

/// Writes a word and gives its delta.
#[inline(always)]
fn replace(field: &mut [u8], new: u16) -> u16 {
    let old = read(field);
    write(field, new);
    checksum::delta16(old, new)
}

#[inline]
fn write(field: &mut [u8], new: u16) {
    if let Some(word) = field.first_chunk_mut() {
        *word = new.to_be_bytes();
    }
}

#[inline]
fn adjust(check: &mut [u8], delta: u16) {
    write(check, checksum::adjust_delta(read(check), delta));
}

/// RFC 768: 0 means that there is no checksum, and a computed 0 is sent as `0xffff`.
#[inline]
fn adjust_udp(check: &mut [u8], delta: u16) {
    write(check, checksum::adjust_udp(read(check), delta));
}

/// RFC 3828: as UDP, but 0 is not "none"; the checksum is mandatory.
fn adjust_udplite(check: &mut [u8], delta: u16) {
    let adjusted = checksum::adjust_delta(read(check), delta);
    write(check, if adjusted == 0 { 0xffff } else { adjusted });
}

/// Sets the call id of an enhanced GRE header (RFC 2637), if the destination is what changes: the
/// packet carries only the id that its receiver chose. Plain GRE has none. `None` for what the
/// kernel cannot translate (`gre_manip_pkt`): less than eight bytes, and, to another destination,
/// an unknown version.
fn set_call_id(l4: &mut [u8], id: u16, to_destination: bool) -> Option<bool> {
    let gre = l4.first_chunk_mut::<8>()?;
    match gre[1] & 7 {
        _ if !to_destination => Some(false),
        0 => Some(false),
        1 => {
            gre[6..8].copy_from_slice(&id.to_be_bytes());
            Some(true)
        }
        _ => None,
    }
}

/// Replaces the ports under `mask` (source in the upper half) and, where the packet reaches so far,
/// the CRC32c (RFC 9260 appendix A), which covers `l4_len` bytes. `None` if there are no ports.
fn set_sctp_ports(l4: &mut [u8], ports: u32, mask: u32, l4_len: u32) -> Option<()> {
    let field = l4.first_chunk_mut::<4>()?;
    let old = u32::from_be_bytes(*field);
    let new = old & !mask | ports & mask;
    *field = new.to_be_bytes();
    if let Some(sctp) = l4.first_chunk_mut::<12>() {
        let [.., a, b, c, d] = *sctp;
        let change = (old ^ new).swap_bytes();
        let check = u32::from_le_bytes([a, b, c, d]) ^ crc::of_change(change, l4_len);
        sctp[8..12].copy_from_slice(&check.to_le_bytes());
    }
    Some(())
}

/// CRC32c arithmetic: polynomials over GF(2) modulo the Castagnoli polynomial, bits reflected, so
/// the coefficient of x^0 is bit 31.
mod crc {
    const POLYNOMIAL: u32 = 0x82f6_3b78;

    /// x^(8 * 2^k): moving a byte 2^k places towards the front.
    const SHIFTS: [u32; 16] = {
        let mut shifts = [0; 16];
        let mut power = 1 << (31 - 8);
        let mut k = 0;
        while k < 16 {
            shifts[k] = power;
            power = times(power, power);
            k += 1;
        }
        shifts
    };

    const fn times(a: u32, mut b: u32) -> u32 {
        let mut product = 0;
        let mut bit = 0;
        while bit < 32 {
            if a >> (31 - bit) & 1 == 1 {
                product ^= b;
            }
            b = b >> 1 ^ if b & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        product
    }

    /// What the CRC of `len` bytes changes by when their first four are XORed with `change` (first
    /// byte lowest). The initial value and the final complement cancel out.
    pub(super) fn of_change(change: u32, len: u32) -> u32 {
        // Four bytes, then x^32 for the division that a CRC is: x^(8 * (len - 4)) * x^32.
        SHIFTS
            .iter()
            .enumerate()
            .filter(|(k, _)| len >> k & 1 == 1)
            .fold(change, |moved, (_, &shift)| times(moved, shift))
    }
}

/// Packets built from nothing, every checksum summed in full: what edits are compared with.
#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use proptest::prelude::*;

    /// The CRC32c of RFC 9260 appendix A, bit by bit.
    pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ *byte as u32, |crc, _| {
                crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
            })
        })
    }

    /// An L4 header for `tuple` and `payload`; `no_check` leaves UDP without a checksum.
    pub(crate) fn l4(tuple: &Tuple, payload: &[u8], no_check: bool) -> Vec<u8> {
        let [src, dst] = [tuple.src_id, tuple.dst_id].map(u16::to_be_bytes);
        let ports = [src, dst].concat();
        let (mut bytes, check) = match tuple.proto {
            proto::TCP => {
                let fixed = [0, 0, 0, 9, 0, 0, 0, 8, 0x50, 0x18, 1, 0, 0, 0, 0, 0];
                ([&ports[..], &fixed].concat(), Some(16))
            }
            proto::UDP | proto::UDPLITE => {
                let len = (8 + payload.len() as u16).to_be_bytes();
                (
                    [&ports[..], &len, &[0, 0]].concat(),
                    (!no_check || tuple.proto == proto::UDPLITE).then_some(6),
                )
            }
            proto::SCTP => ([&ports[..], &[1, 2, 3, 4, 0, 0, 0, 0]].concat(), None),
            proto::DCCP => ([&ports[..], &[3, 0, 0, 0, 4, 1, 2, 3]].concat(), Some(6)),
            proto::ICMP | proto::ICMPV6 => {
                ([&dst[..], &[0, 0], &src[..], &[0, 7]].concat(), Some(2))
            }
            proto::GRE => ([&[0x30, 1, 0x88, 0x0b, 0, 0], &dst[..]].concat(), None),
            _ => (vec![0x55; 4], None),
        };
        bytes.extend(payload);
        if let Some(at) = check {
            let pseudo = match tuple.proto {
                proto::ICMP => 0,
                _ => checksum::pseudo(tuple.src, tuple.dst, tuple.proto, bytes.len() as u32),
            };
            let mut sum = checksum::Accumulator::new(pseudo);
            sum.add(&bytes);
            let is_udp = matches!(tuple.proto, proto::UDP | proto::UDPLITE);
            let check = if is_udp && sum.finish() == 0 { 0xffff } else { sum.finish() };
            write(&mut bytes[at..], check);
        }
        if tuple.proto == proto::SCTP {
            let crc = crc32c(&bytes).to_le_bytes();
            bytes[8..12].copy_from_slice(&crc);
        }
        bytes
    }

    /// An IP packet around L4 bytes; `long` gives it IPv4 options or an IPv6 destination header.
    pub(crate) fn ip(tuple: &Tuple, l4: &[u8], long: bool) -> Vec<u8> {
        let mut bytes;
        if tuple.is_v6() {
            let more: &[u8] = if long { &[tuple.proto, 0, 1, 4, 0, 0, 0, 0] } else { &[] };
            let len = ((more.len() + l4.len()) as u16).to_be_bytes();
            let next = if long { 60 } else { tuple.proto };
            bytes = vec![0x60, 0, 0, 0, len[0], len[1], next, 64];
            bytes.extend(tuple.src.bits().to_be_bytes());
            bytes.extend(tuple.dst.bits().to_be_bytes());
            bytes.extend(more);
        } else {
            let words = if long { 6 } else { 5 };
            let len = (words as usize * 4 + l4.len()) as u16;
            bytes = vec![0x40 | words, 0];
            bytes.extend(len.to_be_bytes());
            bytes.extend([0x12, 0x34, 0x40, 0, 64, tuple.proto, 0, 0]);
            bytes.extend(tuple.src.v4_bits().to_be_bytes());
            bytes.extend(tuple.dst.v4_bits().to_be_bytes());
            bytes.resize(words as usize * 4, 1);
            let check = checksum::internet(&bytes);
            write(&mut bytes[10..], check);
        }
        bytes.extend(l4);
        bytes
    }

    pub(crate) fn frame(ip: &[u8], v6: bool) -> Vec<u8> {
        let kind: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &kind[..], ip].concat()
    }

    pub(crate) fn address(v6: bool) -> BoxedStrategy<Address> {
        match v6 {
            true => any::<u128>().prop_map(|b| Address::v6(b >> 8 | 0x20 << 120)).boxed(),
            false => any::<u32>().prop_map(Address::v4).boxed(),
        }
    }

    fn id() -> impl Strategy<Value = u16> {
        prop_oneof![Just(0), Just(0xffff), any::<u16>()]
    }

    /// A tuple as it is and as it becomes; what a protocol does not translate stays.
    pub(crate) fn translation() -> impl Strategy<Value = (Tuple, Tuple)> {
        let protocols = prop_oneof![
            Just((proto::TCP, false)),
            Just((proto::UDP, false)),
            Just((proto::UDPLITE, false)),
            Just((proto::SCTP, false)),
            Just((proto::DCCP, false)),
            Just((proto::DCCP, true)),
            Just((proto::GRE, false)),
            Just((50, false)),
            Just((proto::ICMP, false)),
            Just((proto::TCP, true)),
            Just((proto::UDP, true)),
            Just((proto::SCTP, true)),
            Just((proto::ICMPV6, true)),
        ];
        protocols.prop_flat_map(|(proto, v6)| {
            let end = || (address(v6), id());
            (end(), end(), end(), end()).prop_map(move |(a, b, c, d)| {
                let tuple = |(src, src_id): (Address, u16), (dst, dst_id)| Tuple {
                    src,
                    dst,
                    src_id,
                    dst_id,
                    proto,
                };
                let (mut from, mut to) = (tuple(a, b), tuple(c, d));
                match proto {
                    proto::ICMP | proto::ICMPV6 => {
                        let kind = if v6 { 128 << 8 } else { 8 << 8 };
                        (from.dst_id, to.dst_id) = (kind, kind);
                    }
                    proto::GRE => (from.src_id, to.src_id) = (0, 0),
                    50 => {
                        (from.src_id, from.dst_id, to.src_id, to.dst_id) = (0, 0, 0, 0);
                    }
                    _ => {}
                }
                (from, to)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::samples::*;
    use super::*;
    use crate::wire::headers::{Fragment, parse};
    use proptest::prelude::*;

    fn whole(tuple: &Tuple, payload: &[u8], no_check: bool, long: bool) -> Vec<u8> {
        frame(&ip(tuple, &l4(tuple, payload, no_check), long), tuple.is_v6())
    }

    fn headers_of(frame: &[u8]) -> Headers {
        parse(frame, frame.len()).unwrap()
    }

    #[test]
    fn crc_of_the_rfc() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_sample_by_hand() {
        let from = Tuple {
            src: Address::v4(0xc0a8_0a02),
            dst: Address::v4(0xc633_6407),
            src_id: 40000,
            dst_id: 53,
            proto: proto::UDP,
        };
        let to = Tuple { src: Address::v4(0xcb00_7101), src_id: 1024, ..from };
        let mut frame = whole(&from, b"query", true, false);
        let mut headers = headers_of(&frame);
        assert!(apply(&mut frame, &mut headers, Manip::Src, &to));
        assert_eq!(frame[26..30], [203, 0, 113, 1]);
        assert_eq!(frame[34..36], [4, 0]);
        assert_eq!(frame[40..42], [0, 0], "no checksum stays none");
        assert_eq!((headers.src, headers.src_port, headers.dst_port), (to.src, 1024, 53));
        assert_eq!(headers, headers_of(&frame));
    }

    #[test]
    fn a_later_fragment_changes_addresses_only() {
        let from = Tuple {
            src: Address::v4(1 << 24),
            dst: Address::v4(2 << 24),
            src_id: 5,
            dst_id: 6,
            proto: proto::TCP,
        };
        let to = Tuple { src: Address::v4(3 << 24), src_id: 77, ..from };
        let mut packet = ip(&from, &[0xaa; 32], false);
        packet[6..8].copy_from_slice(&[0, 3]);
        packet[10..12].copy_from_slice(&[0, 0]);
        let check = checksum::internet(&packet[..20]);
        packet[10..12].copy_from_slice(&check.to_be_bytes());
        let mut one = frame(&packet, false);
        let mut headers = headers_of(&one);
        assert!(matches!(headers.fragment, Fragment::Later { .. }));
        let mut other = one.clone();
        assert!(apply_cached(&mut other, &headers, &to, Deltas::between(&from, &to)));
        assert!(apply(&mut one, &mut headers, Manip::Src, &to));
        assert_eq!(one, other);
        assert_eq!(headers_of(&one).src, to.src);
        assert_eq!(one[34..], [0xaa; 32]);
    }

    #[test]
    fn gre_that_cannot_be_translated() {
        let from = Tuple {
            src: Address::v4(1 << 24),
            dst: Address::v4(2 << 24),
            proto: proto::GRE,
            ..Tuple::default()
        };
        let source = Tuple { src: Address::v4(3 << 24), ..from };
        let destination = Tuple { dst: Address::v4(3 << 24), ..from };
        for (l4, of_source, of_destination) in [
            (&[][..], false, false),
            (&[0, 0], false, false),
            (&[0, 0, 8, 0], false, false),
            (&[0, 0, 8, 0, 1, 2, 3, 4], true, true),
            (&[0, 1, 0x88, 0x0b, 0, 0, 0, 0], true, true),
            (&[0, 2, 8, 0, 1, 2, 3, 4], true, false),
        ] {
            let whole = frame(&ip(&from, l4, false), false);
            for (to, manip, done) in
                [(source, Manip::Src, of_source), (destination, Manip::Dst, of_destination)]
            {
                let mut headers = headers_of(&whole);
                let cached = apply_cached(&mut whole.clone(), &headers, &to, Deltas::default());
                assert_eq!(cached, done, "{l4:?} {manip:?}");
                assert_eq!(apply(&mut whole.clone(), &mut headers, manip, &to), done);
            }
        }
    }

    proptest! {
        #[test]
        fn an_edited_packet_is_the_one_built_anew_and_back(
            (from, to) in translation(), no_check: bool, long: bool,
            payload in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let before = whole(&from, &payload, no_check, long);
            let after = whole(&to, &payload, no_check, long);
            let mut frame = before.clone();
            let arrived = headers_of(&frame);
            let mut headers = arrived;
            prop_assert!(apply(&mut frame, &mut headers, Manip::Dst, &to));
            prop_assert_eq!(headers, headers_of(&frame), "the rules between see the header");
            prop_assert!(apply(&mut frame, &mut headers, Manip::Src, &to));
            prop_assert_eq!(headers, headers_of(&frame));
            prop_assert_eq!(&frame, &after);

            let mut cached = before.clone();
            let there = Deltas::between(&from, &to);
            if !from.is_v6() && matches!(from.proto, proto::TCP | proto::UDP) {
                prop_assert_eq!(Deltas::of_words(&KeyV4::of(&from), &KeyV4::of(&to)), there);
            }
            prop_assert!(apply_cached(&mut cached, &arrived, &to, there));
            prop_assert_eq!(&cached, &after);

            if from.is_v6() && matches!(from.proto, proto::TCP | proto::UDP) && !long {
                let (src, dst) = (to.src.bits(), to.dst.bits());
                let addresses = [src >> 64, src, dst >> 64, dst].map(|word| word as u64);
                let (ids, l4) = (KeyV4::ids_of(&to), there.l4.swap_bytes());
                let (udp, macs) = (from.proto == proto::UDP, [7; 12]);
                let mut lean = before.clone();
                let leaving = LeavingV6 { addresses, ids, l4 };
                forward_lean_v6(&mut lean, &macs, udp, Some(|| leaving));
                let mut forwarded = after.clone();
                forwarded[..12].copy_from_slice(&macs);
                forwarded[21] -= 1;
                prop_assert_eq!(&lean, &forwarded);
                let mut lean = before.clone();
                forward_lean_v6(&mut lean, &macs, udp, None::<fn() -> LeavingV6>);
                prop_assert_eq!(&lean[22..], &before[22..]);
                prop_assert_eq!((&lean[..12], lean[21]), (&macs[..], before[21] - 1));
            }
            prop_assert!(apply_cached(&mut cached, &headers, &from, Deltas::between(&to, &from)));
            prop_assert_eq!(&cached, &before);
            prop_assert!(apply(&mut frame, &mut headers, Manip::Src, &from));
            prop_assert!(apply(&mut frame, &mut headers, Manip::Dst, &from));
            prop_assert_eq!(&frame, &before);
        }

        #[test]
        fn no_frame_and_no_offset_panics(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
            (_, to) in translation(), [l3, l4]: [u16; 2], end: u32, small: bool,
        ) {
            let mut packet = frame(&ip(&to, &l4_of(&to), false), to.is_v6());
            let mut headers = headers_of(&packet);
            let (l3, l4, end) = if small { (l3 % 64, l4 % 128, end % 160) } else { (l3, l4, end) };
            (headers.l3, headers.l4, headers.end) = (l3, l4, end);
            let deltas = Deltas { l3: l3 ^ l4, l4 };
            for frame in [&mut bytes, &mut packet] {
                apply_cached(frame, &headers, &to, deltas);
                apply(frame, &mut headers, Manip::Src, &to);
                apply(frame, &mut headers, Manip::Dst, &to);
            }
        }
    }

    fn l4_of(tuple: &Tuple) -> Vec<u8> {
        l4(tuple, &[1, 2, 3], false)
    }
}
