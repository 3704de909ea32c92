//! What can happen to a conn, as a set of bits (`enum ip_conntrack_events`), and what of it is
//! told.
//!
//! Which events of a conn are reported is decided when it begins (`nf_ct_ecache_ext_add`): those
//! that a rule names (`CT --ctevents`), or all; none where events are off or, by default, where
//! nobody listens at that moment. So who begins to listen hears of the conns that begin from then
//! on.

use super::view::EventKind;

/// Confirmed.
pub const NEW: u16 = 1 << 0;
/// Confirmed, and expected before.
pub const RELATED: u16 = 1 << 1;
/// Gone.
pub const DESTROY: u16 = 1 << 2;
/// The number of the first event that is no beginning and no end.
pub const FIRST_CHANGE: u32 = 3;
/// Answered for the first time.
pub const REPLY: u16 = 1 << FIRST_CHANGE;
/// Became ASSURED.
pub const ASSURED: u16 = 1 << 4;
/// The tracker's state changed.
pub const PROTOINFO: u16 = 1 << 5;
/// Has got a helper.
pub const HELPER: u16 = 1 << 6;
/// Its mark changed.
pub const MARK: u16 = 1 << 7;
/// What its sequence numbers are moved by changed.
pub const SEQADJ: u16 = 1 << 8;
/// Its labels changed.
pub const LABEL: u16 = 1 << 10;
/// Any of those that are no beginning and no end, as a tool's change is reported.
pub const CHANGE: u16 = !(NEW | RELATED | DESTROY);

/// The events of a conn and of its expectations that are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Of the conn.
    pub conn: u16,
    /// Of its expectations: bit 0 when they are made, bit 1 when they go.
    pub expectations: u8,
}

impl Reported {
    /// What is reported of a conn that begins now: `wanted` by a rule, with `sysctl`
    /// (`nf_conntrack_events`), `listened` if somebody listens.
    pub const fn at_birth(wanted: Reported, sysctl: u8, listened: bool) -> Reported {
        let any = wanted.conn != 0 || wanted.expectations != 0;
        match sysctl {
            2 if !listened => Reported { conn: 0, expectations: 0 },
            0 => wanted,
            _ if any => wanted,
            _ => Reported { conn: u16::MAX, expectations: u8::MAX },
        }
    }
}

/// Which message tells of these events (`ctnetlink_conntrack_event`).
pub const fn kind(events: u16) -> EventKind {
    if events & DESTROY != 0 {
        EventKind::Destroy
    } else if events & (NEW | RELATED) != 0 {
        EventKind::New
    } else {
        EventKind::Update
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_is_decided_as_in_the_kernel() {
        let none = Reported::default();
        let all = Reported { conn: u16::MAX, expectations: u8::MAX };
        let some = Reported { conn: DESTROY, expectations: 0 };
        let only_expectations = Reported { conn: 0, expectations: 1 };
        for (wanted, sysctl, listened, expected) in [
            (none, 0, true, none),
            (some, 0, false, some),
            (none, 1, false, all),
            (some, 1, false, some),
            (none, 2, false, none),
            (some, 2, false, none),
            (none, 2, true, all),
            (some, 2, true, some),
            (only_expectations, 2, true, only_expectations),
        ] {
            assert_eq!(Reported::at_birth(wanted, sysctl, listened), expected);
        }
    }

    #[test]
    fn the_most_decisive_event_names_the_message() {
        assert_eq!(kind(NEW | HELPER), EventKind::New);
        assert_eq!(kind(RELATED), EventKind::New);
        assert_eq!(kind(REPLY | ASSURED | PROTOINFO), EventKind::Update);
        assert_eq!(kind(DESTROY), EventKind::Destroy);
        assert_eq!(kind(CHANGE), EventKind::Update);
    }
}
