//! What an lcore and the control core tell each other.
//!
//! Buffers for answers are allocated by the control core and travel in the request, so an lcore
//! neither allocates nor frees. How messages travel is the business of `lcore::mailbox`.

use std::fmt;
use std::sync::Arc;

use arrayvec::{ArrayString, ArrayVec};

use crate::conntrack::helper::Helper;
use crate::conntrack::index::Moved;
use crate::conntrack::invalid::Remark;
use crate::conntrack::record::{ConnId, Family};
use crate::conntrack::store::Shared;
use crate::conntrack::view::{ConnView, EventView};
use crate::conntrack::views::Which;
use crate::pipeline::by_hand::{Changes, NewConn};
use crate::pipeline::invalid::Finding;
use crate::pipeline::neighbours::LINK_MESSAGE_MAX;
use crate::pipeline::snapshot::Snapshot;
use crate::rules::facts::PortId;
use crate::rules::sets::Change;
use crate::rules::targets::nflog::Nflog;

/// Conns one request may name.
pub const BATCH_MAX: usize = 256;

/// A stretch of record numbers to be listed.
#[derive(Debug)]
pub struct Slice {
    /// Which number space.
    pub family: Family,
    /// First number; the answer holds the number to go on from.
    pub from: u32,
    /// Numbers looked at at most.
    pub numbers: u32,
    /// Set the counters of what is listed back to 0.
    pub zero: bool,
    /// True in the answer once no number lies behind `from`.
    pub end: bool,
    /// Room for the answer: never grown beyond its capacity.
    pub conns: Vec<ConnView>,
}

/// A packet that hit a LOG or NFLOG rule or is traced, or of which tracking has something to say,
/// with what the line needs.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// `--log-prefix` or `--nflog-prefix`, or the place that a traced packet came by.
    pub prefix: ArrayString<{ Nflog::MAX_PREFIX }>,
    /// What the line says where no rule writes it.
    pub said: Option<Sentence>,
    /// Syslog level, 0 to 7.
    pub level: u8,
    /// What to print besides (`Log::TCP_SEQUENCE` and its like).
    pub flags: u8,
    /// `--nflog-group` and `--nflog-size` of an NFLOG rule.
    pub group: Option<(u16, Option<u32>)>,
    /// Where the packet came in.
    pub in_port: Option<PortId>,
    /// Where it is going.
    pub out_port: Option<PortId>,
    /// Its first bytes, from the Ethernet header on (from the IP header where there is none yet).
    pub head: ArrayVec<u8, LOG_BYTES>,
    /// Offset of the IP header in `head`.
    pub l3: usize,
    /// The packet's mark.
    pub mark: u32,
}

/// What tracking says of a packet, in the kernel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sentence {
    /// `log_invalid`: the protocol's number, and what its tracker thinks.
    Remark(u8, Remark),
    /// The helper drops a packet, as what it announces cannot be expected (`nf_ct_helper_log`).
    NotExpected(Helper),
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sentence::Remark(proto, remark) => write!(f, "nf_ct_proto_{proto}: {remark}"),
            Sentence::NotExpected(helper) => {
                let name = helper.name();
                write!(f, "nf_ct_{name}: dropping packet: cannot add expectation")
            }
        }
    }
}

/// Bytes of a packet that a LOG line is made from: Ethernet, the longest IPv4 header, TCP.
pub const LOG_BYTES: usize = 14 + 4 + 60 + 60;

/// From the control core.
#[derive(Debug)]
pub enum ToLcore {
    /// Use this policy from the next burst on.
    Adopt(Arc<Snapshot>),
    /// Delete those whose deadline has passed; comes back as [`FromLcore::Expired`].
    Expire(Box<Vec<ConnId>>),
    /// The table is (nearly) full: delete those that an early drop may take, as long as it is;
    /// comes back as [`FromLcore::Expired`].
    Relieve(Box<Vec<ConnId>>),
    /// Delete whatever the deadline says; comes back as [`FromLcore::Deleted`] with the same number
    /// of the question. Next to it the process that asks, for the events.
    Delete(u32, Option<u32>, Box<Vec<ConnId>>),
    /// Make a conn; comes back as [`FromLcore::Created`] with the same number of the question.
    Create(u32, Box<NewConn>),
    /// Change conns; comes back as [`FromLcore::Changed`] with the same number of the question.
    Change(u32, Box<Changes>),
    /// List conns; comes back as [`FromLcore::Listed`] with the same number of the question.
    List(u32, Box<Slice>),
    /// Copy the last INVALID packets; comes back as [`FromLcore::Found`] with the same number of
    /// the question.
    Find(u32, Box<Vec<Finding>>),
    /// Spread the sums of cached paths over the rule counters.
    Fold,
    /// See the table through this view from the next burst on; the old one comes back as
    /// [`FromLcore::Viewed`].
    View(Arc<Shared>),
    /// Move this lcore's entries in so many buckets, from this one on, to the array of another
    /// size; comes back as [`FromLcore::Moved`].
    Move(Which, u32, u32),
    /// Send this frame (ARP and neighbour solicitations).
    Transmit(PortId, ArrayVec<u8, LINK_MESSAGE_MAX>),
}

/// To the control core.
#[derive(Debug)]
pub enum FromLcore {
    /// The policy that was in force until now, with its final counters.
    Retired(Arc<Snapshot>),
    /// The buffer of an [`ToLcore::Expire`], emptied.
    Expired(Box<Vec<ConnId>>),
    /// The buffer of a [`ToLcore::Delete`], holding those that were deleted.
    Deleted(u32, Box<Vec<ConnId>>),
    /// A [`ToLcore::Create`] with its outcome.
    Created(u32, Box<NewConn>),
    /// A [`ToLcore::Change`], done.
    Changed(u32, Box<Changes>),
    /// The view that was in force until now.
    Viewed(Arc<Shared>),
    /// What a [`ToLcore::Move`] has done.
    Moved(Which, Moved),
    /// A filled slice.
    Listed(u32, Box<Slice>),
    /// The buffer of a [`ToLcore::Find`], filled as far as its capacity reaches, oldest first.
    Found(u32, Box<Vec<Finding>>),
    /// All sums are in the rule counters.
    Folded,
    /// A conn came, changed or went, while somebody listens.
    Event(EventView),
    /// A LOG rule was hit, `log_invalid` asks for a line, or a helper drops a packet.
    Log(LogLine),
    /// A SET rule was hit by what its set has not, or has.
    Change(Change),
    /// The table is full.
    TableFull,
    /// The table of expectations is full.
    ExpectationsFull,
}
