//! A packet on its way through the hooks: the frame and everything learnt about it so far.

use crate::conntrack::record::{ConnId, ConnRef};
use crate::conntrack::state::{CtState, Direction};
use crate::conntrack::zones::Zones;
use crate::pipeline::burst::Prejudged;
use crate::pipeline::drops::DropReason;
use crate::pipeline::fragments::Datagram;
use crate::pipeline::paths::Hits;
use crate::pipeline::translate::Leaving;
use crate::rules::facts::PortId;
use crate::rules::template::Template;
use crate::wire::address::Address;
use crate::wire::headers::Headers;

/// The conn a packet belongs to (`skb->_nfct`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attachment {
    pub conn: ConnRef,
    pub direction: Direction,
    pub state: CtState,
    /// Unconfirmed: allocated for this very packet and in no table yet.
    pub fresh: bool,
    /// The conn's first packet, before and after its confirmation.
    pub first: bool,
    /// Lent by the packet this one answers: neither confirmed nor released here.
    pub lent: bool,
    /// Timeout that becomes the deadline at confirm, in seconds.
    pub timeout_secs: u32,
    /// The conn ends with this packet (a RST that answers a SYN).
    pub delete: bool,
    /// An ICMP error about the conn, not a packet of it.
    pub error: bool,
    /// What happened that listeners may want to hear of (`conntrack::events`).
    pub events: u16,
    /// The finished conn of another lcore whose tuple this unconfirmed one was given.
    pub instead_of: Option<ConnId>,
}

impl Attachment {
    /// A packet of an established conn.
    pub(crate) fn of(conn: ConnRef, direction: Direction) -> Attachment {
        Attachment {
            conn,
            direction,
            state: CtState::Established,
            fresh: false,
            first: false,
            lent: false,
            timeout_secs: 0,
            delete: false,
            error: false,
            events: 0,
            instead_of: None,
        }
    }
}

/// What a fresh conn will be entered under.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Birth {
    /// The hashes of its original and its reply tuple.
    pub hashes: (u64, u64),
    /// Nobody had anything under either when they were looked at.
    pub vacant: bool,
}

/// What conntrack attached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attached {
    /// Nothing yet, or INVALID.
    Nothing,
    /// Tracking does not apply.
    Untracked,
    /// A conn.
    Conn(Attachment),
}

/// Where the layers of a packet lie in its frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub proto: u8,
    pub l3: u16,
    pub l4: u16,
    pub end: u32,
}

impl Extent {
    /// Bytes from the IP header on.
    #[inline(always)]
    pub(crate) fn ip_len(&self) -> u32 {
        self.end - self.l3 as u32
    }
}

impl From<&Headers> for Extent {
    #[inline(always)]
    fn from(h: &Headers) -> Extent {
        Extent { proto: h.proto, l3: h.l3, l4: h.l4, end: h.end }
    }
}

/// How a packet of the box's own programs came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FromHost {
    /// The kernel interface.
    pub tap: PortId,
    /// The port that it stands for.
    pub of: PortId,
}

/// A packet in the hooks.
#[derive(Debug)]
pub(crate) struct Transit<F> {
    pub frame: F,
    pub headers: Headers,
    /// `None` for packets of our own.
    pub in_port: Option<PortId>,
    /// Where a packet of the box's own programs came from.
    pub host: Option<FromHost>,
    pub out_port: Option<PortId>,
    /// The next hop, once it has been routed onwards.
    pub towards: Address,
    /// The frame was sent to our MAC address, not broadcast or multicast.
    pub addressed: bool,
    /// What every tracker checks first has been found right.
    pub sound: bool,
    /// The hash of its tuple as it came, and the zone that it is for.
    pub hash: Option<(u16, u64)>,
    pub attached: Attached,
    /// Of the conn that begins with it.
    pub birth: Birth,
    /// How that will probably leave, if its source is translated.
    pub leaving: Option<Leaving>,
    /// The tracker has spoken already, on the short way.
    pub prejudged: Option<Prejudged>,
    pub mark: u32,
    /// Each rule that it meets is told of.
    pub traced: bool,
    /// What the raw table says of a conn that begins with it.
    pub template: Option<Template>,
    /// It came in fragments.
    pub datagram: Option<Datagram>,
    /// The raw table has seen it on another lcore.
    pub past_raw: bool,
    /// Counters hit so far.
    pub hits: Hits,
    /// No rule looked at a per-packet fact, and the hits fitted.
    pub cacheable: bool,
}

impl<F> Transit<F> {
    pub(crate) fn new(frame: F, headers: Headers, in_port: Option<PortId>) -> Transit<F> {
        Transit {
            frame,
            headers,
            in_port,
            host: None,
            out_port: None,
            towards: Address::default(),
            addressed: true,
            sound: false,
            hash: None,
            attached: Attached::Nothing,
            birth: Birth::default(),
            leaving: None,
            prejudged: None,
            mark: 0,
            traced: false,
            template: None,
            datagram: None,
            past_raw: false,
            hits: Hits::new(),
            cacheable: true,
        }
    }

    pub(crate) fn attachment(&self) -> Option<&Attachment> {
        match &self.attached {
            Attached::Conn(a) => Some(a),
            _ => None,
        }
    }

    /// Where its conn lives, by what the raw table said.
    pub(crate) fn zones(&self) -> Zones {
        self.template.map_or(Zones::default(), |template| template.zone.zones(self.mark))
    }

    /// The link that it came by, or would by its tap.
    pub(crate) fn link(&self) -> Option<PortId> {
        self.in_port.or(self.host.map(|h| h.of))
    }

    pub(crate) fn is_v6(&self) -> bool {
        self.headers.is_v6()
    }
}

/// How a packet's way through the hooks ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Out of a port towards the next hop.
    Transmit(PortId),
    /// Out of a port with the MAC addresses that it has.
    Framed(PortId),
    /// The gateway itself took it.
    ToHost,
    /// The gateway took it and made its answer out of it.
    Answer,
    /// Nobody gets it.
    Drop(DropReason),
    /// Another lcore owns its conn, or makes room for it.
    Elsewhere(u8),
}

impl Exit {
    /// Whether the table filter let the packet pass; `None` where nobody asked it, or what came of
    /// it is not its doing.
    pub(crate) fn passed(&self) -> Option<bool> {
        match self {
            Exit::Transmit(_) | Exit::Framed(_) | Exit::ToHost | Exit::Answer => Some(true),
            Exit::Drop(DropReason::FilterDrop | DropReason::Rejected) => Some(false),
            Exit::Drop(_) | Exit::Elsewhere(_) => None,
        }
    }
}

impl From<DropReason> for Exit {
    fn from(reason: DropReason) -> Exit {
        Exit::Drop(reason)
    }
}
