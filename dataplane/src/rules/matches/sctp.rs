//! `-m sctp`: ports and chunks.

use super::{Maybe, PortRange};
use crate::rules::facts::Facts;
use crate::rules::test::Answer;

/// `-m sctp` (`struct xt_sctp_info`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sctp {
    /// `--sport`.
    pub src_port: Option<Maybe<PortRange>>,
    /// `--dport`.
    pub dst_port: Option<Maybe<PortRange>>,
    /// `--chunk-types`.
    pub chunks: Option<Maybe<Box<Chunks>>>,
}

/// What of the chunk types has to be in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// One of them.
    Any,
    /// Each of them.
    All,
    /// Nothing else.
    Only,
}

/// The flags that a type of chunk has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkFlags {
    /// The type.
    pub kind: u8,
    /// Flags that count.
    pub mask: u8,
    /// What they have to be.
    pub set: u8,
}

/// `--chunk-types`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// How many.
    pub which: Which,
    /// The types, one bit each.
    pub kinds: ChunkSet,
    /// Flags of some of them, at most one of each type.
    pub flags: Vec<ChunkFlags>,
}

/// A set of chunk types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChunkSet(pub [u64; 4]);

impl ChunkSet {
    /// All 256.
    pub const ALL: ChunkSet = ChunkSet([u64::MAX; 4]);

    /// With one more.
    pub const fn with(mut self, kind: u8) -> ChunkSet {
        self.0[(kind >> 6) as usize] |= 1 << (kind & 63);
        self
    }

    /// With one less.
    const fn without(mut self, kind: u8) -> ChunkSet {
        self.0[(kind >> 6) as usize] &= !(1 << (kind & 63));
        self
    }

    /// True if it holds the type.
    pub const fn holds(&self, kind: u8) -> bool {
        self.0[(kind >> 6) as usize] >> (kind & 63) & 1 == 1
    }
}

impl Sctp {
    /// `sctp_mt`: a packet without its header, or with a chunk cut short, is dropped where the rule
    /// asks for it.
    pub(in crate::rules) fn judge(&self, facts: &Facts<'_>) -> Answer {
        let port =
            |asked: Option<Maybe<PortRange>>, id| asked.is_none_or(|p| p.judge(p.value.holds(id)));
        if facts.fragment_offset != 0 {
            return Answer::Fails;
        }
        let first = u32::from(facts.l4_at.saturating_sub(facts.l3_at)) + 12;
        if facts.length < first {
            return Answer::Drop;
        }
        if !port(self.src_port, facts.src_port) || !port(self.dst_port, facts.dst_port) {
            return Answer::Fails;
        }
        let Some(asked) = &self.chunks else { return Answer::Holds };
        let chunk = |at: u32| facts.four_bytes(at as usize);
        let met = asked.value.met(chunk, first, facts.length);
        met.map_or(Answer::Drop, |met| asked.judge(met).into())
    }
}

impl Chunks {
    /// `match_packet` over the chunks between `at` and `end`, whose first four bytes `chunk` reads;
    /// `None` for one that is not there or says that it has no length. A packet of none at all has
    /// such a one.
    fn met(&self, chunk: impl Fn(u32) -> Option<[u8; 4]>, mut at: u32, end: u32) -> Option<bool> {
        let mut missing = self.kinds;
        loop {
            let [kind, flags, high, low] = chunk(at)?;
            let length = u32::from(u16::from_be_bytes([high, low]));
            if length == 0 {
                return None;
            }
            let fits = self.kinds.holds(kind) && self.flags_fit(kind, flags);
            match self.which {
                Which::Any if fits => return Some(true),
                Which::Only if !fits => return Some(false),
                Which::All if fits => missing = missing.without(kind),
                _ => {}
            }
            at += length.next_multiple_of(4);
            if at >= end {
                break;
            }
        }
        Some(match self.which {
            Which::Any => false,
            Which::All => missing == ChunkSet::default(),
            Which::Only => true,
        })
    }

    fn flags_fit(&self, kind: u8, flags: u8) -> bool {
        let asked = self.flags.iter().find(|asked| asked.kind == kind);
        asked.is_none_or(|asked| flags & asked.mask == asked.set)
    }
}
