//! The small shared vocabulary: direction, packet state (`ctinfo`) and status bits.

/// Which of a conn's two tuples a packet matches (`IP_CT_DIR_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// The direction of the conn's first packet.
    Original = 0,
    /// The answers.
    Reply = 1,
}

impl Direction {
    /// The other direction.
    #[inline]
    pub const fn opposite(self) -> Direction {
        match self {
            Direction::Original => Direction::Reply,
            Direction::Reply => Direction::Original,
        }
    }

    /// 0 for original, 1 for reply.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A packet's state as rules see it (`ctinfo` of netfilter, with "no conn" and `UNTRACKED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CtState {
    /// Original direction, nothing came back yet.
    New = 0,
    /// Any packet of a conn that has been answered.
    Established = 1,
    /// First packets of an expected conn, and ICMP errors about a tracked one.
    Related = 2,
    /// No conn attached although tracking was asked for.
    Invalid = 3,
    /// Tracking was switched off by a rule, or does not apply (neighbour discovery).
    Untracked = 4,
}

/// A conn's status bits (`enum ip_conntrack_status`; same positions, so masks read alike).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// Came from an expectation.
    pub const EXPECTED: Status = Status(1 << 0);
    /// A reply was accepted; its absence prints as `[UNREPLIED]`.
    pub const SEEN_REPLY: Status = Status(1 << 1);
    /// Never dropped early.
    pub const ASSURED: Status = Status(1 << 2);
    /// In the table: the first packet has left.
    pub const CONFIRMED: Status = Status(1 << 3);
    /// The source is translated.
    pub const SRC_NAT: Status = Status(1 << 4);
    /// The destination is translated.
    pub const DST_NAT: Status = Status(1 << 5);
    /// TCP sequence numbers need adjusting.
    pub const SEQ_ADJUST: Status = Status(1 << 6);
    /// Source NAT has been decided (also when it was decided to do nothing).
    pub const SRC_NAT_DONE: Status = Status(1 << 7);
    /// Destination NAT has been decided.
    pub const DST_NAT_DONE: Status = Status(1 << 8);
    /// Being deleted.
    pub const DYING: Status = Status(1 << 9);
    /// The timeout is fixed and no packet refreshes it.
    pub const FIXED_TIMEOUT: Status = Status(1 << 10);
    /// Entered under its reply tuple alone, as its original one was taken when it was confirmed.
    pub const NAT_CLASH: Status = Status(1 << 12);

    /// True if every bit of `other` is set here.
    #[inline]
    pub const fn has(self, other: Status) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[inline]
    pub const fn with(self, other: Status) -> Status {
        Status(self.0 | other.0)
    }
}
