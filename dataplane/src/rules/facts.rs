//! What a rule can look at: the facts of one packet at one hook.
//!
//! The pipeline fills [`Facts`] once and edits what changes on the way (addresses after a rewrite,
//! the out port after routing, the mark after a walk). What only few rules ask for (the conn's two
//! tuples, its remaining time) stays behind the trait [`Conn`], so building facts costs nothing
//! but a reference; the trait is called only by rules that name such a thing.

use core::cell::Cell;

use crate::conntrack::helper::Helper;
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::tuple::Tuple;
use crate::conntrack::zones::Zones;
use crate::time::Now;
use crate::wire::address::Address;

/// Number of a configured port, by position in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u8);

/// One packet as the header stands at the hook. Ports and lengths are in host order.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Port of arrival; `None` for what the gateway itself sends.
    pub in_port: Option<PortId>,
    /// Port of departure; `None` before routing and for what goes to the gateway.
    pub out_port: Option<PortId>,
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Transport protocol, for IPv6 after the extension headers.
    pub proto: u8,
    /// Offset of a later fragment in units of 8 bytes; 0 for a whole packet or a first fragment.
    pub fragment_offset: u16,
    /// Source port; 0 where the protocol has none.
    pub src_port: u16,
    /// Destination port; 0 where the protocol has none.
    pub dst_port: u16,
    /// Byte 13 of the TCP header.
    pub tcp_flags: u8,
    /// ICMP or ICMPv6 type.
    pub icmp_type: u8,
    /// ICMP or ICMPv6 code.
    pub icmp_code: u8,
    /// The protocol's fixed header is wholly there (20 bytes of TCP, 8 of UDP and ICMP, 4 bytes of
    /// ports for others). A rule that has to look into a header cut short drops the packet.
    pub l4_valid: bool,
    /// Length of the whole packet from the IP header on, in bytes.
    pub length: u32,
    /// The packet's mark.
    pub mark: u32,
    /// The frame from the link's header on, as far as it lies in the first segment.
    pub frame: &'a [u8],
    /// Where the IP header begins in it.
    pub l3_at: u16,
    /// Where the transport header begins in it, or what a later fragment carries.
    pub l4_at: u16,
    /// What few rules ask that is neither the packet's nor its conn's.
    pub around: &'a dyn Around,
    /// What connection tracking said.
    pub ct: CtFacts<'a>,
}

impl<'a> Facts<'a> {
    /// The link's header; empty for a packet of our own.
    #[inline]
    pub fn link(&self) -> &'a [u8] {
        self.frame.get(..self.l3_at as usize).filter(|_| self.in_port.is_some()).unwrap_or(&[])
    }

    /// The packet from its IP header on.
    #[inline]
    pub fn packet(&self) -> &'a [u8] {
        self.frame.get(self.l3_at as usize..).unwrap_or(&[])
    }

    /// The same without what pads the frame.
    #[inline]
    pub fn ip(&self) -> &'a [u8] {
        let packet = self.packet();
        packet.get(..self.length as usize).unwrap_or(packet)
    }

    /// The packet's bytes from its IP header to its end, piece by piece, until `visit` says false.
    /// Nearly every packet is one piece.
    pub fn pieces(&self, visit: &mut dyn FnMut(&[u8]) -> bool) {
        let packet = self.ip();
        if packet.len() == self.length as usize {
            visit(packet);
            return;
        }
        let (mut skip, mut left) = (self.l3_at as usize, self.length as usize);
        self.around.segments(&mut |segment| {
            let skipped = skip.min(segment.len());
            skip -= skipped;
            let piece = segment.get(skipped..).unwrap_or(&[]);
            let piece = piece.get(..left).unwrap_or(piece);
            left -= piece.len();
            visit(piece) && left > 0
        });
    }

    /// Four bytes of the packet, `at` so many behind the beginning of its IP header; `None` if it
    /// has not so many.
    pub fn four_bytes(&self, at: usize) -> Option<[u8; 4]> {
        if let Some(bytes) = self.ip().get(at..).and_then(|rest| rest.first_chunk()) {
            return Some(*bytes);
        }
        if at + 4 > self.length as usize {
            return None;
        }
        let (mut skip, mut have, mut bytes) = (at, 0, [0; 4]);
        self.pieces(&mut |piece| {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            for (to, &from) in bytes.iter_mut().skip(have).zip(piece.iter().skip(skipped)) {
                *to = from;
                have += 1;
            }
            have < 4
        });
        (have == 4).then_some(bytes)
    }

    /// Transport header and what follows.
    #[inline]
    pub fn l4(&self) -> &'a [u8] {
        self.frame.get(self.l4_at as usize..).unwrap_or(&[])
    }

    /// The same without what pads the frame.
    #[inline]
    pub fn transport(&self) -> &'a [u8] {
        self.ip().get(self.l4_at.saturating_sub(self.l3_at) as usize..).unwrap_or(&[])
    }

    /// True for a packet that has its transport header, as far as its protocol has one.
    #[inline]
    pub const fn is_whole(&self) -> bool {
        self.fragment_offset == 0 && self.l4_valid
    }
}

/// What connection tracking said about the packet.
#[derive(Clone, Copy)]
pub struct CtFacts<'a> {
    /// State as `--ctstate` sees it.
    pub state: CtState,
    /// Which of the conn's tuples the packet matched; original where there is no conn.
    pub direction: Direction,
    /// The conn, confirmed or not; `None` for invalid and untracked packets and before tracking.
    pub conn: Option<&'a dyn Conn>,
}

impl CtFacts<'_> {
    /// Before tracking (table raw), or tracking refused: no conn, state INVALID.
    pub const NONE: CtFacts<'static> =
        CtFacts { state: CtState::Invalid, direction: Direction::Original, conn: None };
}

/// The questions few rules ask about a conn; implemented on the record and on unconfirmed conns.
pub trait Conn {
    /// Status bits.
    fn status(&self) -> Status;
    /// Tuple of the original direction.
    fn original(&self) -> Tuple;
    /// Tuple of the reply direction.
    fn reply(&self) -> Tuple;
    /// Whole seconds until the conn expires, 0 while it is unconfirmed.
    fn expires_secs(&self) -> u32;
    /// Its labels, bit by bit; `None` if it can have none.
    fn labels(&self) -> Option<u128>;
    /// Sets a label, below 128; false if only another lcore can do that.
    fn set_label(&self, label: u8) -> bool;
    /// Its mark.
    fn mark(&self) -> u32;
    /// Sets its mark; false if only another lcore can do that.
    fn set_mark(&self, mark: u32) -> bool;
    /// Packets and bytes of a direction; `None` if it does not count.
    fn counted(&self, direction: Direction) -> Option<(u64, u64)>;
    /// The helper that reads it.
    fn helper(&self) -> Option<Helper>;
    /// The helper that reads its master, where it has one that lives.
    fn master_helper(&self) -> Option<Helper>;
    /// The zones of its tuples.
    fn zones(&self) -> Zones;
}

/// What addresses and routes say of an address (`RTN_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceOf {
    /// The gateway's own, on this port.
    Local(PortId),
    /// A broadcast address.
    Broadcast,
    /// The gateway's, with every other router of the subnet (IPv6), on this port.
    Anycast(PortId),
    /// A group.
    Multicast,
    /// Somebody else's; packets to it leave by this port.
    Unicast(PortId),
    /// Behind a blackhole route.
    Blackhole,
    /// Behind an unreachable route.
    Unreachable,
    /// Behind a prohibit route.
    Prohibit,
    /// No route leads to it.
    NoRoute,
}

/// Where and when a packet is judged.
pub trait Around {
    /// When.
    fn now(&self) -> Now;
    /// What an address is; link-local ones mean something only on a port.
    fn place_of(&self, address: Address, port: Option<PortId>) -> PlaceOf;
    /// A random number, another one each time.
    fn random(&self) -> u32;
    /// The frame's segments from the link's header on, until `visit` says false.
    fn segments(&self, visit: &mut dyn FnMut(&[u8]) -> bool);
    /// How many conns are counted under a key, this packet's among them; `None` where there is no
    /// room to count it.
    fn conns_under(&self, _: &[u64; 4]) -> Option<u32> {
        Some(1)
    }
}

/// Nowhere and never: for what asks nothing of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

impl Around for Nowhere {
    fn now(&self) -> Now {
        Now::default()
    }

    fn place_of(&self, _: Address, _: Option<PortId>) -> PlaceOf {
        PlaceOf::NoRoute
    }

    fn random(&self) -> u32 {
        0
    }

    fn segments(&self, _: &mut dyn FnMut(&[u8]) -> bool) {}
}

/// A conn's answers written down, for explanations and tests.
#[derive(Clone, Debug, Default)]
pub struct ConnFacts {
    /// Status bits.
    pub status: Status,
    /// Tuple of the original direction.
    pub original: Tuple,
    /// Tuple of the reply direction.
    pub reply: Tuple,
    /// Seconds left.
    pub expires_secs: u32,
    /// Labels.
    pub labels: Cell<Option<u128>>,
    /// Mark.
    pub mark: u32,
    /// The mark that a rule has set.
    pub new_mark: Cell<Option<u32>>,
    /// Packets and bytes, original and reply.
    pub counted: Option<[(u64, u64); 2]>,
    /// Its own helper.
    pub helper: Option<Helper>,
    /// Its master's.
    pub master_helper: Option<Helper>,
    /// Zones.
    pub zones: Zones,
}

impl Conn for ConnFacts {
    fn status(&self) -> Status {
        self.status
    }

    fn original(&self) -> Tuple {
        self.original
    }

    fn reply(&self) -> Tuple {
        self.reply
    }

    fn expires_secs(&self) -> u32 {
        self.expires_secs
    }

    fn labels(&self) -> Option<u128> {
        self.labels.get()
    }

    fn set_label(&self, label: u8) -> bool {
        self.labels.set(self.labels.get().map(|labels| labels | 1 << (label & 127)));
        true
    }

    fn mark(&self) -> u32 {
        self.new_mark.get().unwrap_or(self.mark)
    }

    fn set_mark(&self, mark: u32) -> bool {
        self.new_mark.set(Some(mark));
        true
    }

    fn counted(&self, direction: Direction) -> Option<(u64, u64)> {
        self.counted.map(|counted| match direction {
            Direction::Original => counted[0],
            Direction::Reply => counted[1],
        })
    }

    fn helper(&self) -> Option<Helper> {
        self.helper
    }

    fn master_helper(&self) -> Option<Helper> {
        self.master_helper
    }

    fn zones(&self) -> Zones {
        self.zones
    }
}
