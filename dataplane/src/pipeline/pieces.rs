//! Packets leave in pieces: `ip_do_fragment` and `ip6_fragment`.
//!
//! A datagram that came in fragments leaves in fragments, none larger than the largest that came.
//! Where they still fit they are the same again, byte by byte in their payload; where they do not,
//! because the way out is narrower, a fragment's IP options are not the others', or a header that
//! is looked at was in several, all are cut anew. A packet that came whole is cut if its way out is
//! too narrow and its header allows it. IPv6 packets are only cut here if they came in fragments or
//! are our own.
//!
//! The pieces are new frames, copied: the packet's own frame becomes the first of them and all
//! others count as generated. Bounds: a packet has at most 65535 bytes, a piece at least 8.

use crate::pipeline::drops::DropReason;
use crate::pipeline::fragments::Datagram;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::neighbour::Resolved;
use crate::pipeline::transit::{Attached, Transit};
use crate::pipeline::{At, Pipeline};
use crate::rules::facts::PortId;
use crate::wire::address::Address;
use crate::wire::headers::protocol;
use crate::wire::{ipv4, ipv6};

/// Bytes in one buffer; a longer piece is a chain of such.
const BUFFER: usize = 2048;

/// Bytes of an SCTP or DCCP header that are written to, or might be. Where the first fragment has
/// fewer, the kernel takes the rest from the second and forgets how they came
/// (`skb_ensure_writable`).
pub(crate) const CHECKED_HEADER: u16 = 12;

/// Where pieces go.
#[derive(Clone, Copy)]
pub(crate) enum Towards {
    /// To a next hop.
    NextHop(Address, Resolved),
    /// To the MAC address that the packet has.
    AsFramed,
}

/// How a packet is cut.
struct Cut {
    /// Offset in the frame of what is cut; what lies before it is repeated.
    payload: usize,
    /// Most bytes of payload in a piece.
    most: usize,
    /// Bytes of payload.
    len: usize,
    /// How the pieces came, if they are to leave so.
    as_it_came: Option<Datagram>,
    /// IPv6: offset of the byte that names what is cut, and the identification.
    named: usize,
    id: u32,
}

/// Reads a frame's bytes in order, whatever segments they are in.
struct Cursor<'a, I> {
    segments: I,
    current: &'a [u8],
}

impl<'a, I: Iterator<Item = &'a [u8]>> Cursor<'a, I> {
    fn new(segments: I) -> Cursor<'a, I> {
        Cursor { segments, current: &[] }
    }

    fn skip(&mut self, mut n: usize) {
        while n > self.current.len() {
            n -= self.current.len();
            let Some(next) = self.segments.next() else { return self.current = &[] };
            self.current = next;
        }
        self.current = self.current.get(n..).unwrap_or_default();
    }

    /// Fills `place`; false if there is not so much.
    fn read(&mut self, mut place: &mut [u8]) -> bool {
        while !place.is_empty() {
            if self.current.is_empty() {
                let Some(next) = self.segments.next() else { return false };
                self.current = next;
                continue;
            }
            let n = place.len().min(self.current.len());
            let ((to, left), (from, rest)) = (place.split_at_mut(n), self.current.split_at(n));
            to.copy_from_slice(from);
            (place, self.current) = (left, rest);
        }
        true
    }
}

/// True if a packet may not leave by a link of this MTU, in one piece or in several
/// (`ip_exceeds_mtu`, `ip6_pkt_too_big`, `ip6_fragment`).
pub(crate) fn exceeds<F>(t: &Transit<F>, mtu: u32) -> bool {
    let own = t.in_port.is_none() && t.host.is_none();
    let cut_at_will = if t.is_v6() { own } else { !t.headers.dont_fragment };
    t.headers.ip_len() > mtu && !cut_at_will && t.datagram.is_none_or(|d| d.size > mtu)
}

/// True if a packet leaves in pieces (`ip_finish_output`, `ip6_finish_output`).
pub(crate) fn leaves_in_pieces<F>(t: &Transit<F>, mtu: u32) -> bool {
    let len = t.headers.ip_len();
    len > mtu || t.datagram.is_some_and(|d| !t.is_v6() || len > d.size)
}

impl<P: FramePool> Pipeline<P> {
    /// Sends a packet in pieces.
    #[cold]
    #[inline(never)]
    pub(crate) fn send_pieces(
        &mut self,
        pool: &mut P,
        t: Transit<P::Frame>,
        port: PortId,
        towards: Towards,
        at: At<'_>,
    ) {
        let mtu = at.policy.port(port).mtu;
        let Some(mut cut) = cut_of(&t, mtu, at.policy.knobs.checksum) else {
            return self.drop_frame(t.frame, DropReason::TooBig);
        };
        cut.id = self.random.next();
        if cut.as_it_came.is_some_and(|d| !lengths(&t.frame, &cut, d).all(|fits| fits.1)) {
            cut.as_it_came = None;
        }
        let mut same = cut.as_it_came.map(|d| lengths(&t.frame, &cut, d));
        let mut bytes = Cursor::new(t.frame.segments());
        bytes.skip(cut.payload);
        let mut offset = 0;
        while offset < cut.len {
            let left = cut.len - offset;
            let len = match same.as_mut().and_then(Iterator::next) {
                Some((len, _)) => len.min(left),
                None if left > cut.most => cut.most & !7,
                None => left,
            };
            if offset > 0 {
                self.links.counters.generated.add(1);
            }
            let more = offset + len < cut.len;
            let piece = piece(pool, &t, &cut, (offset, len, more), &mut bytes);
            offset += len;
            match (piece, towards) {
                (None, _) => self.links.counters.count_drop(DropReason::NoMbuf),
                (Some(piece), Towards::AsFramed) => self.put_out(port, piece),
                (Some(piece), Towards::NextHop(next_hop, first)) => {
                    // The first one has asked for the neighbour, if need be.
                    let resolved =
                        if offset == len { first } else { self.resolve(port, next_hop, at) };
                    self.transmit(pool, piece, (port, next_hop), resolved, at);
                }
            }
        }
    }
}

/// How a packet is cut for a link of this MTU; `None` if there is no way.
fn cut_of<F: Frame>(t: &Transit<F>, mtu: u32, checked: bool) -> Option<Cut> {
    let (h, l3) = (&t.headers, t.headers.l3 as usize);
    let (payload, named, added, size) = if h.is_v6() {
        let (len, named) = ipv6::unfragmentable(t.frame.head().get(l3..)?)?;
        let size = t.datagram.map_or(mtu, |d| d.size.min(mtu).max(ipv6::MTU_MIN));
        (l3 + len, l3 + named, ipv6::FRAGMENT_LEN, size)
    } else {
        (h.l4 as usize, 0, 0, t.datagram.map_or(mtu, |d| d.size.min(mtu)))
    };
    let most = (size as usize).checked_sub(payload - l3 + added)?;
    let len = (h.end as usize).checked_sub(payload)?;
    // What looked at the CRC has moved the header together (`sctp_error`).
    let looked_at = checked && t.in_port.is_some() && !matches!(t.attached, Attached::Untracked);
    let moved = looked_at && h.proto == protocol::SCTP;
    let as_it_came = t.datagram.filter(|d| d.as_it_came && !(moved && d.first < CHECKED_HEADER));
    (most >= 8).then_some(Cut { payload, most, len, as_it_came, named, id: 0 })
}

/// Bytes of payload of each piece as it came, and whether it can leave so.
fn lengths<'a, F: Frame>(
    frame: &'a F,
    cut: &Cut,
    datagram: Datagram,
) -> impl Iterator<Item = (usize, bool)> + use<'a, F> {
    let (most, len) = (cut.most, cut.len);
    let mut reached = frame.head().len().saturating_sub(cut.payload);
    // The last fragment may have been moved as a whole.
    let alone = (frame.segments().count() == 1).then_some(reached);
    let behind = frame.segments().skip(1).map(move |segment| {
        reached += segment.len();
        reached
    });
    let mut before = 0;
    datagram.ends().chain(alone).chain(behind).filter_map(move |end| {
        let piece = end.saturating_sub(before);
        before = end;
        (piece > 0).then_some((piece, piece <= most && (piece.is_multiple_of(8) || end == len)))
    })
}

/// One piece: `offset`, bytes, whether more follow. `None` if there is no buffer for it.
fn piece<'a, P: FramePool>(
    pool: &mut P,
    t: &Transit<P::Frame>,
    cut: &Cut,
    (offset, len, more): (usize, usize, bool),
    bytes: &mut Cursor<'a, impl Iterator<Item = &'a [u8]>>,
) -> Option<P::Frame> {
    let v6 = t.is_v6();
    let added = if v6 { ipv6::FRAGMENT_LEN } else { 0 };
    let header = t.frame.head().get(..cut.payload)?;
    let start = cut.payload + added;
    let here = len.min(BUFFER.checked_sub(start)?);
    let Some(mut frame) = pool.allocate(start + here) else {
        bytes.skip(len);
        return None;
    };
    let head = frame.head_mut();
    head.get_mut(..cut.payload)?.copy_from_slice(header);
    let written = if v6 {
        write_v6(head, t, cut, (offset, len, more))
    } else {
        write_v4(head, t, cut, (offset, len, more))
    };
    let mut whole = written.is_some() && bytes.read(head.get_mut(start..)?);
    let mut left = len - here;
    while left > 0 {
        let n = left.min(BUFFER);
        left -= n;
        match pool.allocate(n) {
            Some(mut next) => {
                whole &= bytes.read(next.head_mut()) && frame.chain(next).is_ok();
            }
            None => {
                whole = false;
                bytes.skip(n);
            }
        }
    }
    whole.then_some(frame)
}

/// The IPv4 header of a piece.
fn write_v4<F>(
    head: &mut [u8],
    t: &Transit<F>,
    cut: &Cut,
    (offset, len, more): (usize, usize, bool),
) -> Option<()> {
    let l3 = t.headers.l3 as usize;
    let header = head.get_mut(l3..cut.payload)?;
    let total = header.len() + len;
    let as_it_came = cut.as_it_came.is_some();
    if offset > 0 {
        ipv4::keep_copied_options(header);
    }
    // Datagrams have DF where the largest fragment had it; cut anew, their pieces do.
    let keeps_df = t.headers.dont_fragment && !as_it_came;
    let mut ip = ipv4::ViewMut::new(header)?;
    let word = (offset >> 3) as u16
        | if more { ipv4::MORE_FRAGMENTS } else { 0 }
        | if keeps_df { ipv4::DONT_FRAGMENT } else { 0 };
    ip.set_total_len(total as u16);
    ip.set_fragment_word(word);
    Some(())
}

/// The IPv6 header of a piece, and its fragment header behind what is repeated.
fn write_v6<F>(
    head: &mut [u8],
    t: &Transit<F>,
    cut: &Cut,
    (offset, len, more): (usize, usize, bool),
) -> Option<()> {
    let l3 = t.headers.l3 as usize;
    let next = core::mem::replace(head.get_mut(cut.named)?, protocol::FRAGMENT);
    let mut ip = ipv6::ViewMut::new(head.get_mut(l3..)?)?;
    let behind = cut.payload - l3 - ipv6::HEADER_LEN + ipv6::FRAGMENT_LEN + len;
    ip.set_payload_len(behind as u16);
    let header = ipv6::fragment_header(next, offset as u16, more, cut.id);
    head.get_mut(cut.payload..)?.first_chunk_mut().map(|place| *place = header)
}
